"""Augmentation, normalisation and the sums that hospitals add up."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from torch.nn import functional

from skinfl.data.normalisation import Normalisation, normalise
from skinfl.data.transforms import (
    DRAWS,
    Augmentation,
    colours,
    normalisation_from_sums,
    pixel_sums,
    to_batch,
    transformed,
    turning,
)
from skinfl.devices import image_layout
from skinfl.errors import DataError
from skinfl.seeds import numpy_rng

KNOWN_MEANS = [0.497249, 0.485079, 0.495732, 0.535902, 0.536446, 0.454731]
KNOWN_PIXELS = [0.56122, 0.87252, 0.38117, 0.18579, 0.36973, 0.68964]


@pytest.fixture
def images():
    return np.random.RandomState(0).randint(0, 256, (50, 9, 9, 3)).astype(np.uint8)


def test_sums_by_hand():
    # One grey image of 0 and 255, one of 51 (a fifth): sums of means 0.5 + 0.2, of squares 0.5 + 0.04.
    images = np.array([[[[0], [255]]], [[[51], [51]]]], dtype=np.uint8)
    assert pixel_sums(images) == pytest.approx([0.7, 0.54, 2.0], abs=1e-15)


def test_sums_of_hospitals_give_the_statistics_of_all(images):
    total = pixel_sums(images[:7]) + pixel_sums(images[7:20]) + pixel_sums(images[20:])
    normalisation = normalisation_from_sums(total)
    x = images.reshape(-1, 3) / 255.0
    assert normalisation.mean == pytest.approx(x.mean(axis=0), abs=1e-12)
    assert normalisation.std == pytest.approx(x.std(axis=0), abs=1e-12)


def test_sums_of_many_images_are_those_of_their_parts():
    images = np.random.RandomState(1).randint(0, 256, (2500, 3, 3, 1)).astype(np.uint8)
    assert pixel_sums(images) == pytest.approx(sum(pixel_sums(images[i : i + 1]) for i in range(2500)))


def test_sums_of_no_images_are_zero_and_refused():
    sums = pixel_sums(np.zeros((0, 4, 4, 3), np.uint8))
    assert sums.tolist() == [0.0] * 7
    with pytest.raises(DataError, match="of no images"):
        normalisation_from_sums(sums)


@pytest.mark.parametrize("sums", [np.zeros(4), np.zeros((3, 1)), np.ones(1)])
def test_sums_of_a_wrong_shape(sums):
    with pytest.raises(DataError, match="pixel sums have shape"):
        normalisation_from_sums(sums)


def test_sums_that_are_not_finite():
    with pytest.raises(DataError, match="of no images"):
        normalisation_from_sums(np.array([np.nan, 1, 1]))


def test_the_deviation_has_a_floor_even_when_rounding_makes_it_negative():
    assert normalisation_from_sums(np.array([5.0, 2.5 - 1e-4, 10.0])).std == (0.01,)


def test_a_batch_is_normalised_and_channels_come_first(images):
    normalisation = Normalisation((0.1, 0.2, 0.3), (0.5, 0.25, 0.125))
    batch = to_batch(images, normalisation)
    assert batch.shape == (50, 3, 9, 9) and batch.dtype == torch.float32
    assert batch.is_contiguous(memory_format=image_layout(batch.device))
    expected = (images / 255.0 - np.array(normalisation.mean)) / np.array(normalisation.std)
    assert np.abs(batch.numpy() - expected.transpose(0, 3, 1, 2)).max() < 1e-5


def test_a_normalisation_of_other_channels_is_refused(images):
    with pytest.raises(DataError, match="normalisation of 1 channels for images of 3"):
        to_batch(images, Normalisation((0.5,), (0.5,)))


def test_a_batch_is_what_numpy_normalises_for_a_clinic(images):
    normalisation = Normalisation((0.71, 0.2, 0.3), (0.05, 0.25, 0.125))
    assert np.abs(to_batch(images, normalisation).numpy() - normalise(images, normalisation)).max() < 2e-6


def plain(channels):
    return Normalisation((0.0,) * channels, (1.0,) * channels)


def augmented(images, augmentation, *purpose):
    """Return augmented pixels in 0..1, channels second."""
    drawn = augmentation.draw(len(images), numpy_rng(5, *purpose))
    return to_batch(images, plain(images.shape[3]), augmentation, drawn).numpy()


def chosen(columns, images=1):
    """Return draws that choose the changes of the named columns only, each at its middle."""
    drawn = np.full((images, DRAWS), 0.5)
    drawn[:, [0, 1, 2, 7, 12]] = 1.0
    drawn[:, list(columns)] = 0.0
    return drawn


HFLIP, VFLIP, TURN, ANGLE, ZOOM, RIGHT, DOWN, COLOUR, BRIGHT, CONTRAST, SATURATION, HUE, CUT, CUT_Y, CUT_X = (
    range(15)
)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [1, 2, 8, 28])
def test_augmentation_keeps_shape_and_range(channels, size):
    images = np.random.RandomState(2).randint(0, 256, (12, size, size, channels)).astype(np.uint8)
    batch = augmented(images, Augmentation(3.0, 0.5))
    assert batch.shape == (12, channels, size, size) and batch.dtype == np.float32
    assert 0 <= batch.min() and batch.max() <= 1


def test_augmentation_is_drawn_anew_and_again_with_the_seed(images):
    first = augmented(images, Augmentation(), "epoch", 0)
    assert np.array_equal(first, augmented(images, Augmentation(), "epoch", 0))
    assert not np.array_equal(first, augmented(images, Augmentation(), "epoch", 1))
    # One image in sixteen comes through as it was: no flip either way, no turn, no change of colour.
    same = np.abs(first - to_batch(images, plain(3)).numpy()).reshape(50, -1).max(axis=1) < 1e-6
    assert 0 < same.mean() < 0.3


def test_what_is_not_chosen_is_left_exactly_as_it_was(images):
    batch = to_batch(images, plain(3), Augmentation(1.0, 0.5), chosen((), len(images)))
    assert torch.equal(batch, to_batch(images, plain(3)))


def test_strength_zero_flips_only(images):
    batch = augmented(images, Augmentation(0.0))
    pixels = to_batch(images, plain(3)).numpy()
    flips = [pixels, pixels[:, :, ::-1], pixels[:, :, :, ::-1], pixels[:, :, ::-1, ::-1]]
    which = np.array([(batch == flip).reshape(len(images), -1).all(axis=1) for flip in flips])
    assert which.any(axis=0).all() and which.any(axis=1).all()


@pytest.mark.parametrize("column, axis", [(HFLIP, 2), (VFLIP, 1)])
def test_flips_are_exact(images, column, axis):
    batch = to_batch(images, plain(3), Augmentation(), chosen([column], len(images)))
    assert torch.equal(batch, to_batch(np.flip(images, axis), plain(3)))


def test_an_image_is_changed_by_its_own_numbers_only(images):
    drawn = Augmentation().draw(50, numpy_rng(1))
    together = to_batch(images, plain(3), Augmentation(1.0, 0.3), drawn)
    apart = [
        to_batch(images[i : i + 7], plain(3), Augmentation(1.0, 0.3), drawn[i : i + 7])
        for i in range(0, 50, 7)
    ]
    assert (together - torch.cat(apart)).abs().max() < 1e-6


def test_strength_and_cutout_do_not_shift_what_is_drawn(images):
    flips = augmented(images, Augmentation(0.0))
    hidden = augmented(images, Augmentation(0.0, 0.4))
    unhidden = (flips == hidden) | (hidden == 0)
    assert unhidden.all() and (hidden == 0).mean() > (flips == 0).mean()


def test_a_quarter_turn_is_the_array_turned(images):
    pixels = to_batch(images, plain(3))
    for quarters in range(4):
        n = len(images)
        matrices = turning(np.full(n, quarters * np.pi / 2), np.ones(n), np.zeros((2, n)), (9, 9))
        turned = transformed(pixels, matrices).numpy()
        assert np.abs(turned - np.rot90(pixels.numpy(), quarters, axes=(2, 3))).max() < 1e-5


def test_places_are_those_of_torch(images):
    pixels = to_batch(images[:, :7], plain(3))
    rng = np.random.RandomState(5)
    matrices = turning(rng.randn(50), 1 + 0.1 * rng.randn(50), 0.2 * rng.randn(2, 50), (7, 9))
    grid = functional.affine_grid(torch.from_numpy(matrices), pixels.shape, align_corners=False)
    expected = functional.grid_sample(pixels, grid, padding_mode="reflection", align_corners=False)
    assert (transformed(pixels, matrices) - expected).abs().max() < 1e-5


def test_a_shift_of_whole_pixels_mirrors_what_lies_beyond_the_edge():
    images = np.random.RandomState(3).randint(0, 256, (1, 25, 25, 3)).astype(np.uint8)
    drawn = chosen([TURN])
    drawn[0, RIGHT] = 1.0  # by 4 % of 25 pixels, which is one
    drawn[0, ZOOM] = 0.5 - 0.025 / 0.15  # where the zoom is one
    drawn[0, COLOUR] = 1.0
    batch = to_batch(images, plain(3), Augmentation(), drawn).numpy()
    pixels = to_batch(images, plain(3)).numpy()
    assert np.abs(batch - pixels[:, :, :, [*range(1, 25), 24]]).max() < 2e-5


def test_a_turned_image_is_the_known_one():
    # of a wide image, so that a turn that forgot the sides' ratio would shear it
    pixels = np.zeros((1, 11, 21, 1), np.uint8)
    pixels[0, 5, 10 + 3] = 255
    matrices = turning(np.array([np.pi / 2]), np.ones(1), np.zeros((2, 1)), (11, 21))
    turned = transformed(to_batch(pixels, plain(1)), matrices)[0, 0].numpy()
    assert np.unravel_index(turned.argmax(), turned.shape) == (5 - 3, 10) and turned.max() > 0.999


def test_light_by_hand():
    images = np.array([[[[51, 102, 153]], [[102, 102, 102]]]], np.uint8)
    pixels = np.array([[0.2, 0.4, 0.6], [0.4, 0.4, 0.4]])
    grey = pixels @ [0.299, 0.587, 0.114]

    def change(column):
        drawn = chosen([COLOUR])
        drawn[0, column] = 0.0
        return to_batch(images, plain(3), Augmentation(), drawn)[0, :, :, 0].numpy().T

    assert change(BRIGHT) == pytest.approx(0.85 * pixels, abs=1e-6)
    assert change(CONTRAST) == pytest.approx(0.85 * pixels + 0.15 * grey.mean(), abs=1e-6)
    assert change(SATURATION) == pytest.approx(0.85 * pixels + 0.15 * grey[:, None], abs=1e-6)
    hue = change(HUE)
    assert hue[1] == pytest.approx(pixels[1], abs=1e-6)  # grey has no hue
    assert hue[0].sum() == pytest.approx(1.2, abs=1e-6) and np.abs(hue[0] - pixels[0]).max() > 0.01


def test_a_turn_of_hue_by_a_third_exchanges_the_colours():
    matrix = colours(np.ones(1), np.array([2 * np.pi / 3]))[0]
    assert matrix @ [1, 0, 0] == pytest.approx([0, 1, 0], abs=1e-12)
    assert colours(np.zeros(1), np.zeros(1))[0] @ [1, 0, 0] == pytest.approx([0.299] * 3)


def test_a_hidden_square_is_the_mean_after_normalisation():
    images = np.full((2, 8, 8, 3), 200, np.uint8)
    drawn = chosen([CUT], 2)
    drawn[1, [CUT_Y, CUT_X]] = 0.0, 1.0
    normalisation = Normalisation((0.5, 0.6, 0.7), (0.1, 0.2, 0.3))
    batch = to_batch(images, normalisation, Augmentation(0.0, 0.5), drawn).numpy()
    expected = np.zeros((2, 8, 8), bool)
    expected[0, 2:6, 2:6] = True
    expected[1, :2, 6:] = True  # the centre is in a corner: three quarters lie outside
    assert np.array_equal((batch == 0).all(axis=1), expected)
    assert np.array_equal((batch == 0).any(axis=1), expected)


def test_a_flat_image_stays_flat_into_its_corners():
    # Mirrored margins: what a turn brings into view is skin, not black.
    flat = np.full((400, 28, 28, 3), (180, 140, 130), np.uint8)
    batch = 255 * augmented(flat, Augmentation())
    assert np.ptp(batch.reshape(400, 3, -1), axis=2).max() < 0.01
    assert np.abs(batch[:, :, 0, 0] - [180, 140, 130]).max() < 70


def test_both_environments_draw_and_change_alike():
    """Numbers that each environment this runs in must come to, within rounding."""
    images = np.random.RandomState(4).randint(0, 256, (6, 16, 16, 3)).astype(np.uint8)
    batch = augmented(images, Augmentation(1.0, 0.3), "environments")
    assert batch.astype(np.float64).mean(axis=(1, 2, 3)) == pytest.approx(KNOWN_MEANS, abs=1e-5)
    assert batch[:, 1, 7, 3] == pytest.approx(KNOWN_PIXELS, abs=1e-4)


def test_augmenting_an_epoch_takes_a_second_at_most():
    images = np.random.RandomState(0).randint(0, 256, (2000, 28, 28, 3)).astype(np.uint8)
    start = time.process_time()
    augmented(images, Augmentation())
    # 0.06 s on a quiet core; ten times that is a regression and not a busy machine.
    assert time.process_time() - start < 1.0

"""Augmentation, normalisation and the sums that hospitals add up."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from PIL import Image

from skinfl.data.transforms import (
    Normalisation,
    augmentation,
    normalisation_from_sums,
    pixel_sums,
    to_batch,
)
from skinfl.errors import DataError
from skinfl.seeds import seeded


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
    assert batch.shape == (50, 3, 9, 9) and batch.dtype == torch.float32 and batch.is_contiguous()
    expected = (images / 255.0 - np.array(normalisation.mean)) / np.array(normalisation.std)
    assert np.abs(batch.numpy() - expected.transpose(0, 3, 1, 2)).max() < 1e-5


def test_a_normalisation_of_other_channels_is_refused(images):
    with pytest.raises(DataError, match="normalisation of 1 channels for images of 3"):
        to_batch(images, Normalisation((0.5,), (0.5,)))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [1, 2, 8, 28])
def test_augmentation_keeps_shape_and_type(channels, size):
    images = np.random.RandomState(2).randint(0, 256, (12, size, size, channels)).astype(np.uint8)
    plain = Normalisation((0.0,) * channels, (1.0,) * channels)
    with seeded(0, "test"):
        batch = to_batch(images, plain, augmentation(size))
    assert batch.shape == (12, channels, size, size)
    assert 0 <= batch.min() and batch.max() <= 1


def test_augmentation_is_drawn_anew_and_again_with_the_seed(images):
    plain = Normalisation((0.0,) * 3, (1.0,) * 3)
    augment = augmentation(9)

    def draw(*purpose):
        with seeded(5, *purpose):
            return to_batch(images, plain, augment)

    assert torch.equal(draw("epoch", 0), draw("epoch", 0))
    assert not torch.equal(draw("epoch", 0), draw("epoch", 1))
    # One image in sixteen comes through as it was: no flip either way, no turn, no jitter.
    assert (draw("epoch", 0) == to_batch(images, plain)).reshape(50, -1).all(dim=1).float().mean() < 0.3


def test_a_flat_image_stays_flat_into_its_corners():
    # Mirrored margins: what a turn brings into view is skin, not black.
    flat = Image.new("RGB", (28, 28), (180, 140, 130))
    augment = augmentation(28)
    with seeded(1, "flat"):
        for _ in range(400):
            pixels = np.asarray(augment(flat)).astype(int)
            assert np.ptp(pixels.reshape(-1, 3), axis=0).max() <= 1
            assert np.abs(pixels[0, 0] - [180, 140, 130]).max() < 65


def test_all_four_flips_occur():
    marked = np.zeros((8, 8), np.uint8)
    marked[1, 2] = 255
    places = set()
    augment = augmentation(8)
    with seeded(2, "flips"):
        for _ in range(300):
            places.add(tuple(np.argwhere(np.asarray(augment(Image.fromarray(marked))) == 255)[:1].ravel()))
    assert {(1, 2), (1, 5), (6, 2), (6, 5)} <= places


def test_an_image_of_another_size_is_refused():
    with pytest.raises(DataError, match=r"augmentation of 8 pixels for an image of \(9, 9\)"):
        augmentation(8)(Image.new("L", (9, 9)))


def test_augmenting_an_epoch_takes_seconds_at_most():
    images = np.random.RandomState(0).randint(0, 256, (2000, 28, 28, 3)).astype(np.uint8)
    start = time.process_time()
    to_batch(images, Normalisation((0.5,) * 3, (0.5,) * 3), augmentation(28))
    # 0.3 s on a quiet core; ten times that is a regression and not a busy machine.
    assert time.process_time() - start < 3.0

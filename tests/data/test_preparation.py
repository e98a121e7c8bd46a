"""How a photograph's frame becomes a square, and colour constancy."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from skinfl.data import load
from skinfl.data.images import prepare, resize, shades_of_grey
from skinfl.data.preparation import COLOUR_CONSTANCIES, FITS, Preparation
from skinfl.errors import DataError


@pytest.fixture
def wide():
    """A frame of 40x20: a quarter red, the middle half green, a quarter blue."""
    pixels = np.zeros((20, 40, 3), np.uint8)
    pixels[:, :10, 0] = pixels[:, 10:30, 1] = pixels[:, 30:, 2] = 200
    return Image.fromarray(pixels)


def prepared(image, size=20, fit="squash", constancy="none"):
    return np.asarray(prepare(image, Preparation(size, fit, constancy)))


def test_squash_is_pillows_bilinear_resizing(wide):
    assert np.array_equal(prepared(wide), np.asarray(wide.resize((20, 20), Image.BILINEAR)))


def test_crop_takes_the_middle_undistorted(wide):
    middle = np.asarray(wide)[:, 10:30]
    assert np.array_equal(prepared(wide, fit="crop"), middle)
    assert np.array_equal(prepared(wide.transpose(Image.ROTATE_90), fit="crop")[..., 1], middle[..., 1])


def test_pad_keeps_the_whole_frame_and_fills_with_the_edges_colour(wide):
    found = prepared(wide, fit="pad")
    inner = np.asarray(wide.resize((20, 10), Image.BILINEAR))
    assert np.array_equal(found[5:15], inner)
    mean = (inner[0].astype(float).mean(axis=0) + 0.5).astype(np.uint8)
    assert (found[:5] == mean).all() and (found[15:] == mean).all()
    tall = prepared(wide.transpose(Image.ROTATE_90), fit="pad")
    # turned to the left, the frame's right edge is the upper one
    assert (tall[:, :5] == tall[0, 0]).all() and tall[0, 10, 2] > 150 and tall[-1, 10, 0] > 150


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("constancy", COLOUR_CONSTANCIES)
@pytest.mark.parametrize("frame", [(8, 8), (8, 500), (500, 8), (33, 47), (7, 20)])
@pytest.mark.parametrize("size", [1, 7, 28])
def test_any_frame_becomes_the_square(fit, constancy, frame, size):
    pixels = np.random.RandomState(0).randint(0, 256, (frame[1], frame[0], 3)).astype(np.uint8)
    for image in (Image.fromarray(pixels), Image.fromarray(pixels[..., 0])):
        found = prepared(image, size, fit, constancy)
        assert found.shape[:2] == (size, size) and found.dtype == np.uint8
        if image.mode == "L":
            assert np.array_equal(found, prepared(image, size, fit, "none"))


@pytest.mark.parametrize("fit", FITS)
def test_a_square_is_fitted_the_same_in_any_way(fit):
    pixels = np.random.RandomState(0).randint(0, 256, (30, 30, 3)).astype(np.uint8)
    image = Image.fromarray(pixels)
    assert np.array_equal(prepared(image, 12, fit), prepared(image, 12))
    assert np.array_equal(prepared(image, 30, fit), pixels)


@pytest.mark.parametrize("fit", FITS)
def test_colours_can_be_corrected_after_the_rest(wide, fit):
    # what hospitals do that are handed squares
    square = prepare(wide, Preparation(16, fit))
    both = prepared(wide, 16, fit, "shades-of-grey")
    assert np.array_equal(prepared(square, 16, fit, "shades-of-grey"), both)


def test_shades_of_grey_by_its_formula():
    pixels = np.random.RandomState(0).randint(0, 120, (9, 11, 3)).astype(np.uint8)
    light = ((pixels / 255.0) ** 6).mean(axis=(0, 1)) ** (1 / 6)
    # the authors' correction: divided by the light's direction times the root of three
    expected = pixels / (light / np.linalg.norm(light) * np.sqrt(3))
    found = np.asarray(shades_of_grey(Image.fromarray(pixels)))
    assert np.abs(found - expected).max() <= 0.5 + 1e-9


def test_a_cast_of_the_light_is_taken_away():
    grey = np.random.RandomState(0).randint(20, 150, (16, 16, 1))
    cast = (grey * np.array([1.5, 1.0, 0.8])).astype(np.uint8)
    found = np.asarray(shades_of_grey(Image.fromarray(cast))).astype(int)
    assert np.ptp(found, axis=2).max() <= 3


@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 0, 0), (0, 1, 0), (255, 255, 255)])
def test_colours_that_are_absent_stay_so(colour):
    found = np.asarray(shades_of_grey(Image.new("RGB", (5, 5), colour)))
    assert [bool(channel) for channel in found[0, 0]] == [bool(channel) for channel in colour]


@pytest.mark.parametrize("channels", [1, 3])
def test_tables_of_pixels_are_prepared_alike(channels):
    pixels = np.random.RandomState(0).randint(0, 256, (2, 6, 10, channels)).astype(np.uint8)
    for preparation in (Preparation(5, "crop"), Preparation(5, "pad", "shades-of-grey"), Preparation(6)):
        found = resize(pixels, preparation)
        for image, expected in zip(found, pixels):
            picture = Image.fromarray(expected[..., 0] if channels == 1 else expected)
            assert np.array_equal(image.squeeze(), np.asarray(prepare(picture, preparation)))
    same = pixels[:, :, :6]
    assert resize(same, Preparation(6)) is same and resize(pixels, None) is pixels
    if channels == 3:
        assert not np.array_equal(resize(same, Preparation(6, "squash", "shades-of-grey")), same)


@pytest.mark.parametrize(
    "way, message",
    [
        ({"image_size": 0}, "image size 0 is impossible"),
        ({"image_size": 5000}, "image size 5000 is impossible"),
        ({"image_size": 2.5}, "image size 2.5 is impossible"),
        ({"image_size": True}, "image size True is impossible"),
        ({"fit": "stretch"}, "unknown fit 'stretch'"),
        ({"fit": "Crop"}, r"unknown fit 'Crop': did you mean 'crop'\?"),
        ({"fit": None}, "unknown fit None"),
        ({"colour_constancy": "grey"}, "unknown colour constancy 'grey'"),
    ],
)
def test_impossible_ways(ham, way, message):
    with pytest.raises(DataError, match=message):
        load(ham, **way)


def test_a_data_set_tells_how_it_was_made(ham):
    dataset = load(ham, image_size=9, fit="pad", colour_constancy="shades-of-grey")
    assert dataset.preparation == Preparation(9, "pad", "shades-of-grey")
    assert load(ham).preparation == Preparation(28)

"""Image files as cameras, editors and capture stations save them, and what is no photograph."""

from __future__ import annotations

import os

import numpy as np
import pytest
from PIL import Image

from skinfl.data import images, load
from skinfl.data.images import open_image
from skinfl.errors import DataError


@pytest.fixture
def picture():
    """A picture whose corners differ, so that turns and mirrorings show."""
    y, x = np.mgrid[:24, :32]
    return Image.fromarray(np.stack([7 * x, 10 * y, 128 + 0 * x], axis=2).astype(np.uint8))


def pixels(path):
    image = open_image(path)
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_16_bit_grey_is_scaled(tmp_path, picture, ending):
    grey = np.asarray(picture.convert("L"))
    deep = Image.fromarray(grey.astype(np.uint16) * 257)
    deep.save(str(tmp_path / f"deep.{ending}"))
    assert np.array_equal(pixels(tmp_path / f"deep.{ending}"), np.repeat(grey[..., None], 3, axis=2))
    # By hand: half of 65535 is half of 255, rounded.
    Image.fromarray(np.full((9, 9), 32768, np.uint16)).save(str(tmp_path / f"half.{ending}"))
    assert set(pixels(tmp_path / f"half.{ending}").ravel()) == {128}


def test_more_bits_than_a_display_has_are_refused(tmp_path):
    for name, array in (("float", np.random.rand(9, 9).astype(np.float32)), ("int", np.full((9, 9), 70000))):
        Image.fromarray(array.astype(np.int32) if name == "int" else array).save(
            str(tmp_path / f"{name}.tif")
        )
        with pytest.raises(
            DataError, match=rf"{name}\.tif has more than 16 bits a pixel: save it with 8 or 16"
        ):
            open_image(tmp_path / f"{name}.tif")


@pytest.mark.parametrize("ending", ["jpg", "png", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_are_undone(tmp_path, picture, orientation, ending):
    # What a camera held so saves: each of these, undone by a viewer, is the picture again.
    saved = {
        1: picture,
        2: picture.transpose(Image.FLIP_LEFT_RIGHT),
        3: picture.transpose(Image.ROTATE_180),
        4: picture.transpose(Image.FLIP_TOP_BOTTOM),
        5: picture.transpose(Image.TRANSPOSE),
        6: picture.transpose(Image.ROTATE_90),
        7: picture.transpose(Image.TRANSVERSE),
        8: picture.transpose(Image.ROTATE_270),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 95} if ending == "jpg" else {}
    saved.save(str(tmp_path / f"turned.{ending}"), exif=exif.tobytes(), **options)
    assert np.abs(pixels(tmp_path / f"turned.{ending}") - np.asarray(picture).astype(int)).mean() < 3


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_damaged_exif_turns_nothing(tmp_path, picture):
    picture.save(
        str(tmp_path / "odd.jpg"), quality=95, exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\xff" * 40
    )
    assert np.abs(pixels(tmp_path / "odd.jpg") - np.asarray(picture).astype(int)).mean() < 3


@pytest.mark.parametrize(
    "mode, ending, tolerance",
    [("CMYK", "jpg", 4), ("RGBA", "png", 0), ("P", "png", 30), ("CMYK", "tif", 2)],
)
def test_other_modes_keep_their_colours(tmp_path, picture, mode, ending, tolerance):
    options = {"quality": 95} if ending == "jpg" else {}
    picture.convert(mode).save(str(tmp_path / f"other.{ending}"), **options)
    assert np.abs(pixels(tmp_path / f"other.{ending}") - np.asarray(picture).astype(int)).mean() <= tolerance


@pytest.mark.parametrize("mode", ["L", "LA"])
def test_grey_becomes_three_equal_channels(tmp_path, picture, mode):
    picture.convert(mode).save(str(tmp_path / "grey.png"))
    grey = np.asarray(picture.convert("L"))
    assert np.array_equal(pixels(tmp_path / "grey.png"), np.repeat(grey[..., None], 3, axis=2))


@pytest.mark.parametrize("size", [(1, 1), (7, 30), (300, 2)])
def test_what_is_too_small_is_no_photograph(tmp_path, size):
    Image.new("RGB", size).save(str(tmp_path / "dot.png"))
    with pytest.raises(
        DataError, match=rf"dot\.png is {size[0]}x{size[1]} pixels, too small for a photograph"
    ):
        open_image(tmp_path / "dot.png")
    Image.new("RGB", (8, 8)).save(str(tmp_path / "dot.png"))
    assert open_image(tmp_path / "dot.png").size == (8, 8)


def test_any_error_of_a_decoder_is_one_line(tmp_path, picture, monkeypatch):
    picture.save(str(tmp_path / "odd.png"))
    for error in (
        IndexError("list index"),
        KeyError("x"),
        TypeError("NoneType"),
        ZeroDivisionError("by zero"),
    ):

        def fail(*args, error=error, **options):
            raise error

        monkeypatch.setattr("PIL.Image.open", fail)
        with pytest.raises(DataError, match=r"odd\.png is cut short or no image"):
            open_image(tmp_path / "odd.png")


def replace(ham, how):
    file = ham / "HAM10000_images_part_1" / "ISIC_1.jpg"
    file.unlink()
    how(file)


@pytest.mark.parametrize(
    "how, message",
    [
        (
            lambda file: file.symlink_to("/nowhere/a.jpg"),
            r"ISIC_1\.jpg cannot be read \(it is a link to /nowhere",
        ),
        (
            lambda file: file.symlink_to(file.name),
            r"ISIC_1\.jpg cannot be read \(it is a link to ISIC_1\.jpg",
        ),
        (lambda file: file.mkdir(), r"ISIC_1\.jpg is no file"),
        (lambda file: os.mkfifo(str(file)), r"ISIC_1\.jpg is no file"),
        (lambda file: file.write_bytes(b""), r"ISIC_1\.jpg is empty"),
        (lambda file: file.write_bytes(b"version https://git-lfs"), r"ISIC_1\.jpg is a pointer of Git LFS"),
    ],
)
def test_what_bears_an_images_name_and_is_none(ham, how, message):
    replace(ham, how)
    with pytest.raises(DataError, match=message):
        load(ham)
    _, problems = images.survey(sorted((ham / "HAM10000_images_part_1").iterdir()))
    assert len(problems) == 1


def test_a_link_to_an_image_is_the_image(ham):
    before = load(ham).digest()
    file = ham / "HAM10000_images_part_1" / "ISIC_1.jpg"
    file.rename(ham.parent / "elsewhere.jpg")
    file.symlink_to(ham.parent / "elsewhere.jpg")
    assert load(ham).digest() == before


def test_an_image_that_may_not_be_read(ham, monkeypatch):
    def refuse(path, mode):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr("skinfl.data.folders.open", refuse, raising=False)
    with pytest.raises(
        DataError, match=r"ISIC_0\.jpg cannot be read \(Permission denied\): allow it to be read"
    ):
        load(ham)


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "is empty: copy it again"),
        (bytes(128) + b"DICM" + bytes(40), "is a DICOM file, .* export the photograph"),
        (b"\0\0\0\x18ftypheic" + bytes(40), "is a HEIC .* export the photograph as JPEG"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "get it with git lfs pull"),
        (b"\n<!DOCTYPE html><title>403</title>", "is a web page"),
        (b"GIMP", "of no known format"),
    ],
)
def test_what_is_sent_instead_of_an_image_is_named(tmp_path, content, message):
    (tmp_path / "lesion.jpg").write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        open_image(tmp_path / "lesion.jpg")
    assert len(str(error.value).splitlines()) == 1

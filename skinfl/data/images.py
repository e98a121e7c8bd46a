"""From image files to one array: finding, decoding and resizing, all bilinear."""

from __future__ import annotations

import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from stat import S_ISREG
from typing import Any, Callable, Dict, Iterable, Iterator, List, Optional, Sequence, Tuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from skinfl.data import cache, folders
from skinfl.data.sources import Progress
from skinfl.errors import DataError
from skinfl.paths import PathLike

EXTENSIONS = (".jpg", ".jpeg", ".png")
#: a side of fewer pixels is a fault and no photograph; the least size that networks here were trained at is 8
SMALLEST = 8
#: more than published photographs have; what is asked for is one array for all images
LARGEST = 4096

#: Pillow's types know its newer names only
_pillow: Any = Image
_ORIENTATION = 0x0112
#: how Exif's orientations are undone, by Pillow's numbers, which all of its versions share
_TURNS = {
    2: _pillow.FLIP_LEFT_RIGHT,
    3: _pillow.ROTATE_180,
    4: _pillow.FLIP_TOP_BOTTOM,
    5: _pillow.TRANSPOSE,
    6: _pillow.ROTATE_270,
    7: _pillow.TRANSVERSE,
    8: _pillow.ROTATE_90,
}


def find_images(places: Iterable[Path], complain: Callable[[str], None]) -> Dict[str, Path]:
    """Return the image files directly in ``places`` by their name without extension.

    One name twice is a complaint unless the files are of one size: the Kaggle copy of HAM10000
    holds each folder twice.
    """
    found: Dict[str, Path] = {}
    for folder in places:
        for path in folders.entries(folder):
            if path.suffix.lower() not in EXTENSIONS:
                continue
            first = found.setdefault(path.stem, path)
            if first is not path and _size(first) != _size(path):
                complain(f"{path} and {first} are two images of one name: remove one of them")
    return found


def _size(path: Path) -> int:
    try:
        return os.path.getsize(str(path))
    except OSError:
        return -1


def image_folders(folder: Path) -> List[Path]:
    """Return ``folder`` and its direct subfolders as far as they hold image files and can be read."""
    return [path for path in (folder, *folders.subfolders(folder)) if holds_images(path)]


def holds_images(folder: Path) -> bool:
    """Whether image files lie directly in ``folder``; raises DataError where it cannot be read."""
    return any(path.suffix.lower() in EXTENSIONS for path in folders.entries(folder))


def open_image(path: Path) -> Image.Image:
    """Decode one image file as RGB, as a viewer shows it.

    It is turned as the camera says, 16 bits become 8 by scale and not by cutting off, and CMYK, palettes
    and grey become colours. What is transparent counts with the colour that lies beneath. Raises
    :class:`~skinfl.errors.DataError` for what is cut short, no image, of more bits, or too small to be a
    photograph.
    """
    # A pipe would keep the reader waiting for ever.
    if not S_ISREG(folders.stat(path).st_mode):
        raise DataError(f"{path} is no file: copy it again from its publisher")
    try:
        with Image.open(str(path)) as image:
            image.load()
            return photograph(image, path)
    except DataError:
        raise
    # Decoders answer a damaged file with errors of all kinds.
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise DataError(f"{path} cannot be read ({error.strerror}): allow it to be read") from None
        reason: object = error
        if isinstance(error, UnidentifiedImageError):
            # Pillow's own words only repeat the path.
            reason = "of no known format"
            other = _other_format(path)
            if other:
                raise DataError(f"{path} is {other}") from None
        raise DataError(
            f"{path} is cut short or no image ({reason}): copy it again from its publisher"
        ) from None


def _other_format(path: Path) -> str:
    """Return what a file is that Pillow cannot read and what to do with it; empty where it is unknown."""
    with open(str(path), "rb") as file:
        head = file.read(256)
    if not head:
        return "empty: copy it again from its publisher"
    if head[128:132] == b"DICM":
        return "a DICOM file, which is not read: export the photograph in it as PNG or JPEG"
    if head[4:8] == b"ftyp":
        return "a HEIC or AVIF image or a film, which are not read: export the photograph as JPEG or PNG"
    if head.startswith(b"version https://git-lfs"):
        return "a pointer of Git LFS and not the image itself: get it with git lfs pull"
    if head.lstrip()[:9].lower().startswith((b"<!doctype", b"<html")):
        return "a web page, perhaps of a download that needs a login: get the image itself"
    return ""


def photograph(image: Image.Image, name: object) -> Image.Image:
    """Return an image, however it came, as :func:`open_image` does; messages call it ``name``."""
    if min(image.size) < SMALLEST:
        raise DataError(
            f"{name} is {image.size[0]}x{image.size[1]} pixels, too small for a photograph: "
            f"{SMALLEST}x{SMALLEST} is the least"
        )
    picture = _eight_bits(image)
    if picture is None:
        raise DataError(f"{name} has more than 16 bits a pixel: save it with 8 or 16")
    return _upright(image, picture.convert("RGB"))


def _eight_bits(image: Image.Image) -> Optional[Image.Image]:
    """Return a grey image of 16 bits scaled to 8, others as they are; None where there are more bits.

    Pillow calls 16-bit grey ``I;16``, ``I;16B`` or, before version 11, ``I``; and its own conversion cuts
    all above 255 off, so that the image comes out white.
    """
    if not image.mode.startswith(("I", "F")):
        return image
    levels = np.asarray(image)
    if levels.dtype.kind not in "iu" or levels.min() < 0 or levels.max() > 65535:
        return None
    return Image.fromarray(((levels.astype(np.int64) + 128) // 257).astype(np.uint8))


def _upright(image: Image.Image, picture: Image.Image) -> Image.Image:
    """Return ``picture`` turned as the Exif data of ``image`` say."""
    try:
        turn = _TURNS.get(image.getexif().get(_ORIENTATION, 0))
    # As a viewer does: damaged Exif data turn nothing.
    except Exception:
        turn = None
    return picture if turn is None else picture.transpose(turn)


def decode(
    paths: Sequence[Path],
    image_size: int,
    cache_dir: Optional[PathLike] = None,
    progress: Progress = None,
) -> np.ndarray:
    """Return the images as uint8 of shape (n, image_size, image_size, 3), from the cache if it can.

    Raises :class:`~skinfl.errors.DataError` for a file that is missing, cut short or no image.
    """
    check_size(image_size)
    file = cache.cache_file(cache.cache_folder(cache_dir), paths, image_size)
    shape = (len(paths), image_size, image_size, 3)
    kept = cache.read(file, shape)
    if kept is not None:
        return kept
    images = np.empty(shape, dtype=np.uint8)

    def decode_one(i: int) -> None:
        images[i] = np.asarray(to_square(open_image(paths[i]), image_size))

    for _ in _in_threads(decode_one, len(paths), progress, "decoding images"):
        pass
    cache.write(file, images)
    return images


def survey(paths: Sequence[Path], progress: Progress = None) -> Tuple[Dict[str, int], List[str]]:
    """Decode every image and keep none: return how many there are of each size, and what is wrong."""
    problems: List[str] = []

    def size_of(i: int) -> Optional[str]:
        try:
            return "{}x{}".format(*open_image(paths[i]).size)
        except DataError as error:
            problems.append(str(error))
            return None

    sizes = Counter(_in_threads(size_of, len(paths), progress, "checking images"))
    sizes.pop(None, None)
    return dict(sizes), sorted(problems)


def _in_threads(function: Callable[[int], Any], n: int, progress: Progress, what: str) -> Iterator[Any]:
    """Yield ``function(i)`` in order for i below n; Pillow lets go of the interpreter's lock."""
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        results: Any = pool.map(function, range(n))  # a generator, whose types don't say so
        try:
            for done, result in enumerate(results, start=1):
                if progress is not None:
                    progress(done, n, what)
                yield result
        finally:
            # Drops what has not begun: an interrupted run must not decode the rest first.
            results.close()


def to_square(image: Image.Image, image_size: int) -> Image.Image:
    """Return the image with sides of ``image_size`` pixels, bilinear: what networks are given everywhere."""
    return image.resize((image_size, image_size), _pillow.BILINEAR)


def resize(images: np.ndarray, image_size: Optional[int]) -> np.ndarray:
    """Resize uint8 images of shape (n, height, width, channels) to image_size square; None leaves them."""
    if image_size is None:
        return images
    check_size(image_size)
    n, height, width, channels = images.shape
    if (height, width) == (image_size, image_size):
        return images
    resized = np.empty((n, image_size, image_size, channels), dtype=np.uint8)
    for i, image in enumerate(images):
        picture = Image.fromarray(image[:, :, 0] if channels == 1 else image)
        pixels = np.asarray(to_square(picture, image_size))
        resized[i] = pixels.reshape(image_size, image_size, channels)
    return resized


def check_size(image_size: int) -> None:
    """Refuse a size that is no positive number of pixels, or more than a photograph has."""
    if not isinstance(image_size, (int, np.integer)) or not 1 <= image_size <= LARGEST:
        raise DataError(
            f"image size {image_size!r} is impossible: give a number of pixels from 1 to {LARGEST}, e.g. 28"
        )

"""From image files to one array: finding, decoding and resizing, all bilinear."""

from __future__ import annotations

import hashlib
import io
import os
from collections import Counter
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, List, Optional, Sequence, Tuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from skinfl.data import cache, folders
from skinfl.data.digests import memory_of
from skinfl.data.parallel import in_threads
from skinfl.data.preparation import Preparation
from skinfl.data.rows import ImageRows
from skinfl.data.sources import Progress
from skinfl.errors import DataError
from skinfl.paths import PathLike

EXTENSIONS = (".jpg", ".jpeg", ".png")
#: a side of fewer pixels is a fault and no photograph; the least size that networks here were trained at is 8
SMALLEST = 8

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
    return _decoded(folders.read(path), path)


def _decoded(content: bytes, path: Path) -> Image.Image:
    try:
        with Image.open(io.BytesIO(content)) as image:
            image.load()
            return photograph(image, path)
    except DataError:
        raise
    # Decoders answer a damaged file with errors of all kinds.
    except Exception as error:
        reason: object = error
        if isinstance(error, UnidentifiedImageError):
            # Pillow's own words only repeat the path.
            reason = "of no known format"
            other = _other_format(content)
            if other:
                raise DataError(f"{path} is {other}") from None
        raise DataError(
            f"{path} is cut short or no image ({reason}): copy it again from its publisher"
        ) from None


def _other_format(content: bytes) -> str:
    """Return what a file is that Pillow cannot read and what to do with it; empty where it is unknown."""
    head = content[:256]
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
    preparation: Preparation,
    cache_dir: Optional[PathLike] = None,
    progress: Progress = None,
) -> ImageRows:
    """Return the images as uint8 of shape (n, image_size, image_size, 3), from the cache if it can.

    They are mapped and read as they are asked for, so that they need not fit into memory. Raises
    :class:`~skinfl.errors.DataError` for a file that is missing, cut short or no image.
    """
    preparation.check()
    folder = cache.cache_folder(cache_dir)
    digests = memory_of(folder, paths).digests(progress)
    wanted = cache.Wanted(folder, digests, preparation)
    kept = wanted.kept(progress)
    if kept is not None:
        return kept
    alike = wanted.alike(progress)

    def row(i: int) -> np.ndarray:
        pixels = alike(digests[i])
        if pixels is not None:
            return pixels
        content = folders.read(paths[i])
        if hashlib.sha256(content).hexdigest() != digests[i]:
            raise DataError(f"{paths[i]} was changed while it was read: try again when it is complete")
        return np.asarray(prepare(_decoded(content, paths[i]), preparation))

    return wanted.keep(in_threads(row, len(paths), progress, "decoding images"))


def survey(paths: Sequence[Path], progress: Progress = None) -> Tuple[Dict[str, int], List[str]]:
    """Decode every image and keep none: return how many there are of each size, and what is wrong."""
    problems: List[str] = []

    def size_of(i: int) -> Optional[str]:
        try:
            return "{}x{}".format(*open_image(paths[i]).size)
        except DataError as error:
            problems.append(str(error))
            return None

    found = in_threads(size_of, len(paths), progress, "checking images")
    sizes = Counter(size for size in found if size is not None)
    return dict(sizes), sorted(problems)


def prepare(image: Image.Image, preparation: Preparation) -> Image.Image:
    """Return the image as the square of pixels that networks are given everywhere, all resizing bilinear.

    ``pad`` fills each side with the mean colour of the edge that it adjoins: black bars would be the
    strongest edges in the picture, and a mirrored margin may show a second lesion. Colours are corrected
    last, so that it can be done to images that are squares already. A grey one has none to correct.
    """
    size = preparation.image_size
    width, height = image.size
    if preparation.fit == "crop":
        side = min(width, height)
        left, top = (width - side) // 2, (height - side) // 2
        image = image.crop((left, top, left + side, top + side)).resize((size, size), _pillow.BILINEAR)
    elif preparation.fit == "pad":
        longer = max(width, height)
        inner = [max(1, (2 * side * size + longer) // (2 * longer)) for side in (width, height)]
        image = _padded(image.resize((inner[0], inner[1]), _pillow.BILINEAR), size)
    else:
        image = image.resize((size, size), _pillow.BILINEAR)
    if preparation.colour_constancy == "shades-of-grey" and image.mode == "RGB":
        return shades_of_grey(image)
    return image


def _padded(image: Image.Image, size: int) -> Image.Image:
    if image.size == (size, size):
        return image
    pixels = np.asarray(image)
    across = 0 if image.size[1] < size else 1
    margin = size - pixels.shape[across]
    before = margin // 2
    sides = []
    for edge, thickness in ((0, before), (-1, margin - before)):
        mean = pixels.take(edge, axis=across).astype(np.float64).mean(axis=0)
        shape = list(pixels.shape)
        shape[across] = thickness
        sides.append(np.broadcast_to((mean + 0.5).astype(np.uint8), shape))
    return Image.fromarray(np.concatenate([sides[0], pixels, sides[1]], axis=across))


#: of the Minkowski mean that stands for the light's colour; six is the authors' and usual for dermoscopy
_NORM = 6


def shades_of_grey(image: Image.Image) -> Image.Image:
    """Return an RGB image as if taken under white light, which is estimated by each colour's Minkowski mean.

    Finlayson and Trezzi, "Shades of Gray and Colour Constancy", Color Imaging Conference 2004; for
    dermoscopy Barata, Celebi, Marques, IEEE J. Biomed. Health Inform. 19:1146 (2015). The correction keeps
    the light's strength, and a colour that is absent stays so.
    """
    counts = np.asarray(image.histogram(), dtype=np.float64).reshape(3, 256)
    levels = np.arange(256) / 255.0
    light = (counts @ levels**_NORM / counts[0].sum()) ** (1 / _NORM)
    strength = np.sqrt((light**2).mean())
    gains = np.divide(strength, light, out=np.ones(3), where=light > 0)
    table = np.minimum(gains[:, None] * np.arange(256) + 0.5, 255).astype(np.uint8)
    return image.point(table.ravel().tolist())


def resize(images: np.ndarray, preparation: Optional[Preparation]) -> np.ndarray:
    """Prepare uint8 images of shape (n, height, width, channels); None leaves them as they are."""
    if preparation is None:
        return images
    size = preparation.check().image_size
    n, height, width, channels = images.shape
    if (height, width) == (size, size) and preparation.colour_constancy == "none":
        return images
    resized = np.empty((n, size, size, channels), dtype=np.uint8)
    for i, image in enumerate(images):
        picture = Image.fromarray(image[:, :, 0] if channels == 1 else image)
        resized[i] = np.asarray(prepare(picture, preparation)).reshape(size, size, channels)
    return resized

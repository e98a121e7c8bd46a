"""From image files to one array: finding, decoding and resizing, all bilinear."""

from __future__ import annotations

import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, Iterator, List, Optional, Sequence, Tuple, Union

import numpy as np
from PIL import Image

from skinfl.data import cache
from skinfl.data.sources import Progress
from skinfl.errors import DataError

EXTENSIONS = (".jpg", ".jpeg", ".png")


def find_images(folders: Iterable[Path], complain: Callable[[str], None]) -> Dict[str, Path]:
    """Return the image files directly in ``folders`` by their name without extension.

    One name twice is a complaint unless the files are of one size: the Kaggle copy of HAM10000
    holds each folder twice.
    """
    found: Dict[str, Path] = {}
    for folder in folders:
        for path in sorted(folder.iterdir()):
            if path.suffix.lower() not in EXTENSIONS or path.name.startswith("."):
                continue
            first = found.setdefault(path.stem, path)
            if first is not path and first.stat().st_size != path.stat().st_size:
                complain(f"{path} and {first} are two images of one name: remove one of them")
    return found


def image_folders(folder: Path) -> List[Path]:
    """Return ``folder`` and its direct subfolders as far as they hold image files."""
    candidates = [folder, *sorted(path for path in folder.iterdir() if path.is_dir())]
    return [path for path in candidates if _holds_images(path)]


def _holds_images(folder: Path) -> bool:
    return any(name.lower().endswith(EXTENSIONS) and name[0] != "." for name in os.listdir(str(folder)))


def open_image(path: Path) -> Image.Image:
    """Decode one image file as RGB; raises DataError where it is cut short or no image."""
    try:
        with Image.open(str(path)) as image:
            return image.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(
            f"{path} is cut short or no image ({error}): copy it again from its publisher"
        ) from None


def decode(
    paths: Sequence[Path],
    image_size: int,
    cache_dir: Optional[Union[str, Path]] = None,
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
        images[i] = np.asarray(open_image(paths[i]).resize((image_size, image_size), Image.BILINEAR))

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
        results = pool.map(function, range(n))
        try:
            for done, result in enumerate(results, start=1):
                if progress is not None:
                    progress(done, n, what)
                yield result
        finally:
            # Drops what has not begun: an interrupted run must not decode the rest first.
            results.close()


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
        pixels = np.asarray(picture.resize((image_size, image_size), Image.BILINEAR))
        resized[i] = pixels.reshape(image_size, image_size, channels)
    return resized


def check_size(image_size: int) -> None:
    """Refuse a size that is no positive number of pixels."""
    if image_size < 1:
        raise DataError(f"image size {image_size} is impossible: give a positive number of pixels, e.g. 28")

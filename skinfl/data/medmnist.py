"""DermaMNIST: HAM10000 as MedMNIST ships it, one ``.npz`` file of 28, 64, 128 or 224 pixels.

Yang et al., "MedMNIST v2", Scientific Data 10:41 (2023). The file has no lesion ids, so photographs
of one lesion cannot be kept together: what is measured on it may be too good.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Dict, Optional

import numpy as np

from skinfl.data import images
from skinfl.data.dataset import LesionDataset
from skinfl.data.ham10000 import CLASSES
from skinfl.data.sources import DERMAMNIST
from skinfl.errors import DataError

#: MedMNIST's label numbers in its own order (its info.py), by HAM10000's short names
PUBLISHED_CLASSES = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
_PARTS = ("train", "val", "test")


def read(path: Path, image_size: Optional[int]) -> LesionDataset:
    """Read all three parts one after another, labels renumbered to HAM10000's order.

    Image ids name the part and the place in it, e.g. ``val-00012``. Raises
    :class:`~skinfl.errors.DataError` for a file that is cut short, lacks an array or has one of a
    wrong shape or type.
    """
    again = f"get it again from {DERMAMNIST.page}"
    try:
        if not zipfile.is_zipfile(str(path)):
            raise DataError(f"{path} is cut short or no .npz file: {again}")
        with np.load(str(path), allow_pickle=False) as arrays:
            present = set(arrays.files)
            needed = [f"{part}_{what}" for part in _PARTS for what in ("images", "labels")]
            lacking = [key for key in needed if key not in present]
            if lacking:
                raise DataError(f"{path} has no array {lacking[0]!r}: {again}")
            parts = [_part(path, part, arrays, image_size, again) for part in _PARTS]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is cut short or no .npz file ({error}): {again}") from None
    if len({pixels.shape[3] for pixels, _ in parts}) > 1:
        raise DataError(f"{path} has colour and grey images: {again}")
    names = [f"{part}-{i:05d}" for part, (_, labels) in zip(_PARTS, parts) for i in range(len(labels))]
    renumbered = np.array([CLASSES.index(name) for name in PUBLISHED_CLASSES])
    return LesionDataset(
        DERMAMNIST.name,
        np.concatenate([pixels for pixels, _ in parts]),
        renumbered[np.concatenate([labels for _, labels in parts])],
        CLASSES,
        names,
        names,
        lesions_known=False,
    )


def _part(
    path: Path, part: str, arrays: Dict[str, np.ndarray], image_size: Optional[int], again: str
) -> tuple:
    pixels, labels = arrays[f"{part}_images"], arrays[f"{part}_labels"]
    if pixels.ndim == 3:
        pixels = pixels[..., None]
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[3] not in (1, 3) or 0 in pixels.shape[1:]:
        raise DataError(
            f"{path}: {part}_images has shape {pixels.shape} of {pixels.dtype}, "
            f"not (n, height, width, 3) of uint8: {again}"
        )
    if labels.shape not in ((len(pixels), 1), (len(pixels),)) or labels.dtype.kind not in "iu":
        raise DataError(
            f"{path}: {part}_labels has shape {labels.shape} of {labels.dtype} for {len(pixels)} images, "
            f"not one whole number each: {again}"
        )
    labels = labels.reshape(-1).astype(np.int64)
    if len(labels) and not (0 <= labels.min() and labels.max() < len(PUBLISHED_CLASSES)):
        raise DataError(
            f"{path}: {part}_labels has an unknown class, they run from 0 to "
            f"{len(PUBLISHED_CLASSES) - 1}: {again}"
        )
    return images.resize(pixels, image_size), labels

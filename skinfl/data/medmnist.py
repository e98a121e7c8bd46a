"""DermaMNIST: HAM10000 as MedMNIST ships it, one ``.npz`` file of 28, 64, 128 or 224 pixels.

Yang et al., "MedMNIST v2", Scientific Data 10:41 (2023). The file has no lesion ids, so photographs
of one lesion cannot be kept together: what is measured on it may be too good.
"""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Dict, Optional, Sequence, Tuple

import numpy as np

from skinfl.data import folders, images
from skinfl.data.dataset import LesionDataset
from skinfl.data.ham10000 import CLASS_INFO, CLASSES
from skinfl.data.preparation import Preparation
from skinfl.data.readers import PIXELS_WITHOUT_LESIONS, TRACES, Found, Reader, register
from skinfl.data.sources import Progress, Source
from skinfl.errors import DataError
from skinfl.paths import PathLike

SOURCE = Source(
    "dermamnist",
    "HAM10000 as MedMNIST ships it, 28x28 to 224x224, without lesion ids (CC BY-NC 4.0)",
    "https://medmnist.com",
    "dermamnist.npz, dermamnist_64.npz, dermamnist_128.npz or dermamnist_224.npz",
)

#: MedMNIST's label numbers in its own order (its info.py), by HAM10000's short names
PUBLISHED_CLASSES = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
_PARTS = ("train", "val", "test")


def read(path: Path, preparation: Optional[Preparation]) -> LesionDataset:
    """Read all three parts one after another, labels renumbered to HAM10000's order.

    Image ids name the part and the place in it, e.g. ``val-00012``. Raises
    :class:`~skinfl.errors.DataError` for a file that is cut short, lacks an array or has one of a
    wrong shape or type.
    """
    again = f"get it again from {SOURCE.page}"
    try:
        with open(str(path), "rb"):
            pass
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror}): allow it to be read, or {again}"
        ) from None
    try:
        if not zipfile.is_zipfile(str(path)):
            raise DataError(f"{path} is cut short or no .npz file: {again}")
        with np.load(str(path), allow_pickle=False) as arrays:
            present = set(arrays.files)
            needed = [f"{part}_{what}" for part in _PARTS for what in ("images", "labels")]
            lacking = [key for key in needed if key not in present]
            if lacking:
                raise DataError(f"{path} has no array {lacking[0]!r}: {again}")
            parts = [_part(path, part, arrays, preparation, again) for part in _PARTS]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path} is cut short or no .npz file ({error}): {again}") from None
    labels = np.concatenate([labels for _, labels in parts])
    # All of MedMNIST's files have arrays of these names. Of those in colour only DermaMNIST has just
    # these seven labels, so that a file of another name is told by them.
    if not _is_named(path) and len(set(labels.tolist())) < len(PUBLISHED_CLASSES):
        raise DataError(
            f"{path} is not named dermamnist*.npz and has not all of its {len(PUBLISHED_CLASSES)} classes: "
            f"get DermaMNIST from {SOURCE.page}"
        )
    names = [f"{part}-{i:05d}" for part, (_, own) in zip(_PARTS, parts) for i in range(len(own))]
    renumbered = np.array([CLASSES.index(name) for name in PUBLISHED_CLASSES])
    return LesionDataset(
        SOURCE.name,
        np.concatenate([pixels for pixels, _ in parts]),
        renumbered[labels],
        CLASS_INFO,
        names,
        names,
        lesions_known=False,
        preparation=preparation,
    )


def _is_named(path: Path) -> bool:
    return path.suffix.lower() == ".npz" and path.name.lower().startswith("dermamnist")


def _part(
    path: Path, part: str, arrays: Dict[str, np.ndarray], preparation: Optional[Preparation], again: str
) -> Tuple[np.ndarray, np.ndarray]:
    pixels, labels = arrays[f"{part}_images"], arrays[f"{part}_labels"]
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[3] != 3 or 0 in pixels.shape[1:]:
        grey = ", as DermaMNIST is in colour" if pixels.ndim == 3 else ""
        raise DataError(
            f"{path}: {part}_images has shape {pixels.shape} of {pixels.dtype}, "
            f"not (n, height, width, 3) of uint8{grey}: {again}"
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
    return images.resize(pixels, preparation), labels


class DermaMnist(Reader):
    """MedMNIST's file of HAM10000."""

    source = SOURCE
    looks_for = "dermamnist*.npz"

    def recognise(self, path: Path, metadata: Optional[Path] = None) -> Sequence[Found]:
        if folders.is_file(path):
            if path.suffix.lower() != ".npz":
                return ()
            return (Found(self, path, (PIXELS_WITHOUT_LESIONS if _is_named(path) else TRACES,)),)
        # A larger file has larger images: all hold the same photographs.
        return [
            Found(self, file, (PIXELS_WITHOUT_LESIONS, file.stat().st_size))
            for file in folders.files(path)
            if _is_named(file)
        ]

    def read(
        self,
        found: Found,
        preparation: Optional[Preparation],
        cache_dir: Optional[PathLike] = None,
        progress: Progress = None,
    ) -> LesionDataset:
        return read(found.path, preparation)


register(DermaMnist())

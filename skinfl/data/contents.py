"""What lies in a folder that no reader recognises, in a few words for the error about it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Dict, List, Tuple

from skinfl.data import folders, tables
from skinfl.data.images import EXTENSIONS

#: data sets that people bring and that are not read (yet), by how a file or folder of theirs is named
_NOT_READ: Tuple[Tuple[str, str], ...] = (
    ("isic_2020_", "ISIC 2020, which is not read (yet)"),
    ("isic_2024_", "ISIC 2024, which is not read (yet)"),
    ("isic2018_task1", "ISIC 2018's segmentation tasks, which have no diagnoses"),
    ("isic-2017_", "ISIC 2017, which is not read (yet)"),
    ("isbi2016_", "ISIC 2016, which is not read (yet)"),
    ("ph2dataset", "PH2, which is not read (yet)"),
    ("derm7pt", "derm7pt, which is not read (yet)"),
    ("fitzpatrick17k", "Fitzpatrick17k, which is not read (yet)"),
)
#: the same by columns of a table
_NOT_READ_COLUMNS: Tuple[Tuple[Tuple[str, ...], str], ...] = (
    (("image_name", "benign_malignant", "target"), "ISIC 2020, which is not read (yet)"),
    (("isic_id", "target"), "ISIC 2024, which is not read (yet)"),
)
_TABLES = (".csv", ".tsv", ".tab", ".txt", ".xlsx", ".xls")
ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar")
_ARRAYS = (".npz", ".npy", ".hdf5", ".h5")
_OTHER_IMAGES = (".tif", ".tiff", ".bmp", ".webp", ".gif", ".heic", ".dcm", ".dicom")
_DEPTH = 4
#: a folder of a million files must not keep an error waiting
_MOST = 20000


def describe(folder: Path) -> str:
    """Return what lies in ``folder`` and below, e.g. ``20 .jpg in train/, the table labels.csv``."""
    direct = folders.entries(folder)
    found: List[str] = []
    sets = _not_read(direct)
    if sets:
        found.append(" and ".join(sets))
    images, others = _images(folder)
    for (place, suffix), times in sorted(images.items())[:4]:
        found.append(f"{times} {suffix} in {place}" if place != "./" else f"{times} {suffix}")
    if len(images) > 4:
        found.append(f"images in {len(images) - 4} more folders")
    if len(images) > 1 and not sets and all(place.count("/") == 1 and place != "./" for place, _ in images):
        found[-1] += " (photographs in folders, be it one per class, are not read without a table of lesions)"
    if others:
        kinds = ", ".join(f"{times} {suffix}" for suffix, times in sorted(others.items()))
        found.append(f"{kinds} (not read: images must be {', '.join(EXTENSIONS)})")
    archives = [path.name for path in direct if path.suffix.lower() in ARCHIVES]
    if archives:
        found.append(f"{tables.listing(archives)} (not unpacked)")
    arrays = [path.name for path in direct if path.suffix.lower() in _ARRAYS]
    if arrays:
        found.append(f"{tables.listing(arrays)} (arrays, of no name that is known)")
    names = [path.name for path in direct if path.suffix.lower() in _TABLES]
    if names and not sets:
        found.append(f"{'the table' if len(names) == 1 else 'the tables'} {tables.listing(names)}")
    if not found:
        found.append(tables.listing([path.name for path in direct]) if direct else "nothing")
    return ", ".join(found)


def lookalikes(folder: Path, columns: Tuple[str, ...]) -> List[str]:
    """Return the names of tables in ``folder`` that have these columns."""
    return [
        path.name
        for path in folders.files(folder)
        if path.suffix.lower() in ("", *_TABLES[:4]) and set(columns) <= set(tables.header(path))
    ]


def _not_read(direct: List[Path]) -> List[str]:
    sets = []
    for path in direct:
        name = path.name.lower()
        sets += [what for start, what in _NOT_READ if name.startswith(start)]
        if path.suffix.lower() in _TABLES[:4] and folders.is_file(path):
            columns = set(tables.header(path))
            sets += [what for needed, what in _NOT_READ_COLUMNS if columns.issuperset(needed)]
    return list(dict.fromkeys(sets))


def _images(folder: Path) -> Tuple[Dict[Tuple[str, str], int], Dict[str, int]]:
    """Count image files by folder and suffix, and files of formats that are not read by suffix."""
    images: Counter = Counter()
    others: Counter = Counter()
    level = [folder]
    seen = 0
    for _ in range(_DEPTH):
        below: List[Path] = []
        for place in level:
            below += folders.subfolders(place)
            where = "./" if place == folder else f"{place.relative_to(folder).as_posix()}/"
            for path in folders.entries(place):
                seen += 1
                suffix = path.suffix.lower()
                if suffix in EXTENSIONS:
                    images[where, suffix] += 1
                elif suffix in _OTHER_IMAGES:
                    others[suffix] += 1
        if seen > _MOST:
            break
        level = below
    return dict(images), dict(others)

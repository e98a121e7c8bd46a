"""HAM10000 as its authors publish it: image folders and one metadata table.

Tschandl, Rosendahl, Kittler, "The HAM10000 dataset", Scientific Data 5:180161 (2018). The table has
a row per photograph: lesion_id, image_id, dx, dx_type, age, sex, localization and, in Harvard's
copy, dataset (where the photograph was taken).
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional

from skinfl.data import tables
from skinfl.data.images import find_images, image_folders
from skinfl.data.index import Complain, Index, Photograph, match, refuse
from skinfl.data.sources import HAM10000
from skinfl.errors import DataError, nearest

#: in the order of the label numbers of the hmnist tables
CLASSES = ("akiec", "bcc", "bkl", "df", "nv", "vasc", "mel")
#: a folder with this file holds drawn pictures
SYNTHETIC_MARK = "SYNTHETIC.txt"

_COLUMNS = ("lesion_id", "image_id", "dx", "age", "sex")
#: how the metadata table is named: Kaggle's copy, Harvard's, and Harvard's converted one
METADATA = ("HAM10000_metadata.csv", "HAM10000_metadata", "HAM10000_metadata.tab")


class Metadata(NamedTuple):
    """The table's rows. A label is -1 where the class is not one of the seven; ``unknown`` counts those."""

    path: Path
    unknown: Dict[str, int]
    labels: List[int]
    lesion_ids: List[str]
    image_ids: List[str]
    sites: List[str]
    sexes: List[str]
    ages: List[float]

    def __len__(self) -> int:
        return len(self.labels)


def find_metadata(folder: Path) -> Optional[Path]:
    """Return the metadata table in ``folder``, one with the column ``dataset`` before one without."""
    found = [path for path in sorted(folder.iterdir()) if path.name.endswith(METADATA) and path.is_file()]
    with_sites = [path for path in found if has_sites(path)]
    plain = [path for path in found if path.name in METADATA]
    return next(iter(with_sites + plain + found), None)


def has_sites(path: Path) -> bool:
    """Whether the table's header names the column ``dataset``."""
    with open(path, "rb") as file:
        return b"dataset" in file.readline()


def read_metadata(path: Path, complain: Complain = refuse) -> Metadata:
    """Read the metadata table; ages may be empty, classes must be known."""
    table = tables.read_table(path, _COLUMNS, HAM10000.page)
    columns = table.columns
    unknown = Counter(dx for dx in columns["dx"] if dx not in CLASSES)
    for dx, times in unknown.items():
        first = table.where(columns["dx"].index(dx))
        complain(
            f"{first}: unknown class {dx!r} ({nearest(dx, CLASSES)}), in {times} rows: mend or remove them"
        )
    for column in ("lesion_id", "image_id"):
        if "" in columns[column]:
            where = table.where(columns[column].index(""))
            raise DataError(f"{where}: {column} is empty: get the table again from {HAM10000.page}")
    return Metadata(
        path,
        unknown,
        [CLASSES.index(dx) if dx in CLASSES else -1 for dx in columns["dx"]],
        columns["lesion_id"],
        columns["image_id"],
        [tables.known(site) for site in columns.get("dataset", [""] * len(table))],
        [tables.known(sex) for sex in columns["sex"]],
        [tables.age(table, "age", row) for row in range(len(table))],
    )


def photograph_folders(folder: Path) -> List[Path]:
    """Return HAM10000's own image folders, or else any that hold images.

    Harvard's record also holds lesion masks and the 2018 test images; beside folders of the
    published names they are not looked at.
    """
    holding = image_folders(folder)
    published = [path for path in holding if path.name.lower().startswith("ham10000_images")]
    return published or holding


def index(folder: Path, metadata: Optional[Path] = None, complain: Complain = refuse) -> Index:
    """Match the metadata table's rows with the image files in ``folder``."""
    path = metadata or find_metadata(folder) or folder / METADATA[0]
    rows = read_metadata(path, complain)
    folders = photograph_folders(folder)
    files = find_images(folders, complain)
    if not files:
        raise DataError(
            f"{folder} has {path.name} but no images: put HAM10000_images_part_1 and _part_2 "
            f"(or a hmnist_*.csv file) beside it, from {HAM10000.page}"
        )
    missing, extra = match(path, rows.image_ids, files, str(folder), HAM10000.page, complain)
    photographs = [
        Photograph(files[image_id], label, lesion_id, image_id, site, sex, age)
        for label, lesion_id, image_id, site, sex, age in zip(*rows[2:])
        if label >= 0 and image_id in files
    ]
    synthetic = (folder / SYNTHETIC_MARK).is_file()
    name = "synthetic" if synthetic else HAM10000.name
    return Index(name, CLASSES, photographs, missing, extra, rows.unknown, synthetic)

"""HAM10000 as its authors publish it: image folders and one metadata table.

Tschandl, Rosendahl, Kittler, "The HAM10000 dataset", Scientific Data 5:180161 (2018). The table has
a row per photograph: lesion_id, image_id, dx, dx_type, age, sex, localization and, in Harvard's
copy, dataset (where the photograph was taken).
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Sequence

from skinfl.data import contents, folders, tables
from skinfl.data.images import find_images, holds_images, image_folders
from skinfl.data.index import Complain, Index, Photograph, match, refuse
from skinfl.data.readers import PHOTOGRAPHS, TRACES, Found, Reader, register
from skinfl.data.sources import Progress, Source, remark
from skinfl.errors import DataError, nearest
from skinfl.predictions import LesionClass

SOURCE = Source(
    "ham10000",
    "10,015 dermoscopic photographs of 7,470 lesions, 7 classes (CC BY-NC 4.0)",
    "https://doi.org/10.7910/DVN/DBW86T (Harvard Dataverse)",
    "HAM10000_images_part_1/*.jpg, HAM10000_images_part_2/*.jpg, HAM10000_metadata.csv",
)
#: in the order of the label numbers of the hmnist tables. ISIC 2019 names 197 of the 327 photographs of akiec
#: squamous cell carcinoma, so the class counts as malignant.
CLASS_INFO = (
    LesionClass("akiec", "actinic keratosis or intraepithelial carcinoma (Bowen's disease)", True),
    LesionClass("bcc", "basal cell carcinoma", True),
    LesionClass("bkl", "benign keratosis-like lesion", False),
    LesionClass("df", "dermatofibroma", False),
    LesionClass("nv", "melanocytic nevus", False),
    LesionClass("vasc", "vascular lesion", False),
    LesionClass("mel", "melanoma", True),
)
CLASSES = tuple(each.name for each in CLASS_INFO)
#: a folder with this file holds drawn pictures
SYNTHETIC_MARK = "SYNTHETIC.txt"

_COLUMNS = ("lesion_id", "image_id", "dx", "age", "sex")
#: how the metadata table is named: Kaggle's copy, Harvard's, and Harvard's converted one
METADATA = ("HAM10000_metadata.csv", "HAM10000_metadata", "HAM10000_metadata.tab")
_IMAGES = "HAM10000_images"
#: folders of another challenge's photographs, and files beside which all photographs are another challenge's
_OTHERS = ("isic2018_", "isic_2019_")
_OTHER_SET = "isic_2019_training"


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


def metadata_tables(folder: Path) -> List[Path]:
    """Return the metadata tables in ``folder``, the one to be read first.

    One with the column ``dataset`` comes before one without, and one of the published name before others.
    """
    found = [path for path in folders.files(folder) if path.name.endswith(METADATA)]
    return sorted(found, key=lambda path: (not has_sites(path), path.name not in METADATA))


def find_metadata(folder: Path) -> Optional[Path]:
    """Return the first of :func:`metadata_tables`."""
    return next(iter(metadata_tables(folder)), None)


def has_sites(path: Path) -> bool:
    """Whether the table's header names the column ``dataset``."""
    return "dataset" in tables.header(path)


def remark_choice(path: Path, folder: Path, progress: Progress) -> None:
    """Say which of several metadata tables in ``folder`` is read, unless it is one from elsewhere."""
    others = [table.name for table in metadata_tables(folder) if table != path]
    if others and path.parent == folder:
        remark(progress, f"of several metadata tables {path.name} is read, not {', '.join(others)}")


def read_metadata(path: Path, complain: Complain = refuse) -> Metadata:
    """Read the metadata table; ages may be empty, classes must be known."""
    table = tables.read_table(path, _COLUMNS, SOURCE.page)
    columns = {
        **table.columns,
        **{
            name: [tables.known(value) for value in table.columns[name]] for name in ("lesion_id", "image_id")
        },
    }
    unknown = Counter(dx for dx in columns["dx"] if dx not in CLASSES)
    for dx, times in unknown.items():
        first = table.where(columns["dx"].index(dx))
        complain(
            f"{first}: unknown class {dx!r} ({nearest(dx.lower(), CLASSES)}), in {times} rows: "
            "mend or remove them"
        )
    for column in ("lesion_id", "image_id"):
        if "" in columns[column]:
            where = table.where(columns[column].index(""))
            raise DataError(f"{where}: {column} is empty: get the table again from {SOURCE.page}")
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
    published = [path for path in folders.named_folders(folder, _IMAGES) if holds_images(path)]
    if published or any(path.name.lower().startswith(_OTHER_SET) for path in folders.entries(folder)):
        return published
    return [path for path in image_folders(folder) if not path.name.lower().startswith(_OTHERS)]


def index(
    folder: Path,
    metadata: Optional[Path] = None,
    complain: Complain = refuse,
    progress: Progress = None,
    name: str = SOURCE.name,
    synthetic: bool = False,
) -> Index:
    """Match the metadata table's rows with the image files in ``folder``."""
    path = metadata or find_metadata(folder)
    if path is None:
        raise DataError(_no_table(folder))
    remark_choice(path, folder, progress)
    rows = read_metadata(path, complain)
    files = find_images(photograph_folders(folder), complain)
    if not files:
        raise DataError(
            f"{folder} has {path.name} but no images (it has {contents.describe(folder)}): put "
            f"HAM10000_images_part_1 and _part_2 (or a hmnist_*.csv file) beside it, from {SOURCE.page}; "
            "images deeper in other folders are not looked for"
        )
    missing, extra = match(path, rows.image_ids, files, str(folder), SOURCE.page, complain)
    photographs = [
        Photograph(files[image_id], label, lesion_id, image_id, site, sex, age)
        for label, lesion_id, image_id, site, sex, age in zip(*rows[2:])
        if label >= 0 and image_id in files
    ]
    return Index(name, CLASS_INFO, photographs, missing, extra, rows.unknown, synthetic)


def _no_table(folder: Path) -> str:
    alike = contents.lookalikes(folder, _COLUMNS)
    mend = f"rename {alike[0]!r}, which has its columns" if alike else f"get it from {SOURCE.page}"
    return f"{folder / METADATA[0]} is missing: {mend}, or name it with --metadata"


def holds_photographs(folder: Path, metadata: Optional[Path]) -> bool:
    """Whether some image file in ``folder`` is named like an id in the metadata table."""
    if metadata is None:
        return False
    cells = set(tables.cells(metadata))
    files = find_images(photograph_folders(folder), complain=lambda problem: None)
    return any(name in cells for name in files)


class Ham10000(Reader):
    """The published folder of photographs."""

    source = SOURCE
    looks_for = "HAM10000_metadata.csv with its photographs"

    def recognise(self, path: Path, metadata: Optional[Path] = None) -> Sequence[Found]:
        if folders.is_file(path):
            # The table stands for its folder.
            return self.recognise(path.parent, metadata or path) if path.name.endswith(METADATA) else ()
        if folders.is_file(path / SYNTHETIC_MARK):
            return ()
        table = metadata or find_metadata(path)
        if holds_photographs(path, table):
            return (Found(self, path, (PHOTOGRAPHS,), table),)
        if table is not None or folders.named_folders(path, _IMAGES) or contents.lookalikes(path, _COLUMNS):
            return (Found(self, path, (TRACES,), table),)
        return ()

    def index(self, found: Found, complain: Complain, progress: Progress = None) -> Index:
        return index(found.path, found.metadata, complain, progress)


register(Ham10000())

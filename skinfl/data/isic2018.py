"""The ISIC 2018 challenge's Task 3: one-hot tables of ground truth with a folder of photographs each.

Codella et al., arXiv:1902.03368. The training photographs are HAM10000's; those of validation and test are
others, and each part is a data set of its own. Lesions are told by the challenge's table of groupings, or by
HAM10000's metadata, which bring sites, ages and sexes as well.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple

from skinfl.data import folders, ham10000, tables
from skinfl.data.images import find_images
from skinfl.data.index import Complain, Index, Photograph, match, refuse
from skinfl.data.readers import PHOTOGRAPHS, TRACES, Found, Reader, register
from skinfl.data.sources import Progress, Source, remark
from skinfl.errors import DataError

SOURCE = Source(
    "isic2018",
    "Task 3 of the ISIC 2018 challenge: HAM10000 to train on, and 193 and 1,512 others (CC BY-NC 4.0)",
    "https://challenge.isic-archive.com/data/#2018",
    "ISIC2018_Task3_Training_Input/*.jpg, ISIC2018_Task3_Training_GroundTruth.csv, "
    "ISIC2018_Task3_Training_LesionGroupings.csv; likewise Validation and Test, without groupings",
)
#: those that are published, the one that is read first
_PARTS = ("Training", "Test", "Validation")
_PREFIX = "ISIC2018_Task3_"
_TRUTH = re.compile(rf"{_PREFIX}(\w+?)_GroundTruth\.csv", re.IGNORECASE)
#: the challenge's names of the classes
_COLUMNS = tuple(name.upper() for name in ham10000.CLASSES)


class _Lesion(NamedTuple):
    """What tables beside the ground truth say of a photograph."""

    lesion_id: str = ""
    site: str = ""
    sex: str = ""
    age: float = float("nan")


def index(
    truth: Path,
    metadata: Optional[Path] = None,
    complain: Complain = refuse,
    progress: Progress = None,
) -> Index:
    """Match a table of ground truth with its image files and what is known of their lesions.

    ``metadata`` is HAM10000's table, looked for in the folder if not given.
    """
    folder, part = _folder_of(truth), _part_of(truth)
    inputs = _inputs(folder, part)
    if not inputs:
        raise DataError(
            f"{folder / (_PREFIX + part + '_Input')} is missing, the photographs of {truth.name}: "
            f"get it from {SOURCE.page}"
        )
    labels, known = _read_truth(truth, complain)
    if not known:
        known = _lesions(folder, part, metadata or ham10000.find_metadata(folder), progress)
    files = find_images(inputs, complain)
    ids = list(labels)
    missing, extra = match(truth, ids, files, inputs[0].name, SOURCE.page, complain)
    unclear = [name for name in ids if labels[name] < 0]
    if unclear:
        complain(
            f"{truth}: {len(unclear)} images are not of just one of the classes {', '.join(_COLUMNS)} "
            f"({tables.listing(unclear)}): get it again from {SOURCE.page}"
        )
    without = [name for name in ids if not known.get(name, _Lesion()).lesion_id]
    if without:
        remark(
            progress,
            f"the lesions of {len(without)} images are not known, so that each counts as one of its own: put "
            f"{_PREFIX}{part}_LesionGroupings.csv or HAM10000_metadata into {folder} where they name them",
        )
    photographs = []
    for name in ids:
        if name in files and labels[name] >= 0:
            lesion = known.get(name, _Lesion())
            photographs.append(
                Photograph(
                    files[name],
                    labels[name],
                    lesion.lesion_id or name,
                    name,
                    lesion.site,
                    lesion.sex,
                    lesion.age,
                )
            )
    name = SOURCE.name if part == "Training" else f"{SOURCE.name}_{part.lower()}"
    return Index(
        name,
        ham10000.CLASS_INFO,
        photographs,
        missing,
        extra,
        {"unclear": len(unclear)} if unclear else {},
        lesions_known=not without,
    )


def _read_truth(path: Path, complain: Complain) -> Tuple[Dict[str, int], Dict[str, _Lesion]]:
    """Return the labels by image id, -1 where not just one class is marked, and what is told of lesions.

    Harvard's copy of the test set's table is of HAM10000's columns.
    """
    if "dx" in tables.header(path):
        rows = ham10000.read_metadata(path, complain)
        return _once(path, rows.image_ids, rows.labels, complain), _of_metadata(rows)
    table = tables.read_table(path, ["image", *_COLUMNS], SOURCE.page)
    labels = [tables.one_marked(table, row, _COLUMNS) for row in range(len(table))]
    return _once(path, table.columns["image"], labels, complain), {}


def _once(path: Path, ids: Sequence[str], labels: Sequence[int], complain: Complain) -> Dict[str, int]:
    found: Dict[str, int] = {}
    for name, label in zip(ids, labels):
        if name in found:
            complain(f"{path}: image ids on several rows ({name}): keep one row of each")
        found.setdefault(name, label)
    return found


def _lesions(folder: Path, part: str, metadata: Optional[Path], progress: Progress) -> Dict[str, _Lesion]:
    """Return what the groupings and HAM10000's metadata tell, as far as they are there."""
    known: Dict[str, _Lesion] = {}
    if metadata is not None:
        ham10000.remark_choice(metadata, folder, progress)
        known = _of_metadata(ham10000.read_metadata(metadata))
    groupings = _file(folder, f"{_PREFIX}{part}_LesionGroupings.csv")
    if groupings is not None:
        table = tables.read_table(groupings, ["image", "lesion_id"], SOURCE.page)
        for name, lesion_id in zip(table.columns["image"], table.columns["lesion_id"]):
            known[name] = known.get(name, _Lesion())._replace(lesion_id=tables.known(lesion_id))
    return known


def _of_metadata(rows: ham10000.Metadata) -> Dict[str, _Lesion]:
    columns = zip(rows.image_ids, rows.lesion_ids, rows.sites, rows.sexes, rows.ages)
    return {name: _Lesion(lesion, site, sex, age) for name, lesion, site, sex, age in columns}


def _places(folder: Path) -> List[Path]:
    """Return the folder and those in it that the challenge's zip files become."""
    return [folder, *(path for path in folders.named_folders(folder, _PREFIX) if not _is_input(path))]


def _is_input(path: Path) -> bool:
    return path.name.lower().endswith(("_input", "_images"))


def _file(folder: Path, name: str) -> Optional[Path]:
    found = (path for place in _places(folder) for path in folders.files(place))
    return next((path for path in found if path.name.lower() == name.lower()), None)


def _truths(folder: Path) -> List[Path]:
    """Return the tables of ground truth, the one to be read first."""
    found = {
        _part_of(path): path
        for place in reversed(_places(folder))
        for path in folders.files(place)
        if _TRUTH.fullmatch(path.name)
    }
    return [found[part] for part in sorted(found, key=lambda part: (_rank(part), part))]


def _rank(part: str) -> int:
    return _PARTS.index(part) if part in _PARTS else len(_PARTS)


def _part_of(truth: Path) -> str:
    matched = _TRUTH.fullmatch(truth.name)
    return matched.group(1).capitalize() if matched else _PARTS[0]


def _folder_of(truth: Path) -> Path:
    """Return the folder that holds all, for a table in it or in the folder that its zip file became."""
    folder, part = truth.parent, _part_of(truth)
    inside = folder.name.lower().startswith(_PREFIX.lower())
    return folder.parent if inside and not _inputs(folder, part) else folder


def _inputs(folder: Path, part: str) -> List[Path]:
    """Return a part's folders of images; Harvard's copy calls them so as well."""
    names = {f"{_PREFIX}{part}_{ending}".lower() for ending in ("Input", "Images")}
    return [path for path in folders.named_folders(folder, _PREFIX + part) if path.name.lower() in names]


class Isic2018(Reader):
    """A part of the challenge's third task; the training set where several are in a folder."""

    source = SOURCE
    looks_for = f"{_PREFIX}Training_GroundTruth.csv with {_PREFIX}Training_Input/"

    def recognise(self, path: Path, metadata: Optional[Path] = None) -> Sequence[Found]:
        if folders.is_file(path):
            truths = [path] if _TRUTH.fullmatch(path.name) else []
        else:
            truths = _truths(path)
            if not truths:
                inputs = [each for each in folders.named_folders(path, _PREFIX) if _is_input(each)]
                truths = [path / _missing_truth(inputs[0])] if inputs else []
        found = []
        for truth in truths:
            folder = _folder_of(truth)
            whole = folders.is_file(truth) and bool(_inputs(folder, _part_of(truth)))
            table = metadata or ham10000.find_metadata(folder)
            found.append(Found(self, truth, (PHOTOGRAPHS if whole else TRACES,), table))
        return found

    def index(self, found: Found, complain: Complain, progress: Progress = None) -> Index:
        return index(found.path, found.metadata, complain, progress)


def _missing_truth(images: Path) -> str:
    return re.sub("_(input|images)$", "_GroundTruth.csv", images.name, flags=re.IGNORECASE)


register(Isic2018())

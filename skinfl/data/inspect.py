"""What the command line shows of data: known sources, a folder's check, who holds what.

Everything here returns plain data and prints nothing.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, Dict, Iterable, List, Mapping, NamedTuple, Optional

import numpy as np

from skinfl.data.dataset import LesionDataset
from skinfl.data.detect import detect, maker_of
from skinfl.data.images import survey
from skinfl.data.index import Index
from skinfl.data.preparation import Preparation
from skinfl.data.readers import all_readers
from skinfl.data.sources import Progress, Source
from skinfl.data.splits import Split, leaked_lesions, leaked_patients
from skinfl.errors import DataError
from skinfl.paths import PathLike

#: height of the synthetic set's pictures
_MADE_SIZE = 96


class Findings(NamedTuple):
    """What a check of a folder or file found.

    ``problems`` are one line each, worded like the errors that loading would raise; without any the
    data set can be loaded. ``remarks`` are worth knowing and no problem.
    """

    path: str
    source: str
    images: int
    lesions: int
    lesions_known: bool
    synthetic: bool
    classes: Dict[str, int]
    sites: Dict[str, int]
    sizes: Dict[str, int]
    missing: List[str]
    extra: List[str]
    unknown_classes: Dict[str, int]
    problems: List[str]
    remarks: List[str]


def known_sources() -> List[Source]:
    """Return each data set that can be read: its name, what it is, where to get it, its layout."""
    return [reader.source for reader in all_readers()]


def check(path: PathLike, *, metadata: Optional[PathLike] = None, progress: Progress = None) -> Findings:
    """Read everything at ``path``, decode every image, and collect all problems instead of the first."""
    remarks: List[str] = []
    problems: List[str] = []

    def tell(done: int, total: int, what: str) -> None:
        if total == 0:
            remarks.append(what)
        elif progress is not None:
            progress(done, total, what)

    blank = Findings(str(path), "", 0, 0, True, False, {}, {}, {}, [], [], {}, problems, remarks)
    try:
        maker = maker_of(path)
        if maker is not None:
            return _of_arrays(
                blank._replace(source=maker.source.name), maker.make(Preparation(_MADE_SIZE), progress=tell)
            )
        found = detect(path, metadata, tell)
        blank = blank._replace(path=str(found.path), source=found.reader.source.name)
        index = found.reader.index(found, problems.append, tell)
        if index is None:
            return _of_arrays(blank, found.reader.read(found, None, progress=tell))
    except DataError as error:
        problems.append(str(error))
        return blank
    return _of_folder(blank, index, tell)


def _of_arrays(blank: Findings, dataset: LesionDataset) -> Findings:
    _, height, width = dataset.image_shape
    return blank._replace(
        images=len(dataset),
        lesions=len(set(dataset.lesion_ids)),
        lesions_known=dataset.lesions_known,
        synthetic=dataset.synthetic,
        classes=dict(zip(dataset.classes, dataset.class_counts().tolist())),
        sites=_counted(dataset.sites),
        sizes={f"{width}x{height}": len(dataset)},
    )


def _of_folder(blank: Findings, index: Index, progress: Progress) -> Findings:
    rows = index.photographs
    sizes, damaged = survey([row.path for row in rows], progress)
    blank.problems.extend(damaged)
    labels = Counter(row.label for row in rows)
    return blank._replace(
        source=index.name,
        images=len(rows),
        lesions=len({row.lesion_id for row in rows}),
        lesions_known=index.lesions_known,
        synthetic=index.synthetic,
        classes={each.name: labels[i] for i, each in enumerate(index.classes)},
        sites=_counted([row.site for row in rows]),
        sizes=sizes,
        missing=list(index.missing),
        extra=list(index.extra),
        unknown_classes=dict(index.unknown),
    )


def _counted(sites: Iterable[str]) -> Dict[str, int]:
    return dict(sorted(Counter(site for site in sites if site).items()))


def summarise_split(
    dataset: LesionDataset, split: Split, partition: Mapping[str, np.ndarray]
) -> Dict[str, Any]:
    """Return who holds what, as plain numbers.

    Keys: ``classes`` (names), ``protocol``, ``leaked_lesions`` (with photographs in both training and
    test), ``lesions_known``, ``leaked_patients`` (likewise, None where no patient is known),
    ``shared_lesions`` (with photographs at several hospitals), ``train`` and ``test`` (photographs by
    class), ``hospitals`` (by name: ``lesions``, and ``train`` and ``test`` by class). Under the published
    protocol each copy of a photograph counts.
    """
    hospitals = {}
    holders: Counter = Counter()
    for name, indices in partition.items():
        held = np.zeros(len(dataset), dtype=bool)
        held[indices] = True
        lesions = set(dataset.lesion_ids[held])
        holders.update(lesions)
        hospitals[name] = {
            "lesions": len(lesions),
            "train": _by_class(dataset, split.train[held[split.train]]),
            "test": _by_class(dataset, split.test[held[split.test]]),
        }
    return {
        "classes": list(dataset.classes),
        "protocol": split.protocol,
        "leaked_lesions": leaked_lesions(dataset, split.train, split.test),
        "lesions_known": dataset.lesions_known,
        "leaked_patients": leaked_patients(dataset, split.train, split.test)
        if any(dataset.patient_ids)
        else None,
        "shared_lesions": sum(times > 1 for times in holders.values()),
        "train": _by_class(dataset, split.train),
        "test": _by_class(dataset, split.test),
        "hospitals": hospitals,
    }


def _by_class(dataset: LesionDataset, indices: np.ndarray) -> List[int]:
    return np.bincount(dataset.labels[indices], minlength=len(dataset.classes)).tolist()

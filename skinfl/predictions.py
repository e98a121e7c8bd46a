"""What a network says of photographs, one row each: kept as a table that spreadsheets open.

A row names the photograph and what its publisher tells of it, then the diagnosis, the class that the network
finds most likely, and the probability of each class.
"""

from __future__ import annotations

import csv
import io
from typing import Any, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from skinfl.errors import DataError
from skinfl.files import PathLike, write_text
from skinfl.paths import path as user_path

_CAPTIONS = ("image_id", "lesion_id", "hospital", "site", "sex", "age")


class LesionClass(NamedTuple):
    """A diagnosis that a data set distinguishes.

    ``name``: short, as in the publisher's tables. ``full_name``: for a reader who is no dermatologist.
    ``malignant``: whether it is cancer; None where that is not known.
    """

    name: str
    full_name: str
    malignant: Optional[bool] = None


def in_full(each: Tuple[str, str, Optional[bool]]) -> str:
    """Return a class's name in full, marked where it is malignant."""
    _, full_name, malignant = each
    return f"{full_name} (malignant)" if malignant else full_name


class Predictions(NamedTuple):
    """Answers for n photographs.

    ``probabilities``: float64, shape (n, classes), rows add up to one. ``labels``: int64, shape (n,), -1
    where the diagnosis is not known. The others are texts of shape (n,), ``""`` where unknown; ``ages`` are
    float64 with NaN.
    """

    classes: Tuple[LesionClass, ...]
    probabilities: np.ndarray
    labels: np.ndarray
    image_ids: np.ndarray
    lesion_ids: np.ndarray
    hospitals: np.ndarray
    sites: np.ndarray
    sexes: np.ndarray
    ages: np.ndarray

    @property
    def names(self) -> Tuple[str, ...]:
        """Return the classes' short names."""
        return tuple(each.name for each in self.classes)

    @property
    def predicted(self) -> np.ndarray:
        """Return the most likely class of each, int64, shape (n,)."""
        return self.probabilities.argmax(axis=1)


def write_predictions(path: PathLike, found: Predictions) -> None:
    """Write the table as CSV, whole or not at all."""
    names = found.names
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*_CAPTIONS, "diagnosis", "predicted", *(f"p_{name}" for name in names)])
    for i, shares in enumerate(found.probabilities):
        age = found.ages[i]
        captions = [found.image_ids[i], found.lesion_ids[i], found.hospitals[i], found.sites[i]]
        captions += [found.sexes[i], "" if np.isnan(age) else f"{age:g}"]
        label = int(found.labels[i])
        told = ["" if label < 0 else names[label], names[int(found.predicted[i])]]
        writer.writerow([*captions, *told, *(f"{share:.6f}" for share in shares)])
    write_text(path, text.getvalue())


def read_predictions(path: PathLike, classes: Sequence[LesionClass]) -> Predictions:
    """Read what :func:`write_predictions` wrote of these classes.

    Raises :class:`~skinfl.errors.DataError`, with the line's number, for anything else.
    """
    file = user_path(path)
    names = tuple(each.name for each in classes)
    header = [*_CAPTIONS, "diagnosis", "predicted", *(f"p_{name}" for name in names)]
    try:
        rows = list(csv.reader(file.read_text("utf-8").splitlines()))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no UTF-8 text"
        raise DataError(f"cannot read {file}: {reason}") from None
    if not rows or rows[0] != header:
        raise DataError(f"{file} is no table of predictions of these classes: write it again")
    columns: List[List[Any]] = [[] for _ in header]
    for number, row in enumerate(rows[1:], 2):
        try:
            if len(row) != len(header):
                raise ValueError("another number of cells")
            label = names.index(row[6]) if row[6] else -1
            values = [*row[:5], float(row[5] or "nan"), label, row[7], *map(float, row[8:])]
        except ValueError as error:
            raise DataError(f"{file}, line {number}: {error}; write the table again") from None
        for column, value in zip(columns, values):
            column.append(value)
    texts = [np.asarray(column, dtype=object) for column in columns[:5]]
    image_ids, lesion_ids, hospitals, sites, sexes = texts
    probabilities = np.asarray(columns[8:], dtype=np.float64).T.reshape(-1, len(names))
    return Predictions(
        tuple(classes),
        probabilities / np.maximum(probabilities.sum(axis=1, keepdims=True), 1e-12),
        np.asarray(columns[6], dtype=np.int64),
        image_ids,
        lesion_ids,
        hospitals,
        sites,
        sexes,
        np.asarray(columns[5], dtype=np.float64),
    )

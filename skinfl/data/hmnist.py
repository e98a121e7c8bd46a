"""HAM10000 as tables of pixels: ``hmnist_{8_8,28_28}_{L,RGB}.csv``.

A row is ``pixel0000, ..., label``, the pixels row by row with the colours of a pixel beside each
other. Row i is row i of ``HAM10000_metadata.csv``, which brings lesion ids, sites, ages and sexes.
"""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import NamedTuple, Optional, Tuple

import numpy as np

from skinfl.data import images
from skinfl.data.dataset import LesionDataset
from skinfl.data.ham10000 import CLASSES, Metadata, read_metadata
from skinfl.data.index import duplicates
from skinfl.data.sources import HMNIST
from skinfl.data.tables import listing
from skinfl.errors import DataError

_NAME = re.compile(r"hmnist_(\d+)_(\d+)_(L|RGB)\.csv", re.IGNORECASE)
_COMMA, _NEWLINE = ord(","), ord("\n")


class Format(NamedTuple):
    """What the name of a file says of its pixels."""

    height: int
    width: int
    channels: int

    @property
    def name(self) -> str:
        """What reports call the data set, e.g. ``ham10000_28x28_RGB``."""
        return f"ham10000_{self.height}x{self.width}_{'L' if self.channels == 1 else 'RGB'}"


def format_of(path: Path) -> Optional[Format]:
    """Return the format that the file's name announces, None where it is no hmnist file."""
    matched = _NAME.fullmatch(path.name)
    if matched is None:
        return None
    return Format(int(matched[1]), int(matched[2]), 1 if matched[3].upper() == "L" else 3)


def read(path: Path, image_size: Optional[int], metadata: Optional[Path] = None) -> LesionDataset:
    """Read a pixel table and, where there is one, the metadata table of the same rows.

    Without metadata each photograph counts as a lesion of its own, and the data set says so in
    ``lesions_known``. Raises :class:`~skinfl.errors.DataError` for a pixel that is no whole number
    from 0 to 255, a row of another length, or metadata that disagrees in rows or labels.
    """
    fmt = format_of(path)
    if fmt is None:
        raise DataError(f"{path} is not named like an hmnist file: call it e.g. hmnist_28_28_RGB.csv")
    pixels, labels = _read_pixels(path, fmt)
    rows = None if metadata is None else _join(path, labels, read_metadata(metadata))
    names = [f"{path.stem}-{i:05d}" for i in range(len(labels))]
    return LesionDataset(
        fmt.name,
        images.resize(pixels, image_size),
        labels,
        CLASSES,
        rows.lesion_ids if rows else names,
        rows.image_ids if rows else names,
        rows.sites if rows else None,
        rows.sexes if rows else None,
        rows.ages if rows else None,
        lesions_known=rows is not None,
    )


def _join(path: Path, labels: np.ndarray, rows: Metadata) -> Metadata:
    if len(rows) != len(labels):
        raise DataError(
            f"{path} has {len(labels)} rows but {rows.path} has {len(rows)}: "
            f"take both from one source, {HMNIST.page}"
        )
    different = np.flatnonzero(labels != np.asarray(rows.labels))
    if len(different):
        i = int(different[0])
        raise DataError(
            f"{path} and {rows.path} disagree in {len(different)} labels, first in row {i + 1} "
            f"({CLASSES[labels[i]]} against {CLASSES[rows.labels[i]]}): take both from one source, "
            f"{HMNIST.page}"
        )
    twice = duplicates(rows.image_ids)
    if twice:
        raise DataError(f"{rows.path}: image ids on several rows ({listing(twice)}): keep one row of each")
    return rows


def _read_pixels(path: Path, fmt: Format) -> Tuple[np.ndarray, np.ndarray]:
    """Return pixels, uint8 (n, height, width, channels), and labels, int64 (n,)."""
    again = f"get it again from {HMNIST.page}"
    try:
        header, _, body = path.read_bytes().replace(b"\r\n", b"\n").partition(b"\n")
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error}): {again}") from None
    columns = header.decode("utf-8-sig", errors="replace").replace('"', "").strip().split(",")
    expected = fmt.height * fmt.width * fmt.channels
    if columns[-1] != "label" or len(columns) != expected + 1:
        raise DataError(
            f"{path} must have {expected} pixel columns and then 'label', it has {len(columns)} columns "
            f"ending in {columns[-1]!r}: {again}"
        )
    body = body.strip(b"\n") + b"\n"
    if body == b"\n":
        raise DataError(f"{path} has no rows: {again}")
    _check_row_lengths(path, body, len(columns), again)
    values = _numbers(path, body, columns, again)
    labels = values[:, -1]
    wrong = np.flatnonzero((labels < 0) | (labels >= len(CLASSES)))
    if len(wrong):
        raise DataError(
            f"{path}, line {wrong[0] + 2}: unknown class {int(labels[wrong[0]])}, labels run from 0 to "
            f"{len(CLASSES) - 1}: {again}"
        )
    shape = (len(values), fmt.height, fmt.width, fmt.channels)
    return values[:, :-1].astype(np.uint8).reshape(shape), labels.astype(np.int64)


def _check_row_lengths(path: Path, body: bytes, columns: int, again: str) -> None:
    text = np.frombuffer(body, dtype=np.uint8)
    ends = np.flatnonzero(text == _NEWLINE)
    starts = np.concatenate([[0], ends[:-1] + 1])
    fields = np.add.reduceat((text == _COMMA).astype(np.int32), starts) + 1
    wrong = np.flatnonzero(fields != columns)
    if len(wrong):
        raise DataError(
            f"{path}, line {wrong[0] + 2}: {fields[wrong[0]]} values for {columns} columns: {again}"
        )


def _numbers(path: Path, body: bytes, columns: list, again: str) -> np.ndarray:
    """Parse the rows, float64 (n, columns); numpy's text parser is a hundred times csv's speed."""
    with warnings.catch_warnings():
        # Older numpy warns and newer numpy raises where the text stops being numbers.
        warnings.simplefilter("error")
        try:
            values = np.fromstring(body[:-1].replace(b"\n", b","), sep=",")
        except (ValueError, DeprecationWarning):
            values = np.empty(0)
    rows = body.count(b"\n")
    if values.size != rows * len(columns):
        values = np.array([[_number(field) for field in line.split(b",")] for line in body.splitlines()])
    values = values.reshape(rows, len(columns))
    with np.errstate(invalid="ignore"):
        wrong = np.argwhere(~((values >= 0) & (values <= 255) & (values == np.floor(values))))
    if len(wrong):
        row, column = wrong[0]
        raise DataError(
            f"{path}, line {row + 2}: {columns[column]} is {values[row, column]:g}, "
            f"not a whole number from 0 to 255: {again}"
        )
    return values


def _number(field: bytes) -> float:
    try:
        return float(field)
    except ValueError:
        return float("nan")

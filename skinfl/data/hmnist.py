"""HAM10000 as tables of pixels: ``hmnist_{8_8,28_28}_{L,RGB}.csv``.

A row is ``pixel0000, ..., label``, the pixels row by row with the colours of a pixel beside each
other. Row i is row i of ``HAM10000_metadata.csv``, which brings lesion ids, sites, ages and sexes.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from skinfl.data import folders, images, tables
from skinfl.data.dataset import LesionDataset
from skinfl.data.ham10000 import (
    CLASS_INFO,
    CLASSES,
    Metadata,
    find_metadata,
    read_metadata,
    remark_choice,
)
from skinfl.data.index import duplicates
from skinfl.data.preparation import Preparation
from skinfl.data.readers import PIXEL_TABLE, Found, Reader, register
from skinfl.data.sources import Progress, Source
from skinfl.data.tables import listing
from skinfl.errors import DataError
from skinfl.paths import PathLike

SOURCE = Source(
    "hmnist",
    "the images of HAM10000 as pixel tables of 8x8 or 28x28, grey or colour (CC BY-NC 4.0)",
    "https://www.kaggle.com/datasets/kmader/skin-cancer-mnist-ham10000",
    "hmnist_28_28_RGB.csv (or 28_28_L, 8_8_RGB, 8_8_L) with HAM10000_metadata.csv beside it",
)

_NAME = re.compile(r"hmnist_(\d+)_(\d+)_(L|RGB)\.csv", re.IGNORECASE)
_COMMA, _NEWLINE = ord(","), ord("\n")
_ROWS_AT_ONCE = 512


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


def read(path: Path, preparation: Optional[Preparation], metadata: Optional[Path] = None) -> LesionDataset:
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
        images.resize(pixels, preparation),
        labels,
        CLASS_INFO,
        rows.lesion_ids if rows else names,
        rows.image_ids if rows else names,
        rows.sites if rows else None,
        rows.sexes if rows else None,
        rows.ages if rows else None,
        lesions_known=rows is not None,
        preparation=preparation,
    )


def _join(path: Path, labels: np.ndarray, rows: Metadata) -> Metadata:
    if len(rows) != len(labels):
        raise DataError(
            f"{path} has {len(labels)} rows but {rows.path} has {len(rows)}: "
            f"take both from one source, {SOURCE.page}"
        )
    different = np.flatnonzero(labels != np.asarray(rows.labels))
    if len(different):
        i = int(different[0])
        raise DataError(
            f"{path} and {rows.path} disagree in {len(different)} labels, first in row {i + 1} "
            f"({CLASSES[labels[i]]} against {CLASSES[rows.labels[i]]}): take both from one source, "
            f"{SOURCE.page}"
        )
    twice = duplicates(rows.image_ids)
    if twice:
        raise DataError(f"{rows.path}: image ids on several rows ({listing(twice)}): keep one row of each")
    return rows


def _read_pixels(path: Path, fmt: Format) -> Tuple[np.ndarray, np.ndarray]:
    """Return pixels, uint8 (n, height, width, channels), and labels, int64 (n,)."""
    again = f"get it again from {SOURCE.page}"
    try:
        header, _, body = _plain(path.read_bytes()).partition(b"\n")
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror}): allow it to be read, or {again}"
        ) from None
    except ValueError as error:
        raise DataError(f"{path} cannot be read as a table ({error}): {again}") from None
    columns = header.decode("utf-8-sig", errors="replace").replace('"', "").strip().split(",")
    expected = fmt.height * fmt.width * fmt.channels
    if columns[-1] != "label" or len(columns) != expected + 1:
        raise DataError(
            f"{path} must have {expected} pixel columns and then 'label', it has {len(columns)} columns "
            f"ending in {columns[-1][:40]!r}: {again}"
        )
    body = body.strip(b"\n") + b"\n"
    if body == b"\n":
        raise DataError(f"{path} has no rows: {again}")
    text = np.frombuffer(body, dtype=np.uint8)
    ends = np.flatnonzero(text == _NEWLINE) + 1
    values = np.empty((len(ends), len(columns)), dtype=np.uint8)
    for first in range(0, len(ends), _ROWS_AT_ONCE):
        last = min(first + _ROWS_AT_ONCE, len(ends))
        part = text[ends[first - 1] if first else 0 : ends[last - 1]]
        parsed = _whole_numbers(part, len(columns))
        if parsed is None:
            parsed = _any_numbers(path, part, columns, first + 2, again)
        values[first:last] = parsed
    labels = values[:, -1].astype(np.int64)
    wrong = np.flatnonzero(labels >= len(CLASSES))
    if len(wrong):
        raise DataError(
            f"{path}, line {wrong[0] + 2}: unknown class {labels[wrong[0]]}, labels run from 0 to "
            f"{len(CLASSES) - 1}: {again}"
        )
    return values[:, :-1].reshape(len(values), fmt.height, fmt.width, fmt.channels), labels


def _plain(content: bytes) -> bytes:
    """Return a table with commas between values and ``\\n`` after lines, whatever saved it.

    Pixels are digits, so that bytes can be replaced: decoding a hundred megabytes would take seconds.
    """
    if b"\0" in content[:4] or content[:2] == b"PK":
        content = tables.decode(content).encode()
    if b"\r" in content:
        content = content.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    content = content.lstrip(b"\n")
    header = content[: content.find(b"\n") + 1]
    for separator in (b";", b"\t"):
        if separator in header and b"," not in header:
            return content.replace(separator, b",")
    return content


def _whole_numbers(text: np.ndarray, columns: int) -> Optional[np.ndarray]:
    """Parse rows of numbers 0 to 255, all at once; None where there is anything else.

    28x28 colour pixels are 23 million numbers, too many for a loop over fields.
    """
    ends = np.flatnonzero((text == _COMMA) | (text == _NEWLINE))
    lengths = np.diff(ends, prepend=-1) - 1
    row_ends = np.flatnonzero(text[ends] == _NEWLINE)
    digits = text.astype(np.int32) - ord("0")
    if (
        lengths.min() < 1
        or lengths.max() > 3
        or (np.diff(row_ends, prepend=-1) != columns).any()
        or np.count_nonzero((digits >= 0) & (digits <= 9)) != len(text) - len(ends)
    ):
        return None
    values = digits[ends - 1]
    values += 10 * np.where(lengths > 1, digits[ends - 2], 0)
    values += 100 * np.where(lengths > 2, digits[ends - 3], 0)
    return None if values.max() > 255 else values.reshape(-1, columns)


def _any_numbers(path: Path, text: np.ndarray, columns: List[str], line: int, again: str) -> np.ndarray:
    """Parse rows number by number, e.g. ``173.0``; raise for the first that is no pixel value."""
    rows = []
    for number, row in enumerate(text.tobytes().splitlines(), start=line):
        fields = row.split(b",")
        if len(fields) != len(columns):
            raise DataError(
                f"{path}, line {number}: {len(fields)} values for {len(columns)} columns: {again}"
            )
        for column, field in zip(columns, fields):
            if not _is_level(field):
                raise DataError(
                    f"{path}, line {number}: {column} is {field.decode(errors='replace')!r}, "
                    f"not a whole number from 0 to 255: {again}"
                )
        rows.append([int(float(field)) for field in fields])
    return np.array(rows)


def _is_level(field: bytes) -> bool:
    try:
        value = float(field)
    except ValueError:
        return False
    return 0 <= value <= 255 and value.is_integer()


class Hmnist(Reader):
    """Pixel tables, with the metadata beside them."""

    source = SOURCE
    looks_for = "hmnist_*.csv"

    def recognise(self, path: Path, metadata: Optional[Path] = None) -> Sequence[Found]:
        folder = path if folders.is_folder(path) else path.parent
        found = []
        for file in folders.files(path) if path == folder else [path]:
            fmt = format_of(file)
            if fmt is not None:
                found.append(Found(self, file, (PIXEL_TABLE, *fmt), metadata or find_metadata(folder)))
        return found

    def read(
        self,
        found: Found,
        preparation: Optional[Preparation],
        cache_dir: Optional[PathLike] = None,
        progress: Progress = None,
    ) -> LesionDataset:
        if found.metadata is not None:
            remark_choice(found.metadata, found.path.parent, progress)
        return read(found.path, preparation, found.metadata)


register(Hmnist())

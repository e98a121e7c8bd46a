"""Reading the publishers' CSV files, with errors that name the file and the row."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Dict, List, NamedTuple, Sequence

from skinfl.errors import DataError, nearest

_NOT_KNOWN = frozenset(("", "na", "nan", "none", "null", "unknown"))


class Table(NamedTuple):
    """A CSV file: ``columns`` by name, and the line of the file that each row stands on."""

    path: Path
    columns: Dict[str, List[str]]
    lines: List[int]

    def __len__(self) -> int:
        return len(self.lines)

    def where(self, row: int) -> str:
        """Return ``file, line n`` for an error message."""
        return f"{self.path}, line {self.lines[row]}"


def read_table(path: Path, required: Sequence[str], page: str) -> Table:
    """Read a comma- or tab-separated file with a header line.

    ``page`` is where the user gets a good copy. Raises :class:`~skinfl.errors.DataError` where the
    file is missing, is no text, has no rows, lacks a required column or has a row of another length.
    """
    again = f"get it again from {page}"
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            header = file.readline()
            file.seek(0)
            reader = csv.reader(file, delimiter="\t" if "\t" in header and "," not in header else ",")
            names = [name.strip() for name in next(reader, [])]
            rows, lines = [], []
            for row in reader:
                if row:
                    rows.append(row)
                    lines.append(reader.line_num)
    except FileNotFoundError:
        raise DataError(f"{path} is missing: get it from {page}") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as a CSV file ({error}): {again}") from None
    for name in required:
        if name not in names:
            raise DataError(f"{path} has no column {name!r} ({nearest(name, names)}): {again}")
    for line, row in zip(lines, rows):
        if len(row) != len(names):
            raise DataError(f"{path}, line {line}: {len(row)} values for {len(names)} columns: {again}")
    if not rows:
        raise DataError(f"{path} has no rows: {again}")
    return Table(path, {name: [row[i].strip() for row in rows] for i, name in enumerate(names)}, lines)


def known(value: str) -> str:
    """Return ``value``, or ``""`` where the publisher wrote that it is not known."""
    return "" if value.lower() in _NOT_KNOWN else value


def age(table: Table, column: str, row: int) -> float:
    """Return an age in years, NaN where it is not known."""
    value = known(table.columns[column][row])
    if not value:
        return float("nan")
    try:
        return float(value)
    except ValueError:
        raise DataError(f"{table.where(row)}: {column} {value!r} is no number: mend or empty it") from None


def listing(names: Sequence[str], most: int = 3) -> str:
    """Return the first few names and how many more there are."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")

"""Reading the publishers' tables, as published or as a spreadsheet saved them again.

pandas reads, and nothing is guessed: every value stays the text that stands in the file, and what could be
read in two ways is refused. Errors name the file and the line.
"""

from __future__ import annotations

import codecs
import csv
import errno
import io
import os
import re
import stat
from collections import Counter
from pathlib import Path
from typing import Dict, List, NamedTuple, Sequence, Tuple

from skinfl.errors import DataError, nearest

_NOT_KNOWN = frozenset(
    ("", "na", "n/a", "#n/a", "nan", "<na>", "none", "null", "nil", "unknown", "unk", "?", "-", "--")
)
_SEPARATORS = (",", ";", "\t")
_CONTROL = re.compile("[\x00-\x08\x0e-\x1f]")
_AGE = re.compile(r"[0-9]+([.,][0-9]*)?")
_OLDEST = 130
#: what is read of a file to see whether it is a table and which columns it has
_HEAD = 1 << 16


class Table(NamedTuple):
    """A table: ``columns`` by name, and the line of the file that each row ends on."""

    path: Path
    columns: Dict[str, List[str]]
    lines: List[int]

    def __len__(self) -> int:
        return len(self.lines)

    def where(self, row: int) -> str:
        """Return ``file, line n`` for an error message."""
        return f"{self.path}, line {self.lines[row]}"


def read_table(path: Path, required: Sequence[str], page: str) -> Table:
    """Read a table with a header line, its values separated by commas, semicolons or tabs.

    The text may be UTF-8, UTF-16 or Windows' older code page 1252, with or without a byte order mark, lines
    may end in any way, and Excel's first line ``sep=;`` is understood. Rows and columns without any name or
    value are passed over. ``page`` is where the user gets a good copy. Raises
    :class:`~skinfl.errors.DataError` where the file is missing, is no text, has no rows, lacks a required
    column, has two columns of one name or a row of another length.
    """
    again = f"get it again from {page}"
    try:
        text = decode(_regular(path).read_bytes())
    except FileNotFoundError:
        raise DataError(f"{path} is missing: get it from {page}") from None
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror}): allow it to be read, or {again}"
        ) from None
    except ValueError as error:
        raise DataError(f"{path} cannot be read as a table ({error}): {again}") from None
    skipped, separator = _sniff(text, required)
    try:
        rows, lines = _rows("\n".join(text.split("\n")[skipped:]), separator)
    except ValueError as error:
        reason = _short(str(error), 200)
        if "unexpected end of data" in reason:
            reason = "a quotation mark is not closed"
        raise DataError(f"{path} cannot be read as a table ({reason}): {again}") from None
    names = rows[0] if rows else []
    _check_names(path, names, required, again)
    for row, line in zip(rows[1:], lines[1:]):
        if len(row) != len(names):
            raise DataError(
                f"{path}, line {line + skipped}: {len(row)} values for {len(names)} columns: {again}"
            )
    if len(rows) < 2:
        raise DataError(f"{path} has no rows: {again}")
    columns = {name: [row[i] for row in rows[1:]] for i, name in enumerate(names) if name}
    return Table(path, columns, [line + skipped for line in lines[1:]])


def _regular(path: Path) -> Path:
    # A pipe or a device would keep the reader waiting for ever.
    if not stat.S_ISREG(os.stat(str(path)).st_mode):
        raise OSError(errno.EINVAL, "it is no file")
    return path


def decode(content: bytes) -> str:
    """Return a file's text with every line ending in ``\\n``; raises ValueError for what is no text.

    A file that is no UTF-8 and has no byte order mark was most likely saved by Windows. Were it another
    one-byte encoding, letters beyond ASCII would be other letters, but the same everywhere in the file.
    """
    if content.startswith(b"PK\x03\x04"):
        raise ValueError("it is a zip or Excel file: unpack it, or save it as CSV")
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        text = content.decode("utf-16")
    elif content[1:2] == b"\0" and content[:1] != b"\0":
        text = content.decode("utf-16-le")
    elif content[:1] == b"\0" and content[1:2] != b"\0":
        text = content.decode("utf-16-be")
    else:
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = content.decode("cp1252")
    control = _CONTROL.search(text)
    if control is not None:
        raise ValueError(f"it is no text, it holds the character {control.group()!r}")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def header(path: Path) -> List[str]:
    """Return the names of a table's columns, or nothing where the file is no table or cannot be read."""
    try:
        with open(str(_regular(path)), "rb") as file:
            head = file.read(_HEAD)
        # A character of UTF-8 or UTF-16 may be cut at the end.
        text = decode(head if len(head) < _HEAD else head[: head.rfind(b"\n") + 1] or head[:-4])
        skipped, separator = _sniff(text, ())
        return [
            name.strip() for name in next(csv.reader([text.split("\n")[skipped]], delimiter=separator), [])
        ]
    except (OSError, ValueError, csv.Error):
        return []


def cells(path: Path) -> List[str]:
    """Return all that stands between separators in a table; nothing where it cannot be read."""
    try:
        return re.split(r'[,;\t\n"]', decode(_regular(path).read_bytes()))
    except (OSError, ValueError):
        return []


def _sniff(text: str, required: Sequence[str]) -> Tuple[int, str]:
    """Return how many lines stand before the header, and the separator.

    The separator is the one that gives most of the required columns, of equals most columns.
    """
    lines = text.split("\n")
    first = next((i for i, line in enumerate(lines) if line.strip()), 0)
    excel = re.fullmatch(r'"?sep=(.)"?[,;\t]*', lines[first].strip("\n "))
    if excel is not None:
        return first + 1, excel.group(1)

    def fit(separator: str) -> Tuple[int, int]:
        try:
            names = [name.strip() for name in next(csv.reader([lines[first]], delimiter=separator), [])]
        except csv.Error:
            return 0, 0
        return sum(name in names for name in required), len(names)

    return first, max(_SEPARATORS, key=fit)


def _rows(text: str, separator: str) -> Tuple[List[List[str]], List[int]]:
    """Return the rows that hold anything, values stripped, and the line that each ends on."""
    # Costs half a second, which no command needs that reads no table.
    import pandas as pd

    if not text.strip():
        return [], []
    lines = text.split("\n")
    # Room for rows that are too long: they are refused with their line, which pandas does not know. One place
    # more than any row has, or older versions take a full row after an empty one for names of an index.
    first = lines[0].count(separator) + 1
    width = min(max(line.count(separator) for line in lines) + 1, 4 * first + 16) + 1
    # The Python engine, as the C one fills short rows with empty values that cannot be told from real ones.
    frame = pd.read_csv(
        io.StringIO(text),
        sep=separator,
        header=None,
        names=list(range(width)),
        index_col=False,
        dtype=object,
        na_filter=False,
        skip_blank_lines=False,
        engine="python",
    )
    rows, ends = [], []
    line = 0
    for values in frame.itertuples(index=False, name=None):
        row = [value for value in values if isinstance(value, str)]
        line += 1 + sum(value.count("\n") for value in row)
        row = [value.strip() for value in row]
        if any(row):
            rows.append(row)
            ends.append(line)
    return rows, ends


def _check_names(path: Path, names: Sequence[str], required: Sequence[str], again: str) -> None:
    for name in required:
        if name not in names:
            raise DataError(f"{path} has no column {name!r} ({_hint(name, names)}): {again}")
    twice = [name for name, times in Counter(names).items() if name and times > 1]
    if twice:
        raise DataError(f"{path} has several columns named {_short(twice[0])!r}: keep the one that counts")


def _hint(name: str, names: Sequence[str]) -> str:
    hint = nearest(name, names)
    if hint.startswith("did you mean"):
        return hint
    return "it has " + listing([_short(name) for name in names if name], 8) if any(names) else "it is empty"


def _short(text: str, most: int = 40) -> str:
    return text if len(text) <= most else text[: most - 3] + "..."


def known(value: str) -> str:
    """Return ``value``, or ``""`` where the publisher wrote that it is not known."""
    return "" if value.lower() in _NOT_KNOWN else value


def age(table: Table, column: str, row: int) -> float:
    """Return an age in years, NaN where it is not known."""
    value = known(table.columns[column][row])
    if not value:
        return float("nan")
    years = float(value.replace(",", ".")) if _AGE.fullmatch(value) else -1.0
    if not 0 <= years <= _OLDEST:
        raise DataError(
            f"{table.where(row)}: {column} {_short(value)!r} is no number of years: mend or empty it"
        )
    return years


def one_marked(table: Table, row: int, columns: Sequence[str]) -> int:
    """Return which one of the columns is marked 1 in a row, or -1 where there is not just one."""
    marked = [i for i, name in enumerate(columns) if _is_one(table.columns[name][row])]
    return marked[0] if len(marked) == 1 else -1


def _is_one(value: str) -> bool:
    try:
        return float(value.replace(",", ".")) == 1.0  # Excel writes the comma where the country does
    except ValueError:
        return False


def listing(names: Sequence[str], most: int = 3) -> str:
    """Return the first few names and how many more there are."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")

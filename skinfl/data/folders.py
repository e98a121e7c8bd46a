"""Looking into folders as people have them: litter is passed over, a neighbour nobody may read does no harm.

What *is* needed and cannot be read is one :class:`~skinfl.errors.DataError` that names it. All paths go
through :mod:`os.path`, which answers "no" where pathlib of Python 3.8 raises: for a name that is too long, or
below a folder without permission.
"""

from __future__ import annotations

import os
from pathlib import Path
from stat import S_ISREG
from typing import Iterator, List

from skinfl.errors import DataError
from skinfl.paths import PathLike

#: twins that macOS makes on foreign disks begin with "._", editors' locks with ".", those of Office with "~$"
_LITTER = (".", "~$")
_LITTER_NAMES = frozenset(("__MACOSX", "Thumbs.db", "ehthumbs.db", "desktop.ini"))


def is_litter(name: str) -> bool:
    """Whether a file or folder of this name is left by an operating system or an editor."""
    return name.startswith(_LITTER) or name in _LITTER_NAMES


def is_file(path: PathLike) -> bool:
    """Whether ``path`` is a file, or a link to one, that can be seen from here."""
    return os.path.isfile(str(path))


def is_folder(path: PathLike) -> bool:
    """Whether ``path`` is a folder, or a link to one, that can be seen from here."""
    return os.path.isdir(str(path))


def entries(folder: Path) -> List[Path]:
    """Return what lies in ``folder``, sorted by name, without litter."""
    try:
        names = os.listdir(str(folder))
    except OSError as error:
        raise DataError(
            f"{folder} cannot be read ({error.strerror}): allow it to be read, or name another folder"
        ) from None
    return [folder / name for name in sorted(names) if not is_litter(name)]


def files(folder: Path) -> List[Path]:
    """Return the files in ``folder``, sorted by name, without litter."""
    return [path for path in entries(folder) if is_file(path)]


def subfolders(folder: Path) -> List[Path]:
    """Return the folders in ``folder`` that can be looked into, sorted by name, without litter."""
    return [path for path in entries(folder) if is_folder(path) and os.access(str(path), os.R_OK | os.X_OK)]


def named_folders(folder: Path, prefix: str) -> List[Path]:
    """Return the folders in ``folder`` whose name begins with ``prefix``, in any case, readable or not.

    Where a zip file was unpacked into a folder of its own name, so that there is ``x/x``, the inner one is
    returned as well.
    """
    found = []
    for path in entries(folder):
        if is_folder(path) and path.name.lower().startswith(prefix.lower()):
            found.append(path)
            if is_folder(path / path.name):
                found.append(path / path.name)
    return found


def stat(path: Path) -> os.stat_result:
    """Return what the system knows of a file that is needed."""
    try:
        return os.stat(str(path))
    except OSError as error:
        link = f"it is a link to {os.readlink(str(path))}, " if os.path.islink(str(path)) else ""
        raise DataError(
            f"{path} cannot be read ({link}{error.strerror}): copy it again from its publisher"
        ) from None


def absence(path: Path) -> str:
    """Return in words why ``path`` is neither a file nor a folder to read."""
    if os.path.exists(str(path)):
        return "is neither a file nor a folder"
    if os.path.islink(str(path)):
        return f"is a link to {os.readlink(str(path))}, which is not there"
    return "does not exist"


def expanded(path: PathLike) -> Path:
    """Return ``path`` with ``~`` replaced by the home folder, where there is one."""
    return Path(os.path.expanduser(str(path)))


def read_blocks(path: Path, size: int) -> Iterator[bytes]:
    """Yield a file's content, at most ``size`` bytes at a time; raises DataError where it cannot be read."""
    # A pipe or a device would keep the reader waiting for ever.
    if not S_ISREG(stat(path).st_mode):
        raise DataError(f"{path} is no file: copy it again from its publisher")
    try:
        with open(str(path), "rb") as file:
            while True:
                block = file.read(size)
                if not block:
                    return
                yield block
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): allow it to be read") from None


def read(path: Path) -> bytes:
    """Return a file's content; raises DataError where it cannot be read."""
    return b"".join(read_blocks(path, 1 << 24))

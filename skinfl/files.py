"""Writing files whole or not at all: a reader never meets half a file, not even after SIGKILL.

What is written lies in a temporary file or folder beside its place until it is complete. That has a short
random name of its own, so that two processes never share one and a killed process's is in nobody's way.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Iterator, Union

from skinfl.errors import WriteError

PathLike = Union[str, "os.PathLike[str]"]
_DIGEST = hashlib.sha256().digest_size


@contextmanager
def whole_file(path: PathLike, *, private: bool = False, overwrite: bool = True) -> Iterator[BinaryIO]:
    """Give a binary file to write into, which is at ``path`` once the block has ended without an error.

    Missing parent folders are made. Whatever was at ``path`` stays until the new file is complete, and the
    new one is on the disk when the block has ended. A ``private`` file is its owner's alone (mode 600) from
    the moment it exists, the temporary one too. Without ``overwrite`` a file that is there is left alone and
    FileExistsError raised.

    Raises :class:`~skinfl.errors.WriteError` where the disk is full, the folder read-only or not a folder.
    """
    path = Path(path)
    mode = 0o600 if private else 0o666
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = _beside(path)
        try:
            with os.fdopen(_create(temporary, mode), "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            if overwrite:
                os.replace(str(temporary), str(path))
            else:
                _take_free_place(temporary, path, mode)
            _settle(path.parent)
        finally:
            if temporary.exists():
                temporary.unlink()
    except OSError as error:
        if isinstance(error, FileExistsError) and not overwrite and os.path.lexists(str(path)):
            raise
        raise _write_error(path, error) from error


@contextmanager
def whole_folder(path: PathLike, *, private: bool = False) -> Iterator[Path]:
    """Give an empty folder to fill, which is at ``path`` once the block has ended without an error.

    ``path`` must not exist or be an empty folder by then. A ``private`` folder is its owner's alone (mode
    700). Raises :class:`~skinfl.errors.WriteError` as :func:`whole_file` does.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = _beside(path)
        try:
            temporary.mkdir(mode=0o700 if private else 0o777)
            yield temporary
            os.replace(str(temporary), str(path))
        finally:
            shutil.rmtree(str(temporary), ignore_errors=True)
    except OSError as error:
        raise _write_error(path, error) from error


def write_bytes(path: PathLike, content: bytes, *, private: bool = False, overwrite: bool = True) -> Path:
    """Write ``content`` to ``path`` and return the path; see :func:`whole_file`."""
    with whole_file(path, private=private, overwrite=overwrite) as file:
        file.write(content)
    return Path(path)


def write_checked(path: PathLike, content: bytes, *, private: bool = False) -> Path:
    """Write ``content`` behind its SHA-256, for :func:`read_checked`; see :func:`whole_file`."""
    return write_bytes(path, hashlib.sha256(content).digest() + content, private=private)


def read_checked(path: PathLike) -> bytes:
    """Return what :func:`write_checked` wrote; raises ValueError where it is something else, or OSError."""
    found = Path(path).read_bytes()
    digest, content = found[:_DIGEST], found[_DIGEST:]
    if hashlib.sha256(content).digest() != digest:
        raise ValueError("it is cut short or altered")
    return content


def check_writable(path: PathLike) -> None:
    """Refuse a place where no file can be made, before the work whose result is to lie there.

    Nothing is left behind. Raises :class:`~skinfl.errors.WriteError` as :func:`whole_file` does.
    """
    path = Path(path)
    folder = next(each for each in path.absolute().parents if os.path.lexists(str(each)))
    try:
        temporary = _beside(folder / path.name)
        os.close(_create(temporary, 0o600))
        temporary.unlink()
    except OSError as error:
        raise _write_error(path, error) from error


def write_text(path: PathLike, text: str) -> Path:
    """Write ``text`` as UTF-8, line ends as they are; see :func:`whole_file`."""
    return write_bytes(path, text.encode("utf-8"))


def write_json(path: PathLike, data: Any) -> Path:
    """Write ``data`` as JSON in its own key order; see :func:`whole_file`.

    Raises ValueError for NaN and infinity, which JSON does not have, before touching the file.
    """
    return write_text(path, json.dumps(data, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def _beside(path: Path) -> Path:
    # Not made of the path's own name, which may be as long as the file system allows.
    return path.parent / f".skinfl-{secrets.token_hex(8)}.tmp"


def _create(path: Path, mode: int) -> int:
    return os.open(str(path), os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), mode)


def _settle(folder: Path) -> None:
    """Let the system write down which files a folder holds, where it can be asked to."""
    with suppress(OSError):  # Windows and some network file systems refuse
        descriptor = os.open(str(folder), os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _take_free_place(temporary: Path, path: Path, mode: int) -> None:
    """Move a file to a place where none is, in one step; raises FileExistsError where one is."""
    try:
        os.link(str(temporary), str(path))
    except FileExistsError:
        raise
    except OSError:  # a file system without links: hold the place with an empty file first
        os.close(_create(path, mode))
        os.replace(str(temporary), str(path))


def _write_error(path: Path, error: OSError) -> WriteError:
    return WriteError(path, error.strerror or str(error))

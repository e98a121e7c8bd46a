"""Writing files whole or not at all: a reader never meets half a file, not even after SIGKILL."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Union

from skinfl.errors import SkinflError

PathLike = Union[str, "os.PathLike[str]"]


def write_bytes(path: PathLike, content: bytes) -> Path:
    """Write ``content`` to ``path`` through a temporary file beside it; return the path.

    Missing parent folders are made. Whatever was at ``path`` stays until the new file is complete
    and on the disk. Raises :class:`~skinfl.errors.SkinflError` where the disk is full, the folder
    read-only or not a folder.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(str(temporary), "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(str(temporary), str(path))
        except BaseException:
            if temporary.exists():
                temporary.unlink()
            raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise SkinflError(
            f"cannot write {path}: {reason}; free space there or name another folder with --out"
        ) from error
    return path


def write_text(path: PathLike, text: str) -> Path:
    """Write ``text`` as UTF-8, line ends as they are; see :func:`write_bytes`."""
    return write_bytes(path, text.encode("utf-8"))


def write_json(path: PathLike, data: Any) -> Path:
    """Write ``data`` as JSON in its own key order; see :func:`write_bytes`.

    Raises ValueError for NaN and infinity, which JSON does not have, before touching the file.
    """
    return write_text(path, json.dumps(data, indent=2, allow_nan=False, ensure_ascii=False) + "\n")

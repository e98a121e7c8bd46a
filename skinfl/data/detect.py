"""Finding out what a folder or file is, and reading it with the right reader."""

from __future__ import annotations

import re
from pathlib import Path
from typing import List, Optional

from skinfl.data import contents, folders
from skinfl.data.dataset import LesionDataset
from skinfl.data.preparation import Preparation
from skinfl.data.readers import TRACES, Found, Reader, all_readers
from skinfl.data.sources import Progress, remark
from skinfl.errors import DataError
from skinfl.paths import PathLike

#: a path that was an address has one slash less
_ADDRESS = re.compile("(https?|ftps?|s3|gs):/")
_MEND = "give a folder that 'skinfl data list' shows"


def load(
    source: PathLike,
    *,
    image_size: int = 28,
    fit: str = "squash",
    colour_constancy: str = "none",
    cache_dir: Optional[PathLike] = None,
    progress: Progress = None,
    metadata: Optional[PathLike] = None,
) -> LesionDataset:
    """Read a data set as its publisher ships it; nothing is downloaded.

    Parameters
    ----------
    source: ``"synthetic"``, or a folder or file that a reader recognises (:mod:`skinfl.data.readers`).
    image_size: images are resized to a square of so many pixels, bilinear.
    fit: how a frame becomes a square: ``"squash"`` it, ``"crop"`` its middle, or ``"pad"`` it.
    colour_constancy: ``"none"``, or ``"shades-of-grey"``; see :mod:`skinfl.data.preparation`.
    cache_dir: where decoded images and the synthetic set are kept; default ``$SKINFL_CACHE`` or
        ``~/.cache/skinfl``.
    progress: called as ``progress(done, total, what)``; total 0 marks a remark.
    metadata: the publisher's table, where it is not the one in the folder.

    Raises :class:`~skinfl.errors.DataError` that names the file and says how to mend it.
    """
    preparation = Preparation(image_size, fit, colour_constancy).check()
    maker = maker_of(source)
    if maker is not None:
        _refuse_metadata(maker, metadata)
        return maker.make(preparation, cache_dir, progress)
    found = detect(source, metadata, progress)
    return found.reader.read(found, preparation, cache_dir, progress)


def maker_of(source: PathLike) -> Optional[Reader]:
    """Return the reader whose word ``source`` is, None where it is a path."""
    return next((reader for reader in all_readers() if reader.word == str(source)), None)


def detect(source: PathLike, metadata: Optional[PathLike] = None, progress: Progress = None) -> Found:
    """Say what lies at a path, and which of several candidates there is read: see ``Found.rank``."""
    if not str(source).strip():
        raise DataError(f"no data set is named: {_MEND}, or 'synthetic'")
    path = folders.expanded(source)
    table = None if metadata is None else folders.expanded(metadata)
    if table is not None and not folders.is_file(table):
        what = "no file" if folders.is_folder(table) else "missing"
        raise DataError(f"{table} is {what}: give the publisher's metadata table, or leave it out")
    if not folders.is_file(path) and not folders.is_folder(path):
        download = "nothing is downloaded, get it first and " if _ADDRESS.match(str(source)) else ""
        raise DataError(f"{source} {folders.absence(path)}: {download}{_MEND}")
    if folders.is_folder(path) and not folders.entries(path):
        raise DataError(f"{path} is empty: {_MEND}")
    candidates = recognised(path, table)
    if not candidates:
        raise DataError(_unknown(path))
    first, *others = candidates
    if others:
        names = ", ".join(_name(found, path) for found in others)
        remark(progress, f"{path} holds several data sets: {_name(first, path)} is read, not {names}")
    if first.metadata is None:
        _refuse_metadata(first.reader, metadata)
    return first


def recognised(path: Path, metadata: Optional[Path] = None) -> List[Found]:
    """Return what the readers recognise at ``path``, the best first; traces only where nothing else is."""
    found = [each for reader in all_readers() for each in reader.recognise(path, metadata)]
    found.sort(key=lambda each: each.rank, reverse=True)
    whole = [each for each in found if each.rank[0] > TRACES]
    # Sorting in reverse keeps the order of equals, which is that of registration.
    return whole or found[:1]


def _name(found: Found, path: Path) -> str:
    return found.reader.source.name if found.path == path else found.path.name


def _refuse_metadata(reader: Reader, metadata: Optional[PathLike]) -> None:
    if metadata is not None:
        raise DataError(f"{reader.source.name} takes no separate metadata table: leave {metadata} out")


def _unknown(path: Path) -> str:
    looked_for = "; ".join(
        f"{reader.looks_for or reader.source.layout} ({reader.source.name})" for reader in all_readers()
    )
    if path.suffix.lower() in contents.ARCHIVES:
        return f"{path} is not unpacked: unpack it, and give the folder"
    if folders.is_file(path):
        return (
            f"{path} is no file that is known here: give it its publisher's name, or {_MEND}; "
            f"looked for {looked_for}"
        )
    for folder in folders.subfolders(path):
        below = [found for found in recognised(folder) if found.rank[0] > TRACES]
        if below:
            return (
                f"{path} holds no data set itself, but {below[0].reader.source.name} lies in the folder "
                f"{folder.name} in it: give {folder}"
            )
    return (
        f"{path} holds no data set that is known here: it has {contents.describe(path)}; "
        f"looked for {looked_for}"
    )

"""SHA-256 of files' contents, remembered between runs for files that have not been touched since.

A file is taken for untouched if its path, size, times of change (of content and of the system's entry) and
number on the disk are the same. Whoever sets the time of change back does not set back the entry's.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from pathlib import Path
from typing import Dict, List, Sequence, Tuple

from skinfl.data import folders
from skinfl.data.parallel import in_threads
from skinfl.data.sources import Progress
from skinfl.errors import WriteError
from skinfl.files import read_checked, write_checked

_LOG = logging.getLogger(__name__)
#: file systems' clocks are coarse: what changed within so many nanoseconds may change again unseen
_SETTLED = 2_000_000_000
#: fewer bytes are read in no time, and no bar is shown
_WORTH_A_BAR = 64 << 20
_BLOCK = 1 << 20

_Mark = Tuple[int, ...]


def digest_of(path: Path) -> str:
    """Return the SHA-256, in hexadecimal, of a file's content."""
    sha = hashlib.sha256()
    for block in folders.read_blocks(path, _BLOCK):
        sha.update(block)
    return sha.hexdigest()


def memory_of(folder: Path, paths: Sequence[Path]) -> Memory:
    """Return what is remembered, in ``folder``, of files in the folders where ``paths`` lie."""
    places = sorted({os.path.dirname(os.path.abspath(str(path))) for path in paths})
    name = hashlib.sha256(json.dumps(places).encode()).hexdigest()[:16]
    return Memory(folder / f"digests-{name}", paths)


class Memory:
    """What is remembered of some files; kept in ``file``, where that can be written."""

    def __init__(self, file: Path, paths: Sequence[Path]):
        self._paths = [Path(os.path.abspath(str(path))) for path in paths]
        self._file = file
        self._known = self._read()

    def digests(self, progress: Progress = None, what: str = "looking for changed images") -> List[str]:
        """Return each file's digest; raises :class:`~skinfl.errors.DataError` for one that cannot be read."""
        now = time.time_ns()
        marks = [_mark(folders.stat(path)) for path in self._paths]
        new = [i for i, path in enumerate(self._paths) if not self._knows(path, marks[i])]
        show = progress if sum(marks[i][0] for i in new) > _WORTH_A_BAR else None
        found = list(in_threads(lambda i: digest_of(self._paths[new[i]]), len(new), show, what))
        fresh = dict(zip(new, found))
        settled = {
            str(self._paths[i]): (*marks[i], digest)
            for i, digest in fresh.items()
            if max(marks[i][1:3]) < now - _SETTLED
        }
        digests = [
            fresh[i] if i in fresh else str(self._known[str(path)][-1]) for i, path in enumerate(self._paths)
        ]
        if settled:
            self._known.update(settled)
            self._write()
        return digests

    def _knows(self, path: Path, mark: _Mark) -> bool:
        return tuple(self._known.get(str(path), ())[:-1]) == mark

    def _read(self) -> Dict[str, Sequence]:
        try:
            known = json.loads(read_checked(self._file).decode("utf-8"))
            return known if isinstance(known, dict) else {}
        except (OSError, ValueError):  # it only saves time
            return {}

    def _write(self) -> None:
        try:
            write_checked(self._file, json.dumps(self._known).encode("utf-8"), private=True)
        except WriteError as error:
            _LOG.debug("digests are not kept for the next run: %s", error)


def _mark(stat: os.stat_result) -> _Mark:
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino

"""How much memory a set of processes takes, watched while they work. Linux only; elsewhere it is unknown."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Callable, List, Optional


class MemoryWatch:
    """Notes the largest sum of several processes' memory, in bytes, while its ``with`` block runs.

    ``pids`` is asked anew each time. Memory that processes share is counted once (proportional set
    size).
    """

    def __init__(self, pids: Callable[[], List[int]], seconds: float = 1.0):
        self.peak: Optional[int] = None
        self._pids = pids
        self._seconds = seconds
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> MemoryWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(self._seconds):
            total = sum(_memory_of(pid) for pid in self._pids())
            if total:
                self.peak = max(self.peak or 0, total)


def _memory_of(pid: int) -> int:
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text("ascii").splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):  # it ended meanwhile
        pass
    return 0

"""Work on many files by all cores, in order and with bounded memory."""

from __future__ import annotations

import os
import sys
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Callable, Deque, Iterator, TypeVar

from skinfl.data.sources import Progress

_Result = TypeVar("_Result")
#: results that may wait for whoever takes them, for each thread
_AHEAD = 4


def cores() -> int:
    """Return how many processor cores this process may use."""
    if sys.platform.startswith("linux"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def in_threads(
    function: Callable[[int], _Result], n: int, progress: Progress, what: str, *, threads: int = 0
) -> Iterator[_Result]:
    """Yield ``function(i)`` in order for i below n.

    Threads, since decoding, resizing, hashing and torch let go of the interpreter's lock: processes would
    have to be started, and to send what they made. They are no more than a few results ahead of who takes
    these. ``threads``: how many; 0 is two a core, for work that waits for the disk.
    """
    threads = threads or min(8, 2 * cores())
    with ThreadPoolExecutor(max_workers=threads) as pool:
        waiting: Deque[Future] = deque()
        begun = done = 0
        try:
            while done < n:
                while begun < min(n, done + _AHEAD * threads):
                    waiting.append(pool.submit(function, begun))
                    begun += 1
                result = waiting.popleft().result()
                done += 1
                if progress is not None:
                    progress(done, n, what)
                yield result
        finally:
            # Drops what has not begun: an interrupted run must not decode the rest first.
            for future in waiting:
                future.cancel()

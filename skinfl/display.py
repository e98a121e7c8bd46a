"""What a Python session sees of long work: a bar in a notebook's cell, or the command line's display."""

from __future__ import annotations

import html
import time
from contextlib import contextmanager
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

from rich.console import Console

from skinfl.console import RunDisplay, loading, round_line
from skinfl.federation.events import (
    Event,
    HospitalLeftOut,
    HospitalTrained,
    Listener,
    RoundFinished,
    RunStarted,
)

#: called with (done, total, what); total 0 marks a remark
Show = Callable[[int, int, str], None]


@contextmanager
def display_for(title: str, wanted: bool) -> Iterator[Tuple[Listener, ...]]:
    """Give the listeners that show a run, none where it is not ``wanted``; their bar goes with the block."""
    if not wanted:
        yield ()
        return
    display = NotebookDisplay(title) if in_notebook() else RunDisplay(Console(), title)
    try:
        yield (display,)
    finally:
        display.close()


@contextmanager
def loading_display(wanted: bool) -> Iterator[Optional[Show]]:
    """Give a callback that shows how far reading or drawing is, None where it is not ``wanted``."""
    if not wanted:
        yield None
    elif in_notebook():
        cell = _Cell()
        yield lambda done, total, what: cell.show(done, total, what) if total else cell.line(what)
        cell.done()
    else:
        with loading(Console()) as show:
            yield show


def in_notebook() -> bool:
    """Say whether this runs in a Jupyter kernel, whose cells show HTML."""
    try:
        from IPython import get_ipython
    except ImportError:
        return False
    return type(get_ipython()).__name__ == "ZMQInteractiveShell"


class NotebookDisplay:
    """A listener that shows a run in a cell: a bar with the time left, a line for each finished round."""

    def __init__(self, title: str):
        self._title = title
        self._cell = _Cell()
        self._rounds: Tuple[int, int] = (1, 1)
        self._trained = 0
        self._asked = 1

    def __call__(self, event: Event) -> None:
        """Show ``event``."""
        if isinstance(event, RunStarted):
            self._rounds, self._asked = (event.first_round, event.rounds), max(1, len(event.hospitals))
            self._show(0, "begins")
        elif isinstance(event, HospitalTrained):
            self._trained += 1
            self._show(event.round - self._rounds[0], f"round {event.round}: {event.hospital} trained")
        elif isinstance(event, HospitalLeftOut):
            self._cell.line(f"{self._title} round {event.round}: left out {event.hospital}: {event.reason}")
        elif isinstance(event, RoundFinished):
            self._trained = 0
            self._cell.line(round_line(self._title, event.record))
            self._show(event.round - self._rounds[0] + 1, f"round {event.round} finished")

    def close(self) -> None:
        """Take the bar away; the lines stay."""
        self._cell.done()

    def _show(self, finished: int, what: str) -> None:
        first, last = self._rounds
        part = min(1.0, self._trained / self._asked)
        self._cell.show(finished + part, max(1, last - first + 1), f"{self._title} {what}")


class _Cell:
    """A bar with lines above it in the output of one cell."""

    def __init__(self) -> None:
        from IPython.display import HTML, display

        self._html: Any = HTML
        self._handle = display(HTML(""), display_id=True)
        self._lines: List[str] = []
        self._bar = ""
        self._began: Dict[str, float] = {}

    def show(self, done: float, total: float, what: str) -> None:
        """Set the bar; the time left is what the past suggests."""
        began = self._began.setdefault("all", time.monotonic())
        spent = time.monotonic() - began
        left = f", about {spent * (total - done) / done:.0f} s left" if 0 < done < total else ""
        self._bar = (
            f'<progress max="{total}" value="{done}" style="width:20em" aria-label="{html.escape(what)}">'
            f"</progress> {html.escape(what)}{left}"
        )
        self._draw()

    def line(self, text: str) -> None:
        """Add a line that stays."""
        self._lines.append(html.escape(text))
        self._draw()

    def done(self) -> None:
        """Take the bar away."""
        self._bar = ""
        self._draw()

    def _draw(self) -> None:
        lines = "\n".join(self._lines)
        self._handle.update(self._html(f"<pre>{lines}</pre>{self._bar}" if lines else self._bar))

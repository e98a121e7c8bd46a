"""What a person sees of a run in the terminal: one line a round, a bar, and one line for an error."""

from __future__ import annotations

import codecs
import os
import sys
from contextlib import contextmanager
from typing import Any, Dict, Iterator, Optional, Tuple

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from skinfl.errors import printable
from skinfl.federation.events import (
    Event,
    HospitalLeftOut,
    HospitalTrained,
    RoundFinished,
    RoundStarted,
    RunStarted,
)
from skinfl.federation.records import RoundRecord


class RunDisplay:
    """A listener that shows a run: a bar while it works, a line for each finished round."""

    def __init__(self, console: Console, title: str):
        self._console = console
        self._title = title
        self._bar = _bar(console)
        self._task: Optional[TaskID] = None

    def __call__(self, event: Event) -> None:
        """Show ``event``."""
        if isinstance(event, RunStarted):
            self._bar.start()
            self._task = self._bar.add_task(self._title, total=(event.rounds - event.first_round + 1))
            if event.first_round > event.rounds:
                self.close()
        elif isinstance(event, RoundStarted):
            self._describe(f"round {event.round}: {len(event.asked)} hospitals train")
        elif isinstance(event, HospitalTrained):
            self._describe(f"round {event.round}: {event.hospital} trained")
        elif isinstance(event, HospitalLeftOut):
            self._console.print(
                f"{self._title} round {event.round}: left out {event.hospital}: {event.reason}", markup=False
            )
        elif isinstance(event, RoundFinished):
            self._console.print(round_line(self._title, event.record), markup=False, highlight=False)
            if self._task is not None:
                self._bar.advance(self._task)

    def close(self) -> None:
        """Take the bar away."""
        self._bar.stop()

    def _describe(self, text: str) -> None:
        if self._task is not None:
            self._bar.update(self._task, description=f"{self._title} {text}")


def round_line(title: str, record: RoundRecord) -> str:
    """Return one line that says how a round went."""
    parts = [f"{title} round {record.round:>3}"]
    if record.mean_loss is not None:
        parts.append(f"train loss {record.mean_loss:.3f}")
    metrics = record.metrics
    if metrics:
        parts.append(f"accuracy {metrics['accuracy']:.3f}  balanced {metrics['balanced_accuracy']:.3f}")
    if record.mean_clipped:
        parts.append(f"clipped {record.mean_clipped:.2%} of values")
    parts.append(f"{record.seconds.total:.1f} s")
    return "  ".join(parts)


def _bar(console: Console) -> Progress:
    """Return a bar with time spent and time left, for terminals: in a file it would leave empty lines."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


@contextmanager
def loading(console: Console) -> Iterator[Any]:
    """Give a callback ``(done, total, what)`` that shows a bar while data is read or drawn."""
    bar = _bar(console)
    tasks: Dict[str, TaskID] = {}
    last = (0, 0, "")

    def update(done: int, total: int, what: str) -> None:
        nonlocal last
        if total == 0:  # a remark, not a step of some length
            console.print(what, markup=False, highlight=False, soft_wrap=True)
            return
        if what not in tasks:
            # what goes on where the last stood is the same bar in other words, which may tell the time left
            went_on = last[1] == total and last[0] < done
            tasks[what] = tasks.pop(last[2]) if went_on else bar.add_task(what, total=total)
        last = (done, total, what)
        bar.update(tasks[what], completed=done, description=what)

    with bar:
        yield update


#: what stands for signs that a terminal's code page lacks
_PLAIN = {"×": "x", "±": "+-", "…": "...", "–": "-"}


def _plain(error: UnicodeError) -> Tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    signs = error.object[error.start : error.end]
    return "".join(_PLAIN.get(sign, "?") for sign in signs), error.end


def prepare_streams() -> None:
    """Let any terminal show what it can: a sign that its code page lacks must not end a run."""
    codecs.register_error("skinfl.plain", _plain)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="skinfl.plain")


def settle_streams() -> None:
    """Write out what is held back, so that a full disk is noticed while it can be said."""
    if sys.stdout is not None:
        sys.stdout.flush()


def report(message: object) -> None:
    """Print one line of error on stderr; what it quotes from elsewhere can be no second line."""
    print(f"error: {printable(str(message))}", file=sys.stderr, flush=True)


def fail(message: object) -> None:
    """Print one line of error and leave with status 2."""
    try:
        report(message)
        settle_streams()
    except OSError:  # there is nowhere to say it, and at exit it would be tried once more
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    raise SystemExit(2)

"""One line for each thing that happens in a run, with the run and the round in it."""

from __future__ import annotations

from typing import Callable

from skinfl.errors import printable
from skinfl.federation.events import (
    Aggregated,
    Event,
    HospitalLeftOut,
    HospitalTrained,
    RoundFinished,
    RoundStarted,
    RunStarted,
)


class RunLog:
    """A listener that hands each event to ``say`` as a line.

    No line has more of a hospital than its loss, and none can be forged by what a hospital sends: what is not
    printable is replaced.
    """

    def __init__(self, run: str, say: Callable[[str], None]):
        self._run = run
        self._say = lambda line: say(printable(line))

    def __call__(self, event: Event) -> None:
        """Say what happened."""
        if isinstance(event, RunStarted):
            last = f"rounds {event.first_round} to {event.rounds}"
            self._say(f"run {self._run}: {last}, hospitals {', '.join(event.hospitals)}")
            return
        self._say(f"run {self._run} round {event.round}: {_line(event)}")


def _line(event: Event) -> str:
    if isinstance(event, RoundStarted):
        return f"asking {', '.join(event.asked)}"
    if isinstance(event, HospitalTrained):
        line = f"{event.hospital} trained: {event.bytes_up} bytes"
        if event.loss is None:
            return line
        return f"{line}, loss {event.loss:.4f}, {event.clipped:.2%} clipped, {event.seconds:.1f} s"
    if isinstance(event, HospitalLeftOut):
        return f"left out {event.hospital}: {event.reason}"
    if isinstance(event, Aggregated):
        return f"summed {', '.join(event.senders) or 'nobody'}"
    if isinstance(event, RoundFinished):
        for metrics, where in (
            (event.record.metrics, ""),
            (event.record.hospitals_together, " at the hospitals"),
        ):
            if metrics is not None and metrics["balanced_accuracy"] is not None:
                return f"finished: balanced accuracy {metrics['balanced_accuracy']:.4f}{where}"
        return "finished"
    raise TypeError(f"unknown event {type(event).__name__}")

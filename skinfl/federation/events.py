"""What happens in a run, as values: progress bar, log, checkpoint and report only listen."""

from __future__ import annotations

from typing import Callable, NamedTuple, Optional, Tuple, Union

from skinfl.federation.records import RoundRecord


class RunStarted(NamedTuple):
    """``first_round`` is 1, or the round after a checkpoint's."""

    first_round: int
    rounds: int
    hospitals: Tuple[str, ...]


class RoundStarted(NamedTuple):
    """The hospitals that are asked in this round."""

    round: int
    asked: Tuple[str, ...]


class HospitalTrained(NamedTuple):
    """One hospital's protected contribution is there, ``bytes_up`` long.

    ``loss``, ``clipped`` (0 to 1) and ``seconds`` are its own figures, None where it keeps them to itself.
    """

    round: int
    hospital: str
    bytes_up: int
    loss: Optional[float] = None
    clipped: Optional[float] = None
    seconds: Optional[float] = None


class HospitalLeftOut(NamedTuple):
    """One hospital is not in this round's sum, and why."""

    round: int
    hospital: str
    reason: str


class Aggregated(NamedTuple):
    """The sum of these hospitals was opened and applied."""

    round: int
    senders: Tuple[str, ...]


class RoundFinished(NamedTuple):
    """``record`` is what is written down of the round."""

    round: int
    record: RoundRecord


Event = Union[RunStarted, RoundStarted, HospitalTrained, HospitalLeftOut, Aggregated, RoundFinished]
Listener = Callable[[Event], None]

"""The interface every protection implements: protect at a hospital, combine at a party, open.

A protection turns vectors into bytes and the bytes of many hospitals into the vector of their sum.
It knows nothing of networks, data or strategies. The three places are three classes, so that a type
shows who holds which key:

1. ``Protection.setup`` (once per run) makes the roles and hands each its own keys.
2. ``HospitalSide.protect`` turns a vector into one message per aggregating party.
3. ``AggregatorSide.receive`` checks one message, ``combine`` adds those of the agreed senders.
4. ``OpenerSide.open`` turns the parties' combined messages into the sum.

``receive`` and ``combine`` are apart because with several parties the senders must be agreed between
them: only hospitals whose message reached *every* party may enter the sum.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Callable, Dict, Mapping, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from skinfl.errors import ProtectionError
from skinfl.protection.fixedpoint import DEFAULT_PRECISION, FixedPoint
from skinfl.protection.layout import Layout


class Exchange(NamedTuple):
    """Which sum a message belongs to. ``run`` differs between runs, so none can be replayed.

    ``task`` is the digest of all that the hospitals were asked (model, normalisation, weights, settings, who
    was asked), ``base`` says what the sum tells of, in any run, so that parties that were not asked know it,
    too. Each hospital derives both for itself, and messages that differ in either never add up. A party that
    was not asked leaves them empty and holds the messages against each other. ``cohort`` are the hospitals
    whose messages are to be added (empty: all), ``attempt`` counts how often they have been asked to protect
    the same vectors: under encryption anew for each smaller cohort.
    """

    run: str
    round: int
    layout: Layout
    task: str = ""
    base: str = ""
    cohort: Tuple[str, ...] = ()
    attempt: int = 0


class Protected(NamedTuple):
    """A hospital's messages, keyed by the party they are for.

    ``clipped`` is the share of values, 0 to 1, that lay outside the clip range. ``release`` is what the
    aggregator needs besides, and gets for one attempt of a round only: see :attr:`AggregatorSide.releases`.
    """

    messages: Dict[str, bytes]
    clipped: float
    release: bytes = b""


class Opened(NamedTuple):
    """The sum of the senders' vectors: float64, shape ``(layout.size,)``.

    ``words`` is what was opened, as it was added up (integers, with the authenticator's at their end; float32
    without protection): any hospital can be told it, and :meth:`HospitalSide.verify` it. ``clipped`` is the
    sum of the shares of clipped values. ``ranges``, where a scheme has it, goes to
    :meth:`HospitalSide.set_ranges` of every hospital before the next round. All are as confidential as
    the sum.
    """

    total: np.ndarray
    senders: Tuple[str, ...]
    ranges: Optional[np.ndarray] = None
    clipped: float = 0.0
    words: Optional[np.ndarray] = None


class HospitalSide(ABC):
    """What a hospital runs. Holds whatever the hospital alone may hold."""

    name: str
    #: if set, called while protecting with (integers done, integers in all)
    progress: Optional[Callable[[int, int], None]] = None

    @abstractmethod
    def protect(self, vector: np.ndarray, exchange: Exchange) -> Protected:
        """Protect ``vector``, a float array of shape ``(exchange.layout.size,)``.

        Raises :class:`~skinfl.errors.ProtectionError` for a wrong shape or a value that is not finite.
        """

    @abstractmethod
    def verify(self, words: np.ndarray, senders: Sequence[str], exchange: Exchange) -> Opened:
        """Return what :attr:`Opened.words` stand for, once they are proved to be the senders' sum.

        Raises :class:`~skinfl.errors.ProtectionError` unless they are the sum of what exactly these
        hospitals, each once, protected for this exchange.
        """

    def set_ranges(self, ranges: np.ndarray) -> None:  # noqa: B027 - optional by design
        """Take over what the last opened sum says all hospitals are to use, e.g. quantisation ranges.

        Every hospital must be told before it protects again, also one that sat out the last round: a
        message made under another agreement is refused.
        """

    def state(self) -> Dict[str, np.ndarray]:
        """Return what a resumed run needs of this side, as arrays; most sides keep nothing."""
        return {}

    def load_state(self, state: Dict[str, np.ndarray]) -> None:  # noqa: B027 - optional by design
        """Put back what :meth:`state` returned."""


class AggregatorSide(ABC):
    """What one aggregating party runs. Holds no key that opens anything."""

    name: str
    #: whether :meth:`combine` needs the :attr:`Protected.release` of every sender, whose messages are
    #: unreadable without, also to who holds every key. Senders must then be exactly the exchange's cohort.
    releases: bool = False

    @abstractmethod
    def receive(self, message: bytes, exchange: Exchange) -> str:
        """Check and keep one hospital's message; return its sender.

        Raises :class:`~skinfl.errors.MessageError` for what is short, long, replayed, of another
        run, round, scheme, layout or key; nothing of it is kept.
        """

    @abstractmethod
    def combine(
        self, senders: Sequence[str], exchange: Exchange, releases: Optional[Mapping[str, bytes]] = None
    ) -> bytes:
        """Add the messages of ``senders`` (each received before), forget them all, return the sum.

        ``releases``, by sender, where :attr:`releases` says that they are needed.
        """

    def read_sum(
        self, words: np.ndarray, senders: Sequence[str], exchange: Exchange, combined: Mapping[str, bytes]
    ) -> Opened:
        """Return what the words stand for that a hospital opened of ``combined``, the sum made here.

        Nothing is proved by it: that takes the hospitals' secret. Raises
        :class:`~skinfl.errors.ProtectionError` for words of another layout, and where hospitals open nothing.
        """
        raise ProtectionError("this sum is not opened by hospitals")


class OpenerSide(ABC):
    """What those who may see the sum run."""

    #: ``"hospitals"`` where the sum is opened by them, else ``"coordinator"``
    place: str = "coordinator"
    #: how many parties' sums it takes to open
    threshold: int = 1

    def check(self, party: str, message: bytes, exchange: Exchange) -> None:  # noqa: B027 - optional by design
        """Refuse a party's sum that is malformed or not this party's own, before any is opened.

        Raises :class:`~skinfl.errors.MessageError`.
        """

    @abstractmethod
    def open(self, combined: Mapping[str, bytes], exchange: Exchange) -> Opened:
        """Open the sum from the parties' combined messages, keyed by party.

        Raises :class:`~skinfl.errors.ProtectionError` where too few parties answered or their
        senders differ, :class:`~skinfl.errors.MessageError` for a malformed message.
        """


class Roles(NamedTuple):
    """Everything ``setup`` makes, each to be given to its owner and to no one else."""

    hospitals: Dict[str, HospitalSide]
    aggregators: Dict[str, AggregatorSide]
    opener: OpenerSide


class Protection(ABC):
    """A scheme with its parameters; immutable and without keys."""

    #: the name in settings and reports
    name: str

    @property
    @abstractmethod
    def aggregator_sees(self) -> str:
        """One line for reports: what the aggregating side can see."""

    @abstractmethod
    def setup(self, hospitals: Sequence[str]) -> Roles:
        """Make keys and roles for the named hospitals.

        Raises :class:`~skinfl.errors.ProtectionError` where the parameters are unsafe or the sum of
        that many hospitals could overflow.
        """

    def check(self, hospitals: int) -> None:  # noqa: B027 - optional by design
        """Refuse, before anything is made, what :meth:`setup` would refuse for so many hospitals.

        Raises what :meth:`setup` raises.
        """

    def error_bound(self, hospitals: int, largest: float) -> float:
        """Return how far a value of an opened sum may be off at most.

        The sum is one of so many hospitals' float32 vectors, whose values have magnitudes of at most
        ``largest`` and are not clipped. A scheme that is coarser than 22 fractional bits, rounded to the
        nearest, says so here: tests hold every registered scheme to its bound.
        """
        return hospitals * FixedPoint(DEFAULT_PRECISION, rounding="nearest").error

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """A digest of the scheme's public parameters, carried in every message."""

    @abstractmethod
    def describe(self) -> Dict[str, object]:
        """Return the parameters for ``result.json``."""

"""Additive sharing by another library, behind the package's own roles: there to compare with.

Trust model: as in :mod:`skinfl.protection.smpc.additive`, all parties together can open and fewer learn
what the library's random numbers let them; each library's module says how good those are. All roles use
one set-up of the library in one process, so this is for simulations only.

Protocol, for hospital i with the clipped values v and the counts c:

1. The library encodes v as integers; c are encoded here, at the precision that counts need.
2. The library splits both into one share per party, int64 integers modulo 2^64. Each travels sealed.
3. Each party gives its shares to a machine of the library, which adds those of the agreed hospitals.
4. The opener has the library add the parties' sums, and decodes the total in float64.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple, Union

import numpy as np

from skinfl.errors import MessageError, ProtectionError
from skinfl.protection import keys, wire
from skinfl.protection.base import (
    AggregatorSide,
    Exchange,
    HospitalSide,
    Opened,
    OpenerSide,
    Protected,
    Protection,
    Roles,
)
from skinfl.protection.encoder import (
    Encoder,
    FixedPointEncoder,
    Tally,
    fit_precision,
)
from skinfl.protection.fixedpoint import FixedPoint
from skinfl.protection.keys import SecretKey
from skinfl.protection.options import check_clip, check_parties, check_precision, party_names
from skinfl.protection.roles import (
    MINIMUM_SENDERS,
    EncodingHospital,
    Party,
    Session,
    begin_update,
    check_hospitals,
    read_sums,
)
from skinfl.protection.sealing import Channel, Link, Writer
from skinfl.protection.trailer import LARGEST_WORD

CAPACITY = LARGEST_WORD
DEFAULT_PARTIES = 3
DEFAULT_PRECISION = 16
DEFAULT_CLIP = 64.0
_WORD = np.dtype("<i8")


class Library(ABC):
    """One run's set-up of a library, with a machine for each party. Shares are int64 arrays."""

    @abstractmethod
    def encode(self, values: np.ndarray) -> np.ndarray:
        """Return float ``values`` as the library's fixed-point integers."""

    @abstractmethod
    def share(self, integers: np.ndarray) -> List[np.ndarray]:
        """Return one share of ``integers`` per party."""

    @abstractmethod
    def keep(self, party: str, share: np.ndarray) -> Any:
        """Send a share to the party's machine and return the library's pointer to it."""

    @abstractmethod
    def add(self, pointers: Sequence[Any]) -> np.ndarray:
        """Add, at the machine, what ``pointers`` point to, and return the sum."""

    @abstractmethod
    def reconstruct(self, sums: Sequence[np.ndarray]) -> np.ndarray:
        """Return the integers whose shares are ``sums``."""


class LibraryFixedPoint(FixedPoint):
    """Fixed-point numbers as ``library`` encodes them; decoded here, in float64."""

    def __init__(self, library: Library, precision: int):
        super().__init__(precision)
        self._library = library

    def encode(
        self, values: np.ndarray, out: Optional[np.ndarray] = None, work: Optional[np.ndarray] = None
    ) -> np.ndarray:
        """Return the library's integers, in an array of its own."""
        return self._library.encode(values)


class LibraryHospital(EncodingHospital):
    """Has the library split a vector. ``links`` are the hospital's links, by party."""

    def __init__(
        self,
        name: str,
        session: Session,
        encoder: Encoder,
        secret: SecretKey,
        library: Library,
        links: Mapping[str, Link],
    ):
        super().__init__(name, session, encoder, secret)
        self._library = library
        self._links = dict(links)

    def protect(self, vector: np.ndarray, exchange: Exchange) -> Protected:
        """Share ``vector``; a value outside the clip range is clipped and counted."""
        tally, size = Tally(), self._encoder.size(exchange.layout)
        blocks = self._watched(self._encoder.blocks(vector, exchange, tally), size)
        shares = self._library.share(np.concatenate([block.copy() for block in blocks]))
        messages = {}
        for (party, link), share in zip(self._links.items(), shares):
            writer = begin_update(
                self._session,
                link,
                self.name,
                party,
                exchange,
                secret=self._secret,
                reserve=share.nbytes,
            )
            writer.write(np.ascontiguousarray(share, _WORD))
            messages[party] = writer.finish()
        return Protected(messages, tally.share)


class LibraryParty(Party[Any]):
    """Has the library's machine add the shares; ``contents`` are the library's pointers."""

    def __init__(
        self,
        name: str,
        session: Session,
        encoder: FixedPointEncoder,
        library: Library,
        links: Mapping[str, Link],
        opener: Link,
    ):
        super().__init__(name, session, links, opener)
        self._encoder = encoder
        self._library = library

    def reserve(self, exchange: Exchange) -> int:
        """Return the length of a share in bytes."""
        return self._encoder.size(exchange.layout) * _WORD.itemsize

    def read(self, header: wire.Header, body: bytearray, exchange: Exchange) -> Any:
        """Hand the share to the party's machine."""
        if len(body) != self.reserve(exchange):
            raise MessageError(
                header.sender, f"its share has {len(body)} bytes, {self.reserve(exchange)} expected"
            )
        return self._library.keep(self.name, np.frombuffer(body, _WORD))

    def add(self, contents: Sequence[Any], exchange: Exchange, writer: Writer) -> None:
        """Write the sum of the shares."""
        writer.write(np.ascontiguousarray(self._library.add(contents), _WORD))


class LibraryOpener(OpenerSide):
    """Has the library reconstruct the sum. ``links`` are the opener's links, by party."""

    def __init__(
        self, session: Session, encoder: FixedPointEncoder, library: Library, links: Mapping[str, Link]
    ):
        self._session = session
        self._encoder = encoder
        self._library = library
        self._links = dict(links)

    def open(self, combined: Mapping[str, bytes], exchange: Exchange) -> Opened:
        """Return the sum; every party's answer is needed."""
        missing = sorted(set(self._links) - set(combined))
        if missing:
            raise ProtectionError(
                f"no answer from {', '.join(missing)}: additive shares open from all {len(self._links)} "
                "parties only; run the round again with all of them"
            )
        length = self._encoder.size(exchange.layout) * _WORD.itemsize
        bodies, senders, _ = read_sums(combined, exchange, self._session, self._links, length)
        total = self._library.reconstruct([np.frombuffer(body, _WORD) for body in bodies.values()])
        decoded = self._encoder.decode(total, exchange.layout, len(senders))
        return Opened(decoded.vector, senders, decoded.ranges, decoded.clipped, total)


class LibraryProtection(Protection):
    """Additive sharing by a library, in the ring of 64 bits, with values cut towards zero.

    ``parties`` is a number, or ``"hospitals"`` where they are the parties themselves. The largest error
    of a sum of n vectors is just under n * 2^-precision.
    """

    #: the library and its version, for reports
    library: str

    def __init__(
        self,
        *,
        parties: Union[int, str] = DEFAULT_PARTIES,
        precision: Optional[int] = None,
        clip: float = DEFAULT_CLIP,
    ):
        self.parties = check_parties(parties)
        self.precision: int = DEFAULT_PRECISION if precision is None else check_precision(precision)
        self.clip = check_clip(clip)

    @property
    def aggregator_sees(self) -> str:
        """One line on what parties see."""
        who = "all hospitals" if isinstance(self.parties, str) else f"all {self.parties} parties"
        return f"shares by {self.library}; an update only if {who} collude"

    @abstractmethod
    def set_up(self, parties: Tuple[str, ...]) -> Library:
        """Start the library with a machine for each party."""

    def check(self, hospitals: int) -> None:
        """Refuse a precision that could overflow."""
        self._encoder_for(hospitals)

    def setup(self, hospitals: Sequence[str]) -> Roles:
        """Make all keys in this process, start the library, and hand each role its own keys."""
        names = check_hospitals(hospitals, MINIMUM_SENDERS)
        parties = party_names(self.parties, names)
        keyring, directory = keys.generate(names, parties)
        encoder = self._encoder_for(len(names))
        fingerprint = wire.fingerprint(self.fingerprint, names, parties, directory.fingerprint)
        session = Session(self.name, fingerprint, names, MINIMUM_SENDERS)
        secret = SecretKey(os.urandom(16), os.urandom(32))
        library = self.set_up(parties)
        encoder.fixed = LibraryFixedPoint(library, self.precision)
        sides: Dict[str, HospitalSide] = {}
        for name, private in keyring.hospitals.items():
            links = {party: Channel(private, directory.parties[party]) for party in parties}
            sides[name] = LibraryHospital(name, session, encoder, secret, library, links)
        aggregators: Dict[str, AggregatorSide] = {}
        for party, private in keyring.parties.items():
            links = {name: Channel(private, public) for name, public in directory.hospitals.items()}
            opener = Channel(private, directory.opener)
            aggregators[party] = LibraryParty(party, session, encoder, library, links, opener)
        links = {party: Channel(keyring.opener, public) for party, public in directory.parties.items()}
        return Roles(sides, aggregators, LibraryOpener(session, encoder, library, links))

    def error_bound(self, hospitals: int, largest: float) -> float:
        """Return a step of the grid for each hospital, as values are cut towards zero."""
        return hospitals * 2.0**-self.precision

    @property
    def fingerprint(self) -> str:
        """A digest of all parameters."""
        return wire.fingerprint(sorted(self.describe().items()))

    def describe(self) -> Dict[str, object]:
        """Return the parameters."""
        return {
            "protection": self.name,
            "library": self.library,
            "parties": self.parties,
            "ring": 64,
            "precision": self.precision,
            "clip": self.clip,
            "rounding": "truncate",
        }

    def _encoder_for(self, hospitals: int) -> FixedPointEncoder:
        scheme = f"{self.name} sharing in 64 bits"
        fit_precision(self.precision, hospitals=hospitals, clip=self.clip, capacity=CAPACITY, scheme=scheme)
        return FixedPointEncoder(
            hospitals=hospitals,
            capacity=CAPACITY,
            clip=self.clip,
            precision=self.precision,
            rounding="truncate",
        )

"""Additive secret sharing in a ring.

Trust model: a hospital's update stays hidden from any coalition that lacks at least one of the
parties, whatever its computing power where shares are concerned; the seeds that stand for shares rest
on AES-128. One party that deviates can spoil a sum, which hospitals find out (:mod:`..authenticator`), but
not read an update. A hospital may drop out at any time. No party may: without all of them nothing
opens. The sum is seen by the opener, and what the sum itself tells is not hidden.

Protocol, for hospital i with integers x and parties 1..n:

1. Party f = i mod n is to get a full share, so that this load goes round.
2. For every other party j the hospital draws a 32-byte seed s_j and sends it, sealed to j.
3. Party f gets, sealed, x - sum of G(s_j) in the ring, where G is the expansion of :mod:`.prg`.
4. Every party adds the shares of the agreed hospitals, expanding seeds as it goes.
5. The opener adds the parties' sums: all the G(s_j) cancel.

Every share alone, and any n - 1 of them, are uniform over the whole ring.
"""

from __future__ import annotations

from typing import Mapping, Sequence, Tuple, Union

import numpy as np

from skinfl.errors import MessageError, ProtectionError
from skinfl.protection import wire
from skinfl.protection.base import Exchange, Opened, OpenerSide, Protected
from skinfl.protection.encoder import BLOCK, Encoder, FixedPointEncoder, Tally
from skinfl.protection.keys import SecretKey
from skinfl.protection.prg import SEED, Stream, new_scratch, new_seed
from skinfl.protection.roles import EncodingHospital, Party, Session, Sum, begin_update, read_sums
from skinfl.protection.sealing import Link, Writer
from skinfl.protection.smpc.ring import Ring


def holder(session: Session, hospital: str, parties: Sequence[str]) -> str:
    """Return the party that gets the full share of ``hospital``."""
    return parties[session.hospitals.index(hospital) % len(parties)]


class AdditiveHospital(EncodingHospital):
    """Splits a vector into one share per party.

    ``encoder`` yields integers of ``ring.signed``; ``links`` are the hospital's links, by party.
    """

    def __init__(
        self,
        name: str,
        session: Session,
        encoder: Encoder,
        secret: SecretKey,
        ring: Ring,
        links: Mapping[str, Link],
    ):
        super().__init__(name, session, encoder, secret)
        self._ring = ring
        self._links = dict(links)

    def protect(self, vector: np.ndarray, exchange: Exchange) -> Protected:
        """Share ``vector``; a value outside the clip range is clipped and counted."""
        full = holder(self._session, self.name, tuple(self._links))
        seeds = {party: new_seed() for party in self._links if party != full}
        messages = {}
        for party, seed in seeds.items():
            writer = self._begin(party, exchange, SEED)
            writer.write(seed)
            messages[party] = writer.finish()
        scratch = new_scratch()
        streams = [Stream(seed, scratch) for seed in seeds.values()]
        tally = Tally()
        size = self._encoder.size(exchange.layout)
        writer = self._begin(full, exchange, size * self._ring.unsigned.itemsize)
        for block in self._watched(self._encoder.blocks(vector, exchange, tally), size):
            share = block.view(self._ring.unsigned)
            for stream in streams:
                np.subtract(share, stream.words(len(share), self._ring.unsigned), out=share)
            writer.write(share)
        messages[full] = writer.finish()
        return Protected({party: messages[party] for party in self._links}, tally.share)

    def _begin(self, party: str, exchange: Exchange, reserve: int) -> Writer:
        return begin_update(
            self._session,
            self._links[party],
            self.name,
            party,
            exchange,
            secret=self._secret,
            reserve=reserve,
        )


class AdditiveParty(Party[Union[bytes, np.ndarray]]):
    """Adds the shares it is sent; a hospital's share is a seed or, for one party, the integers themselves."""

    def __init__(
        self,
        name: str,
        session: Session,
        encoder: FixedPointEncoder,
        ring: Ring,
        parties: Sequence[str],
        links: Mapping[str, Link],
        opener: Link,
    ):
        super().__init__(name, session, links, opener)
        self._encoder = encoder
        self._ring = ring
        self._parties = tuple(parties)

    def reserve(self, exchange: Exchange) -> int:
        """Return the length of a share in bytes."""
        return self._encoder.size(exchange.layout) * self._ring.unsigned.itemsize

    def read(self, header: wire.Header, body: bytearray, exchange: Exchange) -> Union[bytes, np.ndarray]:
        """Return the seed, or the full share."""
        full = holder(self.session, header.sender, self._parties) == self.name
        expected = self.reserve(exchange) if full else SEED
        if len(body) != expected:
            raise MessageError(header.sender, f"its share has {len(body)} bytes, {expected} expected")
        return np.frombuffer(body, self._ring.unsigned) if full else bytes(body)

    def add(self, contents: Sequence[Union[bytes, np.ndarray]], exchange: Exchange, writer: Writer) -> None:
        """Write the sum of the shares, block by block."""
        shares = [c for c in contents if isinstance(c, np.ndarray)]
        scratch = new_scratch()
        streams = [Stream(c, scratch) for c in contents if isinstance(c, bytes)]
        size = self._encoder.size(exchange.layout)
        for start in range(0, size, BLOCK):
            total = np.zeros(min(BLOCK, size - start), self._ring.unsigned)
            for share in shares:
                np.add(total, share[start : start + len(total)], out=total)
            for stream in streams:
                np.add(total, stream.words(len(total), self._ring.unsigned), out=total)
            writer.write(total)


class AdditiveOpener(OpenerSide):
    """Adds the sums of all parties. ``links`` are the opener's links, by party."""

    def __init__(self, session: Session, encoder: FixedPointEncoder, ring: Ring, links: Mapping[str, Link]):
        self._session = session
        self._encoder = encoder
        self._ring = ring
        self._links = dict(links)
        self.threshold = len(self._links)

    def check(self, party: str, message: bytes, exchange: Exchange) -> None:
        """Refuse a party's sum that is malformed or not this party's own."""
        self._read({party: message}, exchange)

    def open(self, combined: Mapping[str, bytes], exchange: Exchange) -> Opened:
        """Return the sum; every party's answer is needed."""
        missing: Tuple[str, ...] = tuple(sorted(set(self._links) - set(combined)))
        if missing:
            raise ProtectionError(
                f"no answer from {', '.join(missing)}: additive shares open from all {len(self._links)} "
                "parties only; run the round again with all of them, or choose smpc_scheme shamir, "
                "which opens from a threshold"
            )
        bodies, senders, _ = self._read(combined, exchange)
        size = self._encoder.size(exchange.layout)
        total = np.zeros(size, self._ring.unsigned)
        for body in bodies.values():
            np.add(total, np.frombuffer(body, self._ring.unsigned), out=total)
        words = total.view(self._ring.signed)
        decoded = self._encoder.decode(words, exchange.layout, len(senders))
        return Opened(decoded.vector, senders, decoded.ranges, decoded.clipped, words)

    def _read(self, combined: Mapping[str, bytes], exchange: Exchange) -> Sum:
        length = self._encoder.size(exchange.layout) * self._ring.unsigned.itemsize
        return read_sums(combined, exchange, self._session, self._links, length)

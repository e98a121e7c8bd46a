"""Shamir's secret sharing with a threshold over a prime field.

Trust model: any t of the n parties can open, any t - 1 learn nothing of an update (information-
theoretically for the shares sent in full; seeds rest on AES-128). Up to n - t parties and any hospital
may drop out. Parties are honest but curious; where more than t answer, one that sends a wrong sum is
noticed. The sum is seen by the opener.

Shamir, "How to share a secret", CACM 1979. Protocol, for hospital i with integers x:

1. t - 1 parties, chosen by rotation over the hospitals, get a sealed 32-byte seed each; its expansion
   r_j, uniform over the field, is their share.
2. x and the r_j are the values of one polynomial f of degree t - 1 at 0 and at these parties' points,
   so the other parties' shares f(j) follow by Lagrange's formula and are sent in full.
3. Every party adds the shares of the agreed hospitals.
4. The opener interpolates the sums of any t parties at 0, and compares the others with the polynomial.
"""

from __future__ import annotations

from typing import List, Mapping, Sequence, Tuple, Union

import numpy as np

from skinfl.errors import MessageError, ProtectionError
from skinfl.protection import wire
from skinfl.protection.base import Exchange, HospitalSide, Opened, OpenerSide, Protected
from skinfl.protection.encoding import BLOCK, FixedPointEncoding, Tally
from skinfl.protection.roles import Party, Session, begin_update, read_sums
from skinfl.protection.sealing import Link, Writer
from skinfl.protection.smpc.field import Field, UniformElements
from skinfl.protection.smpc.prg import SEED, new_seed


def seeded(session: Session, hospital: str, parties: Sequence[str], threshold: int) -> Tuple[str, ...]:
    """Return the t - 1 parties whose share of ``hospital`` is a seed."""
    first = session.hospitals.index(hospital) % len(parties)
    return tuple(parties[(first + 1 + k) % len(parties)] for k in range(threshold - 1))


class ShamirHospital(HospitalSide):
    """Splits a vector into one share per party. ``links`` are the hospital's links, by party."""

    def __init__(
        self,
        name: str,
        session: Session,
        encoding: FixedPointEncoding,
        field: Field,
        threshold: int,
        links: Mapping[str, Link],
    ):
        self.name = name
        self._session = session
        self._encoding = encoding
        self._field = field
        self._threshold = threshold
        self._links = dict(links)

    def protect(self, vector: np.ndarray, exchange: Exchange) -> Protected:
        """Share ``vector``; a value outside the clip range is clipped and counted."""
        field, parties = self._field, tuple(self._links)
        seeds = {party: new_seed() for party in seeded(self._session, self.name, parties, self._threshold)}
        points = [0] + [parties.index(party) + 1 for party in seeds]
        done, size = 0, self._encoding.size(exchange.layout)
        length = size * field.unsigned.itemsize
        writers = {
            party: begin_update(
                self._session, link, self.name, party, exchange, reserve=SEED if party in seeds else length
            )
            for party, link in self._links.items()
        }
        weights = {p: field.lagrange(points, i + 1) for i, p in enumerate(parties) if p not in seeds}
        streams = [UniformElements(seed, field) for seed in seeds.values()]
        tally = Tally()
        for party, seed in seeds.items():
            writers[party].write(seed)
        for block in self._encoding.blocks(vector, exchange.layout, np.int64, tally):
            known = [field.from_signed(block)] + [stream.draw(len(block)) for stream in streams]
            for party, factors in weights.items():
                writers[party].write(field.combine(known, factors).astype(field.unsigned))
            done += len(block)
            if self.progress is not None:
                self.progress(done, size)
        return Protected({party: writers[party].finish() for party in parties}, tally.share)


class ShamirParty(Party[Union[bytes, np.ndarray]]):
    """Adds the shares it is sent."""

    def __init__(
        self,
        name: str,
        session: Session,
        encoding: FixedPointEncoding,
        field: Field,
        threshold: int,
        parties: Sequence[str],
        links: Mapping[str, Link],
        opener: Link,
    ):
        super().__init__(name, session, links, opener)
        self._encoding = encoding
        self._field = field
        self._threshold = threshold
        self._parties = tuple(parties)

    def reserve(self, exchange: Exchange) -> int:
        """Return the length of a share in bytes."""
        return self._encoding.size(exchange.layout) * self._field.unsigned.itemsize

    def read(self, header: wire.Header, body: bytearray, exchange: Exchange) -> Union[bytes, np.ndarray]:
        """Return the seed, or the full share."""
        is_seed = self.name in seeded(self.session, header.sender, self._parties, self._threshold)
        expected = SEED if is_seed else self.reserve(exchange)
        if len(body) != expected:
            raise MessageError(header.sender, f"its share has {len(body)} bytes, {expected} expected")
        if is_seed:
            return bytes(body)
        share = np.frombuffer(body, self._field.unsigned)
        if len(share) and int(share.max()) >= self._field.prime:
            raise MessageError(header.sender, "its share isn't of the field")
        return share

    def add(self, contents: Sequence[Union[bytes, np.ndarray]], exchange: Exchange, writer: Writer) -> None:
        """Write the sum of the shares, block by block."""
        shares = [c for c in contents if isinstance(c, np.ndarray)]
        streams = [UniformElements(c, self._field) for c in contents if isinstance(c, bytes)]
        size = self._encoding.size(exchange.layout)
        for start in range(0, size, BLOCK):
            stop = min(start + BLOCK, size)
            total = np.zeros(stop - start, np.uint64)
            for share in shares:
                total = self._field.add(total, share[start:stop])
            for stream in streams:
                total = self._field.add(total, stream.draw(stop - start))
            writer.write(total.astype(self._field.unsigned))


class ShamirOpener(OpenerSide):
    """Interpolates the sums of at least ``threshold`` parties. ``links`` are the opener's, by party."""

    def __init__(
        self,
        session: Session,
        encoding: FixedPointEncoding,
        field: Field,
        threshold: int,
        links: Mapping[str, Link],
    ):
        self._session = session
        self._encoding = encoding
        self._field = field
        self._threshold = threshold
        self._links = dict(links)

    def open(self, combined: Mapping[str, bytes], exchange: Exchange) -> Opened:
        """Return the sum, from any ``threshold`` parties; further answers must agree with it."""
        if len(combined) < self._threshold:
            raise ProtectionError(
                f"{len(combined)} of {len(self._links)} parties answered, {self._threshold} are needed "
                "to open: run the round again when more are back"
            )
        bodies, senders, _ = read_sums(combined, exchange, self._session, self._links)
        field = self._field
        size = self._encoding.size(exchange.layout)
        parties = [party for party in self._links if party in bodies]
        points = [list(self._links).index(party) + 1 for party in parties]
        sums: List[np.ndarray] = []
        for party in parties:
            if len(bodies[party]) != size * field.unsigned.itemsize:
                expected = size * field.unsigned.itemsize
                raise MessageError(party, f"its sum has {len(bodies[party])} bytes, {expected} expected")
            sums.append(np.frombuffer(bodies[party], field.unsigned))
        t = self._threshold
        total = np.empty(size, np.int64)
        at_zero = field.lagrange(points[:t], 0)
        checks = [(i, field.lagrange(points[:t], points[i])) for i in range(t, len(points))]
        for start in range(0, size, BLOCK):
            block = [s[start : start + BLOCK] for s in sums]
            total[start : start + BLOCK] = field.to_signed(field.combine(block[:t], at_zero))
            for i, weights in checks:
                if not np.array_equal(field.combine(block[:t], weights), block[i]):
                    raise ProtectionError(
                        f"the sums of {', '.join(parties)} lie on no common polynomial: one of them is wrong"
                    )
        return Opened(self._encoding.decode(total, exchange.layout, len(senders)), senders)

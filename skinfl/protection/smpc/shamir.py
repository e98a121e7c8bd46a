"""Shamir's secret sharing with a threshold over a prime field.

Trust model: any t of the n parties can open, any t - 1 learn nothing of an update (information-
theoretically for the shares sent in full; seeds rest on AES-128). Up to n - t parties and any hospital
may drop out. Where more than t parties answer, one that sends a wrong sum is noticed at once; hospitals
find out any wrong sum (:mod:`..authenticator`). The sum is seen by the opener. With c parties and the opener
colluding, two sums over different hospitals open in one exchange where 2 (t - c) <= n - c: a bare majority
stands c = 0 only, for odd n.

Shamir, "How to share a secret", CACM 1979. Protocol, for hospital i with integers x:

1. t - 1 parties, chosen by rotation over the hospitals, get a sealed 32-byte seed each; its expansion
   r_j, uniform over the field, is their share.
2. x and the r_j are the values of one polynomial f of degree t - 1 at 0 and at these parties' points,
   so the other parties' shares f(j) follow by Lagrange's formula and are sent in full.
3. Every party adds the shares of the agreed hospitals.
4. The opener interpolates the sums of any t parties at 0, and compares the others with the polynomial.
"""

from __future__ import annotations

from typing import Dict, Iterable, List, Mapping, Sequence, Tuple, Union

import numpy as np

from skinfl.errors import MessageError, ProtectionError
from skinfl.protection import wire
from skinfl.protection.base import Exchange, Opened, OpenerSide, Protected
from skinfl.protection.encoder import BLOCK, Encoder, FixedPointEncoder, Tally
from skinfl.protection.keys import SecretKey
from skinfl.protection.prg import SEED, new_seed
from skinfl.protection.roles import EncodingHospital, Party, Session, Sum, begin_update, read_sums
from skinfl.protection.sealing import Link, Writer
from skinfl.protection.smpc.field import Field, UniformElements


def evaluation(field: Field, known: Sequence[int], wanted: Sequence[int]) -> List[Sequence[int]]:
    """Return the matrix (wanted, known) that takes a polynomial's values at ``known`` to those at ``wanted``.

    Row j holds the w_i with f(wanted_j) = sum of w_i f(known_i) for every f of degree < len(known).
    """
    return [field.lagrange(known, point) for point in wanted]


def share(
    field: Field, secret: np.ndarray, drawn: Sequence[np.ndarray], matrix: Sequence[Sequence[int]]
) -> List[np.ndarray]:
    """Return the shares that follow from a secret and the shares that were drawn at random.

    ``secret``: elements (n,), the values at 0. ``drawn``: t - 1 times elements (n,), uniform. ``matrix``:
    :func:`evaluation` from 0 and the points of the drawn shares to the other parties' points. Returns
    one array (n,) for each of those.
    """
    return [field.combine([secret, *drawn], row) for row in matrix]


def recombine(
    field: Field, shares: Sequence[np.ndarray], matrix: Sequence[Sequence[int]]
) -> Tuple[np.ndarray, bool]:
    """Return the secret (n,), and whether all shares lie on one polynomial of degree t - 1.

    ``shares``: elements (n,) of t or more parties. ``matrix``: :func:`evaluation` from the points of the
    first t of them to 0 and the points of the others.
    """
    t = len(matrix[0])
    secret, *expected = [field.combine(shares[:t], row) for row in matrix]
    return secret, all(np.array_equal(e, s) for e, s in zip(expected, shares[t:]))


def seeded(session: Session, hospital: str, parties: Sequence[str], threshold: int) -> Tuple[str, ...]:
    """Return the t - 1 parties whose share of ``hospital`` is a seed."""
    first = session.hospitals.index(hospital) % len(parties)
    return tuple(parties[(first + 1 + k) % len(parties)] for k in range(threshold - 1))


def points_of(parties: Iterable[str]) -> Dict[str, int]:
    """Return the point of each party on the polynomials: 1, 2, ... in their order."""
    return {party: i + 1 for i, party in enumerate(parties)}


class ShamirHospital(EncodingHospital):
    """Splits a vector into one share per party.

    ``encoder`` yields int64; ``links`` are the hospital's links, by party.
    """

    def __init__(
        self,
        name: str,
        session: Session,
        encoder: Encoder,
        secret: SecretKey,
        field: Field,
        threshold: int,
        links: Mapping[str, Link],
    ):
        super().__init__(name, session, encoder, secret)
        self._field = field
        self._threshold = threshold
        self._links = dict(links)

    def protect(self, vector: np.ndarray, exchange: Exchange) -> Protected:
        """Share ``vector``; a value outside the clip range is clipped and counted."""
        field, points = self._field, points_of(self._links)
        seeds = {p: new_seed() for p in seeded(self._session, self.name, tuple(points), self._threshold)}
        full = [party for party in points if party not in seeds]
        size = self._encoder.size(exchange.layout)
        writers = {party: self._begin(party, exchange, SEED) for party in seeds}
        writers.update({p: self._begin(p, exchange, size * field.unsigned.itemsize) for p in full})
        for party, seed in seeds.items():
            writers[party].write(seed)
        matrix = evaluation(field, [0, *(points[p] for p in seeds)], [points[p] for p in full])
        streams = [UniformElements(seed, field) for seed in seeds.values()]
        tally = Tally()
        for block in self._watched(self._encoder.blocks(vector, exchange, tally), size):
            drawn = [stream.draw(len(block)) for stream in streams]
            for party, values in zip(full, share(field, field.from_signed(block), drawn, matrix)):
                writers[party].write(values.astype(field.unsigned))
        return Protected({party: writers[party].finish() for party in points}, tally.share)

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


class ShamirParty(Party[Union[bytes, np.ndarray]]):
    """Adds the shares it is sent."""

    def __init__(
        self,
        name: str,
        session: Session,
        encoder: FixedPointEncoder,
        field: Field,
        threshold: int,
        parties: Sequence[str],
        links: Mapping[str, Link],
        opener: Link,
    ):
        super().__init__(name, session, links, opener)
        self._encoder = encoder
        self._field = field
        self._threshold = threshold
        self._parties = tuple(parties)

    def reserve(self, exchange: Exchange) -> int:
        """Return the length of a share in bytes."""
        return self._encoder.size(exchange.layout) * self._field.unsigned.itemsize

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
        size = self._encoder.size(exchange.layout)
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
        encoder: FixedPointEncoder,
        field: Field,
        threshold: int,
        links: Mapping[str, Link],
    ):
        self._session = session
        self._encoder = encoder
        self._field = field
        self.threshold = threshold
        self._links = dict(links)

    def check(self, party: str, message: bytes, exchange: Exchange) -> None:
        """Refuse a party's sum that is malformed or not this party's own."""
        self._read({party: message}, exchange)

    def open(self, combined: Mapping[str, bytes], exchange: Exchange) -> Opened:
        """Return the sum, from any ``threshold`` parties; further answers must agree with it."""
        if len(combined) < self.threshold:
            raise ProtectionError(
                f"{len(combined)} of {len(self._links)} parties answered, {self.threshold} are needed "
                "to open: run the round again when more are back"
            )
        bodies, senders, _ = self._read(combined, exchange)
        field, t = self._field, self.threshold
        size = self._encoder.size(exchange.layout)
        points = {party: point for party, point in points_of(self._links).items() if party in bodies}
        sums = [np.frombuffer(bodies[party], field.unsigned) for party in points]
        at = list(points.values())
        matrix = evaluation(field, at[:t], [0, *at[t:]])
        total = np.empty(size, field.signed)
        for start in range(0, size, BLOCK):
            secret, agree = recombine(field, [s[start : start + BLOCK] for s in sums], matrix)
            if not agree:
                raise ProtectionError(
                    f"the sums of {', '.join(points)} lie on no common polynomial: one of them is wrong"
                )
            total[start : start + BLOCK] = field.to_signed(secret)
        decoded = self._encoder.decode(total, exchange.layout, len(senders))
        return Opened(decoded.vector, senders, decoded.ranges, decoded.clipped, total)

    def _read(self, combined: Mapping[str, bytes], exchange: Exchange) -> Sum:
        length = self._encoder.size(exchange.layout) * self._field.unsigned.itemsize
        return read_sums(combined, exchange, self._session, self._links, length)

"""No protection: the baseline beside which the others are measured.

Trust model: the aggregator sees every hospital's update, and so does whoever listens on the way. A
checksum finds accidental damage; nothing authenticates a sender.
"""

from __future__ import annotations

from typing import Dict, Mapping, Sequence

import numpy as np

from skinfl.errors import MessageError, ProtectionError
from skinfl.protection import wire
from skinfl.protection.base import Exchange, HospitalSide, Opened, OpenerSide, Protected, Protection, Roles
from skinfl.protection.encoder import check_vector
from skinfl.protection.roles import AGGREGATOR, Party, Session, begin_update, check_hospitals, read_sums
from skinfl.protection.sealing import Plain, Writer


class PlaintextHospital(HospitalSide):
    """Sends the vector as it is, in its own type (float32: 4 bytes a value)."""

    def __init__(self, name: str, session: Session):
        self.name = name
        self._session = session

    def protect(self, vector: np.ndarray, exchange: Exchange) -> Protected:
        """Pack ``vector`` unprotected; nothing is clipped."""
        vector = check_vector(vector, exchange.layout)
        if not np.isfinite(vector).all():
            raise ProtectionError(
                "the update holds values that are not finite; leave this hospital out of the round"
            )
        writer = begin_update(self._session, Plain(), self.name, AGGREGATOR, exchange, reserve=vector.nbytes)
        writer.write(np.ascontiguousarray(vector, vector.dtype.newbyteorder("<")))
        return Protected({AGGREGATOR: writer.finish()}, 0.0)

    def verify(self, words: np.ndarray, senders: Sequence[str], exchange: Exchange) -> Opened:
        """Return the sum; nothing proves one without protection."""
        if words.shape != (exchange.layout.size,) or not np.isfinite(words).all():
            raise ProtectionError("the sum of the updates is not finite, or of another layout")
        return Opened(words.astype(np.float64), tuple(senders), words=words)


class PlaintextAggregator(Party[np.ndarray]):
    """Adds in float64, in the order of the senders' names."""

    def read(self, header: wire.Header, body: bytearray, exchange: Exchange) -> np.ndarray:
        """Return the vector, float32 or float64 by its length."""
        for dtype in ("<f4", "<f8"):
            if len(body) == exchange.layout.size * np.dtype(dtype).itemsize:
                return np.frombuffer(body, dtype)
        raise MessageError(header.sender, f"{len(body)} bytes don't hold {exchange.layout.size} values")

    def add(self, contents: Sequence[np.ndarray], exchange: Exchange, writer: Writer) -> None:
        """Write the sum as float64."""
        total = np.zeros(exchange.layout.size)
        for vector in contents:
            total += vector
        writer.write(total.astype("<f8", copy=False))


class PlaintextOpener(OpenerSide):
    """Reads the sum."""

    def __init__(self, session: Session):
        self._session = session

    def open(self, combined: Mapping[str, bytes], exchange: Exchange) -> Opened:
        """Return the sum, rounded to float32: hospitals are told it, and all must apply the same.

        Raises :class:`~skinfl.errors.ProtectionError` for one that is not finite.
        """
        links = {AGGREGATOR: Plain()}
        bodies, senders, _ = read_sums(combined, exchange, self._session, links, 8 * exchange.layout.size)
        with np.errstate(over="ignore"):
            words = np.frombuffer(bodies[AGGREGATOR], "<f8").astype(np.float32)
        if not np.isfinite(words).all():
            raise ProtectionError("the sum of the updates is not finite: lower --lr, or clip updates")
        return Opened(words.astype(np.float64), senders, words=words)


class Plaintext(Protection):
    """No protection. Has no parameters."""

    name = "plaintext"
    aggregator_sees = "every hospital's update in the clear"

    def setup(self, hospitals: Sequence[str]) -> Roles:
        """Make the roles; there are no keys."""
        names = check_hospitals(hospitals, 1)
        session = Session(self.name, self.fingerprint, names, 1)
        aggregator = PlaintextAggregator(AGGREGATOR, session, {name: Plain() for name in names}, Plain())
        sides: Dict[str, HospitalSide] = {name: PlaintextHospital(name, session) for name in names}
        return Roles(sides, {AGGREGATOR: aggregator}, PlaintextOpener(session))

    def error_bound(self, hospitals: int, largest: float) -> float:
        """Return what float32 rounds away of the sum, and float64 in so many additions."""
        return hospitals * largest * 2.0**-24 + hospitals**2 * largest * 2.0**-53

    @property
    def fingerprint(self) -> str:
        """A digest of the scheme's name."""
        return wire.fingerprint(self.name)

    def describe(self) -> Dict[str, object]:
        """Return the scheme's name."""
        return {"protection": self.name}

"""The roles of homomorphic encryption, the same for every scheme.

Trust model: all hospitals share one secret key; the aggregator holds none, only public parameters, and
learns nothing from ciphertexts under the ring learning with errors assumption (128-bit parameters).
Hospitals decrypt the sum themselves; the aggregator never sees it. Any hospital may drop out. The
aggregator is honest but curious: it can spoil a sum, not read an update. **A hospital that colludes
with the aggregator opens every other hospital's update**, since the key is common. Messages are
sealed and authenticated besides, so a third party on the way sees no ciphertexts at all.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, List, Mapping, Sequence

import numpy as np

from skinfl.errors import MessageError, ProtectionError
from skinfl.protection import wire
from skinfl.protection.authenticator import Authenticator
from skinfl.protection.base import Exchange, Opened, OpenerSide, Protected
from skinfl.protection.encoder import Decoded, Encoder, Tally, rechunk
from skinfl.protection.he.seal import dump, load, sealapi
from skinfl.protection.keys import SecretKey
from skinfl.protection.layout import Layout
from skinfl.protection.roles import (
    AGGREGATOR,
    EncodingHospital,
    Party,
    Session,
    begin_update,
    proved,
    read_sums,
)
from skinfl.protection.sealing import Link, Writer
from skinfl.protection.trailer import Trailer

_LENGTH = 4


class Packing(ABC):
    """How an encoder's integers become the slots of ciphertexts, and back.

    Holds public parameters only: hospitals, aggregator and opener each make the same. A sum is exact: where
    one could come out wrong, a setup is refused.
    """

    #: the SEALContext
    context: Any
    #: the scale of CKKS's ciphertexts; BFV's have none
    scale: float = 1.0

    @abstractmethod
    def sizes(self, layout: Layout, agreement: str) -> List[int]:
        """Return how many integers each ciphertext holds, in order, for messages under this agreement.

        They add up to what the encoder yields for a vector of ``layout``.
        """

    @abstractmethod
    def encode(self, integers: np.ndarray, plaintext: Any) -> None:
        """Put the integers of one ciphertext, int64, ``(n,)`` with n of :meth:`sizes`, into ``plaintext``.

        Each is within the range of the encoder that this packing was made for.
        """

    @abstractmethod
    def decode(self, plaintext: Any, count: int) -> np.ndarray:
        """Return the first ``count`` integers of a decrypted sum, int64, shape ``(count,)``.

        Slots beyond those that :meth:`encode` filled hold nothing that counts.
        """

    @abstractmethod
    def vector(self, integers: np.ndarray, layout: Layout, senders: int, agreement: str) -> Decoded:
        """Return the vector of all ciphertexts' integers, int64, summed over that many senders.

        ``integers``: shape ``(sum(sizes(layout, agreement)),)``, in the order of the ciphertexts. The vector
        is float64, in the unit of those that were encoded.

        Raises :class:`~skinfl.errors.ProtectionError` where the senders used different ranges.
        """


class HeHospital(EncodingHospital):
    """Encrypts a vector with the hospitals' common key."""

    def __init__(
        self, name: str, session: Session, packing: Packing, encoder: Encoder, secret: SecretKey, link: Link
    ):
        super().__init__(name, session, encoder, secret)
        self._packing = packing
        self._link = link
        self._encryptor = sealapi.Encryptor(packing.context, load_secret(packing, secret))

    def protect(self, vector: np.ndarray, exchange: Exchange) -> Protected:
        """Encrypt ``vector``; a value outside the clip range is clipped and counted."""
        tally, plaintext = Tally(), sealapi.Plaintext()
        agreement = self._encoder.agreement(exchange.layout)
        sizes = self._packing.sizes(exchange.layout, agreement)
        writer = begin_update(
            self._session,
            self._link,
            self.name,
            AGGREGATOR,
            exchange,
            secret=self._secret,
            agreement=agreement,
        )
        chunks = rechunk(self._encoder.blocks(vector, exchange, tally), sizes)
        for chunk in self._watched(chunks, sum(sizes)):
            self._packing.encode(chunk, plaintext)
            write_piece(writer, dump(self._encryptor.encrypt_symmetric(plaintext)))
        return Protected({AGGREGATOR: writer.finish()}, tally.share)


class HeAggregator(Party[List[Any]]):
    """Adds ciphertexts. Needs no key of any kind, and is given none."""

    def __init__(
        self, name: str, session: Session, packing: Packing, links: Mapping[str, Link], opener: Link
    ):
        super().__init__(name, session, links, opener)
        self._packing = packing
        self._evaluator = sealapi.Evaluator(packing.context)

    def read(self, header: wire.Header, body: bytearray, exchange: Exchange) -> List[Any]:
        """Return the ciphertexts, checked by SEAL."""
        expected = len(self._packing.sizes(exchange.layout, header.agreement))
        return read_ciphertexts(header.sender, body, self._packing, expected)

    def read_sum(
        self, words: np.ndarray, senders: Sequence[str], exchange: Exchange, combined: Mapping[str, bytes]
    ) -> Opened:
        """Return what the words stand for that a hospital opened of ``combined``, the sum made here.

        Nothing is proved by it: that takes the hospitals' secret.
        """
        agreement = wire.parse(combined[self.name]).header.agreement
        sizes = self._packing.sizes(exchange.layout, agreement)
        if words.dtype.kind != "i" or words.shape != (sum(sizes),):
            raise ProtectionError(f"the opened sum has shape {words.shape}, ({sum(sizes)},) expected")
        decoded = self._packing.vector(words, exchange.layout, len(senders), agreement)
        return Opened(decoded.vector, tuple(sorted(senders)), decoded.ranges, decoded.clipped, words)

    def add(self, contents: Sequence[List[Any]], exchange: Exchange, writer: Writer) -> None:
        """Write the sum, ciphertext by ciphertext."""
        for ciphertexts in zip(*contents):
            total = sealapi.Ciphertext()
            self._evaluator.add(ciphertexts[0], ciphertexts[1], total)
            for ciphertext in ciphertexts[2:]:
                self._evaluator.add_inplace(total, ciphertext)
            write_piece(writer, dump(total))


class HeOpener(OpenerSide):
    """Decrypts the sum; runs at the hospitals, which hold the key."""

    place = "hospitals"

    def __init__(self, session: Session, packing: Packing, trailer: Trailer, secret: SecretKey, link: Link):
        self._session = session
        self._packing = packing
        self._trailer = trailer
        self._link = link
        self._authenticator = Authenticator(secret.data)
        self._decryptor = sealapi.Decryptor(packing.context, load_secret(packing, secret))

    def open(self, combined: Mapping[str, bytes], exchange: Exchange) -> Opened:
        """Return the sum, once it is proved to be that of its senders."""
        bodies, senders, header = read_sums(combined, exchange, self._session, {AGGREGATOR: self._link})
        sizes = self._packing.sizes(exchange.layout, header.agreement)
        ciphertexts = read_ciphertexts(AGGREGATOR, bodies[AGGREGATOR], self._packing, len(sizes))
        plaintext, integers = sealapi.Plaintext(), []
        for ciphertext, count in zip(ciphertexts, sizes):
            self._decryptor.decrypt(ciphertext, plaintext)
            integers.append(self._packing.decode(plaintext, count))
        words = np.concatenate(integers)
        return proved(
            words if np.abs(words).max() >= 1 << 31 else words.astype(np.int32),
            senders,
            exchange,
            session=self._session,
            authenticator=self._authenticator,
            trailer=self._trailer,
            size=sum(sizes),
            decode=lambda checked: self._packing.vector(
                checked, exchange.layout, len(senders), header.agreement
            ),
        )


def load_secret(packing: Packing, secret: SecretKey) -> Any:
    """Return SEAL's key, or refuse one of other parameters."""
    try:
        return load(sealapi.SecretKey(), packing.context, secret.data)
    except ValueError as error:
        raise ProtectionError(f"the encryption key doesn't fit these parameters: {error}") from error


def write_piece(writer: Writer, piece: bytes) -> None:
    """Append a ciphertext, its length first."""
    writer.write(len(piece).to_bytes(_LENGTH, "big"))
    writer.write(piece)


def read_ciphertexts(sender: str, body: bytearray, packing: Packing, expected: int) -> List[Any]:
    """Return the ciphertexts in a body: exactly as many as expected, each valid and fresh."""
    found: List[Any] = []
    view, position = memoryview(body), 0
    while position < len(view):
        length = int.from_bytes(view[position : position + _LENGTH], "big")
        piece = bytes(view[position + _LENGTH : position + _LENGTH + length])
        position += _LENGTH + length
        if position > len(view) or len(found) == expected:
            raise MessageError(sender, f"it doesn't hold {expected} whole ciphertexts")
        try:
            ciphertext = load(sealapi.Ciphertext(), packing.context, piece)
        except ValueError as error:
            raise MessageError(sender, f"ciphertext {len(found) + 1} is invalid: {error}") from error
        fresh = ciphertext.parms_id() == packing.context.first_parms_id()
        if not (fresh and ciphertext.size() == 2 and ciphertext.scale == packing.scale):
            raise MessageError(sender, f"ciphertext {len(found) + 1} has another level, scale or size")
        found.append(ciphertext)
    if len(found) != expected:
        raise MessageError(sender, f"it holds {len(found)} ciphertexts, {expected} expected")
    return found

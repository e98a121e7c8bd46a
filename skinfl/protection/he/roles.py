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
from typing import Any, Iterator, List, Mapping, NamedTuple, Sequence

import numpy as np

from skinfl.errors import MessageError, ProtectionError
from skinfl.protection.base import Exchange, HospitalSide, Opened, OpenerSide, Protected
from skinfl.protection.he.seal import dump, load, sealapi
from skinfl.protection.layout import Layout
from skinfl.protection.roles import AGGREGATOR, Party, Terms, begin_update, read_sums
from skinfl.protection.sealing import Link, Writer
from skinfl.protection.words import Tally, rechunk

_LENGTH = 4


class SecretKey(NamedTuple):
    """The hospitals' common key. ``id`` names it in public; ``data`` is SEAL's serialisation."""

    id: bytes
    data: bytes


class Packing(ABC):
    """How a vector becomes the slots of ciphertexts, and back. Holds public parameters only."""

    #: the SEALContext
    context: Any

    @abstractmethod
    def sizes(self, layout: Layout) -> List[int]:
        """Return how many words each ciphertext holds."""

    @abstractmethod
    def words(self, vector: np.ndarray, layout: Layout, tally: Tally) -> Iterator[np.ndarray]:
        """Yield the vector's words in order, in blocks."""

    @abstractmethod
    def encode(self, words: np.ndarray, plaintext: Any) -> None:
        """Put the words of one ciphertext into ``plaintext``."""

    @abstractmethod
    def decode(self, plaintext: Any, count: int) -> np.ndarray:
        """Return the first ``count`` words of a decrypted sum, int64."""

    @abstractmethod
    def vector(self, words: np.ndarray, layout: Layout, senders: int) -> np.ndarray:
        """Return the float64 vector of words summed over that many senders."""


class HeHospital(HospitalSide):
    """Encrypts a vector with the hospitals' common key."""

    def __init__(self, name: str, terms: Terms, packing: Packing, secret: SecretKey, link: Link):
        self.name = name
        self._terms = terms
        self._packing = packing
        self._link = link
        self._encryptor = sealapi.Encryptor(packing.context, load_secret(packing, secret))

    def protect(self, vector: np.ndarray, exchange: Exchange) -> Protected:
        """Encrypt ``vector``; a value outside the clip range is clipped and counted."""
        packing, tally = self._packing, Tally()
        writer = begin_update(self._terms, self._link, self.name, AGGREGATOR, exchange)
        plaintext = sealapi.Plaintext()
        for chunk in rechunk(packing.words(vector, exchange.layout, tally), packing.sizes(exchange.layout)):
            packing.encode(chunk, plaintext)
            write_piece(writer, dump(self._encryptor.encrypt_symmetric(plaintext)))
        return Protected({AGGREGATOR: writer.finish()}, tally.share)


class HeAggregator(Party[List[Any]]):
    """Adds ciphertexts. Needs no key of any kind, and is given none."""

    def __init__(self, name: str, terms: Terms, packing: Packing, links: Mapping[str, Link], opener: Link):
        super().__init__(name, terms, links, opener)
        self._packing = packing
        self._evaluator = sealapi.Evaluator(packing.context)

    def read(self, sender: str, body: bytearray, exchange: Exchange) -> List[Any]:
        """Return the ciphertexts, checked by SEAL."""
        return read_ciphertexts(sender, body, self._packing, exchange.layout)

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

    def __init__(self, terms: Terms, packing: Packing, secret: SecretKey, link: Link):
        self._terms = terms
        self._packing = packing
        self._link = link
        self._decryptor = sealapi.Decryptor(packing.context, load_secret(packing, secret))

    def open(self, combined: Mapping[str, bytes], exchange: Exchange) -> Opened:
        """Return the sum."""
        bodies, senders = read_sums(combined, exchange, self._terms, {AGGREGATOR: self._link})
        ciphertexts = read_ciphertexts(AGGREGATOR, bodies[AGGREGATOR], self._packing, exchange.layout)
        plaintext = sealapi.Plaintext()
        words = []
        for ciphertext, count in zip(ciphertexts, self._packing.sizes(exchange.layout)):
            self._decryptor.decrypt(ciphertext, plaintext)
            words.append(self._packing.decode(plaintext, count))
        return Opened(self._packing.vector(np.concatenate(words), exchange.layout, len(senders)), senders)


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


def read_ciphertexts(sender: str, body: bytearray, packing: Packing, layout: Layout) -> List[Any]:
    """Return the ciphertexts in a body: exactly as many as the layout has, each valid and of two parts."""
    expected = len(packing.sizes(layout))
    found: List[Any] = []
    view, position = memoryview(body), 0
    while position < len(view):
        length = int.from_bytes(view[position : position + _LENGTH], "big")
        piece = view[position + _LENGTH : position + _LENGTH + length]
        position += _LENGTH + length
        if position > len(view) or len(found) == expected:
            raise MessageError(sender, f"it doesn't hold {expected} whole ciphertexts")
        try:
            ciphertext = load(sealapi.Ciphertext(), packing.context, piece)
        except ValueError as error:
            raise MessageError(sender, f"ciphertext {len(found) + 1} is invalid: {error}") from error
        if ciphertext.size() != 2:
            raise MessageError(
                sender, f"ciphertext {len(found) + 1} has {ciphertext.size()} parts, 2 expected"
            )
        found.append(ciphertext)
    if len(found) != expected:
        raise MessageError(sender, f"it holds {len(found)} ciphertexts, {expected} expected")
    return found

"""The roles of homomorphic encryption, the same for every scheme.

Trust model: all hospitals share one secret key; the aggregator holds none, only public parameters, and
learns nothing from ciphertexts under the ring learning with errors assumption (128-bit parameters).
Hospitals decrypt the sum themselves; the aggregator never sees it. The key alone opens no single update:
ciphertexts carry one-time masks that cancel in the sum of the hospitals asked only, so an aggregator that
has the key from a hospital learns sums, and must have all other hospitals on its side to learn one update
(:mod:`.masks` has the argument). It can spoil a sum. If a hospital drops out, the others protect again.
Messages are sealed and authenticated besides, so a third party on the way sees no ciphertexts at all.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from typing import Any, List, Mapping, Sequence, Tuple

import numpy as np

from skinfl.errors import MessageError, ProtectionError
from skinfl.protection import wire
from skinfl.protection.authenticator import Authenticator
from skinfl.protection.base import Exchange, Opened, OpenerSide, Protected
from skinfl.protection.encoder import Decoded, Encoder, Tally, rechunk
from skinfl.protection.he.masks import Mask, PairSeeds, cohort_of
from skinfl.protection.he.residues import Codec
from skinfl.protection.he.seal import load, sealapi
from skinfl.protection.keys import SecretKey
from skinfl.protection.layout import Layout
from skinfl.protection.prg import SEED
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


class Packing(ABC):
    """How an encoder's integers become the slots of ciphertexts, and back.

    Holds public parameters only: hospitals, aggregator and opener each make the same. A sum is exact: where
    one could come out wrong, a setup is refused.
    """

    #: the SEALContext
    context: Any
    #: whether ciphertexts are in number-theoretic form
    ntt_form: bool
    #: the scale of CKKS's ciphertexts; BFV's have none
    scale: float = 1.0

    def codec(self) -> Codec:
        """Return what encodes and decodes its ciphertexts, for one role."""
        return Codec(self.context, ntt_form=self.ntt_form, scale=self.scale)

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
    """Encrypts a vector with the hospitals' common key, and masks the ciphertexts for one cohort."""

    def __init__(
        self,
        name: str,
        session: Session,
        packing: Packing,
        encoder: Encoder,
        secret: SecretKey,
        link: Link,
        pairs: PairSeeds,
    ):
        super().__init__(name, session, encoder, secret)
        self._packing = packing
        self._link = link
        self._pairs = pairs
        self._codec = packing.codec()
        self._encryptor = sealapi.Encryptor(packing.context, load_secret(packing, secret))

    def protect(self, vector: np.ndarray, exchange: Exchange) -> Protected:
        """Encrypt ``vector``; a value outside the clip range is clipped and counted.

        Raises :class:`~skinfl.errors.ProtectionError` for a cohort that lacks this hospital, or is too small.
        """
        added, subtracted = self._pairs.seeds(exchange, self._session)
        release = os.urandom(SEED)
        mask = Mask(self._codec.ring, [release, *added], subtracted)
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
            reserve=len(sizes) * self._codec.size(seeded=True),
            agreement=agreement,
        )
        chunks = rechunk(self._encoder.blocks(vector, exchange, tally), sizes)
        for chunk in self._watched(chunks, sum(sizes)):
            self._packing.encode(chunk, plaintext)
            writer.write(self._codec.encode(self._encryptor.encrypt_symmetric(plaintext), mask.draw()))
        return Protected({AGGREGATOR: writer.finish()}, tally.share, release)


class HeAggregator(Party[List[Any]]):
    """Adds ciphertexts. Needs no key of any kind, and is given none but the releases of those it adds."""

    releases = True

    def __init__(
        self, name: str, session: Session, packing: Packing, links: Mapping[str, Link], opener: Link
    ):
        super().__init__(name, session, links, opener)
        self._packing = packing
        self._evaluator = sealapi.Evaluator(packing.context)
        self._codec = packing.codec()
        self._releases: Tuple[bytes, ...] = ()

    def take_releases(
        self, senders: Tuple[str, ...], exchange: Exchange, releases: Mapping[str, bytes]
    ) -> None:
        """Keep the senders' releases; refuse senders whose masks do not cancel."""
        cohort = cohort_of(exchange, self.session)
        if senders != cohort:
            missing = [name for name in cohort if name not in senders]
            what = f"{missing[0]} is missing" if missing else "others were to be added"
            raise ProtectionError(
                f"the masks of {len(senders)} hospital(s) do not cancel, as {what}: "
                "ask the hospitals to protect again, for a cohort of those that are left"
            )
        for name in senders:
            if len(releases.get(name, b"")) != SEED:
                raise ProtectionError(f"{name} has not released its mask: the sum stays unreadable")
        self._releases = tuple(releases[name] for name in senders)

    def read(self, header: wire.Header, body: bytearray, exchange: Exchange) -> List[Any]:
        """Return the ciphertexts, checked by SEAL."""
        expected = len(self._packing.sizes(exchange.layout, header.agreement))
        return read_ciphertexts(header.sender, body, self._codec, expected, seeded=True)

    def reserve(self, exchange: Exchange) -> int:
        """Return the length of a sum's body."""
        number = len(self._packing.sizes(exchange.layout, self._basis.agreement))
        return number * self._codec.size(seeded=False)

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
        """Write the sum, ciphertext by ciphertext, without the senders' own masks."""
        mask = Mask(self._codec.ring, (), self._releases)
        for ciphertexts in zip(*contents):
            total = sealapi.Ciphertext()
            self._evaluator.add(ciphertexts[0], ciphertexts[1], total)
            for ciphertext in ciphertexts[2:]:
                self._evaluator.add_inplace(total, ciphertext)
            writer.write(self._codec.encode(total, mask.draw()))


class HeOpener(OpenerSide):
    """Decrypts the sum; runs at the hospitals, which hold the key."""

    place = "hospitals"

    def __init__(self, session: Session, packing: Packing, trailer: Trailer, secret: SecretKey, link: Link):
        self._session = session
        self._packing = packing
        self._trailer = trailer
        self._link = link
        self._authenticator = Authenticator(secret.data)
        self._codec = packing.codec()
        self._decryptor = sealapi.Decryptor(packing.context, load_secret(packing, secret))

    def open(self, combined: Mapping[str, bytes], exchange: Exchange) -> Opened:
        """Return the sum, once it is proved to be that of its senders."""
        bodies, senders, header = read_sums(combined, exchange, self._session, {AGGREGATOR: self._link})
        sizes = self._packing.sizes(exchange.layout, header.agreement)
        ciphertexts = read_ciphertexts(AGGREGATOR, bodies[AGGREGATOR], self._codec, len(sizes), seeded=False)
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


def read_ciphertexts(sender: str, body: bytearray, codec: Codec, expected: int, *, seeded: bool) -> List[Any]:
    """Return the ciphertexts in a body: exactly as many as expected, each valid."""
    size = codec.size(seeded=seeded)
    if len(body) != expected * size:
        raise MessageError(sender, f"{len(body)} bytes don't hold {expected} ciphertexts of {size}")
    found: List[Any] = []
    for start in range(0, len(body), size):
        try:
            found.append(codec.decode(memoryview(body)[start : start + size], seeded=seeded))
        except ValueError as error:
            raise MessageError(sender, f"ciphertext {len(found) + 1} is invalid: {error}") from error
    return found

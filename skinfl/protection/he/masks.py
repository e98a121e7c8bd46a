"""One-time masks on ciphertexts: they cancel in the sum of all hospitals asked, and only there.

All hospitals share one decryption key, so an aggregator with a friend among them could open every ciphertext
that it is sent. Therefore hospital i adds to each ciphertext's first polynomial c0, modulo each prime q::

    c0_i  +  sum over j > i of PRG(k_ij)  -  sum over j < i of PRG(k_ij)  +  PRG(b_i)       (mod q)

- k_ij comes from the X25519 keys of i and j by HKDF-SHA256, bound to run, round, layout, task, the state
  started from, the attempt, and the cohort: the hospitals whose messages are to be added. Whoever was asked
  anything else has other masks, and no sum with it opens.
- b_i is fresh from the operating system whenever i protects. It is the *release*: the aggregator gets it once
  it has named the senders, and a hospital gives it for **one attempt of a round only**. Whoever calls
  ``protect`` sees to that, over restarts too. Once given it is no secret any more.
- PRG is AES-128 in counter mode, read as uniform residues of q; i and j are compared by name.

The aggregator adds the cohort's ciphertexts, in which the k_ij cancel, and takes off the PRG(b_i).

Trust model: the aggregator does what it likes, holds the hospitals' decryption key, and has all hospitals but
two on its side. Hospitals know one another's true public keys. Of the honest ones it then learns the sum over
those in one cohort, nothing else:

1. To the coalition the k_ij of two honest hospitals and any b_i not released are uniform (X25519, HKDF, AES).
2. A message whose b_i is not released is uniform, whatever else is known: PRG(b_i) is a one-time pad on c0,
   without which the common key opens nothing.
3. With all b_i of a cohort known, the honest hospitals' messages are uniform but for their sum: in every
   combination in which the factors of honest i and j differ, PRG(k_ij) remains (Bonawitz et al., Lemma 6.1).
4. Each honest hospital releases once a round. So an attempt opens only if all honest hospitals of its cohort
   chose it, and two attempts that open share none of them: no difference of sums shows a single update. An
   aggregator that says hospital j dropped out, though it has j's message, and has the others protect again
   for the smaller cohort, gets the second sum; the first attempt's messages lack their releases for good.

With n - 1 of a cohort's n hospitals on its side it learns the last one's update, as from every sum. The masks
keep secrets and prove nothing: a wrong release, or masks made for something else, turn the sum into noise.

Drop-outs: Bonawitz et al. share the masks' seeds among all, so that those of who vanished can be taken off.
Here the others protect the same vectors again, for the smaller cohort under a new attempt. No secret is
shared, and nobody can be asked for another's. A drop-out costs one more upload, after the first release the
round. Masking costs a stream for each hospital of the cohort. Bell et al. need about log n of them, on a
random graph of pairs; that pays from hundreds of hospitals on, so here every pair has its mask.

Bonawitz et al., "Practical Secure Aggregation for Privacy-Preserving Machine Learning", CCS 2017 (masks in
pairs and of one's own); Bell et al., "Secure Single-Server Aggregation with (Poly)Logarithmic Overhead", CCS
2020.
"""

from __future__ import annotations

import hashlib
from typing import List, Mapping, Sequence, Tuple

import msgpack
import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from skinfl.errors import ProtectionError
from skinfl.protection.base import Exchange
from skinfl.protection.he.residues import Ring
from skinfl.protection.prg import SEED, Stream, new_scratch
from skinfl.protection.roles import Session
from skinfl.protection.sealing import agree

_PURPOSE = b"skinfl pairwise mask 1"
#: words that are drawn at a time: enough to be quick, few enough to stay in the processor's cache
_BLOCK = 1 << 14


def cohort_of(exchange: Exchange, session: Session) -> Tuple[str, ...]:
    """Return the names, sorted, of the hospitals whose messages are to be added.

    Raises :class:`~skinfl.errors.ProtectionError` where they aren't hospitals of this run, each named once,
    or are so few that their sum would show a single update.
    """
    cohort = tuple(sorted(exchange.cohort or session.hospitals))
    if len(set(cohort)) != len(cohort) or not set(cohort) <= set(session.hospitals):
        raise ProtectionError("the hospitals to be added must be of this run, each named once")
    if len(cohort) < session.minimum:
        raise ProtectionError(
            f"a sum of {len(cohort)} hospital(s) would show a single update: "
            f"at least {session.minimum} must take part"
        )
    return cohort


class PairSeeds:
    """What hospital ``name`` has in common with each other one. ``public`` keys are given by name."""

    def __init__(self, name: str, private: X25519PrivateKey, public: Mapping[str, bytes]):
        self._name = name
        self._secrets = {peer: agree(private, key) for peer, key in public.items() if peer != name}

    def seeds(self, exchange: Exchange, session: Session) -> Tuple[List[bytes], List[bytes]]:
        """Return the seeds of the masks that this hospital adds, and of those that it subtracts.

        Raises :class:`~skinfl.errors.ProtectionError` for an impossible cohort, or one without this hospital.
        """
        cohort = cohort_of(exchange, session)
        if self._name not in cohort:
            raise ProtectionError(
                f"{self._name} is not among the hospitals to be added: it has nothing to send"
            )
        bound = (
            session.fingerprint,
            exchange.run,
            exchange.round,
            exchange.layout.digest,
            exchange.task,
            exchange.base,
            exchange.attempt,
            cohort,
        )
        digest = hashlib.sha256(msgpack.packb(bound, use_bin_type=True)).digest()
        added: List[bytes] = []
        subtracted: List[bytes] = []
        for peer in cohort:
            if peer == self._name:
                continue
            info = msgpack.packb([_PURPOSE, sorted([self._name, peer]), digest], use_bin_type=True)
            seed = HKDF(SHA256(), SEED, None, info).derive(self._secrets[peer])
            (added if self._name < peer else subtracted).append(seed)
        return added, subtracted


class UniformResidues:
    """Uniform residues from a seed, ciphertext after ciphertext.

    A word's lowest bits, as many as its prime has, give one. Where they are no residue, a draw from a second
    stream replaces them, so that none is likelier than another. Streams that share ``scratch`` overwrite
    each other's words.
    """

    def __init__(self, seed: bytes, ring: Ring, scratch: Sequence[np.ndarray]):
        self._stream = Stream(seed, scratch[0])
        self._spare = Stream(hashlib.sha256(b"skinfl rejected draws" + seed).digest(), scratch[1])
        self._shape = (len(ring.primes), ring.degree)
        bits = [int(prime).bit_length() for prime in ring.primes[:, 0]]
        self._dtype = np.dtype("<u4" if max(bits) <= 32 else "<u8")
        self._primes = ring.primes.astype(self._dtype)
        self._low = np.array([[(1 << n) - 1] for n in bits], self._dtype)

    def draw(self, ciphertexts: int) -> np.ndarray:
        """Return the next residues, shape (ciphertexts, primes, degree), in words of 4 or 8 bytes."""
        shape = (ciphertexts, *self._shape)
        words = self._stream.words(ciphertexts * self._shape[0] * self._shape[1], self._dtype).reshape(shape)
        words &= self._low
        if (words.max(axis=2, keepdims=True) >= self._primes).any():
            for at in np.argwhere(words >= self._primes):
                place, row = tuple(at), at[1]
                while words[place] >= self._primes[row, 0]:
                    words[place] = self._spare.words(1, self._dtype)[0] & self._low[row, 0]
        return words


class Mask:
    """The sum of the streams of some seeds less that of others, drawn ciphertext by ciphertext."""

    def __init__(self, ring: Ring, added: Sequence[bytes], subtracted: Sequence[bytes]):
        words = ring.primes.size * ring.degree
        self._block = np.empty((max(1, _BLOCK // words), ring.primes.size, ring.degree), np.uint64)
        self._next = len(self._block)
        scratch = (new_scratch(self._block.size), new_scratch(1))
        self._primes = ring.primes
        self._streams = [UniformResidues(seed, ring, scratch) for seed in (*added, *subtracted)]
        self._added = len(added)
        # How many residues 64 bits hold the sum of, but for two: the sum so far, and what it is added to.
        self._room = (1 << 64) // int(ring.primes.max()) - 2

    def draw(self) -> np.ndarray:
        """Return the next ciphertext's: uint64, shape (primes, degree), each at most 2^64 less its prime.

        They are to be reduced by whoever adds them, before the next are drawn.
        """
        if self._next == len(self._block):
            self._fill()
        self._next += 1
        return self._block[self._next - 1]

    def _fill(self) -> None:
        self._block[:], self._next = 0, 0
        for i, stream in enumerate(self._streams):
            if i and i % self._room == 0:
                self._block %= self._primes
            words = stream.draw(len(self._block))
            if i >= self._added:
                words = np.subtract(self._primes, words)
            self._block += words

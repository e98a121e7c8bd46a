"""A proof that opened integers are the sum of what exactly these hospitals protected.

Trust model: all hospitals of a setup share a secret that nobody else has. Whoever lacks it, parties,
coordinator and relay, together or alone, cannot alter, drop, double, mix or relabel a contribution without
being found out by any hospital that looks at the sum. Whoever has it can make tags: a hospital that is a
party, too, and alters what it adds up can make the sum another one, within the range of all its senders'
updates, which a decoded sum is held to. By a false update of its own it does so within the range of one.

Catalano and Fiore, "Practical homomorphic MACs for arithmetic circuits", Eurocrypt 2013, for sums alone,
which is the one-time linear authenticator of Agrawal and Boneh, "Homomorphic MACs: MAC-based integrity for
network coding", ACNS 2009, with a mask for every sender.

1. Hospital i's integers x, values, counts and clipped share, are cut into rows of 8192. Its tag is
   t_i = F(x) + m_i modulo p = 2^63 - 25, with F(x) = sum over rows b of s_b times sum over k of a_k x_(b,k).
2. a and s are 63 bits each from a pseudorandom function under the hospitals' secret, bound to the exchange
   (run, round, layout, task) and the number of integers; m_i, uniform modulo p, besides to the sender's name.
3. Tags are added with the integers. F is linear over the integers, so an honest sum w of senders S has the
   tag F(w) + sum over S of m_i.

A sum that is not honest passes with a probability of at most 2^-61 for each try. Each m_i is uniform and used
for one exchange, so that tags tell nothing of a and s, and what an attacker makes is independent of these. If
other senders are claimed than were added, each once, the masks differ by a uniform number, which fits with
1 / p. If they are the claimed ones, the words are w + e for some e, not zero, of integers smaller than p
(larger words are refused), and the tag is off by some d of the attacker's choice. Take a row of e that is not
zero modulo p: its sum with a is zero for at most one residue of one a_k, which comes with at most 2^-62, as
two numbers of 63 bits at most are the same modulo p. Otherwise F(e) = d holds for one residue of that row's
s_b, 2^-62 again. In a ring or a field what an attacker adds may wrap or not, depending on w: that makes e
another one, not zero either way, and still independent of a and s.

A hospital must not protect different vectors for one exchange where others may open both: two tags with one
mask would tell F of their difference.
"""

from __future__ import annotations

import hashlib
import hmac
from operator import mul
from typing import Dict, Iterator, List, Mapping, Optional, Sequence

import msgpack
import numpy as np
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from skinfl.errors import UnprovedSum
from skinfl.protection.base import Exchange
from skinfl.protection.encoder import BLOCK, Decoded, Encoder, Tally
from skinfl.protection.layout import Layout
from skinfl.protection.prg import Stream, new_scratch
from skinfl.protection.trailer import LARGEST_WORD, PRIME, Trailer

#: integers in a row. With limbs of 9 bits and integers of 32 a row's sum stays below 2^53: exact in float64
ROW = 1 << 13
_LIMB = 9
_LIMBS = 7
_U8 = np.dtype("<u8")


class Form:
    """The bilinear form F of one exchange, of integers that come block by block.

    ``coefficients`` and ``rows``: seeds of the a and the s. ``size``: how many integers come in all.
    """

    def __init__(self, coefficients: bytes, rows: bytes, size: int):
        self._row = min(ROW, size)
        scratch = new_scratch(self._row)
        drawn = Stream(coefficients, scratch).words(self._row, _U8)
        # signed, as numpy converts that faster
        self._limbs = np.empty((self._row, _LIMBS))
        for i in range(_LIMBS):
            limb = (drawn >> np.uint64(i * _LIMB)) & np.uint64((1 << _LIMB) - 1)
            self._limbs[:, i] = limb.astype(np.int64)
        self._factors = Stream(rows, scratch)
        self._low = np.empty(self._row * max(1, min(BLOCK, size) // self._row))
        self._high: Optional[np.ndarray] = None
        self._filled = 0
        # each row's sums with the limbs of the a, and the same for the words' upper halves
        self._sums: List[np.ndarray] = []
        self._upper: List[np.ndarray] = []

    def add(self, words: np.ndarray) -> None:
        """Take the next words, int32, or int64 of magnitude at most LARGEST_WORD."""
        while len(words):
            taken = words[: len(self._low) - self._filled]
            words = words[len(taken) :]
            place = slice(self._filled, self._filled + len(taken))
            self._filled = place.stop
            if taken.dtype.itemsize > 4:
                low = taken.astype(np.int32)  # the lower half, with a sign
                if not np.array_equal(low, taken):
                    if self._high is None:
                        self._high = np.zeros(len(self._low))
                    self._high[place] = (taken - low) >> np.int64(32)
                taken = low
            self._low[place] = taken
            if self._filled == len(self._low):
                self._flush()

    def value(self) -> int:
        """Return F of all words, modulo the prime; nothing may be added afterwards."""
        end = -(-self._filled // self._row) * self._row
        self._low[self._filled : end] = 0.0
        self._filled = end
        self._flush()
        sums, upper = np.concatenate(self._sums), np.concatenate(self._upper)
        total = 0
        for start in range(0, len(sums), ROW):
            rows = slice(start, min(start + ROW, len(sums)))
            factors = (self._factors.words(rows.stop - start, _U8) >> np.uint64(1)).tolist()
            for half, shift in ((sums[rows], 0), (upper[rows], 32)):
                for i, column in enumerate(half.astype(np.int64).T.tolist()):
                    total += sum(map(mul, factors, column)) << (i * _LIMB + shift)
        return total % PRIME

    def _flush(self) -> None:
        """Take the rows that are held, all of them full."""
        held = slice(0, self._filled)
        self._sums.append(self._low[held].reshape(-1, self._row) @ self._limbs)
        if self._high is None:
            self._upper.append(np.zeros_like(self._sums[-1]))
        else:
            self._upper.append(self._high[held].reshape(-1, self._row) @ self._limbs)
            self._high = None
        self._filled = 0


class Authenticator:
    """Makes and checks tags with the hospitals' secret, ``secret``: any bytes that others cannot guess."""

    def __init__(self, secret: bytes):
        self._key = HKDF(SHA256(), 32, None, b"skinfl homomorphic authenticator 1").derive(secret)

    def form(self, exchange: Exchange, size: int) -> Form:
        """Return the form of an exchange, for so many integers."""
        return Form(
            self._seed("coefficients", exchange, str(size)), self._seed("rows", exchange, str(size)), size
        )

    def mask(self, exchange: Exchange, sender: str) -> int:
        """Return a sender's mask, uniform modulo the prime but for 2^-193."""
        return int.from_bytes(self._seed("mask", exchange, sender), "big") % PRIME

    def check(self, words: np.ndarray, senders: Sequence[str], exchange: Exchange, trailer: Trailer) -> None:
        """Refuse words, signed integers, that are not the sum of what exactly these senders protected."""
        sound = -LARGEST_WORD <= int(words.min()) and int(words.max()) <= LARGEST_WORD
        if sound:
            tagged = words[: trailer.tagged(len(words))]
            form = self.form(exchange, len(tagged))
            form.add(tagged)
            expected = form.value() + sum(self.mask(exchange, sender) for sender in senders)
            sound = expected % PRIME == trailer.tag(words)
        if not sound:
            raise UnprovedSum(
                f"the sum of round {exchange.round} {UnprovedSum.MARK}: it was altered, mixed or "
                "mislabelled on the way from its hospitals, or made with another secret or for another task"
            )

    def _seed(self, purpose: str, exchange: Exchange, of: str) -> bytes:
        bound = [purpose, exchange.run, exchange.round, exchange.layout.digest, exchange.task, of]
        return hmac.new(self._key, msgpack.packb(bound, use_bin_type=True), hashlib.sha256).digest()


class Authenticated(Encoder):
    """A hospital's encoder with the trailer behind its integers."""

    def __init__(self, encoder: Encoder, authenticator: Authenticator, sender: str):
        self.inner = encoder
        self.trailer = encoder.trailer
        self.dtype = encoder.dtype
        self._authenticator = authenticator
        self._sender = sender

    def agreement(self, layout: Layout) -> str:
        """Return the inner encoder's."""
        return self.inner.agreement(layout)

    def size(self, layout: Layout) -> int:
        """Return how many integers a vector of ``layout`` becomes, with the trailer."""
        return self.inner.size(layout)

    def blocks(self, vector: np.ndarray, exchange: Exchange, tally: Tally) -> Iterator[np.ndarray]:
        """Yield the integers of ``vector``, then those of the trailer."""
        layout = exchange.layout
        form = self._authenticator.form(exchange, self.trailer.tagged(self.size(layout)))
        for block in self.inner.blocks(vector, exchange, tally):
            form.add(block)
            yield block
        share = self.trailer.encode_share(tally.share)
        form.add(share)
        tag = (form.value() + self._authenticator.mask(exchange, self._sender)) % PRIME
        yield np.concatenate([share, self.trailer.encode_tag(tag)]).astype(self.dtype)

    def fits(self, number: int, layout: Layout) -> bool:
        """Say whether a sum of ``layout`` may have so many words."""
        return self.inner.fits(number, layout)

    def decode(self, words: np.ndarray, layout: Layout, senders: int) -> Decoded:
        """Return what the words of a sum stand for."""
        return self.inner.decode(words, layout, senders)

    def set_ranges(self, ranges: np.ndarray) -> None:
        """Pass on what the last sum says."""
        self.inner.set_ranges(ranges)

    def state(self) -> Dict[str, np.ndarray]:
        """Return the inner encoder's state."""
        return self.inner.state()

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Put back what :meth:`state` returned."""
        self.inner.load_state(state)

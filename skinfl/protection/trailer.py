"""What travels behind a vector's integers: the share of clipped values, and the authenticator's tag.

Both are digits below the encoding's base, so that they are summed with everything else and carry nothing.
Hospitals, parties and openers each know the trailer's size and can take it apart; only who holds the
hospitals' secret can make a tag or check one (:mod:`.authenticator`).
"""

from __future__ import annotations

import numpy as np

from skinfl.protection.digits import CountDigits

#: the largest prime below 2^63; tags are integers modulo it
PRIME = (1 << 63) - 25
#: Largest magnitude of a word of a sum. Two words differ by less than the prime then, so that none can be
#: exchanged for another that is the same modulo the prime.
LARGEST_WORD = 1 << 61


class Trailer:
    """The digits behind a vector's integers. ``base``: they and what they sum to fit the integers."""

    def __init__(self, base: int):
        self._share = CountDigits(base)
        self.base = base
        digits = 1
        while base**digits < PRIME:
            digits += 1
        self._tag = digits
        #: integers in all
        self.width = self._share.width + self._tag

    def encode_share(self, share: float) -> np.ndarray:
        """Return the share of clipped values, 0 to 1, as digits, int64."""
        return self._share.encode(np.array([share]))

    def encode_tag(self, tag: int) -> np.ndarray:
        """Return a tag, 0 to PRIME - 1, as digits, int64, lowest first."""
        return np.array([tag // self.base**i % self.base for i in range(self._tag)], np.int64)

    def share(self, words: np.ndarray, senders: int) -> float:
        """Return the sum of the senders' shares from all words of a sum, to 2^-27."""
        end = len(words) - self._tag
        return float(self._share.decode(words[end - self._share.width : end], senders)[0])

    def tag(self, words: np.ndarray) -> int:
        """Return the sum of the senders' tags, modulo the prime, from all words of a sum."""
        digits = words[len(words) - self._tag :].tolist()
        return sum(digit * self.base**i for i, digit in enumerate(digits)) % PRIME

    def tagged(self, size: int) -> int:
        """Return how many of a vector's ``size`` integers the tag is about: all but its own."""
        return size - self._tag

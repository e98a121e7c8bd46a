"""Vectorised arithmetic in a prime field, for Shamir sharing.

The primes are of Mersenne's form 2^k - 1 (k = 31 or 61), so that a remainder is found by shifting and
adding, and an element fits a 4- or 8-byte word.
"""

from __future__ import annotations

import hashlib
from typing import Sequence

import numpy as np

from skinfl.errors import SettingsError
from skinfl.protection.prg import Stream

_EXPONENTS = {32: 31, 64: 61}
#: elements multiplied at a time, so that intermediate results stay in the cache
_CHUNK = 1 << 13


class Field:
    """The integers modulo ``2 ** exponent - 1`` as little-endian words of ``bits`` bits.

    Signed numbers are represented by their remainder, of magnitude at most ``capacity``.
    """

    def __init__(self, bits: int):
        if bits not in _EXPONENTS:
            raise SettingsError(f"ring = {bits!r}: Shamir sharing works with words of 32 or 64 bits")
        self.bits = bits
        self.exponent = _EXPONENTS[bits]
        self.prime = (1 << self.exponent) - 1
        self.capacity = (self.prime - 1) // 2
        self.unsigned = np.dtype(f"<u{bits // 8}")
        #: what :meth:`from_signed` takes and :meth:`to_signed` gives
        self.signed = np.dtype(np.int64)
        self._prime = np.uint64(self.prime)
        self._shift = np.uint64(self.exponent)

    def from_signed(self, values: np.ndarray) -> np.ndarray:
        """Return int64 values of magnitude at most ``capacity`` as field elements (uint64)."""
        # a negative value wraps to something larger than any element plus the prime
        unsigned = values.astype(np.uint64)
        return np.minimum(unsigned, unsigned + self._prime)

    def to_signed(self, elements: np.ndarray) -> np.ndarray:
        """Return field elements as int64 of magnitude at most ``capacity``."""
        signed = elements.astype(np.int64)
        return np.where(signed > self.capacity, signed - self.prime, signed)

    def reduce(self, values: np.ndarray) -> np.ndarray:
        """Return any uint64 values modulo the prime."""
        for _ in range(-(-64 // self.exponent) - 1):
            values = (values & self._prime) + (values >> self._shift)
        # below twice the prime now; what is below it already wraps to something large
        return np.minimum(values, values - self._prime)

    def scale(self, elements: np.ndarray, factor: int) -> np.ndarray:
        """Return ``elements * factor`` for field elements (uint64) and one factor, modulo the prime.

        In 61 bits both are cut in halves so that no product passes 64 bits: with h = 31,
        x = x1 * 2^h + x0, and 2^61 = 1.
        """
        factor %= self.prime
        if self.exponent == 31:
            return self.reduce(elements * np.uint64(factor))
        h, rest = np.uint64(31), np.uint64(30)
        low, lower = np.uint64((1 << 31) - 1), np.uint64((1 << 30) - 1)
        f1, f0 = np.uint64(factor >> 31), np.uint64(factor & int(low))
        x1, x0 = elements >> h, elements & low
        # x1 f1 2^62 = 2 x1 f1; of middle * 2^31, what passes 2^61 comes round
        middle = x1 * f0 + x0 * f1
        high = ((x1 * f1) << np.uint64(1)) + (middle >> rest) + ((middle & lower) << h)
        return self.reduce(high + x0 * f0)

    def combine(self, vectors: Sequence[np.ndarray], factors: Sequence[int]) -> np.ndarray:
        """Return the sum of ``factors[i] * vectors[i]`` as uint64 elements."""
        total = np.empty(len(vectors[0]), np.uint64)
        for start in range(0, len(total), _CHUNK):
            chunks = [v[start : start + _CHUNK].astype(np.uint64, copy=False) for v in vectors]
            part = self.scale(chunks[0], factors[0])
            for chunk, factor in zip(chunks[1:], factors[1:]):
                part = self.reduce(part + self.scale(chunk, factor))
            total[start : start + _CHUNK] = part
        return total

    def add(self, total: np.ndarray, elements: np.ndarray) -> np.ndarray:
        """Return ``total + elements`` modulo the prime."""
        total = total + elements
        return np.minimum(total, total - self._prime)

    def lagrange(self, points: Sequence[int], at: int) -> Sequence[int]:
        """Return the weights w with f(at) = sum of w_i f(points_i) for every f of degree < len(points)."""
        weights = []
        for i, xi in enumerate(points):
            top, bottom = 1, 1
            for j, xj in enumerate(points):
                if i != j:
                    top = top * (at - xj) % self.prime
                    bottom = bottom * (xi - xj) % self.prime
            weights.append(top * pow(bottom, self.prime - 2, self.prime) % self.prime)
        return weights


class UniformElements:
    """Uniform field elements from a seed.

    A word's lowest ``exponent`` bits give one. The single value that isn't an element, the prime
    itself, is replaced by a draw from a second stream, so that no element is likelier than another.
    """

    def __init__(self, seed: bytes, field: Field):
        self._stream = Stream(seed)
        self._spare = Stream(hashlib.sha256(b"skinfl rejected draws" + seed).digest())
        self._field = field

    def draw(self, count: int) -> np.ndarray:
        """Return the next ``count`` (at most BLOCK) elements as uint64."""
        mask = self._field.unsigned.type(self._field.prime)
        words = self._stream.words(count, self._field.unsigned) & mask
        for i in np.flatnonzero(words == mask):
            while words[i] == mask:
                words[i] = self._spare.words(1, self._field.unsigned)[0] & mask
        return words.astype(np.uint64)

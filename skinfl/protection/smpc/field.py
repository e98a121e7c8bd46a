"""Vectorised arithmetic in a prime field, for Shamir sharing.

The primes are of Mersenne's form 2^k - 1 (k = 31 or 61), so that a remainder is found by shifting and
adding, and an element fits a 4- or 8-byte word.
"""

from __future__ import annotations

import hashlib
from typing import Sequence

import numpy as np

from skinfl.errors import SettingsError
from skinfl.protection.smpc.prg import Stream

_EXPONENTS = {32: 31, 64: 61}


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
        self._half = np.uint64((self.exponent + 1) // 2)

    def from_signed(self, values: np.ndarray) -> np.ndarray:
        """Return int64 values of magnitude at most ``capacity`` as field elements (uint64)."""
        return np.where(values < 0, values + self.prime, values).astype(np.uint64)

    def to_signed(self, elements: np.ndarray) -> np.ndarray:
        """Return field elements as int64 of magnitude at most ``capacity``."""
        signed = elements.astype(np.int64)
        return np.where(signed > self.capacity, signed - self.prime, signed)

    def reduce(self, values: np.ndarray) -> np.ndarray:
        """Return any uint64 values modulo the prime."""
        prime, shift = np.uint64(self.prime), np.uint64(self.exponent)
        for _ in range(-(-64 // self.exponent) - 1):
            values = (values & prime) + (values >> shift)
        return np.where(values >= prime, values - prime, values)

    def scale(self, elements: np.ndarray, factor: int) -> np.ndarray:
        """Return ``elements * factor`` for field elements (uint64) and one factor, modulo the prime.

        Both are cut in halves so that no product passes 64 bits: with e the exponent and h half of it
        rounded up, x = x1 * 2^h + x0, and 2^e = 1.
        """
        factor %= self.prime
        if self.exponent == 31:
            return self.reduce(elements * np.uint64(factor))
        h = self._half
        mask = np.uint64((1 << int(h)) - 1)
        f1, f0 = np.uint64(factor >> int(h)), np.uint64(factor & int(mask))
        x1, x0 = elements >> h, elements & mask
        # x1*f1 * 2^(2h), where 2h = e + 1: twice the product
        high = (x1 * f1) << np.uint64(1)
        middle = x1 * f0 + x0 * f1
        # middle * 2^h: its part above 2^(e - h) comes round as 2^e = 1
        rest = np.uint64(self.exponent) - h
        middle = (middle >> rest) + ((middle & np.uint64((1 << int(rest)) - 1)) << h)
        return self.reduce(self.reduce(high + middle) + self.reduce(x0 * f0))

    def combine(self, vectors: Sequence[np.ndarray], factors: Sequence[int]) -> np.ndarray:
        """Return the sum of ``factors[i] * vectors[i]`` as uint64 elements."""
        total = np.zeros(len(vectors[0]), np.uint64)
        for vector, factor in zip(vectors, factors):
            total = self.reduce(total + self.scale(vector.astype(np.uint64, copy=False), factor))
        return total

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

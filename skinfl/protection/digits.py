"""Numbers too wide for one word, as several digits that may be added without carrying."""

from __future__ import annotations

import numpy as np

from skinfl.errors import ProtectionError
from skinfl.protection.fixedpoint import FixedPoint

#: a count is a multiple of 2**-27 and at most 2**22 in magnitude: 50 bits with its sign
COUNT_PRECISION = 27
COUNT_LIMIT = 2.0**22


class Digits:
    """Integers of magnitude at most ``largest`` as ``count`` non-negative digits below ``base``.

    The integers are first shifted up by ``largest``. Digits of several numbers are summed place by
    place in integers that have room for ``base - 1`` times the number of summands; nothing is carried
    before decoding.
    """

    def __init__(self, base: int, largest: int):
        if base < 2:
            raise ProtectionError(
                "the integers have no room for so many hospitals: take a wider ring or degree"
            )
        self.base = base
        self.largest = largest
        self.count = 1
        while base**self.count <= 2 * largest:
            self.count += 1

    def encode(self, integers: np.ndarray) -> np.ndarray:
        """Return the digits of int64 ``integers`` (n,), lowest first, as int64 of shape (n * count,)."""
        rest = integers + self.largest
        if self.count == 1:
            return rest
        digits = np.empty((len(rest), self.count), np.int64)
        for i in range(self.count):
            digits[:, i] = rest % self.base
            rest = rest // self.base
        return digits.reshape(-1)

    def decode(self, sums: np.ndarray, senders: int) -> np.ndarray:
        """Return the integers (n,) from digits (n * count,) summed over that many senders."""
        digits = np.asarray(sums, np.int64).reshape(-1, self.count)
        total = np.full(len(digits), -senders * self.largest, np.int64)
        for i in range(self.count):
            total += digits[:, i] * self.base**i
        return total


class CountDigits:
    """Counts, at full precision in integers of any width: steps of 2**-27, at most 2**22, as digits."""

    def __init__(self, base: int):
        self._fixed = FixedPoint(COUNT_PRECISION, rounding="nearest")
        self._digits = Digits(base, int(COUNT_LIMIT) << COUNT_PRECISION)
        #: integers per count
        self.width = self._digits.count

    def encode(self, counts: np.ndarray) -> np.ndarray:
        """Return the digits of float ``counts`` (n,) as int64; refuse what is larger, never clip it."""
        if not np.isfinite(counts).all() or (np.abs(counts) > COUNT_LIMIT).any():
            raise ProtectionError(f"a count must be finite and at most {COUNT_LIMIT:.0f} in magnitude")
        return self._digits.encode(self._fixed.encode(counts.astype(np.float64)))

    def steps(self, sums: np.ndarray, senders: int) -> np.ndarray:
        """Return the summed counts (n,) in steps of 2**-27, int64."""
        return self._digits.decode(sums, senders)

    def value(self, steps: np.ndarray) -> np.ndarray:
        """Return counts given in steps as float64."""
        return self._fixed.decode(steps)

    def decode(self, sums: np.ndarray, senders: int) -> np.ndarray:
        """Return the summed counts (n,), float64."""
        return self.value(self.steps(sums, senders))

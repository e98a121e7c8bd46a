"""Fixed-point numbers: how a real value becomes an integer that can be shared or encrypted exactly.

Encoding and decoding agree with SyMPC's ``FixedPointEncoder`` (OpenMined, commit 91cf991): a value
times the scale, cut towards zero. Rounding to the nearest integer is the other choice; it halves the
largest error (half a step for one value, against just under one step) and does not pull every value
towards zero.
"""

from __future__ import annotations

from typing import Optional

import numpy as np

from skinfl.errors import SettingsError, nearest

ROUNDINGS = {"truncate": np.trunc, "nearest": np.rint}
#: precision taken where none is asked for and the capacity allows it: an error of at most 1.2e-7
DEFAULT_PRECISION = 22


class FixedPoint:
    """Integers that count steps of ``base ** -precision``.

    The error of one value is below one step with ``truncate`` and at most half a step with
    ``nearest``; a sum of n values is off by at most n times that.
    """

    def __init__(self, precision: int, base: int = 2, rounding: str = "truncate"):
        if rounding not in ROUNDINGS:
            raise SettingsError(f"unknown rounding {rounding!r}: {nearest(rounding, ROUNDINGS)}")
        self.precision = precision
        self.base = base
        self.scale = base**precision
        self.rounding = rounding

    @property
    def error(self) -> float:
        """The largest error of one value."""
        step = float(self.base) ** -self.precision
        return step / 2 if self.rounding == "nearest" else step

    def encode(
        self,
        values: np.ndarray,
        out: Optional[np.ndarray] = None,
        work: Optional[np.ndarray] = None,
    ) -> np.ndarray:
        """Return the integers nearest to (or cut from) ``values * scale``, of any shape, as int64.

        The product is formed in the values' own floating-point type, as torch does for SyMPC. ``out``,
        integers of the same shape, takes the result instead; ``work``, of the values' type and shape,
        spares an allocation.
        """
        values = np.asarray(values)
        if values.dtype.kind != "f":
            return values.astype(np.int64) * self.scale
        scaled = np.multiply(values, values.dtype.type(self.scale), out=work)
        scaled = ROUNDINGS[self.rounding](scaled, out=work)
        if out is None:
            return np.asarray(scaled).astype(np.int64)
        np.copyto(out, scaled, casting="unsafe")
        return out

    def decode(self, integers: np.ndarray) -> np.ndarray:
        """Return ``integers / scale`` as float64; exact in base 2 up to 2**53 steps."""
        return np.asarray(integers, dtype=np.int64) / np.float64(self.scale)

    def decode_sympc(self, integers: np.ndarray) -> np.ndarray:
        """Return what SyMPC decodes: float32 arithmetic over a truncated quotient.

        SyMPC writes ``//`` and relies on torch before 1.13 truncating it; here the truncation is
        spelt out. Negative values are one below the quotient plus a positive remainder.
        """
        integers = np.asarray(integers, dtype=np.int64)
        negative = (integers < 0).astype(np.int64)
        remainder = np.mod(integers, self.scale)
        truncated = integers // self.scale + negative * (remainder != 0)
        remainder = remainder + (remainder == 0) * negative * self.scale
        whole = (truncated - negative).astype(np.float32)
        return whole + remainder.astype(np.float32) / np.float32(self.scale)

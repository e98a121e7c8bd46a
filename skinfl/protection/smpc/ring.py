"""The ring of integers modulo 2^32 or 2^64, in which additive shares live."""

from __future__ import annotations

import numpy as np

from skinfl.errors import SettingsError
from skinfl.protection.trailer import LARGEST_WORD


class Ring:
    """Arithmetic modulo ``2 ** bits``; numpy's unsigned words wrap around by themselves.

    Signed numbers are represented in two's complement, as SyMPC does with torch's int64.
    """

    def __init__(self, bits: int):
        if bits not in (32, 64):
            raise SettingsError(f"ring = {bits!r}: the ring has 32 or 64 bits")
        self.bits = bits
        #: little-endian words, as they travel
        self.unsigned = np.dtype(f"<u{bits // 8}")
        self.signed = np.dtype(f"<i{bits // 8}")
        #: largest magnitude of a signed element; what could be larger, the authenticator does not hold
        self.capacity = min((1 << (bits - 1)) - 1, LARGEST_WORD)

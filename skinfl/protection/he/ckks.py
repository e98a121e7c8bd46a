"""Packing into CKKS slots, so that the sum comes out exact.

Trust model: that of :mod:`.roles`; a packing holds public parameters only.

CKKS is approximate: what is decrypted carries the encryption's error. Here every word is an integer on
the fixed-point grid, scaled up so far that the error of the whole sum stays below half a step, and the
decrypted slots are rounded to integers. So the sum opened is the same as under secret sharing, bit for
bit, and no trace of the error, which would betray the key (Li and Micciancio, "On the security of
homomorphic encryption on approximate numbers", Eurocrypt 2021), leaves the decryption.

``ckks-layers`` gives each segment of the layout ciphertexts of its own, the paper's PFHE;
``ckks-vector`` fills ciphertexts without regard to segments. Both use real and imaginary parts, so a
ciphertext holds as many values as its degree.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import List, NamedTuple, Optional, Tuple

import numpy as np

from skinfl.errors import ProtectionError
from skinfl.protection.encoder import Decoded, FixedPointEncoder, fit_precision
from skinfl.protection.he.roles import Packing
from skinfl.protection.he.seal import ERROR_BOUND, PRIME_BITS, ckks_context, primes, sealapi
from skinfl.protection.he.standard import MODULUS_BITS, check_security
from skinfl.protection.layout import Layout

DEGREES = (2048, 4096, 8192)
#: a complex slot's magnitude over that of its larger part
_COMPLEX = math.sqrt(2)


class CkksParameters(NamedTuple):
    """``degree`` N, bits of the one prime q, the scale's logarithm, and the largest word of a sum."""

    degree: int
    prime_bits: int
    scale_bits: int
    capacity: int


def noise_bound(degree: int, hospitals: int, largest: float) -> float:
    """Return a bound on the error of a sum's slots, before division by the scale.

    Encryption: each of N coefficients is off by at most 21 and by 1/2 for rounding, once per hospital,
    and a slot is a sum of coefficients times roots of unity. Double precision: the transforms, with N
    log N steps, on numbers up to ``largest``; bounded with 16 units in the last place per level.
    """
    encryption = hospitals * degree * (ERROR_BOUND + 0.5)
    transforms = 16 * math.log2(degree) * math.sqrt(degree) * largest * 2.0**-52
    return encryption + transforms


def capacity_of(degree: int, prime_bits: int, hospitals: int) -> CkksParameters:
    """Return the largest capacity at this degree and prime: what a summed word's magnitude may be.

    The scale is the smallest power of two with the noise below half a step. A coefficient is at most
    the largest slot, and must stay within ±q/2 with its own error.
    """
    check_security(degree, [prime_bits])
    q = primes(degree, [prime_bits])[0]
    largest = q / 2
    scale_bits = math.floor(math.log2(noise_bound(degree, hospitals, largest))) + 2
    room = largest - hospitals * (ERROR_BOUND + 0.5)
    return CkksParameters(degree, prime_bits, scale_bits, int(room / (_COMPLEX * 2.0**scale_bits)))


@lru_cache(maxsize=None)
def choose_parameters(
    *, hospitals: int, clip: float, precision: Optional[int], degree: Optional[int]
) -> Tuple[CkksParameters, int]:
    """Return the smallest degree, with its shortest prime, that carries the sum; and the precision.

    ``precision`` and ``degree`` None are derived. Raises ProtectionError where nothing secure fits.
    """
    degrees = DEGREES if degree is None else (degree,)
    for n in degrees:
        check_security(n, [])
    widest = [capacity_of(n, min(PRIME_BITS, MODULUS_BITS[n]), hospitals) for n in degrees]
    best = max(p.capacity for p in widest)
    scheme = "CKKS" if degree is None else f"CKKS at degree {degree}"
    if best < hospitals * clip:
        raise ProtectionError(
            f"{scheme} has no room for {hospitals} hospitals and clip {clip:g}: lower the clip"
        )
    bits = fit_precision(precision, hospitals=hospitals, clip=clip, capacity=best, scheme=scheme)
    needed = hospitals * math.ceil(clip * 2.0**bits)
    for n in degrees:
        for prime_bits in range(30, min(PRIME_BITS, MODULUS_BITS[n]) + 1):
            found = capacity_of(n, prime_bits, hospitals)
            if found.capacity >= needed:
                return found, bits
    raise AssertionError("fit_precision promised more than the widest prime holds")


class CkksPacking(Packing):
    """Integers in the real and imaginary parts of CKKS slots."""

    ntt_form = True

    def __init__(self, parameters: CkksParameters, fixed_point: FixedPointEncoder, by_layer: bool):
        self.parameters = parameters
        self.context = ckks_context(parameters.degree, [parameters.prime_bits])
        self._fixed_point = fixed_point
        self._by_layer = by_layer
        self._encoder = sealapi.CKKSEncoder(self.context)
        self.scale = 2.0**parameters.scale_bits

    def sizes(self, layout: Layout, agreement: str) -> List[int]:
        """Return how many integers each ciphertext holds; counts and trailer come last, together."""
        total = self._fixed_point.size(layout)
        if not self._by_layer:
            return _split(total, self.parameters.degree)
        values = [segment.size for segment in layout.segments if segment.kind != "count"]
        parts = values + ([total - sum(values)] if total > sum(values) else [])
        return [size for part in parts for size in _split(part, self.parameters.degree)]

    def encode(self, integers: np.ndarray, plaintext: object) -> None:
        """Put the integers' first half into real parts, the second into imaginary ones."""
        slots = np.zeros((2, self.parameters.degree // 2))
        slots.reshape(-1)[: len(integers)] = integers
        self._encoder.encode((slots[0] + 1j * slots[1]).tolist(), self.scale, plaintext)

    def decode(self, plaintext: object, count: int) -> np.ndarray:
        """Return the nearest integers: the error is below half by choice of the scale."""
        slots = np.array(self._encoder.decode_complex(plaintext))
        return np.rint(np.concatenate([slots.real, slots.imag])[:count]).astype(np.int64)

    def vector(self, integers: np.ndarray, layout: Layout, senders: int, agreement: str) -> Decoded:
        """Return what is decoded."""
        return self._fixed_point.decode(integers, layout, senders)


def _split(size: int, most: int) -> List[int]:
    return [min(most, size - start) for start in range(0, size, most)]

"""What people use today, re-implemented to be measured beside the package's own protections.

Each reference is a class with ``protect(vector) -> bytes``, ``combine(messages) -> bytes`` and
``open(combined) -> sum``; none has authentication, so their bytes are a lower bound.
"""

from __future__ import annotations

from typing import List

import msgpack
import numpy as np
import tenseal as ts

#: values per ciphertext in the published code
PUBLISHED_VALUES = 128


class TenSealCkks:
    """Public-key CKKS vectors through TenSEAL's own interface, as applications use it."""

    def __init__(self, degree: int, bits: List[int], scale_bits: int, values: int):
        self._context = ts.context(ts.SCHEME_TYPE.CKKS, degree, coeff_mod_bit_sizes=bits)
        self._context.global_scale = 2.0**scale_bits
        self._values = values

    def protect(self, vector: np.ndarray, hospital: int) -> bytes:
        """Encrypt ``values`` numbers to a ciphertext."""
        chunks = (vector[i : i + self._values] for i in range(0, len(vector), self._values))
        return msgpack.packb([ts.ckks_vector(self._context, c.tolist()).serialize() for c in chunks])

    def combine(self, messages: List[bytes]) -> bytes:
        """Add ciphertexts."""
        sums: List[ts.CKKSVector] = []
        for message in messages:
            loaded = [ts.ckks_vector_from(self._context, piece) for piece in msgpack.unpackb(message)]
            if sums:
                for total, vector in zip(sums, loaded):
                    total.add_(vector)
            else:
                sums = loaded
        return msgpack.packb([total.serialize() for total in sums])

    def open(self, combined: bytes) -> np.ndarray:
        """Decrypt."""
        parts = [ts.ckks_vector_from(self._context, p).decrypt() for p in msgpack.unpackb(combined)]
        return np.concatenate(parts)


def published(hospitals: int) -> TenSealCkks:
    """128 values per ciphertext, at the smallest degree that is secure with the published 160 bits."""
    return TenSealCkks(8192, [60, 40, 60], 40, PUBLISHED_VALUES)


def flare(hospitals: int) -> TenSealCkks:
    """NVIDIA FLARE's default HE context: degree 8192, chain [60, 40, 40], scale 2^40, full slots."""
    return TenSealCkks(8192, [60, 40, 40], 40, 4096)


class SecAggMask:
    """A SecAgg+-style mask: values quantised to 22 bits, one mask a pair and one of the hospital's own,
    from a Mersenne Twister with a 32-bit seed, modulo 2^32 in int64 words.

    Measured for its cost only: a 32-bit seed can be found by trying, so it hides nothing.
    """

    _MODULUS = 1 << 32
    _STEPS = 1 << 22
    _CLIP = 8.0

    def __init__(self, hospitals: int):
        self._hospitals = hospitals

    def protect(self, vector: np.ndarray, hospital: int) -> bytes:
        """Quantise and mask."""
        clipped = np.clip(vector.astype(np.float64), -self._CLIP, self._CLIP) + self._CLIP
        words = np.rint(clipped * (self._STEPS / (2 * self._CLIP))).astype(np.int64)
        words += self._mask(hospital, hospital, len(words))
        for other in range(self._hospitals):
            if other != hospital:
                sign = 1 if hospital < other else -1
                words += sign * self._mask(min(hospital, other), max(hospital, other), len(words))
        return (words % self._MODULUS).tobytes()

    def combine(self, messages: List[bytes]) -> bytes:
        """Add masked words; the masks of pairs cancel."""
        total = sum(np.frombuffer(message, np.int64) for message in messages)
        return (total % self._MODULUS).tobytes()

    def open(self, combined: bytes) -> np.ndarray:
        """Take off the hospitals' own masks."""
        words = np.frombuffer(combined, np.int64).copy()
        for hospital in range(self._hospitals):
            words -= self._mask(hospital, hospital, len(words))
        whole = words % self._MODULUS
        return whole * (2 * self._CLIP / self._STEPS) - self._hospitals * self._CLIP

    def _mask(self, a: int, b: int, size: int) -> np.ndarray:
        seed = (a * 7919 + b + 1) & 0xFFFFFFFF
        return np.random.RandomState(seed).randint(0, self._MODULUS, size, dtype=np.int64)

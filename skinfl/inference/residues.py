"""A ciphertext's numbers as a numpy array, and back: what SEAL's binding does not offer in one call.

A CKKS ciphertext is a list of polynomials, each given by its values modulo every prime of its level (in
number-theoretic form). Reading takes them one by one through SEAL's own indexing, about 20 ms for 80,000 of
them. Writing lays them out as SEAL's serialisation does, uncompressed, and lets SEAL load and check that.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from skinfl.inference.ckks import Ckks, read
from skinfl.protection.he import seal
from skinfl.protection.he.seal import sealapi

#: magic, size of this header, version, no compression, reserved, size with what follows
_HEADER = struct.Struct("<H B 2s B H Q")
#: parameter id, number-theoretic form, polynomials, degree, primes, scale, correction factor (1 in CKKS)
_MEMBERS = struct.Struct("<4Q ? Q Q Q d Q")
_LENGTH = struct.Struct("<Q")
_MAGIC = 0xA15E


def residues(ciphertext: Any) -> np.ndarray:
    """Return a ciphertext's values: uint64, shape (polynomials, primes, degree)."""
    shape = (ciphertext.size(), ciphertext.coeff_modulus_size(), ciphertext.poly_modulus_degree())
    count = shape[0] * shape[1] * shape[2]
    return np.fromiter(map(ciphertext.__getitem__, range(count)), np.uint64, count).reshape(shape)


def from_residues(values: np.ndarray, ckks: Ckks, level: int, scale: float) -> Any:
    """Return the ciphertext with these values, shape (polynomials, primes, degree), each below its prime.

    SEAL checks them against the level; raises :class:`~skinfl.errors.ProtectionError` where they do not fit.
    """
    polynomials, primes, degree = values.shape
    data = np.ascontiguousarray(values, dtype="<u8")
    # The version of the linked SEAL is taken from what it writes itself.
    version = seal.dump(sealapi.Plaintext())[3:5]

    def framed(content: bytes) -> bytes:
        size = _HEADER.size + len(content)
        return _HEADER.pack(_MAGIC, _HEADER.size, version, 0, 0, size) + content

    members = _MEMBERS.pack(*ckks.levels[level], True, polynomials, degree, primes, float(scale), 1)
    blob = framed(members + framed(_LENGTH.pack(data.size) + data.tobytes()))
    return read(sealapi.Ciphertext(), ckks.context, blob)

"""A ciphertext's numbers as a numpy array, and back: what SEAL's binding does not offer in one call.

A CKKS ciphertext is a list of polynomials, each given by its values modulo every prime of its level (in
number-theoretic form). Both ways go through SEAL's serialisation: reading takes the numbers out of what SEAL
writes, compressed, which is twice as fast as its indexing; writing lays them out uncompressed, and SEAL
loads and checks that.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import zstandard

from skinfl.errors import ProtectionError
from skinfl.inference.ckks import Ckks, read
from skinfl.protection.he import seal
from skinfl.protection.he.seal import sealapi

#: magic, size of this header, version, compression, reserved, size with what follows
_HEADER = struct.Struct("<H B 2s B H Q")
#: parameter id, number-theoretic form, polynomials, degree, primes, scale, correction factor (1 in CKKS)
_MEMBERS = struct.Struct("<4Q ? Q Q Q d Q")
_LENGTH = struct.Struct("<Q")
_MAGIC = 0xA15E
_UNCOMPRESSED, _ZSTANDARD = 0, 2
#: what precedes the numbers
_FRONT = _MEMBERS.size + _HEADER.size + _LENGTH.size


def residues(ciphertext: Any) -> np.ndarray:
    """Return a ciphertext's values: uint64, shape (polynomials, primes, degree), read-only.

    Raises :class:`~skinfl.errors.ProtectionError` where SEAL's serialisation is of another form.
    """
    shape = (ciphertext.size(), ciphertext.coeff_modulus_size(), ciphertext.poly_modulus_degree())
    content = _content(seal.dump(ciphertext))
    count = shape[0] * shape[1] * shape[2]
    if len(content) != _FRONT + 8 * count:
        raise ProtectionError("this build of SEAL serialises otherwise: take TenSEAL from its wheels")
    return np.frombuffer(content, "<u8", count, _FRONT).reshape(shape)


def _content(blob: bytes) -> bytes:
    """Return what follows SEAL's header, uncompressed; nothing where the header is of another form."""
    if len(blob) < _HEADER.size:
        return b""
    magic, start, _, compression, _, size = _HEADER.unpack_from(blob)
    if (magic, size) != (_MAGIC, len(blob)):
        return b""
    if compression == _ZSTANDARD:
        return zstandard.ZstdDecompressor().decompressobj().decompress(blob[start:])
    return blob[start:] if compression == _UNCOMPRESSED else b""


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
        return _HEADER.pack(_MAGIC, _HEADER.size, version, _UNCOMPRESSED, 0, size) + content

    members = _MEMBERS.pack(*ckks.levels[level], True, polynomials, degree, primes, float(scale), 1)
    blob = framed(members + framed(_LENGTH.pack(data.size) + data.tobytes()))
    return read(sealapi.Ciphertext(), ckks.context, blob)

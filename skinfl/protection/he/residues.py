"""A ciphertext's numbers in SEAL's serialisation: what its binding does not offer in one call.

A ciphertext is a list of polynomials, each given modulo every prime of its level: by its values in
number-theoretic form (CKKS), or by its coefficients (BFV). SEAL writes a header and, compressed, the
ciphertext's members and numbers. Of a ciphertext made with the secret key the second polynomial is uniform,
and the seed that it grows from stands in its place. Numbers are laid out for SEAL uncompressed, which checks
what it loads.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Any, List, NamedTuple, Sequence

import numpy as np
import zstandard

from skinfl.errors import ProtectionError
from skinfl.protection.he.seal import dump, load, sealapi

#: magic, size of this header, version, compression, reserved, size with what follows
_HEADER = struct.Struct("<H B 2s B H Q")
#: parameter id, number-theoretic form, polynomials, degree, primes, scale, correction factor (1 but in BGV)
_MEMBERS = struct.Struct("<4Q ? Q Q Q d Q")
_LENGTH = struct.Struct("<Q")
_MAGIC = 0xA15E
_UNCOMPRESSED, _ZSTANDARD = 0, 2
#: what precedes the numbers
_FRONT = _MEMBERS.size + _HEADER.size + _LENGTH.size
#: a seed: the generator's kind, and what it starts from
_SEED = 1 + 64


class Ring(NamedTuple):
    """Where a ciphertext's numbers live: ``primes`` uint64, shape (primes, 1), and the ``degree``."""

    primes: np.ndarray
    degree: int

    @classmethod
    def of(cls, context: Any) -> Ring:
        """Return that of fresh ciphertexts under a SEALContext."""
        parms = context.first_context_data().parms()
        primes = [prime.value() for prime in parms.coeff_modulus()]
        return cls(np.array(primes, np.uint64)[:, None], parms.poly_modulus_degree())


class Codec:
    """Fresh ciphertexts, and sums of them, as messages carry them: a number takes its prime's bytes.

    Scale and number-theoretic form are the scheme's. They do not travel, so nobody can send a ciphertext of
    another form, level or size. Serves one thread at a time.
    """

    def __init__(self, context: Any, *, ntt_form: bool, scale: float):
        self.ring = Ring.of(context)
        self._context = context
        self._ntt_form = ntt_form
        self._scale = scale
        self._widths = [-(-int(prime).bit_length() // 8) for prime in self.ring.primes[:, 0]]
        self._polynomial = self.ring.degree * sum(self._widths)
        self._decompressor = zstandard.ZstdDecompressor()

    def size(self, *, seeded: bool) -> int:
        """Return the length in bytes of a ciphertext's encoding."""
        return self._polynomial + (_SEED if seeded else self._polynomial)

    def encode(self, ciphertext: Any, mask: np.ndarray) -> bytes:
        """Return a SEAL ciphertext, seeded or not, with ``mask`` added to its first polynomial.

        ``mask``: uint64, shape (primes, degree), each at most 2^64 less its prime.
        """
        content = _content(dump(ciphertext), self._decompressor)
        shape = (len(self.ring.primes), self.ring.degree)
        count = shape[0] * shape[1]
        seeded = len(content) == _FRONT + 8 * count + _HEADER.size + _SEED
        if not seeded and len(content) != _FRONT + 16 * count:
            raise _unknown()
        (*_, ntt_form, polynomials, degree, number, _, _) = _MEMBERS.unpack_from(content)
        if (ntt_form, polynomials, degree, number) != (self._ntt_form, 2, self.ring.degree, shape[0]):
            raise _unknown()
        first = np.frombuffer(content, "<u8", count, _FRONT).reshape(shape) + mask
        first %= self.ring.primes
        parts = self._narrow(first)
        if seeded:
            parts.append(content[-_SEED:])
        else:
            parts += self._narrow(np.frombuffer(content, "<u8", count, _FRONT + 8 * count).reshape(shape))
        return b"".join(parts)

    def decode(self, piece: memoryview, *, seeded: bool) -> Any:
        """Return the SEAL ciphertext from ``size(seeded=seeded)`` bytes.

        Raises ValueError where a number is none of its prime's residues, or the seed is none.
        """
        polynomials = 1 if seeded else 2
        values = np.zeros((polynomials, len(self.ring.primes), self.ring.degree), "<u8")
        octets, start = values.view(np.uint8).reshape(*values.shape, 8), 0
        for polynomial in octets:
            for place, width in zip(polynomial, self._widths):
                count = self.ring.degree * width
                place[:, :width] = np.frombuffer(piece, np.uint8, count, start).reshape(-1, width)
                start += count
        blob = serialise(
            values,
            self._context.first_parms_id(),
            ntt_form=self._ntt_form,
            scale=self._scale,
            seed=bytes(piece[start:]),
        )
        return load(sealapi.Ciphertext(), self._context, blob)

    def _narrow(self, polynomial: np.ndarray) -> List[bytes]:
        octets = polynomial.view(np.uint8).reshape(*polynomial.shape, 8)
        return [row[:, :width].tobytes() for row, width in zip(octets, self._widths)]


def residues(ciphertext: Any) -> np.ndarray:
    """Return a ciphertext's values: uint64, shape (polynomials, primes, degree), read-only.

    Raises :class:`~skinfl.errors.ProtectionError` where SEAL's serialisation is of another form.
    """
    shape = (ciphertext.size(), ciphertext.coeff_modulus_size(), ciphertext.poly_modulus_degree())
    content = _content(dump(ciphertext), zstandard.ZstdDecompressor())
    count = shape[0] * shape[1] * shape[2]
    if len(content) != _FRONT + 8 * count:
        raise _unknown()
    return np.frombuffer(content, "<u8", count, _FRONT).reshape(shape)


def serialise(
    values: np.ndarray, level: Sequence[int], *, ntt_form: bool, scale: float, seed: bytes = b""
) -> bytes:
    """Return the ciphertext with these values as SEAL would write it, uncompressed.

    ``values``: shape (polynomials, primes, degree); with a ``seed`` the first polynomial of two. ``level`` is
    the id of its parameters.
    """
    polynomials, primes, degree = values.shape
    data = np.ascontiguousarray(values, dtype="<u8")
    size = 2 if seed else polynomials
    members = _MEMBERS.pack(*level, ntt_form, size, degree, primes, float(scale), 1)
    numbers = _frame(_LENGTH.pack(data.size) + data.tobytes())
    return _frame(members + numbers + (_frame(seed) if seed else b""))


def _frame(content: bytes) -> bytes:
    """Return ``content`` under SEAL's header."""
    size = _HEADER.size + len(content)
    return _HEADER.pack(_MAGIC, _HEADER.size, _version(), _UNCOMPRESSED, 0, size) + content


@lru_cache(maxsize=None)
def _version() -> bytes:
    """Return the linked SEAL's, from what it writes itself."""
    return dump(sealapi.Plaintext())[3:5]


def _content(blob: bytes, decompressor: zstandard.ZstdDecompressor) -> bytes:
    """Return what follows SEAL's header, uncompressed; nothing where the header is of another form."""
    if len(blob) < _HEADER.size:
        return b""
    magic, start, _, compression, _, size = _HEADER.unpack_from(blob)
    if (magic, size) != (_MAGIC, len(blob)):
        return b""
    if compression == _ZSTANDARD:
        return decompressor.decompressobj().decompress(blob[start:])
    return blob[start:] if compression == _UNCOMPRESSED else b""


def _unknown() -> ProtectionError:
    return ProtectionError("this build of SEAL serialises otherwise: take TenSEAL from its wheels")

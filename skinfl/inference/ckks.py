"""CKKS at the level of one circuit, for the clinic and the server: contexts, encoding, rotating.

SEAL's objects stay visible; this only fixes what every use here shares (context, evaluator, level
bookkeeping) and reads them safely from bytes that strangers sent.
"""

from __future__ import annotations

import struct
from typing import Any, List, NamedTuple, Sequence

import numpy as np

from skinfl.errors import ProtectionError
from skinfl.protection.he import seal
from skinfl.protection.he.seal import sealapi

#: SEAL's header: magic, its own size, version (2), compression, reserved, size of everything
_HEADER = struct.Struct("<HBBBBHQ")
_MAGIC = 0xA15E


def galois_element(step: int, degree: int) -> int:
    """Return the Galois element that rotates slots left by ``step``: 3^step mod 2 degree.

    SEAL's key generator takes elements; a list of steps would be taken for elements without a word.
    """
    return pow(3, step % (degree // 2), 2 * degree)


def read(thing: Any, context: Any, blob: bytes) -> Any:
    """Fill the empty SEAL object ``thing`` from bytes of unknown origin and return it.

    Raises :class:`~skinfl.errors.ProtectionError` for what is cut short, too long, of other parameters or
    no SEAL object. A few bytes can be compressed from billions: whoever reads a stranger's bytes limits the
    memory of the process that does it.
    """
    if len(blob) < _HEADER.size or _HEADER.unpack_from(blob)[:2] != (_MAGIC, _HEADER.size):
        raise ProtectionError("not a SEAL object")
    size = _HEADER.unpack_from(blob)[-1]
    if size != len(blob):
        raise ProtectionError(f"a SEAL object of {size} bytes came with {len(blob)}")
    try:
        return seal.load(thing, context, blob)
    except (ValueError, MemoryError) as error:
        raise ProtectionError(f"SEAL cannot read the object: {error}") from error


class Keys(NamedTuple):
    """What a server needs to rotate, conjugate and relinearise; it opens nothing."""

    galois: Any
    relin: Any


class Ckks:
    """A CKKS context of ``degree`` with primes of ``bits``; the last prime is for key switching only.

    Levels count from 0, all primes, upwards. Raises :class:`~skinfl.errors.ProtectionError` for
    parameters below 128 bits of security, or that SEAL does not take.
    """

    def __init__(self, degree: int, bits: Sequence[int]):
        self.degree = degree
        self.slots = degree // 2
        try:
            self.context = seal.ckks_context(degree, bits)
        except (RuntimeError, ValueError) as error:
            raise ProtectionError(f"SEAL refuses primes of {list(bits)} bits: {error}") from error
        self.evaluator = sealapi.Evaluator(self.context)
        self.encoder = sealapi.CKKSEncoder(self.context)
        #: primes of a fresh ciphertext; rescaling removes the last
        self.primes: List[int] = []
        self.levels: List[Any] = []
        data = self.context.first_context_data()
        self.primes = [prime.value() for prime in data.parms().coeff_modulus()]
        while data is not None:
            self.levels.append(data.parms_id())
            data = data.next_context_data()

    def encode(self, values: np.ndarray, level: int, scale: float) -> Any:
        """Encode one value for each slot, real or complex."""
        plain = sealapi.Plaintext()
        self.encoder.encode(np.asarray(values).tolist(), self.levels[level], float(scale), plain)
        return plain

    def rotate(self, ciphertext: Any, step: int, keys: Keys) -> Any:
        """Return the ciphertext with slots moved left by ``step``; step 0 returns it as it is."""
        step %= self.slots
        if step == 0:
            return ciphertext
        rotated = sealapi.Ciphertext()
        signed = step if step <= self.slots // 2 else step - self.slots
        self.evaluator.rotate_vector(ciphertext, signed, keys.galois, rotated)
        return rotated

    def conjugate(self, ciphertext: Any, keys: Keys) -> Any:
        """Return the ciphertext with slots conjugated."""
        conjugated = sealapi.Ciphertext()
        self.evaluator.complex_conjugate(ciphertext, keys.galois, conjugated)
        return conjugated

    def add_rotations(self, ciphertext: Any, steps: Sequence[int], keys: Keys) -> None:
        """Add the ciphertext rotated by each step in turn to itself, in place."""
        for step in steps:
            self.evaluator.add_inplace(ciphertext, self.rotate(ciphertext, step, keys))

    def add_constant(self, ciphertext: Any, plain: Any) -> None:
        """Add an encoded constant in place; the ciphertext's scale, equal but for rounding, becomes its."""
        ciphertext.scale = plain.scale
        self.evaluator.add_plain_inplace(ciphertext, plain)

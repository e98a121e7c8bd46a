"""Microsoft SEAL through TenSEAL's bindings: contexts, keys, and bytes in memory.

``tenseal.sealapi`` is used rather than TenSEAL's vectors, because only it gives seeded symmetric
ciphertexts (half the bytes: the uniform half is sent as a seed) and chains of one prime. Its objects
save to and load from paths only; a memory file serves as the path where the system has one.
"""

from __future__ import annotations

import atexit
import os
import tempfile
import threading
from typing import Any, BinaryIO, Sequence, Tuple

from skinfl.errors import ProtectionError, is_missing
from skinfl.protection.he.standard import check_security

try:
    from tenseal import sealapi
except ImportError as error:
    if not is_missing("tenseal", error):
        raise
    raise ProtectionError("homomorphic encryption needs TenSEAL: pip install tenseal") from error

#: bound on a fresh ciphertext's error, per coefficient: SEAL's centred binomial distribution has 42 coins
ERROR_BOUND = 21
#: a coefficient prime has at most this many bits
PRIME_BITS = 60


def ckks_context(degree: int, bits: Sequence[int]) -> Any:
    """Return a SEALContext for CKKS after checking its security."""
    return _context(sealapi.SCHEME_TYPE.CKKS, degree, bits, 0)


def bfv_context(degree: int, bits: Sequence[int], plain_modulus: int) -> Any:
    """Return a SEALContext for BFV after checking its security."""
    return _context(sealapi.SCHEME_TYPE.BFV, degree, bits, plain_modulus)


def primes(degree: int, bits: Sequence[int]) -> Sequence[int]:
    """Return the coefficient primes that SEAL takes for a chain of these sizes."""
    return [prime.value() for prime in sealapi.CoeffModulus.Create(degree, list(bits))]


def batching_prime(degree: int, bits: int) -> int:
    """Return the largest prime of ``bits`` bits that allows one value per slot in BFV."""
    return sealapi.PlainModulus.Batching(degree, bits).value()


def _context(scheme: Any, degree: int, bits: Sequence[int], plain_modulus: int) -> Any:
    check_security(degree, bits)
    parameters = sealapi.EncryptionParameters(scheme)
    parameters.set_poly_modulus_degree(degree)
    parameters.set_coeff_modulus(sealapi.CoeffModulus.Create(degree, list(bits)))
    if plain_modulus:
        parameters.set_plain_modulus(plain_modulus)
    context = sealapi.SEALContext(parameters, True, sealapi.SEC_LEVEL_TYPE.TC128)
    if not context.parameters_set():
        raise ProtectionError(f"SEAL refuses these parameters: {context.parameters_error_message()}")
    return context


class _MemoryFile(threading.local):
    """A file that SEAL can write and read by path, one per thread and process."""

    def __init__(self) -> None:
        self._process = -1
        self._file: Any = None
        self.path = ""

    def open(self) -> BinaryIO:
        """Return the file, empty and at its start."""
        if self._process != os.getpid():  # a forked child must not share its parent's file
            self._process = os.getpid()
            self._file, self.path = _create()
        self.clear()
        return self._file

    def clear(self) -> None:
        """Leave nothing behind, be it a key."""
        self._file.seek(0)
        self._file.truncate()


def _create() -> Tuple[BinaryIO, str]:
    """Return a file and a path to it: in memory, or else a temporary one that only its owner may read."""
    if hasattr(os, "memfd_create") and os.path.isdir("/proc/self/fd"):
        descriptor = os.memfd_create("skinfl")
        path = f"/proc/self/fd/{descriptor}"
    else:
        descriptor, path = tempfile.mkstemp(prefix="skinfl-")
        atexit.register(_remove, path, os.getpid())
    return os.fdopen(descriptor, "r+b", buffering=0), path


def _remove(path: str, process: int) -> None:
    """Remove a temporary file when the process that made it ends, not a child of it."""
    if os.getpid() == process:
        os.unlink(path)


_FILE = _MemoryFile()


def dump(thing: Any) -> bytes:
    """Return the bytes of a SEAL object; seeded ciphertexts stay seeded."""
    file = _FILE.open()
    try:
        thing.save(_FILE.path)
        return file.read()
    finally:
        _FILE.clear()


def load(thing: Any, context: Any, content: bytes) -> Any:
    """Fill the SEAL object ``thing`` from bytes and return it.

    Raises ValueError where they aren't a valid object of this context.
    """
    file = _FILE.open()
    view = memoryview(content)
    try:
        while view:
            view = view[file.write(view) :]
        thing.load(context, _FILE.path)
    except (RuntimeError, ValueError, IndexError) as error:
        raise ValueError(str(error)) from error
    finally:
        _FILE.clear()
    return thing

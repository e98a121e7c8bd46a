"""Uniform words from a 32-byte seed: AES-128 in counter mode.

The seed's first half is the key, the second half the first counter block, so that two seeds share a
stream only if all their 256 bits agree. A seed comes from the operating system and expands once.
"""

from __future__ import annotations

import os
from typing import Optional

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from skinfl.protection.encoder import BLOCK

SEED = 32
_ZEROS = bytes(8 * BLOCK)


def new_seed() -> bytes:
    """Return 32 bytes of the operating system's randomness."""
    return os.urandom(SEED)


def new_scratch(words: int = BLOCK) -> np.ndarray:
    """Return space for so many words of 8 bytes at a time, which several streams may share."""
    return np.empty(8 * words + 16, np.uint8)


class Stream:
    """The key stream of a seed, drawn in blocks so that memory stays flat.

    Streams that share ``scratch`` overwrite each other's words.
    """

    def __init__(self, seed: bytes, scratch: Optional[np.ndarray] = None):
        self._encryptor = Cipher(algorithms.AES(seed[:16]), modes.CTR(seed[16:])).encryptor()
        self._scratch = new_scratch() if scratch is None else scratch

    def words(self, count: int, dtype: np.dtype) -> np.ndarray:
        """Return the next ``count`` words (at most BLOCK), unsigned and uniform over ``dtype``.

        The array is overwritten by the next call.
        """
        length = count * np.dtype(dtype).itemsize
        self._encryptor.update_into(memoryview(_ZEROS)[:length], memoryview(self._scratch))
        return self._scratch[:length].view(dtype)

"""The words of an opened sum as bytes: what hospitals are told, and prove."""

from __future__ import annotations

from typing import Tuple

import numpy as np

DTYPES = ("<i4", "<i8", "<f4")


def encode_words(words: np.ndarray) -> Tuple[str, bytes]:
    """Return the shortest of :data:`DTYPES` that holds words, shape ``(n,)``, and their bytes."""
    if words.dtype.kind == "f":
        dtype = "<f4"
    else:
        small = not len(words) or max(int(words.max()), -int(words.min()) - 1) < 1 << 31
        dtype = "<i4" if small else "<i8"
    return dtype, np.ascontiguousarray(words, dtype).tobytes()


def decode_words(dtype: str, content: bytes) -> np.ndarray:
    """Return what :func:`encode_words` encoded, as int64 or float32.

    Raises :class:`ValueError` for another type, and for bytes that are not whole words.
    """
    if dtype not in DTYPES:
        raise ValueError("its words are of another type")
    return np.frombuffer(content, dtype).astype("f4" if dtype == "<f4" else "i8")

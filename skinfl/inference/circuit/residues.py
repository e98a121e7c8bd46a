"""A ciphertext from a numpy array of its numbers; the way back is in :mod:`skinfl.protection.he.residues`."""

from __future__ import annotations

from typing import Any

import numpy as np

from skinfl.inference.ckks import Ckks, read
from skinfl.protection.he.residues import serialise
from skinfl.protection.he.seal import sealapi


def from_residues(values: np.ndarray, ckks: Ckks, level: int, scale: float) -> Any:
    """Return the ciphertext with these values, shape (polynomials, primes, degree), each below its prime.

    SEAL checks them against the level; raises :class:`~skinfl.errors.ProtectionError` where they do not fit.
    """
    blob = serialise(values, ckks.levels[level], ntt_form=True, scale=scale)
    return read(sealapi.Ciphertext(), ckks.context, blob)

"""Checks of the options that several schemes share."""

from __future__ import annotations

import math
from typing import Optional, Sequence

import numpy as np

from skinfl.errors import SettingsError, nearest


def check_precision(precision: Optional[int]) -> Optional[int]:
    """Return the number of fractional bits, or refuse one that isn't a whole number from 0 to 52."""
    whole = isinstance(precision, int) and not isinstance(precision, bool)
    if precision is not None and not (whole and 0 <= precision <= 52):
        raise SettingsError(f"precision = {precision!r}: give 0 to 52 fractional bits")
    return precision


def check_clip(clip: float) -> float:
    """Return the clip range rounded to float32, so that float32 and float64 vectors clip alike."""
    number = isinstance(clip, (int, float)) and not isinstance(clip, bool)
    if not (number and math.isfinite(clip) and 1e-9 <= clip <= 1e9):
        raise SettingsError(f"clip = {clip!r}: give a positive number, 1e-9 to 1e9")
    return float(np.float32(clip))


def check_rounding(rounding: str, valid: Sequence[str]) -> str:
    """Return the rounding, or refuse one that the scheme doesn't have."""
    if rounding not in valid:
        raise SettingsError(f"rounding = {rounding!r}: {nearest(str(rounding), valid)}")
    return rounding

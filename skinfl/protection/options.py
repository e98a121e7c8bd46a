"""Checks of the options that several schemes share. The registry imports it: no numpy."""

from __future__ import annotations

import math
import struct
from typing import Any, Optional, Sequence, Tuple, Union, overload

from skinfl.errors import SettingsError, nearest

#: value of ``parties`` where hospitals are the parties themselves
HOSPITALS = "hospitals"
_MOST_PARTIES = 1000


def check_parties(parties: Any) -> Union[int, str]:
    """Return the number of aggregating parties or :data:`HOSPITALS`, or refuse anything else."""
    if parties == HOSPITALS:
        return HOSPITALS
    if isinstance(parties, int) and not isinstance(parties, bool) and 2 <= parties <= _MOST_PARTIES:
        return parties
    raise SettingsError(
        f"parties = {parties!r}: give 2 to {_MOST_PARTIES}, or '{HOSPITALS}'; one party alone sees everything"
    )


def party_names(parties: Union[int, str], hospitals: Sequence[str]) -> Tuple[str, ...]:
    """Return the parties' names: the hospitals' own, or ``party-1`` and so on."""
    if isinstance(parties, str):
        return tuple(hospitals)
    return tuple(f"party-{i + 1}" for i in range(parties))


@overload
def check_precision(precision: int) -> int: ...


@overload
def check_precision(precision: Optional[int]) -> Optional[int]: ...


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
    (rounded,) = struct.unpack("<f", struct.pack("<f", clip))
    return float(rounded)


def check_rounding(rounding: str, valid: Sequence[str]) -> str:
    """Return the rounding, or refuse one that the scheme doesn't have."""
    if rounding not in valid:
        raise SettingsError(f"rounding = {rounding!r}: {nearest(str(rounding), valid)}")
    return rounding

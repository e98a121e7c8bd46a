"""Protecting the same vector once more, for a cohort that has become smaller.

Under encryption, masks cancel in the sum of exactly one cohort (:mod:`skinfl.protection.he.masks`). Where a
hospital of it drops out, those that remain protect again what they protected, and never anything else.
"""

from __future__ import annotations

from typing import Dict, NamedTuple

import numpy as np

from skinfl.errors import ProtectionError
from skinfl.protection.base import Exchange, HospitalSide, Protected


class Contribution(NamedTuple):
    """A vector that was protected, in the unit of the sum; the side's state before; and for which sum."""

    vector: np.ndarray
    side: Dict[str, np.ndarray]
    exchange: Exchange


def protect_again(side: HospitalSide, last: Contribution, exchange: Exchange) -> Protected:
    """Protect a contribution once more; ``exchange`` is its own but for a smaller cohort and a later attempt.

    Raises :class:`~skinfl.errors.ProtectionError` for any other exchange, and for a cohort without this
    hospital. The last attempt itself may be repeated, where its messages were lost.
    """
    known = last.exchange
    if exchange._replace(cohort=known.cohort, attempt=known.attempt) != known:
        raise ProtectionError("asked to protect for another sum than the last: ask for the round anew")
    later = exchange.attempt > known.attempt or exchange == known
    if side.name not in exchange.cohort or not set(exchange.cohort) <= set(known.cohort) or not later:
        raise ProtectionError("asked to protect again for a cohort that is no smaller one with this hospital")
    side.load_state(last.side)
    return side.protect(last.vector, exchange)

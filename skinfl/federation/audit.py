"""Comparing the opened sum with the plaintext one: a check that only a simulation can make."""

from __future__ import annotations

from typing import Dict, Tuple

import numpy as np

from skinfl.errors import ProtectionError
from skinfl.protection.base import Opened


class Audit:
    """Sees what hospitals contribute before it is protected, and forgets it after each round."""

    def __init__(self) -> None:
        self._seen: Dict[Tuple[int, str], np.ndarray] = {}

    def __call__(self, hospital: str, round: int, contribution: np.ndarray) -> None:
        """Remember a contribution; hospitals call this just before they protect it."""
        self._seen[round, hospital] = contribution

    def difference(self, round: int, opened: Opened) -> float:
        """Return the largest absolute difference of the opened sum from the plaintext sum."""
        missing = [name for name in opened.senders if (round, name) not in self._seen]
        if missing:
            raise ProtectionError(f"round {round}: the sum names {missing[0]}, which contributed nothing")
        plain = np.sum([self._seen[round, name] for name in opened.senders], axis=0, dtype=np.float64)
        self._seen.clear()
        return float(np.abs(opened.total - plain).max())

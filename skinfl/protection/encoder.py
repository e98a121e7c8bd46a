"""What stands between a hospital's vector and the integers that are encrypted."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Dict, Iterator, Mapping, NamedTuple, Optional

import numpy as np

from skinfl.protection.base import Exchange
from skinfl.protection.encoding import FixedPointEncoding, Tally
from skinfl.protection.layout import Layout


class Decoded(NamedTuple):
    """A summed vector, and what hospitals agree on for the next round (None where nothing)."""

    vector: np.ndarray
    ranges: Optional[np.ndarray]


class Encoder(ABC):
    """How a hospital's vector becomes integers, with whatever the hospital keeps for that."""

    @abstractmethod
    def agreement(self, layout: Layout) -> str:
        """Return the digest of what the integers of this layout rest on; empty where on nothing."""

    @abstractmethod
    def blocks(self, vector: np.ndarray, exchange: Exchange, tally: Tally) -> Iterator[np.ndarray]:
        """Yield the vector's integers in order, int64, at most BLOCK at a time."""

    def set_ranges(self, ranges: np.ndarray) -> None:  # noqa: B027 - optional by design
        """Take over what the last sum says."""

    def state(self) -> Dict[str, np.ndarray]:
        """Return what a resumed run needs."""
        return {}

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:  # noqa: B027 - optional by design
        """Put back what :meth:`state` returned."""


class FixedPointEncoder(Encoder):
    """Fixed-point integers; needs no agreement and keeps no state."""

    def __init__(self, encoding: FixedPointEncoding):
        self._encoding = encoding

    def agreement(self, layout: Layout) -> str:
        """Nothing is agreed from round to round."""
        return ""

    def blocks(self, vector: np.ndarray, exchange: Exchange, tally: Tally) -> Iterator[np.ndarray]:
        """Yield the vector's fixed-point integers."""
        return self._encoding.blocks(vector, exchange.layout, np.dtype(np.int64), tally)

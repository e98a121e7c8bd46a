"""How a convolution's maps lie in the slots, the image in them packed by :mod:`skinfl.inference.packing`."""

from __future__ import annotations

import math
from typing import Dict, Tuple

import numpy as np

from skinfl.errors import ModelError
from skinfl.inference.circuit.network import Collapsed
from skinfl.inference.circuit.slots import SlotTerms


class MapLayout:
    """Where the maps of the first convolution lie in the slots: half of them in each half, grid by grid.

    ``positions`` is the slot of each value, shape (maps, side, side); ``copies`` the grids in a half.

    Raises :class:`~skinfl.errors.ModelError` for a convolution that cannot be laid out so.
    """

    def __init__(self, network: Collapsed, slots: int):
        self._conv = network.conv
        self._padding = network.padding
        self._half = slots // 2
        self._side = network.side
        self._grid = (network.image_size + 1) // 2
        maps = len(network.conv)
        self.copies = (maps + 1) // 2
        if network.stride != 2:
            raise ModelError(
                f"the first convolution has stride {network.stride}: encrypted inference is laid out for 2"
            )
        if self._side > self._grid:
            raise ModelError(
                "the first convolution enlarges its maps: encrypted inference needs less padding"
            )
        if self.copies * self._grid**2 > self._half:
            largest = 2 * math.isqrt(self._half // self.copies)
            raise ModelError(
                f"images of {network.image_size} pixels with {maps} maps do not fit {slots} slots: "
                f"use at most {largest} pixels"
            )
        channel, i, j = np.ogrid[:maps, : self._side, : self._side]
        self.positions = (
            channel // self.copies * self._half + channel % self.copies * self._grid**2 + i * self._grid + j
        )

    def spread(self, per_map: np.ndarray) -> np.ndarray:
        """Return one value for each map in all its slots, 0 elsewhere."""
        slots = np.zeros(2 * self._half)
        slots[self.positions] = per_map[:, None, None]
        return slots

    def terms(self) -> SlotTerms:
        """Return the convolution as a slot map; halved, for the real part is taken as z + conj(z)."""
        found: Dict[int, Dict[Tuple[int, int], np.ndarray]] = {}
        maps, channels, height, width = self._conv.shape
        for di in range(height):
            row, row_parity = divmod(di - self._padding, 2)
            rows = self._inside(row)
            for dj in range(width):
                column, column_parity = divmod(dj - self._padding, 2)
                columns = self._inside(column)
                for half in (0, 1):
                    members = slice(half * self.copies, min((half + 1) * self.copies, maps))
                    slots = self.positions[members][:, rows][:, :, columns]
                    giant = (row_parity != half) * self._half + row * self._grid
                    for channel in range(channels):
                        weights = self._conv[members, channel, di, dj] / 2
                        vector = found.setdefault(giant, {}).setdefault(
                            (channel, column), np.zeros(2 * self._half, complex)
                        )
                        # (re + i im)(w - i v) has the real part re w + im v.
                        vector[slots] += weights[:, None, None] * (-1j if column_parity else 1)
        return found

    def _inside(self, shift: int) -> np.ndarray:
        """Return the rows (or columns) of a map whose pixels, ``shift`` further, lie in the grid."""
        i = np.arange(self._side)
        return i[(i + shift >= 0) & (i + shift < self._grid)]

"""The eight ways to lay a square photograph down: a lesion has no upper side."""

from __future__ import annotations

import numpy as np

#: as a photograph is, mirrored, upside down, both, then on its sides: quarter turns, and 4 if mirrored
_ORDER = (0, 4, 2, 6, 1, 3, 5, 7)
VIEWS = len(_ORDER)


def turned(images: np.ndarray, view: int) -> np.ndarray:
    """Return square images (n, height, width, channels) in one of eight views; 0 leaves them.

    Mirror images come before quarter turns: where there are few views they differ most.
    """
    turns, mirrored = _ORDER[view] % 4, _ORDER[view] >= 4
    found = np.rot90(images, turns, axes=(1, 2))
    return np.ascontiguousarray(found[:, :, ::-1] if mirrored else found)

"""How a photograph becomes the square of pixels that a network is given: in training and at its use alike."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from skinfl.errors import DataError, nearest

#: how a frame becomes a square
FITS = ("squash", "crop", "pad")
COLOUR_CONSTANCIES = ("none", "shades-of-grey")
#: more than published photographs have
LARGEST = 4096


class Preparation(NamedTuple):
    """``image_size``: pixels per side. ``fit``: how the frame becomes a square: ``squash`` it, ``crop`` its
    middle, or ``pad`` it. ``colour_constancy``: ``none``, or ``shades-of-grey`` (Finlayson and Trezzi,
    *Shades of Gray and Colour Constancy*, 2004).
    """

    image_size: int
    fit: str = "squash"
    colour_constancy: str = "none"

    def check(self) -> Preparation:
        """Return it; raises :class:`~skinfl.errors.DataError` for a size or a word that means nothing."""
        size = self.image_size
        if not isinstance(size, (int, np.integer)) or isinstance(size, bool) or not 1 <= size <= LARGEST:
            raise DataError(
                f"image size {size!r} is impossible: give a number of pixels from 1 to {LARGEST}, e.g. 28"
            )
        for what, word, known in (
            ("fit", self.fit, FITS),
            ("colour constancy", self.colour_constancy, COLOUR_CONSTANCIES),
        ):
            if word not in known:
                raise DataError(f"unknown {what} {word!r}: {nearest(str(word), known)}")
        return self

    def __str__(self) -> str:
        constancy = "" if self.colour_constancy == "none" else f", {self.colour_constancy}"
        return f"{self.image_size} pixels, {self.fit}{constancy}"

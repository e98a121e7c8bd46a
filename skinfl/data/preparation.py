"""How a photograph becomes the square of pixels that a network is given: in training and at its use alike."""

from __future__ import annotations

from typing import NamedTuple


class Preparation(NamedTuple):
    """``image_size``: pixels per side. ``fit``: how the frame becomes a square: ``squash`` it, ``crop`` its
    middle, or ``pad`` it. ``colour_constancy``: ``none``, or ``shades-of-grey`` (Finlayson and Trezzi,
    *Shades of Gray and Colour Constancy*, 2004).
    """

    image_size: int
    fit: str = "squash"
    colour_constancy: str = "none"

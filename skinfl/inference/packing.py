"""How an image lies in the slots of a ciphertext: what a clinic encrypts and a server's circuit relies on.

A ciphertext has N/2 complex slots. A pixel of an even row goes into the first half of the slots, one of
an odd row into the second; of two neighbouring columns the even one is the real part, the odd one the
imaginary part. So a convolution of stride 2 moves whole grids of (image_size / 2)² pixels by at most one
row and one column. Each half repeats its grid once for every map it will hold.
"""

from __future__ import annotations

from typing import List

import numpy as np

from skinfl.inference.parameters import LatencySpec


def pack(image: np.ndarray, spec: LatencySpec) -> List[np.ndarray]:
    """Return the slots of a normalised image of shape (channels, image_size, image_size), by channel."""
    grid, half = (spec.image_size + 1) // 2, spec.degree // 4
    padded = np.zeros((spec.channels, 2 * grid, 2 * grid))
    padded[:, : spec.image_size, : spec.image_size] = image
    packed = []
    for pixels in padded:
        slots = np.zeros(2 * half, complex)
        for parity in (0, 1):
            values = pixels[parity::2, 0::2] + 1j * pixels[parity::2, 1::2]
            used = spec.copies * grid * grid
            slots[parity * half : parity * half + used] = np.tile(values.reshape(-1), spec.copies)
        packed.append(slots)
    return packed

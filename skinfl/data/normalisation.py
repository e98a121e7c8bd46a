"""From uint8 pixels to what a network takes, in numpy alone: a clinic's client does it without torch."""

from __future__ import annotations

from typing import NamedTuple, Tuple

import numpy as np

from skinfl.errors import DataError


class Normalisation(NamedTuple):
    """Mean and standard deviation of each channel, of pixels scaled to 0..1."""

    mean: Tuple[float, ...]
    std: Tuple[float, ...]


def normalise(images: np.ndarray, normalisation: Normalisation) -> np.ndarray:
    """Return uint8 images, shape (n, height, width, channels), normalised: float32, channels second.

    Floats, a trunk's features, are taken as they are and not scaled to 0..1.
    """
    channels = images.shape[3]
    if len(normalisation.mean) != channels:
        raise DataError(f"normalisation of {len(normalisation.mean)} channels for images of {channels}")
    if images.dtype.kind == "f":
        centre = np.asarray(normalisation.mean, dtype=np.float32)
        scaled = (images.astype(np.float32) - centre) / np.asarray(normalisation.std, dtype=np.float32)
        return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))
    # A table of all 256 values per channel: one look-up instead of a division for each pixel.
    levels = np.arange(256) / 255.0
    batch = np.empty((len(images), channels, *images.shape[1:3]), dtype=np.float32)
    for c, (mean, std) in enumerate(zip(normalisation.mean, normalisation.std)):
        batch[:, c] = ((levels - mean) / std).astype(np.float32)[images[..., c]]
    return batch

"""From image files to what the network was trained on; a clinic does this before it encrypts."""

from __future__ import annotations

from pathlib import Path
from typing import Sequence

import numpy as np

from skinfl.data.images import open_image, prepare
from skinfl.data.normalisation import Normalisation, normalise
from skinfl.data.preparation import Preparation
from skinfl.errors import DataError


def read_images(
    paths: Sequence[Path],
    *,
    channels: int,
    preparation: Preparation,
    mean: Sequence[float],
    std: Sequence[float],
) -> np.ndarray:
    """Return normalised images, float64, shape (n, channels, image_size, image_size).

    Files are prepared as training prepared them, and turned grey where the network has one channel. Raises
    :class:`~skinfl.errors.DataError` for a file that is missing, cut short or no image.
    """
    image_size = preparation.image_size
    pixels = np.empty((len(paths), image_size, image_size, channels), dtype=np.uint8)
    for i, path in enumerate(paths):
        if not Path(path).is_file():
            raise DataError(f"{path} does not exist: give the path of an image")
        image = prepare(open_image(Path(path)), preparation)
        pixels[i] = np.asarray(image.convert("L") if channels == 1 else image).reshape(pixels.shape[1:])
    return normalise(pixels, Normalisation(tuple(mean), tuple(std))).astype(np.float64)


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Return the softmax of logits, shape (n, classes)."""
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)

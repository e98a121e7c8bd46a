"""From uint8 images to batches: augmentation, normalisation, and statistics that can be added up.

Augmentation belongs to the training part only and is drawn anew each time a photograph is used. Its
randomness comes from Python's global generator: callers wrap it in :func:`skinfl.seeds.seeded`.
"""

from __future__ import annotations

import random
from typing import Callable, Optional

import numpy as np
import torch
from PIL import Image
from torchvision import transforms
from torchvision.transforms import functional

from skinfl.data.normalisation import Normalisation, normalise
from skinfl.data.rows import Images, blocks
from skinfl.errors import DataError

#: a channel that hardly varies would be blown up to noise by its true standard deviation
SMALLEST_STD = 0.01

# torchvision's name for bilinear since 0.9, Pillow's before.
_BILINEAR = getattr(transforms, "InterpolationMode", Image).BILINEAR

Augment = Callable[[Image.Image], Image.Image]


def augmentation(image_size: int) -> Augment:
    """Return a random transform of square PIL images: flips, a small turn, shift and zoom, light jitter.

    A dermoscopic photograph has no upper side, so both flips are as likely as not. Every second image
    is turned and every second one made lighter or darker, since the next epoch draws anew.
    """
    return _Augmentation(image_size)


class _Augmentation:
    """The transforms of :func:`augmentation`, with torchvision's functions and Python's generator.

    torchvision's own random classes draw from another generator in each version and spend more time on
    drawing than on a 28x28 image.
    """

    def __init__(self, image_size: int):
        self.image_size = image_size
        # A corner turned by 15 degrees, shifted and seen at 0.95 reaches 0.19 sizes beyond the edge.
        self.margin = image_size // 5 + 2
        # An index beyond the edge is reflected at it, the edge itself not repeated.
        i = np.abs(np.arange(-self.margin, image_size + self.margin))
        self._mirrored = np.clip(np.minimum(i, 2 * (image_size - 1) - i), 0, image_size - 1)

    def __call__(self, image: Image.Image) -> Image.Image:
        if image.size != (self.image_size, self.image_size):
            raise DataError(f"augmentation of {self.image_size} pixels for an image of {image.size}")
        if random.random() < 0.5:
            image = functional.hflip(image)
        if random.random() < 0.5:
            image = functional.vflip(image)
        if random.random() < 0.5:
            image = self._turned(image)
        if random.random() < 0.5:
            image = functional.adjust_brightness(image, random.uniform(0.85, 1.15))
            image = functional.adjust_contrast(image, random.uniform(0.85, 1.15))
        return image

    def _turned(self, image: Image.Image) -> Image.Image:
        """Turn by up to 15 degrees, shift by 4 %, zoom 0.95 to 1.1; mirrored margins fill corners."""
        shift = 0.04 * self.image_size
        angle, scale = random.uniform(-15, 15), random.uniform(0.95, 1.1)
        shifts = [random.uniform(-shift, shift), random.uniform(-shift, shift)]
        pixels = np.asarray(image).take(self._mirrored, axis=0).take(self._mirrored, axis=1)
        wide = functional.affine(Image.fromarray(pixels), angle, shifts, scale, [0.0, 0.0], _BILINEAR)
        end = self.margin + self.image_size
        return wide.crop((self.margin, self.margin, end, end))


def pixel_sums(images: Images) -> np.ndarray:
    """Return what a hospital adds to the common statistics: float64, shape (2 * channels + 1,).

    For uint8 images (n, height, width, channels), with x = pixel / 255: for each channel the sum over
    images of the mean of x, then likewise of x squared, last the number of images. Vectors of several
    hospitals add up, so only their protected sum has to be opened.
    """
    n, height, width, channels = images.shape
    first = np.zeros(channels)
    second = np.zeros(channels)
    levels = np.arange(256)
    for block in blocks(images):
        # How often each level occurs is a quarter of the work of summing pixels and squares, and as exact.
        counts = np.array([np.bincount(block[..., c].ravel(), minlength=256) for c in range(channels)])
        first += counts @ levels
        second += counts @ levels**2
    pixels = max(height * width, 1)
    return np.concatenate([first / (255.0 * pixels), second / (255.0**2 * pixels), [float(n)]])


def normalisation_from_sums(sums: np.ndarray) -> Normalisation:
    """Return the normalisation from the (sum of) :func:`pixel_sums`; refuses sums of no images."""
    sums = np.asarray(sums, dtype=np.float64)
    if sums.ndim != 1 or len(sums) % 2 != 1 or len(sums) < 3:
        raise DataError(f"pixel sums have shape {sums.shape}, not (2 * channels + 1,)")
    if not np.isfinite(sums).all() or sums[-1] <= 0:
        raise DataError("pixel sums are of no images, so there is nothing to normalise by")
    mean, square = np.split(sums[:-1] / sums[-1], 2)
    std = np.sqrt(np.maximum(square - mean**2, SMALLEST_STD**2))
    return Normalisation(tuple(mean.tolist()), tuple(std.tolist()))


def to_batch(
    images: np.ndarray, normalisation: Normalisation, augment: Optional[Augment] = None
) -> torch.Tensor:
    """Return uint8 images (n, h, w, c) as a normalised float32 tensor (n, c, h, w).

    ``augment`` is applied to each image in order before that.
    """
    if augment is not None:
        images = _augmented(images, augment)
    return torch.from_numpy(normalise(images, normalisation))


def _augmented(images: np.ndarray, augment: Augment) -> np.ndarray:
    result = np.empty_like(images)
    grey = images.shape[3] == 1
    for i, image in enumerate(images):
        pixels = np.asarray(augment(Image.fromarray(image[:, :, 0] if grey else image)))
        result[i] = pixels[:, :, None] if grey else pixels
    return result

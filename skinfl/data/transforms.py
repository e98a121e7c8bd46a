"""From pixels to batches on the device that trains: augmentation, normalisation, sums that add up.

Augmentation belongs to the training part only and is drawn anew each time a photograph is used, from a
generator that the caller seeds; torch's and Python's own are left alone.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Optional, Tuple

import numpy as np
import torch
from torch.nn import functional

from skinfl.data.normalisation import Normalisation
from skinfl.data.rows import Images, blocks
from skinfl.devices import image_layout
from skinfl.errors import DataError

#: a channel that hardly varies would be blown up to noise by its true standard deviation
SMALLEST_STD = 0.01
#: features beyond this count as this in their statistics, so that their squares fit a protected count
LARGEST_FEATURE = 1024.0

#: what the eye takes for brightness, of red, green and blue (ITU-R BT.601)
_LUMINANCE = np.array([0.299, 0.587, 0.114])
_CPU = torch.device("cpu")


class Augmentation(NamedTuple):
    """Random changes to photographs: flips, a small turn, shift and zoom, light and colour, a hidden square.

    A dermoscopic photograph has no upper side, so both flips are as likely as not. Every second image is
    turned and every second one recoloured, since the next epoch draws anew.

    Of the changes at ``strength`` one: turns of up to 15 degrees, shifts of 4 % of the image, zooms from
    0.95 to 1.1; brightness, contrast and saturation between 0.85 and 1.15, hue by 0.02 of a turn. Strength
    scales all these ranges; at 0 only flips are left. ``cutout``: side of a square, as a share of the
    image's, that is hidden in every second image (DeVries and Taylor, *Improved Regularization of
    Convolutional Neural Networks with Cutout*, 2017); 0 hides none.
    """

    strength: float = 1.0
    cutout: float = 0.0

    def draw(self, images: int, rng: np.random.Generator) -> np.ndarray:
        """Return what is drawn for so many images: float64 in 0..1, shape (images, :data:`DRAWS`).

        Always as many numbers and in the same order, so that neither strength nor cutout shifts the rest.
        """
        return rng.random((images, DRAWS))

    def __call__(self, images: torch.Tensor, drawn: np.ndarray, fill: Tuple[float, ...]) -> torch.Tensor:
        """Return changed images; those given may be overwritten.

        ``images``: float32 in 0..1, shape (n, channels, height, width), on any device. ``drawn``: their rows
        of :meth:`draw`. ``fill``: the colour of hidden squares, by channel. An image is changed by its own
        numbers only, whatever the others of its batch.
        """
        drawn = drawn.T
        across, down = drawn[:2] < 0.5
        for which, axes in ((across & ~down, [3]), (down & ~across, [2]), (across & down, [2, 3])):
            rows = _rows(which, images)
            images.index_copy_(0, rows, images.index_select(0, rows).flip(axes))
        if self.strength:
            images = self._turned(images, drawn[2:7])
            images = self._recoloured(images, drawn[7:12])
        return self._cut(images, drawn[12:15], fill) if self.cutout else images

    def _turned(self, images: torch.Tensor, drawn: np.ndarray) -> torch.Tensor:
        """Turn, shift and zoom those that are chosen; beyond the edge lies the image's mirror image."""
        chosen = drawn[0] < 0.5
        if not chosen.any():
            return images
        angle, zoom, *shifts = (2 * drawn[1:, chosen] - 1) * self.strength
        zoom = 1 + 0.025 * self.strength + 0.075 * zoom
        matrices = turning(np.radians(15 * angle), zoom, 0.08 * np.stack(shifts), tuple(images.shape[2:]))
        rows = _rows(chosen, images)
        return images.index_copy_(0, rows, transformed(images.index_select(0, rows), matrices))

    def _recoloured(self, images: torch.Tensor, drawn: np.ndarray) -> torch.Tensor:
        """Apply one colour matrix to each image: the identity to those that are not chosen."""
        change = np.where(drawn[0] < 0.5, (2 * drawn[1:] - 1) * self.strength, 0.0)
        brightness, contrast, saturation = np.maximum(1 + 0.15 * change[:3], 0.0)
        channels = images.shape[1]
        luminance = _LUMINANCE if channels == 3 else np.full(channels, 1 / channels)
        matrices = np.tile(np.eye(channels), (images.shape[0], 1, 1))
        if channels == 3:
            matrices = colours(saturation, 2 * math.pi * 0.02 * change[3])
        matrices *= (brightness * contrast)[:, None, None]
        flat = images.flatten(2)
        # contrast is around the image's own mean grey, as the eye adapts to it
        grey = flat.mean(dim=2) @ _tensor(luminance, images)
        offset = _tensor((1 - contrast) * brightness, images) * grey
        recoloured = torch.baddbmm(
            offset.reshape(-1, 1, 1).expand(-1, channels, 1), _tensor(matrices, images), flat
        )
        return recoloured.clamp_(0, 1).reshape(images.shape)

    def _cut(self, images: torch.Tensor, drawn: np.ndarray, fill: Tuple[float, ...]) -> torch.Tensor:
        """Hide a square in those that are chosen; its centre is anywhere, so that it may reach the edge."""
        hidden = torch.ones(1, dtype=torch.bool, device=images.device)
        for length, centre, axis in zip(images.shape[2:], drawn[1:], (2, 3)):
            shape = [1, 1, 1, 1]
            shape[axis] = length
            places = (torch.arange(length, device=images.device, dtype=images.dtype) + 0.5).reshape(shape)
            centres = _tensor(np.where(drawn[0] < 0.5, centre, math.inf) * length, images)
            hidden = hidden & ((places - centres.reshape(-1, 1, 1, 1)).abs() < self.cutout * length / 2)
        return torch.where(hidden, _tensor(np.array(fill), images).reshape(1, -1, 1, 1), images)


#: numbers that are drawn for an image
DRAWS = 15


def transformed(images: torch.Tensor, matrices: np.ndarray) -> torch.Tensor:
    """Return images seen through affine ``matrices`` of :func:`turning`, mirrored beyond their edges."""
    height, width = images.shape[2:]
    y, x = np.meshgrid(*((2 * np.arange(n) + 1) / n - 1 for n in (height, width)), indexing="ij")
    places = _tensor(np.stack([x.ravel(), y.ravel(), np.ones(x.size)]), images)
    # torch's affine_grid gives the same and takes seven times as long
    grid = torch.matmul(_tensor(matrices, images), places).reshape(-1, 2, height, width)
    return functional.grid_sample(
        images, grid.permute(0, 2, 3, 1), padding_mode="reflection", align_corners=False
    )


def turning(
    angle: np.ndarray, zoom: np.ndarray, shift: np.ndarray, size: Tuple[int, ...] = (1, 1)
) -> np.ndarray:
    """Return affine matrices from places in the output to places in the input: float32, shape (n, 2, 3).

    Places are (x, y) from -1 at one edge of an image to 1 at the other, as torch's ``affine_grid`` has them.

    ``angle``: in radians, shape (n,). ``zoom``: above one, the image appears larger. ``shift``: shape (2, n),
    in halves of the image, x first. ``size``: height and width, for images that are not square.
    """
    cos, sin = np.cos(angle) / zoom, np.sin(angle) / zoom
    height, width = size
    rows = [[cos, -sin * height / width, shift[0]], [sin * width / height, cos, shift[1]]]
    return np.ascontiguousarray(np.moveaxis(np.array(rows), 2, 0), dtype=np.float32)


def colours(saturation: np.ndarray, hue: np.ndarray) -> np.ndarray:
    """Return matrices on (red, green, blue): float64, shape (n, 3, 3).

    ``saturation``: a factor; 0 leaves the luminance, 1 all as it is. ``hue``: a turn around the axis of
    greys, in radians. Both of shape (n,).
    """
    cos, sin = np.cos(hue)[:, None, None], np.sin(hue)[:, None, None]
    across = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)
    turned = cos * np.eye(3) + (1 - cos) / 3 * np.ones((3, 3)) + sin * across
    factor = saturation[:, None, None]
    return (factor * np.eye(3) + (1 - factor) * _LUMINANCE[None, None, :]) @ turned


def pixel_sums(images: Images) -> np.ndarray:
    """Return what a hospital adds to the common statistics: float64, shape (2 * channels + 1,).

    For uint8 images (n, height, width, channels), with x = pixel / 255: for each channel the sum over
    images of the mean of x, then likewise of x squared, last the number of images. Vectors of several
    hospitals add up, so only their protected sum has to be opened. Of float images, a trunk's features, x is
    the value itself, within ±:data:`LARGEST_FEATURE`.
    """
    n, height, width, channels = images.shape
    first = np.zeros(channels)
    second = np.zeros(channels)
    if images.dtype.kind == "f":
        for block in blocks(images):
            part = np.clip(block, -LARGEST_FEATURE, LARGEST_FEATURE).astype(np.float64)
            first += part.mean(axis=(1, 2)).sum(axis=0)
            second += (part * part).mean(axis=(1, 2)).sum(axis=0)
        return np.concatenate([first, second, [float(n)]])
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
    images: np.ndarray,
    normalisation: Normalisation,
    augmentation: Optional[Augmentation] = None,
    drawn: Optional[np.ndarray] = None,
    *,
    device: torch.device = _CPU,
) -> torch.Tensor:
    """Return uint8 images (n, h, w, c) as a normalised float32 tensor (n, c, h, w) on ``device``.

    They travel there as they are, a byte a value, and are changed there by ``augmentation`` with what was
    ``drawn`` for them. Without one the result is :func:`skinfl.data.normalisation.normalise`'s but for
    rounding in float32. Its layout in memory is :func:`skinfl.devices.image_layout`'s.

    Raises :class:`~skinfl.errors.DataError` for a normalisation of other channels.
    """
    channels = images.shape[3]
    if len(normalisation.mean) != channels:
        raise DataError(f"normalisation of {len(normalisation.mean)} channels for images of {channels}")
    pixels = torch.from_numpy(np.ascontiguousarray(images)).to(device)
    batch = pixels.permute(0, 3, 1, 2).contiguous().to(torch.float32)
    if images.dtype == np.uint8:
        batch = batch.div_(255)
    if augmentation is not None and drawn is not None and len(images):
        batch = augmentation(batch, drawn, normalisation.mean)
    mean, std = (_tensor(np.array(each), batch).reshape(1, -1, 1, 1) for each in normalisation)
    return batch.sub_(mean).div_(std).contiguous(memory_format=image_layout(device))


def _rows(chosen: np.ndarray, images: torch.Tensor) -> torch.Tensor:
    """Return the places of the chosen images as indices on the images' device."""
    return torch.from_numpy(np.flatnonzero(chosen)).to(images.device)


def _tensor(values: np.ndarray, like: torch.Tensor) -> torch.Tensor:
    """Return values as float32 on the device of ``like``."""
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32)).to(like.device)

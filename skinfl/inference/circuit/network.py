"""The network that is evaluated under encryption: three linear maps, squares between them."""

from __future__ import annotations

from typing import NamedTuple, Tuple

import numpy as np


class Collapsed(NamedTuple):
    """``logits = output @ (hidden @ (conv * image + conv_bias)² + hidden_bias)² + output_bias``, all float64.

    Attributes
    ----------
    conv: shape (maps, channels, height, width), applied with ``stride`` and ``padding`` in both directions.
    conv_bias: shape (maps,).
    hidden: shape (units, maps x side x side), the maps' values in torch's order.
    hidden_bias: shape (units,).
    output: shape (classes, units).
    output_bias: shape (classes,).
    image_size: pixels on a side.
    stride, padding: of the convolution.
    """

    conv: np.ndarray
    conv_bias: np.ndarray
    hidden: np.ndarray
    hidden_bias: np.ndarray
    output: np.ndarray
    output_bias: np.ndarray
    image_size: int
    stride: int
    padding: int

    @property
    def channels(self) -> int:
        """Colour channels of an image."""
        return self.conv.shape[1]

    @property
    def classes(self) -> int:
        """Number of logits."""
        return len(self.output)

    @property
    def side(self) -> int:
        """Height and width of a map that leaves the convolution."""
        return (self.image_size + 2 * self.padding - self.conv.shape[2]) // self.stride + 1

    def forward(self, images: np.ndarray) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return what is squared first, what is squared second, and the logits.

        ``images`` has shape (n, channels, image_size, image_size); the results have shapes
        (n, maps x side x side), (n, units) and (n, classes).
        """
        p = self.padding
        padded = np.pad(np.asarray(images, dtype=np.float64), ((0, 0), (0, 0), (p, p), (p, p)), "constant")
        n, channels = padded.shape[:2]
        image_step, channel_step, row_step, column_step = padded.strides
        patches = np.lib.stride_tricks.as_strided(
            padded,
            (n, self.side, self.side, channels, *self.conv.shape[2:]),
            (
                image_step,
                self.stride * row_step,
                self.stride * column_step,
                channel_step,
                row_step,
                column_step,
            ),
            writeable=False,
        )
        maps = np.tensordot(patches, self.conv, axes=((3, 4, 5), (1, 2, 3))) + self.conv_bias
        first = maps.transpose(0, 3, 1, 2).reshape(n, -1)
        second = first**2 @ self.hidden.T + self.hidden_bias
        return first, second, second**2 @ self.output.T + self.output_bias

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Return the logits of ``images``, shape (n, classes)."""
        return self.forward(images)[2]


class Bounds(NamedTuple):
    """The magnitudes that room is left for: what is squared second, and the logits."""

    second: float
    logits: float

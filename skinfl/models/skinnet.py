"""The paper's network: two convolutions, two linear layers, quadratic activations."""

from __future__ import annotations

import logging
from typing import Type, Union

import torch
from torch import nn

from skinfl.errors import ModelError
from skinfl.models.activation import QuadraticActivation
from skinfl.models.doconv import DOConv2d

log = logging.getLogger(__name__)

CONV1_MAPS = 20
CONV2_MAPS = 50
HIDDEN = 100
KERNEL = 5
MIN_IMAGE_SIZE = 8


def _pooled(size: int) -> int:
    return (size - 1) // 2 + 1


class SkinNet(nn.Module):
    """The network that the paper trains under encryption, for square images of any size from 8 pixels.

    ========== ==================================== ==================
    layer                                            28x28 grey image
    ========== ==================================== ==================
    conv1      20 maps 5x5, stride 2, padding 1      20 x 13 x 13
    activation 0.125 x² + 0.5 x + 0.25
    pool       mean of 3x3, stride 2, padding 1      20 x 7 x 7
    conv2      50 maps 5x5                           50 x 3 x 3
    pool       mean of 3x3, stride 2, padding 1      50 x 2 x 2
    hidden     linear                                100
    activation 0.125 x² + 0.5 x + 0.25
    output     linear                                classes
    ========== ==================================== ==================

    Everything between the two activations is linear, which is what encrypted inference lives on.
    Images below 19 pixels leave conv2 a map smaller than its kernel; it is then padded by 2, which a log
    line says and ``conv2.padding`` shows.

    ``doconv`` makes both convolutions :class:`~skinfl.models.doconv.DOConv2d`.

    Raises :class:`~skinfl.errors.ModelError` for sizes or counts that cannot be.
    """

    def __init__(self, in_channels: int = 1, image_size: int = 28, classes: int = 7, doconv: bool = True):
        super().__init__()
        if in_channels < 1:
            raise ModelError(f"{in_channels} input channels: a network needs at least one")
        if image_size < MIN_IMAGE_SIZE:
            raise ModelError(f"images of {image_size} pixels are too small: use {MIN_IMAGE_SIZE} or more")
        if classes < 2:
            raise ModelError(f"{classes} classes: a classifier needs at least two")
        conv: Union[Type[DOConv2d], Type[nn.Conv2d]] = DOConv2d if doconv else nn.Conv2d
        before_conv2 = _pooled((image_size + 2 - KERNEL) // 2 + 1)
        padding = 2 if before_conv2 < KERNEL else 0
        if padding:
            log.info(
                "images of %d pixels leave %dx%d maps before conv2: padded by 2",
                image_size,
                before_conv2,
                before_conv2,
            )
        side = _pooled(before_conv2 + 2 * padding - KERNEL + 1)
        self.in_channels = in_channels
        self.image_size = image_size
        self.classes = classes
        self.conv1 = conv(in_channels, CONV1_MAPS, KERNEL, stride=2, padding=1)
        self.conv2 = conv(CONV1_MAPS, CONV2_MAPS, KERNEL, padding=padding)
        self.pool = nn.AvgPool2d(3, stride=2, padding=1)
        self.activation = QuadraticActivation()
        self.hidden = nn.Linear(CONV2_MAPS * side * side, HIDDEN)
        self.output = nn.Linear(HIDDEN, classes)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights; a square grows faster than any linear layer shrinks, so they are drawn small.

        Zero-mean weights of variance 1 / fan-in keep the second moment of their input, whatever its
        correlations. With inputs normalised to variance 1, what enters the first activation then has
        variance 1, where the slope 0.5 + x/4 lies within 0 and 1 for all but 5% of values; it leaves with
        second moment 0.42 = 0.125² 3 + 0.25 + 0.25² + 2 (0.125)(0.25), and the pools only shrink it. The
        usual gain of sqrt(2) for ReLU would drive the slope above 1, and squares feed on that. The output
        layer starts at a tenth, so that the first steps see an even guess and small gradients.
        """
        for layer, gain in ((self.conv1, 1.0), (self.conv2, 1.0), (self.hidden, 1.0), (self.output, 0.1)):
            layer.reset_parameters()
            weight = layer.W if isinstance(layer, DOConv2d) else layer.weight
            outputs = weight.shape[0]
            fan_in = weight.numel() // outputs
            if isinstance(layer, DOConv2d):
                fan_in = fan_in // layer.d_mul * KERNEL * KERNEL
            nn.init.normal_(weight, std=gain * fan_in**-0.5)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits, shape (n, classes), for images of shape (n, in_channels, image_size, image_size)."""
        x = self.activation(self.conv1(images))
        x = self.pool(self.conv2(self.pool(x)))
        x = self.activation(self.hidden(torch.flatten(x, 1)))
        return self.output(x)

"""EfficientNet-Lite0: a network small enough to learn on a hospital's processor, that has learned to see.

Tan and Le, *EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks*, 2019
(arXiv:1905.11946), in the "lite" form that its authors published for telephones: no squeeze-and-excitation,
ReLU6 for swish, and a stem and a head of fixed width. Written here from that description; weights of the
published network fit (:mod:`skinfl.models.pretrained`).
"""

from __future__ import annotations

from typing import List, NamedTuple, Tuple

import torch
from torch import nn

from skinfl.errors import ModelError

#: the last stages see a thirty-second of a side: below this nothing is left to look at
MIN_IMAGE_SIZE = 16
STEM, HEAD = 32, 1280
DROPOUT = 0.2


class Stage(NamedTuple):
    """``blocks`` blocks of ``width`` channels; the first one has the stride and takes the width before."""

    blocks: int
    kernel: int
    stride: int
    expansion: int
    width: int


STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)


class ConvNorm(nn.Module):
    """A convolution without bias, batch normalisation, and ReLU6 where it is ``active``.

    It is padded as TensorFlow's "SAME" is for maps of ``size`` pixels a side: where the sum of both sides
    is odd, one more at the right and the bottom.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        size: int,
        stride: int = 1,
        groups: int = 1,
        active: bool = True,
    ):
        super().__init__()
        total = max((same(size, stride) - 1) * stride + kernel - size, 0)
        before, after = total // 2, total - total // 2
        self.pad = nn.Identity() if before == after else nn.ZeroPad2d((before, after, before, after))
        self.conv = nn.Conv2d(
            in_channels,
            out_channels,
            kernel,
            stride=stride,
            padding=before if before == after else 0,
            groups=groups,
            bias=False,
        )
        self.norm = nn.BatchNorm2d(out_channels, eps=1e-3, momentum=0.01)
        self.activation = nn.ReLU6(inplace=True) if active else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the maps, shape (n, out_channels, height, width)."""
        return self.activation(self.norm(self.conv(self.pad(x))))


def same(size: int, stride: int) -> int:
    """Return the side of a map after "SAME" padding and a stride."""
    return -(-size // stride)


class Block(nn.Module):
    """Inverted bottleneck (Sandler et al., *MobileNetV2*, 2018): widen, filter each channel, narrow, add."""

    def __init__(self, width_in: int, width: int, expansion: int, kernel: int, stride: int, size: int):
        super().__init__()
        wide = width_in * expansion
        self.expand = nn.Identity() if expansion == 1 else ConvNorm(width_in, wide, 1, size)
        self.depthwise = ConvNorm(wide, wide, kernel, size, stride=stride, groups=wide)
        self.project = ConvNorm(wide, width, 1, same(size, stride), active=False)
        self.residual = stride == 1 and width_in == width

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the maps, shape (n, width, height, width in pixels)."""
        y = self.project(self.depthwise(self.expand(x)))
        return x + y if self.residual else y


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0 for square images of ``image_size`` pixels, at least 16.

    ========== =============================================== ==============
    part                                                        at 224 pixels
    ========== =============================================== ==============
    stem       3x3, stride 2                                    32 x 112 x 112
    stages     1, 2, 2, 3, 3, 4, 1 inverted bottlenecks         320 x 7 x 7
    head       1x1                                              1280 x 7 x 7
    classifier mean over the map, dropout, linear               classes
    ========== =============================================== ==============

    The published training's stochastic depth is left out. Raises :class:`~skinfl.errors.ModelError` for sizes
    or counts that cannot be.
    """

    def __init__(self, in_channels: int = 3, image_size: int = 224, classes: int = 1000):
        super().__init__()
        if in_channels < 1 or classes < 2:
            raise ModelError(f"{in_channels} channels, {classes} classes: at least 1 and 2 are needed")
        if image_size < MIN_IMAGE_SIZE:
            raise ModelError(
                f"efficientnet_lite0 needs images of at least {MIN_IMAGE_SIZE} pixels, not {image_size}: "
                "raise --image-size"
            )
        self.in_channels = in_channels
        self.image_size = image_size
        self.stem = ConvNorm(in_channels, STEM, 3, image_size, stride=2)
        size, width = same(image_size, 2), STEM
        stages: List[nn.Module] = []
        for stage in STAGES:
            blocks = []
            for i in range(stage.blocks):
                stride = stage.stride if i == 0 else 1
                blocks.append(Block(width, stage.width, stage.expansion, stage.kernel, stride, size))
                size, width = same(size, stride), stage.width
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.Sequential(*stages)
        self.head = ConvNorm(width, HEAD, 1, size)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.dropout = nn.Dropout(DROPOUT)
        self.classifier = nn.Linear(HEAD, classes)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights as the paper's code does, by the outputs of an input, but the classifier.

        That rule reckons with 1,000 classes. With seven it would draw weights eleven times as large, and the
        first steps would spoil a pretrained trunk to get rid of a loss of seven; it starts at an even guess.
        """
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                height, width = module.kernel_size
                fan_out = height * width * module.out_channels // module.groups
                nn.init.normal_(module.weight, std=(2.0 / fan_out) ** 0.5)
        nn.init.normal_(self.classifier.weight, std=1e-3)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits, shape (n, classes), for images of shape (n, in_channels, image_size, image_size)."""
        x = self.head(self.stages(self.stem(images)))
        return self.classifier(self.dropout(self.flatten(self.pool(x))))


def block_names() -> List[Tuple[int, int, bool]]:
    """Return stage, place in it, and whether it widens, of each block: for names of published weights."""
    return [(s, i, stage.expansion != 1) for s, stage in enumerate(STAGES) for i in range(stage.blocks)]

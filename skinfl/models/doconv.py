"""Depthwise over-parameterised convolution (DO-Conv).

Cao et al., "DO-Conv: Depthwise Over-parameterized Convolutional Layer", 2020, arXiv:2006.12030,
section 3. A convolution's kernel is the product of two trained tensors, a conventional one ``W`` and a
depthwise one ``D``; once trained, the product is one ordinary kernel, so that inference costs nothing more.
"""

from __future__ import annotations

import copy
from typing import Any, Optional, Tuple, Type, Union

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.modules.utils import _pair

from skinfl.errors import ModelError

PADDING_MODES = ("zeros", "reflect", "replicate", "circular")


def _resolve_padding(
    padding: Union[int, Tuple[int, int], str],
    kernel: Tuple[int, int],
    stride: Tuple[int, int],
    dilation: Tuple[int, int],
) -> Tuple[int, int]:
    if not isinstance(padding, str):
        return _pair(padding)
    if padding == "valid":
        return (0, 0)
    if padding != "same":
        raise ModelError(f"padding {padding!r} is unknown: give a number, a pair, 'same' or 'valid'")
    if stride != (1, 1):
        raise ModelError(f"padding 'same' needs stride 1, not {stride}: give the padding as numbers")
    total = [d * (k - 1) for d, k in zip(dilation, kernel)]
    if any(t % 2 for t in total):
        raise ModelError(
            f"padding 'same' of a {kernel[0]}x{kernel[1]} kernel with dilation {dilation} would be one more "
            "on one side than on the other, which old versions of torch cannot do: use an odd kernel"
        )
    return (total[0] // 2, total[1] // 2)


def _convolve(
    images: torch.Tensor,
    kernel: torch.Tensor,
    bias: Optional[torch.Tensor],
    geometry: Union[DOConv2d, nn.Conv2d],
) -> torch.Tensor:
    """Convolve with the stride, padding, dilation and groups of ``geometry``."""
    padding = geometry.padding
    if geometry.padding_mode != "zeros" and padding != (0, 0) and not isinstance(padding, str):
        rows, columns = padding
        images = F.pad(images, (columns, columns, rows, rows), mode=geometry.padding_mode)
        padding = (0, 0)
    return F.conv2d(images, kernel, bias, geometry.stride, padding, geometry.dilation, geometry.groups)


class PaddedConv2d(nn.Conv2d):
    """``nn.Conv2d`` whose padding modes mean the same in every version of torch.

    Before torch 1.5 ``nn.Conv2d`` pads ``"circular"`` by half the amount and takes ``"reflect"`` and
    ``"replicate"`` for zeros without a word.
    """

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the convolution of ``images``, shape (n, in_channels, height, width)."""
        return _convolve(images, self.weight, self.bias, self)


class DOConv2d(nn.Module):
    """Convolution with kernel ``(identity + D) W``, in place of ``nn.Conv2d``.

    ``W`` has shape (out_channels, in_channels / groups, d_mul), ``D`` has shape
    (in_channels, kernel height x width, d_mul). With m running over the kernel's places, output o and
    input i of one group::

        kernel[o, i, m] = sum_s (identity[m, s] + D[i, m, s]) W[o, i, s]

    ``D`` starts at zero, so a new layer equals an ordinary convolution whose kernel is the first
    height x width entries of ``W``. The identity is made where it is used and is neither parameter nor
    buffer: what is not trained has no place in an update. A 1x1 kernel has nothing to gain from the
    product and gets no ``D``.

    Parameters are those of ``nn.Conv2d``; ``d_mul`` is the depth multiplier, at least height x width of the
    kernel (the default). ``padding`` may be ``"same"`` (stride 1, odd extent) or ``"valid"``.

    Raises :class:`~skinfl.errors.ModelError` for sizes that cannot be.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Union[int, Tuple[int, int]],
        stride: Union[int, Tuple[int, int]] = 1,
        padding: Union[int, Tuple[int, int], str] = 0,
        dilation: Union[int, Tuple[int, int]] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        d_mul: Optional[int] = None,
    ):
        super().__init__()
        if groups < 1 or in_channels % groups or out_channels % groups:
            raise ModelError(
                f"{in_channels} input and {out_channels} output channels cannot be cut into {groups} groups"
            )
        if padding_mode not in PADDING_MODES:
            raise ModelError(
                f"padding mode {padding_mode!r} is unknown: use one of {', '.join(PADDING_MODES)}"
            )
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = _pair(kernel_size)
        self.stride = _pair(stride)
        self.dilation = _pair(dilation)
        self.groups = groups
        self.padding = _resolve_padding(padding, self.kernel_size, self.stride, self.dilation)
        self.padding_mode = padding_mode
        places = self.kernel_size[0] * self.kernel_size[1]
        self.d_mul = places if d_mul is None or places == 1 else d_mul
        if self.d_mul < places:
            raise ModelError(
                f"d_mul {d_mul} would limit a kernel of {places} places instead of over-parameterising it: "
                f"give at least {places}"
            )
        self.W = nn.Parameter(torch.empty(out_channels, in_channels // groups, self.d_mul))
        if places > 1:
            self.D = nn.Parameter(torch.zeros(in_channels, places, self.d_mul))
        else:
            self.register_parameter("D", None)
        if bias:
            self.bias = nn.Parameter(torch.empty(out_channels))
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw ``W`` and the bias as ``nn.Conv2d`` does, and set ``D`` to zero."""
        bound = (self.in_channels // self.groups * self.kernel_size[0] * self.kernel_size[1]) ** -0.5
        nn.init.uniform_(self.W, -bound, bound)
        if self.D is not None:
            nn.init.zeros_(self.D)
        if self.bias is not None:
            nn.init.uniform_(self.bias, -bound, bound)

    def kernel(self) -> torch.Tensor:
        """Return the composed kernel, shape (out_channels, in_channels / groups, height, width)."""
        shape = (self.out_channels, self.in_channels // self.groups, *self.kernel_size)
        if self.D is None:
            return self.W.reshape(shape)
        places = self.kernel_size[0] * self.kernel_size[1]
        depthwise = self.D + torch.eye(places, self.d_mul, dtype=self.D.dtype, device=self.D.device)
        # D belongs to an input channel; each group of outputs sees its own group of inputs.
        depthwise = depthwise.reshape(self.groups, -1, places, self.d_mul)
        conventional = self.W.reshape(self.groups, -1, shape[1], self.d_mul)
        return torch.einsum("gims,gois->goim", depthwise, conventional).reshape(shape)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the convolution of ``images``, shape (n, in_channels, height, width)."""
        return _convolve(images, self.kernel(), self.bias, self)

    def fold(self) -> nn.Conv2d:
        """Return an ordinary convolution with the same outputs; the layer itself is left as it is."""
        mode: Any = self.padding_mode  # a str to its own types, one of four to the constructor's
        kind: Type[nn.Conv2d] = nn.Conv2d if self.padding_mode == "zeros" else PaddedConv2d
        folded = kind(
            self.in_channels,
            self.out_channels,
            self.kernel_size,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            groups=self.groups,
            bias=self.bias is not None,
            padding_mode=mode,
        ).to(self.W)
        with torch.no_grad():
            folded.weight.copy_(self.kernel())
            if self.bias is not None and folded.bias is not None:
                folded.bias.copy_(self.bias)
        return folded.train(self.training)

    def extra_repr(self) -> str:
        """Describe the layer as ``nn.Conv2d`` does."""
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"padding={self.padding}, groups={self.groups}, d_mul={self.d_mul}"
        )


def fold_model(model: nn.Module) -> nn.Module:
    """Return a copy of ``model`` in which every :class:`DOConv2d` is an ordinary convolution."""
    if isinstance(model, DOConv2d):
        return model.fold()
    folded = copy.deepcopy(model)
    for parent in list(folded.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, DOConv2d):
                setattr(parent, name, child.fold())
    return folded

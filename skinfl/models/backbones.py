"""torchvision's networks by name, untrained, fitted to the channels and classes at hand."""

from __future__ import annotations

from typing import Any, Tuple

import torchvision
from torch import nn

from skinfl.errors import ModelError
from skinfl.models.registry import BACKBONES

MIN_IMAGE_SIZE = 8


def available_backbones() -> Tuple[str, ...]:
    """Return those of :data:`BACKBONES` that the installed torchvision has."""
    return tuple(name for name in BACKBONES if hasattr(torchvision.models, name))


def check_backbone(name: str) -> None:
    """Refuse a name that is unknown here; raises :class:`~skinfl.errors.ModelError`."""
    if name not in available_backbones():
        known = ", ".join(available_backbones())
        raise ModelError(
            f"torchvision {torchvision.__version__} has no {name!r} to use here; it has: {known}"
        )


def build_backbone(name: str, *, in_channels: int, image_size: int, classes: int) -> nn.Module:
    """Return torchvision's ``name`` with random weights, for ``in_channels`` and ``classes``.

    Raises :class:`~skinfl.errors.ModelError` for a name that is unknown, or unknown to this torchvision,
    and for impossible sizes.
    """
    check_backbone(name)
    if in_channels < 1 or classes < 2 or image_size < MIN_IMAGE_SIZE:
        raise ModelError(
            f"{name} cannot be built for {in_channels} channels, {image_size} pixels, {classes} classes: "
            f"at least 1, {MIN_IMAGE_SIZE} and 2 are needed"
        )
    model = getattr(torchvision.models, name)(num_classes=classes)
    if in_channels != 3:
        _replace_first_convolution(model, in_channels)
    return model


def _replace_first_convolution(model: nn.Module, in_channels: int) -> None:
    """Give the first convolution another number of input channels, drawn as torchvision draws it."""
    found = next((n, m) for n, m in model.named_modules() if isinstance(m, nn.Conv2d))
    path: str = found[0]
    old: Any = found[1]  # torch's types take pairs, and say "a tuple of any length" of what they were kept as
    new = nn.Conv2d(
        in_channels,
        old.out_channels,
        old.kernel_size,
        stride=old.stride,
        padding=old.padding,
        bias=old.bias is not None,
    )
    nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")
    *parents, last = path.split(".")
    owner = model
    for part in parents:
        owner = getattr(owner, part)
    setattr(owner, last, new)

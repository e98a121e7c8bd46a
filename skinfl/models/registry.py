"""Networks by the name that settings and model files use."""

from __future__ import annotations

from typing import Tuple

from torch import nn

from skinfl.errors import ModelError, nearest
from skinfl.models.backbones import BACKBONES, available_backbones, build_backbone
from skinfl.models.skinnet import SkinNet


def model_names() -> Tuple[str, ...]:
    """Return the names :func:`build_model` takes with the installed torchvision."""
    return ("skinnet", *available_backbones())


def build_model(
    name: str, *, in_channels: int, image_size: int, classes: int, doconv: bool = True
) -> nn.Module:
    """Return the network ``name`` with random weights drawn from torch's global generator.

    It maps images of shape (n, in_channels, image_size, image_size) to logits of shape (n, classes).
    ``doconv`` concerns ``"skinnet"`` only.

    Raises :class:`~skinfl.errors.ModelError` for an unknown name or impossible sizes.
    """
    if name == "skinnet":
        return SkinNet(in_channels, image_size, classes, doconv)
    if name in BACKBONES:
        return build_backbone(name, in_channels=in_channels, image_size=image_size, classes=classes)
    raise ModelError(f"there is no model {name!r}: {nearest(name, model_names())}")

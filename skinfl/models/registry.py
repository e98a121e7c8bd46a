"""Networks by the name that settings and model files use.

A network is built from ``in_channels``, ``image_size`` and ``classes`` and from the options it registers. It
maps images of shape (n, in_channels, image_size, image_size) to logits of shape (n, classes).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Callable, Tuple

from skinfl.errors import ModelError, nearest
from skinfl.registry import Option, Registry

if TYPE_CHECKING:
    from torch import nn

#: facts that every network may be built from
SHAPE = ("in_channels", "image_size", "classes")
#: torchvision's names; which of them a given torchvision has differs
BACKBONES = ("resnet18", "mobilenet_v2", "efficientnet_b0")

MODELS = Registry("model", group="Network", help="network to train", default="skinnet")


def model_names() -> Tuple[str, ...]:
    """Return the names :func:`build_model` takes with the installed torchvision."""
    return tuple(entry.name for entry in MODELS if entry.name not in BACKBONES or _installed(entry.name))


def build_model(name: str, *, in_channels: int, image_size: int, classes: int, **options: Any) -> nn.Module:
    """Return the network ``name`` with random weights drawn from torch's global generator.

    ``options`` are those that networks register; what another network has is of no effect, as ``doconv``
    is for torchvision's.

    Raises :class:`~skinfl.errors.ModelError` for an unknown name or option, or impossible sizes.
    """
    if name not in MODELS:
        raise ModelError(f"there is no model {name!r}: {nearest(str(name), model_names())}")
    known = {option.name for entry in MODELS for option in entry.options}
    for option in options:
        if option not in known:
            raise ModelError(f"no model has an option {option!r}: {nearest(option, known)}")
    shape = {"in_channels": in_channels, "image_size": image_size, "classes": classes}
    model: nn.Module = MODELS.build(name, options, **shape)
    return model


def _installed(name: str) -> bool:
    return name in import_module("skinfl.models.backbones").available_backbones()


def _backbone(name: str) -> Tuple[Callable[..., Any], Callable[[Any], None]]:
    """Return what builds a backbone, and what refuses one that the installed torchvision lacks."""

    def build(**shape: int) -> Any:
        return import_module("skinfl.models.backbones").build_backbone(name, **shape)

    def check(settings: Any) -> None:
        import_module("skinfl.models.backbones").check_backbone(name)

    return build, check


MODELS.register(
    "skinnet",
    "the paper's network",
    "skinfl.models.skinnet:SkinNet",
    options=(Option("doconv", bool, True, "over-parameterise skinnet's convolutions (DO-Conv)"),),
    uses=SHAPE,
)
for _name in BACKBONES:
    _build, _check = _backbone(_name)
    MODELS.register(_name, "torchvision's, untrained", _build, uses=SHAPE, check=_check)

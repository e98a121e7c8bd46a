"""A network that a user brings along, by the import path of its class: ``mypackage.module:Net``.

The class is called with those of ``in_channels``, ``image_size`` and ``classes`` that its signature takes,
and must map images of shape (n, in_channels, image_size, image_size) to logits of shape (n, classes), which
a batch of zeros tries. Its module is imported only where the user names it in this very process: loading a
model file never imports anything.
"""

from __future__ import annotations

import inspect
import logging
from importlib import import_module
from typing import Any, Callable, Set, Tuple

import torch
from torch import nn

from skinfl.errors import ModelError
from skinfl.models.registry import MODELS, SHAPE

_LOG = logging.getLogger(__name__)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_told: Set[str] = set()


def register(path: str) -> Callable[..., nn.Module]:
    """Register what ``path`` names and return what builds it; raises ModelError where it is no network."""
    module, _, name = path.partition(":")
    made = getattr(import_module(module), name, None)
    if made is None:
        raise ModelError(f"the module {module} has no {name}")
    if not callable(made) or (inspect.isclass(made) and not issubclass(made, nn.Module)):
        raise ModelError(f"{name} is no nn.Module, nor a function that returns one")

    def build(**shape: int) -> nn.Module:
        return build_imported(path, made, **shape)

    if path not in MODELS:
        MODELS.register(path, "brought along", build, uses=SHAPE)
    return build


def build_imported(
    path: str, made: Callable[..., Any], *, in_channels: int, image_size: int, classes: int
) -> nn.Module:
    """Return a new network of the class or function ``made``, tried on a batch of zeros.

    Raises :class:`~skinfl.errors.ModelError` where it cannot be built or gives something else than logits.
    """
    shape = {"in_channels": in_channels, "image_size": image_size, "classes": classes}
    parameters = inspect.signature(made).parameters
    everything = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    try:
        model = made(**{name: value for name, value in shape.items() if everything or name in parameters})
    except Exception as error:  # the user's own code
        raise ModelError(f"{path} cannot be built: {_line(error)}") from error
    if not isinstance(model, nn.Module):
        raise ModelError(f"{path} gave {type(model).__name__}, which is no nn.Module")
    try:
        model.eval()
        with torch.no_grad():  # the first batch gives lazy layers their sizes, which all hospitals must share
            out = model(torch.zeros(2, in_channels, image_size, image_size))
    except Exception as error:
        raise ModelError(
            f"{path} does not take images of {in_channels} channels and {image_size} pixels: {_line(error)}"
        ) from error
    finally:
        model.train()
    if not isinstance(out, torch.Tensor) or tuple(out.shape) != (2, classes):
        what = tuple(out.shape) if isinstance(out, torch.Tensor) else type(out).__name__
        raise ModelError(f"{path} gives {what} for 2 images and {classes} classes: logits are (2, {classes})")
    if path not in _told and any(isinstance(module, _NORMS) for module in model.modules()):
        _told.add(path)
        _LOG.warning(
            "%s has BatchNorm: its statistics are averaged over hospitals (--batchnorm local keeps them "
            "there), and batches below about 16 images make them noisy",
            path,
        )
    model.register_forward_pre_hook(_channels_first)
    return model


def _channels_first(model: nn.Module, inputs: Tuple[torch.Tensor, ...]) -> Tuple[torch.Tensor, ...]:
    """Lay images out as torch does unasked: a network of somebody else's may take a ``view`` of them."""
    # a copy: of one channel, both layouts call themselves contiguous
    return tuple(each.clone(memory_format=torch.contiguous_format) for each in inputs)


def _line(error: BaseException) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0] if text else 'no message'}"

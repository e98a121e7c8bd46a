"""The networks: the paper's own with its DO-Conv layers, and torchvision's by name.

Their registry is there at once; what needs torch is imported when it is first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from skinfl.models.registry import MODELS, build_model, model_names

if TYPE_CHECKING:
    from skinfl.models.activation import QuadraticActivation
    from skinfl.models.doconv import DOConv2d, fold_model
    from skinfl.models.skinnet import SkinNet
    from skinfl.models.store import StoredModel, load_model, save_model

_NEED_TORCH = {
    "DOConv2d": "doconv",
    "QuadraticActivation": "activation",
    "SkinNet": "skinnet",
    "StoredModel": "store",
    "fold_model": "doconv",
    "load_model": "store",
    "save_model": "store",
}


def __getattr__(name: str) -> Any:
    """Import what needs torch."""
    if name not in _NEED_TORCH:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_NEED_TORCH[name]}"), name)


__all__ = [
    "MODELS",
    "DOConv2d",
    "QuadraticActivation",
    "SkinNet",
    "StoredModel",
    "build_model",
    "fold_model",
    "load_model",
    "model_names",
    "save_model",
]

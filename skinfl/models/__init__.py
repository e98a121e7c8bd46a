"""The networks: the paper's own with its DO-Conv layers, and torchvision's by name.

Their registry is there at once; what needs torch is imported when it is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from skinfl.lazy import exports
from skinfl.models.registry import MODELS, build_model, model_names

if TYPE_CHECKING:
    from skinfl.models.activation import QuadraticActivation
    from skinfl.models.doconv import DOConv2d, fold_model
    from skinfl.models.skinnet import SkinNet
    from skinfl.models.store import StoredModel, load_model, save_model

__getattr__, __dir__ = exports(
    __name__,
    {
        "DOConv2d": "skinfl.models.doconv",
        "QuadraticActivation": "skinfl.models.activation",
        "SkinNet": "skinfl.models.skinnet",
        "StoredModel": "skinfl.models.store",
        "fold_model": "skinfl.models.doconv",
        "load_model": "skinfl.models.store",
        "save_model": "skinfl.models.store",
    },
)
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

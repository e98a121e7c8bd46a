"""The networks: the paper's own with its DO-Conv layers, and torchvision's by name."""

from skinfl.models.activation import QuadraticActivation
from skinfl.models.doconv import DOConv2d, fold_model
from skinfl.models.registry import build_model, model_names
from skinfl.models.skinnet import SkinNet
from skinfl.models.store import StoredModel, load_model, save_model

__all__ = [
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

"""Hospitals train one skin-lesion classifier together without showing each other anything.

::

    import skinfl

    result = skinfl.train(data="synthetic", protection="smpc", rounds=3)
    result.metrics["balanced_accuracy"], result.history, result.per_class
    result.model.predict("lesion.jpg")
    skinfl.evaluate(result.folder, "PATH/TO/ANOTHER/DATA/SET")["auc"]

What is public here is loaded when it is first asked for, so that ``import skinfl`` takes no time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from skinfl.lazy import exports
from skinfl.version import __version__ as __version__

if TYPE_CHECKING:
    from skinfl.api import compare, evaluate, export, load_data, load_result, predict, train
    from skinfl.classifier import LesionClassifier
    from skinfl.data.dataset import LesionDataset
    from skinfl.errors import SkinflError
    from skinfl.results import ComparisonResult, TrainingResult
    from skinfl.settings import Settings


__all__ = [
    "ComparisonResult",
    "LesionClassifier",
    "LesionDataset",
    "Settings",
    "SkinflError",
    "TrainingResult",
    "compare",
    "evaluate",
    "export",
    "load_data",
    "load_result",
    "predict",
    "train",
]

__getattr__, __dir__ = exports(
    __name__,
    {
        "ComparisonResult": "skinfl.results",
        "LesionClassifier": "skinfl.classifier",
        "LesionDataset": "skinfl.data.dataset",
        "Settings": "skinfl.settings",
        "SkinflError": "skinfl.errors",
        "TrainingResult": "skinfl.results",
        "compare": "skinfl.api",
        "evaluate": "skinfl.api",
        "export": "skinfl.api",
        "load_data": "skinfl.api",
        "load_result": "skinfl.api",
        "predict": "skinfl.api",
        "train": "skinfl.api",
    },
)

"""The network that is meant: a run's folder, a model file, or one that is loaded already."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Optional, Union

from skinfl.classifier import LesionClassifier
from skinfl.data import LesionDataset, Progress, load
from skinfl.paths import PathLike
from skinfl.paths import path as user_path
from skinfl.run_folder import model_in

#: a run's folder, a model file, or the network itself
Model = Union[PathLike, LesionClassifier]


def classifier_of(model: Model) -> LesionClassifier:
    """Return the network; raises :class:`~skinfl.errors.ModelError` where there is none."""
    if isinstance(model, LesionClassifier):
        return model
    return LesionClassifier.load(model_in(user_path(model)))


def run_of(model: Model) -> Optional[Path]:
    """Return the folder of the run that a network came from, None where it is not known."""
    if isinstance(model, LesionClassifier):
        return None
    file = model_in(user_path(model))
    return Path(os.path.dirname(os.path.abspath(str(file))))


def load_for(
    classifier: LesionClassifier,
    source: PathLike,
    *,
    metadata: Optional[PathLike] = None,
    progress: Progress = None,
) -> LesionDataset:
    """Read a data set as the network takes its images; see :func:`skinfl.data.load`."""
    return load(source, image_size=classifier.image_size, metadata=metadata, progress=progress)

"""The network that is meant: a run's folder, a model file, or one that is loaded already."""

from __future__ import annotations

import os
from pathlib import Path
from typing import List, Optional, Union

import numpy as np

from skinfl.classifier import LesionClassifier
from skinfl.data import LesionDataset, Progress, load
from skinfl.data.detect import detect
from skinfl.data.index import refuse
from skinfl.errors import SkinflError
from skinfl.paths import PathLike
from skinfl.paths import path as user_path
from skinfl.run_folder import ABOUT, PERSONAL, model_in, read_about

#: a run's folder, a model file, or the network itself
Model = Union[PathLike, LesionClassifier]


def classifier_of(model: Model) -> LesionClassifier:
    """Return the network; raises :class:`~skinfl.errors.ModelError` where there is none."""
    if isinstance(model, LesionClassifier):
        return model
    return LesionClassifier.load(model_in(user_path(model)))


def run_of(model: Model) -> Optional[Path]:
    """Return the folder of the run that a network came from, None where it is not known.

    A hospital's own model came from the run that it lies in.
    """
    if isinstance(model, LesionClassifier):
        return None
    file = model_in(user_path(model))
    folder = Path(os.path.dirname(os.path.abspath(str(file))))
    own = folder.name == PERSONAL and (folder.parent / ABOUT).is_file()
    return folder.parent if own else folder


def load_for(
    classifier: LesionClassifier,
    source: PathLike,
    *,
    metadata: Optional[PathLike] = None,
    progress: Progress = None,
) -> LesionDataset:
    """Read a data set as the network takes its images; see :func:`skinfl.data.load`."""
    return load(source, **classifier.preparation._asdict(), metadata=metadata, progress=progress)


def photographs_of(run: Path, classifier: LesionClassifier, most: int = 8) -> List[np.ndarray]:
    """Return a few photographs of the data that a run learnt from, as the network takes them.

    None where the data are not image files that are still where they were.
    """
    try:
        data = read_about(run)["data"] if (run / ABOUT).is_file() else None
        if data is None:
            return []
        found = detect(data)
        index = found.reader.index(found, refuse)
        rows = [] if index is None else index.photographs
        return [classifier.pixels(row.path) for row in rows[:: max(1, len(rows) // most)][:most]]
    except SkinflError:
        return []

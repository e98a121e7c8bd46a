"""Answers as the tables that a notebook works with."""

from __future__ import annotations

import os
from pathlib import Path
from typing import List, Optional, Sequence, Union

import numpy as np
import pandas as pd
from PIL import Image

from skinfl.classifier import BATCH, LesionClassifier, Picture
from skinfl.predictions import Predictions
from skinfl.use.predicting import image_files


def as_frame(found: Predictions) -> pd.DataFrame:
    """Return one row a photograph; an unknown diagnosis is "", an unknown age NaN."""
    names = np.asarray([*found.names, ""], dtype=object)
    return pd.DataFrame(
        {
            "image_id": found.image_ids,
            "lesion_id": found.lesion_ids,
            "hospital": found.hospitals,
            "site": found.sites,
            "sex": found.sexes,
            "age": found.ages,
            "diagnosis": names[found.labels],
            "predicted": names[found.predicted] if len(found.labels) else [],
            **{f"p_{name}": found.probabilities[:, k] for k, name in enumerate(found.names)},
        }
    )


def predict_pictures(
    classifier: LesionClassifier, pictures: Union[Picture, Sequence[Picture]], *, tta: Optional[int] = None
) -> pd.DataFrame:
    """Return one row a photograph, one column a class: probabilities.

    ``pictures``: a file, a folder with all that lies below it, a PIL image, an array, or a list of these. The
    index is the file's path, or the place in the list. Raises :class:`~skinfl.errors.DataError` at the first
    that is no photograph.
    """
    single = isinstance(pictures, (str, os.PathLike, Image.Image, np.ndarray))
    given: List[Picture] = [pictures] if single else list(pictures)  # type: ignore[list-item, arg-type]
    names: List[object] = []
    each: List[Picture] = []
    for place, picture in enumerate(given):
        if isinstance(picture, (str, Path)):
            files = image_files(picture)
            names += map(str, files)
            each += files
        else:
            names.append(place)
            each.append(picture)
    parts = [np.zeros((0, len(classifier.classes)))]
    for first in range(0, len(each), BATCH):
        pixels = [classifier.pixels(picture) for picture in each[first : first + BATCH]]
        parts.append(classifier.probabilities(np.stack(pixels), tta=tta))
    return pd.DataFrame(np.concatenate(parts), index=names, columns=list(classifier.classes))

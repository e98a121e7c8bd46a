"""Diagnoses of photographs in files: any number of them, a batch in memory at a time."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Callable, Dict, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Union

import numpy as np

from skinfl.classifier import BATCH, LesionClassifier
from skinfl.data.folders import is_folder, is_litter
from skinfl.data.images import EXTENSIONS
from skinfl.errors import DataError
from skinfl.paths import PathLike
from skinfl.paths import path as user_path
from skinfl.predictions import Predictions

#: what is looked for in folders: what data sets consist of, and what else cameras and exports write
_IMAGES = (*EXTENSIONS, ".bmp", ".tif", ".tiff", ".webp")


class Answer(NamedTuple):
    """One photograph's file and the probabilities of the classes, float64, shape (classes,)."""

    file: Path
    probabilities: np.ndarray


def image_files(places: Union[PathLike, Iterable[PathLike]]) -> List[Path]:
    """Return the image files that are meant: files as they are, folders with all that lies below them.

    What operating systems and editors leave in folders is passed over. A file that is named twice counts
    once. Raises :class:`~skinfl.errors.DataError` for a folder that cannot be read or holds no image.
    """
    found: Dict[str, Path] = {}
    given = [places] if isinstance(places, (str, os.PathLike)) else list(places)
    for place in map(user_path, given):
        files = _below(place) if is_folder(place) else [place]
        if not files:
            raise DataError(
                f"{place} holds no images ({', '.join(_IMAGES)}), nor do the folders in it: name others"
            )
        for file in files:
            found.setdefault(os.path.realpath(str(file)), file)
    if not found:
        raise DataError("no photograph is named: give image files, or folders that hold some")
    return list(found.values())


def _below(folder: Path) -> List[Path]:
    def refuse(error: OSError) -> None:
        raise DataError(
            f"{error.filename} cannot be read ({error.strerror}): allow it to be read, or name other folders"
        )

    files = []
    for place, below, names in os.walk(str(folder), onerror=refuse):
        below[:] = sorted(name for name in below if not is_litter(name))
        files += [
            Path(place, name)
            for name in sorted(names)
            if not is_litter(name) and os.path.splitext(name)[1].lower() in _IMAGES
        ]
    return files


def predict_files(
    classifier: LesionClassifier,
    files: Sequence[Path],
    *,
    tta: Optional[int] = None,
    complain: Callable[[Path, DataError], None],
) -> Iterator[List[Answer]]:
    """Yield the answers batch by batch, in order; a file that is no photograph goes to ``complain``."""
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        for first in range(0, len(files), BATCH):
            part = files[first : first + BATCH]
            read: List[Path] = []
            pixels: List[np.ndarray] = []
            for file, opened in zip(part, pool.map(lambda file: _opened(classifier, file), part)):
                if isinstance(opened, DataError):
                    complain(file, opened)
                else:
                    read.append(file)
                    pixels.append(opened)
            if pixels:
                shares = classifier.probabilities(np.stack(pixels), tta=tta)
                yield [Answer(file, row) for file, row in zip(read, shares)]


def _opened(classifier: LesionClassifier, file: Path) -> Union[np.ndarray, DataError]:
    try:
        # A file that was found and is called '~x' is in nobody's home.
        return classifier.pixels(os.path.abspath(str(file)) if str(file).startswith("~") else file)
    except DataError as error:
        return error


def table_of(classifier: LesionClassifier, answers: Sequence[Answer]) -> Predictions:
    """Return answers as the table that is written as CSV; a photograph's id is its path as it was given."""
    n = len(answers)
    names = [str(answer.file).encode("utf-8", "backslashreplace").decode() for answer in answers]
    rows = [answer.probabilities for answer in answers]
    empty = np.full(n, "", dtype=object)
    return Predictions(
        classifier.class_info,
        np.stack(rows) if rows else np.zeros((0, len(classifier.classes))),
        np.full(n, -1, dtype=np.int64),
        np.asarray(names, dtype=object),
        lesion_ids=empty,
        hospitals=empty,
        sites=empty,
        sexes=empty,
        ages=np.full(n, np.nan),
    )

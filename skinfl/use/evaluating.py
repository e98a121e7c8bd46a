"""How a network does on a data set that it did not learn from, perhaps of other classes.

What it did learn from is left out, as far as it can be told: photographs and lesions by their ids, which
publishers share (ISIC 2019 holds HAM10000), and the run's own data by their digest.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from skinfl.classifier import LesionClassifier
from skinfl.data.classes import Match, match
from skinfl.data.dataset import LesionDataset
from skinfl.data.sources import Progress
from skinfl.data.splits import group_photographs, train_test_split
from skinfl.errors import DataError, SkinflError
from skinfl.federation.checkpoint import load_checkpoint
from skinfl.files import write_text
from skinfl.intervals import LEVEL, bootstrap_intervals
from skinfl.metrics import evaluate_predictions
from skinfl.predictions import LesionClass, Predictions
from skinfl.run_folder import CHECKPOINT, CONFIG, TRAINED_ON
from skinfl.seeds import derive
from skinfl.settings import Settings, read_toml

_HEADER = ["image_id", "lesion_id"]
#: photographs between two signs of progress
_STEP = 256


class Evaluation(NamedTuple):
    """``result`` is what is written as JSON, see :func:`evaluate_on`; ``predictions`` the table behind it."""

    result: Dict[str, Any]
    predictions: Predictions


class Known(NamedTuple):
    """Which photographs of a data set a network learnt from, shape (n,), and ``how`` that is told."""

    learnt: np.ndarray
    how: str


def evaluate_on(
    classifier: LesionClassifier,
    dataset: LesionDataset,
    *,
    run: Optional[Path] = None,
    everything: bool = False,
    tta: Optional[int] = None,
    seed: int = 0,
    progress: Progress = None,
) -> Evaluation:
    """Evaluate a network on a data set whose images have its size.

    Classes are matched by :func:`skinfl.data.classes.match`; photographs of a class that the network does not
    know are left out. Where ``run`` is the folder that the network came from, so is what it learnt from,
    unless ``everything`` is wanted. Test-time augmentation ``tta`` is as in
    :meth:`~skinfl.classifier.LesionClassifier.probabilities`; ``seed`` is the intervals'.

    The result has the metrics of :func:`skinfl.metrics.evaluate_predictions`; ``intervals`` of
    :func:`skinfl.intervals.bootstrap_intervals` over lesions, or patients where they are known; ``images``
    and ``lesions``, how many were evaluated; ``classes`` with short and full name and ``malignant``;
    ``matched``, by class of the data the class it counts as, and ``merged``, the same for the network's
    classes that count as a wider one; ``unmatched``, the classes of the ``data`` with their photographs,
    which are left out, and of the ``model``, which stay among its answers; ``left_out``, how many
    photographs for which reason; ``trained_on``, how many the network learnt from, and
    ``trained_on_told_by``, empty where that cannot be told.

    Raises :class:`~skinfl.errors.DataError` where there is no class in common, or no photograph left.
    """
    found = match(classifier.class_info, dataset.class_info)
    if not found.common:
        raise DataError(
            f"{dataset.name} has no class in common with the network, which tells "
            f"{', '.join(classifier.classes)}; the data have {', '.join(dataset.classes)}: "
            "evaluate it on data of its own kind"
        )
    labels = np.asarray(found.of_data, dtype=np.int64)[dataset.labels]
    learnt = Known(np.zeros(len(dataset), dtype=bool), "")
    if run is not None:
        learnt = learnt_from(run, dataset)
    known = labels >= 0
    kept = known if everything else known & ~learnt.learnt
    if not kept.any():
        raise DataError(_nothing_left(dataset, known, learnt.how))
    which = np.flatnonzero(kept)
    part = dataset if len(which) == len(dataset) else dataset.subset(which)
    probabilities = _merged(_predicted(classifier, part, tta, progress), found)
    names = [each.name for each in found.classes]
    metrics = evaluate_predictions(probabilities, labels[which], names)
    groups = group_photographs(part).of
    intervals = bootstrap_intervals(
        probabilities, labels[which], groups, names, seed=derive(seed, "intervals")
    )
    trained_on = int((known & learnt.learnt).sum())
    result = {
        "data": dataset.name,
        "synthetic": dataset.synthetic,
        "images": len(part),
        "lesions": len(set(part.lesion_ids)),
        "lesions_known": dataset.lesions_known,
        **metrics,
        "intervals": intervals,
        "interval_level": LEVEL,
        "classes": [dict(each._asdict()) for each in found.classes],
        **_matching(classifier, dataset, found),
        "left_out": {
            "of_other_classes": int((~known).sum()),
            "trained_on": 0 if everything else trained_on,
        },
        "trained_on": trained_on,
        "trained_on_told_by": learnt.how,
        "tta": classifier.views if tta is None else tta,
        "temperature": classifier.temperature,
    }
    return Evaluation(result, answers_for(part, found.classes, probabilities, labels[which]))


def write_learnt(path: Path, dataset: LesionDataset, indices: np.ndarray) -> None:
    """Write down which photographs a network learnt from, so that nobody tests it on them by mistake."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_HEADER)
    if _has_identities(dataset):
        for i in np.unique(indices):
            writer.writerow([dataset.image_ids[i], dataset.lesion_ids[i]])
    write_text(path, text.getvalue())


def learnt_from(run: Path, dataset: LesionDataset) -> Known:
    """Return which photographs of a data set the network of a run learnt from, as far as can be told."""
    own = _own_training_part(run, dataset)
    if own is not None:
        return Known(own, "the data are the run's own")
    pairs = _read_learnt(run / TRAINED_ON)
    if not pairs or not _has_identities(dataset):
        return Known(np.zeros(len(dataset), dtype=bool), "")
    images, lesions = ({pair[k] for pair in pairs if not pair[k].isdigit()} for k in (0, 1))
    learnt = [i in images or x in lesions for i, x in zip(dataset.image_ids, dataset.lesion_ids)]
    return Known(np.array(learnt, dtype=bool), "by the ids of photographs and lesions")


def _has_identities(dataset: LesionDataset) -> bool:
    """Whether ids are the publisher's; those of drawn pictures, or of rows, mean nothing elsewhere."""
    return dataset.lesions_known and not dataset.synthetic


def _own_training_part(run: Path, dataset: LesionDataset) -> Optional[np.ndarray]:
    """Return what a run learnt from where these are its own data, to the last pixel; None for any others."""
    if not (run / CHECKPOINT).is_file() or not (run / CONFIG).is_file():
        return None
    try:
        same = load_checkpoint(run / CHECKPOINT).data == dataset.digest()
        settings = Settings(**read_toml(run / CONFIG)) if same else None
    except SkinflError:  # of another release, or damaged: the network can be used all the same
        return None
    if settings is None:
        return None
    split = train_test_split(
        dataset, test_fraction=settings.test_fraction, seed=settings.seed, protocol=settings.protocol
    )
    learnt = np.ones(len(dataset), dtype=bool)
    learnt[split.test] = False
    return learnt


def _read_learnt(path: Path) -> List[Tuple[str, str]]:
    try:
        rows = list(csv.reader(path.read_text("utf-8").splitlines()))
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read ({error}): restore it, or move it away") from None
    if not rows or rows[0] != _HEADER or any(len(row) != len(_HEADER) for row in rows):
        raise DataError(f"{path} is damaged: restore it, or move it away to evaluate without it")
    return [(row[0], row[1]) for row in rows[1:]]


def _nothing_left(dataset: LesionDataset, known: np.ndarray, how: str) -> str:
    if not known.any():
        return (
            f"{dataset.name} has no photograph of a class that the network knows: evaluate it on other data"
        )
    return (
        f"the network learnt from all {int(known.sum())} photographs of {dataset.name} ({how}): "
        "evaluate it on other data, or with --all, which says nothing of new patients"
    )


def _predicted(
    classifier: LesionClassifier, dataset: LesionDataset, tta: Optional[int], progress: Progress
) -> np.ndarray:
    parts = []
    for first in range(0, len(dataset), _STEP):
        parts.append(classifier.probabilities(dataset.images[first : first + _STEP], tta=tta))
        if progress is not None:
            progress(min(first + _STEP, len(dataset)), len(dataset), "photographs evaluated")
    return np.concatenate(parts)


def _merged(probabilities: np.ndarray, found: Match) -> np.ndarray:
    """Return probabilities of the classes that are told apart: those of a wider class's parts added up."""
    merged = np.zeros((len(probabilities), len(found.classes)))
    for k, place in enumerate(found.of_model):
        merged[:, place] += probabilities[:, k]
    return merged


def _matching(classifier: LesionClassifier, dataset: LesionDataset, found: Match) -> Dict[str, Any]:
    counts = dataset.class_counts()
    pairs = list(zip(dataset.class_info, found.of_data, counts))
    lacking = set(range(len(found.classes))) - set(found.of_data)
    return {
        "matched": {each.name: found.classes[k].name for each, k, _ in pairs if k >= 0},
        "merged": {
            each.name: found.classes[k].name
            for each, k in zip(classifier.class_info, found.of_model)
            if each != found.classes[k]
        },
        "unmatched": {
            "data": {each.name: int(count) for each, k, count in pairs if k < 0},
            "model": [found.classes[k].name for k in sorted(lacking)],
        },
    }


def answers_for(
    dataset: LesionDataset,
    classes: Sequence[LesionClass],
    probabilities: np.ndarray,
    labels: np.ndarray,
    hospitals: Optional[np.ndarray] = None,
) -> Predictions:
    """Return what a network says of a data set's photographs as the table that is written as CSV.

    ``hospitals``: who holds each photograph; None where nobody knows.
    """
    return Predictions(
        tuple(classes),
        probabilities,
        labels,
        dataset.image_ids,
        dataset.lesion_ids,
        np.full(len(dataset), "", dtype=object) if hospitals is None else hospitals,
        dataset.sites,
        dataset.sexes,
        dataset.ages,
    )

"""How a model does on the hospitals' validation images, as numbers that may be added, and what follows from
their sum: the round to keep, the temperature, and thresholds, none of which the test set may decide.

Each hospital tells counts and sums, over the public unit of images: the confusion matrix; the cross entropy
at each of a grid of temperatures; for each class a histogram of its probability among the images of that
class, and one among the others; and at each temperature the same of the probability that a lesion is
malignant. From the sum over hospitals follow the metrics of all their images *together*, as if they lay in
one place: confusion matrix and cross entropy exactly, the AUC within a bound that the same sum gives
(:func:`binned_auc`). Malignancy is counted at each temperature because a threshold is for what a user is
shown, which is after the temperature that the same sum chooses.

Nothing here needs torch.
"""

from __future__ import annotations

from typing import Any, Dict, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from skinfl.errors import TrainingError
from skinfl.metrics import confusion_counts, confusion_metrics
from skinfl.protection.layout import Segment

#: of a histogram of probabilities
BINS = 32
#: between bins, shape (31,): evenly spaced as logits. A rare class's probabilities lie close to zero, where
#: bins of equal width would not tell them apart
EDGES = 1.0 / (1.0 + np.exp(-np.linspace(-8.0, 8.0, BINS - 1)))
#: at which the cross entropy is summed, shape (21,): powers of 2^(1/4), one of them 1
TEMPERATURES = 2.0 ** np.linspace(-2.0, 3.0, 21)
_ONE = int(np.argmin(np.abs(TEMPERATURES - 1.0)))
#: what an image adds to a cross entropy at most, in nats: a single one must not drown all others
MOST_NATS = 100.0


class Malignant(NamedTuple):
    """Histograms of the probability that a lesion is malignant: counts of images, int64, shape (BINS,).

    Bin ``b`` holds probabilities from ``EDGES[b - 1]`` up to ``EDGES[b]``. ``positive`` are of malignant
    lesions, ``negative`` of others.
    """

    positive: np.ndarray
    negative: np.ndarray


def validation_segment(classes: int) -> Segment:
    """Return the segment that :func:`pack_validation` fills."""
    size = classes**2 + len(TEMPERATURES) + 2 * BINS * (classes + len(TEMPERATURES))
    return Segment("validation", size, "count")


def pack_validation(
    probabilities: np.ndarray, labels: np.ndarray, malignant: Sequence[Optional[bool]], unit: int
) -> np.ndarray:
    """Return how a model does on one hospital's validation images, float64; zeros where there are none.

    ``probabilities``: float64, shape (n, classes); ``labels``: shape (n,); ``malignant``: of each class, None
    where it is not known. Images of such a class are left out of the histograms of malignancy, which stay
    empty unless there are classes that are malignant and classes that are not. ``unit``: the public number of
    images.

    Raises :class:`~skinfl.errors.TrainingError` for probabilities that are not finite.
    """
    classes = len(malignant)
    if not np.isfinite(probabilities).all():
        raise TrainingError(
            "the network's probabilities are not numbers: training diverged, try a smaller learning rate"
        )
    if not len(labels):
        return np.zeros(validation_segment(classes).size)
    confusion = confusion_counts(labels, probabilities.argmax(axis=1), classes)
    which = np.searchsorted(EDGES, probabilities, side="right")
    histograms = [
        np.bincount(which[(labels == k) == of_class, k], minlength=BINS)
        for k in range(classes)
        for of_class in (True, False)
    ]
    found = np.concatenate(
        [
            confusion.reshape(-1),
            _entropies(probabilities, labels),
            *histograms,
            *(
                side
                for temperature in TEMPERATURES
                for side in malignancy(tempered(probabilities, temperature), labels, malignant)
            ),
        ]
    )
    return found / unit


def unpack_validation(total: np.ndarray, classes: Sequence[str], unit: int) -> Optional[Dict[str, Any]]:
    """Return what the sum over hospitals says of all their validation images together.

    None where there are none, or where a hospital sent what no images give. The keys are those of
    :func:`skinfl.metrics.evaluate_predictions` (``ece`` and the sensitivity for melanoma are None) and

    - ``images``: how many there are
    - ``loss``: the mean cross entropy, of an image at most :data:`MOST_NATS`
    - ``auc_error``: how far ``auc`` may be from that of the very probabilities, see :func:`binned_auc`
    - ``temperature``: the one of :data:`TEMPERATURES` by which logits are divided for the least cross
      entropy, and ``loss_at_temperature``, the least. Guo et al., *On Calibration of Modern Neural Networks*,
      ICML 2017, section 4.2; it changes no image's class
    - ``malignant``: ``{positive, negative}`` as in :class:`Malignant`, at that temperature; None where it is
      not known

    All others are of the probabilities without a temperature.
    """
    number = len(classes)
    ends = np.cumsum([number**2, len(TEMPERATURES)])
    counts, entropies, rest = np.split(total, ends)
    confusion = np.rint(counts * unit).astype(np.int64).reshape(number, number)
    histograms = np.rint(rest * unit).astype(np.int64).reshape(number + len(TEMPERATURES), 2, BINS)
    images = int(confusion.sum())
    if images <= 0 or confusion.min() < 0 or histograms.min() < 0 or not np.isfinite(entropies).all():
        return None
    found = confusion_metrics(confusion, classes)
    areas = [binned_auc(positive, negative) for positive, negative in histograms[:number]]
    for name, area in zip(classes, areas):
        found["per_class"][str(name)]["auc"] = None if area is None else area[0]
    defined = [area for area in areas if area is not None]
    mean = entropies * unit / images
    best = int(np.argmin(mean))
    positive, negative = histograms[number + best]
    known = positive.sum() + negative.sum() > 0
    return {
        **found,
        "images": images,
        "auc": float(np.mean([area for area, _ in defined])) if defined else None,
        "auc_error": float(np.mean([error for _, error in defined])) if defined else None,
        "loss": float(mean[_ONE]),
        "temperature": float(TEMPERATURES[best]),
        "loss_at_temperature": float(mean[best]),
        "malignant": {"positive": positive.tolist(), "negative": negative.tolist()} if known else None,
    }


def binned_auc(positive: np.ndarray, negative: np.ndarray) -> Optional[Tuple[float, float]]:
    """Return the area under the ROC curve of two histograms of scores, and its largest error.

    The area is the share of pairs of a positive and a negative example in which the positive one has the
    higher score. A pair in two bins is counted as it is. One in a bin together counts for half, and is worth
    between none and one: so the error is at most half the share of such pairs. None unless both exist.
    """
    pairs = float(positive.sum()) * float(negative.sum())
    if not pairs:
        return None
    below = np.cumsum(negative) - negative
    tied = float(np.dot(positive, negative))
    return (float(np.dot(positive, below)) + tied / 2) / pairs, tied / 2 / pairs


def tempered(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Return the probabilities, float64 of shape (n, classes), had the logits been divided by it."""
    logits = np.log(np.maximum(probabilities, 1e-300)) / temperature
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    result: np.ndarray = shares / shares.sum(axis=1, keepdims=True)
    return result


def malignancy(
    probabilities: np.ndarray, labels: np.ndarray, malignant: Sequence[Optional[bool]]
) -> Malignant:
    """Return the histograms of the probability that a lesion is malignant, the sum of such classes' own.

    Empty unless some classes are known to be malignant and some not to be; images whose class is neither are
    left out.
    """
    if not (any(malignant) and any(flag is False for flag in malignant)):
        return Malignant(np.zeros(BINS, np.int64), np.zeros(BINS, np.int64))
    scores, truth = malignant_scores(probabilities, malignant), np.array([flag is True for flag in malignant])
    known = np.array([flag is not None for flag in malignant])[labels]
    which = np.searchsorted(EDGES, scores, side="right")
    return Malignant(
        *(np.bincount(which[known & (truth[labels] == side)], minlength=BINS) for side in (True, False))
    )


def malignant_scores(probabilities: np.ndarray, malignant: Sequence[Optional[bool]]) -> np.ndarray:
    """Return the probability that a lesion is malignant, float64, shape (n,)."""
    scores: np.ndarray = probabilities[:, [flag is True for flag in malignant]].sum(axis=1)
    return scores


class OperatingPoint(NamedTuple):
    """From ``threshold`` on a lesion is called malignant; shares of validation images, None if undefined."""

    threshold: float
    sensitivity: float
    specificity: Optional[float]


def threshold_at_sensitivity(found: Malignant, sensitivity: float) -> Optional[OperatingPoint]:
    """Return the highest threshold between bins at which at least that share of malignant lesions is found.

    Below the lowest edge there is only the threshold 0, at which all are called malignant. None without a
    malignant lesion.
    """
    positives, negatives = int(found.positive.sum()), int(found.negative.sum())
    if not positives:
        return None
    reached = np.cumsum(found.positive[::-1])[::-1]
    # compared in counts: a share is not exact in floating point
    cut = int(np.flatnonzero(reached >= np.ceil(positives * sensitivity - 1e-9)).max())
    below = int(found.negative[:cut].sum())
    return OperatingPoint(
        float(EDGES[cut - 1]) if cut else 0.0,
        float(reached[cut] / positives),
        float(below / negatives) if negatives else None,
    )


def _entropies(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the sums of the images' cross entropies at each temperature, float64."""
    rows = np.arange(len(labels))
    logits = np.log(np.maximum(probabilities, 1e-300))
    found = []
    for temperature in TEMPERATURES:
        scaled = logits / temperature
        top = scaled.max(axis=1)
        nats = top + np.log(np.exp(scaled - top[:, None]).sum(axis=1)) - scaled[rows, labels]
        found.append(float(np.minimum(nats, MOST_NATS).sum()))
    return np.array(found)

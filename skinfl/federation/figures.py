"""How hospitals fare, as sums: what was one hospital's loss and confusion matrix is everybody's.

A contribution ends with a segment ``figures``: the training loss times the weight, then how a model did on
the hospital's own test images: the confusion matrix over the public unit of images, and for each metric that
a confusion matrix does not give, that metric times the number of test images (over the unit), and
that number itself where the metric is defined there. Only sums over hospitals are opened.
"""

from __future__ import annotations

from typing import Any, Dict, Mapping, Optional, Sequence

import numpy as np

from skinfl.metrics import confusion_metrics
from skinfl.protection.layout import Segment

#: averaged over the hospitals, by their number of test images
AVERAGED = ("auc", "melanoma_sensitivity_at_90_specificity", "ece", "loss")


def evaluation_size(classes: int) -> int:
    """Return how many numbers tell how a model did at one hospital."""
    return classes**2 + 2 * len(AVERAGED)


def evaluation_segment(classes: int) -> Segment:
    """Return the segment of an evaluation that is summed for itself."""
    return Segment("evaluation", evaluation_size(classes), "count")


def personal_segment(classes: int) -> Segment:
    """Return the segment of an evaluation of the hospitals' own models, beside that of the common one."""
    return Segment("personal", evaluation_size(classes), "count")


def training_segment(classes: int) -> Segment:
    """Return the segment that ends every contribution."""
    return Segment("figures", 1 + evaluation_size(classes), "count")


def pack_evaluation(metrics: Optional[Mapping[str, Any]], classes: int, unit: int) -> np.ndarray:
    """Return one hospital's metrics as numbers that may be added, float64; zeros where it has none."""
    if metrics is None:
        return np.zeros(evaluation_size(classes))
    confusion = np.asarray(metrics["confusion"], np.float64)
    share = confusion.sum() / unit
    averaged = [
        number
        for name in AVERAGED
        for number in ((0.0, 0.0) if metrics[name] is None else (metrics[name] * share, share))
    ]
    return np.concatenate([confusion.reshape(-1) / unit, averaged])


def unpack_evaluation(total: np.ndarray, classes: Sequence[str], unit: int) -> Optional[Dict[str, Any]]:
    """Return the metrics of a sum over hospitals, None where no test image is in it.

    They have the keys of :func:`skinfl.metrics.evaluate_predictions` and ``"loss"``; those of
    :data:`AVERAGED` are means over the hospitals, not what the images together would give.
    """
    number = len(classes)
    confusion = np.rint(total[: number**2] * unit).astype(int).reshape(number, number)
    if confusion.sum() <= 0 or confusion.min() < 0:
        return None
    sums = total[number**2 :].reshape(-1, 2)
    averaged = {
        name: float(value / share) if share * unit > 0.5 else None
        for name, (value, share) in zip(AVERAGED, sums)
    }
    return {**confusion_metrics(confusion, classes), **averaged}

"""What a classifier's probabilities are worth: the numbers every table and figure is made of.

A metric that the data at hand does not define (the AUC of a class without a single image, say) is
``None``, never NaN and never a made-up 0, so that the result can be written as JSON and read back.
"""

from __future__ import annotations

from typing import Any, Dict, Iterable, List, Mapping, Optional, Sequence, Tuple

import numpy as np
from sklearn.metrics import roc_auc_score, roc_curve

from skinfl.errors import TrainingError

ECE_BINS = 15
MELANOMA_SPECIFICITY = 0.90
MELANOMA_NAMES = ("mel", "melanoma")
#: those that are one number each
SCALARS = (
    "accuracy",
    "balanced_accuracy",
    "macro_f1",
    "auc",
    "melanoma_sensitivity_at_90_specificity",
    "ece",
    "loss",
)
SPREAD_METRICS = ("balanced_accuracy", "accuracy")


def evaluate_predictions(
    probabilities: np.ndarray, labels: np.ndarray, class_names: Sequence[str]
) -> Dict[str, Any]:
    """Return the metrics of ``probabilities``, shape ``(n, classes)``, for ``labels``, shape ``(n,)``.

    The class with the largest probability is the prediction. All values are Python floats, ints,
    lists and dicts, or ``None`` where undefined (all of them but counts when ``n`` is 0):

    - ``accuracy``
    - ``balanced_accuracy``: mean sensitivity over the classes present in the labels; the goal metric
      of the ISIC 2018 and 2019 challenges
    - ``macro_f1``: mean F1 over the classes present in the labels or among the predictions
    - ``auc``: mean one-vs-rest area under the ROC curve over the classes for which it is defined
    - ``melanoma_sensitivity_at_90_specificity``: see :func:`sensitivity_at_specificity`; for the class
      named ``mel`` or ``melanoma`` in any case, ``None`` where there is none
    - ``ece``: see :func:`expected_calibration_error`
    - ``per_class``: ``{name: {sensitivity, specificity, auc, support}}``
    - ``confusion``: counts, one row per true class, one column per predicted class

    Raises ValueError for shapes or labels that do not fit, :class:`~skinfl.errors.TrainingError` for
    probabilities that are not finite, as a diverged network gives.
    """
    probabilities, labels = _checked(probabilities, labels, len(class_names))
    predicted = probabilities.argmax(axis=1)
    auc = [_auc(probabilities[:, k], labels == k) for k in range(len(class_names))]
    found = confusion_metrics(confusion_counts(labels, predicted, len(class_names)), class_names)
    for k, name in enumerate(class_names):
        found["per_class"][str(name)]["auc"] = auc[k]
    found["auc"] = mean_of_known(auc)
    found["melanoma_sensitivity_at_90_specificity"] = _melanoma(probabilities, labels, class_names)
    found["ece"] = expected_calibration_error(probabilities, labels)
    return found


def confusion_metrics(confusion: np.ndarray, class_names: Sequence[str]) -> Dict[str, Any]:
    """Return the metrics of :func:`evaluate_predictions` that a confusion matrix gives; the others are None.

    ``confusion``: counts, shape ``(classes, classes)``, one row per true class.
    """
    sensitivity = _ratios(np.diag(confusion), confusion.sum(axis=1))
    others = confusion.sum() - confusion.sum(axis=1)
    false_positives = confusion.sum(axis=0) - np.diag(confusion)
    specificity = _ratios(others - false_positives, others)
    f1 = _ratios(2 * np.diag(confusion), confusion.sum(axis=0) + confusion.sum(axis=1))
    return {
        "accuracy": _ratios([np.trace(confusion)], [confusion.sum()])[0],
        "balanced_accuracy": mean_of_known(sensitivity),
        "macro_f1": mean_of_known(f1),
        "auc": None,
        "melanoma_sensitivity_at_90_specificity": None,
        "ece": None,
        "per_class": {
            str(name): {
                "sensitivity": sensitivity[k],
                "specificity": specificity[k],
                "auc": None,
                "support": int(confusion[k].sum()),
            }
            for k, name in enumerate(class_names)
        },
        "confusion": confusion.tolist(),
    }


def expected_calibration_error(
    probabilities: np.ndarray, labels: np.ndarray, bins: int = ECE_BINS
) -> Optional[float]:
    """Return how far confidence is from accuracy, 0 (calibrated) to 1, ``None`` without examples.

    The largest probability is the confidence. Examples fall into ``bins`` intervals of equal width,
    ``((m-1)/bins, m/bins]``; the error is the mean over examples of their bin's
    ``|accuracy - mean confidence|``. Guo et al., *On Calibration of Modern Neural Networks*, ICML
    2017, equation 3.
    """
    if len(labels) == 0:
        return None
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == labels
    gap = np.bincount(confidence_bins(confidence, bins), weights=correct - confidence, minlength=bins)
    return float(np.abs(gap).sum() / len(labels))


def confidence_bins(confidence: np.ndarray, bins: int = ECE_BINS) -> np.ndarray:
    """Return which of the intervals of :func:`expected_calibration_error` each confidence falls into."""
    # Rounding may carry a sum of softmax outputs past 1: such a confidence belongs to the last bin.
    which: np.ndarray = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    return which


def sensitivity_at_specificity(
    scores: np.ndarray, positive: np.ndarray, specificity: float
) -> Optional[float]:
    """Return the highest sensitivity of any threshold whose specificity is at least ``specificity``.

    ``scores`` and the boolean ``positive`` have shape ``(n,)``. A clinic works at one operating point,
    not on a whole curve. Studies on the ISIC challenges compare at a fixed sensitivity, that of
    dermatologists (Marchetti et al., *Results of the 2016 ISIC ISBI challenge*, J Am Acad Dermatol
    78(2), 2018); here, in that manner, specificity is fixed. Only thresholds that exist count,
    nothing is interpolated. ``None`` unless both positive and negative examples exist.
    """
    if not _both_present(positive):
        return None
    # Thresholds on a straight piece of the curve would be dropped by default, and are needed here.
    false_positive_rate, sensitivity, _ = roc_curve(positive, scores, drop_intermediate=False)
    negatives = np.count_nonzero(~positive)
    # Compared in counts: 1 - specificity is not exact in floating point.
    allowed = np.floor(negatives * (1 - specificity) + 1e-9)
    return float(sensitivity[np.rint(false_positive_rate * negatives) <= allowed].max())


def spread(per_hospital: Mapping[str, Mapping[str, Any]]) -> Dict[str, Dict[str, Optional[float]]]:
    """Return ``{metric: {min, max, std}}`` over hospitals, for balanced accuracy and accuracy.

    ``per_hospital`` maps each hospital to what :func:`evaluate_predictions` returned there. ``std`` is
    the population's: the hospitals are all there are, not a sample. Hospitals where the metric is
    ``None`` are passed over; without any other the values are ``None``.
    """
    result = {}
    for metric in SPREAD_METRICS:
        values = [metrics[metric] for metrics in per_hospital.values() if metrics[metric] is not None]
        result[metric] = {
            "min": min(values) if values else None,
            "max": max(values) if values else None,
            "std": float(np.std(values)) if values else None,
        }
    return result


def _checked(probabilities: np.ndarray, labels: np.ndarray, classes: int) -> Tuple[np.ndarray, np.ndarray]:
    probabilities = np.asarray(probabilities, dtype=np.float64)
    labels = np.asarray(labels)
    if labels.ndim != 1 or probabilities.shape != (len(labels), classes):
        raise ValueError(
            f"probabilities of shape {probabilities.shape} do not fit labels of shape {labels.shape} "
            f"and {classes} classes"
        )
    if len(labels) and not (0 <= labels.min() and labels.max() < classes):
        raise ValueError(f"labels must lie in 0..{classes - 1}, found {labels.min()}..{labels.max()}")
    if not np.isfinite(probabilities).all():
        raise TrainingError(
            "the network's probabilities are not numbers: training diverged, try a smaller learning rate"
        )
    return probabilities, labels.astype(int)


def confusion_counts(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Return the confusion matrix, int, shape (classes, classes), one row per true class."""
    cells = np.asarray(labels, dtype=int) * classes + predicted
    return np.bincount(cells, minlength=classes**2).reshape(classes, classes)


def _melanoma(probabilities: np.ndarray, labels: np.ndarray, class_names: Sequence[str]) -> Optional[float]:
    for k, name in enumerate(class_names):
        if str(name).lower() in MELANOMA_NAMES:
            return sensitivity_at_specificity(probabilities[:, k], labels == k, MELANOMA_SPECIFICITY)
    return None


def _auc(scores: np.ndarray, positive: np.ndarray) -> Optional[float]:
    return float(roc_auc_score(positive, scores)) if _both_present(positive) else None


def _both_present(positive: np.ndarray) -> bool:
    return bool(positive.any() and not positive.all())


def _ratios(counts: Iterable[Any], totals: Iterable[Any]) -> List[Optional[float]]:
    return [float(count / total) if total else None for count, total in zip(counts, totals)]


def mean_of_known(values: Sequence[Optional[float]]) -> Optional[float]:
    """Return the mean of those that are not None, None where none is known."""
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if defined else None

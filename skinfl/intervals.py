"""How sure a metric is: intervals by the bootstrap over lesions.

Photographs of one lesion are no independent tests, so lesions are drawn, each with all its photographs.
"""

from __future__ import annotations

from typing import Dict, List, Optional, Sequence, Tuple, Union

import numpy as np

from skinfl.metrics import MELANOMA_NAMES, MELANOMA_SPECIFICITY

#: the metrics of :func:`skinfl.metrics.evaluate_predictions` that intervals are made for
METRICS = ("accuracy", "balanced_accuracy", "macro_f1", "auc", "melanoma_sensitivity_at_90_specificity")
RESAMPLES = 1000
LEVEL = 0.95
#: weights of resamples held at once, which bounds memory
_WEIGHTS = 2_000_000

Interval = Optional[List[float]]


def bootstrap_intervals(
    probabilities: np.ndarray,
    labels: np.ndarray,
    groups: Union[Sequence[str], np.ndarray],
    class_names: Sequence[str],
    *,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> Dict[str, Interval]:
    """Return ``{metric: [low, high]}`` for :data:`METRICS`, percentiles of the bootstrap's distribution.

    ``probabilities`` has shape ``(n, classes)``, ``labels`` and ``groups`` have shape ``(n,)``: photographs
    of one group (a lesion, or a patient) are drawn together, as many groups as there are, with replacement. A
    resample that does not define a metric is left out of its interval; ``None`` stands where none defines it,
    and everywhere for fewer than two groups. The same seed gives the same intervals on any machine.

    Efron and Tibshirani, *An Introduction to the Bootstrap*, 1993, chapter 13; for groups, Field and Welsh,
    *Bootstrapping clustered data*, J. R. Stat. Soc. B 69(3), 2007.

    Raises ValueError for shapes or labels that do not fit, a level outside 0 to 1, and no resamples.
    """
    return _intervals([probabilities], labels, groups, class_names, resamples, level, seed)


def paired_intervals(
    probabilities: np.ndarray,
    reference: np.ndarray,
    labels: np.ndarray,
    groups: Union[Sequence[str], np.ndarray],
    class_names: Sequence[str],
    *,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> Dict[str, Interval]:
    """Return ``{metric: [low, high]}`` of how much higher it is for ``probabilities`` than for ``reference``.

    Both networks answer for the same photographs, so each resample draws the same lesions for both, and what
    makes a photograph hard for either cancels. Otherwise as :func:`bootstrap_intervals`.
    """
    return _intervals([probabilities, reference], labels, groups, class_names, resamples, level, seed)


def _intervals(
    answers: Sequence[np.ndarray],
    labels: np.ndarray,
    groups: Union[Sequence[str], np.ndarray],
    class_names: Sequence[str],
    resamples: int,
    level: float,
    seed: int,
) -> Dict[str, Interval]:
    """Return the intervals of one network's metrics, or of how much higher the first one's are of two."""
    checked = [_checked(shares, labels, groups, class_names, level, resamples) for shares in answers]
    names, of = _groups(groups)
    if names < 2:
        return dict.fromkeys(METRICS)
    found = _resampled([shares for shares, _ in checked], checked[0][1], of, class_names, resamples, seed)
    values = found[0] if len(found) == 1 else found[0] - found[1]
    ends = 50 * (1 - level), 50 * (1 + level)
    return {name: _ends(each[np.isfinite(each)], ends) for name, each in zip(METRICS, values)}


def _checked(
    probabilities: np.ndarray,
    labels: np.ndarray,
    groups: Union[Sequence[str], np.ndarray],
    class_names: Sequence[str],
    level: float,
    resamples: int,
) -> Tuple[np.ndarray, np.ndarray]:
    probabilities, labels = np.asarray(probabilities, dtype=np.float64), np.asarray(labels, dtype=np.int64)
    classes = len(class_names)
    if labels.ndim != 1 or probabilities.shape != (len(labels), classes) or len(groups) != len(labels):
        raise ValueError(
            f"probabilities of shape {probabilities.shape}, labels of shape {labels.shape}, "
            f"{len(groups)} groups and {classes} classes do not fit one another"
        )
    if len(labels) and not (0 <= labels.min() and labels.max() < classes):
        raise ValueError(f"labels must lie in 0..{classes - 1}, found {labels.min()}..{labels.max()}")
    if not 0 < level < 1 or resamples < 1:
        raise ValueError(f"no interval of level {level} is made of {resamples} resamples")
    return probabilities, labels


def _groups(groups: Union[Sequence[str], np.ndarray]) -> Tuple[int, np.ndarray]:
    """Return how many groups there are, and the number of each photograph's."""
    names, of = np.unique(np.asarray([str(group) for group in groups]), return_inverse=True)
    return len(names), of.reshape(-1)


def _resampled(
    answers: Sequence[np.ndarray],
    labels: np.ndarray,
    of: np.ndarray,
    class_names: Sequence[str],
    resamples: int,
    seed: int,
) -> List[np.ndarray]:
    """Return :data:`METRICS` of each resample for each network's answers, shape (metrics, resamples).

    All networks' metrics are of the same resamples.
    """
    classes, groups = len(class_names), int(of.max()) + 1
    rng = np.random.Generator(np.random.PCG64(seed))
    melanoma = next((k for k, name in enumerate(class_names) if str(name).lower() in MELANOMA_NAMES), None)
    prepared = []
    for probabilities in answers:
        curves = [_Curve(probabilities[:, k], labels == k) for k in range(classes)]
        cells = labels * classes + probabilities.argmax(axis=1)
        counts = np.bincount(of * classes**2 + cells, minlength=groups * classes**2)
        prepared.append((curves, counts.reshape(groups, classes**2).astype(np.float64)))
    parts: List[List[np.ndarray]] = [[] for _ in answers]
    step = max(1, _WEIGHTS // len(labels))
    for first in range(0, resamples, step):
        count = min(step, resamples - first)
        # By uniform numbers, whose stream is the same in every version of numpy.
        drawn = np.minimum((rng.random((count, groups)) * groups).astype(np.int64), groups - 1)
        drawn += np.arange(count)[:, None] * groups
        times = np.bincount(drawn.reshape(-1), minlength=count * groups).reshape(count, groups)
        weights = times[:, of].astype(np.float64)
        for part, (curves, confusions) in zip(parts, prepared):
            confusion = (times @ confusions).reshape(count, classes, classes)
            part.append(_metrics(confusion, weights, curves, melanoma))
    return [np.concatenate(part, axis=1) for part in parts]


class _Curve:
    """One class's ROC curve, whose points any weights of the photographs move."""

    def __init__(self, scores: np.ndarray, positive: np.ndarray):
        self._order = np.argsort(-scores, kind="stable")
        ordered = scores[self._order]
        # Photographs of one score pass a threshold together.
        self._starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
        self._positive = positive[self._order]

    def steps(self, weights: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
        """Return what each threshold adds of positives and negatives, shapes (resamples, thresholds)."""
        ordered = weights[:, self._order]
        gained = np.add.reduceat(ordered * self._positive, self._starts, axis=1)
        return gained, np.add.reduceat(ordered, self._starts, axis=1) - gained


def _metrics(
    confusion: np.ndarray, weights: np.ndarray, curves: Sequence[_Curve], melanoma: Optional[int]
) -> np.ndarray:
    """Return :data:`METRICS` of each resample, shape (metrics, resamples), NaN where undefined."""
    hit = np.einsum("rkk->rk", confusion)
    true, told = confusion.sum(axis=2), confusion.sum(axis=1)
    auc, sensitivity = [], np.full(len(confusion), np.nan)
    for k, curve in enumerate(curves):
        gained, lost = curve.steps(weights)
        positives, negatives = gained.sum(axis=1), lost.sum(axis=1)
        passed = np.cumsum(gained, axis=1)
        # Each negative is worth the positives above it, and half of those beside it.
        auc.append(_ratio((lost * (passed - gained / 2)).sum(axis=1), positives * negatives))
        if k == melanoma:
            allowed = np.floor(negatives * (1 - MELANOMA_SPECIFICITY) + 1e-9)
            caught = np.where(np.cumsum(lost, axis=1) <= allowed[:, None], passed, 0).max(axis=1)
            sensitivity = np.where(negatives > 0, _ratio(caught, positives), np.nan)
    return np.stack(
        [
            _ratio(hit.sum(axis=1), true.sum(axis=1)),
            _mean(_ratio(hit, true)),
            _mean(_ratio(2 * hit, true + told)),
            _mean(np.stack(auc, axis=1)),
            sensitivity,
        ]
    )


def _ratio(counts: np.ndarray, totals: np.ndarray) -> np.ndarray:
    return np.where(totals > 0, counts / np.where(totals > 0, totals, 1), np.nan)


def _mean(values: np.ndarray) -> np.ndarray:
    """Return the mean over the last axis of what is defined there."""
    defined = np.isfinite(values)
    return _ratio(np.where(defined, values, 0).sum(axis=-1), defined.sum(axis=-1))


def _ends(values: np.ndarray, ends: Tuple[float, float]) -> Interval:
    return [float(end) for end in np.percentile(values, ends)] if len(values) else None

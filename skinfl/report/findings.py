"""What a report finds in the answers for a test set: intervals, subgroups, and plain sentences.

Plain dicts and lists, as ``result.json`` holds them. All intervals draw lesions, never photographs.
"""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from skinfl.intervals import LEVEL, bootstrap_intervals, paired_intervals
from skinfl.metrics import (
    ECE_BINS,
    MELANOMA_NAMES,
    confidence_bins,
    confusion_counts,
    evaluate_predictions,
)
from skinfl.predictions import LesionClass, Predictions
from skinfl.report import wording

#: with fewer lesions a subgroup's figures are chance
SMALL = 20
#: youngest age of each band, and what it is called
AGES = (
    (0.0, "under 30"),
    (30.0, "30 to 44"),
    (45.0, "45 to 59"),
    (60.0, "60 to 74"),
    (75.0, "75 and older"),
)
UNKNOWN = "not known"
#: what a comparison decides by
COMPARED = ("accuracy", "balanced_accuracy", "auc")
#: the smallest difference that is seen at three decimals
LEAST = 0.0005


class Curve(NamedTuple):
    """An ROC curve: ``name`` is a class's, or None for malignant against benign."""

    name: Optional[str]
    false_positives: np.ndarray
    sensitivity: np.ndarray
    auc: float
    interval: Optional[List[float]]


class Bins(NamedTuple):
    """A reliability diagram: of each interval of confidence, photographs, mean confidence, share right."""

    edges: np.ndarray
    counts: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray


def diagnosed(found: Predictions) -> Predictions:
    """Return the photographs whose diagnosis is known."""
    return _rows(found, found.labels >= 0)


def summary(found: Predictions, seed: int, thresholds: Optional[Mapping[str, Any]] = None) -> Dict[str, Any]:
    """Return what ``result.json`` says of a test set beside the metrics.

    ``intervals``: ``{metric: [low, high] or None}``. ``auc_intervals``: the same by class, and of malignant
    against benign under ``"malignant"``. ``subgroups``: see :func:`subgroups`. ``sentences``: see
    :func:`sentences` and :func:`threshold_sentences`, whose ``thresholds`` were chosen on validation images.
    """
    found = diagnosed(found)
    curves = roc_curves(found, seed)
    malignant = sum(bool(found.classes[int(label)].malignant) for label in found.labels)
    benign = sum(found.classes[int(label)].malignant is False for label in found.labels)
    return {
        "intervals": bootstrap_intervals(
            found.probabilities, found.labels, lesions(found), found.names, seed=seed
        ),
        "auc_intervals": {curve.name or wording.MALIGNANT: curve.interval for curve in curves},
        "subgroups": subgroups(found, seed),
        "sentences": [
            *sentences(confusion_of(found), found.classes, lesions_of_classes(found)),
            *threshold_sentences(thresholds, malignant, benign),
        ],
    }


def lesions(found: Predictions) -> List[str]:
    """Return the lesion of each photograph; one whose lesion is not known counts as a lesion of its own."""
    return [str(lesion) or f"\0{i}" for i, lesion in enumerate(found.lesion_ids)]


def lesions_of_classes(found: Predictions) -> List[int]:
    """Return how many lesions each class has."""
    of = np.asarray(lesions(found), dtype=object)
    return [len(set(of[found.labels == k])) for k in range(len(found.classes))]


def confusion_of(found: Predictions) -> np.ndarray:
    """Return counts, shape (classes, classes), one row per true class."""
    return confusion_counts(found.labels, found.predicted, len(found.classes))


def sentences(
    confusion: np.ndarray, classes: Sequence[LesionClass], lesions: Optional[Sequence[int]] = None
) -> List[str]:
    """Return in plain words what the confusion matrix says, what matters most first.

    ``lesions``: how many each class has; None where nobody knows.
    """
    confusion = np.asarray(confusion)
    if not confusion.sum():
        return ["There is no test image: nothing is known of how good the model is."]
    told = []
    melanoma = melanoma_of(classes)
    if melanoma is not None:
        told.append(_melanoma(confusion, classes, melanoma, None if lesions is None else lesions[melanoma]))
    if malignancy_known(classes):
        told.append(_malignant(confusion, np.array([bool(each.malignant) for each in classes])))
    hits, images = int(np.trace(confusion)), int(confusion.sum())
    told.append(f"It names the right class for {_of(hits, images)} test {_images(images)}.")
    return told


def melanoma_of(classes: Sequence[LesionClass]) -> Optional[int]:
    """Return which class is melanoma, None where none is."""
    for k, each in enumerate(classes):
        if each.name.lower() in MELANOMA_NAMES or each.full_name.lower() in MELANOMA_NAMES:
            return k
    return None


def malignancy_known(classes: Sequence[LesionClass]) -> bool:
    """Say whether classes divide into malignant and benign ones, of both kinds and without any doubt."""
    return {each.malignant for each in classes} == {True, False}


def _melanoma(
    confusion: np.ndarray, classes: Sequence[LesionClass], melanoma: int, lesions: Optional[int]
) -> str:
    images = int(confusion[melanoma].sum())
    if not images:
        return "No melanoma is in the test set: whether the model finds any is not known."
    missed = images - int(confusion[melanoma, melanoma])
    # Two photographs of one melanoma are no two melanomas.
    if lesions == images:
        what = "melanoma" if images == 1 else "melanomas"
    else:
        what = f"{_images(images)} of melanoma"
    text = f"The model misses {_of(missed, images)} {what} at the default threshold"
    if missed and malignancy_known(classes):
        benign = sum(int(n) for n, each in zip(confusion[melanoma], classes) if not each.malignant)
        text += f"; {_of_those(benign, missed)} it takes for benign"
    return text + " (the most likely class is its answer)."


def _malignant(confusion: np.ndarray, malignant: np.ndarray) -> str:
    cancers, harmless = confusion[malignant].sum(axis=0), confusion[~malignant].sum(axis=0)
    parts = []
    for counts, right, kind, other in (
        (cancers, malignant, "malignant", "benign"),
        (harmless, ~malignant, "benign", "malignant"),
    ):
        images, wrong = int(counts.sum()), int(counts[~right].sum())
        if images:
            parts.append(f"{_of(wrong, images)} {_images(images)} of {kind} lesions for {other}")
        else:
            parts.append(f"no {kind} lesion for {other}, as there is none in the test set")
    return f"It takes {parts[0]}, and {parts[1]}."


def _of(count: int, total: int) -> str:
    if count == total > 1:
        return f"all {total:,}"
    return f"{count:,} of {total:,}" if count or total == 1 else f"none of {total:,}"


def _of_those(count: int, total: int) -> str:
    if count == total:
        return "this one" if total == 1 else "all of these"
    return "not one of these" if not count else f"{count:,} of these"


def _images(count: int) -> str:
    return "photograph" if count == 1 else "photographs"


def threshold_sentences(thresholds: Optional[Mapping[str, Any]], malignant: int, benign: int) -> List[str]:
    """Return what becomes of the answers where a lesion is called malignant from a chosen probability on.

    ``thresholds`` is that of ``result.json``, chosen on validation images; None where none was. ``malignant``
    and ``benign`` are the numbers of such test images.
    """
    chosen = (thresholds or {}).get(wording.MALIGNANT)
    if not chosen or not chosen.get("test"):
        return []
    sensitivity, specificity = (chosen["test"][key] for key in ("sensitivity", "specificity"))
    parts = []
    if sensitivity is not None:
        missed = round((1 - sensitivity) * malignant)
        parts.append(f"misses {_of(missed, malignant)} {_images(malignant)} of malignant lesions")
    if specificity is not None:
        wrong = round((1 - specificity) * benign)
        parts.append(f"takes {_of(wrong, benign)} {_images(benign)} of benign lesions for malignant")
    if not parts:
        return []
    return [
        f"Calling a lesion malignant from a probability of {chosen['threshold']:.3f} on, a threshold chosen "
        f"on the hospitals' validation images to find {chosen['target_sensitivity']:.0%} of malignant "
        f"lesions, it {' and '.join(parts)}."
    ]


def subgroups(found: Predictions, seed: int) -> List[Dict[str, Any]]:
    """Return how the network does by sex, age band and site, one dict a group.

    Each has ``by``, ``group``, ``photographs``, ``lesions``, ``too_small``, and with their ``_interval``:
    ``accuracy``, ``balanced_accuracy`` (over the classes that the group has), and where classes divide into
    malignant and benign ones, ``malignant_found`` and ``benign_found``: the shares of such photographs that
    the most likely class puts on the right side, with ``malignant`` and ``benign``, the numbers of these.
    Shares are None where undefined and in groups of fewer than :data:`SMALL` lesions.
    """
    found = diagnosed(found)
    rows = []
    for by, groups in (
        ("sex", [str(sex) or UNKNOWN for sex in found.sexes]),
        ("age", [age_band(age) for age in found.ages]),
        ("site", [str(site) or UNKNOWN for site in found.sites]),
    ):
        names = np.asarray(groups, dtype=object)
        known = {name for name in groups if name != UNKNOWN}
        if known:
            for group in _ordered(by, groups):
                rows.append({"by": by, "group": group, **_group(_rows(found, names == group), seed)})
    return rows


def age_band(age: float) -> str:
    """Return what the band of an age in years is called; an age that is NaN is not known."""
    if np.isnan(age):
        return UNKNOWN
    return [name for youngest, name in AGES if age >= youngest][-1]


def _ordered(by: str, groups: Sequence[str]) -> List[str]:
    """Return a table's order: ages rise, others by size, what is not known last."""
    count = {name: groups.count(name) for name in set(groups)}
    ages = [name for _, name in AGES]
    return sorted(
        count,
        key=lambda name: (name == UNKNOWN, ages.index(name) if name in ages else -count[name], name),
    )


def _group(found: Predictions, seed: int) -> Dict[str, Any]:
    of = lesions(found)
    row: Dict[str, Any] = {"photographs": len(of), "lesions": len(set(of))}
    row["too_small"] = row["lesions"] < SMALL
    keys = ["accuracy", "balanced_accuracy"]
    malignant = None
    if malignancy_known(found.classes):
        malignant = np.array([bool(each.malignant) for each in found.classes])
        row["malignant"] = int(malignant[found.labels].sum())
        row["benign"] = len(of) - row["malignant"]
        keys += ["malignant_found", "benign_found"]
    row.update({name: None for key in keys for name in (key, f"{key}_interval")})
    if row["too_small"]:
        return row
    metrics = evaluate_predictions(found.probabilities, found.labels, found.names)
    intervals = bootstrap_intervals(found.probabilities, found.labels, of, found.names, seed=seed)
    for key in ("accuracy", "balanced_accuracy"):
        row[key], row[f"{key}_interval"] = metrics[key], intervals[key]
    if malignant is not None:
        right = malignant[found.predicted] == malignant[found.labels]
        for key, kind in (("malignant", malignant[found.labels]), ("benign", ~malignant[found.labels])):
            groups = [lesion for lesion, one in zip(of, kind) if one]
            share, interval = share_with_interval(right[kind], groups, seed)
            row[f"{key}_found"], row[f"{key}_found_interval"] = share, interval
    return row


def share_with_interval(
    hits: np.ndarray, groups: Sequence[str], seed: int
) -> Tuple[Optional[float], Optional[List[float]]]:
    """Return the share of ``hits``, bool of shape (n,), and its interval over lesions.

    Where all or none hit, drawing them again says nothing of those that might have been: the interval is then
    the exact one of Clopper and Pearson (Biometrika 26, 1934) for so many lesions.
    """
    if not len(hits):
        return None, None
    if np.all(hits) or not np.any(hits):
        far = ((1 - LEVEL) / 2) ** (1 / len(set(groups)))
        return (1.0, [far, 1.0]) if np.all(hits) else (0.0, [0.0, 1 - far])
    answers = np.eye(2)[np.asarray(hits, dtype=np.int64)]
    ones = np.ones(len(hits), dtype=np.int64)
    interval = bootstrap_intervals(answers, ones, groups, ("wrong", "right"), seed=seed)["accuracy"]
    return float(np.mean(hits)), interval


def roc_curves(found: Predictions, seed: int, intervals: bool = True) -> List[Curve]:
    """Return the curves that the test set defines: malignant against benign first, then each class."""
    from sklearn.metrics import roc_auc_score, roc_curve

    found = diagnosed(found)
    scored: List[Tuple[Optional[str], np.ndarray, np.ndarray]] = []
    if malignancy_known(found.classes):
        malignant = np.array([bool(each.malignant) for each in found.classes])
        scored.append((None, found.probabilities[:, malignant].sum(axis=1), malignant[found.labels]))
    for k, name in enumerate(found.names):
        scored.append((name, found.probabilities[:, k], found.labels == k))
    curves = []
    for curve, scores, positive in scored:
        if not positive.any() or positive.all():
            continue
        false_positives, sensitivity, _ = roc_curve(positive, scores)
        interval = None
        if intervals:
            two = np.stack([-scores, scores], axis=1)
            labels = positive.astype(np.int64)
            interval = bootstrap_intervals(two, labels, lesions(found), ("rest", "class"), seed=seed)["auc"]
        auc = float(roc_auc_score(positive, scores))
        curves.append(Curve(curve, false_positives, sensitivity, auc, interval))
    return curves


def reliability(found: Predictions) -> Bins:
    """Return the bins that the expected calibration error is made of: how often the answer is right."""
    found = diagnosed(found)
    confidence = found.probabilities.max(axis=1)
    which = confidence_bins(confidence)
    counts = np.bincount(which, minlength=ECE_BINS)
    least = np.maximum(counts, 1)
    right = np.bincount(which, weights=found.predicted == found.labels, minlength=ECE_BINS)
    total = np.bincount(which, weights=confidence, minlength=ECE_BINS)
    return Bins(np.linspace(0, 1, ECE_BINS + 1), counts, total / least, right / least)


def differences(found: Predictions, reference: Predictions, seed: int) -> Dict[str, Any]:
    """Return how one network's answers for a test set differ from another's, with paired intervals.

    ``{"same_answers": photographs, "photographs": n, metric: {"difference": d, "interval": [low, high] or
    None}}`` for each of :data:`COMPARED`. Raises ValueError where the two are not of the same photographs.
    """
    if list(found.image_ids) != list(reference.image_ids) or not np.array_equal(
        found.labels, reference.labels
    ):
        raise ValueError("the answers are of different photographs")
    found, reference = diagnosed(found), diagnosed(reference)
    ours, theirs = (evaluate_predictions(p.probabilities, p.labels, p.names) for p in (found, reference))
    intervals = paired_intervals(
        *(found.probabilities, reference.probabilities, found.labels, lesions(found), found.names), seed=seed
    )
    return {
        "same_answers": int((found.predicted == reference.predicted).sum()),
        "photographs": len(found.labels),
        **{
            key: {
                "difference": None if ours[key] is None else ours[key] - theirs[key],
                "interval": intervals[key],
            }
            for key in COMPARED
        },
    }


def verdicts(reference: str, found: Mapping[str, Mapping[str, Any]]) -> List[str]:
    """Return whether protections differ from ``reference`` by more than noise: of all, then of each.

    ``found`` has what :func:`differences` returned, by protection.
    """
    if not found:
        return []
    if not all(each["photographs"] for each in found.values()):
        return ["There is no test image: how protections differ is not known."]
    noisy = [name for name, each in found.items() if not exceeding(each)]
    others = [name for name in found if name not in noisy]
    if not others:
        first = f"No figure of {' or '.join(noisy)} differs from {reference} by more than noise"
    else:
        first = f"Figures differ from {reference} by more than noise with {' and '.join(others)}"
        first += f", and not with {' or '.join(noisy)}" if noisy else ""
    return [f"{first}.", *(_verdict(name, reference, each) for name, each in found.items())]


def exceeding(found: Mapping[str, Any]) -> List[str]:
    """Return which of :data:`COMPARED` differ by more than noise: zero is outside their interval.

    What rounds to nothing is no difference, however sure it is: an encryption that rounds may always move
    probabilities the same way.
    """
    moved = []
    for key in COMPARED:
        change, ends = found[key]["difference"], found[key]["interval"]
        if ends is not None and (ends[0] > 0 or ends[1] < 0) and abs(change) >= LEAST:
            moved.append(key)
    return moved


def _verdict(name: str, reference: str, found: Mapping[str, Any]) -> str:
    same, images = found["same_answers"], found["photographs"]
    moved = exceeding(found)
    if same == images and not moved:
        return f"{name} gives the same answer as {reference} for {_every(images)}."
    answers = f"it gives the same answer for {_of(same, images)} {_images(images)}"
    if not moved:
        widest = found["balanced_accuracy"]
        return (
            f"{name} differs from {reference} by no more than noise: {answers}, and balanced accuracy "
            f"differs by {_change(widest)}."
        )
    listed = ", ".join(
        f"{wording.METRIC_LABELS[key].lower() if key != 'auc' else 'AUC'} by {_change(found[key])}"
        for key in moved
    )
    return f"{name} differs from {reference} by more than noise: {listed}; {answers}."


def _every(images: int) -> str:
    return "the only test photograph" if images == 1 else f"all {images:,} test photographs"


def _change(found: Mapping[str, Any]) -> str:
    text = wording.change(found["difference"])
    interval = found["interval"]
    if interval is None:
        return text
    return f"{text} (95% interval {wording.change(interval[0])} to {wording.change(interval[1])})"


def _rows(found: Predictions, chosen: np.ndarray) -> Predictions:
    """Return the photographs where ``chosen``, bool of shape (n,), is True."""
    return Predictions(found.classes, *(column[chosen] for column in found[1:]))

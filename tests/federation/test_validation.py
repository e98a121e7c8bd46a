"""What sums over hospitals say of all their validation images, against the images in one place."""

from __future__ import annotations

import numpy as np
import pytest

from skinfl.errors import TrainingError
from skinfl.federation.validation import (
    EDGES,
    MOST_NATS,
    TEMPERATURES,
    Malignant,
    binned_auc,
    malignancy,
    malignant_scores,
    pack_validation,
    tempered,
    threshold_at_sensitivity,
    unpack_validation,
    validation_segment,
)
from skinfl.metrics import evaluate_predictions

CLASSES = ("nv", "mel", "bcc", "other")
MALIGNANT = (False, True, True, None)
UNIT = 512


def answers(n, seed=0, sharpness=2.0, classes=len(CLASSES)):
    """Return probabilities that lean towards their labels."""
    rng = np.random.RandomState(seed)
    labels = rng.choice(classes, n, p=[0.7, 0.15, 0.1, 0.05][:classes])
    logits = rng.normal(0, 2, (n, classes))
    logits[np.arange(n), labels] += sharpness
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shares / shares.sum(axis=1, keepdims=True), labels


def summed(probabilities, labels, cuts, unit=UNIT):
    """Return what the sum says of hospitals that hold consecutive pieces, as float32 on the way."""
    parts = zip(np.split(probabilities, cuts), np.split(labels, cuts))
    packed = [pack_validation(p, k, MALIGNANT, unit).astype(np.float32) for p, k in parts]
    assert {part.shape for part in packed} == {(validation_segment(len(CLASSES)).size,)}
    return unpack_validation(np.sum(packed, axis=0, dtype=np.float64), CLASSES, unit)


@pytest.mark.parametrize("seed", range(5))
def test_the_sum_says_what_all_images_in_one_place_say(seed):
    probabilities, labels = answers(300, seed)
    found = summed(probabilities, labels, [50, 50, 180])  # the second hospital has none
    pooled = evaluate_predictions(probabilities, labels, CLASSES)
    for key in ("accuracy", "balanced_accuracy", "macro_f1", "confusion"):
        assert found[key] == pooled[key], key
    nats = -np.log(probabilities[np.arange(300), labels])
    assert found["images"] == 300
    assert found["loss"] == pytest.approx(nats.mean(), rel=1e-6)
    assert 0 < found["auc_error"] < 0.03
    assert abs(found["auc"] - pooled["auc"]) <= found["auc_error"]
    for name in CLASSES:
        assert abs(found["per_class"][name]["auc"] - pooled["per_class"][name]["auc"]) < 0.05
    shown = tempered(probabilities, found["temperature"])
    histograms = malignancy(shown, labels, MALIGNANT)
    assert found["malignant"] == {
        "positive": histograms.positive.tolist(),
        "negative": histograms.negative.tolist(),
    }
    assert sum(found["malignant"]["positive"]) == np.isin(labels, [1, 2]).sum()
    assert sum(found["malignant"]["negative"]) == (labels == 0).sum()  # of "other" it is not known


@pytest.mark.parametrize("seed", range(20))
def test_the_bound_of_the_binned_auc_holds_where_all_scores_crowd(seed):
    rng = np.random.RandomState(seed)
    scores, positive = rng.beta(0.05, 3.0, 200), rng.random_sample(200) < 0.1
    higher = (scores[positive][:, None] > scores[~positive]).mean()
    equal = (scores[positive][:, None] == scores[~positive]).mean()
    which = np.searchsorted(EDGES, scores, side="right")
    area, error = binned_auc(*(np.bincount(which[positive == side], minlength=32) for side in (True, False)))
    assert abs(area - (higher + equal / 2)) <= error + 1e-12


def test_the_bound_is_reached_by_pairs_in_one_bin_and_nothing_is_lost_between_bins():
    one = np.eye(32, dtype=int)
    assert binned_auc(one[3], one[3]) == (0.5, 0.5)
    assert binned_auc(one[4], one[3]) == (1.0, 0.0)
    assert binned_auc(one[3], one[4]) == (0.0, 0.0)
    assert binned_auc(one[3], 0 * one[3]) is None


@pytest.mark.parametrize("sharpness", [0.3, 1.0, 3.0])
def test_the_temperature_is_the_one_of_least_cross_entropy(sharpness):
    probabilities, labels = answers(2000, sharpness=sharpness)
    found = summed(probabilities, labels, [700, 1500], unit=4096)
    rows = np.arange(len(labels))

    def nats(temperature):
        return -np.log(tempered(probabilities, temperature)[rows, labels]).mean()

    on_grid = [nats(temperature) for temperature in TEMPERATURES]
    assert found["temperature"] == TEMPERATURES[np.argmin(on_grid)]
    assert found["loss_at_temperature"] == pytest.approx(min(on_grid), rel=1e-6) and 1.0 in TEMPERATURES
    # a finer grid would hardly be better
    finer = min(nats(temperature) for temperature in np.exp(np.linspace(np.log(0.25), np.log(8), 501)))
    assert found["loss_at_temperature"] <= 1.005 * finer


def test_a_temperature_changes_no_class_and_one_changes_nothing():
    probabilities, _ = answers(100)
    assert (tempered(probabilities, 3.0).argmax(axis=1) == probabilities.argmax(axis=1)).all()
    assert tempered(probabilities, 1.0) == pytest.approx(probabilities, abs=1e-12)
    sure = np.array([[1.0, 0.0]])
    assert np.isfinite(tempered(sure, 8.0)).all() and tempered(sure, 8.0)[0, 0] == pytest.approx(1.0)


def test_at_the_ends_of_the_grid_the_grid_decides():
    # always right and unsure, always sure and often wrong
    unsure, sure = np.full((4, 4), 0.2), np.full((4, 4), 1e-6)
    np.fill_diagonal(unsure, 0.4)
    sure[:, 0] = 1 - 3e-6
    assert summed(unsure, np.arange(4), [2])["temperature"] == TEMPERATURES[0] == 0.25
    assert summed(sure, np.arange(4), [2])["temperature"] == TEMPERATURES[-1] == 8.0


def test_one_sure_mistake_does_not_drown_all_others():
    probabilities = np.array([[1.0, 0, 0, 0], [0.25] * 4])
    found = summed(probabilities, np.array([1, 0]), [1])
    assert found["loss"] == pytest.approx((MOST_NATS + np.log(4)) / 2, rel=1e-6)


def test_without_images_nothing_is_said():
    none = np.zeros((0, len(CLASSES)))
    assert summed(none, np.zeros(0, int), []) is None
    assert not pack_validation(none, np.zeros(0, int), MALIGNANT, UNIT).any()


def test_of_one_class_only_the_auc_is_undefined():
    probabilities, _ = answers(20)
    found = summed(probabilities, np.zeros(20, int), [10])
    assert found["auc"] is None and found["auc_error"] is None
    assert found["per_class"]["nv"]["auc"] is None and found["loss"] > 0
    assert sum(found["malignant"]["positive"]) == 0
    histograms = Malignant(*(np.array(found["malignant"][side]) for side in Malignant._fields))
    assert threshold_at_sensitivity(histograms, 0.95) is None


@pytest.mark.parametrize("flags", [(None,) * 4, (False,) * 4, (True,) * 4, (None, True, True, None)])
def test_malignancy_that_is_not_known_is_not_made_up(flags):
    probabilities, labels = answers(20)
    assert not any(side.any() for side in malignancy(probabilities, labels, flags))
    total = pack_validation(probabilities, labels, flags, UNIT)
    assert unpack_validation(total, CLASSES, UNIT)["malignant"] is None


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_probabilities_that_are_no_numbers_are_refused(bad):
    probabilities, labels = answers(20)
    probabilities[3, 2] = bad
    with pytest.raises(TrainingError, match="not numbers"):
        pack_validation(probabilities, labels, MALIGNANT, UNIT)


def test_a_sum_that_no_images_give_says_nothing():
    probabilities, labels = answers(20)
    total = pack_validation(probabilities, labels, MALIGNANT, UNIT)
    for place, value in ((0, -1.0), (len(total) - 1, -1.0), (len(CLASSES) ** 2, np.nan)):
        false = total.copy()
        false[place] = value
        assert unpack_validation(false, CLASSES, UNIT) is None


@pytest.mark.parametrize("target", [0.05, 0.5, 0.8, 0.95, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_the_threshold_is_the_highest_edge_that_finds_enough(target, seed):
    probabilities, labels = answers(200, seed)
    point = threshold_at_sensitivity(malignancy(probabilities, labels, MALIGNANT), target)
    scores = malignant_scores(probabilities, MALIGNANT)
    positive, negative = np.isin(labels, [1, 2]), labels == 0

    def sensitivity(threshold):
        return (scores[positive] >= threshold).mean()

    assert point.sensitivity == sensitivity(point.threshold) >= target
    assert point.specificity == (scores[negative] < point.threshold).mean()
    higher = EDGES[EDGES > point.threshold]
    assert not len(higher) or sensitivity(higher[0]) < target


def test_a_lesion_below_the_lowest_edge_is_found_by_the_threshold_zero():
    lowest = np.eye(32, dtype=int)[0]
    assert threshold_at_sensitivity(Malignant(lowest, lowest), 1.0) == (0.0, 1.0, 0.0)

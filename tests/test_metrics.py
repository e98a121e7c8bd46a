"""Metrics against numbers worked out by hand, written in the comments beside them."""

from __future__ import annotations

import json

import numpy as np
import pytest

from skinfl.errors import TrainingError
from skinfl.metrics import (
    evaluate_predictions,
    expected_calibration_error,
    sensitivity_at_specificity,
    spread,
)

CLASSES = ["nv", "mel", "bkl"]
# true     nv   nv   nv   nv   mel  mel        (no bkl)
# says     nv   nv   nv   mel  mel  bkl
PROBABILITIES = np.array(
    [
        [0.80, 0.10, 0.10],
        [0.70, 0.20, 0.10],
        [0.60, 0.30, 0.10],
        [0.30, 0.50, 0.20],
        [0.05, 0.90, 0.05],
        [0.20, 0.35, 0.45],
    ]
)
LABELS = np.array([0, 0, 0, 0, 1, 1])


@pytest.fixture(scope="module")
def metrics():
    return evaluate_predictions(PROBABILITIES, LABELS, CLASSES)


def test_confusion_has_one_row_per_true_class(metrics):
    assert metrics["confusion"] == [[3, 1, 0], [0, 1, 1], [0, 0, 0]]


def test_accuracies(metrics):
    assert metrics["accuracy"] == pytest.approx(4 / 6)
    # nv 3/4, mel 1/2; bkl has no images and does not count
    assert metrics["balanced_accuracy"] == pytest.approx((3 / 4 + 1 / 2) / 2)


def test_macro_f1_counts_a_class_that_was_only_predicted(metrics):
    # nv: precision 1, recall 3/4 -> 6/7; mel: 1/2, 1/2 -> 1/2; bkl predicted once, wrongly -> 0
    assert metrics["macro_f1"] == pytest.approx((6 / 7 + 1 / 2 + 0) / 3)


def test_macro_f1_leaves_out_a_class_neither_present_nor_predicted():
    probabilities = np.array([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0]])
    assert evaluate_predictions(probabilities, np.array([0, 1]), CLASSES)["macro_f1"] == 1.0


def test_auc_is_the_share_of_well_ordered_pairs(metrics):
    # nv scores .8 .7 .6 .3 against .05 .2: all 8 pairs right.
    # mel scores .9 .35 against .1 .2 .3 .5: .9 beats 4, .35 beats 3 -> 7/8.
    assert metrics["per_class"]["nv"]["auc"] == pytest.approx(1.0)
    assert metrics["per_class"]["mel"]["auc"] == pytest.approx(7 / 8)
    assert metrics["per_class"]["bkl"]["auc"] is None
    assert metrics["auc"] == pytest.approx((1 + 7 / 8) / 2)


def test_per_class_rates(metrics):
    nv, mel, bkl = (metrics["per_class"][name] for name in CLASSES)
    assert (nv["sensitivity"], nv["specificity"], nv["support"]) == (pytest.approx(3 / 4), 1.0, 4)
    assert (mel["sensitivity"], mel["specificity"], mel["support"]) == (0.5, pytest.approx(3 / 4), 2)
    assert (bkl["sensitivity"], bkl["specificity"], bkl["support"]) == (None, pytest.approx(5 / 6), 0)


def test_expected_calibration_error_by_hand(metrics):
    # Six confidences in six different bins of width 1/15, so the error is the mean |correct - confidence|:
    # .2 .3 .4 .5 .1 .45
    assert metrics["ece"] == pytest.approx((0.2 + 0.3 + 0.4 + 0.5 + 0.1 + 0.45) / 6)


def test_expected_calibration_error_adds_within_a_bin():
    # Two bins: (0, .5] holds .5 (right); (.5, 1] holds .6 (wrong) and .8 (right): |1 - 1.4| / 3 + .5 / 3
    probabilities = np.array([[0.5, 0.5], [0.4, 0.6], [0.8, 0.2]])
    error = expected_calibration_error(probabilities, np.array([0, 0, 0]), bins=2)
    assert error == pytest.approx((0.5 + 0.4) / 3)


def test_certain_and_right_is_calibrated():
    assert expected_calibration_error(np.eye(2), np.array([0, 1])) == 0.0


def test_melanoma_operating_point():
    # Ten others; one may lie above the threshold. Between .8 (the highest) and .5 (the next) two of
    # the four melanomas (.9, .6) are found, .4 and .3 are not.
    others = [0.8, 0.5, 0.2, 0.2, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1]
    melanomas = [0.9, 0.6, 0.4, 0.3]
    mel = np.array(others + melanomas)
    labels = np.array([0] * 10 + [1] * 4)
    result = evaluate_predictions(np.stack([1 - mel, mel], axis=1), labels, ["nv", "MEL"])
    assert result["melanoma_sensitivity_at_90_specificity"] == 0.5


def test_operating_point_on_a_straight_piece_of_the_curve():
    # 30 others fill the top two steps; three of them (fpr 3/30) are allowed although 1 - 0.9 < 3/30
    # in floating point.
    scores = np.array([0.9] * 3 + [0.8] * 3 + [0.1] * 24 + [0.9] * 5 + [0.8] * 5)
    positive = np.array([False] * 30 + [True] * 10)
    assert sensitivity_at_specificity(scores, positive, 0.9) == 0.5


def test_specificity_out_of_reach_finds_nothing():
    # One of two others shares the top score: any melanoma found costs a specificity of 1/2.
    assert sensitivity_at_specificity(np.array([0.9, 0.1, 0.9]), np.array([False, False, True]), 0.9) == 0.0


def test_no_melanoma_class_or_no_melanoma():
    plain = evaluate_predictions(PROBABILITIES, LABELS, ["a", "b", "c"])
    assert plain["melanoma_sensitivity_at_90_specificity"] is None
    absent = evaluate_predictions(PROBABILITIES[:3], LABELS[:3], CLASSES)
    assert absent["melanoma_sensitivity_at_90_specificity"] is None


def test_one_class_only_leaves_what_it_cannot_define():
    metrics = evaluate_predictions(PROBABILITIES[:4], LABELS[:4], CLASSES)
    assert metrics["auc"] is None
    assert metrics["per_class"]["nv"]["specificity"] is None
    assert metrics["balanced_accuracy"] == 0.75


def test_no_images_defines_nothing():
    metrics = evaluate_predictions(np.zeros((0, 3)), np.zeros(0, dtype=int), CLASSES)
    names = ("accuracy", "balanced_accuracy", "macro_f1", "auc", "ece")
    assert all(metrics[name] is None for name in names)
    assert metrics["confusion"] == [[0, 0, 0]] * 3


def test_result_is_json_even_from_float32(metrics):
    again = evaluate_predictions(PROBABILITIES.astype(np.float32), LABELS.astype(np.int32), CLASSES)
    assert json.loads(json.dumps(again, allow_nan=False))["confusion"] == metrics["confusion"]


def test_diverged_network_is_named():
    probabilities = PROBABILITIES.copy()
    probabilities[2] = np.nan
    with pytest.raises(TrainingError, match="diverged"):
        evaluate_predictions(probabilities, LABELS, CLASSES)


@pytest.mark.parametrize(
    "labels, names, match",
    [
        (LABELS[:5], CLASSES, "do not fit"),
        (LABELS, CLASSES[:2], "do not fit"),
        (LABELS + 2, CLASSES, "labels must lie in 0..2, found 2..3"),
        (LABELS - 1, CLASSES, "found -1..0"),
    ],
)
def test_shapes_and_labels_that_do_not_fit(labels, names, match):
    with pytest.raises(ValueError, match=match):
        evaluate_predictions(PROBABILITIES, labels, names)


def test_spread_over_hospitals():
    hospitals = {
        "a": {"accuracy": 0.5, "balanced_accuracy": 0.2},
        "b": {"accuracy": 0.7, "balanced_accuracy": 0.4},
        "c": {"accuracy": None, "balanced_accuracy": None},
    }
    result = spread(hospitals)
    assert result["accuracy"] == {"min": 0.5, "max": 0.7, "std": pytest.approx(0.1)}
    assert result["balanced_accuracy"] == {"min": 0.2, "max": 0.4, "std": pytest.approx(0.1)}


def test_spread_of_nothing():
    assert spread({})["accuracy"] == {"min": None, "max": None, "std": None}

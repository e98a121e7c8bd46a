"""What a report says in words and by subgroup, against data made so that the answer is known."""

from __future__ import annotations

import json

import numpy as np
import pytest

from skinfl.predictions import LesionClass, Predictions
from skinfl.report import findings

MEL, NV = LesionClass("mel", "melanoma", True), LesionClass("nv", "melanocytic nevus", False)
BCC = LesionClass("bcc", "basal cell carcinoma", True)


def told(classes, labels, predicted, lesions=None, ages=None, sexes=None, sites=None):
    """Answers of full certainty."""
    n = len(labels)

    def texts(values, default):
        return np.asarray([default] * n if values is None else values, dtype=object)

    return Predictions(
        tuple(classes),
        np.eye(len(classes))[list(predicted)].reshape(n, len(classes)),
        np.asarray(labels, dtype=np.int64),
        texts([str(i) for i in range(n)], ""),
        texts(lesions, ""),
        texts(None, ""),
        texts(sites, ""),
        texts(sexes, ""),
        np.full(n, np.nan) if ages is None else np.asarray(ages, dtype=np.float64),
    )


def words(*arguments, **more):
    found = findings.diagnosed(told(*arguments, **more))
    counts = findings.confusion_of(found)
    return findings.sentences(counts, found.classes, findings.lesions_of_classes(found))


def test_the_first_sentence_is_of_missed_melanomas():
    labels = [0] * 44 + [1] * 100
    predicted = [1] * 23 + [0] * 21 + [0] * 10 + [1] * 90
    assert words([MEL, NV], labels, predicted) == [
        "The model misses 23 of 44 melanomas at the default threshold; all of these it takes for benign "
        "(the most likely class is its answer).",
        "It takes 23 of 44 photographs of malignant lesions for benign, and 10 of 100 photographs of benign "
        "lesions for malignant.",
        "It names the right class for 111 of 144 test photographs.",
    ]


def test_photographs_of_one_melanoma_are_not_called_melanomas():
    first = words([MEL, NV], [0, 0, 1], [1, 0, 1], lesions=["a", "a", "b"])[0]
    assert first.startswith(
        "The model misses 1 of 2 photographs of melanoma at the default threshold; this one"
    )


@pytest.mark.parametrize(
    "missed, of, beginning",
    [
        (0, 1, "The model misses 0 of 1 melanoma at the default threshold (the"),
        (1, 1, "The model misses 1 of 1 melanoma at the default threshold; this one it takes"),
        (0, 9, "The model misses none of 9 melanomas at the default threshold (the"),
        (9, 9, "The model misses all 9 melanomas at the default threshold; all of these it takes"),
        (1200, 1300, "The model misses 1,200 of 1,300 melanomas at"),
    ],
)
def test_one_none_and_all(missed, of, beginning):
    assert words([MEL, NV], [0] * of + [1], [1] * missed + [0] * (of - missed) + [1])[0].startswith(beginning)


def test_a_missed_melanoma_may_still_be_called_malignant():
    first = words([MEL, BCC, NV], [0, 0, 0], [1, 1, 2])[0]
    assert "misses all 3 melanomas at the default threshold; 1 of these it takes for benign" in first
    assert "not one of these it takes for benign" in words([MEL, BCC, NV], [0, 0], [1, 1])[0]


def test_without_melanoma_or_malignancy_only_what_is_known_is_said():
    plain = [LesionClass("a", "a"), LesionClass("b", "b")]
    assert words(plain, [0, 1], [0, 0]) == ["It names the right class for 1 of 2 test photographs."]
    assert [text.split()[0] for text in words([BCC, NV], [0, 1], [0, 1])] == ["It", "It"]
    unsure = [MEL, NV, LesionClass("other", "other", None)]
    assert not any("malignant" in text for text in words(unsure, [0, 1, 2], [0, 1, 2]))


def test_no_melanoma_in_the_test_set_and_no_test_set():
    found = words([MEL, NV], [1], [1])
    assert found[0] == "No melanoma is in the test set: whether the model finds any is not known."
    assert found[1].startswith(
        "It takes no malignant lesion for benign, as there is none in the test set, and 0 of 1 ph"
    )
    assert found[2] == "It names the right class for 1 of 1 test photograph."
    assert words([MEL, NV], [], []) == ["There is no test image: nothing is known of how good the model is."]
    nobody = findings.summary(told([MEL, NV], [], []), 0)
    assert nobody["subgroups"] == [] and set(nobody["intervals"].values()) == {None}
    json.dumps(nobody, allow_nan=False)


def test_photographs_without_a_diagnosis_do_not_count():
    assert (
        words([MEL, NV], [0, -1, 1], [0, 0, 1])[-1] == "It names the right class for all 2 test photographs."
    )


def test_subgroups_with_unknown_ages_and_small_ones():
    n = 120
    ages = [np.nan if i % 4 == 0 else 25 if i % 4 == 1 else 80 for i in range(n)]
    sexes = ["female" if i < 100 else "male" if i < 110 else "" for i in range(n)]
    labels = [i % 2 for i in range(n)]
    found = told([MEL, NV], labels, [0] * n, ages=ages, sexes=sexes, sites=[""] * n)
    rows = findings.subgroups(found, 0)
    groups = [(row["by"], row["group"], row["photographs"], row["too_small"]) for row in rows]
    assert groups == [
        ("sex", "female", 100, False),
        ("sex", "male", 10, True),
        ("sex", "not known", 10, True),
        ("age", "under 30", 30, False),
        ("age", "75 and older", 60, False),
        ("age", "not known", 30, False),
    ]  # where no site is known there is nothing to tell apart
    female, male = rows[:2]
    assert (female["malignant"], female["malignant_found"], female["benign_found"]) == (50, 1.0, 0.0)
    assert female["benign_found_interval"] == [0.0, pytest.approx(1 - 0.025 ** (1 / 50))]
    assert female["malignant_found_interval"] == [pytest.approx(0.025 ** (1 / 50)), 1.0]
    low, high = female["accuracy_interval"]
    assert low < 0.5 < high and female["accuracy"] == 0.5
    assert male["accuracy"] is None and male["malignant_found"] is None and male["malignant"] == 5
    json.dumps(rows, allow_nan=False)


def test_a_group_is_small_by_lesions_not_photographs():
    lesions = [str(i % 5) for i in range(100)]
    rows = findings.subgroups(told([MEL, NV], [0] * 100, [0] * 100, lesions, sexes=["male"] * 100), 0)
    assert [(row["lesions"], row["too_small"]) for row in rows] == [(5, True)]


@pytest.mark.parametrize(
    "age, band",
    [
        (0, "under 30"),
        (29.9, "under 30"),
        (30, "30 to 44"),
        (59, "45 to 59"),
        (75, "75 and older"),
        (120, "75 and older"),
    ],
)
def test_age_bands(age, band):
    assert findings.age_band(age) == band and findings.age_band(float("nan")) == "not known"


def test_intervals_and_areas_are_those_of_the_metrics(answered, run_files):
    result, _ = run_files
    for key in ("accuracy", "balanced_accuracy", "auc"):
        low, high = result["intervals"][key]
        assert low < result["final"][key] < high
    curves = {curve.name: curve for curve in findings.roc_curves(answered, 0, intervals=False)}
    assert list(curves) == [None, *answered.names]
    for name, row in result["final"]["per_class"].items():
        assert curves[name].auc == pytest.approx(row["auc"])
        low, high = result["auc_intervals"][name]
        assert low <= row["auc"] <= high


def test_reliability_adds_up_to_the_calibration_error(answered, run_files):
    bins = findings.reliability(answered)
    error = (bins.counts * np.abs(bins.accuracy - bins.confidence)).sum() / bins.counts.sum()
    assert error == pytest.approx(run_files[0]["final"]["ece"])


def test_equal_answers_differ_by_nothing(answered):
    found = {name: findings.differences(answered, answered, 0) for name in ("smpc", "he")}
    assert found["smpc"]["auc"] == {"difference": 0.0, "interval": [0.0, 0.0]}
    assert findings.verdicts("plaintext", found) == [
        "No figure of smpc or he differs from plaintext by more than noise.",
        "smpc gives the same answer as plaintext for all 400 test photographs.",
        "he gives the same answer as plaintext for all 400 test photographs.",
    ]
    assert findings.verdicts("plaintext", {}) == []


def test_more_than_noise_is_said_and_noise_is_not(answered):
    ruined = answered._replace(probabilities=answered.probabilities[::-1])
    probabilities = answered.probabilities.copy()
    first = int(np.flatnonzero(answered.predicted == answered.labels)[0])
    probabilities[first] = np.eye(7)[(answered.labels[first] + 1) % 7]
    touched = answered._replace(probabilities=probabilities)
    found = {
        "he": findings.differences(ruined, answered, 0),
        "smpc": findings.differences(touched, answered, 0),
    }
    texts = findings.verdicts("plaintext", found)
    assert texts[0] == "Figures differ from plaintext by more than noise with he, and not with smpc."
    assert "he differs from plaintext by more than noise: accuracy by −0." in texts[1]
    assert "it gives the same answer for 399 of 400 photographs" in texts[2]
    assert "differs from plaintext by no more than noise" in texts[2]
    low, high = found["he"]["accuracy"]["interval"]
    assert low < found["he"]["accuracy"]["difference"] < high < 0


def test_what_is_not_seen_at_three_decimals_is_no_difference():
    tiny = {"difference": 1e-6, "interval": [5e-7, 2e-6]}
    found = {"same_answers": 9, "photographs": 9, "accuracy": tiny, "balanced_accuracy": tiny, "auc": tiny}
    assert findings.exceeding(found) == []


def test_answers_for_other_photographs_are_not_compared(answered):
    with pytest.raises(ValueError, match="different photographs"):
        findings.differences(answered, answered._replace(image_ids=answered.image_ids[::-1]), 0)
    empty = told([MEL, NV], [], [])
    nothing = {"smpc": findings.differences(empty, empty, 0)}
    assert findings.verdicts("plaintext", nothing) == [
        "There is no test image: how protections differ is not known."
    ]


def test_a_threshold_is_told_of_only_where_one_was_chosen_elsewhere():
    chosen = {
        "malignant": {
            "target_sensitivity": 0.9,
            "threshold": 0.21,
            "validation": {"sensitivity": 0.91, "specificity": 0.8},
            "test": {"sensitivity": 0.875, "specificity": 0.75},
        }
    }
    (text,) = findings.threshold_sentences(chosen, 8, 40)
    assert text == (
        "Calling a lesion malignant from a probability of 0.210 on, a threshold chosen on the hospitals' "
        "validation images to find 90% of malignant lesions, it misses 1 of 8 photographs of malignant "
        "lesions and takes 10 of 40 photographs of benign lesions for malignant."
    )
    chosen["malignant"]["test"] = None
    for nothing in (None, {}, {"malignant": None}, chosen):
        assert findings.threshold_sentences(nothing, 8, 40) == []

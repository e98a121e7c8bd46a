import time

import numpy as np
import pytest

from skinfl.intervals import METRICS, bootstrap_intervals
from skinfl.metrics import evaluate_predictions

NAMES = ("nv", "mel", "bcc")


def sample(n=90, lesions=40, seed=0, digits=1):
    rng = np.random.RandomState(seed)
    labels = rng.choice(3, n, p=[0.6, 0.3, 0.1])
    raw = rng.rand(n, 3) + 0.6 * np.eye(3)[labels]
    probabilities = np.round(raw, digits) + 0.01  # rounded, so that scores tie
    return probabilities / probabilities.sum(1, keepdims=True), labels, rng.choice(lesions, n).astype(str)


def test_intervals_are_those_of_drawing_lesions_one_by_one():
    probabilities, labels, groups = sample()
    names, of = np.unique(groups, return_inverse=True)
    rng = np.random.Generator(np.random.PCG64(5))
    rows = []
    for _ in range(60):
        drawn = (rng.random(len(names)) * len(names)).astype(int)
        which = np.concatenate([np.flatnonzero(of == group) for group in drawn])
        rows.append(evaluate_predictions(probabilities[which], labels[which], NAMES))
    found = bootstrap_intervals(probabilities, labels, groups, NAMES, resamples=60, level=0.9, seed=5)
    assert tuple(found) == METRICS
    for metric in METRICS:
        values = [row[metric] for row in rows if row[metric] is not None]
        np.testing.assert_allclose(found[metric], np.percentile(values, (5, 95)), rtol=1e-12)


def test_intervals_repeat_hold_the_metric_and_do_not_depend_on_how_much_is_held_at_once(monkeypatch):
    probabilities, labels, groups = sample(300, 120)
    found = bootstrap_intervals(probabilities, labels, groups, NAMES, seed=1)
    whole = evaluate_predictions(probabilities, labels, NAMES)
    for metric in METRICS:
        assert found[metric][0] <= whole[metric] <= found[metric][1]
    monkeypatch.setattr("skinfl.intervals._WEIGHTS", 1000)
    assert bootstrap_intervals(probabilities, labels, groups, NAMES, seed=1) == found
    assert bootstrap_intervals(probabilities, labels, groups, NAMES, seed=2) != found


def test_photographs_of_one_lesion_are_worth_less_than_as_many_lesions():
    probabilities, labels, _ = sample(100)
    single = bootstrap_intervals(probabilities, labels, np.arange(100).astype(str), NAMES)
    five = [np.repeat(part, 5, axis=0) for part in (probabilities, labels, np.arange(100).astype(str))]
    np.testing.assert_allclose(bootstrap_intervals(*five, NAMES)["accuracy"], single["accuracy"], atol=0.02)


def test_what_is_undefined_has_no_interval():
    probabilities, labels, groups = sample()
    nothing = dict.fromkeys(METRICS)
    assert bootstrap_intervals(probabilities, labels, ["one"] * len(labels), NAMES) == nothing
    assert bootstrap_intervals(np.zeros((0, 3)), [], [], NAMES) == nothing
    only = labels == 0
    found = bootstrap_intervals(probabilities[only], labels[only], groups[only], NAMES)
    assert found["auc"] is None and found["melanoma_sensitivity_at_90_specificity"] is None
    assert found["accuracy"] is not None
    other = bootstrap_intervals(probabilities, labels, groups, ("a", "b", "c"))
    assert other["melanoma_sensitivity_at_90_specificity"] is None


@pytest.mark.parametrize(
    "change",
    [
        {"labels": np.full(90, 3)},
        {"groups": ["a"]},
        {"class_names": NAMES[:2]},
        {"level": 1.0},
        {"resamples": 0},
    ],
)
def test_what_does_not_fit_is_refused(change):
    probabilities, labels, groups = sample()
    given = {
        "probabilities": probabilities,
        "labels": labels,
        "groups": groups,
        "class_names": NAMES,
        **change,
    }
    with pytest.raises(ValueError):
        bootstrap_intervals(**given)


def test_two_thousand_photographs_take_seconds():
    probabilities, labels, groups = sample(2000, 1500, digits=9)
    start = time.perf_counter()
    bootstrap_intervals(probabilities, labels, groups, NAMES)
    assert time.perf_counter() - start < 30

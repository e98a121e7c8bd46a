"""A run and a comparison as `result.json`, `rounds.jsonl` and `compare.json` hold them."""

from __future__ import annotations

import copy
import json
from functools import lru_cache

import numpy as np
import pytest

from skinfl.federation.records import RoundRecord, Seconds
from skinfl.metrics import evaluate_predictions, spread
from skinfl.predictions import LesionClass, Predictions
from skinfl.report import findings

NAMED = (
    LesionClass("akiec", "actinic keratosis or intraepithelial carcinoma (Bowen's disease)", True),
    LesionClass("bcc", "basal cell carcinoma", True),
    LesionClass("bkl", "benign keratosis-like lesion", False),
    LesionClass("df", "dermatofibroma", False),
    LesionClass("mel", "melanoma", True),
    LesionClass("nv", "melanocytic nevus", False),
    LesionClass("vasc", "vascular lesion", False),
)
CLASSES = [each.name for each in NAMED]
SHARE = [0.03, 0.05, 0.11, 0.01, 0.11, 0.67, 0.02]
COSTS = {  # bytes up, seconds to protect, difference from plaintext, what the aggregator sees
    "plaintext": (400_000, 0.001, 0.0, "every hospital's update and example count"),
    "smpc": (1_600_000, 0.04, 3.1e-6, "per party: uniformly random shares; together only the sum"),
    "he": (5_300_000, 1.2, 2.4e-5, "ciphertexts and their number; never a key, never a sum"),
}


def answers(skill, images, seed):
    """What a network of some skill says: two photographs a lesion, and captions of which some are missing."""
    rng = np.random.RandomState(seed)
    labels = np.concatenate([np.arange(7), rng.choice(7, size=images - 7, p=SHARE)])
    logits = rng.normal(size=(images, 7)) + np.log(SHARE)
    logits[np.arange(images), labels] += skill
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    number = np.arange(images)
    return Predictions(
        NAMED,
        probabilities,
        labels,
        np.array([f"photo-{i}" for i in number], dtype=object),
        np.array([f"lesion-{labels[i]}-{i // 2}" for i in number], dtype=object),
        np.array([f"hospital-{i % 5 + 1}" for i in number], dtype=object),
        np.array([("vienna", "queensland", "")[i % 3] for i in number], dtype=object),
        np.array([("female", "male", "female", "")[i % 4] for i in number], dtype=object),
        np.where(number % 7 == 0, np.nan, number % 90 * 1.0),
    )


def measured(skill, images, seed):
    found = answers(skill, images, seed)
    loss = float(-np.log(found.probabilities[np.arange(images), found.labels]).mean())
    return dict(evaluate_predictions(found.probabilities, found.labels, CLASSES), loss=loss)


@lru_cache(maxsize=None)
def measured_once(skill, images, seed):
    return json.dumps(measured(skill, images, seed))


def make_rounds(hospitals, rounds, up):
    names = [f"hospital-{k + 1}" for k in range(hospitals)]
    return [
        RoundRecord(
            round=r,
            trained=tuple(names),
            left_out={},
            mean_loss=1.9 / (r + 1.3),
            mean_clipped=0.0,
            train_loss={name: 1.9 / (r + 0.3 * k + 1) for k, name in enumerate(names)},
            clipped=dict.fromkeys(names, 0.0),
            transforms={},
            metrics=json.loads(measured_once(0.4 * r, 400, r)),
            hospitals_together=None,
            hospital_metrics={
                name: json.loads(measured_once(0.4 * r, 60, 10 * r + k)) for k, name in enumerate(names)
            },
            bytes_up=dict.fromkeys(names, up),
            bytes_down=dict.fromkeys(names, 400000),
            seconds=Seconds(train=2.0, protect=0.04, combine=0.01, open=0.02, evaluate=0.5),
            max_abs_difference_from_plaintext_sum=1e-6,
        )
        for r in range(1, rounds + 1)
    ]


def make_result(protection="smpc", hospitals=5, rounds=4):
    up, protect, _, sees = COSTS[protection]
    log = make_rounds(hospitals, rounds, up)
    train = {name: {c: int(900 * s) for c, s in zip(CLASSES, SHARE)} for name in log[-1].trained}
    test = {name: {c: int(180 * s) for c, s in zip(CLASSES, SHARE)} for name in log[-1].trained}
    result = {
        "name": f"demo-{protection}",
        "protection": protection,
        "strategy": "scaffold",
        "synthetic": "Drawn with seed 0.",
        "data": {
            "name": "synthetic",
            "images": 2000,
            "synthetic": True,
            "leaked_lesions": 0,
            "protocol": "grouped",
            "train_images": 1600,
            "test_images": 400,
            "classes": CLASSES,
            "class_info": [each._asdict() for each in NAMED],
        },
        "partition": {name: {"train": train[name], "test": test[name]} for name in train},
        "workers": "virtual",
        "hospitals": hospitals,
        "rounds": rounds,
        "final": log[-1].metrics,
        "hospital_final": log[-1].hospital_metrics,
        "spread": spread(log[-1].hospital_metrics),
        "bytes": {
            "up_per_hospital_per_round": up,
            "down_per_hospital_per_round": 400_000,
            "float32": 400_000,
        },
        "seconds": {
            "train": 2.0 * rounds,
            "protect": protect * rounds,
            "combine": 0.01 * rounds,
            "open": 0.02 * rounds,
            "evaluate": 0.5 * rounds,
            "total": (2.53 + protect) * rounds,
        },
        "max_abs_difference_from_plaintext_sum": 1e-6,
        "protection_details": {"ring": "2^64", "parties": ["a", "b", "c"], "threshold": 2},
        "aggregator_sees": sees,
        "config": {"seed": 0, "rounds": rounds, "data": {"name": "synthetic", "image_size": 28}},
        "versions": {"python": "3.11.2", "torch": "2.1.0"},
        "left_out": [],
    }
    result.update(json.loads(summary_once(0.4 * rounds, 400, rounds)))
    return result, log


@lru_cache(maxsize=None)
def summary_once(skill, images, seed):
    return json.dumps(findings.summary(answers(skill, images, seed), 0))


@pytest.fixture(scope="session")
def answered():
    """What the recorded run's network says of the common test set."""
    return answers(1.6, 400, 4)


@pytest.fixture(scope="session")
def recorded_run():
    return make_result()


@pytest.fixture
def run_files(recorded_run):
    """The result and its rounds; a copy that the test may change."""
    result, rounds = copy.deepcopy(recorded_run)
    json.dumps([result, [r.to_json() for r in rounds]], allow_nan=False)
    return result, rounds


@pytest.fixture(scope="session")
def recorded_comparison():
    first = answers(1.6, 400, 4)
    changes = {name: findings.differences(first, first, 0) for name in list(COSTS)[1:]}
    return {
        "runs": [make_result(protection)[0] for protection in COSTS],
        "differences": {protection: cost[2] for protection, cost in COSTS.items()},
        "metric_differences": changes,
        "verdict": findings.verdicts("plaintext", changes),
    }


@pytest.fixture
def comparison(recorded_comparison):
    """Three protections, plaintext first; a copy that the test may change."""
    return copy.deepcopy(recorded_comparison)

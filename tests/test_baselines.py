"""All images in one place, and each hospital alone: trained and chosen as the federation is."""

from __future__ import annotations

import numpy as np
import pytest

from skinfl.assembly import assemble, load_federated_data, training_parts
from skinfl.data.transforms import normalisation_from_sums, pixel_sums
from skinfl.federation.selection import Selection
from skinfl.metrics import SCALARS
from skinfl.settings import Settings
from skinfl.studies import baselines
from skinfl.studies.baselines import centralised, local_only, pooled

SMALL = {
    "data": "toy",
    "hospitals": 3,
    "partition": "iid",
    "rounds": 3,
    "local_epochs": 1,
    "batch_size": 8,
    "image_size": 12,
    "lr": 0.05,
    "momentum": 0.0,
    "validation_fraction": 0.25,
}


def ids(dataset):
    return sorted(dataset.image_ids)


@pytest.fixture
def watched(monkeypatch):
    """Keep what is trained on, and what a choice is made by."""
    seen = {"train": [], "predict": [], "evaluate": []}

    def watch(name):
        original = getattr(baselines, name)

        def watching(*args, **others):
            seen[name].append(args)
            return original(*args, **others)

        monkeypatch.setattr(baselines, name, watching)

    for name in seen:
        watch(name)
    return seen


def test_they_train_on_what_hospitals_train_on_and_choose_by_what_these_hold_back(toy, watched):
    settings = Settings(**SMALL)
    federated = load_federated_data(settings)
    parts = {n: training_parts(settings, federated.train_of(n), n) for n in federated.partition}
    assert all(len(part.validation) for part in parts.values())
    together = pooled(settings, federated)
    assert ids(together.train) == sorted(i for part in parts.values() for i in part.train.image_ids)
    assert ids(together.validation) == sorted(i for part in parts.values() for i in part.validation.image_ids)
    assert len(together.train) + len(together.validation) == len(federated.split.train)

    centralised(settings, federated)
    assert {tuple(ids(args[2])) for args in watched["train"]} == {tuple(ids(together.train))}
    assert {tuple(ids(args[1])) for args in watched["predict"]} == {tuple(ids(together.validation))}
    del watched["train"][:], watched["predict"][:]
    local_only(settings, federated)
    for name, place, side in (("train", 2, "train"), ("predict", 1, "validation")):
        found = [ids(args[place]) for args in watched[name]]
        assert found == [ids(getattr(part, side)) for part in parts.values() for _ in range(3)]
    own = [ids(federated.test_of(name)) for name in federated.partition]
    evaluated = [ids(args[1]) for args in watched["evaluate"]]
    # all in one place, then each alone: on the common test set, and on hospitals' own parts of it
    assert evaluated == [*own, ids(federated.test), *(i for part in own for i in (ids(federated.test), part))]


def test_without_a_validation_part_all_is_trained_on_and_the_last_round_kept(toy, watched):
    settings = Settings(**{**SMALL, "validation_fraction": 0.0})
    federated = load_federated_data(settings)
    assert centralised(settings, federated).metrics["accuracy"] is not None
    assert {tuple(ids(args[2])) for args in watched["train"]} == {
        tuple(sorted(federated.dataset.image_ids[federated.split.train]))
    }
    assert not watched["predict"]


@pytest.mark.parametrize("best", [1, 2, 3])
def test_the_round_is_kept_that_the_validation_part_chooses(toy, monkeypatch, best):
    settings = Settings(**SMALL)
    federated = load_federated_data(settings)
    rounds = []

    def score(self, found):
        assert self.by == "auc" and found["images"] == len(pooled(settings, federated).validation)
        rounds.append(len(rounds) + 1)
        return float(rounds[-1] == best), 0.0

    monkeypatch.setattr(Selection, "score", score)
    found = centralised(settings, federated).metrics
    assert rounds == [1, 2, 3]
    monkeypatch.undo()
    until = Settings(**{**SMALL, "rounds": best, "select": "last"})
    assert found == centralised(until, federated).metrics


def test_local_only_is_the_mean_over_hospitals(toy, monkeypatch):
    settings = Settings(**SMALL)
    federated = load_federated_data(settings)
    common = []

    def evaluating(model, dataset, normalisation):
        found = evaluate(model, dataset, normalisation)
        if len(dataset) == len(federated.test):
            common.append(found)
        return found

    evaluate = baselines.evaluate
    monkeypatch.setattr(baselines, "evaluate", evaluating)
    found = local_only(settings, federated)
    assert set(found.at_hospitals) == set(federated.partition) and len(common) == 3
    for key in SCALARS:
        values = [m[key] for m in common if m[key] is not None]
        assert found.metrics[key] == (pytest.approx(np.mean(values)) if values else None)


def test_all_in_one_place_are_normalised_as_in_the_federation(toy):
    settings = Settings(**SMALL)
    federated = load_federated_data(settings)
    assembly = assemble(settings.replace(rounds=1), federated)
    for _ in assembly.federation.run():
        pass
    expected = normalisation_from_sums(pixel_sums(pooled(settings, federated).train.images))
    assert assembly.federation.state.begun.normalisation.mean == pytest.approx(expected.mean, abs=1e-5)

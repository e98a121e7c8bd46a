"""Personal models: what stays at a hospital, and that it is trained as the papers say."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from comparison import settings_of
from samples import SMALL_RUN
from torch import nn

from skinfl.assembly import assemble, load_federated_data, local_plan, training_parts
from skinfl.classifier import LesionClassifier
from skinfl.errors import ModelError, SettingsError
from skinfl.federation.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from skinfl.federation.local import train
from skinfl.federation.rules import EVALUATE, TRAIN
from skinfl.federation.selection import Selection
from skinfl.federation.state import AVERAGE
from skinfl.federation.strategies import STRATEGIES
from skinfl.federation.update import StateLayout, batchnorm_names, head_names
from skinfl.federation.validation import validation_segment
from skinfl.metrics import evaluate_predictions
from skinfl.models.registry import MODELS
from skinfl.results import TrainingResult
from skinfl.run import run
from skinfl.settings import Settings

SMALL = {**SMALL_RUN, "lr": 0.05, "momentum": 0.0, "model": "small-bn"}
KINDS = ("batchnorm", "head", "ditto")


@pytest.fixture(autouse=True)
def small_network():
    """Register a network with BatchNorm that trains in a moment."""

    def build(*, in_channels, image_size, classes):
        return nn.Sequential(
            nn.Conv2d(in_channels, 4, 3, stride=2),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(16, classes),
        )

    MODELS.register("small-bn", "for tests", build, uses=("in_channels", "image_size", "classes"))
    yield
    MODELS.unregister("small-bn")


def played(**changes):
    settings = Settings(**{**SMALL, **changes})
    federated = load_federated_data(settings)
    assembly = assemble(settings, federated)
    list(assembly.federation.run())
    return settings, federated, assembly


def trained_on(settings, federated, name):
    return training_parts(settings, federated.train_of(name), name).train


def agents_of(assembly):
    return assembly.transport._agents


def test_batchnorm_and_head_are_found():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 3))
    assert batchnorm_names(model) == {
        *("1.weight", "1.bias", "1.running_mean", "1.running_var", "1.num_batches_tracked")
    }
    assert head_names(model) == {"3.weight", "3.bias"}
    model[3].weight.requires_grad_(False)
    assert head_names(model) == {"3.bias"}


def test_what_is_personal_is_in_no_vector(toy):
    sizes = {}
    for personal in ("none", *KINDS):
        _, _, assembly = played(personal=personal, rounds=1)
        layout = assembly.federation._rules.vectors(TRAIN)
        names = [segment.name for segment in layout.segments]
        assert any("5.weight" in name for name in names) == (personal != "head")
        assert any("1.running_mean" in name or "1.weight" in name for name in names) == (
            personal != "batchnorm"
        )
        sizes[personal] = assembly.layout.size
    assert sizes["head"] == sizes["none"] - (16 * 3 + 3)
    assert sizes["batchnorm"] == sizes["none"] - 4 * 4
    assert sizes["ditto"] == sizes["none"]


@pytest.mark.parametrize("personal", ["batchnorm", "head"])
def test_it_equals_averaging_everything_else_by_hand(toy, personal):
    settings, federated, assembly = played(personal=personal)
    network = assemble(settings, federated).model
    kept = (batchnorm_names if personal == "batchnorm" else head_names)(network)
    whole = StateLayout(network)
    entries = whole.parameters + whole.statistics
    stays = np.repeat([e.name in kept for e in entries], [e.size for e in entries])
    prepared = assembly.federation.state.begun
    states = dict.fromkeys(federated.partition, whole.flatten(network))
    for round in range(1, settings.rounds + 1):
        changes, weights = {}, {}
        for name in states:
            data = trained_on(settings, federated, name)
            result = train(
                network,
                whole,
                data,
                prepared.normalisation,
                local_plan(settings),
                start=states[name],
                seed=settings.seed,
                purpose=(round, name),
                class_weights=prepared.class_weights,
            )
            changes[name], weights[name] = result.delta, len(data)
        mean = sum(weights[n] * changes[n].astype(np.float64) for n in states) / sum(weights.values())
        states = {n: s + np.where(stays, changes[n], mean).astype(np.float32) for n, s in states.items()}
    for name, agent in agents_of(assembly).items():
        found = whole.flatten(agent.load_personal(assembly.federation.state.common))
        np.testing.assert_allclose(found, states[name], atol=2e-6)
    assert not np.array_equal(*(states[name][stays] for name in list(states)[:2]))


def alone(settings, federated, assembly, name, pull):
    """Return a hospital's Ditto model, stepped by hand beside the common ones."""
    network = assemble(settings, federated).model
    whole = StateLayout(network)
    prepared = assembly.federation.state.begun
    state = whole.flatten(network)
    result = train(
        network,
        whole,
        trained_on(settings, federated, name),
        prepared.normalisation,
        local_plan(settings),
        start=state,
        seed=settings.seed,
        purpose=(1, name, "personal"),
        class_weights=prepared.class_weights,
        proximal=pull,
    )
    return whole, state + result.delta


@pytest.mark.parametrize("pull", [0.0, 0.5])
def test_dittos_first_round_is_training_under_its_pull(toy, pull):
    settings, federated, assembly = played(personal="ditto", ditto_lambda=pull, rounds=1)
    for name, agent in agents_of(assembly).items():
        whole, expected = alone(settings, federated, assembly, name, pull)
        found = whole.flatten(agent.load_personal(assembly.federation.state.common))
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_ditto_without_a_pull_is_local_training(toy):
    settings, federated, assembly = played(personal="ditto", ditto_lambda=0.0, rounds=3)
    network = assemble(settings, federated).model
    whole, prepared = StateLayout(network), assembly.federation.state.begun
    name = "hospital-2"
    state = whole.flatten(network)
    for round in range(1, 4):
        result = train(
            network,
            whole,
            trained_on(settings, federated, name),
            prepared.normalisation,
            local_plan(settings),
            start=state,
            seed=settings.seed,
            purpose=(round, name, "personal"),
            round=round,
            class_weights=prepared.class_weights,
        )
        state = state + result.delta
    found = whole.flatten(agents_of(assembly)[name].load_personal(assembly.federation.state.common))
    np.testing.assert_allclose(found, state, atol=1e-6)


def test_a_strong_pull_holds_ditto_to_the_model_that_was_common(toy):
    distances = []
    for pull in (0.0, 1.0, 10.0):
        settings, federated, assembly = played(personal="ditto", ditto_lambda=pull, rounds=1)
        first = assembly.layout.flatten(assemble(settings, federated).model)
        model = agents_of(assembly)["hospital-1"].load_personal(assembly.federation.state.common)
        n = assembly.layout.n_parameters
        distances.append(np.linalg.norm((assembly.layout.flatten(model) - first)[:n]))
    assert distances == sorted(distances, reverse=True)
    assert distances[-1] < 0.5 * distances[0]


def test_the_common_model_does_not_know_of_ditto_or_fine_tuning(toy):
    models = [
        played(**changes)[2].federation.state.server.model
        for changes in ({}, {"personal": "ditto"}, {"fine_tune_epochs": 2})
    ]
    assert np.array_equal(models[0], models[1]) and np.array_equal(models[0], models[2])


@pytest.mark.parametrize(
    "changes", [{"fine_tune_epochs": 3}, *({"personal": kind} for kind in KINDS)], ids=str
)
def test_own_models_are_evaluated_beside_the_common_one(toy, tmp_path, changes):
    settings = Settings(**{**SMALL, **changes})
    federated = load_federated_data(settings)
    result = run(settings, federated, tmp_path / "a").result
    own = result["personal"]
    assert set(own["hospital_final"]) == set(result["hospital_final"])
    for name, metrics in own["hospital_final"].items():
        model = LesionClassifier.load(tmp_path / "a" / "personal" / f"{name}.npz")
        test = federated.test_of(name)
        with torch.no_grad():
            logits = model(torch.from_numpy(np.asarray(test.images)).permute(0, 3, 1, 2))
        found = evaluate_predictions(torch.softmax(logits.double(), 1).numpy(), test.labels, test.classes)
        assert found["confusion"] == metrics["confusion"]
    total = np.sum([m["confusion"] for m in own["hospital_final"].values()], axis=0)
    assert own["hospitals_together"]["confusion"] == total.tolist()
    common = changes.get("personal") not in ("batchnorm", "head")
    assert own["common_model"] is common
    assert (tmp_path / "a" / "model.npz").exists() == common
    if not common:
        assert result["final"] == result["hospitals_together"] == own["hospitals_together"]
        with pytest.raises(
            ModelError, match=r"no common model, but one of each hospital: name one, as .*1\.npz"
        ):
            TrainingResult(tmp_path / "a").model  # noqa: B018 - that it is asked for is the test
    assert json.loads((tmp_path / "a" / "result.json").read_text())["personal"] == own


@pytest.mark.parametrize(
    "changes",
    [{"select": "last"}, {"rounds": 8, "patience": 1}, {"ema": 0.5, "rounds": 8, "patience": 1}],
    ids=["last", "stopped", "stopped-mean"],
)
def test_fine_tuning_goes_on_from_the_kept_model_on_own_images(toy, monkeypatch, changes):
    # the first round is the best one
    monkeypatch.setattr(Selection, "score", lambda self, found: (0.0, 0.0))
    settings, federated, assembly = played(fine_tune_epochs=2, fine_tune_lr=0.02, **changes)
    state = assembly.federation.state
    assert (state.ended, state.kept.round) == ((True, 1) if "patience" in changes else (False, 2))
    assert any(d.role == AVERAGE for d in state.server.declared) == ("ema" in changes)
    network = assemble(settings, federated).model
    whole, prepared = StateLayout(network), state.begun
    start = state.kept.model
    assert np.array_equal(start, state.server.evaluated) != state.ended
    result = train(
        network,
        whole,
        trained_on(settings, federated, "hospital-1"),
        prepared.normalisation,
        local_plan(settings)._replace(epochs=2, lr=0.02),
        start=start,
        seed=settings.seed,
        purpose=("hospital-1", "fine-tune"),
        class_weights=prepared.class_weights,
    )
    agent = agents_of(assembly)["hospital-1"]
    found = whole.flatten(agent.load_personal(state.kept_common))
    np.testing.assert_allclose(found, start + result.delta, atol=1e-6)
    assert set(state.records[-1].personal_metrics) == set(state.records[-1].hospital_metrics)


def test_the_rate_of_fine_tuning_follows_from_that_of_training():
    assert Settings(lr=0.2).fine_tune_lr == pytest.approx(0.02)
    least = Settings(lr=1e-8).asdict()  # what is derived from the least rate is allowed, too
    assert Settings(**least).fine_tune_lr == pytest.approx(1e-9)


@pytest.mark.parametrize("strategy", STRATEGIES.names)
@pytest.mark.parametrize("personal", KINDS)
def test_resumed_from_a_file_it_is_bit_for_bit_the_uninterrupted_one(toy, tmp_path, personal, strategy):
    """Personal state is in the file, and every strategy trains around it."""
    settings, federated, whole = played(personal=personal, strategy=strategy)
    first = assemble(settings.replace(rounds=1), federated)
    list(first.federation.run())
    save_checkpoint(tmp_path / "c", Checkpoint(first.federation.state, first.transport.state(), {}))
    resumed = assemble(settings, federated, load_checkpoint(tmp_path / "c"))
    list(resumed.federation.run())
    assert resumed.federation.state.server == whole.federation.state.server
    last, expected = (a.federation.state.records[-1] for a in (resumed, whole))
    assert last.personal_metrics == expected.personal_metrics
    assert last.personal_together == expected.personal_together


@pytest.mark.parametrize("personal", KINDS)
def test_it_is_the_same_under_every_protection(toy, personal):
    models = {}
    for choice in ("plaintext", "smpc", "he"):
        settings = settings_of((choice, {}), **SMALL, personal=personal)
        assembly = assemble(settings, load_federated_data(settings))
        list(assembly.federation.run())
        assert assembly.federation._rules.vectors(EVALUATE).size == 2 * (9 + 8) + validation_segment(3).size
        models[choice] = assembly.federation.state.server.model
    assert np.array_equal(models["smpc"], models["he"])
    np.testing.assert_allclose(models["smpc"], models["plaintext"], atol=1e-4)


def test_what_cannot_be_personal_is_refused_in_one_line(toy):
    with pytest.raises(ModelError, match="this network has none: choose personal = head or ditto") as caught:
        played(personal="batchnorm", model="skinnet")
    assert "\n" not in str(caught.value)
    for personal in KINDS:
        assert Settings(personal=personal).select == "last"
        with pytest.raises(SettingsError, match=f"give select = last with personal = {personal}"):
            Settings(personal=personal, select="auc")
        with pytest.raises(SettingsError, match="give patience = 0"):
            Settings(personal=personal, patience=1)
    with pytest.raises(SettingsError, match="ditto trains a personal model already"):
        Settings(personal="ditto", fine_tune_epochs=1)
    with pytest.raises(ModelError, match="nothing is left to learn together"):
        layer = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
        StateLayout(layer, personal=head_names(layer))

"""Which round is kept, when a run ends, and what is made of the kept model: by validation images alone."""

from __future__ import annotations

import numpy as np
import pytest
from comparison import protections, settings_of
from samples import toy_dataset
from torch import nn

from skinfl.assembly import assemble, load_federated_data, network_of, share_out, training_parts
from skinfl.data.splits import group_photographs, hold_out, leaked_lesions
from skinfl.errors import SettingsError
from skinfl.federation.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from skinfl.federation.evaluation import predict
from skinfl.federation.local import LocalResult
from skinfl.federation.records import RoundRecord, Seconds
from skinfl.federation.selection import Selection
from skinfl.federation.strategies import Averaged, FedAvg, Scaffold
from skinfl.federation.update import StateLayout
from skinfl.federation.validation import MOST_NATS, tempered
from skinfl.metrics import evaluate_predictions
from skinfl.run import operation, run, temperature_of
from skinfl.settings import Settings

SMALL = {
    "data": "toy",
    "hospitals": 3,
    "partition": "iid",
    "rounds": 3,
    "batch_size": 8,
    "image_size": 12,
    "lr": 0.05,
    "momentum": 0.0,
    "validation_fraction": 0.25,
}


def record(round, validation):
    return RoundRecord(
        round,
        (),
        {},
        None,
        None,
        {},
        {},
        {},
        None,
        None,
        {},
        {},
        {},
        Seconds(0, 0, 0, 0, 0),
        None,
        validation,
    )


def figures(auc, loss=1.0, balanced_accuracy=0.5):
    return {"auc": auc, "loss": loss, "balanced_accuracy": balanced_accuracy}


def pooled_validation(settings, assembly):
    """Return what the kept model says of all hospitals' validation images, and their labels."""
    federated, state = load_federated_data(settings), assembly.federation.state
    assembly.layout.write(assembly.model, state.kept.model)
    parts = [training_parts(settings, federated.train_of(n), n).validation for n in federated.partition]
    said = [predict(assembly.model, part, state.begun.normalisation)[0] for part in parts]
    return np.concatenate(said), np.concatenate([part.labels for part in parts])


def cross_entropy(probabilities, labels):
    return -np.log(probabilities[np.arange(len(labels)), labels]).mean()


def chosen(selection, *validations):
    """Return the rounds that were best after each, and the first after which there is no more."""
    best, rounds, ended, records = None, [], None, []
    for number, validation in enumerate(validations, 1):
        records.append(record(number, validation))
        best = selection.better(best, records, number, np.full(2, number, np.float32))
        rounds.append(None if best is None else best.round)
        assert best is None or best.model[0] == best.round
        if ended is None and selection.ends(best, records):
            ended = number
    return rounds, ended


def test_the_best_round_is_kept_and_of_equals_the_one_of_less_loss_then_the_earlier():
    rounds = [figures(0.7), figures(0.6), figures(0.8, 0.9), figures(0.8, 0.8), figures(0.8, 0.8)]
    assert chosen(Selection("auc"), *rounds) == ([1, 1, 3, 4, 4], None)
    by_loss = [figures(None, 2.0), figures(None, 1.0), figures(None, 3.0)]
    assert chosen(Selection("loss"), *by_loss) == ([1, 2, 2], None)
    assert chosen(Selection("auc"), *by_loss) == ([1, 2, 2], None)  # undefined: the loss decides
    assert chosen(Selection("last"), *rounds) == ([None] * 5, None)


def test_patience_counts_rounds_without_a_better_one():
    rounds = [figures(0.7), figures(0.6), figures(0.8), figures(0.75), figures(0.7), figures(0.9)]
    assert chosen(Selection("auc", 1), *rounds)[1] == 2
    assert chosen(Selection("auc", 2), *rounds)[1] == 5
    assert chosen(Selection("auc", 3), *rounds)[1] is None


def test_rounds_of_which_nothing_is_known_are_neither_kept_nor_counted():
    assert chosen(Selection("auc", 2), None, figures(0.7), None, None, figures(0.6), None) == (
        [None, 2, 2, 2, 2, 2],
        5,
    )


@pytest.mark.parametrize("fraction", [0.05, 0.1, 0.25, 0.5])
def test_no_lesion_or_patient_is_on_both_sides_and_every_class_keeps_some_to_train_on(fraction):
    dataset = toy_dataset()
    train, held_out = hold_out(dataset, fraction, seed=3, hospital="a")
    assert sorted([*train, *held_out]) == list(range(len(dataset)))
    assert leaked_lesions(dataset, train, held_out) == 0
    groups = group_photographs(dataset)
    assert not set(groups.of[train]) & set(groups.of[held_out])
    assert (dataset.subset(train).class_counts()[dataset.class_counts() > 0] > 0).all()
    again = hold_out(dataset, fraction, seed=3, hospital="a")
    assert np.array_equal(again[1], held_out)
    if fraction > 0.05:
        assert abs(len(held_out) / len(dataset) - fraction) < 0.1
        assert not np.array_equal(hold_out(dataset, fraction, seed=4, hospital="a")[1], held_out)
        assert not np.array_equal(hold_out(dataset, fraction, seed=3, hospital="b")[1], held_out)


def test_copies_of_a_photograph_stay_together_and_of_too_few_lesions_none_is_held_out():
    dataset = toy_dataset()
    twice = dataset.subset(np.repeat(np.arange(len(dataset)), 2))
    train, held_out = hold_out(twice, 0.25, seed=0, hospital="a")
    assert leaked_lesions(twice, train, held_out) == 0 and len(held_out)
    one = dataset.subset([0])
    assert [len(part) for part in hold_out(one, 0.5, seed=0, hospital="a")] == [1, 0]
    assert [len(part) for part in hold_out(one.subset([]), 0.5, seed=0, hospital="a")] == [0, 0]


def play(rounds=None, **changes):
    settings = Settings(**{**SMALL, **changes})
    federated = load_federated_data(settings)
    assembly = assemble(settings, federated)
    list(assembly.federation.run())
    return settings, federated, assembly


def test_a_run_keeps_what_direct_computation_on_the_pooled_images_says_is_best(toy):
    settings, federated, assembly = play(rounds=3)
    state = assembly.federation.state
    held_out = [training_parts(settings, federated.train_of(n), n) for n in federated.partition]
    trained = np.concatenate([part.train.lesion_ids for part in held_out])
    validated = np.concatenate([part.validation.lesion_ids for part in held_out])
    assert not set(trained) & set(validated)
    assert not set(federated.test.lesion_ids) & {*trained, *validated}
    kept = state.kept_record.validation
    probabilities, labels = pooled_validation(settings, assembly)
    pooled = evaluate_predictions(probabilities, labels, federated.dataset.classes)
    assert kept["confusion"] == pooled["confusion"] and kept["images"] == len(labels)
    assert abs(kept["auc"] - pooled["auc"]) <= kept["auc_error"] + 1e-12
    assert kept["loss"] == pytest.approx(cross_entropy(probabilities, labels), rel=1e-5)
    assert all(r.validation is not None for r in state.records)
    score = Selection("auc").score
    assert score(kept) == max(score(r.validation) for r in state.records)


@pytest.mark.parametrize("choice", protections(all_variants=False, but=["plaintext"]))
def test_every_protection_makes_the_same_choice(toy, choice):
    plain = play(rounds=3)[2].federation.state
    settings = settings_of(choice, **SMALL)
    assembly = assemble(settings, load_federated_data(settings))
    list(assembly.federation.run())
    state = assembly.federation.state
    assert state.kept.round == plain.kept.round
    bound = assembly.protection.error_bound(SMALL["hospitals"], MOST_NATS)
    for mine, theirs in zip(state.records, plain.records):
        assert mine.validation["confusion"] == theirs.validation["confusion"]
        # a coarser scheme leaves every weight off by its bound in each round
        near = 1e-4 + 5 * len(state.records) * bound
        assert mine.validation["loss"] == pytest.approx(theirs.validation["loss"], rel=near)
        assert mine.validation["temperature"] == pytest.approx(theirs.validation["temperature"], rel=1e-2)
    # of one and the same model only the sum is off: by the bound, times the unit that images are counted in
    kept = state.kept_record.validation
    near = 1e-5 * kept["loss"] + bound * assembly.federation._rules.unit / kept["images"]
    probabilities, labels = pooled_validation(settings, assembly)
    assert kept["loss"] == pytest.approx(cross_entropy(probabilities, labels), abs=near)


#: rates at which the second round is worse than the first, so that there is something to choose and to end
RESTLESS = {"lr": 0.05, "server_lr": 8.0, "rounds": 6, "select": "loss", "patience": 2}


@pytest.mark.parametrize("changes", [{}, {"ema": 0.5}, {"protection": "smpc"}, {"evaluate_every": 2}])
def test_a_resumed_run_keeps_and_ends_as_the_uninterrupted_one(toy, tmp_path, changes):
    settings = Settings(**{**SMALL, **RESTLESS, **changes})
    federated = load_federated_data(settings)
    whole = assemble(settings, federated)
    list(whole.federation.run())
    expected = whole.federation.state
    for after in {1, expected.round - 1, expected.round}:
        first = assemble(settings, federated)
        for event in first.federation.run():
            if type(event).__name__ == "RoundFinished" and event.round == after:
                break
        state = first.federation.state
        save_checkpoint(tmp_path / "c", Checkpoint(state, first.transport.state(), {}))
        resumed = assemble(settings, federated, load_checkpoint(tmp_path / "c"))
        list(resumed.federation.run())
        found = resumed.federation.state
        assert (found.round, found.ended, found.kept.round) == (
            expected.round,
            expected.ended,
            expected.kept.round,
        )
        assert np.array_equal(found.kept.model, expected.kept.model)
        assert [r.validation for r in found.records] == [r.validation for r in expected.records]


def test_a_run_ends_early_and_gives_the_best_model_not_the_last(toy, tmp_path):
    settings = Settings(**{**SMALL, **RESTLESS})
    outcome = run(settings, load_federated_data(settings), tmp_path / "out")
    result = outcome.result
    assert result["stopped_early"] and result["rounds"] < RESTLESS["rounds"]
    assert result["best_round"] < result["rounds"]
    assert result["validation"]["loss"] < result["last_validation"]["loss"]
    state = load_checkpoint(tmp_path / "out" / "checkpoint.skinfl").state
    best = state.records[result["best_round"] - 1].metrics
    assert result["final"]["confusion"] == best["confusion"]
    shown = outcome.predictions
    told = evaluate_predictions(shown.probabilities, shown.labels, shown.names)
    assert {key: result["final"][key] for key in told} == told
    assert result["last"] == state.records[-1].metrics != best
    assert np.array_equal(outcome.model, state.best.model)
    assert not np.array_equal(outcome.model, state.server.model)


def test_a_hospital_without_validation_images_takes_part_and_of_none_at_all_the_last_is_kept(toy):
    # a thousandth of no class of a hospital is half a lesion
    assembly = play(validation_fraction=0.001)[2]
    state = assembly.federation.state
    assert all(r.validation is None for r in state.records)
    assert state.best is None and state.kept.round == 3
    assert temperature_of(state) == 1.0
    assert operation(assembly.federation, 0.95) == {"calibration": None, "thresholds": None}


def test_without_a_validation_part_contributions_are_as_short_as_before(toy):
    assembly = play(validation_fraction=0.0)[2]
    longer = play()[2]
    layouts = [a.federation._rules.vectors("train") for a in (assembly, longer)]
    assert [s.name for s in layouts[0].segments][-1] == "figures"
    assert layouts[1].size - layouts[0].size == layouts[1].segments[-1].size
    assert assembly.federation.state.kept.round == 3


@pytest.mark.parametrize(
    "given, message",
    [
        (
            {"validation_fraction": 0.0, "select": "auc"},
            "chooses by validation images, of which there are none",
        ),
        ({"validation_fraction": 0.0, "patience": 2}, "select = last compares none"),
        ({"select": "last", "patience": 2}, "select = last compares none"),
        ({"validation_fraction": 0.6}, "at most 0.5"),
        ({"validation_fraction": -0.1}, "at least 0"),
        ({"ema": 1.0}, "ema"),
        ({"patience": -1}, "patience"),
        ({"target_sensitivity": 0.0}, "target_sensitivity"),
        ({"select": "accuracy"}, "select"),
    ],
)
def test_settings_that_contradict_themselves_are_refused_in_one_line(given, message):
    with pytest.raises(SettingsError, match=message) as caught:
        Settings(**given)
    assert "\n" not in str(caught.value)


def test_defaults_follow_from_whether_there_is_a_validation_part():
    assert (Settings().validation_fraction, Settings().select) == (0.1, "auc")
    published = Settings(protocol="published")
    assert (published.validation_fraction, published.select) == (0.0, "last")


LAYOUT = StateLayout(nn.Linear(3, 1, bias=False))


def test_the_moving_average_by_hand():
    strategy = Averaged(FedAvg(), 0.5)
    server = strategy.init(np.array([8.0, 8, 8], np.float32), LAYOUT)
    assert server.evaluated.tolist() == [8.0] * 3
    models = []
    for change in ([-4, 0, 8], [8, 4, 0], [0, -8, 4]):
        result = LocalResult(np.array(change, np.float32), 1, 1, 0.0, None)
        vector, _ = strategy.contribute(result, 1.0, LAYOUT, server, None)
        server = strategy.apply(server, strategy.unpack(vector.astype(float), LAYOUT), LAYOUT, 1)
        models.append(server.model)
        shares = 0.5 ** np.arange(len(models))[::-1]
        expected = (shares[:, None] * np.array(models)).sum(axis=0) / shares.sum()
        assert server.evaluated == pytest.approx(expected, rel=1e-6)
    plain = FedAvg().init(np.array([8.0, 8, 8], np.float32), LAYOUT)
    assert np.array_equal(plain.evaluated, plain.model)
    assert server.model.tolist() == [12.0, 4.0, 20.0]  # training goes on from the strategy's own


def test_an_average_is_around_any_strategy(toy):
    scaffold = Averaged(Scaffold(lr=0.1), 0.9)
    assert scaffold.has_control and scaffold.counts == Scaffold().counts and scaffold.name == "scaffold"
    settings = Settings(**SMALL, ema=0.9, strategy="scaffold")
    federated = load_federated_data(settings)
    first = network_of(settings, federated.dataset, 64)
    assert isinstance(first.strategy, Averaged)
    averaged, plain = (play(strategy="scaffold", ema=ema)[2].federation.state for ema in (0.9, 0.0))
    assert np.array_equal(averaged.server.model, plain.server.model)
    assert not np.array_equal(averaged.server.evaluated, plain.server.evaluated)
    # what a hospital's ledger goes by is what was evaluated
    assert averaged.common.evaluated_digest != plain.common.evaluated_digest
    assert averaged.common.weights_digest == plain.common.weights_digest == plain.common.evaluated_digest


def test_thresholds_and_temperature_come_from_validation_images_alone(toy):
    dataset = toy_dataset()
    flags = [True, *[False] * (len(dataset.classes) - 1)]
    dataset.class_info = tuple(info._replace(malignant=flag) for info, flag in zip(dataset.class_info, flags))
    settings = Settings(**SMALL)
    federated = share_out(settings, dataset)
    assembly = assemble(settings, federated)
    list(assembly.federation.run())
    found = operation(assembly.federation, 0.9)
    threshold = found["thresholds"]["malignant"]
    assert threshold["target_sensitivity"] == 0.9 <= threshold["validation"]["sensitivity"]
    probabilities, labels = assembly.federation.predict()
    shown = tempered(probabilities, temperature_of(assembly.federation.state))
    called, positive = shown[:, 0] >= threshold["threshold"], labels == 0
    assert threshold["test"] == {
        "sensitivity": called[positive].mean(),
        "specificity": (~called[~positive]).mean(),
    }
    by_class = probabilities.argmax(axis=1) == 0
    assert threshold["test_by_class"]["sensitivity"] == by_class[positive].mean()
    assert set(found["calibration"]) == {"ece", "ece_scaled"}
    # other test images change neither
    fewer = federated.split._replace(test=federated.split.test[:5])
    changed = assemble(settings, federated._replace(split=fewer))
    list(changed.federation.run())
    again = operation(changed.federation, 0.9)["thresholds"]["malignant"]
    assert again["threshold"] == threshold["threshold"]
    assert temperature_of(changed.federation.state) == temperature_of(assembly.federation.state)

"""Whole federations on a toy data set: equal under all protections, exact when resumed."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from comparison import TWO_ROUNDS, gentle, grid_of, protections, settings_of
from samples import SMALL_RUN

from skinfl.assembly import assemble, load_federated_data, training_parts, unit_images
from skinfl.errors import SkinflError, TrainingError, WriteError
from skinfl.federation.audit import Audit
from skinfl.federation.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from skinfl.federation.common import STATISTICS_ROUND
from skinfl.federation.events import Aggregated, HospitalLeftOut, RoundFinished, RoundStarted, RunStarted
from skinfl.federation.rules import STATISTICS, TRAIN, Task, class_weights
from skinfl.federation.strategies import STRATEGIES
from skinfl.protection.base import Opened
from skinfl.protection.encoder import separate_counts
from skinfl.protection.receiving import common_senders
from skinfl.settings import Settings

SMALL = {**SMALL_RUN, "lr": 0.05, "momentum": 0.0}
SMALL_HOSPITALS = ("hospital-1", "hospital-2", "hospital-3")


def play(settings, **changes):
    """Return the events of a run and its assembly."""
    settings = Settings(**{**SMALL, **settings, **changes})
    assembly = assemble(settings, load_federated_data(settings))
    return list(assembly.federation.run()), assembly


def final(settings, **changes):
    return play(settings, **changes)[1].federation.state.server.model


def test_events_come_in_order(toy):
    events, assembly = play({})
    kinds = [type(e).__name__ for e in events]
    one_round = ["RoundStarted", *["HospitalTrained"] * 3, "Aggregated", "RoundFinished"]
    assert kinds == ["RunStarted", *one_round, *one_round]
    assert events[0] == RunStarted(1, 2, ("hospital-1", "hospital-2", "hospital-3"))
    assert assembly.federation.state.round == 2


def test_it_learns(toy):
    events, _ = play({}, rounds=8, lr=0.1)
    records = [e.record for e in events if isinstance(e, RoundFinished)]
    assert records[-1].metrics["balanced_accuracy"] > 0.8
    assert records[-1].metrics["loss"] < records[0].metrics["loss"]


@pytest.mark.parametrize("strategy", STRATEGIES.names)
def test_same_seed_same_numbers(toy, strategy):
    assert np.array_equal(final({"strategy": strategy}), final({"strategy": strategy}))


@pytest.mark.parametrize("protection", protections(all_variants=False))
@pytest.mark.parametrize("strategy", STRATEGIES.names)
def test_a_federation_resumed_from_a_file_is_bit_for_bit_the_uninterrupted_one(
    toy, tmp_path, strategy, protection
):
    """Moments, controls and ranges that are kept between rounds are all in the file."""
    settings = settings_of(protection, **SMALL, strategy=strategy)
    federated = load_federated_data(settings)
    whole = assemble(settings, federated)
    list(whole.federation.run())
    first = assemble(settings.replace(rounds=1), federated)
    list(first.federation.run())
    state = first.federation.state
    save_checkpoint(tmp_path / "c", Checkpoint(state, first.transport.state(), {}))
    resumed = assemble(settings, federated, load_checkpoint(tmp_path / "c"))
    assert resumed.federation.state.records == state.records
    list(resumed.federation.run())
    assert resumed.federation.state.server == whole.federation.state.server


def test_another_seed_gives_another_model(toy):
    assert not np.array_equal(final({"seed": 1}), final({"seed": 2}))


class Watching(Audit):
    """Sees the largest value that was contributed, counts left out, which are not carried as values are."""

    largest = 0.0
    layout = None

    def __call__(self, hospital, round, contribution):
        super().__call__(hospital, round, contribution)
        if round == STATISTICS_ROUND:
            return
        values = np.delete(contribution, separate_counts(self.layout).counts)
        self.largest = max(self.largest, float(np.abs(values).max()))


def trained(choice, strategy, monkeypatch, **changes):
    """Train under a protection; return it and the model, with every opened sum held to its bound."""
    audit = Watching()
    monkeypatch.setattr("skinfl.assembly.Audit", lambda: audit)
    settings = settings_of(choice, **SMALL, strategy=strategy, **changes)
    assembly = assemble(settings, load_federated_data(settings))
    audit.layout = assembly.federation._rules.vectors(TRAIN)
    for _ in assembly.federation.run():
        pass
    bound = assembly.protection.error_bound(SMALL["hospitals"], audit.largest)
    state = assembly.federation.state
    sums = [record.max_abs_difference_from_plaintext_sum for record in state.records]
    assert len(sums) == SMALL["rounds"] and max(sums) <= bound
    return assembly.protection, state.server.model, bound


@pytest.fixture(scope="module")
def models():
    """Models that were trained already: by strategy without protection, by strategy and grid with one."""
    return {}


@pytest.mark.parametrize("choice", protections(all_variants=False, but=["plaintext"]))
@pytest.mark.parametrize("strategy", STRATEGIES.names)
def test_every_protection_gives_the_plaintext_model(toy, monkeypatch, models, strategy, choice):
    """As near as each one's sums are; those on one grid give the same model to the bit."""
    if strategy not in models:
        models[strategy] = final({"strategy": strategy, **gentle(strategy)})
    protection, model, bound = trained(choice, strategy, monkeypatch, **gentle(strategy))
    assert np.abs(model - models[strategy]).max() <= TWO_ROUNDS * bound
    grid = grid_of(protection, SMALL["hospitals"])
    if grid is not None:
        assert np.array_equal(model, models.setdefault((strategy, grid), model))


@pytest.mark.parametrize("choice", protections(but=["plaintext"]))
def test_every_variant_gives_the_plaintext_model(toy, monkeypatch, models, choice):
    """Under a fixed clip: ranges that BFV agrees on in one round may cut off values of the next."""
    if "fedavg" not in models:
        models["fedavg"] = final({"strategy": "fedavg"})
    _, model, bound = trained(choice, "fedavg", monkeypatch, clip=1.0)
    assert np.abs(model - models["fedavg"]).max() <= TWO_ROUNDS * bound


def test_a_hospital_whose_loss_is_not_a_number_is_left_out_and_named(toy, monkeypatch):
    from skinfl.federation import hospital

    original = hospital.train

    def broken(model, layout, dataset, *args, **kwargs):
        if kwargs["purpose"][1] == "hospital-2":
            raise TrainingError("the loss is nan after 3 steps: lower --lr")
        return original(model, layout, dataset, *args, **kwargs)

    monkeypatch.setattr(hospital, "train", broken)
    events, _ = play({}, rounds=1)
    (left_out,) = [e for e in events if isinstance(e, HospitalLeftOut)]
    assert left_out.hospital == "hospital-2"
    assert "loss is nan" in left_out.reason
    (aggregated,) = [e for e in events if isinstance(e, Aggregated)]
    assert aggregated.senders == ("hospital-1", "hospital-3")


def test_a_sum_that_cannot_be_kept_ends_the_run_and_is_no_hospitals_fault(toy, monkeypatch):
    def full(transport, task, opened):
        raise WriteError("news-0", "no space left")

    monkeypatch.setattr("skinfl.federation.transport.LocalTransport.tell", full)
    with pytest.raises(WriteError, match="no space left"):
        play({})


def test_where_every_loss_is_not_a_number_training_stops_with_one_line(toy):
    with pytest.raises(TrainingError, match=r"round 1: no hospital's update arrived .*lower --lr"):
        play({}, lr=1e6)


def test_sampling_asks_some_and_at_least_two(toy):
    events, _ = play({}, rounds=6, sample=0.1)
    asked = [e.asked for e in events if isinstance(e, RoundStarted)]
    assert all(len(names) == 2 for names in asked)
    assert len(set(asked)) > 1


@pytest.mark.parametrize("protection", protections(all_variants=False))
def test_rounds_go_on_when_hospitals_vanish(toy, protection):
    settings = settings_of(protection, **{**SMALL, "rounds": 6}, strategy="scaffold", dropout=0.4)
    assembly = assemble(settings, load_federated_data(settings))
    events = list(assembly.federation.run())
    left_out = [e for e in events if isinstance(e, HospitalLeftOut)]
    assert any("vanished" in e.reason for e in left_out)
    assert assembly.federation.state.round == 6


def test_the_sum_of_a_single_hospital_is_never_opened(toy, monkeypatch):
    from skinfl.federation.rounds import Federation

    monkeypatch.setattr(Federation, "_participants", lambda self, r: (("hospital-1",), []))
    events, assembly = play({}, rounds=1)
    (left_out,) = [e for e in events if isinstance(e, HospitalLeftOut)]
    assert "never opened" in left_out.reason
    first = Settings(**SMALL)
    start = assemble(first, load_federated_data(first)).federation.state.server.model
    assert np.array_equal(assembly.federation.state.server.model, start)


def test_a_scaffold_control_whose_update_was_lost_is_dropped(toy):
    settings = Settings(**{**SMALL, "strategy": "scaffold"})
    assembly = assemble(settings, load_federated_data(settings))
    federation = assembly.federation
    assert list(federation._prepare()) == []
    agent = assembly.transport._agents["hospital-1"]
    data = load_federated_data(settings).train_of("hospital-1")
    common = federation.state.common
    agent.train(data, Task(TRAIN, 1, common, SMALL_HOSPITALS))
    assert agent.state()["pending_round"] == 1
    agent.train(data, Task(TRAIN, 2, common, SMALL_HOSPITALS))
    assert "control" not in agent.state()
    accepted = dataclasses.replace(common, accepted={"hospital-1": 2})
    agent.train(data, Task(TRAIN, 3, accepted, SMALL_HOSPITALS))
    assert np.abs(agent.state()["control"]).max() > 0


def test_a_hospital_larger_than_agreed_refuses(toy):
    settings = Settings(**SMALL)
    assembly = assemble(settings, load_federated_data(settings))
    agent = assembly.transport._agents["hospital-1"]
    agent._rules.unit = 3
    task = Task(STATISTICS, 0, assembly.federation.state.common, SMALL_HOSPITALS)
    with pytest.raises(SkinflError, match="more training images than the agreed 3"):
        agent.statistics(load_federated_data(settings).train_of("hospital-1"), task)


def test_batchnorm_statistics_can_stay_at_the_hospitals(toy):
    changes = {"model": "mobilenet_v2", "rounds": 1, "image_size": 32}
    _, local = play({"batchnorm": "local"}, **changes)
    _, average = play({"batchnorm": "average"}, **changes)
    assert local.layout.size == local.layout.n_parameters < average.layout.size
    states = local.transport.state()
    key = next(k for k in states if k.startswith("hospital-1/private/") and k.endswith("running_mean"))
    assert not np.array_equal(states[key], states[key.replace("hospital-1/", "hospital-2/")])


def test_normalisation_and_class_weights_come_from_training_images_of_all_hospitals(toy):
    settings = Settings(**SMALL)
    federated = load_federated_data(settings)
    _, assembly = play({"protection": "smpc"}, rounds=1)
    prepared = assembly.federation.state.prepared
    train = [training_parts(settings, federated.train_of(name), name).train for name in federated.partition]
    images = np.concatenate([part.images[:] for part in train])
    assert prepared.normalisation.mean[0] == pytest.approx(images.mean() / 255, abs=1e-5)
    assert prepared.normalisation.std[0] == pytest.approx(images.std() / 255, abs=1e-4)
    expected = class_weights(sum(part.class_counts() for part in train), "sqrt")
    assert prepared.class_weights == pytest.approx(expected, abs=1e-4)


def test_class_weights_by_hand():
    counts = np.array([60.0, 30.0, 0.0, 10.0])
    assert class_weights(counts, "none") is None
    assert class_weights(counts, "inverse") == pytest.approx([1 / 1.8, 1 / 0.9, 0.0, 1 / 0.3])
    root = class_weights(counts, "sqrt")
    assert (root * counts).sum() == pytest.approx(counts.sum())
    assert root[3] / root[0] == pytest.approx(6**0.5)


def test_audit_names_a_sender_that_contributed_nothing():
    audit = Audit()
    audit("a", 1, np.ones(2))
    with pytest.raises(SkinflError, match="ghost"):
        audit.difference(1, Opened(np.ones(2), ("a", "ghost")))


def test_agreed_senders_are_those_every_party_received():
    assert common_senders([{"a", "b"}, {"b", "c", "a"}], ["c", "b", "a"]) == ("b", "a")


@pytest.mark.parametrize("largest, unit", [(1, 1), (2, 2), (3, 4), (1024, 1024), (1025, 2048)])
def test_the_unit_is_the_next_power_of_two(largest, unit):
    assert unit_images(largest) == unit

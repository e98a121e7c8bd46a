"""The learning rate over the rounds: a pure function of time, the same at whoever computes it."""

from __future__ import annotations

import numpy as np
import pytest
from samples import toy_dataset
from torch import nn

from skinfl.assembly import local_plan
from skinfl.data.transforms import normalisation_from_sums, pixel_sums
from skinfl.errors import SettingsError
from skinfl.federation.local import LocalResult, train
from skinfl.federation.schedule import Constant, Cosine
from skinfl.federation.strategies import Scaffold
from skinfl.federation.update import StateLayout
from skinfl.settings import Settings

LINEAR = nn.Sequential(nn.Flatten(), nn.Linear(144, 3))


def test_a_cosine_goes_from_1_to_its_least_share():
    rate = Cosine(rounds=10, warmup_rounds=2, lr_min_share=0.1)
    assert [rate.share(t) for t in (0.0, 1.0, 2.0, 6.0, 10.0)] == pytest.approx([0.0, 0.5, 1.0, 0.55, 0.1])
    falling = [rate.share(t) for t in np.linspace(2, 10, 50)]
    assert falling == sorted(falling, reverse=True)


def test_a_constant_rate_is_1_after_its_rise():
    assert {Constant().share(t) for t in (0.0, 0.1, 7.0)} == {1.0}
    assert [Constant(4).share(t) for t in (0.0, 1.0, 3.0, 4.0, 9.0)] == [0.0, 0.25, 0.75, 1.0, 1.0]


def test_steps_go_on_from_round_to_round_without_a_jump_however_many_a_hospital_has():
    rate = Cosine(rounds=3, warmup_rounds=1)
    few = [rate.at_step(round, step, 4) for round in (1, 2, 3) for step in range(4)]
    assert few == [rate.share((i + 0.5) / 4) for i in range(12)]
    many = [rate.at_step(round, step, 400) for round in (1, 2, 3) for step in range(400)]
    assert np.mean(many) == pytest.approx(np.mean(few), abs=0.01)
    assert min(few) > 0


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_a_rise_that_leaves_no_round_is_refused(schedule):
    with pytest.raises(SettingsError, match="warmup_rounds = 6 leaves none of rounds = 6"):
        Settings(lr_schedule=schedule, warmup_rounds=6)


def test_adamw_has_its_own_defaults():
    found = Settings(optimiser="adamw")
    assert (found.lr, found.momentum, found.weight_decay) == (0.002, 0.0, 0.01)


def trained(round, **changes):
    settings = Settings(
        data="toy", augment=False, image_size=12, max_grad_norm=0.0, weight_decay=0.0, **changes
    )
    dataset = toy_dataset(40)
    layout = StateLayout(LINEAR)
    return train(
        LINEAR,
        layout,
        dataset,
        normalisation_from_sums(pixel_sums(dataset.images)),
        local_plan(settings),
        start=np.zeros(layout.size, np.float32),
        seed=5,
        purpose=(1, "a"),
        round=round,
    )


def test_steps_are_as_long_as_the_schedule_says():
    """One step a round: its length is the share times that at the full rate."""
    changes = {"rounds": 4, "local_epochs": 1, "batch_size": 64, "momentum": 0.0, "lr": 0.1}
    full = trained(1, **changes)
    for round, share in ((1, 0.5 * (1 + np.cos(np.pi / 8))), (4, 0.5 * (1 + np.cos(np.pi * 7 / 8)))):
        found = trained(round, lr_schedule="cosine", lr_min_share=0.0, **changes)
        assert found.lr_shares == pytest.approx([share])
        np.testing.assert_allclose(found.delta, share * full.delta, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("optimiser", ["sgd", "adam", "adamw"])
def test_every_optimiser_follows_the_schedule(optimiser):
    changes = {"optimiser": optimiser, "rounds": 5, "lr": 0.01}
    full = trained(5, **changes)
    last = trained(5, lr_schedule="cosine", **changes)
    assert 0 < np.abs(last.delta).max() < 0.2 * np.abs(full.delta).max()
    assert len(last.lr_shares) == last.steps


def test_scaffolds_control_is_the_mean_gradient_whatever_the_rates_were():
    """Steps along one gradient: the new control is that gradient."""
    layout = StateLayout(nn.Linear(1, 1, bias=False))
    strategy = Scaffold(lr=0.1)
    server = strategy.init(np.zeros(1, np.float32), layout)
    shares = np.array([0.25, 1.0, 0.5])
    result = LocalResult(np.array([-0.1 * shares.sum() * 3.0], np.float32), 3, 10, 0.0, None, shares)
    _, control = strategy.contribute(result, 1.0, layout, server, None)
    assert control == pytest.approx([3.0])

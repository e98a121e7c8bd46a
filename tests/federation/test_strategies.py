"""Strategies against closed forms: hospitals whose loss is a quadratic with a known minimum.

Hospital k minimises ``0.5 * h_k * (y - m_k)^2``, so after ``t`` plain SGD steps of size ``lr`` its
model is ``m_k + (1 - lr * h_k)^t * (x - m_k)``.
"""

from __future__ import annotations

import numpy as np
import pytest
from torch import nn

from skinfl.errors import SettingsError, TrainingError
from skinfl.federation.local import LocalResult
from skinfl.federation.strategies import (
    STRATEGIES,
    FedAvg,
    FedNova,
    FedProx,
    Scaffold,
    build_strategy,
)
from skinfl.federation.strategies.base import Correction
from skinfl.federation.strategies.fednova import path_length
from skinfl.federation.update import StateLayout
from skinfl.settings import Settings

LR = 0.1
LAYOUT = StateLayout(nn.Linear(1, 1, bias=False))


class Quadratic:
    """A hospital with loss ``0.5 * curvature * (y - minimum)^2`` and ``images`` images."""

    def __init__(self, minimum, curvature, steps, images):
        self.minimum, self.curvature, self.steps, self.images = minimum, curvature, steps, images
        self.control = None

    def gradient(self, y):
        return self.curvature * (y - self.minimum)

    def train(self, x: float, correction: Correction) -> LocalResult:
        y = x
        drift = 0.0 if correction.drift is None else float(correction.drift[0])
        for _ in range(self.steps):
            y -= LR * (self.gradient(y) + correction.proximal * (y - x) + drift)
        full = np.array([self.gradient(x)], np.float32) if correction.full_gradient else None
        return LocalResult(np.array([y - x], np.float32), self.steps, self.images, 0.0, full)


def play(strategy, hospitals, rounds, x=0.0, unit=100):
    """Run rounds without data or protection; return the server's states, the first one included."""
    server = strategy.init(np.array([x], np.float32), LAYOUT)
    states = [server]
    for _ in range(rounds):
        total = 0.0
        for h in hospitals:
            correction = strategy.correction(server, h.control)
            result = h.train(float(server.model[0]), correction)
            vector, h.control = strategy.contribute(result, h.images / unit, LAYOUT, server, h.control)
            assert vector.shape == (strategy.contribution_layout(LAYOUT).size,)
            total = total + vector.astype(np.float64)
        server = strategy.apply(server, strategy.unpack(total, LAYOUT), LAYOUT, len(hospitals))
        states.append(server)
    return states


def after(h, x, steps=None):
    return h.minimum + (1 - LR * h.curvature) ** (steps or h.steps) * (x - h.minimum)


def test_fedavg_is_the_example_weighted_mean():
    a, b = Quadratic(1.0, 1.0, 2, 30), Quadratic(-3.0, 1.0, 2, 10)
    (_, server) = play(FedAvg(), [a, b], 1, x=5.0)
    assert server.model[0] == pytest.approx((30 * after(a, 5.0) + 10 * after(b, 5.0)) / 40, abs=1e-6)


def test_server_step_size_scales_the_mean_change():
    a, b = Quadratic(1.0, 1.0, 2, 30), Quadratic(-3.0, 1.0, 2, 10)
    full = play(FedAvg(), [a, b], 1, x=5.0)[1].model[0] - 5.0
    half = play(FedAvg(server_lr=0.5), [a, b], 1, x=5.0)[1].model[0] - 5.0
    assert half == pytest.approx(full / 2, abs=1e-6)


def test_fedprox_local_minimum_lies_between_start_and_own_minimum():
    # With many steps a hospital reaches the minimum of F + mu/2 (y - x)^2.
    h = Quadratic(4.0, 2.0, 500, 10)
    (_, server) = play(FedProx(mu=3.0), [h, h], 1, x=1.0)
    assert server.model[0] == pytest.approx((2.0 * 4.0 + 3.0 * 1.0) / (2.0 + 3.0), abs=1e-5)


def test_fedprox_without_proximal_term_is_fedavg():
    hospitals = [Quadratic(1.0, 1.0, 3, 30), Quadratic(-3.0, 2.0, 5, 10)]
    assert play(FedProx(mu=0.0), hospitals, 2)[2].model == play(FedAvg(), hospitals, 2)[2].model


@pytest.mark.parametrize("unit_length", [1.0, 7.0])
def test_fednova_divides_by_steps_and_multiplies_by_their_mean(unit_length):
    a, b = Quadratic(1.0, 1.0, 2, 30), Quadratic(-3.0, 1.0, 10, 10)
    (_, server) = play(FedNova(unit_length=unit_length), [a, b], 1, x=5.0)
    p, steps = np.array([0.75, 0.25]), np.array([2, 10])
    changes = np.array([after(a, 5.0) - 5.0, after(b, 5.0) - 5.0])
    expected = 5.0 + (p * steps).sum() * (p * changes / steps).sum()
    assert server.model[0] == pytest.approx(expected, abs=1e-5)


def test_fednova_with_equal_steps_is_fedavg():
    hospitals = [Quadratic(1.0, 1.0, 4, 30), Quadratic(-3.0, 2.0, 4, 10)]
    assert play(FedNova(), hospitals, 3)[3].model == pytest.approx(play(FedAvg(), hospitals, 3)[3].model)


def test_fednova_finds_the_common_minimum_where_fedavg_does_not():
    # Equal shares and curvatures: the common minimum is 0, whatever the numbers of steps.
    hospitals = [Quadratic(1.0, 0.01, 1, 10), Quadratic(-1.0, 0.01, 9, 10)]
    nova = play(FedNova(), hospitals, 3000)[-1].model[0]
    average = play(FedAvg(), hospitals, 3000)[-1].model[0]
    assert abs(nova) < 0.01
    assert average < -0.7


def test_path_length_with_momentum_matches_the_recursion():
    # a_k collects how often each gradient entered the model through the momentum buffer.
    momentum, steps = 0.9, 6
    coefficients = [sum(momentum ** (j - i) for j in range(i, steps)) for i in range(steps)]
    assert path_length(np.ones(steps), momentum) == pytest.approx(sum(coefficients))
    assert path_length(np.ones(steps), 0.0) == steps


def test_path_length_weighs_steps_by_their_learning_rate():
    momentum, shares = 0.5, np.array([0.2, 1.0, 0.6])
    coefficients = [sum(shares[j] * momentum ** (j - i) for j in range(i, 3)) for i in range(3)]
    assert path_length(shares, momentum) == pytest.approx(sum(coefficients))


@pytest.mark.parametrize("option", [1, 2])
def test_scaffold_finds_the_common_minimum_where_fedavg_drifts(option):
    # Different curvatures: the common minimum solves sum of h_k (y - m_k) = 0.
    def hospitals():
        return [Quadratic(1.0, 0.5, 20, 10), Quadratic(-1.0, 2.0, 20, 10)]

    common = (0.5 * 1.0 + 2.0 * -1.0) / (0.5 + 2.0)
    scaffold = play(Scaffold(lr=LR, option=option), hospitals(), 200)[-1]
    average = play(FedAvg(), hospitals(), 200)[-1]
    assert scaffold.model[0] == pytest.approx(common, abs=1e-4)
    assert abs(average.model[0] - common) > 0.1
    assert scaffold["control"][0] == pytest.approx(0.0, abs=1e-3)


def test_scaffold_first_round_by_hand():
    # Controls start at zero, so the first local steps are plain ones.
    a, b = Quadratic(1.0, 1.0, 2, 10), Quadratic(-3.0, 1.0, 2, 10)
    server = play(Scaffold(lr=LR, option=2), [a, b], 1, x=5.0)[1]
    ca = (5.0 - after(a, 5.0)) / (2 * LR)
    cb = (5.0 - after(b, 5.0)) / (2 * LR)
    assert a.control[0] == pytest.approx(ca, rel=1e-5)
    assert server["control"][0] == pytest.approx((ca + cb) / 2, rel=1e-5)
    assert server.model[0] == pytest.approx((after(a, 5.0) + after(b, 5.0)) / 2, rel=1e-5)


def test_scaffold_option_1_control_is_the_gradient_at_the_sent_model():
    a, b = Quadratic(1.0, 1.0, 2, 10), Quadratic(-3.0, 2.0, 2, 10)
    server = play(Scaffold(lr=LR, option=1), [a, b], 1, x=5.0)[1]
    assert a.control[0] == pytest.approx(4.0)
    assert b.control[0] == pytest.approx(16.0)
    assert server["control"][0] == pytest.approx(10.0)


def test_server_control_is_divided_by_all_hospitals_not_those_asked():
    a = Quadratic(1.0, 1.0, 2, 10)
    strategy = Scaffold(lr=LR, option=1)
    server = strategy.init(np.array([5.0], np.float32), LAYOUT)
    result = a.train(5.0, strategy.correction(server, None))
    vector, _ = strategy.contribute(result, 0.1, LAYOUT, server, None)
    server = strategy.apply(server, strategy.unpack(vector, LAYOUT), LAYOUT, hospitals=4)
    assert server["control"][0] == pytest.approx(4.0 / 4)


def test_statistics_are_averaged_plainly_by_fednova_and_left_out_of_controls():
    layout = StateLayout(nn.Sequential(nn.Linear(1, 1, bias=False), nn.BatchNorm1d(1, affine=False)))
    assert (layout.n_parameters, layout.size) == (1, 3)
    strategy = FedNova(unit_length=2.0)
    server = strategy.init(np.zeros(3, np.float32), layout)
    total = 0.0
    for delta, steps, weight in (([1.0, 2.0, 3.0], 2, 0.5), ([5.0, 4.0, 1.0], 10, 0.5)):
        result = LocalResult(np.array(delta, np.float32), steps, 50, 0.0, None)
        total = total + strategy.contribute(result, weight, layout, server, None)[0]
    model = strategy.apply(server, strategy.unpack(total, layout), layout, 2).model
    assert model[1:] == pytest.approx([3.0, 2.0])
    assert model[0] == pytest.approx(6.0 * (0.5 * 1.0 / 2 + 0.5 * 5.0 / 10))
    assert Scaffold().contribution_layout(layout).size == 3 + 1 + 1


def test_a_sum_without_weight_is_refused():
    with pytest.raises(TrainingError, match="no hospital contributed"):
        FedAvg().unpack(np.zeros(2), LAYOUT)


@pytest.mark.parametrize("name", STRATEGIES.names)
def test_strategies_are_built_from_settings(name):
    settings = Settings(strategy=name, lr=0.03, mu=0.2, server_lr=0.7, batch_size=10, local_epochs=2)
    strategy = build_strategy(name, settings.asdict(), unit=128)
    assert (strategy.name, strategy.server_lr) == (name, 0.7)
    assert getattr(strategy, "mu", 0.2) == 0.2
    assert getattr(strategy, "unit_length", 25.6) == 25.6
    assert getattr(strategy, "lr", 0.03) == 0.03


@pytest.mark.parametrize("name", STRATEGIES.names)
def test_the_default_server_step_is_the_strategy_s_own(name):
    strategy = build_strategy(name, Settings(strategy=name).asdict(), unit=128)
    assert strategy.server_lr == type(strategy).server_lr


@pytest.mark.parametrize("bad", [{"strategy": "scaffold"}, {"strategy": "fednova"}])
def test_adam_is_refused_where_the_strategy_assumes_sgd(bad):
    with pytest.raises(SettingsError, match="optimiser sgd"):
        Settings(optimiser="adam", **bad)

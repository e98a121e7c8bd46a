"""FedAvgM, FedAdam, FedYogi and FedAdagrad against values worked out by hand.

Each is given three parameters and a variance. With ``beta1 = beta2 = 0.5`` and ``tau = 1`` the first mean
change ``D`` makes ``m = D / 2`` and, since ``v`` starts at one, ``v = (1 + D^2) / 2`` in Adam's case.
"""

from __future__ import annotations

import numpy as np
import pytest
from torch import nn

from skinfl.federation.local import LocalResult
from skinfl.federation.state import AUXILIARY
from skinfl.federation.strategies.fedadagrad import FedAdagrad
from skinfl.federation.strategies.fedadam import FedAdam
from skinfl.federation.strategies.fedavg import FedAvg
from skinfl.federation.strategies.fedavgm import FedAvgM
from skinfl.federation.strategies.fedyogi import FedYogi
from skinfl.federation.update import StateLayout

LAYOUT = StateLayout(nn.Linear(3, 1, bias=False))
HALF = {"beta1": 0.5, "beta2": 0.5, "tau": 1.0, "server_lr": 0.1}


def play(strategy, *rounds, x=(0.0, 0.0, 0.0)):
    """Return the states after rounds in which two hospitals, three times as large the first, change by these.

    The first changes by ``D - 1`` and the second by ``D + 3``, so the weighted mean is ``D``.
    """
    server = strategy.init(np.array(x, np.float32), LAYOUT)
    states = []
    for change in rounds:
        total = 0.0
        for delta, weight in ((np.array(change) - 1, 0.75), (np.array(change) + 3, 0.25)):
            result = LocalResult(delta.astype(np.float32), 5, 10, 0.0, None)
            vector, control = strategy.contribute(result, weight, LAYOUT, server, None)
            assert control is None
            total = total + vector.astype(np.float64)
        server = strategy.apply(server, strategy.unpack(total, LAYOUT), LAYOUT, 2)
        states.append(server)
    return states


def test_fedavgm_by_hand():
    a, b, c = play(FedAvgM(server_lr=2.0, server_momentum=0.5), [1, -2, 0], [4, 0, 0], [0, 0, 8])
    assert a["v"].tolist() == [1.0, -2.0, 0.0]
    assert a.model.tolist() == [2.0, -4.0, 0.0]
    assert b["v"].tolist() == [4.5, -1.0, 0.0]
    assert b.model.tolist() == [11.0, -6.0, 0.0]
    assert c["v"].tolist() == [2.25, -0.5, 8.0]
    assert c.model.tolist() == [15.5, -7.0, 16.0]


def test_fedavgm_without_momentum_is_fedavg():
    rounds = ([1, -2, 0], [4, 0.5, 0], [0, 0, 8])
    ours, plain = play(FedAvgM(server_lr=0.7, server_momentum=0.0), *rounds), play(FedAvg(0.7), *rounds)
    assert [s.model.tolist() for s in ours] == [s.model.tolist() for s in plain]


def test_fedadam_by_hand():
    a, b = play(FedAdam(**HALF), [1, -7, 0], [3, 1, 0])
    assert a["m"].tolist() == [0.5, -3.5, 0.0]
    assert a["v"].tolist() == [1.0, 25.0, 0.5]  # (1 + 1) / 2, (1 + 49) / 2, (1 + 0) / 2
    assert a.model == pytest.approx([0.1 * 0.5 / (1 + 1), 0.1 * -3.5 / (5 + 1), 0.0], rel=1e-6)
    assert b["m"].tolist() == [1.75, -1.25, 0.0]
    assert b["v"].tolist() == [5.0, 13.0, 0.25]
    second = [0.1 * 1.75 / (5**0.5 + 1), 0.1 * -1.25 / (13**0.5 + 1), 0.0]
    assert b.model == pytest.approx(a.model + second, rel=1e-6)


def test_fedyogi_by_hand():
    # v grows by half of D^2 where that is larger than v, shrinks by it where smaller, else stays.
    a, b = play(FedYogi(**HALF), [3, 0.5, 1], [1, 2, 0])
    assert a["m"].tolist() == [1.5, 0.25, 0.5]
    assert a["v"].tolist() == [1 + 4.5, 1 - 0.125, 1.0]
    expected = [0.1 * 1.5 / (5.5**0.5 + 1), 0.1 * 0.25 / (0.875**0.5 + 1), 0.1 * 0.5 / 2]
    assert a.model == pytest.approx(expected, rel=1e-6)
    assert b["m"].tolist() == [1.25, 1.125, 0.25]
    assert b["v"].tolist() == [5.5 - 0.5, 0.875 + 2, 1.0]
    second = [0.1 * 1.25 / (5**0.5 + 1), 0.1 * 1.125 / (2.875**0.5 + 1), 0.1 * 0.25 / 2]
    assert b.model == pytest.approx(a.model + second, rel=1e-6)


def test_fedadagrad_by_hand():
    a, b = play(FedAdagrad(beta1=0.5, tau=1.0, server_lr=0.1), [1, -7, 0], [3, 1, 0])
    assert a["m"].tolist() == [0.5, -3.5, 0.0]
    assert a["v"].tolist() == [2.0, 50.0, 1.0]  # 1 + 1, 1 + 49, 1 + 0
    assert a.model == pytest.approx([0.1 * 0.5 / (2**0.5 + 1), 0.1 * -3.5 / (50**0.5 + 1), 0.0], rel=1e-6)
    assert b["m"].tolist() == [1.75, -1.25, 0.0]
    assert b["v"].tolist() == [11.0, 51.0, 1.0]
    second = [0.1 * 1.75 / (11**0.5 + 1), 0.1 * -1.25 / (51**0.5 + 1), 0.0]
    assert b.model == pytest.approx(a.model + second, rel=1e-6)


def test_fedadagrad_of_one_change_moves_by_the_root_of_the_rounds():
    # Without momentum, and v = n D^2 after n rounds, the steps are server_lr / sqrt(n).
    states = play(FedAdagrad(server_lr=1.0, tau=1e-9), *[[2.0, -2.0, 4.0]] * 5)
    expected = sum(n**-0.5 for n in range(1, 6))
    assert states[-1].model == pytest.approx([expected, -expected, expected], rel=1e-5)


def test_fedyogi_forgets_a_large_change_more_slowly_than_fedadam():
    rounds = ([10, 10, 10], [0.1, 0.1, 0.1], [0.1, 0.1, 0.1])
    adam, yogi = play(FedAdam(), *rounds)[-1], play(FedYogi(), *rounds)[-1]
    assert (yogi["v"] > adam["v"]).all()


@pytest.mark.parametrize("kind", [FedAdam, FedYogi])
def test_second_moments_start_at_tau_squared_and_are_not_corrected(kind):
    strategy = kind(tau=0.25)
    server = strategy.init(np.ones(3, np.float32), LAYOUT)
    assert server["v"].tolist() == [0.0625] * 3
    assert server["m"].tolist() == [0.0] * 3
    # Nothing learnt, nothing moved; the first step is a tenth of what bias correction would make it.
    assert play(strategy, [0, 0, 0])[0].model.tolist() == [0.0] * 3
    (first,) = play(kind(server_lr=1.0, tau=1e-9), [1, -1, 2])
    assert first.model == pytest.approx([1.0, -1.0, 1.0], rel=1e-5)  # (1 - beta1) / sqrt(1 - beta2)


@pytest.mark.parametrize("kind", [FedAvgM, FedAdam, FedYogi])
def test_moments_leave_statistics_alone(kind):
    layout = StateLayout(nn.Sequential(nn.Linear(1, 1, bias=False), nn.BatchNorm1d(1, affine=False)))
    strategy = kind()
    server = strategy.init(np.zeros(3, np.float32), layout)
    kept = [d for d in server.declared if d.role == AUXILIARY]
    assert {d.size for d in kept} == {1}
    total = strategy.unpack(np.array([1.0, 2.0, 4.0, 2.0]), layout)
    for expected in ([1.0, 2.0], [2.0, 4.0]):
        server = strategy.apply(server, total, layout, 2)
        assert server["statistics"].tolist() == expected

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from skinfl.errors import ModelError
from skinfl.federation.update import StateLayout, has_batchnorm, load_private_state, private_state


def network() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 2))


def test_parameters_come_first_then_statistics_and_counters_stay():
    layout = StateLayout(network())
    assert [e.name for e in layout.parameters] == [
        "0.weight",
        "0.bias",
        "1.weight",
        "1.bias",
        "3.weight",
        "3.bias",
    ]
    assert [e.name for e in layout.statistics] == ["1.running_mean", "1.running_var"]
    assert layout.n_parameters == 18 + 2 + 2 + 2 + 16 + 2
    assert layout.size == layout.n_parameters + 4


def test_writing_what_was_flattened_gives_the_same_network():
    a, b = network(), network()
    a[1].running_mean += 0.5
    layout = StateLayout(a)
    vector = layout.flatten(a)
    layout.write(b, vector)
    x = torch.randn(3, 1, 4, 4)
    assert torch.equal(a.eval()(x), b.eval()(x))
    assert np.array_equal(layout.flatten(b), vector)
    assert vector.dtype == np.float32


def test_frozen_parameters_are_constants_and_not_sent():
    model = network()
    model[0].weight.requires_grad_(False)
    assert "0.weight" not in [e.name for e in StateLayout(model).parameters]


def test_local_statistics_are_private_to_the_hospital():
    model = network()
    layout = StateLayout(model, share_statistics=False)
    assert layout.size == layout.n_parameters
    model[1].running_mean += 2.0
    kept = private_state(model, layout)
    assert set(kept) == {"1.running_mean", "1.running_var", "1.num_batches_tracked"}
    other = network()
    load_private_state(other, kept)
    assert torch.equal(other[1].running_mean, model[1].running_mean)


def test_shared_statistics_leave_the_counter_private():
    model = network()
    assert set(private_state(model, StateLayout(model))) == {"1.num_batches_tracked"}


def test_a_vector_of_another_network_is_refused():
    with pytest.raises(ModelError, match="another network"):
        StateLayout(network()).write(network(), np.zeros(3, np.float32))


def test_a_network_without_trainable_parameters_is_refused():
    with pytest.raises(ModelError, match="no trainable parameters"):
        StateLayout(nn.Flatten())


def test_split_gives_tensors_shaped_like_the_parameters():
    model = network()
    layout = StateLayout(model)
    parts = layout.parameter_tensors(layout.flatten(model))
    for part, parameter in zip(parts, model.parameters()):
        assert torch.equal(part, parameter.detach())


def test_batchnorm_is_found():
    assert has_batchnorm(network())
    assert not has_batchnorm(nn.Linear(1, 1))

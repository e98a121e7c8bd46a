"""Networks cut in two give what they gave whole."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from skinfl.errors import ModelError, SettingsError
from skinfl.models.registry import build_model, last_stages, model_names, trainable
from skinfl.models.trunk import (
    FrozenNorm2d,
    Head,
    PooledTrunk,
    WithHead,
    count_stages,
    folded_norms,
    frozen_norms,
    parts_of,
)

CUT = ("efficientnet_lite0", "resnet18", "mobilenet_v2", "efficientnet_b0")


def network(name):
    if name not in model_names():
        pytest.skip(f"this torchvision has no {name}")
    torch.manual_seed(0)
    model = build_model(name, in_channels=3, image_size=48, classes=4)
    for module in model.modules():  # statistics as after training
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2)
            nn.init.normal_(module.bias, std=0.1)
    return model.eval()


@pytest.mark.parametrize("name", CUT)
def test_the_parts_in_a_row_are_the_network(name):
    model, images = network(name), torch.randn(3, 3, 48, 48)
    parts = parts_of(name, model)
    assert len(parts.stages) == count_stages(name)
    with torch.no_grad():
        expected = model(images)
        assert torch.allclose(nn.Sequential(*parts.stages, parts.top)(images), expected, atol=1e-5)
        split = len(parts.stages) - 2
        rest = frozen_norms(nn.Sequential(*parts.stages[split:], parts.top)).train()
        for module in rest.modules():  # dropout is not what is compared
            if isinstance(module, nn.Dropout):
                module.eval()
        maps = folded_norms(nn.Sequential(*parts.stages[:split]))(images)
        assert torch.allclose(rest(maps), expected, atol=1e-4)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in rest.modules())
    assert sum(isinstance(module, FrozenNorm2d) for module in rest.modules()) > 0
    assert list(rest.named_buffers()) == []


def test_pooled_features_are_means_and_deviations_of_each_stage():
    model, images = network("efficientnet_lite0"), torch.randn(2, 3, 48, 48)
    parts = parts_of("efficientnet_lite0", model)
    with torch.no_grad():
        found = PooledTrunk(parts.stages)(images)
        assert found.shape == (2, 4128)
        first = parts.stages[0](images)
        assert torch.allclose(found[:, :16], first.mean(dim=(2, 3)), atol=1e-5)
        expected = first.flatten(2).std(dim=2, unbiased=False)
        assert torch.allclose(found[:, 16:32], expected, atol=2e-3)
        last = PooledTrunk(parts.stages, deep=False)(images)
        assert torch.allclose(last, found[:, -2560:], atol=1e-5)


def test_a_head_on_normalised_features_is_a_network_again():
    parts = parts_of("efficientnet_lite0", network("efficientnet_lite0"))
    trunk = PooledTrunk(parts.stages)
    head = Head(4128, 4, hidden=8).eval()
    mean, std = torch.randn(4128), torch.rand(4128) + 0.5
    images = torch.randn(2, 3, 48, 48)
    with torch.no_grad():
        features = (trunk(images) - mean) / std
        expected = head(features[:, :, None, None])
        assert torch.allclose(WithHead(trunk, head, mean, std).eval()(images), expected, atol=1e-5)


def test_what_is_trained_is_read_as_it_is_meant():
    assert [trainable(value) for value in ("all", "head", "last:3", "last:03")] == [
        "all",
        "head",
        "last:3",
        "last:3",
    ]
    assert last_stages("last:3") == 3 and last_stages("all") == 0
    for value in ("last", "last:0", "last:-1", "last:x", "some", 3):
        with pytest.raises(SettingsError, match="all, head or last:N"):
            trainable(value)
    with pytest.raises(ModelError, match="skinnet cannot be cut"):
        count_stages("skinnet")

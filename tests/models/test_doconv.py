from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from skinfl.errors import ModelError
from skinfl.models import DOConv2d, fold_model
from skinfl.models.doconv import PADDING_MODES

NUMPY_MODES = {"zeros": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}


def trained(layer: DOConv2d) -> DOConv2d:
    """Give D values as training would."""
    if layer.D is not None:
        nn.init.normal_(layer.D, std=0.3)
    return layer


def padded_by_numpy(images: torch.Tensor, padding, mode: str) -> torch.Tensor:
    rows, columns = padding
    widths = ((0, 0), (0, 0), (rows, rows), (columns, columns))
    return torch.from_numpy(np.pad(images.numpy(), widths, mode=NUMPY_MODES[mode]))


def kernel_by_loops(layer: DOConv2d) -> torch.Tensor:
    """The definition, place by place."""
    height, width = layer.kernel_size
    inputs = layer.in_channels // layer.groups
    outputs = layer.out_channels // layer.groups
    weights, offsets = layer.W.detach(), layer.D.detach()
    kernel = torch.zeros(layer.out_channels, inputs, height, width)
    for o, i, m in itertools.product(range(layer.out_channels), range(inputs), range(height * width)):
        channel = o // outputs * inputs + i
        value = 0.0
        for s in range(layer.d_mul):
            depthwise = float(offsets[channel, m, s]) + (1.0 if m == s else 0.0)
            value += depthwise * float(weights[o, i, s])
        kernel[o, i, m // width, m % width] = value
    return kernel


@pytest.mark.parametrize("mode", PADDING_MODES)
@pytest.mark.parametrize("padding", [0, 1, (2, 0), (1, 2), "same", "valid"])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_layer_folded_layer_and_padding_by_hand_agree(mode, padding, groups):
    torch.manual_seed(1)
    layer = trained(DOConv2d(4, 8, 3, padding=padding, groups=groups, padding_mode=mode))
    images = torch.randn(2, 4, 7, 6)
    expected = F.conv2d(
        padded_by_numpy(images, layer.padding, mode), layer.kernel(), layer.bias, groups=groups
    )
    folded = layer.fold()
    assert isinstance(folded, nn.Conv2d)
    assert torch.allclose(layer(images), expected, atol=1e-5)
    assert torch.allclose(folded(images), expected, atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 3, "stride": 2},
        {"kernel_size": (3, 5), "stride": (1, 2), "padding": (1, 2)},
        {"kernel_size": 3, "dilation": 2, "padding": "same"},
        {"kernel_size": 1},
        {"kernel_size": 1, "stride": 2, "padding": 1},
        {"kernel_size": 3, "bias": False},
        {"kernel_size": 3, "d_mul": 15},
        {"kernel_size": (1, 3), "padding": "same"},
    ],
)
def test_folded_equals_layer(options):
    torch.manual_seed(2)
    layer = trained(DOConv2d(4, 6, groups=2, **options))
    images = torch.randn(2, 4, 9, 9)
    folded = layer.fold()
    assert type(folded) is nn.Conv2d
    assert float((layer(images) - folded(images)).detach().abs().max()) <= 1e-5
    if options.get("padding") == "same":
        assert layer(images).shape[2:] == images.shape[2:]


@pytest.mark.parametrize("groups,d_mul", [(1, None), (2, None), (2, 11)])
def test_kernel_is_the_product_of_the_definition(groups, d_mul):
    torch.manual_seed(3)
    layer = trained(DOConv2d(4, 2, 3, groups=groups, d_mul=d_mul))
    assert torch.allclose(layer.kernel(), kernel_by_loops(layer), atol=1e-5)


@pytest.mark.parametrize("groups", [1, 2])
def test_new_layer_is_an_ordinary_convolution_with_the_same_kernel(groups):
    torch.manual_seed(4)
    layer = DOConv2d(2, 6, 5, stride=2, padding=1, groups=groups)
    plain = nn.Conv2d(2, 6, 5, stride=2, padding=1, groups=groups)
    with torch.no_grad():
        plain.weight.copy_(layer.W.reshape(plain.weight.shape))
        plain.bias.copy_(layer.bias)
    images = torch.randn(3, 2, 9, 9)
    assert torch.allclose(layer(images), plain(images), atol=1e-6)


def test_gradients_reach_both_tensors_and_are_those_of_the_product():
    layer = trained(DOConv2d(1, 1, (1, 2), bias=False))
    with torch.no_grad():
        layer.W.copy_(torch.tensor([[[3.0, 5.0]]]))
        layer.D.copy_(torch.tensor([[[0.0, 1.0], [2.0, 0.0]]]))
    # (I + D) W = [[1, 1], [2, 1]] (3, 5) = (8, 11)
    assert layer.kernel().flatten().tolist() == [8.0, 11.0]
    layer(torch.tensor([[[[1.0, 10.0]]]])).sum().backward()
    # the kernel's gradient is the image (1, 10): dW = (I + D)^T (1, 10), dD = (1, 10)^T W
    assert layer.W.grad.flatten().tolist() == [21.0, 11.0]
    assert layer.D.grad.tolist() == [[[3.0, 5.0], [30.0, 50.0]]]


def test_the_identity_is_neither_parameter_nor_buffer():
    assert set(DOConv2d(1, 2, 3).state_dict()) == {"W", "D", "bias"}
    assert set(DOConv2d(1, 2, 1).state_dict()) == {"W", "bias"}


def test_fold_model_replaces_every_layer_and_leaves_the_model():
    torch.manual_seed(5)
    inner = nn.Sequential(trained(DOConv2d(3, 3, 3)), nn.ReLU())
    model = nn.Sequential(trained(DOConv2d(1, 3, 3, padding=1)), inner).eval()
    folded = fold_model(model)
    images = torch.randn(2, 1, 6, 6)
    assert not any(isinstance(m, DOConv2d) for m in folded.modules())
    assert isinstance(model[0], DOConv2d)
    assert not any(m.training for m in folded.modules())
    assert torch.allclose(model(images), folded(images), atol=1e-5)
    assert isinstance(fold_model(model[0]), nn.Conv2d)


@pytest.mark.parametrize(
    "options,word",
    [
        ({"groups": 3}, "groups"),
        ({"padding_mode": "mirror"}, "mirror"),
        ({"padding": "full"}, "full"),
        ({"padding": "same", "stride": 2}, "stride"),
        ({"padding": "same", "kernel_size": 4}, "odd"),
        ({"d_mul": 8}, "at least 9"),
    ],
)
def test_impossible_layers_are_refused(options, word):
    with pytest.raises(ModelError, match=word):
        DOConv2d(4, 4, **{"kernel_size": 3, **options})


def test_repr_names_sizes():
    assert "d_mul=9" in repr(DOConv2d(1, 2, 3))

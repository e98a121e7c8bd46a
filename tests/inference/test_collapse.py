from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from skinfl.errors import ModelError
from skinfl.inference.circuit.collapse import collapse
from skinfl.inference.circuit.prepare import probe_bounds
from skinfl.models import DOConv2d, QuadraticActivation, SkinNet, build_model


def reference(model, images):
    with torch.no_grad():
        return copy.deepcopy(model).double().eval()(torch.from_numpy(images)).numpy()


def images_for(channels, size, n=3):
    torch.manual_seed(1)
    return torch.randn(n, channels, size, size, dtype=torch.float64).numpy()


@pytest.mark.parametrize("size", [8, 13, 18, 19, 28, 31])
@pytest.mark.parametrize("channels,classes,doconv", [(1, 7, True), (3, 8, False), (2, 2, True)])
def test_logits_are_those_of_the_network(size, channels, classes, doconv):
    torch.manual_seed(0)
    model = SkinNet(channels, size, classes, doconv)
    for parameter in model.parameters():  # so that neither D nor a bias is zero
        nn.init.normal_(parameter, std=0.05) if parameter.dim() == 1 else None
    if doconv:
        nn.init.normal_(model.conv1.D, std=0.1)
        nn.init.normal_(model.conv2.D, std=0.1)
    before = copy.deepcopy(model.state_dict())
    network = collapse(model, in_channels=channels, image_size=size)
    images = images_for(channels, size)
    assert np.abs(network.logits(images) - reference(model, images)).max() < 1e-10
    with torch.no_grad():
        single = model(torch.from_numpy(images).float()).numpy()
    assert np.abs(network.logits(images) - single).max() < 1e-4
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert (network.channels, network.classes, network.image_size) == (channels, classes, size)


def test_three_maps_by_hand():
    """One pixel: x -> 2x + 1 -> f -> 3y - 1 -> f -> 4z + 5, with f(t) = t²/8 + t/2 + 1/4."""
    conv, hidden, output = nn.Conv2d(1, 1, 1, stride=2), nn.Linear(1, 1), nn.Linear(1, 1)
    for layer, weight, bias in ((conv, 2.0, 1.0), (hidden, 3.0, -1.0), (output, 4.0, 5.0)):
        nn.init.constant_(layer.weight, weight)
        nn.init.constant_(layer.bias, bias)
    model = nn.Sequential(conv, QuadraticActivation(), nn.Flatten(), hidden, QuadraticActivation(), output)
    network = collapse(model, in_channels=1, image_size=1)
    # 2x + 1 = 2 at x = 1/2; f(2) = 7/4; 3 f - 1 = 17/4; f(17/4) = 625/128 - 1/4; 4 f + 5 = 753/32
    assert 4 * ((17 / 4 + 2) ** 2 / 8 - 0.25) + 5 == 753 / 32
    assert network.logits(np.array([[[[0.5]]]]))[0, 0] == pytest.approx(753 / 32, abs=1e-12)
    assert network.conv[0, 0, 0, 0] == pytest.approx(2 * 0.125**0.5)


@pytest.mark.parametrize("affine", [True, False])
def test_batch_normalisation_dropout_and_adaptive_pooling_are_folded(affine):
    torch.manual_seed(2)
    model = nn.Sequential(
        DOConv2d(3, 4, 3, stride=2, padding=1),
        nn.BatchNorm2d(4, affine=affine),
        QuadraticActivation(),
        nn.Dropout(0.5),
        nn.Conv2d(4, 6, 3, padding=1, groups=2, bias=False),
        nn.BatchNorm2d(6),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(24, 10),
        nn.BatchNorm1d(10),
        QuadraticActivation(),
        nn.Linear(10, 5, bias=False),
    )
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            nn.init.normal_(module.running_mean, std=0.5)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            if module.affine:
                nn.init.normal_(module.weight)
                nn.init.normal_(module.bias)
    network = collapse(model.train(), in_channels=3, image_size=9)
    images = images_for(3, 9)
    assert np.abs(network.logits(images) - reference(model, images)).max() < 1e-10
    assert model.training


ACTIVATION = QuadraticActivation()
TAIL = (ACTIVATION, nn.Flatten(), nn.Linear(2 * 4 * 4, 3), ACTIVATION, nn.Linear(3, 2))


@pytest.mark.parametrize(
    "model,word",
    [
        (nn.Linear(2, 2), "Linear cannot be evaluated"),
        (nn.Sequential(nn.Conv2d(1, 2, 3, 2, 1), nn.ReLU(), *TAIL), "layer ReLU"),
        (nn.Sequential(nn.Conv2d(1, 2, 3, 2, 1), ACTIVATION, nn.Flatten()), "1 quadratic activations"),
        (nn.Sequential(nn.Linear(8, 8), *TAIL), "one zero-padded convolution"),
        (nn.Sequential(nn.Conv2d(1, 2, 3, 2, 1), nn.AvgPool2d(1), *TAIL), "one zero-padded convolution"),
        (nn.Sequential(nn.Conv2d(1, 2, (3, 1), 2, 1), *TAIL), "must be square"),
        (nn.Sequential(nn.Conv2d(1, 2, 3, 2, 1, padding_mode="circular"), *TAIL), "zero-padded"),
        (nn.Sequential(nn.Conv2d(3, 2, 3, 2, 1), *TAIL), "takes 3 channels, the images have 1"),
        (nn.Sequential(nn.Conv2d(1, 2, 3, 1, 1), *TAIL), "do not fit images of this size"),
        (
            nn.Sequential(nn.Conv2d(1, 2, 3, 2, 1), ACTIVATION, nn.Conv2d(2, 2, 1), *TAIL[3:]),
            "end in a vector|fit",
        ),
    ],
)
def test_networks_that_do_not_collapse_are_refused(model, word):
    with pytest.raises(ModelError, match=word):
        collapse(model, in_channels=1, image_size=8)


def test_a_backbone_is_refused_with_a_way_out():
    model = build_model("resnet18", in_channels=1, image_size=28, classes=7)
    with pytest.raises(ModelError, match="train the model 'skinnet'"):
        collapse(model, in_channels=1, image_size=28)


def test_a_diverged_network_is_refused():
    model = SkinNet(1, 8, 2)
    with torch.no_grad():
        model.output.weight[0, 0] = float("nan")
    with pytest.raises(ModelError, match="diverged"):
        collapse(model, in_channels=1, image_size=8)


def test_bounds_are_twice_what_extreme_images_reach():
    torch.manual_seed(0)
    network = collapse(SkinNet(1, 12, 3), in_channels=1, image_size=12)
    bounds = probe_bounds(network, [0.5], [0.25])
    black, white = np.full((1, 1, 12, 12), -2.0), np.full((1, 1, 12, 12), 2.0)
    reached = max(np.abs(network.logits(image)).max() for image in (black, white))
    # a product with many images at once may add up in another order than one with a single image
    assert bounds.logits >= 2 * reached * (1 - 1e-12)
    assert bounds == probe_bounds(network, [0.5], [0.25])
    huge = network._replace(output=network.output * 1e308, hidden=network.hidden * 1e10)
    with np.errstate(over="ignore", invalid="ignore"), pytest.raises(ModelError, match="not finite"):
        probe_bounds(huge, [0.5], [0.25])

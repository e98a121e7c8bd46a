from __future__ import annotations

import logging

import pytest
import torch
import torchvision
from torch import nn

from skinfl.errors import ModelError
from skinfl.models import DOConv2d, QuadraticActivation, SkinNet, build_model, fold_model, model_names


def test_activation_by_hand():
    x = torch.tensor([-2.0, 0.0, 2.0, 4.0], requires_grad=True)
    y = QuadraticActivation()(x)
    assert y.tolist() == [-0.25, 0.25, 1.75, 4.25]
    y.sum().backward()
    assert x.grad.tolist() == [0.0, 0.5, 1.0, 1.5]


@pytest.mark.parametrize("size", [*range(8, 36), 48, 64])
@pytest.mark.parametrize("channels,classes,doconv", [(1, 7, True), (3, 8, False)])
def test_skinnet_takes_any_size(size, channels, classes, doconv):
    net = SkinNet(channels, size, classes, doconv)
    assert net(torch.randn(2, channels, size, size)).shape == (2, classes)
    assert isinstance(net.conv1, DOConv2d if doconv else nn.Conv2d)
    assert isinstance(net.conv2, DOConv2d if doconv else nn.Conv2d)


def test_skinnet_has_the_papers_shapes():
    net = SkinNet(doconv=False)
    shapes = {name: tuple(p.shape) for name, p in net.named_parameters() if "bias" not in name}
    assert shapes == {
        "conv1.weight": (20, 1, 5, 5),
        "conv2.weight": (50, 20, 5, 5),
        "hidden.weight": (100, 200),
        "output.weight": (7, 100),
    }
    x = torch.randn(1, 1, 28, 28)
    assert net.pool(net.conv1(x)).shape == (1, 20, 7, 7)


@pytest.mark.parametrize("size,padding", [(18, 2), (19, 0)])
def test_small_maps_are_padded_and_said(size, padding, caplog):
    with caplog.at_level(logging.INFO, logger="skinfl.models"):
        net = SkinNet(1, size, 7)
    assert tuple(net.conv2.padding) == (padding, padding)
    assert bool(padding) == ("padded by 2" in caplog.text)


def test_folded_network_gives_the_same_logits():
    torch.manual_seed(0)
    net = SkinNet(3, 28, 8)
    for layer in (net.conv1, net.conv2):
        nn.init.normal_(layer.D, std=0.1)
    images = torch.randn(4, 3, 28, 28)
    assert torch.allclose(net(images), fold_model(net)(images), atol=1e-5)


@pytest.mark.parametrize("doconv", [True, False])
def test_activations_start_at_the_scale_the_initialisation_promises(doconv):
    """Second moments on independent normal pixels: 1 before the first activation, 0.42 after it."""
    torch.manual_seed(0)
    before, after = [], []
    images = torch.randn(64, 1, 28, 28)
    with torch.no_grad():
        for _ in range(20):
            net = SkinNet(doconv=doconv)
            x = net.conv1(images)[:, :, 1:-1, 1:-1]
            before.append(float(x.pow(2).mean()))
            after.append(float(net.activation(x).pow(2).mean()))
    assert sum(before) / 20 == pytest.approx(1.0, abs=0.1)
    # Over random weights the variance itself varies, which adds a little to 0.42.
    assert 0.40 < sum(after) / 20 < 0.50


@pytest.mark.parametrize("doconv", [True, False])
@pytest.mark.parametrize(
    "optimiser",
    [
        lambda p: torch.optim.SGD(p, lr=0.01),
        lambda p: torch.optim.SGD(p, lr=0.1),
        lambda p: torch.optim.Adam(p, lr=1e-3),
    ],
    ids=["sgd0.01", "sgd0.1", "adam"],
)
def test_training_is_stable_with_squares(doconv, optimiser):
    """Smooth bright or dark blobs, normalised: the loss falls and stays finite."""
    torch.manual_seed(0)
    coarse = torch.randn(256, 1, 3, 3)
    images = nn.functional.interpolate(coarse, size=(28, 28), mode="bilinear", align_corners=False)
    images = (images - images.mean()) / images.std()
    labels = (coarse[:, 0, 1, 1] > 0).long() + 2 * (coarse[:, 0, 0, 0] > 0).long()
    net = SkinNet(1, 28, 7, doconv)
    optimise = optimiser(net.parameters())
    losses = []
    for _ in range(3):
        for batch in torch.randperm(256).split(32):
            loss = nn.functional.cross_entropy(net(images[batch]), labels[batch])
            optimise.zero_grad()
            loss.backward()
            optimise.step()
            losses.append(float(loss))
    assert all(loss < 10 for loss in losses)
    assert sum(losses[-8:]) < sum(losses[:8])


def test_weights_follow_the_global_generator():
    def build():
        torch.manual_seed(11)
        return build_model("skinnet", in_channels=1, image_size=28, classes=7).state_dict()

    first, second = build(), build()
    assert all(torch.equal(first[k], second[k]) for k in first)


@pytest.mark.parametrize("name", model_names())
@pytest.mark.parametrize("channels", [1, 3])
def test_every_network_takes_grey_and_coloured_images(name, channels):
    net = build_model(name, in_channels=channels, image_size=32, classes=8).eval()
    with torch.no_grad():
        out = net(torch.randn(2, channels, 32, 32))
    assert out.shape == (2, 8)
    assert bool(torch.isfinite(out).all())


def test_names():
    assert model_names()[:3] == ("skinnet", "resnet18", "mobilenet_v2")
    assert ("efficientnet_b0" in model_names()) == hasattr(torchvision.models, "efficientnet_b0")


def test_backbone_missing_from_torchvision_is_refused(monkeypatch):
    monkeypatch.delattr(torchvision.models, "mobilenet_v2")
    with pytest.raises(ModelError, match=r"torchvision .* has no 'mobilenet_v2'"):
        build_model("mobilenet_v2", in_channels=1, image_size=28, classes=7)


@pytest.mark.parametrize(
    "name,options,word",
    [
        ("skinet", {}, "skinnet"),
        ("skinnet", {"image_size": 7}, "too small"),
        ("skinnet", {"in_channels": 0}, "channel"),
        ("skinnet", {"classes": 1}, "two"),
        ("resnet18", {"image_size": 4}, "resnet18"),
        ("resnet18", {"classes": 1}, "classes"),
    ],
)
def test_impossible_models_are_refused(name, options, word):
    with pytest.raises(ModelError, match=word):
        build_model(name, **{"in_channels": 1, "image_size": 28, "classes": 7, **options})

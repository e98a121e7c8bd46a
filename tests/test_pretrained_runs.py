"""Runs that start from pretrained weights: what is trained, cached, protected, kept and diagnosed with."""

from __future__ import annotations

import json
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch

from skinfl import plugins
from skinfl.assembly import assemble, load_federated_data
from skinfl.classifier import LesionClassifier
from skinfl.data.dataset import LesionDataset
from skinfl.data.features import FeatureDataset
from skinfl.data.normalisation import normalise
from skinfl.data.transforms import normalisation_from_sums, pixel_sums
from skinfl.data.views import turned
from skinfl.errors import CheckpointError, ModelError, SettingsError, SkinflError
from skinfl.federation.checkpoint import load_checkpoint
from skinfl.federation.evaluation import predict
from skinfl.federation.validation import tempered
from skinfl.models.efficientnet_lite import EfficientNetLite0
from skinfl.models.store import load_model
from skinfl.networks import learnt_from
from skinfl.run import CHECKPOINT, run, temperature_of
from skinfl.settings import Settings
from skinfl.studies.baselines import pooled


def colours(images=90, size=32):
    rng = np.random.RandomState(0)
    labels = np.arange(images) % 3
    pixels = rng.randint(0, 60, (images, size, size, 3))
    pixels[..., 0] += (60 * labels)[:, None, None]
    lesions = [f"lesion-{i}" for i in range(images)]
    return LesionDataset("toy", pixels, labels, ("nv", "mel", "bcc"), lesions, lesions)


@pytest.fixture
def photographs(monkeypatch, tmp_path):
    dataset = colours()
    monkeypatch.setattr("skinfl.assembly.load", lambda source, **options: dataset)
    monkeypatch.setenv("SKINFL_CACHE", str(tmp_path / "cache"))
    return dataset


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    """Weights of an EfficientNet-Lite0 that has seen nothing, scaled so that all its stages say something."""
    torch.manual_seed(3)
    model = EfficientNetLite0(3, 32, 11)
    model.train()
    with torch.no_grad():
        for _ in range(30):  # running statistics of some images
            model(torch.randn(16, 3, 32, 32))
    file = tmp_path_factory.mktemp("weights") / "lite.pth"
    torch.save(model.state_dict(), str(file))
    return str(file)


def settings_of(weights, **changes):
    values = {
        "data": "toy",
        "hospitals": 3,
        "partition": "iid",
        "rounds": 2,
        "batch_size": 8,
        "image_size": 32,
    }
    values.update({"lr": 0.03, "workers": "virtual", "model": "efficientnet_lite0", "pretrained": weights})
    return Settings(**{**values, **changes})


@pytest.mark.parametrize("trainable", ["all", "head", "last:2"])
def test_the_model_file_knows_a_photograph_as_the_run_did(photographs, weights, tmp_path, trainable):
    settings = settings_of(weights, trainable=trainable, protection="smpc")
    federated = load_federated_data(settings)
    outcome = run(settings, federated, tmp_path / "run")
    assert outcome.result["pretrained"]["source"] == "lite.pth"
    assert len(outcome.result["pretrained"]["sha256"]) == 64
    stored = load_model(tmp_path / "run" / "model.npz")

    state = load_checkpoint(tmp_path / "run" / CHECKPOINT).state
    assembly = assemble(settings, federated)
    assembly.layout.write(assembly.model, state.kept.model)
    untempered, _ = predict(assembly.model, federated.test, state.begun.normalisation)
    expected = tempered(untempered, temperature_of(state))
    pixels = np.asarray(federated.test.photographs.images)
    classifier = LesionClassifier(stored)
    found = [list(classifier.predict(image).values()) for image in pixels]
    assert np.abs(np.array(found) - expected).max() < 0.02  # features are kept as halves
    assert (np.argmax(found, 1) == np.argmax(expected, 1)).mean() > 0.9
    if trainable == "head":  # two rounds on weights that have seen nothing move no more than a head
        assert outcome.result["final"]["accuracy"] > 0.5


@pytest.mark.parametrize("protection", ["smpc", "he"])
def test_protected_sums_of_features_normalise_as_plain_ones(photographs, weights, protection):
    settings = settings_of(weights, trainable="head", protection=protection, rounds=1)
    federated = load_federated_data(settings)
    found = []
    for chosen in (settings, settings.replace(protection="plaintext")):
        assembly = assemble(chosen, federated)
        for _ in assembly.federation.run():
            pass
        found.append(assembly.federation.state.begun.normalisation)
    train = pooled(settings, federated).train
    expected = normalisation_from_sums(pixel_sums(np.asarray(train.images)))
    for normalisation in found:
        assert np.allclose(normalisation.mean, expected.mean, atol=1e-5)
        assert np.allclose(normalisation.std, expected.std, atol=1e-4)


def test_features_are_computed_once(photographs, weights, caplog):
    settings = settings_of(weights, trainable="head", views=2)
    seen = []
    first = learnt_from(settings, photographs, lambda done, total, what: seen.append(what))
    assert isinstance(first, FeatureDataset) and len(first.views) == 2
    assert any("left" in what for what in seen) and any("view 2 of 2" in what for what in seen)
    del seen[:]
    again = learnt_from(settings, photographs, lambda done, total, what: seen.append(what))
    assert not seen and np.array_equal(first.images, again.images)
    # the same features whatever is asked of them later, and others where the photographs are others
    changed = LesionDataset(
        images=255 - photographs.images, labels=photographs.labels, **photographs.captions()
    )
    assert not np.array_equal(learnt_from(settings, changed).images, first.images)


@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_a_damaged_cache_is_made_again(photographs, weights, tmp_path, damage):
    settings = settings_of(weights, trainable="head")
    first = np.array(learnt_from(settings, photographs).images)
    files = sorted((tmp_path / "cache").glob("features-*.npy"))
    assert len(files) == settings.views  # one of each view: this is the first's
    file = files[0]
    content = bytearray(file.read_bytes())
    if damage == "cut":
        content = content[:-1000]
    else:
        content[len(content) // 2] ^= 255
    file.write_bytes(bytes(content))
    assert np.array_equal(learnt_from(settings, photographs).images, first)


def test_without_a_place_for_the_cache_features_are_held_in_memory(
    photographs, weights, monkeypatch, tmp_path
):
    settings = settings_of(weights, trainable="head")
    expected = np.array(learnt_from(settings, photographs).images)
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("SKINFL_CACHE", str(tmp_path / "file" / "cache"))
    assert np.array_equal(learnt_from(settings, photographs).images, expected)


def test_eight_views_are_eight():
    image = np.arange(2 * 3 * 3 * 1).reshape(2, 3, 3, 1)
    views = [turned(image, view) for view in range(8)]
    assert len({view.tobytes() for view in views}) == 8 and np.array_equal(views[0], image)
    dataset = colours(6)
    features = FeatureDataset(dataset, [np.full((6, 1, 1, 2), v, np.float16) for v in range(4)])
    drawn = features.subset([5, 1, 2]).drawn(np.array([0, 2] * 50), np.random.default_rng(0))
    assert set(drawn[:, 0, 0, 0].tolist()) == {0, 1, 2, 3}
    assert features.subset([5, 1, 2]).subset([2]).photographs.image_ids.tolist() == ["lesion-2"]
    assert features.photograph_shape == (3, 32, 32) and features.image_shape == (2, 1, 1)


def test_float_features_are_summed_and_normalised_as_they_are():
    features = np.random.RandomState(0).randn(50, 2, 2, 3).astype(np.float16) * 5 - 2
    found = normalisation_from_sums(pixel_sums(features))
    plain = features.astype(np.float64).reshape(-1, 3)
    assert np.allclose(found.mean, plain.mean(0)) and np.allclose(found.std, plain.std(0))
    scaled = normalise(features, found).transpose(0, 2, 3, 1).reshape(-1, 3)
    assert np.allclose(scaled.mean(0), 0, atol=1e-4) and np.allclose(scaled.std(0), 1, atol=1e-3)


def test_an_interrupted_run_goes_on_and_other_weights_are_refused(photographs, weights, tmp_path):
    settings = settings_of(weights, trainable="head")
    federated = load_federated_data(settings)
    whole = run(settings, federated, tmp_path / "whole")

    class Stop(Exception):
        pass

    def stop(event):
        if type(event).__name__ == "RoundFinished":
            raise Stop

    with pytest.raises(Stop):
        run(settings, federated, tmp_path / "cut", listeners=[stop])
    resumed = run(settings, federated, tmp_path / "cut", resume=True)
    assert np.array_equal(resumed.model, whole.model)

    file = tmp_path / "other.pth"
    file.write_bytes(Path(weights).read_bytes())
    changed = settings.replace(pretrained=str(file))
    with pytest.raises(Stop):
        run(changed, load_federated_data(changed), tmp_path / "changed", listeners=[stop])
    torch.manual_seed(9)
    torch.save(EfficientNetLite0(3, 32, 11).state_dict(), str(file))
    with pytest.raises(CheckpointError, match="weights were changed"):
        run(changed, load_federated_data(changed), tmp_path / "changed", resume=True)


def test_defaults_follow_from_what_is_trained():
    assert Settings().image_size == 28 and Settings(model="efficientnet_lite0").image_size == 28
    assert Settings(model="efficientnet_lite0", pretrained="package").image_size == 128
    head = Settings(model="efficientnet_lite0", pretrained="package", trainable="head")
    assert head.image_size == 192 and head.replace(image_size=64).image_size == 64


def test_what_cannot_be_is_refused_before_data_are_read(weights):
    with pytest.raises(SettingsError, match="--pretrained"):
        Settings(model="efficientnet_lite0", trainable="head")
    for changes, expected in (
        ({"trainable": "last:8"}, "8 stages"),
        ({"pretrained": "no.pth"}, "not there"),
        ({"model": "skinnet"}, "known for skinnet"),
    ):
        with pytest.raises(SkinflError, match=expected):
            load_federated_data(settings_of(weights, **changes))


NETS = """
import torch
from torch import nn

class Plain(nn.Module):
    def __init__(self, in_channels, classes, width=4):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, width, 3)
        self.norm = nn.BatchNorm2d(width)
        self.out = nn.Linear(width, classes)
    def forward(self, x):
        flat = self.norm(self.conv(x)).view(len(x), -1)  # which only images laid out as unasked allow
        return self.out(flat.view(len(x), self.out.in_features, -1).mean(dim=2))

class Wide(Plain):
    def forward(self, x):
        return torch.cat([super().forward(x)] * 2, dim=1)

class Broken(Plain):
    def forward(self, x):
        return self.out(x)

def not_a_network(classes):
    return 3

number = 5
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A user's own module; what it registers is forgotten afterwards."""
    from skinfl.models.registry import MODELS

    (tmp_path / "minenets.py").write_text(textwrap.dedent(NETS))
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "minenets"
    sys.modules.pop("minenets", None)
    for name in [name for name in MODELS.names if name.startswith("minenets:")]:
        MODELS.unregister(name)
        plugins._loaded.pop(name, None)


def test_a_network_of_ones_own_trains_by_its_import_path(toy, mine, tmp_path, caplog):
    path = f"{mine}:Plain"
    assert plugins.load_for(["train", "--model", path]) == ["train", "--model", path]
    settings = Settings(
        data="toy", hospitals=3, partition="iid", rounds=1, image_size=12, model=path, workers="virtual"
    )
    run(settings, load_federated_data(settings), tmp_path / "run")
    assert "BatchNorm" in caplog.text
    assert load_model(tmp_path / "run" / "model.npz").name == path

    from skinfl.models.registry import MODELS

    MODELS.unregister(path)
    plugins._loaded.pop(path)
    sys.modules.pop(mine)
    with pytest.raises(ModelError, match=f"--plugin {path}"):
        load_model(tmp_path / "run" / "model.npz")
    assert mine not in sys.modules  # naming it in a file imported nothing
    with pytest.raises(SettingsError, match=r"model = "):
        Settings(model=path)


def test_what_is_no_network_is_one_line(toy, mine):
    for name, expected in (("number", "no nn.Module"), ("Nothing", "has no Nothing")):
        with pytest.raises(SettingsError, match=expected):
            plugins.load(f"{mine}:{name}")
    with pytest.raises(SettingsError, match="ModuleNotFoundError"):
        plugins.load("no_such_module_at_all:Net")
    for name, expected in (
        ("Wide", "logits are"),
        ("Broken", "does not take"),
        ("not_a_network", "is no nn"),
    ):
        plugins.load(f"{mine}:{name}")
        settings = Settings(
            data="toy", hospitals=3, partition="iid", image_size=12, model=f"{mine}:{name}", workers="virtual"
        )
        with pytest.raises(ModelError, match=expected) as caught:
            assemble(settings, load_federated_data(settings))
        assert "\n" not in str(caught.value)


def test_a_model_file_with_a_false_head_is_refused(photographs, weights, tmp_path):
    settings = settings_of(weights, trainable="head", rounds=1)
    run(settings, load_federated_data(settings), tmp_path / "run")
    with np.load(str(tmp_path / "run" / "model.npz")) as archive:
        arrays = {name: archive[name] for name in archive.files}
    header = json.loads(str(arrays["header"][()]))
    for change in ({"features": "x"}, {"hidden": -1}, {"hidden": 10**9}, {"dropout": "no"}, {"more": 1}):
        arrays["header"] = np.array(json.dumps({**header, "head": {**header["head"], **change}}))
        np.savez(str(tmp_path / "m.npz"), **arrays)
        with pytest.raises(ModelError, match="head"):
            load_model(tmp_path / "m.npz")

"""Pretrained weights in a deployment: each hospital has its own copy, and all must be one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from flower_helpers import (
    HOSPITALS,
    LocalMessaging,
    coordinator_of,
    final_model,
    settings_of,
    small_dataset,
    small_federated,
    virtual_progress,
)

from skinfl.assembly import share_out
from skinfl.errors import ProtectionError, SkinflError, TrainingError
from skinfl.flower.local.simulation import make_federation
from skinfl.flower.provisioning.folders import HOSPITAL_FILE, read_hospital
from skinfl.models.efficientnet_lite import EfficientNetLite0
from skinfl.models.store import load_model
from skinfl.networks import learnt_from


def weights_in(file, seed=0):
    torch.manual_seed(seed)
    model = EfficientNetLite0(3, 16, 11).train()
    with torch.no_grad():
        for _ in range(10):
            model(torch.randn(16, 3, 16, 16))
    torch.save(model.state_dict(), str(file))
    return str(file)


@pytest.fixture
def begun(tmp_path, monkeypatch):
    """A federation of colour images whose hospitals have the coordinator's weights, and its settings."""
    monkeypatch.setenv("SKINFL_CACHE", str(tmp_path / "cache"))
    federated = small_federated(small_dataset(size=16, channels=3))
    weights = weights_in(tmp_path / "lite.pth")
    make_federation(federated, tmp_path / "federation", pretrained=weights)
    settings = settings_of(
        model="efficientnet_lite0",
        pretrained=weights,
        trainable="head",
        image_size=16,
        protection="smpc",
        batchnorm="average",
        strategy="fedavg",
    )
    return tmp_path / "federation", federated, settings


def rename(folder, name, weights):
    file = folder / name / HOSPITAL_FILE
    lines = [line for line in file.read_text().splitlines() if not line.startswith("pretrained = ")]
    at = lines.index("[limits]")
    file.write_text("\n".join([*lines[:at], f'pretrained = "{weights}"', *lines[at:]]) + "\n")


@pytest.mark.parametrize("trainable", ["head", "last:1"])
def test_a_head_is_trained_by_messages_as_on_virtual_workers(begun, tmp_path, trainable):
    folder, federated, settings = begun
    settings = settings.replace(trainable=trainable)
    featured = federated._replace(dataset=learnt_from(settings, federated.dataset))
    virtual = virtual_progress(settings, featured)
    post = LocalMessaging(folder)
    lines = []
    result = coordinator_of(folder, federated, settings, post, tmp_path / "out", lines.append).run(HOSPITALS)
    # features are computed in other batches there, whose last bits differ
    np.testing.assert_allclose(final_model(tmp_path / "out"), virtual.server.model, atol=2e-3)
    assert result["final"]["accuracy"] == pytest.approx(virtual.records[-1].metrics["accuracy"], abs=0.1)
    assert result["pretrained"]["source"] == "lite.pth" and len(result["pretrained"]["sha256"]) == 64
    joins = [request.body for kind, _, _, request, _ in post.log if kind == "join"]
    assert joins and not any(str(tmp_path).encode() in body for body in joins)
    stored = load_model(tmp_path / "out" / "model.npz")
    with torch.no_grad():
        assert stored.model(torch.zeros(1, 3, 16, 16)).shape == (1, 7)


def test_a_hospital_with_other_weights_or_none_does_not_take_part(begun, tmp_path):
    folder, federated, settings = begun
    rename(folder, "hospital-3", weights_in(tmp_path / "other.pth", seed=1))
    lines = []
    post = LocalMessaging(folder)
    coordinator_of(folder, federated, settings, post, tmp_path / "out", lines.append).run(HOSPITALS)
    assert any("hospital-3 and hospital-1 differ in weights" in line for line in lines)

    rename(folder, "hospital-3", "")
    lines = []
    post = LocalMessaging(folder)
    coordinator_of(folder, federated, settings, post, tmp_path / "none", lines.append).run(HOSPITALS)
    assert any("name its own copy as pretrained" in line for line in lines)


def test_a_coordinator_with_other_weights_stops_before_training(begun, tmp_path):
    folder, federated, settings = begun
    settings = settings.replace(pretrained=weights_in(tmp_path / "other.pth", seed=1))
    with pytest.raises(TrainingError, match="other weights"):
        coordinator_of(folder, federated, settings, LocalMessaging(folder), tmp_path / "out").run(HOSPITALS)


def test_what_a_coordinator_names_is_neither_read_nor_imported(begun, tmp_path):
    folder, _, settings = begun
    hospital = read_hospital(folder / "hospital-1")
    assert hospital.with_own_weights(settings).pretrained == str(tmp_path / "lite.pth")
    rename(folder, "hospital-1", "")
    hospital = read_hospital(folder / "hospital-1")
    for asked in ("/etc/passwd", "imagenet", "./lite.pth"):
        with pytest.raises(ProtectionError, match=HOSPITAL_FILE):
            hospital.with_own_weights(settings.replace(pretrained=asked, trainable="all"))
    package = settings.replace(pretrained="package")
    assert hospital.with_own_weights(package) == package
    with pytest.raises(SkinflError, match="model = "):
        settings.replace(model="os:system")


def test_a_data_set_given_whole_is_shared_out_as_features(begun):
    _, federated, settings = begun
    settings = settings.replace(hospitals=3, partition="iid")
    found = share_out(settings, federated.dataset)
    assert found.train_of("hospital-1").image_shape == (4128, 1, 1)
    assert found.test.photograph_shape == (3, 16, 16)

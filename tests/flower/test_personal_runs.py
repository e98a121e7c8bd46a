"""Personal models by messages: as on virtual workers, and never in a message."""

import numpy as np
import pytest
from flower_helpers import (
    HOSPITALS,
    LocalMessaging,
    coordinator_of,
    federation_of,
    final_model,
    settings_of,
    virtual_progress,
)

from skinfl.errors import ProtectionError, SettingsError
from skinfl.federation.checkpoint import load_checkpoint
from skinfl.flower.hospital.store import RunStore
from skinfl.flower.provisioning.folders import HOSPITAL_FILE
from skinfl.models.store import load_model
from skinfl.run import CHECKPOINT, MODEL

COSINE = {"lr_schedule": "cosine"}


@pytest.fixture
def federation(tmp_path):
    return federation_of(tmp_path)


def played(federation, out, settings, post=None, **options):
    folder, federated = federation
    post = LocalMessaging(folder) if post is None else post
    coordinator = coordinator_of(folder, federated, settings, post, out, **options)
    return coordinator.run(HOSPITALS), post


def own_models(folder):
    return {name: load_model(next((folder / name / "personal").glob("*.npz"))).model for name in HOSPITALS}


@pytest.mark.parametrize(
    "changes",
    [
        {"protection": "plaintext", "personal": "head"},
        {"protection": "smpc", "personal": "head", "strategy": "fedavg"},
        {"protection": "he", "personal": "ditto"},
        {"protection": "smpc", "fine_tune_epochs": 2, "select": "last", "strategy": "fedavg", **COSINE},
    ],
    ids=["head-plaintext", "head-smpc", "ditto-he", "fine-tuning-smpc"],
)
def test_they_equal_those_of_the_virtual_workers(federation, tmp_path, changes):
    folder, federated = federation
    settings = settings_of(**changes)
    virtual = virtual_progress(settings, federated)
    common = changes.get("personal") != "head"
    options = {} if common else {"test_data": ""}
    result, _ = played(federation, tmp_path / "out", settings, **options)
    np.testing.assert_array_equal(final_model(tmp_path / "out"), virtual.server.model)
    mine, theirs = load_checkpoint(tmp_path / "out" / CHECKPOINT).state.records[-1], virtual.records[-1]
    assert mine.personal_metrics == theirs.personal_metrics and len(mine.personal_metrics) == 2
    assert mine.hospital_metrics == theirs.hospital_metrics
    assert mine.personal_together["confusion"] == theirs.personal_together["confusion"]
    assert mine.personal_together["loss"] == pytest.approx(theirs.personal_together["loss"], rel=1e-4)
    assert result["personal"]["hospitals_together"] == mine.personal_together
    assert (tmp_path / "out" / MODEL).exists() == common
    assert not (tmp_path / "out" / "personal").exists()  # each hospital has its own, and nobody else
    assert len(own_models(folder)) == 3
    assert (folder / "hospital-1" / "personal").stat().st_mode & 0o077 == 0


def test_only_sums_of_them_go_out_unless_a_hospital_lets_its_own_out(federation, tmp_path):
    folder, _ = federation
    path = folder / "hospital-1" / HOSPITAL_FILE
    path.write_text(path.read_text().replace("own_figures = true", "own_figures = false"))
    result, _ = played(
        federation, tmp_path / "out", settings_of(protection="smpc", personal="ditto", rounds=1)
    )
    assert set(result["personal"]["hospital_final"]) == {"hospital-2"}
    assert np.sum(result["personal"]["hospitals_together"]["confusion"]) > np.sum(
        result["personal"]["hospital_final"]["hospital-2"]["confusion"]
    )


@pytest.mark.parametrize("personal", ["head", "ditto"])
def test_what_is_personal_is_in_no_message_even_without_protection(federation, tmp_path, personal):
    folder, _ = federation
    settings = settings_of(protection="plaintext", personal=personal, strategy="fedavg")
    _, post = played(federation, tmp_path / "out", settings, test_data="")
    sent = b"".join(
        part for *_, request, answer in post.log for part in (request.body, request.server, answer)
    )
    for model in own_models(folder).values():
        weights = model.output.weight.detach().numpy()
        for row in weights.astype("<f4"):
            assert row[:4].tobytes() not in sent and row[:4].astype("<f8").tobytes() not in sent


def test_a_hospital_goes_on_with_its_own_model_after_a_restart(federation, tmp_path):
    """Asked for the round again, it undoes what the first attempt changed in its own model."""
    folder, federated = federation
    settings = settings_of(protection="smpc", personal="ditto", strategy="fedavg")
    virtual = virtual_progress(settings, federated)
    post = LocalMessaging(folder)
    post.tamper = lambda kind, round, name, request, answer: (
        None if (kind, round) == ("combine", 2) else answer
    )
    with pytest.raises(ProtectionError):
        played(federation, tmp_path / "out", settings, post)
    played(federation, tmp_path / "out", settings, resume=True)
    last = load_checkpoint(tmp_path / "out" / CHECKPOINT).state.records[-1]
    assert last.personal_metrics == virtual.records[-1].personal_metrics
    state = RunStore(
        folder / "hospital-1" / "state", load_checkpoint(tmp_path / "out" / CHECKPOINT).state.run
    )
    assert any(name.startswith("own/") for name in state.read_arrays("after"))


def test_a_test_set_of_the_coordinators_needs_a_common_model(federation, tmp_path):
    with pytest.raises(SettingsError, match="personal = head there is no common model to try on test-data"):
        played(federation, tmp_path / "out", settings_of(protection="smpc", personal="head"))

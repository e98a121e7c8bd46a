"""Runs from the outside: what they leave, how they resume, what they refuse."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from samples import SMALL_RUN

from skinfl.assembly import load_federated_data
from skinfl.errors import CheckpointError, SkinflError
from skinfl.federation.checkpoint import load_checkpoint
from skinfl.federation.events import RoundFinished
from skinfl.models.store import load_model
from skinfl.run import CHECKPOINT, run
from skinfl.settings import Settings
from skinfl.studies.compare import compare

SMALL = {**SMALL_RUN, "workers": "virtual"}


def go(out, listeners=(), resume=False, **changes):
    settings = Settings(**{**SMALL, **changes})
    return run(settings, load_federated_data(settings), out, listeners=listeners, resume=resume)


def figures_of(result):
    """Return the result without times; HE's random ciphertexts compress to lengths that vary a little."""
    kept = {k: v for k, v in result.items() if k not in ("seconds", "versions", "name", "bytes")}
    tolerance = 1e-3 if result["protection"] == "he" else 0.0
    return {**kept, "bytes": pytest.approx(result["bytes"], rel=tolerance)}


class Stop(Exception):
    pass


def stop_after(round):
    def listener(event):
        if isinstance(event, RoundFinished) and event.round == round:
            raise Stop

    return listener


def test_a_run_leaves_everything_it_promises(toy, tmp_path):
    outcome = go(tmp_path / "run", protection="smpc")
    names = {p.name for p in (tmp_path / "run").iterdir()}
    assert names >= {"result.json", "rounds.jsonl", "config.toml", "checkpoint.skinfl", "model.npz"}
    assert names >= {"figures", "report.html"}
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result == json.loads(json.dumps(outcome.result))
    assert (result["protection"], result["strategy"], result["workers"]) == ("smpc", "fedavg", "virtual")
    assert (result["hospitals"], result["rounds"]) == (3, 2)
    assert set(result["data"]) >= {"name", "images", "synthetic", "leaked_lesions"}
    assert set(result["final"]) >= {"accuracy", "balanced_accuracy", "macro_f1", "auc", "ece", "confusion"}
    assert set(result["seconds"]) == {"train", "protect", "combine", "open", "evaluate", "total"}
    assert result["bytes"]["up_per_hospital_per_round"] > result["bytes"]["float32"]
    assert set(result) >= {"intervals", "auc_intervals", "subgroups", "sentences"}
    assert "melanoma" in result["sentences"][0] and result["intervals"]["accuracy"] is not None
    assert [row["by"] for row in result["subgroups"]] == ["site", "site"]
    page = (tmp_path / "run" / "report.html").read_text("utf-8")
    assert "Example lesions</h2>" in page and len(page) < 1_500_000
    assert 0 <= result["max_abs_difference_from_plaintext_sum"] < 1e-6
    lines = (tmp_path / "run" / "rounds.jsonl").read_text().splitlines()
    assert [json.loads(line)["round"] for line in lines] == [1, 2]
    stored = load_model(tmp_path / "run" / "model.npz")
    assert stored.class_names == toy.classes
    assert len(list((tmp_path / "run" / "figures").glob("*.png"))) >= 3


@pytest.mark.parametrize(
    "changes",
    [
        {"strategy": "scaffold"},
        {"strategy": "scaffold", "protection": "smpc", "dropout": 0.3, "sample": 0.7},
        {"protection": "he"},
        {"protection": "he", "he_scheme": "bfv", "bits": 12, "error_feedback": True},
        {"strategy": "fednova", "momentum": 0.9},
        {"strategy": "fedadam", "protection": "smpc"},
        {"lr_schedule": "cosine", "warmup_rounds": 1, "mixup": 0.3, "loss": "balanced_softmax"},
    ],
)
def test_a_resumed_run_is_bit_for_bit_the_uninterrupted_one(toy, tmp_path, changes):
    if changes.get("protection") == "he":
        pytest.importorskip("tenseal")
    whole = go(tmp_path / "whole", rounds=4, **changes)
    with pytest.raises(Stop):
        go(tmp_path / "cut", listeners=[stop_after(2)], rounds=4, **changes)
    resumed = go(tmp_path / "cut", resume=True, rounds=4, **changes)
    assert np.array_equal(whole.model, resumed.model)
    assert resumed.result == {**resumed.result, **figures_of(whole.result)}


def test_more_rounds_may_be_asked_for(toy, tmp_path):
    go(tmp_path / "a", rounds=1)
    # what a machine computes on is its own affair
    more = go(tmp_path / "a", rounds=3, resume=True, device="cpu", oom_smaller=True, threads=2)
    assert np.array_equal(more.model, go(tmp_path / "b", rounds=3).model)


def test_a_schedule_over_all_rounds_takes_no_more_of_them(toy, tmp_path):
    go(tmp_path / "a", rounds=2, lr_schedule="cosine")
    with pytest.raises(CheckpointError, match="rounds = 2, which lr_schedule = cosine runs over"):
        go(tmp_path / "a", rounds=3, lr_schedule="cosine", resume=True)
    go(tmp_path / "b", rounds=2, warmup_rounds=1)
    more = go(tmp_path / "b", rounds=3, warmup_rounds=1, resume=True)
    assert np.array_equal(more.model, go(tmp_path / "c", rounds=3, warmup_rounds=1).model)


def test_a_checkpoint_of_another_configuration_is_refused(toy, tmp_path):
    go(tmp_path / "a")
    with pytest.raises(CheckpointError, match=r"written with lr = 0\.03, not 0\.01"):
        go(tmp_path / "a", resume=True, lr=0.01)
    with pytest.raises(CheckpointError, match="beyond rounds = 1"):
        go(tmp_path / "a", resume=True, rounds=1)


@pytest.mark.parametrize("how", ["more", "fewer", "relabelled", "changed", "regrouped", "moved"])
def test_other_data_are_refused_on_resume_and_nothing_is_touched(toy, tmp_path, monkeypatch, how):
    go(tmp_path / "a", rounds=1)
    before = {p.name: p.read_bytes() for p in (tmp_path / "a").iterdir() if p.is_file()}
    kept = {"more": [*range(120), *range(6)], "fewer": range(114)}.get(how, range(120))
    other = toy.subset(kept)
    if how == "relabelled":
        other.labels[[0, 1]] = other.labels[[1, 0]]
    elif how == "changed":
        other.images = np.array(other.images)
        other.images[5, 0, 0] ^= 1
    elif how == "regrouped":
        other.lesion_ids[[0, 1]] = other.lesion_ids[[1, 0]]
    elif how == "moved":
        other.name = "toy-of-another-folder"
    monkeypatch.setattr("skinfl.assembly.load", lambda source, **options: other)
    if how == "moved":
        assert go(tmp_path / "a", rounds=2, resume=True, data="elsewhere").result["rounds"] == 2
        return
    with pytest.raises(CheckpointError, match="images were added, removed, relabelled or changed"):
        go(tmp_path / "a", rounds=2, resume=True)
    assert {p.name: p.read_bytes() for p in (tmp_path / "a").iterdir() if p.is_file()} == before


def test_a_comparison_is_resumed_with_what_it_was_begun_with(toy, tmp_path):
    settings = Settings(**SMALL)
    federated = load_federated_data(settings)
    compare(settings, federated, tmp_path, protections=("smpc",))
    more = settings.replace(rounds=3)
    found = compare(more, federated, tmp_path, resume=True)
    assert [(r["protection"], r["rounds"]) for r in found["runs"]] == [("plaintext", 3), ("smpc", 3)]
    with pytest.raises(CheckpointError, match="begun with --protections smpc"):
        compare(more, federated, tmp_path, protections=("plaintext",), resume=True)


def test_an_impossible_protection_is_refused_before_any_is_trained(toy, tmp_path):
    settings = Settings(**SMALL, smpc_scheme="shamir", threshold=9)
    with pytest.raises(SkinflError, match="threshold = 9"):
        compare(settings, load_federated_data(settings), tmp_path / "c", protections=("smpc",))
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("damage", ["cut", "flip", "foreign", "version"])
def test_a_damaged_checkpoint_is_refused(toy, tmp_path, damage):
    go(tmp_path / "a", rounds=1)
    path = tmp_path / "a" / CHECKPOINT
    content = path.read_bytes()
    if damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "flip":
        path.write_bytes(content[:-100] + bytes([content[-100] ^ 1]) + content[-99:])
    elif damage == "foreign":
        path.write_bytes(b"PK\x03\x04 something else")
    else:
        path.write_bytes(content.replace(b'"version": 4', b'"version": 9', 1))
    expected = {
        "cut": "cut short or damaged",
        "flip": "cut short or damaged",
        "foreign": "not a checkpoint",
        "version": "version 9",
    }
    with pytest.raises(CheckpointError, match=expected[damage]):
        load_checkpoint(path)


def test_a_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        load_checkpoint(tmp_path / CHECKPOINT)


def test_a_checkpoint_that_cannot_be_read_is_not_called_missing(tmp_path):
    (tmp_path / CHECKPOINT).mkdir()
    with pytest.raises(CheckpointError, match=r"cannot be read \(.*directory\): allow"):
        load_checkpoint(tmp_path / CHECKPOINT)


def test_a_place_that_cannot_be_written_is_refused_before_training(toy, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SkinflError, match="cannot write"):
        go(tmp_path / "file" / "run")


def test_comparison_runs_all_and_measures_the_difference(toy, tmp_path):
    settings = Settings(**SMALL)
    federated = load_federated_data(settings)
    comparison = compare(settings, federated, tmp_path, protections=("smpc", "plaintext"))
    assert [r["protection"] for r in comparison["runs"]] == ["plaintext", "smpc"]
    assert comparison["differences"]["plaintext"] == 0.0
    assert 0 < comparison["differences"]["smpc"] < 1e-4
    assert json.loads((tmp_path / "compare.json").read_text()) == json.loads(json.dumps(comparison))
    page = (tmp_path / "report.html").read_text("utf-8")
    links = re.findall('<a href="([^"]+)"', page)
    assert len(links) == 2 and all((tmp_path / link).is_file() for link in links)
    assert comparison["verdict"] and all(sentence in page for sentence in comparison["verdict"])
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {"rounds.png", "roc.png", "cost.png"}
    assert (tmp_path / "smpc" / "result.json").exists()


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="the system has no SIGKILL")
def test_a_run_killed_in_round_2_and_resumed_gives_the_same_figures(tmp_path):
    """A real process, killed without warning; resumed through the command line."""
    script = (
        "import sys, runpy; sys.path.insert(0, sys.argv.pop(1)); import samples, skinfl.assembly as a\n"
        "a.load = lambda source, **options: samples.toy_dataset(420)\n"
        "from skinfl.cli import main; main()"
    )
    flags = ["--data", "toy", "--hospitals", "3", "--partition", "iid", "--batch-size", "4"]
    flags += ["--image-size", "12", "--rounds", "3", "--protection", "smpc", "--strategy", "scaffold"]

    def command(*more):
        tests = os.path.dirname(os.path.abspath(__file__))
        return [sys.executable, "-c", script, tests, "train", *more]

    subprocess.run(command(*flags, "--out", str(tmp_path / "whole")), check=True, stdout=subprocess.DEVNULL)
    cut = tmp_path / "cut"
    process = subprocess.Popen(command(*flags, "--out", str(cut)), stdout=subprocess.DEVNULL)
    log = cut / "rounds.jsonl"
    deadline = time.time() + 120
    while not (log.exists() and log.read_text().count("\n") == 1) and time.time() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (cut / "result.json").exists(), "the run was over before it could be killed"
    subprocess.run(command("--resume", str(cut)), check=True, stdout=subprocess.DEVNULL)
    results = [json.loads((p / "result.json").read_text()) for p in (tmp_path / "whole", cut)]
    assert results[1] == {**results[1], **figures_of(results[0])}

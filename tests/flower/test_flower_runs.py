"""Training on real processes, over TLS with node authentication."""

import json
import threading

import numpy as np
import pytest

pytest.importorskip("flwr", reason="needs the extra [flower]")

from flower_helpers import (
    HOSPITALS,
    final_model,
    patterns_of,
    run_config,
    settings_of,
    small_federated,
    snapshot,
    virtual_federation,
    virtual_progress,
)

from skinfl.errors import MissingExtra, SettingsError
from skinfl.federation.audit import Audit
from skinfl.flower.local.experiment import flower_settings, run_experiment
from skinfl.run import final_of


class Watch(threading.Thread):
    """Reads the SuperLink's database over and over and notes which patterns were ever in it."""

    def __init__(self, database, patterns):
        super().__init__(daemon=True)
        self._files = [database, database.with_name(database.name + "-wal")]
        self._patterns = patterns
        self.found = set()
        self.bytes_seen = 0
        self._ended = threading.Event()

    def run(self):
        while not self._ended.wait(0.5):
            self.look()

    def look(self):
        for path in self._files:
            content = path.read_bytes() if path.exists() else b""
            self.bytes_seen = max(self.bytes_seen, len(content))
            self.found.update(i for i, pattern in enumerate(self._patterns) if pattern in content)

    def end(self):
        self._ended.set()
        self.join()
        self.look()


@pytest.mark.slow
def test_all_protections_equal_the_virtual_workers_and_leave_no_update_in_the_database(running, monkeypatch):
    contributions = {}

    def note(self, hospital, round, contribution):
        contributions[hospital, round] = contribution
        call(self, hospital, round, contribution)

    call = Audit.__call__
    monkeypatch.setattr(Audit, "__call__", note)
    deployment, federated = running.deployment, running.federated
    settings = settings_of(rounds=1, strategy="fedavg", batchnorm="average")
    expected = {
        p: virtual_federation(settings.replace(protection=p), federated) for p in ("smpc", "he", "plaintext")
    }
    patterns = patterns_of(contributions["hospital-2", 1][:4000], 3)

    for protection, virtual in expected.items():
        watch = Watch(deployment.coordinator.database, patterns[:60])
        watch.start()
        chosen = settings.replace(protection=protection)
        config = run_config(deployment.federation, federated, chosen, protection)
        run = deployment.submit(running.app, config)
        status = deployment.wait(run, timeout=240)
        watch.end()
        log = deployment.log("run").read_text()
        assert status == "finished:completed", log[-2000:]
        out = deployment.coordinator.path / protection
        np.testing.assert_array_equal(final_model(out), virtual.state.server.model)
        result = json.loads((out / "result.json").read_text())
        assert result["workers"].startswith("flower 1.")
        # of the model that is kept, the best round's, and after the temperature that its sums chose
        assert result["final"] == final_of(virtual)
        assert set(result["hospital_final"]) == {"hospital-1", "hospital-2"}
        assert watch.bytes_seen > 100_000
        assert bool(watch.found) == (protection == "plaintext"), (protection, watch.found)
        assert f"run {run} round 1: hospital-2 trained" in log
        for name in HOSPITALS:
            assert f"run {run} round 1: {name} answers train" in deployment.log(name).read_text()


@pytest.mark.slow
def test_an_experiment_leaves_what_a_virtual_run_leaves_and_stops_everything(tmp_path):
    federated = small_federated()
    settings = flower_settings(settings_of(protection="smpc", rounds=1, parties=None))
    assert settings.parties == "hospitals"
    lines = []
    result = run_experiment(
        settings, federated, tmp_path / "out", snapshot(tmp_path), timeout=240, show=lines.append
    )
    np.testing.assert_array_equal(
        final_model(tmp_path / "out"), virtual_progress(settings, federated).server.model
    )
    assert result["data"]["images"] == len(federated.dataset)
    assert set(result["partition"]) == set(HOSPITALS)
    assert result["memory"]["peak_bytes"] > 100 * 2**20
    assert any("round 1: summed" in line for line in lines)
    for name in (
        "result.json",
        "rounds.jsonl",
        "model.npz",
        "report.html",
        "config.toml",
        "logs/superlink.log",
    ):
        assert (tmp_path / "out" / name).is_file(), name
    assert len(list((tmp_path / "out" / "figures").glob("*.png"))) >= 3


@pytest.mark.slow
def test_the_simulation_engine_gives_the_same_model(tmp_path):
    pytest.importorskip("ray", reason="needs the extra [simulation]")
    federated = small_federated()
    settings = settings_of(protection="smpc", rounds=2, parties="2")
    result = run_experiment(
        settings, federated, tmp_path / "out", snapshot(tmp_path), simulation=True, timeout=400, show=str
    )
    np.testing.assert_array_equal(
        final_model(tmp_path / "out"), virtual_progress(settings, federated).server.model
    )
    assert result["workers"].endswith("simulation")


def test_an_experiment_says_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr("skinfl.flower.local.experiment.importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"ray: pip install 'skinfl\[simulation\]'"):
        run_experiment(settings_of(), None, tmp_path, tmp_path, simulation=True)
    with pytest.raises(SettingsError, match="no Flower run to go on with"):
        run_experiment(settings_of(), None, tmp_path, tmp_path, resume=True)


def test_many_hospitals_have_three_of_them_add_up():
    assert flower_settings(settings_of(protection="smpc", hospitals=100, parties=None)).parties == 3
    assert flower_settings(settings_of(protection="smpc", parties="2")).parties == 2
    assert "parties" not in flower_settings(settings_of(protection="he", parties=None)).given

"""Training on real processes, over TLS with node authentication."""

import json
import threading

import numpy as np
import pytest

pytest.importorskip("flwr", reason="needs the extra [flower]")

from flower_helpers import (
    HOSPITALS,
    approved_federation,
    final_model,
    patterns_of,
    run_config,
    settings_of,
    small_material,
    snapshot,
    virtual_progress,
)

from skinfl.federation.audit import Audit
from skinfl.flower.processes import LocalDeployment


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
def test_all_protections_equal_the_virtual_workers_and_leave_no_update_in_the_database(tmp_path, monkeypatch):
    contributions = {}

    def note(self, hospital, round, contribution):
        contributions[hospital, round] = contribution
        call(self, hospital, round, contribution)

    call = Audit.__call__
    monkeypatch.setattr(Audit, "__call__", note)
    material = small_material()
    settings = settings_of(rounds=1, strategy="fedavg", batchnorm="average")
    expected = {
        p: virtual_progress(settings.replace(protection=p), material) for p in ("smpc", "he", "plaintext")
    }
    patterns = patterns_of(contributions["hospital-2", 1][:4000], 3)

    app = snapshot(tmp_path)
    federation = approved_federation(tmp_path / "federation", app, material)
    with LocalDeployment(federation, tmp_path / "logs") as deployment:
        deployment.start()
        for protection, progress in expected.items():
            watch = Watch(deployment.coordinator.database, patterns[:60])
            watch.start()
            config = run_config(federation, material, settings.replace(protection=protection), protection)
            run = deployment.submit(app, config)
            status = deployment.wait(run, timeout=240)
            watch.end()
            log = deployment.log("run").read_text()
            assert status == "finished:completed", log[-2000:]
            out = federation / "coordinator" / protection
            np.testing.assert_array_equal(final_model(out), progress.server.model)
            result = json.loads((out / "result.json").read_text())
            assert result["workers"].startswith("flower 1.")
            assert result["final"] == progress.records[-1]["metrics"]
            assert set(result["hospital_final"]) == {"hospital-1", "hospital-2"}
            assert watch.bytes_seen > 100_000
            assert bool(watch.found) == (protection == "plaintext"), (protection, watch.found)
            assert f"run {run} round 1: hospital-2 trained" in log
            for name in HOSPITALS:
                assert f"run {run} round 1: {name} answers train" in deployment.log(name).read_text()
    assert deployment.running() == []

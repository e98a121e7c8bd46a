"""Faults on real processes: each run ends with a result or a clear error, and never with a wrong sum."""

import signal

import numpy as np
import pytest

pytest.importorskip("flwr", reason="needs the extra [flower]")

from flower_helpers import (
    HOSPITALS,
    LocalMessaging,
    await_text,
    coordinator_of,
    federation_of,
    final_model,
    run_config,
    settings_of,
    virtual_progress,
)

from skinfl.federation.checkpoint import load_checkpoint
from skinfl.run import CHECKPOINT

pytestmark = pytest.mark.slow

TRAINING = "Receiving: query.train message"


def start(running, settings, out, **options):
    """Submit a run with fresh logs at the hospitals; return its number and its folder."""
    deployment = running.deployment
    for name in HOSPITALS:
        deployment.log(name).write_text("")
    config = run_config(deployment.federation, running.federated, settings, out, **options)
    return deployment.submit(running.app, config), deployment.coordinator.path / out


def records_of(out):
    return load_checkpoint(out / CHECKPOINT).state.records


def test_a_hospital_killed_in_a_round_that_comes_back_loses_nothing(running):
    deployment = running.deployment
    settings = settings_of(protection="smpc", smpc_scheme="shamir", rounds=1)
    run, out = start(running, settings, "comes-back", return_timeout=100)
    await_text(deployment.log("hospital-3"), TRAINING)
    deployment.kill("hospital-3")
    deployment.start_supernodes(["hospital-3"])
    assert deployment.wait(run, timeout=240) == "finished:completed"
    assert [r.trained for r in records_of(out)] == [HOSPITALS]
    np.testing.assert_array_equal(
        final_model(out), virtual_progress(settings, running.federated).server.model
    )


def test_a_hospital_killed_for_good_is_left_out_and_shamir_opens_without_its_party(running, tmp_path):
    deployment = running.deployment
    # another model than in the run before: hospitals make no second sum of one task without one of them
    settings = settings_of(protection="smpc", smpc_scheme="shamir", rounds=1, seed=2)
    run, out = start(running, settings, "killed", sum_timeout=15, return_timeout=1)
    await_text(deployment.log("hospital-3"), TRAINING)
    deployment.kill("hospital-3")
    try:
        assert deployment.wait(run, timeout=240) == "finished:completed"
    finally:
        deployment.start_supernodes(["hospital-3"])
    (record,) = records_of(out)
    assert record.trained == HOSPITALS[:2]
    assert record.left_out == {"hospital-3": "hospital-3 lost its connection"}
    # the same run in one process, with a third hospital that is not there after the statistics
    federation, _ = federation_of(tmp_path, running.federated)
    post = LocalMessaging(federation)
    post.tamper = lambda kind, round, name, request, answer: (
        None if name == "hospital-3" and round else answer
    )
    coordinator_of(federation, running.federated, settings, post, tmp_path / "out").run(HOSPITALS)
    np.testing.assert_array_equal(final_model(out), final_model(tmp_path / "out"))


def test_a_party_that_never_answers_ends_additive_sharing_with_its_name_and_the_run_resumes(running):
    deployment = running.deployment
    settings = settings_of(protection="smpc", smpc_scheme="additive", rounds=1)
    run, out = start(running, settings, "hangs", sum_timeout=10)
    await_text(deployment.log("hospital-3"), "round 1: hospital-3 answers train")
    await_text(deployment.log("hospital-3"), "Sent successfully", count=4)
    deployment.signal("hospital-3", signal.SIGSTOP)
    try:
        assert deployment.wait(run, timeout=240) == "finished:failed"
    finally:
        deployment.signal("hospital-3", signal.SIGCONT)
    assert "hospital-3 did not add up the shares in time" in deployment.log("run").read_text()
    assert records_of(out) == ()
    run, _ = start(running, settings, "hangs", resume=True)
    assert deployment.wait(run, timeout=240) == "finished:completed"
    assert [r.trained for r in records_of(out)] == [HOSPITALS]
    np.testing.assert_array_equal(
        final_model(out), virtual_progress(settings, running.federated).server.model
    )


def test_a_killed_server_is_started_again_and_the_run_resumes_from_its_checkpoint(running):
    deployment = running.deployment
    settings = settings_of(protection="he")
    run, out = start(running, settings, "server")
    await_text(out / "rounds.jsonl", '"round": 1')
    deployment.kill("superlink")
    deployment.start_superlink()
    run, _ = start(running, settings, "server", resume=True)
    assert deployment.wait(run, timeout=240) == "finished:completed"
    assert [r.trained for r in records_of(out)] == [HOSPITALS] * 2
    np.testing.assert_array_equal(
        final_model(out), virtual_progress(settings, running.federated).server.model
    )

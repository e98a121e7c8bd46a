"""Flower's server app and client app, with a grid that hands messages over in this process."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("flwr", reason="needs the extra [flower]")

from flower_helpers import (
    HOSPITALS,
    federation_of,
    final_model,
    run_config,
    settings_of,
    small_federated,
    virtual_progress,
)
from flwr.app import Context, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from skinfl.errors import SettingsError, TrainingError
from skinfl.flower import environment, server_app, superexec, supernode
from skinfl.flower.client_app import app as client_app
from skinfl.flower.coordinator.log import RunLog
from skinfl.flower.coordinator.transport import RemoteTransport
from skinfl.flower.environment import COORDINATOR_VARIABLE, FEDERATION_VARIABLE
from skinfl.flower.provisioning.folders import read_coordinator, read_hospital
from skinfl.flower.superlink import arguments, write_connection

RUN = 77


class DirectGrid:
    """Hands each message to the client app at once. ``configs`` are the nodes' configurations."""

    def __init__(self, configs, names=None):
        self.configs = configs
        self.names = names or [""] * len(configs)
        self.answers = {}

    def get_nodes(self):
        return [
            SimpleNamespace(node_id=i, name=name, last_activated_at="0")
            for i, name in enumerate(self.names, start=2)
        ]

    def push_messages(self, messages):
        ids = []
        for message in messages:
            config = self.configs[message.metadata.dst_node_id - 2]
            context = Context(RUN, message.metadata.dst_node_id, config, RecordDict(), {})
            message.metadata.__dict__["_message_id"] = str(len(self.answers))
            self.answers[message.metadata.message_id] = client_app(message, context)
            ids.append(message.metadata.message_id)
        return ids

    def pull_messages(self, ids):
        return [self.answers[i] for i in ids]

    def send_and_receive(self, messages, timeout):
        return self.pull_messages(self.push_messages(messages))


@pytest.fixture(autouse=True)
def identity(monkeypatch, tmp_path):
    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)
    monkeypatch.setenv("FLWR_HOME", str(tmp_path / "home"))
    monkeypatch.delenv(FEDERATION_VARIABLE, raising=False)


def run_server(grid, config):
    server_app.main(grid, Context(RUN, 0, {}, RecordDict(), config))


def test_a_deployments_apps_train_as_virtual_workers_do(tmp_path, monkeypatch, capsys):
    federation, federated = federation_of(tmp_path)
    monkeypatch.setenv(COORDINATOR_VARIABLE, str(federation / "coordinator"))
    settings = settings_of(protection="smpc", evaluate_every=2)
    grid = DirectGrid([{"folder": str(federation / name)} for name in HOSPITALS], HOSPITALS)
    run_server(grid, run_config(federation, federated, settings, "run"))
    out = federation / "coordinator" / "run"
    np.testing.assert_array_equal(final_model(out), virtual_progress(settings, federated).server.model)
    result = json.loads((out / "result.json").read_text())
    assert result["workers"].endswith("deployment")
    assert result["data"]["images"] is None
    assert result["traffic"]["train"]["messages"] == 6
    printed = capsys.readouterr().out
    assert f"run {RUN} round 1: hospital-2 answers train with" in printed
    assert f"run {RUN} round 2: summed hospital-1, hospital-2, hospital-3" in printed
    assert f"run {RUN} round 2: finished: balanced accuracy" in printed


def test_a_simulation_makes_its_own_federation(tmp_path, monkeypatch):
    federated = small_federated()
    monkeypatch.delenv(COORDINATOR_VARIABLE, raising=False)
    monkeypatch.setattr("skinfl.flower.local.simulation.load_federated_data", lambda settings: federated)
    settings = settings_of(protection="plaintext", rounds=1, evaluate_every=1, partition="iid")
    places = [{"partition-id": i, "num-partitions": 3} for i in (2, 0, 1)]
    config = {"config": str(tmp_path / "s.toml"), "unit": 64, "out": "run"}
    from skinfl.settings import to_toml

    (tmp_path / "s.toml").write_text(to_toml(settings))
    run_server(DirectGrid(places), config)
    out = tmp_path / "home" / "skinfl" / str(RUN) / "coordinator" / "run"
    np.testing.assert_array_equal(final_model(out), virtual_progress(settings, federated).server.model)


def test_nodes_without_registered_names_say_who_they_are_and_bad_folders_refuse(
    tmp_path, monkeypatch, capsys
):
    federation, federated = federation_of(tmp_path)
    monkeypatch.setenv(COORDINATOR_VARIABLE, str(federation / "coordinator"))
    (federation / "hospital-3" / "hospital.toml").write_text("name = 3")
    configs = [{"folder": str(federation / name)} for name in HOSPITALS[:2]]
    grid = DirectGrid([*configs, {"folder": str(federation / "hospital-3")}], ["", "", "hospital-3"])
    settings = settings_of(protection="smpc", rounds=1)
    run_server(grid, run_config(federation, federated, settings, "run"))
    assert "hospital-3 does not take part" in capsys.readouterr().out
    with pytest.raises(SettingsError, match="holds a run already"):
        run_server(grid, run_config(federation, federated, settings, "run"))
    with pytest.raises(SettingsError, match="resume=true needs out"):
        run_server(grid, {"resume": True})
    nobody = run_config(federation, federated, settings, "other", connect_timeout=0.01)
    with pytest.raises(TrainingError, match="0 of 3 hospitals"):
        run_server(DirectGrid([]), nobody)
    assert "ended: 0 of 3 hospitals take part" in capsys.readouterr().out


def test_the_superlink_is_started_with_tls_and_node_authentication(tmp_path):
    federation, _ = federation_of(tmp_path)
    folder = read_coordinator(federation / "coordinator")
    command = arguments(folder, "127.0.0.1", 1234)
    assert "--enable-supernode-auth" in command
    assert "--insecure" not in command
    assert "--disable-runtime-dependency-installation" in command
    assert "--simulation" in arguments(folder, "127.0.0.1", 1234, simulation=True)
    write_connection(folder, 1234)
    text = (folder.flower_home / "config.toml").read_text()
    assert 'address = "127.0.0.1:1234"' in text
    assert f'root-certificates = "{folder.authority}"' in text


def test_a_supernode_is_started_with_its_key_and_a_path_it_can_be_given(tmp_path):
    federation, _ = federation_of(tmp_path)
    folder = read_hospital(federation / "hospital-1")
    command = supernode.arguments(folder, 9)
    assert command[command.index("--node-config") + 1] == f'folder="{folder.path}"'
    assert command[command.index("--host") + 1] == "127.0.0.1"
    assert "--insecure" not in command
    (federation / "hospital-1").rename(federation / 'a"b')
    with pytest.raises(SettingsError, match="no path with quotation marks"):
        supernode.arguments(read_hospital(federation / 'a"b'), 9)


def test_code_is_checked_before_anything_else_and_asked_for_until_it_comes(tmp_path, monkeypatch, capsys):
    from flwr.supernode import start_client_internal

    federation, _ = federation_of(tmp_path)
    folder = read_hospital(federation / "hospital-1")
    calls = []

    def pull(*, get_fab, trusted_entities, other):
        calls.append((get_fab("hash", 1).verifications, bool(trusted_entities), other))
        return None if len(calls) < 3 else 7

    for name in ("_pull_and_store_message", "_verify_fab"):
        monkeypatch.setattr(start_client_internal, name, pull)
    monkeypatch.setattr(supernode, "POLL_SECONDS", 0.0)
    supernode.adapt(folder)
    fab = SimpleNamespace(verifications={}, content=b"code")
    assert (
        start_client_internal._pull_and_store_message(get_fab=lambda *_: fab, trusted_entities=None, other=1)
        == 7
    )
    assert calls[-1] == ({"valid_license": "checked by the hospital"}, True, 1)
    assert not start_client_internal._verify_fab(fab, {})
    assert "refused: the coordinator sent code" in capsys.readouterr().err
    digest = "5694d08a2e53ffcae0c3103e5ad6f6076abd960eb1f8a56577040bc1028f702b"
    folder.approved_code.write_text(digest + "\n")
    assert start_client_internal._verify_fab(fab, {})
    monkeypatch.delattr(start_client_internal, "_verify_fab")
    with pytest.raises(SettingsError, match="cannot be made to check code"):
        supernode.adapt(folder)


def test_only_client_apps_are_forked(monkeypatch):
    sent, started = [], []
    forks = superexec._Forks(SimpleNamespace(sendall=sent.append))
    monkeypatch.setattr(superexec.subprocess, "Popen", lambda arguments, **_: started.append(arguments))
    forks.Popen(["flwr-clientapp", "--token", "x"])
    forks.Popen(["flwr-model"])
    assert json.loads(sent[0]) == ["flwr-clientapp", "--token", "x"]
    assert started == [["flwr-model"]]


def test_a_missing_extra_is_named(tmp_path, monkeypatch):
    import builtins

    original = builtins.__import__

    def refuse(name, *rest):
        if name.split(".")[0] == "flwr":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)  # as Python says it
        return original(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    monkeypatch.setattr(environment.os, "environ", dict(environment.os.environ))
    from skinfl.errors import MissingExtra
    from skinfl.flower.approve import bundle_digest

    mask = environment.os.umask(0o077)
    try:
        for call in (lambda: environment.prepare(tmp_path / "home"), lambda: bundle_digest(tmp_path)):
            with pytest.raises(MissingExtra, match=r"skinfl\[flower\]"):
                call()
    finally:
        environment.os.umask(mask)


def test_a_log_line_says_no_more_than_it_should():
    lines = []
    with pytest.raises(TypeError, match="unknown event"):
        RunLog("1", lines.append)(SimpleNamespace(round=1))


def test_a_transport_keeps_nothing_of_hospitals():
    assert RemoteTransport.state(None) == {}
    assert RemoteTransport.load_state(None, {}) is None

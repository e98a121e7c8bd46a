"""A deployment on real processes: TLS, node authentication, and what is refused."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest

pytest.importorskip("flwr", reason="needs the extra [flower]")

from skinfl.errors import SettingsError
from skinfl.flower.approve import approve, bundle_digest
from skinfl.flower.local.processes import LocalDeployment, ProcessError, free_ports
from skinfl.flower.provisioning import certificates
from skinfl.flower.provisioning.folders import read_hospital
from skinfl.flower.provisioning.provision import provision

ECHO_PROJECT = """
[project]
name = "echo"
version = "1.0.0"
description = "answers what it hears"
license = "MIT"
[tool.flwr.app]
publisher = "skinfl"
[tool.flwr.app.components]
serverapp = "echo:server"
clientapp = "echo:client"
[tool.flwr.app.config]
out = ""
"""

ECHO = """
import json
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

client = ClientApp()
server = ServerApp()

@client.query()
def echo(message, context):
    reply = {"heard": message.content["ask"]["word"], "folder": context.node_config["folder"]}
    return Message(RecordDict({"answer": ConfigRecord(reply)}), reply_to=message)

@server.main()
def main(grid, context):
    names = {node.node_id: node.name for node in grid.get_nodes()}
    content = RecordDict({"ask": ConfigRecord({"word": b"hello"})})
    messages = [Message(content, dst_node_id=i, message_type="query") for i in names]
    answers = {}
    for answer in grid.send_and_receive(messages, timeout=60):
        said = answer.error.reason if answer.has_error() else answer.content["answer"]["folder"]
        answers[names[answer.metadata.src_node_id]] = said
    with open(context.run_config["out"], "w") as f:
        json.dump(answers, f)
"""


@pytest.fixture(scope="module")
def echo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("echo")
    (folder / "pyproject.toml").write_text(ECHO_PROJECT)
    (folder / "echo.py").write_text(ECHO)
    return folder


def make_federation(out, hospitals):
    provision(hospitals, f"127.0.0.1:{free_ports(1)[0]}", out, listen="127.0.0.1")
    return out


@pytest.fixture(scope="module")
def deployment(tmp_path_factory, echo):
    root = tmp_path_factory.mktemp("deployment")
    federation = make_federation(root / "federation", ["a", "b", "unregistered", "deceived"])
    digest = bundle_digest(echo)
    for name in ("a", "unregistered", "deceived"):
        approve(read_hospital(federation / name), digest, "the echo app")
    approve(read_hospital(federation / "b"), "0" * 64, "some other code")
    with LocalDeployment(federation, root / "logs") as running:
        running.start_superlink()
        running.register(["a", "b", "deceived"])
        running.start_supernodes(["a", "b"])
        yield running
    assert running.running() == []


@pytest.mark.slow
def test_only_approved_code_is_run_and_messages_pass(deployment, echo, tmp_path):
    run = deployment.submit(echo, {"out": str(tmp_path / "out.json")})
    assert deployment.wait(run, timeout=90) == "finished:completed"
    answers = json.loads((tmp_path / "out.json").read_text())
    assert answers["a"] == str(deployment.federation / "a")
    assert "could not be verified" in answers["b"]
    assert "not in" in deployment.log("b").read_text()
    assert (deployment.federation / "a" / "flower" / "apps").exists()
    assert not (deployment.federation / "b" / "flower" / "apps").exists()


@pytest.mark.slow
def test_an_app_that_flower_refuses_is_reported(deployment, tmp_path):
    (tmp_path / "pyproject.toml").write_text(ECHO_PROJECT)
    with pytest.raises(ProcessError, match="Unable to load module echo"):
        deployment.submit(tmp_path, {})


@pytest.mark.slow
def test_an_unknown_node_and_a_wrong_certificate_are_refused(deployment):
    stranger = certificates.make_authority("another federation")
    (deployment.federation / "deceived" / "ca.pem").write_bytes(
        certificates.certificate_pem(stranger.certificate)
    )
    for name in ("unregistered", "deceived"):
        deployment.launch_supernode(name, deployment.federation / name)
    assert deployment.process("unregistered").wait(30) != 0
    assert "No SuperNode found with the given public key" in deployment.log("superlink").read_text()
    assert deployment.process("deceived").wait(30) != 0
    assert "CERTIFICATE_VERIFY_FAILED" in deployment.log("deceived").read_text()
    for name in ("unregistered", "deceived"):
        assert "SuperNode ID" not in deployment.log(name).read_text()


@pytest.mark.slow
def test_plain_http_and_an_unknown_authority_are_refused(deployment):
    port = deployment.coordinator.port
    plain = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    with pytest.raises((http.client.HTTPException, OSError)):
        plain.request("GET", "/health")
        plain.getresponse()
    with pytest.raises(urllib.error.URLError, match="CERTIFICATE_VERIFY_FAILED"):
        urllib.request.urlopen(f"https://127.0.0.1:{port}/health", timeout=5)


@pytest.mark.slow
def test_the_database_is_for_its_owner_only(deployment):
    assert deployment.coordinator.database.stat().st_mode & 0o077 == 0


@pytest.mark.slow
def test_nothing_outlives_a_killed_parent(tmp_path):
    federation = make_federation(tmp_path / "federation", ["a", "b"])
    port = json.dumps(str(tmp_path / "logs"))
    code = (
        "import time; from skinfl.flower.local.processes import LocalDeployment\n"
        f"with LocalDeployment({json.dumps(str(federation))}, {port}) as d:\n"
        "    d.start_superlink(); print(*d.running(), flush=True); time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(pids) >= 2
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and any(os.path.exists(f"/proc/{pid}/exe") for pid in pids):
        time.sleep(0.2)
    assert not any(os.path.exists(f"/proc/{pid}/exe") for pid in pids)


@pytest.mark.slow
def test_sigterm_stops_everything_and_a_taken_port_is_reported(tmp_path):
    federation = make_federation(tmp_path / "federation", ["a", "b"])
    with pytest.raises(SystemExit), LocalDeployment(federation, tmp_path / "logs") as running:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", running.coordinator.port))
            taken.listen()
            with pytest.raises(ProcessError, match=r"superlink\.log"):
                running.start_superlink()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
    assert running.running() == []


def test_a_hospital_that_approved_nothing_does_not_start(tmp_path):
    federation = make_federation(tmp_path / "federation", ["a", "b"])
    command = [sys.executable, "-m", "skinfl.flower.supernode", "--folder", str(federation / "a")]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2
    assert "approves no code yet" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "member", "broken", "reason"),
    [
        ("superlink", "coordinator", "it.PUBLIC_PATHS = ('/v1/',)", "would let other machines reach"),
        ("supernode", "a", "it.is_approved = lambda *_: True", "would run code that a did not approve"),
    ],
)
def test_what_cannot_prove_its_guard_does_not_start(tmp_path, module, member, broken, reason):
    folder = make_federation(tmp_path / "federation", ["a", "b"]) / member
    (folder / "approved-code.txt").write_text("0" * 64)
    code = f"from skinfl.flower import {module} as it; {broken}; it.main(['--folder', {str(folder)!r}])"
    done = subprocess.run([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, timeout=120)
    assert done.returncode == 2
    assert reason in done.stderr.splitlines()[-1]
    assert "nothing was started" in done.stderr


def test_a_folder_that_is_no_app_has_no_digest(tmp_path):
    with pytest.raises(SettingsError, match=r"pyproject\.toml"):
        bundle_digest(tmp_path)
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    with pytest.raises(SettingsError, match="no Flower app"):
        bundle_digest(tmp_path)

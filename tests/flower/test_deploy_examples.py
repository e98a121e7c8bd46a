"""The examples in deploy/ start what exists, as an ordinary user, and expose one port."""

import configparser
import importlib.util
import subprocess
import sys

import pytest
from flower_helpers import ROOT

from skinfl.flower.provisioning.provision import DEFAULT_PORT, provision

DEPLOY = ROOT / "deploy"


class Unit(configparser.RawConfigParser):
    optionxform = staticmethod(str)


@pytest.mark.parametrize("role", ["hospital", "coordinator"])
def test_a_service_starts_the_provisioned_script_and_may_write_nowhere_else(role, tmp_path):
    unit = Unit(strict=True)
    unit.read(DEPLOY / f"skinfl-{role}.service")
    service = unit["Service"]
    assert service["User"] == "skinfl"
    assert service["Restart"] == "always"
    folder, script = service["ExecStart"].rsplit("/", 1)
    assert service["ReadWritePaths"] == folder
    provision(["hospital", "b"], "localhost", tmp_path / "federation")
    start = tmp_path / "federation" / role / script
    assert start.stat().st_mode & 0o100
    assert '"${PYTHON:-python}"' in start.read_text()


def test_the_compose_file_runs_the_packages_modules_without_privileges():
    yaml = pytest.importorskip("yaml")
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    assert set(services) == {"coordinator", "hospital"}
    for service in services.values():
        assert service["cap_drop"] == ["ALL"]
        assert service["read_only"]
        module = service["command"][service["command"].index("-m") + 1]
        assert importlib.util.find_spec(module) is not None
    assert services["coordinator"]["ports"] == [f"{DEFAULT_PORT}:{DEFAULT_PORT}"]
    assert "ports" not in services["hospital"]
    assert (DEPLOY.parent / services["hospital"]["build"]["dockerfile"]).is_file()


@pytest.mark.parametrize("module", ["superlink", "supernode", "approve"])
def test_modules_that_the_documents_name_explain_themselves(module):
    command = [sys.executable, "-m", f"skinfl.flower.{module}", "--help"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, cwd=str(ROOT))
    assert done.returncode == 0
    assert f"skinfl.flower.{module}" in done.stdout

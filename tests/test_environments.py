"""The environments' files agree with each other and with what the package asks for."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def requirements(name):
    """Return the lines of a requirements file without comments."""
    lines = (ROOT / "requirements" / name).read_text().splitlines()
    return [line.split(" #")[0].strip() for line in lines if line.strip() and not line.startswith("#")]


def pins(name):
    return dict(line.lower().split("==") for line in requirements(name) if "==" in line)


def numbers(version):
    return [int(part) for part in re.findall(r"\d+", version)[:3]]


@pytest.mark.parametrize("name", ["pinned", "sympc"])
def test_every_dependency_of_the_package_is_pinned_within_its_range(name):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pinned = pins(f"{name}.txt")
    for dependency in project["dependencies"]:
        package, least = re.match(r"([\w-]+)>=([\d.]+)", dependency).groups()
        assert numbers(pinned[package]) >= numbers(least), dependency


@pytest.mark.parametrize("name", ["pinned", "sympc"])
def test_pins_and_constraints_agree(name):
    lines = requirements(f"{name}.txt")
    assert lines[0] == f"-c {name}-constraints.txt" and lines[-1] == "-e ."
    constraints = pins(f"{name}-constraints.txt")
    for package, wanted in pins(f"{name}.txt").items():
        assert constraints[package.replace("_", "-")] == wanted


@pytest.mark.parametrize(
    ("file", "name"), [("environment.yml", "pinned"), ("environment-sympc.yml", "sympc")]
)
def test_conda_takes_the_same_requirements(file, name):
    text = (ROOT / file).read_text()
    entries = re.findall(r"^ *- (.+?)(?:  #.*)?$", text, flags=re.M)
    assert entries[:4] == ["conda-forge", "nodefaults", "python=3.8", "pip=24.0"]
    assert entries[-2:] == ["pip:", f"-r requirements/{name}.txt"]
    constraints = pins(f"{name}-constraints.txt")
    for entry in entries[4:-2]:
        package, version = entry.split("=")
        assert constraints[package] == version


def load_stub(monkeypatch):
    """Import the stand-in for aiortc, whatever is installed."""
    for module in [m for m in sys.modules if m.split(".")[0] == "aiortc"]:
        monkeypatch.delitem(sys.modules, module)
    folder = ROOT / "stubs" / "aiortc" / "aiortc"
    loaded = []
    for name, file in (("aiortc", "__init__.py"), ("aiortc.contrib.signaling", "contrib/signaling.py")):
        spec = importlib.util.spec_from_file_location(name, folder / file)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
        loaded.append(module)
    return loaded


def test_the_stand_in_for_aiortc_can_be_imported_and_not_used(monkeypatch):
    aiortc, signaling = load_stub(monkeypatch)
    used = [aiortc.RTCPeerConnection, aiortc.RTCSessionDescription, signaling.CopyAndPasteSignaling]
    for name in (*used, signaling.object_from_string, signaling.object_to_string):
        with pytest.raises(aiortc.StandInError, match=rf"{name.__name__} was used.*docs/environments\.md"):
            name("sdp", type="offer")

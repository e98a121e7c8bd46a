"""A user's own file on the command line: found, recorded, loaded again; one line when it is broken."""

from __future__ import annotations

import subprocess
import sys

import pytest

from skinfl import cli, plugins
from skinfl.errors import SettingsError
from skinfl.federation.strategies import STRATEGIES
from skinfl.settings import read_toml

MINE = """
from skinfl.federation.strategies import SERVER_LR, STRATEGIES, FedAvg
from skinfl.registry import Option

TWIST = Option("twist", float, 1.0, "does nothing", low=0.0)


@STRATEGIES.register("mine", "FedAvg by another name", options=[SERVER_LR, TWIST])
def build(*, server_lr, twist):
    return FedAvg(server_lr=server_lr)
"""
SMALL = ["--data", "toy", "--hospitals", "3", "--rounds", "1", "--batch-size", "8", "--image-size", "12"]


@pytest.fixture(autouse=True)
def forgotten(monkeypatch):
    """Take what a test registers out again."""
    monkeypatch.setattr(plugins, "_loaded", {})
    monkeypatch.delenv(plugins.VARIABLE, raising=False)
    before = {entry.name for entry in STRATEGIES}
    yield
    for entry in STRATEGIES:
        if entry.name not in before:
            STRATEGIES.unregister(entry.name)


def skinfl(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["skinfl", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
        raise SystemExit(0)
    return stop.value.code or 0


def test_a_plugin_is_trained_with_recorded_and_loaded_on_resuming(toy, monkeypatch, capsys, tmp_path):
    mine, out = tmp_path / "mine.py", tmp_path / "run"
    mine.write_text(MINE)
    monkeypatch.chdir(tmp_path)
    flags = ["--strategy", "mine", "--twist", "2", *SMALL, "--out", out]
    assert skinfl(monkeypatch, "--plugin", "mine.py", "train", *flags) == 0
    given = read_toml(out / "config.toml")
    assert given["plugins"] == [str(mine)] and (given["strategy"], given["twist"]) == ("mine", 2.0)
    STRATEGIES.unregister("mine")
    plugins._loaded.clear()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert skinfl(monkeypatch, "train", "--resume", out, "--rounds", "2") == 0
    mine.rename(tmp_path / "moved.py")
    STRATEGIES.unregister("mine")
    plugins._loaded.clear()
    assert skinfl(monkeypatch, "train", "--resume", out, "--rounds", "3") == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert f"there is no plugin {mine}" in line
    again = ["train", "--resume", out, "--rounds", "3", "--plugin", tmp_path / "moved.py"]
    assert skinfl(monkeypatch, *again) == 0
    assert read_toml(out / "config.toml")["plugins"] == [str(tmp_path / "moved.py")]


def test_a_run_is_resumed_beside_a_plugin_that_brings_more_options(toy, monkeypatch, tmp_path):
    (tmp_path / "mine.py").write_text(MINE)
    assert skinfl(monkeypatch, "train", *SMALL, "--out", tmp_path / "run") == 0
    plugin = ["--plugin", tmp_path / "mine.py"]
    assert skinfl(monkeypatch, *plugin, "train", "--resume", tmp_path / "run", "--rounds", "2") == 0


@pytest.mark.parametrize("place", ["before", "after", "equals", "variable"])
def test_a_plugins_options_are_flags(monkeypatch, capsys, tmp_path, place):
    (tmp_path / "mine.py").write_text(MINE)
    plugin = str(tmp_path / "mine.py")
    arguments = {
        "before": ["--plugin", plugin, "train", "--help"],
        "after": ["train", "--plugin", plugin, "--help"],
        "equals": [f"--plugin={plugin}", "train", "--help"],
        "variable": ["train", "--help"],
    }[place]
    if place == "variable":
        monkeypatch.setenv(plugins.VARIABLE, plugin)
    monkeypatch.setenv("COLUMNS", "200")
    assert skinfl(monkeypatch, *arguments) == 0
    assert "--twist" in capsys.readouterr().out
    assert skinfl(monkeypatch, "--help") == 0
    assert "--plugin" in capsys.readouterr().out


def test_a_module_may_be_named_and_is_loaded_once(monkeypatch, tmp_path):
    (tmp_path / "skinfl_test_plugin.py").write_text(MINE)
    monkeypatch.syspath_prepend(str(tmp_path))
    for _ in range(2):
        plugins.load("skinfl_test_plugin")
    assert plugins.loaded() == ("skinfl_test_plugin",)
    assert "mine" in STRATEGIES


@pytest.mark.parametrize(
    "text, message",
    [
        ("x = (", "line 1: SyntaxError"),
        ("import skinfl\nimport nothere", "line 2: ModuleNotFoundError"),
        ("def f():\n    raise ValueError('bad\\nworse')\nf()", "line 2: ValueError: bad"),
        ("raise SystemExit(3)", "SystemExit"),
        (MINE.replace('"mine"', '"fedavg"'), "already"),
        (MINE.replace('"twist", float', '"clip", float'), "declared twice"),
        (None, "there is no plugin"),
    ],
)
def test_a_broken_plugin_is_one_line(monkeypatch, capsys, tmp_path, text, message):
    plugin = tmp_path / "broken.py"
    if text is not None:
        plugin.write_text(text)
    assert skinfl(monkeypatch, "--plugin", plugin, "train") == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ") and "broken.py" in line and message in line


def test_what_follows_two_hyphens_is_left_alone():
    assert plugins.load_for(["train", "--", "--plugin", "x"]) == ["train", "--", "--plugin", "x"]
    with pytest.raises(SettingsError, match="--plugin needs"):
        plugins.load_for(["train", "--plugin"])
    assert plugins.load_for(["train", "--config=nowhere.toml"]) == ["train", "--config=nowhere.toml"]


def test_help_waits_for_nothing_heavy():
    """Nothing that takes long is imported before a command needs it."""
    heavy = ("torch", "torchvision", "tenseal", "PIL", "pandas", "matplotlib", "syft")
    code = f"import sys, skinfl.cli; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True)
    assert done.stdout.strip() == "[]"

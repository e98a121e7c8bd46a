"""The command line as a user meets it: help, flags, errors in one line with status 2."""

from __future__ import annotations

import json
import os
import runpy
import sys
from pathlib import Path

import pytest

from skinfl import cli

ROOT = Path(__file__).resolve().parent.parent
SMALL = ["--data", "toy", "--hospitals", "3", "--rounds", "1", "--batch-size", "8", "--image-size", "12"]


def skinfl(monkeypatch, *arguments):
    """Call the console script; return its exit status."""
    monkeypatch.setattr(sys, "argv", ["skinfl", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
        raise SystemExit(0)
    return stop.value.code or 0


def error_line(capsys):
    """Return the only line on stderr."""
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    return lines[0]


def test_help_names_every_command_and_setting(monkeypatch, capsys):
    assert skinfl(monkeypatch, "--help") == 0
    text = capsys.readouterr().out
    for command in ("train", "compare", "data"):
        assert command in text
    monkeypatch.setenv("COLUMNS", "200")
    assert skinfl(monkeypatch, "train", "--help") == 0
    text = capsys.readouterr().out
    for flag in ("--data", "--hospitals", "--partition", "--strategy", "--rounds", "--local-epochs"):
        assert flag in text
    for flag in ("--batch-size", "--lr", "--seed", "--out", "--resume", "--config", "--no-doconv"):
        assert flag in text


def test_version(monkeypatch, capsys):
    assert skinfl(monkeypatch, "--version") == 0
    assert capsys.readouterr().out.startswith("skinfl 0.")


def test_train_writes_and_says_where(toy, monkeypatch, capsys, tmp_path):
    assert skinfl(monkeypatch, "train", *SMALL, "--protection", "smpc", "--out", tmp_path / "a") == 0
    printed = capsys.readouterr().out
    assert "lesions in both: 0" in printed
    assert str(tmp_path / "a" / "report.html") in printed.replace("\n", "")
    result = json.loads((tmp_path / "a" / "result.json").read_text())
    assert (result["protection"], result["rounds"]) == ("smpc", 1)


def test_flags_override_the_file(toy, monkeypatch, tmp_path):
    (tmp_path / "my.toml").write_text('rounds = 3\nlr = 0.01\nprotection = "smpc"\n')
    flags = [*SMALL, "--config", tmp_path / "my.toml", "--out", tmp_path / "a"]
    assert skinfl(monkeypatch, "train", *flags) == 0
    config = json.loads((tmp_path / "a" / "result.json").read_text())["config"]
    assert (config["rounds"], config["lr"], config["protection"]) == (1, 0.01, "smpc")


def test_resume_takes_the_settings_of_the_run(toy, monkeypatch, tmp_path):
    assert skinfl(monkeypatch, "train", *SMALL, "--out", tmp_path / "a") == 0
    assert skinfl(monkeypatch, "train", "--resume", tmp_path / "a", "--rounds", "2") == 0
    result = json.loads((tmp_path / "a" / "result.json").read_text())
    assert (result["rounds"], result["config"]["batch_size"]) == (2, 8)


def test_compare_prints_a_table(toy, monkeypatch, capsys, tmp_path):
    assert skinfl(monkeypatch, "compare", *SMALL, "--protections", "smpc", "--out", tmp_path / "c") == 0
    printed = capsys.readouterr().out
    assert "plaintext" in printed
    assert "smpc" in printed
    assert (tmp_path / "c" / "compare.json").exists()
    assert skinfl(monkeypatch, "compare", "--resume", tmp_path / "c", "--protections", "smpc") == 0


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--rounds", "0"], "at least 1"),
        (["--strategy", "fedavgg"], "did you mean 'fedavg'"),
        (["--protection", "hee"], "did you mean 'he'"),
        (["--model", "resnet"], "did you mean 'resnet18'"),
        (["--hospitals", "400"], "400"),
        (["--partition", "paper"], "paper"),
        (["--config", "nowhere.toml"], "nowhere.toml"),
        (["--resume", "nowhere"], "leave out"),
        (["--lr", "1e9"], "lower --lr"),
        (["--clip", "1e30", "--protection", "smpc"], "clip"),
        (["--image-size", "4"], "at least 8"),
    ],
)
def test_bad_settings_end_in_one_line_and_status_2(toy, monkeypatch, capsys, tmp_path, flags, message):
    assert skinfl(monkeypatch, "train", *SMALL, "--out", tmp_path / "run", *flags) == 2
    assert message in error_line(capsys)


def test_a_run_is_not_overwritten(toy, monkeypatch, capsys, tmp_path):
    assert skinfl(monkeypatch, "train", *SMALL, "--out", tmp_path / "a") == 0
    before = (tmp_path / "a" / "result.json").read_bytes()
    capsys.readouterr()
    assert skinfl(monkeypatch, "train", *SMALL, "--out", tmp_path / "a") == 2
    assert "holds a run already" in error_line(capsys)
    assert (tmp_path / "a" / "result.json").read_bytes() == before


def test_an_out_that_cannot_be_written_is_named(toy, monkeypatch, capsys, tmp_path):
    (tmp_path / "file").write_text("in the way")
    assert skinfl(monkeypatch, "train", *SMALL, "--out", tmp_path / "file" / "x") == 2
    assert "cannot write" in error_line(capsys)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the system has no /dev/full")
def test_a_full_disk_is_one_line(toy, monkeypatch, capsys, tmp_path):
    from skinfl.report import files

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    assert skinfl(monkeypatch, "train", *SMALL, "--out", tmp_path / "a") == 2
    assert "No space left on device" in error_line(capsys)


def test_ctrl_c_leaves_a_resumable_run(toy, monkeypatch, capsys, tmp_path):
    from skinfl.federation.rounds import Federation

    original = Federation._round

    def interrupted(self, round):
        if round == 2:
            raise KeyboardInterrupt
        return original(self, round)

    monkeypatch.setattr(Federation, "_round", interrupted)
    flags = [*SMALL, "--rounds", "3", "--out", tmp_path / "a"]
    assert skinfl(monkeypatch, "train", *flags) == 130
    assert f"--resume {tmp_path / 'a'}" in capsys.readouterr().err
    monkeypatch.setattr(Federation, "_round", original)
    assert skinfl(monkeypatch, "train", "--resume", tmp_path / "a") == 0
    assert json.loads((tmp_path / "a" / "result.json").read_text())["rounds"] == 3


@pytest.mark.parametrize("script", ["run_plaintext", "run_smpc", "run_he"])
def test_scripts_are_the_command_with_the_protection_fixed(toy, monkeypatch, tmp_path, script):
    if script == "run_he":
        pytest.importorskip("tenseal")
    monkeypatch.setattr(sys, "argv", [script, *SMALL, "--out", str(tmp_path / "a")])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(ROOT / "experiments" / f"{script}.py"), run_name="__main__")
    assert not stop.value.code
    result = json.loads((tmp_path / "a" / "result.json").read_text())
    assert result["protection"] == script[len("run_") :]


def test_the_two_ends_of_the_scale_are_printed(toy, monkeypatch, capsys, tmp_path):
    flags = [*SMALL, "--seeds", "2", "--out", str(tmp_path / "s")]
    monkeypatch.setattr(sys, "argv", ["centralised", *flags])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(ROOT / "experiments" / "centralised.py"), run_name="__main__")
    assert not stop.value.code
    rows = json.loads((tmp_path / "s" / "scale.json").read_text())
    assert [row["seed"] for row in rows] == [0, 1]
    printed = capsys.readouterr().out
    for word in ("centralised", "federated", "local-only", "mean"):
        assert word in printed


def test_variants_are_measured_against_plaintext(toy, monkeypatch, capsys, tmp_path):
    pytest.importorskip("tenseal")
    out = tmp_path / "v"
    flags = [*SMALL, "--seeds", "2", "--variants", "smpc,he-bfv-8", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["variants", *flags])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(ROOT / "experiments" / "variants.py"), run_name="__main__")
    assert not stop.value.code
    rows = json.loads((out / "variants.json").read_text())
    names = ["plaintext", "smpc", "he-bfv-8"]
    assert [(row["seed"], row["variant"]) for row in rows] == [(s, n) for s in (0, 1) for n in names]
    plain, smpc, bfv = rows[:3]
    assert smpc["accuracy"] == plain["accuracy"]
    assert 0 < smpc["share"] < 1 and abs(smpc["upload"] - 1) < 0.2
    assert len(bfv["accuracy"]) == len(plain["accuracy"]) == 1
    printed = capsys.readouterr().out
    assert "he-bfv-8" in printed and (out / "variants.png").stat().st_size > 1000

    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(ROOT / "experiments" / "variants.py"), run_name="__main__")
    assert stop.value.code == 2
    assert "exists: name another --out" in capsys.readouterr().err
    assert json.loads((out / "variants.json").read_text()) == rows


def test_an_unknown_variant_is_refused_with_the_nearest_name(toy, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(
        sys, "argv", ["variants", *SMALL, "--variants", "he-bfv-9", "--out", str(tmp_path / "v")]
    )
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(ROOT / "experiments" / "variants.py"), run_name="__main__")
    assert stop.value.code == 2
    assert "he-bfv-8" in capsys.readouterr().err


def test_data_commands(monkeypatch, capsys, tmp_path):
    assert skinfl(monkeypatch, "data", "list") == 0
    assert "doi.org/10.7910/DVN/DBW86T" in capsys.readouterr().out
    folder = tmp_path / "drawn"
    flags = ["--images", "60", "--size", "24", "--seed", "1"]
    assert skinfl(monkeypatch, "data", "make-synthetic", folder, *flags) == 0
    assert skinfl(monkeypatch, "data", "check", folder) == 0
    assert "no problems" in capsys.readouterr().out
    flags = ["--data", folder, "--partition", "iid", "--hospitals", "2", "--image-size", "12"]
    assert skinfl(monkeypatch, "data", "split", *flags, "--figure", tmp_path / "who.png") == 0
    assert "0 lesions in both" in capsys.readouterr().out
    assert (tmp_path / "who.png").stat().st_size > 1000
    next((folder / "HAM10000_images_part_1").glob("*.jpg")).write_bytes(b"cut")
    capsys.readouterr()
    assert skinfl(monkeypatch, "data", "check", folder) == 2
    assert ".jpg" in error_line(capsys)


def test_an_unknown_flag_is_one_line_with_a_hint(monkeypatch, capsys):
    assert skinfl(monkeypatch, "train", "--round", "3") == 2
    assert "--rounds" in error_line(capsys)


def test_no_arguments_show_help(monkeypatch, capsys):
    assert skinfl(monkeypatch) == 0
    assert "compare" in capsys.readouterr().out

"""The command line as a user meets it: help, flags, errors in one line with status 2."""

from __future__ import annotations

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from skinfl import cli
from skinfl.errors import SkinflError, broken_package

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


def test_without_a_common_model_a_hospitals_own_is_named_to_go_on_with(toy, monkeypatch, capsys, tmp_path):
    flags = [*SMALL, "--personal", "head", "--out", tmp_path / "a"]
    assert skinfl(monkeypatch, "train", *flags) == 0
    own = tmp_path / "a" / "personal" / "hospital-1.npz"
    assert f"--model {own}" in capsys.readouterr().out.replace("\n", "")
    assert own.is_file() and not (tmp_path / "a" / "model.npz").exists()


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--personal", "batchnorm"], "this network has none"),
        (["--personal", "heads"], "did you mean 'head'"),
        (["--personal", "ditto", "--fine-tune-epochs", "1"], "set fine_tune_epochs to 0"),
        (["--lr-schedule", "cosine", "--warmup-rounds", "1"], "warmup_rounds = 1 leaves none of rounds = 1"),
        (["--loss", "focal", "--focal-gamma", "9"], "at most 5"),
        (["--mixup", "-1"], "at least 0"),
    ],
)
def test_training_that_cannot_be_is_refused_in_one_line(toy, monkeypatch, capsys, tmp_path, flags, reason):
    assert skinfl(monkeypatch, "train", *SMALL, *flags, "--out", tmp_path / "a") == 2
    assert reason in error_line(capsys)
    assert not (tmp_path / "a").exists()


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
    from skinfl import files

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    assert skinfl(monkeypatch, "train", *SMALL, "--out", tmp_path / "a") == 2
    assert "No space left on device" in error_line(capsys)


@pytest.mark.parametrize(
    "flags",
    [
        ["--model", "resnet99"],
        ["--protection", "smpc", "--smpc-scheme", "shamir", "--threshold", "9"],
        ["--protection", "smpc", "--parties", "1"],
        ["--protection", "he", "--degree", "1000"],
        ["--hospitals", "400"],
        ["--lr", "-1"],
        ["--lr", "1e9"],
    ],
)
def test_a_start_that_fails_leaves_nothing_and_blocks_nothing(toy, monkeypatch, tmp_path, flags):
    if "he" in flags:
        pytest.importorskip("tenseal")
    out = tmp_path / "new" / "run"
    assert skinfl(monkeypatch, "train", *SMALL, "--out", out, *flags) == 2
    assert not (tmp_path / "new").exists()
    assert skinfl(monkeypatch, "train", *SMALL, "--out", out) == 0


def test_what_lies_in_a_folder_already_is_kept(toy, monkeypatch, capsys, tmp_path):
    (tmp_path / "config.toml").write_text("rounds = 1\n")
    assert skinfl(monkeypatch, "train", *SMALL, "--out", tmp_path) == 2
    assert "no run wrote" in error_line(capsys)
    assert [p.name for p in tmp_path.iterdir()] == ["config.toml"]
    (tmp_path / "config.toml").rename(tmp_path / "notes.txt")
    assert skinfl(monkeypatch, "train", *SMALL, "--out", tmp_path, "--lr", "1e9") == 2
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]
    assert skinfl(monkeypatch, "train", *SMALL, "--out", tmp_path) == 0
    assert (tmp_path / "notes.txt").read_text() == "rounds = 1\n"


def test_runs_begun_together_get_folders_of_their_own(toy, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("skinfl.run_folder.time.strftime", lambda form: "20260101-120000")
    for _ in range(3):
        assert skinfl(monkeypatch, "train", *SMALL) == 0
    names = [f"20260101-120000-train{n}" for n in ("", "-2", "-3")]
    assert sorted(p.name for p in (tmp_path / "runs").iterdir()) == names
    for name in names:
        assert not (tmp_path / "runs" / name / ".lock").exists()


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def script(monkeypatch, name, *arguments):
    """Call a script of experiments/; return its exit status."""
    monkeypatch.setattr(sys, "argv", [f"experiments/{name}.py", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(ROOT / "experiments" / f"{name}.py"), run_name="__main__")
    return stop.value.code or 0


def test_a_run_is_resumed_by_its_own_command_only(toy, monkeypatch, capsys, tmp_path):
    run, comparison = tmp_path / "r", tmp_path / "c"
    assert skinfl(monkeypatch, "train", *SMALL, "--protection", "smpc", "--out", run) == 0
    assert skinfl(monkeypatch, "compare", *SMALL, "--protections", "smpc", "--out", comparison) == 0
    capsys.readouterr()
    before = contents(tmp_path)
    assert skinfl(monkeypatch, "compare", "--resume", run) == 2
    assert f"go on with skinfl train --resume {run}" in error_line(capsys)
    assert skinfl(monkeypatch, "train", "--resume", comparison) == 2
    assert f"go on with skinfl compare --resume {comparison}" in error_line(capsys)
    for name in ("compare", "run_inference", "run_plaintext", "centralised", "variants"):
        assert script(monkeypatch, name, "--resume", run) == 2
        assert error_line(capsys)
    assert contents(tmp_path) == before
    assert script(monkeypatch, "run_smpc", "--resume", run, "--rounds", "2") == 0
    assert skinfl(monkeypatch, "compare", "--resume", comparison, "--protections", "he") == 2
    assert "begun with --protections smpc" in capsys.readouterr().err
    assert skinfl(monkeypatch, "compare", "--resume", comparison, "--rounds", "2") == 0
    found = json.loads((comparison / "compare.json").read_text())["runs"]
    assert [(r["protection"], r["rounds"]) for r in found] == [("plaintext", 2), ("smpc", 2)]


@pytest.mark.parametrize(
    "place, message",
    [("nowhere", "holds no run"), ("file", "is a file"), ("empty", "holds no run"), ("", "a path is empty")],
)
def test_what_is_no_run_cannot_be_resumed(monkeypatch, capsys, tmp_path, place, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    assert skinfl(monkeypatch, "train", "--resume", place) == 2
    assert message in error_line(capsys)
    assert list((tmp_path / "empty").iterdir()) == [] and not (tmp_path / "nowhere").exists()


def test_data_may_move_and_a_run_may_go_on_elsewhere(monkeypatch, capsys, tmp_path):
    drawn, run = tmp_path / "drawn", tmp_path / "r"
    assert skinfl(monkeypatch, "data", "make-synthetic", drawn, "--images", "100", "--size", "16") == 0
    monkeypatch.setenv("SKINFL_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    flags = ["--rounds", "1", "--hospitals", "2", "--image-size", "12", "--local-epochs", "1"]
    assert skinfl(monkeypatch, "train", "--data", "drawn", *flags, "--out", run) == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert skinfl(monkeypatch, "train", "--resume", run, "--rounds", "2") == 0
    drawn.rename(tmp_path / "moved")
    capsys.readouterr()
    assert skinfl(monkeypatch, "train", "--resume", run, "--rounds", "3") == 2
    line = error_line(capsys)
    assert f"lay at {drawn}" in line and "--data" in line
    assert skinfl(monkeypatch, "train", "--resume", run, "--rounds", "3", "--data", "../moved") == 0
    assert skinfl(monkeypatch, "train", "--resume", run, "--rounds", "4") == 0
    one, other = sorted((tmp_path / "moved").glob("*/*.jpg"))[:2]
    one.write_bytes(other.read_bytes())
    capsys.readouterr()
    assert skinfl(monkeypatch, "train", "--resume", run, "--rounds", "5") == 2
    assert "images were added, removed, relabelled or changed" in error_line(capsys)


@pytest.mark.parametrize("joined", [False, True])
def test_a_tilde_is_a_home_folder_everywhere(toy, monkeypatch, capsys, tmp_path, joined):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "home" / "my.toml").write_text("rounds = 1\n")

    def flag(name, value):
        return [f"{name}={value}"] if joined else [name, value]

    flags = [*SMALL, *flag("--config", "~/my.toml"), *flag("--out", "~/run")]
    assert skinfl(monkeypatch, "train", *flags) == 0
    assert skinfl(monkeypatch, "train", *flag("--resume", "~/run"), "--rounds", "2") == 0
    figure = flag("--figure", "~/who.png")
    assert skinfl(monkeypatch, "data", "split", "--data", "toy", "--hospitals", "2", *figure) == 0
    assert {p.name for p in (tmp_path / "home").iterdir()} >= {"my.toml", "run", "who.png"}
    assert list((tmp_path / "here").iterdir()) == []


def test_no_flag_for_a_path_takes_it_unexpanded():
    import typer

    from skinfl.paths import path

    def commands(command):
        below = getattr(command, "commands", {})
        return [found for c in below.values() for found in commands(c)] if below else [command]

    def parser(parameter):
        if hasattr(parameter, "type_descriptor"):  # recent versions of typer
            return parameter.type_descriptor.parameter_info.parser
        return getattr(parameter.type, "func", None)

    for command in commands(typer.main.get_command(cli.app)):
        for parameter in command.params:
            words = (parameter.help or "").split()
            # those that may be words, too, are expanded where they are read
            if {"file", "folder", "folder,", "files"} & set(words) and (
                parameter.name not in ("data", "pretrained")
            ):
                assert parser(parameter) is path, (command.name, parameter.name)


def test_weights_may_lie_in_ones_home(tmp_path, monkeypatch):
    from skinfl.models.pretrained import check

    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(SkinflError, match=r"~/w\.pth"):
        check("resnet18", "~/w.pth")
    (tmp_path / "w.pth").write_bytes(b"x")
    check("resnet18", "~/w.pth")


@pytest.mark.parametrize("flag", ["--out", "--data", "--metadata", "--resume"])
def test_a_name_that_no_file_can_record_is_one_line_before_anything_is_done(
    monkeypatch, capsys, tmp_path, flag
):
    monkeypatch.chdir(tmp_path)
    assert skinfl(monkeypatch, "train", f"{flag}=S\udcfcd") == 2  # a name in Latin-1, as Python gives it
    assert "is no text in this locale: set PYTHONUTF8=1" in error_line(capsys)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "out, message", [("", "a path is empty"), ("x" * 300, "too long"), ("~nobody-here/x", "no home here")]
)
def test_an_impossible_out_is_one_line(monkeypatch, capsys, tmp_path, out, message):
    monkeypatch.chdir(tmp_path)
    assert skinfl(monkeypatch, "train", f"--out={out}") == 2
    assert message in error_line(capsys)
    assert list(tmp_path.iterdir()) == []


def test_a_figure_replaces_nothing_but_a_figure_and_only_when_told_to(toy, monkeypatch, capsys, tmp_path):
    readme, png = tmp_path / "README.md", tmp_path / "a.png"
    readme.write_text("words")
    (tmp_path / "words.png").write_text("words")
    split = ["data", "split", "--data", "toy", "--hospitals", "2", "--figure"]
    for file, more, message in (
        (readme, [], "ends in .png"),
        (readme, ["--force"], "ends in .png"),
        (tmp_path / "words.png", ["--force"], "no PNG file"),
        (tmp_path, [], "ends in .png"),
    ):
        assert skinfl(monkeypatch, *split, file, *more) == 2
        assert message in error_line(capsys)
    assert readme.read_text() == (tmp_path / "words.png").read_text() == "words"
    assert skinfl(monkeypatch, *split, png) == 0
    png.write_bytes(png.read_bytes() + b"mine")
    capsys.readouterr()
    assert skinfl(monkeypatch, *split, png) == 2
    assert "--force replaces it" in error_line(capsys)
    assert png.read_bytes().endswith(b"mine")
    assert skinfl(monkeypatch, *split, png, "--force") == 0
    assert not png.read_bytes().endswith(b"mine")


def test_rounds_without_an_update_are_said_at_the_end(toy, monkeypatch, capsys, tmp_path):
    assert skinfl(monkeypatch, "train", *SMALL, "--dropout", "0.95", "--out", tmp_path / "a") == 0
    assert "warning: no update entered the model in any of 1 rounds" in capsys.readouterr().out
    assert json.loads((tmp_path / "a" / "result.json").read_text())["rounds_with_update"] == 0
    assert "untrained network" in (tmp_path / "a" / "report.html").read_text("utf-8")


def run_real(*arguments, **environment):
    """Run the command line in a process of its own, on the toy data."""
    script = (
        "import sys; sys.path.insert(0, sys.argv.pop(1)); import samples, skinfl.assembly as a\n"
        "a.load = lambda source, **options: samples.toy_dataset()\n"
        "from skinfl.cli import main; main()"
    )
    command = [sys.executable, "-c", script, str(ROOT / "tests"), *map(str, arguments)]
    return subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(ROOT), **environment}, capture_output=True, cwd=ROOT
    )


def test_any_code_page_will_do(tmp_path):
    flags = [*SMALL, "--protections", "smpc"]
    done = run_real("compare", *flags, "--out", tmp_path / "rün", PYTHONIOENCODING="ascii")
    assert done.returncode == 0 and b"Traceback" not in done.stderr, done.stderr
    # × as x; what hospitals tell of validation images comes on top of the model
    assert re.search(rb" 1\.\d\dx ", done.stdout) and b"r?n" in done.stdout


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the system has no /dev/full")
def test_output_to_a_full_disk_is_one_line(tmp_path):
    script = [sys.executable, "-m", "skinfl", "data", "list"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            script, stdout=full, stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)}
        )
    assert done.returncode == 2
    assert done.stderr.decode().splitlines() == [done.stderr.decode().strip()]
    assert "No space left on device" in done.stderr.decode()


@pytest.mark.parametrize("module", ["skinfl", "skinfl.cli"])
def test_the_package_can_be_run(module):
    command = [sys.executable, "-m", module, "--version"]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True)
    assert (done.returncode, done.stdout[:9]) == (0, b"skinfl 0.")


@pytest.mark.parametrize(
    "package, breaks, flags",
    [
        ("numpy", 'raise ImportError("libopenblas.so.0: cannot open shared object file")', ["--version"]),
        ("torch", 'raise OSError("[WinError 126] c10.dll")', ["train"]),
        ("pandas", "import no_such_neighbour", ["data", "check", "."]),
        ("tenseal", "[].bool8", ["train", "--protection", "he"]),
        ("torchvision", 'raise RuntimeError("no operator nms")', ["train", "--model", "resnet18"]),
    ],
)
def test_a_package_that_breaks_while_it_is_loaded_is_one_line(tmp_path, package, breaks, flags):
    (tmp_path / f"{package}.py").write_text(f"{breaks}\n")
    (tmp_path / "HAM10000_metadata.csv").write_text("lesion_id,image_id,dx,dx_type,age,sex,localization\n")
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    run = subprocess.run(
        # cryptography warns of Python 3.8 itself, whoever imports it
        [sys.executable, "-W", "ignore:Python 3.8", "-m", "skinfl", *flags],
        env={**os.environ, "PYTHONPATH": path},
        cwd=str(tmp_path),
        capture_output=True,
        text=True,
    )
    assert run.returncode == 2, run.stderr
    assert run.stderr.startswith(f"error: the package {package} is installed and cannot be loaded (")
    assert run.stderr.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_a_defect_of_the_package_keeps_its_traceback():
    with pytest.raises(ImportError) as found:
        from skinfl.errors import no_such_name  # noqa: F401
    assert broken_package(found.value) is None
    with pytest.raises(AttributeError) as found:
        [].bool8  # noqa: B018
    assert broken_package(found.value) is None
    with pytest.raises(ImportError) as found:
        import no_such_package  # noqa: F401
    assert str(broken_package(found.value)) == (
        "the package no_such_package is missing: pip install no_such_package"
    )


def test_help_needs_no_torch():
    script = "import sys, skinfl.cli; sys.exit('torch' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    assert subprocess.run([sys.executable, "-c", script], env=environment).returncode == 0


def test_shell_completion_is_there(monkeypatch, capsys):
    assert skinfl(monkeypatch, "--help") == 0
    assert "--install-completion" in capsys.readouterr().out
    done = subprocess.run(
        [sys.executable, "-c", "import sys; sys.argv = ['skinfl']; from skinfl.cli import main; main()"],
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "_SKINFL_COMPLETE": "complete_bash",
            "COMP_WORDS": "skinfl tr",
            "COMP_CWORD": "1",
        },
        capture_output=True,
    )
    assert done.stdout.split() == [b"train"], done


def test_help_shows_flags_as_flags_and_examples_that_exist(monkeypatch, capsys):
    import shlex

    import typer

    monkeypatch.setenv("COLUMNS", "200")

    def commands(command, words):
        for name, below in getattr(command, "commands", {}).items():
            yield from commands(below, [*words, name])
        if not hasattr(command, "commands"):
            yield words, command

    for words, command in commands(typer.main.get_command(cli.app), []):
        for flag in ("-h", "--help"):
            assert skinfl(monkeypatch, *words, flag) == 0
            lines = capsys.readouterr().out.splitlines()
            assert not any("<bool>" in line for line in lines if "--help" not in line)
        examples = [line for line in (command.epilog or "").splitlines() if line.startswith("skinfl")]
        assert examples, words
        for example in examples:
            arguments = shlex.split(example)[1:]
            assert arguments[: len(words)] == words
            command.make_context("skinfl", arguments[len(words) :])


def test_what_to_go_on_with_can_be_pasted(toy, monkeypatch, capsys, tmp_path):
    import shlex

    out = tmp_path / "a run"
    assert skinfl(monkeypatch, "compare", *SMALL, "--protections", "smpc", "--out", out) == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    commands = [shlex.split(line) for line in lines[lines.index("go on with:") + 1 :]]
    assert [words[-2:] for words in commands] == [["--model", str(out / "smpc")]] * 2
    assert {"serve", "diagnose"} == {words[-3] if "serve" in words else "diagnose" for words in commands}
    for words in commands:
        assert shutil.which(words[0])


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


@pytest.mark.parametrize("script", sorted(p.stem for p in (ROOT / "experiments").glob("*.py")))
def test_a_scripts_help_has_examples(monkeypatch, capsys, script):
    path = str(ROOT / "experiments" / f"{script}.py")
    monkeypatch.setattr(sys, "argv", [path, "--help"])
    monkeypatch.setenv("COLUMNS", "300")
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(path, run_name="__main__")
    said = capsys.readouterr().out
    assert not stop.value.code and f"{script}.py --rounds 3" in said


def scaled(monkeypatch, out, *flags):
    monkeypatch.setattr(sys, "argv", ["centralised", *SMALL, *flags, "--out", str(out)])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(ROOT / "experiments" / "centralised.py"), run_name="__main__")
    return stop.value.code


def test_the_two_ends_of_the_scale_are_printed(toy, monkeypatch, capsys, tmp_path):
    assert not scaled(monkeypatch, tmp_path / "s", "--seeds", "2", "--fine-tune-epochs", "1")
    rows = json.loads((tmp_path / "s" / "scale.json").read_text())
    ways = ["centralised", "federated", "personalised", "local-only"]
    assert [(row["seed"], row["way"]) for row in rows] == [(seed, way) for seed in (0, 1) for way in ways]
    for row in rows:
        assert (row["metrics"] is None) == (row["way"] == "personalised")
        assert len(row["at_hospitals"]) == 3
    printed = capsys.readouterr().out
    for word in (*ways, "AUC", "mean of them", " ± "):
        assert word in printed


def test_some_ways_are_trained_alone(toy, monkeypatch, capsys, tmp_path):
    assert not scaled(monkeypatch, tmp_path / "s", "--ways", "local-only,local-only")
    assert [row["way"] for row in json.loads((tmp_path / "s" / "scale.json").read_text())] == ["local-only"]
    assert scaled(monkeypatch, tmp_path / "t", "--ways", "local-only,best") == 2
    assert "--ways best" in capsys.readouterr().err and not (tmp_path / "t" / "scale.json").exists()


def test_without_a_network_for_all_only_personal_ones_are_shown(toy, monkeypatch, capsys, tmp_path):
    flags = ("--ways", "federated", "--personal", "head")
    assert not scaled(monkeypatch, tmp_path / "s", *flags)
    rows = json.loads((tmp_path / "s" / "scale.json").read_text())
    assert [row["way"] for row in rows] == ["personalised"]


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
    assert "holds a run already: name another --out" in capsys.readouterr().err
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

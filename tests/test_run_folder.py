"""A run's folder: one process at a time, nothing left of a start that failed, nothing written over."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from skinfl.errors import CheckpointError, SkinflError
from skinfl.paths import command_line, path
from skinfl.run_folder import ABOUT, CONFIG, LOCK, ROUNDS, claim, claim_new, data_of, model_in
from skinfl.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
HOLD = """
import sys
from skinfl.run_folder import claim
folder = claim(sys.argv[1], "train")
print("claimed", flush=True)
sys.stdin.read()
"""


def finish_a_round(folder):
    (folder / ROUNDS).write_text("{}\n")


def holder(folder):
    """Start a process that claims ``folder`` and keeps it."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout.readline() == b"claimed\n"
    return process


@pytest.mark.parametrize("number", ["SIGKILL", "SIGTERM"])
def test_a_process_that_dies_lets_go_of_its_folder(tmp_path, number):
    process = holder(tmp_path / "run")
    try:
        with pytest.raises(SkinflError, match="another process is writing to"):
            claim(tmp_path / "run", "train")
    finally:
        process.send_signal(getattr(signal, number))
        process.communicate()
    with claim(tmp_path / "run", "train") as folder:
        folder.begin(Settings())
        finish_a_round(folder.path)
    assert not (tmp_path / "run" / LOCK).exists()
    with claim(tmp_path / "run", "train", resume=True), pytest.raises(SkinflError, match="another process"):
        claim(tmp_path / "run", "train", resume=True)


def test_of_many_at_once_one_gets_the_folder(tmp_path):
    found, start = [], threading.Barrier(8)

    def begin():
        start.wait()
        try:
            folder = claim(tmp_path / "a" / "run", "train")
        except SkinflError as error:
            found.append(error)
        else:
            folder.begin(Settings())
            finish_a_round(folder.path)
            found.append(folder)
            folder.close()

    threads = [threading.Thread(target=begin) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(not isinstance(f, SkinflError) for f in found) == 1


def test_of_many_at_once_each_gets_a_new_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("skinfl.run_folder.time.strftime", lambda form: "now")
    found, start = [], threading.Barrier(8)

    def begin():
        start.wait()
        found.append(claim_new("train", "train"))

    threads = [threading.Thread(target=begin) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({folder.path for folder in found}) == 8
    for folder in found:
        folder.close()
    assert list(tmp_path.glob("runs/*")) == []


@pytest.mark.parametrize("there", [(), ("mine.txt",)])
def test_what_was_made_for_nothing_goes_and_what_was_there_stays(tmp_path, there):
    out = tmp_path / "a" / "b"
    for name in there:
        out.mkdir(parents=True)
        (out / name).write_text("mine")
    with claim(out, "train") as folder:
        folder.begin(Settings())
        assert (out / ABOUT).exists()
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == sorted(there)
    assert out.exists() == bool(there)
    with claim(out, "train") as folder:
        folder.begin(Settings())
        finish_a_round(out)
    assert {ABOUT, CONFIG, ROUNDS, *there} == {p.name for p in out.iterdir()}


@pytest.mark.parametrize(
    "name", ["config.toml", "checkpoint.skinfl", "result.json", "model.npz", "report.html", "variants.json"]
)
def test_a_file_that_a_run_would_write_over_keeps_it_out(tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(SkinflError, match="name another --out"):
        claim(tmp_path, "train")
    assert [p.name for p in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    "what", ["lock links to nothing", "lock is a folder", "links to nothing", "is a file"]
)
def test_a_folder_that_cannot_be_locked_is_named_at_once(tmp_path, what):
    out = tmp_path / "run"
    if what.startswith("lock"):
        out.mkdir()
    place = out / LOCK if what.startswith("lock") else out
    if "nothing" in what:
        place.symlink_to(tmp_path / "no" / "where")
    elif "folder" in what:
        place.mkdir()
    else:
        place.write_text("")
    reason = "link to nothing" if "nothing" in what else "no folder" if "file" in what else "directory"
    with pytest.raises(SkinflError, match=f"cannot write {place}: .*{reason}; name another folder"):
        claim(out, "train")
    assert os.path.lexists(str(place))


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs /proc, where no file can be made")
def test_a_folder_in_which_no_file_can_be_made_is_refused():
    with pytest.raises(SkinflError, match="cannot write /proc"):
        claim("/proc", "train")


def test_a_run_that_cannot_be_gone_on_with_in_its_place_may_be_copied(tmp_path):
    with claim(tmp_path, "train") as folder:
        folder.begin(Settings())
        finish_a_round(tmp_path)
    (tmp_path / LOCK).mkdir()  # stands for rights that are missing, which root does not miss
    with pytest.raises(SkinflError, match=f"{LOCK}: .*; make it writable, or resume a copy"):
        claim(tmp_path, "train", resume=True)


@pytest.mark.parametrize(
    "content",
    [
        *("", "{}", "[]", "\xff\x00", '{"kind": 3, "options": {}, "data": null}'),
        '{"kind": "train", "options": {}, "data": 3}',
    ],
)
def test_a_damaged_description_is_refused(tmp_path, content):
    (tmp_path / ABOUT).write_text(content, "latin-1")
    with pytest.raises(CheckpointError, match="is damaged"):
        claim(tmp_path, "train", resume=True)
    assert [p.name for p in tmp_path.iterdir()] == [ABOUT]


def test_where_data_lie_now(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    with claim("run", "train") as folder:
        folder.begin(Settings(data="data"))
        finish_a_round(folder.path)
        assert json.loads((tmp_path / "run" / ABOUT).read_text())["data"] == str(tmp_path / "data")
        assert data_of(folder, "data") == "data"
        monkeypatch.chdir(tmp_path / "elsewhere")
        assert data_of(folder, "data") == str(tmp_path / "data")
        (tmp_path / "data").rename("data")
        assert data_of(folder, "data") == "data"
        monkeypatch.chdir(tmp_path)
        with pytest.raises(SkinflError, match="give their new place with --data"):
            data_of(folder, "data")
        # who edits the configuration is believed
        assert data_of(folder, str(tmp_path / "elsewhere" / "data")) == str(tmp_path / "elsewhere" / "data")
        folder.begin(Settings())
        assert data_of(folder, "synthetic") == "synthetic"


def test_a_runs_folder_means_its_model(tmp_path):
    assert model_in(tmp_path / "any.npz") == tmp_path / "any.npz"
    (tmp_path / "model.npz").write_bytes(b"")
    assert model_in(tmp_path) == tmp_path / "model.npz"


def test_paths_and_command_lines(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("USERPROFILE", "/home/me")
    assert [path("~/x"), path("x~"), path("./~")] == [Path("/home/me/x"), Path("x~"), Path("~")]
    for bad in ("", "  ", "x" * 300, "~nobody-here", "a\0b"):
        with pytest.raises(SkinflError):
            path(bad)
    if os.name == "posix":
        assert command_line(["skinfl", "serve", "--model", Path("a run")]) == "skinfl serve --model 'a run'"

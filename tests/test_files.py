from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from skinfl import files
from skinfl.errors import SkinflError, WriteError


def test_text_is_utf8_and_parents_are_made(tmp_path):
    path = files.write_text(tmp_path / "a" / "b.txt", "0.125x²\n")
    assert path.read_bytes() == "0.125x²\n".encode()
    assert os.listdir(str(path.parent)) == ["b.txt"]


def test_json_keeps_order_and_floats(tmp_path):
    data = {"z": 0.1 + 0.2, "a": None, "n": {"b": [1]}}
    path = files.write_json(tmp_path / "r.json", data)
    assert json.loads(path.read_text()) == data
    assert list(json.loads(path.read_text())) == ["z", "a", "n"]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_json_refuses_what_is_not_a_number_and_keeps_the_old_file(tmp_path, value):
    path = files.write_json(tmp_path / "r.json", {"a": 1})
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(path, {"a": value})
    assert json.loads(path.read_text()) == {"a": 1}


def test_interrupted_writing_keeps_the_old_file_and_leaves_no_litter(tmp_path, monkeypatch):
    path = files.write_text(tmp_path / "r.txt", "old")

    def interrupted(descriptor):
        raise KeyboardInterrupt

    monkeypatch.setattr(files.os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        files.write_text(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(str(tmp_path)) == ["r.txt"]


def test_full_disk_is_one_clear_line(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(SkinflError, match=r"cannot write .*r\.txt: No space left on device; .*another place"):
        files.write_text(tmp_path / "r.txt", "new")


def test_folder_that_is_a_file(tmp_path):
    (tmp_path / "runs").write_text("not a folder")
    with pytest.raises(SkinflError, match="cannot write"):
        files.write_text(tmp_path / "runs" / "r.txt", "x")


def mode_of(path):
    return path.stat().st_mode & 0o777


posix = pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")


@posix
def test_a_private_file_is_its_owners_alone_while_it_is_written_and_after(tmp_path):
    old = os.umask(0)
    try:
        with files.whole_file(tmp_path / "keys", private=True) as file:
            file.write(b"secret")
            (temporary,) = tmp_path.iterdir()
            assert mode_of(temporary) == 0o600
        files.write_text(tmp_path / "report", "for all")
    finally:
        os.umask(old)
    assert mode_of(tmp_path / "keys") == 0o600
    assert mode_of(tmp_path / "report") == 0o666


@posix
def test_a_private_file_in_place_of_an_open_one_is_private(tmp_path):
    path = tmp_path / "keys"
    path.write_bytes(b"old")
    path.chmod(0o644)
    files.write_bytes(path, b"new", private=True)
    assert (path.read_bytes(), mode_of(path)) == (b"new", 0o600)


@pytest.mark.parametrize("links", [True, False])
def test_without_overwriting_what_is_there_stays(tmp_path, monkeypatch, links):
    if not links:

        def refused(*_):
            raise PermissionError(1, "Operation not permitted")

        monkeypatch.setattr(files.os, "link", refused)
    path = files.write_bytes(tmp_path / "k", b"first", private=True, overwrite=False)
    with pytest.raises(FileExistsError):
        files.write_bytes(path, b"second", private=True, overwrite=False)
    assert path.read_bytes() == b"first"
    assert os.listdir(str(tmp_path)) == ["k"]
    if os.name == "posix":
        assert mode_of(path) == 0o600


def test_a_parent_that_is_a_file_is_no_file_that_exists_already(tmp_path):
    (tmp_path / "runs").write_text("not a folder")
    with pytest.raises(WriteError, match="cannot write"):
        files.write_bytes(tmp_path / "runs" / "k", b"", overwrite=False)


def test_names_as_long_as_the_file_system_allows(tmp_path):
    name = "x" * 250
    assert files.write_text(tmp_path / name, "long").read_text() == "long"
    with files.whole_folder(tmp_path / ("y" * 250)) as folder:
        (folder / "a").write_text("a")
    assert sorted(os.listdir(str(tmp_path))) == [name, "y" * 250]


def test_two_writers_of_one_file_at_once_do_not_meet(tmp_path):
    path = tmp_path / "r.txt"
    with files.whole_file(path) as one, files.whole_file(path) as other:
        one.write(b"one")
        other.write(b"other")
    assert path.read_bytes() == b"one"  # its block ended last
    assert os.listdir(str(tmp_path)) == ["r.txt"]


def test_what_a_killed_process_leaves_is_in_nobodys_way(tmp_path):
    path = files.write_text(tmp_path / "r.txt", "old")
    script = (
        "import os, signal, sys\n"
        "from skinfl.files import whole_file\n"
        "with whole_file(sys.argv[1]) as file:\n"
        "    file.write(b'half')\n"
        "    file.flush()\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    root = str(Path(files.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": root}
    done = subprocess.run([sys.executable, "-c", script, str(path)], env=environment)
    assert done.returncode == -signal.SIGKILL
    assert path.read_text() == "old" and len(os.listdir(str(tmp_path))) == 2
    assert files.write_text(path, "new").read_text() == "new"


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    place = tmp_path / "set"
    with pytest.raises(RuntimeError), files.whole_folder(place) as folder:
        (folder / "a").write_text("a")
        raise RuntimeError
    assert os.listdir(str(tmp_path)) == []
    with files.whole_folder(place, private=True) as folder:
        (folder / "a").write_text("a")
    assert (place / "a").read_text() == "a" and os.listdir(str(tmp_path)) == ["set"]
    if os.name == "posix":
        assert mode_of(place) == 0o700
    with pytest.raises(WriteError, match="cannot write"), files.whole_folder(place) as folder:
        (folder / "b").write_text("b")
    assert os.listdir(str(place)) == ["a"]

from __future__ import annotations

import json
import os

import pytest

from skinfl.errors import SkinflError
from skinfl.report import files


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
    with pytest.raises(SkinflError, match=r"cannot write .*r\.txt: No space left on device; .*--out"):
        files.write_text(tmp_path / "r.txt", "new")


def test_folder_that_is_a_file(tmp_path):
    (tmp_path / "runs").write_text("not a folder")
    with pytest.raises(SkinflError, match="cannot write"):
        files.write_text(tmp_path / "runs" / "r.txt", "x")

"""Round records: the file keeps its keys, reading gives back what was written, and nothing else is read."""

from __future__ import annotations

import json

import pytest

from skinfl.errors import CheckpointError, DataError
from skinfl.federation.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from skinfl.federation.records import RoundRecord, Seconds, read_records, write_records
from skinfl.federation.rounds import RunState
from skinfl.federation.state import ServerState

RECORD = RoundRecord(
    round=2,
    trained=("a", "b"),
    left_out={"c": "late"},
    mean_loss=0.375,
    mean_clipped=0.0625,
    train_loss={"a": 0.5, "b": 0.25},
    clipped={"a": 0.0, "b": 0.125},
    transforms={},
    metrics={"accuracy": 0.75, "auc": None},
    hospitals_together={"accuracy": 0.5},
    hospital_metrics={"a": {"accuracy": 1.0}},
    bytes_up={"a": 10, "b": 11},
    bytes_down={"a": 7, "b": 7, "c": 7},
    seconds=Seconds(train=1.0, protect=0.5, combine=0.25, open=0.125, evaluate=0.0),
    max_abs_difference_from_plaintext_sum=None,
    validation={"auc": 0.5},
    personal_together={"accuracy": 0.75},
    personal_metrics={"b": {"accuracy": 0.5}},
)
#: what users' scripts read
LINE = {
    "round": 2,
    "trained": ["a", "b"],
    "left_out": {"c": "late"},
    "mean_loss": 0.375,
    "mean_clipped": 0.0625,
    "train_loss": {"a": 0.5, "b": 0.25},
    "clipped": {"a": 0.0, "b": 0.125},
    "transforms": {},
    "metrics": {"accuracy": 0.75, "auc": None},
    "hospitals_together": {"accuracy": 0.5},
    "hospital_metrics": {"a": {"accuracy": 1.0}},
    "validation": {"auc": 0.5},
    "personal_together": {"accuracy": 0.75},
    "personal_metrics": {"b": {"accuracy": 0.5}},
    "bytes": {"up": {"a": 10, "b": 11}, "down": {"a": 7, "b": 7, "c": 7}},
    "seconds": {"train": 1.0, "protect": 0.5, "combine": 0.25, "open": 0.125, "evaluate": 0.0},
    "max_abs_difference_from_plaintext_sum": None,
}


def test_the_file_has_the_keys_that_scripts_read_in_their_order(tmp_path):
    write_records(tmp_path / "rounds.jsonl", [RECORD, RECORD])
    assert (tmp_path / "rounds.jsonl").read_text() == 2 * (json.dumps(LINE) + "\n")


def test_reading_gives_what_was_written(tmp_path):
    records = [RECORD, RECORD._replace(round=3, metrics=None, max_abs_difference_from_plaintext_sum=1e-7)]
    assert read_records(write_records(tmp_path / "rounds.jsonl", records)) == records


def test_a_run_of_before_there_were_validation_images_is_read(tmp_path):
    line = {key: value for key, value in LINE.items() if key != "validation"}
    (tmp_path / "rounds.jsonl").write_text(json.dumps(line) + "\n")
    assert read_records(tmp_path / "rounds.jsonl") == [RECORD._replace(validation=None)]


def test_questions_to_a_record():
    assert RECORD.seconds.total == 1.875
    assert RECORD.metric("accuracy") == 0.75
    assert RECORD._replace(metrics=None).metric("accuracy") is None


@pytest.mark.parametrize(
    "path, value, message",
    [
        *((key, ..., f"lacks {key!r}") for key in LINE if key != "validation"),
        ("validation", [], "'validation' of another kind"),
        ("seconds.open", ..., "its seconds lacks 'open'"),
        ("bytes.up", ..., "its bytes lacks 'up'"),
        ("extra", 1, "unknown field 'extra'"),
        ("seconds.extra", 1.0, "unknown field 'extra'"),
        ("bytes.sideways", {}, "unknown field 'sideways'"),
        ("round", "2", "'round' of another kind"),
        ("round", True, "'round' of another kind"),
        ("trained", "ab", "'trained' of another kind"),
        ("metrics", [], "'metrics' of another kind"),
        ("seconds.open", None, "'open' of another kind"),
        ("bytes", None, "'bytes' of another kind"),
    ],
)
def test_any_other_line_is_refused_with_its_number(tmp_path, path, value, message):
    line = json.loads(json.dumps(LINE))
    *outer, last = path.split(".")
    place = line[outer[0]] if outer else line
    place.pop(last, None)
    if value is not ...:
        place[last] = value
    file = tmp_path / "rounds.jsonl"
    file.write_text(json.dumps(LINE) + "\n" + json.dumps(line) + "\n")
    with pytest.raises(DataError, match=f"line 2: .*{message}") as caught:
        read_records(file)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"{", b"[]\n", b"\xff\xfe", b"3"])
def test_what_is_no_record_at_all_is_one_line(tmp_path, content):
    (tmp_path / "r").write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_records(tmp_path / "r")
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"cannot read .*rounds\.jsonl: No such file"):
        read_records(tmp_path / "rounds.jsonl")


def test_a_checkpoint_keeps_records_and_refuses_foreign_ones(tmp_path, monkeypatch):
    state = RunState("run", 2, ServerState((), {}), None, {}, (RECORD,))
    save_checkpoint(tmp_path / "c", Checkpoint(state, {}, {}))
    assert load_checkpoint(tmp_path / "c").state.records == (RECORD,)
    monkeypatch.setattr(RoundRecord, "to_json", lambda self: {**LINE, "extra": 1})
    save_checkpoint(tmp_path / "c", Checkpoint(state, {}, {}))
    with pytest.raises(CheckpointError, match="unknown field 'extra'"):
        load_checkpoint(tmp_path / "c")

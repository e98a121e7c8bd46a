"""What a hospital writes down before it answers: one answer to a request, one cohort to a task."""

import os
import threading
import time

import msgpack
import numpy as np
import pytest

from skinfl.errors import CheckpointError, ProtectionError, WriteError
from skinfl.flower.hospital import ledger as ledgers
from skinfl.flower.hospital.ledger import Ledger
from skinfl.flower.hospital.store import Answer, RunStore

RUN = "ab" * 16
ABC, ABCD, ABCDE = ["a", "b", "c"], ["a", "b", "c", "d"], ["a", "b", "c", "d", "e"]


@pytest.fixture
def store(tmp_path):
    found = RunStore(tmp_path / "state", RUN)
    found.begin()
    return found


def never():
    raise AssertionError("made a second answer")


def killed_at(number, work):
    """Run ``work`` in a process that ends, as by kill -9, at its ``number``-th write; say whether it did."""
    child = os.fork()
    if child == 0:
        calls = []

        def dying(function):
            def call(*arguments, **options):
                calls.append(function)
                if len(calls) == number:
                    os._exit(9)
                return function(*arguments, **options)

            return call

        for name in ("open", "fdopen", "fsync", "replace", "unlink", "close"):
            setattr(os, name, dying(getattr(os, name)))
        work()
        os._exit(0)
    return os.WEXITSTATUS(os.waitpid(child, 0)[1]) == 9


def private(state):
    return all(path.stat().st_mode & 0o077 == 0 for path in [state, *state.rglob("*")])


def test_the_same_request_gets_the_same_bytes_and_another_none(store, tmp_path):
    assert store.once("train", 3, "r3", lambda: b"first") == b"first"
    assert store.once("train", 3, "r3", never) == b"first"
    for round, request in ((3, "other"), (2, "r2"), (2, "r3")):
        with pytest.raises(ProtectionError, match="already answered 'train' for round 3: a second answer"):
            store.once("train", round, request, never)
    assert store.once("evaluate", 2, "r2", lambda: b"of another kind") == b"of another kind"
    assert store.once("train", 4, "r4", lambda: b"next") == b"next"
    with pytest.raises(ProtectionError, match="already answered"):
        store.once("train", 3, "r3", never)
    assert private(tmp_path / "state")


def test_what_fails_before_it_is_written_leaves_no_trace(store, monkeypatch):
    def fails():
        raise ProtectionError("no")

    with pytest.raises(ProtectionError, match="no"):
        store.once("train", 1, "r1", fails)
    assert store.answered("train") is None
    with monkeypatch.context() as broken:
        broken.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
        with pytest.raises(WriteError, match="full"):
            store.once("train", 1, "r1", lambda: b"lost")
    assert store.answered("train") is None
    assert store.once("train", 1, "other", lambda: b"kept") == b"kept"


def test_killed_at_any_write_an_answer_is_there_whole_or_not_at_all(store):
    store.once("train", 1, "r1", lambda: b"old")
    number, seen = 1, set()
    while killed_at(number, lambda: store.once("train", 2, "r2", lambda: b"new")):
        known = store.answered("train")
        assert known in (Answer("r1", 1, b"old"), Answer("r2", 2, b"new"))
        seen.add(known.round)
        store.keep_answer("train", Answer("r1", 1, b"old"))
        number += 1
    assert number > 5
    assert seen == {1, 2}
    assert store.once("train", 2, "r2", never) == b"new"


def test_two_that_are_asked_at_once_make_one_answer(store):
    made, found = [], []

    def make():
        made.append(len(made))
        time.sleep(0.1)
        return bytes(made)

    threads = [
        threading.Thread(target=lambda: found.append(store.once("train", 1, "r1", make))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(made), set(found)) == (1, {b"\0"})


def test_a_damaged_answer_is_said(store, tmp_path):
    store.write("answer-train", {"round": 1})
    with pytest.raises(CheckpointError, match="damaged"):
        store.once("train", 2, "r2", never)


@pytest.mark.parametrize(
    "damage", [lambda d: d[:-1], lambda d: d[:20], lambda d: d[:-1] + bytes([d[-1] ^ 1])]
)
def test_whatever_is_cut_short_or_altered_is_said(store, tmp_path, damage):
    store.write("keys", {"private": b"k" * 32})
    store.write_arrays("kept", {"vector": np.arange(3.0)})
    for path, read in (("keys.msgpack", store.read), ("kept.npz", store.read_arrays)):
        (found,) = tmp_path.rglob(path)
        found.write_bytes(damage(found.read_bytes()))
        with pytest.raises(CheckpointError, match=r"damaged .it is cut short or altered.: join a new run"):
            read(found.stem)


def test_a_task_is_done_again_with_the_same_hospitals_or_very_different_ones_only(tmp_path):
    book = Ledger(tmp_path / "state", 2, "hospital-3")
    book.admit("t1", ABC)
    book.admit("t1", ["c", "b", "a", "a"])
    # one more, one fewer, one for another, two for one
    for cohort in (ABCD, ["a", "b"], ["a", "b", "x"], ["a", "b", "x", "y"]):
        with pytest.raises(
            ProtectionError, match=r"hospital-3 has taken part in this task \(t1\) with a, b, c:"
        ):
            book.admit("t1", cohort)
    book.admit("t2", ABCD)
    book.admit("t1", ABCDE)
    with pytest.raises(ProtectionError, match="a second sum, with b, c, d, e, would show too few"):
        book.admit("t1", ABCDE[1:])
    with pytest.raises(ProtectionError, match="would show too few"):
        Ledger(tmp_path / "state", 3).admit("t1", [*ABCDE, "f", "g"])
    with pytest.raises(ProtectionError, match="would show too few"):  # whatever the minimum
        Ledger(tmp_path / "state", 1).admit("t1", ABCD)
    assert private(tmp_path / "state")


def test_what_is_bound_goes_with_exactly_these(tmp_path):
    book = Ledger(tmp_path / "state", 2)
    book.bind("t1", ABC)
    book.bind("t1", ["c", "b", "a"])
    for names in (ABCDE, ["x", "y", "z"], []):
        with pytest.raises(ProtectionError, match="with a, b, c: a second sum"):
            book.bind("t1", names)


def test_a_division_of_photographs_is_kept_to(tmp_path):
    book = Ledger(tmp_path / "state", 2, "hospital-3")
    book.keep_to("division by seed 0", "these")
    book.keep_to("division by seed 0", "these")
    book.keep_to("division by seed 1", "those")
    with pytest.raises(
        ProtectionError, match="hospital-3 has divided its photographs otherwise under this seed"
    ):
        Ledger(tmp_path / "state", 2, "hospital-3").keep_to("division by seed 0", "those")


def test_the_ledger_outlives_runs(tmp_path):
    state = tmp_path / "state"
    RunStore(state, RUN).begin()
    Ledger(state, 2).admit("t", ABC)
    RunStore(state, "cd" * 16).begin()
    assert not (state / RUN).exists()
    with pytest.raises(ProtectionError, match="taken part"):
        Ledger(state, 2).admit("t", ABCD)


def test_of_other_runs_a_hospital_knows_only_that_it_joined_them(tmp_path):
    state = tmp_path / "state"
    store = RunStore(state, RUN)
    store.begin()
    store.write("keys", {"private": b"k"})
    store.keep_answer("join", Answer("r", 0, b"long"))
    for other in ("cd" * 16, "ef" * 16):
        RunStore(state, other).begin()
        assert [path.name for path in (state / RUN).iterdir()] == ["answer-join.msgpack"]
        assert store.answered("join") == Answer("forgotten", 0, b"")


def test_killed_at_any_write_the_ledger_knows_what_it_admitted(tmp_path):
    state = tmp_path / "state"
    Ledger(state, 2).admit("t0", ABC)
    number = 1
    while killed_at(number, lambda number=number: Ledger(state, 2).admit(f"t{number}", ABC)):
        with pytest.raises(ProtectionError):
            Ledger(state, 2).admit("t0", ABCD)
        Ledger(state, 2).admit(f"t{number}", ABC)
        number += 1
    assert number > 5
    with pytest.raises(ProtectionError):
        Ledger(state, 2).admit(f"t{number}", ABCD)
    assert sorted(path.name for path in state.iterdir()) == ["ledger.lock", "ledger.msgpack"]


def test_an_error_of_the_disk_is_no_admission(tmp_path, monkeypatch):
    book = Ledger(tmp_path / "state", 2)
    for name in ("open", "fsync", "replace"):
        with monkeypatch.context() as broken:
            broken.setattr(os, name, lambda *_, **__: (_ for _ in ()).throw(OSError(28, "full")))
            with pytest.raises((WriteError, OSError), match="full"):
                book.admit("t", ABC)
    book.admit("t", ABCD)


def test_two_processes_admit_one_after_the_other(tmp_path):
    state = tmp_path / "state"
    children = []
    for i in range(4):
        child = os.fork()
        if child == 0:
            for j in range(10):
                Ledger(state, 2).admit(f"{i}-{j}", ABC)
            os._exit(0)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
    for i in range(4):
        for j in range(10):
            with pytest.raises(ProtectionError, match="taken part"):
                Ledger(state, 2).admit(f"{i}-{j}", ABCD)


@pytest.mark.parametrize("spoil", [lambda b: b[:-1], lambda b: b"", lambda b: b[:40] + b"\1" + b[41:]])
def test_a_damaged_ledger_is_refused_and_not_begun_anew(tmp_path, spoil):
    book = Ledger(tmp_path / "state", 2)
    book.admit("t", ABC)
    path = tmp_path / "state" / "ledger.msgpack"
    path.write_bytes(spoil(path.read_bytes()))
    before = path.read_bytes()
    with pytest.raises(CheckpointError, match="is damaged, or another release's: put back a copy"):
        book.admit("t", ABCD)
    assert path.read_bytes() == before


def test_a_full_ledger_is_refused_and_forgets_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(ledgers, "MOST_ENTRIES", 2)
    book = Ledger(tmp_path / "state", 2, "hospital-1")
    book.admit("t1", ABC)
    book.admit("t2", ABC)
    with pytest.raises(ProtectionError, match="is full: hospital-1 takes part in nothing new"):
        book.admit("t3", ABC)
    book.admit("t1", ABC)
    with pytest.raises(ProtectionError, match="taken part"):
        book.admit("t1", ABCD)
    packed = (tmp_path / "state" / "ledger.msgpack").read_bytes()[32:]
    assert set(msgpack.unpackb(packed)["entries"]) == {"t1", "t2"}

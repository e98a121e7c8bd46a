"""What a hospital keeps between two messages of a run, on its own disk.

Flower starts a process for each message, so whatever must last lies in files: the keys of the run, the
hospital's own training state, and its last answers. Those make a request that is sent twice (after a
restart at either end) be answered twice with the same bytes, so that no second contribution to the
same sum exists.

One run has one folder, mode 700, its files mode 600; joining another run deletes those of earlier ones.
What must outlive runs (:mod:`skinfl.flower.hospital.ledger`) and the locks lie beside these folders.
"""

from __future__ import annotations

import fcntl
import io
import os
import re
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, NamedTuple, Optional

import msgpack
import numpy as np

from skinfl.errors import CheckpointError, MessageError, ProtectionError
from skinfl.files import read_checked, write_checked

_RUN = re.compile(r"[0-9a-f]{8,64}")


@contextmanager
def locked(state: Path, name: str) -> Iterator[None]:
    """Hold the lock ``name`` of a hospital's state; waits for a process that holds it.

    The system lets go of it when its process dies. Not to be taken twice by one process.
    """
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(str(state / f"{name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


class Answer(NamedTuple):
    """An answer that was given: to which request (its digest), of which round."""

    request: str
    round: int
    answer: bytes


class RunStore:
    """One run's files at one hospital."""

    def __init__(self, state: Path, run: str):
        if not _RUN.fullmatch(run):
            raise MessageError("coordinator", f"{run!r} is no name of a run")
        self._state = state
        self._folder = state / run

    def begin(self) -> None:
        """Make the folder, and forget other runs but that they were joined; files beside them stay.

        Whoever could make a hospital forget that it joined a run could have it answer there anew.
        """
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.chmod(self._state, 0o700)
        for other in self._state.iterdir():
            if other != self._folder and _RUN.fullmatch(other.name):
                RunStore(self._state, other.name)._forget()

    def _forget(self) -> None:
        kept = "answer-join.msgpack"
        others = [path for path in self._folder.iterdir() if path.name != kept]
        if others and (self._folder / kept).exists():
            self.keep_answer("join", Answer("forgotten", 0, b""))
        for path in others:
            path.unlink()
        if not (self._folder / kept).exists():
            self._folder.rmdir()

    def write(self, name: str, content: Dict[str, Any]) -> None:
        """Keep a small record under ``name``."""
        packed = msgpack.packb(content, use_bin_type=True)
        write_checked(self._folder / f"{name}.msgpack", packed, private=True)

    def read(self, name: str) -> Optional[Dict[str, Any]]:
        """Return the record, None where there is none."""
        content = self._read(f"{name}.msgpack")
        return None if content is None else msgpack.unpackb(content, raw=False)

    def remove(self, name: str) -> None:
        """Forget a record."""
        (self._folder / f"{name}.msgpack").unlink(missing_ok=True)

    def write_arrays(self, name: str, arrays: Dict[str, np.ndarray]) -> None:
        """Keep arrays under ``name``."""
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)  # type: ignore[arg-type]  # newer numpy types an option there
        write_checked(self._folder / f"{name}.npz", buffer.getvalue(), private=True)

    def read_arrays(self, name: str) -> Optional[Dict[str, np.ndarray]]:
        """Return the arrays, None where there are none."""
        content = self._read(f"{name}.npz")
        if content is None:
            return None
        with np.load(io.BytesIO(content), allow_pickle=False) as found:
            return {key: found[key] for key in found.files}

    def _read(self, name: str) -> Optional[bytes]:
        path = self._folder / name
        try:
            return read_checked(path)
        except FileNotFoundError:
            return None
        except (ValueError, OSError) as error:
            raise CheckpointError(f"{path} is damaged ({error}): join a new run") from None

    def answered(self, kind: str) -> Optional[Answer]:
        """Return the last answer to a request of that kind."""
        name = f"answer-{kind}"
        found = self.read(name)
        if found is not None and set(found) != set(Answer._fields):
            raise CheckpointError(f"{self._folder / name}.msgpack is damaged: join a new run")
        return None if found is None else Answer(**found)

    def keep_answer(self, kind: str, answer: Answer) -> None:
        """Keep an answer; the one before it is forgotten."""
        self.write(f"answer-{kind}", answer._asdict())

    def once(self, kind: str, round: int, request: str, make: Callable[[], bytes]) -> bytes:
        """Return the answer to a request: the one that was given before, else what ``make`` makes.

        ``request`` is the request's digest. A new answer is on the disk before it is returned, so that
        nothing leaves that a restart would make anew and differently; an exception of ``make`` leaves no
        trace. Two processes that are asked at once make one answer: the second waits for the first.

        Raises :class:`~skinfl.errors.ProtectionError` for a round before the last that was answered, and
        for another request of the same round.
        """
        with locked(self._state, kind):
            known = self.answered(kind)
            if known is not None and (known.round, known.request) == (round, request):
                return known.answer
            if known is not None and round <= known.round:
                raise ProtectionError(
                    f"this hospital has already answered {kind!r} for round {known.round}: a second answer "
                    f"to another request, for round {round}, could be told apart from the first; go on with "
                    "the next round, or start a new run"
                )
            answer = make()
            self.keep_answer(kind, Answer(request, round, answer))
            return answer

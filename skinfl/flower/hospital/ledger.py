"""What a hospital has taken part in, over all runs: which task with which hospitals.

Two sums of one task (the same model, or the same statistics, over the same images) whose hospitals differ by
one give that one's update away: whoever saw both subtracts. Within a round the sums are guarded one by one;
this ledger guards them over rounds, runs and restarts. What differs by ``minimum_others`` or more, of
those that left and of those that came, is let through. What differs by one on either side never is.

Trust model: the hospital's own disk. A ledger that is damaged is refused rather than begun anew, and one that
is full as well, since forgetting entries would let whoever sends enough requests start over. What several
sums over very different hospitals tell when they are combined is stated in docs/threat-model.md.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable, Dict, List, Sequence, Set

import msgpack

from skinfl.errors import CheckpointError, ProtectionError
from skinfl.files import read_checked, write_checked
from skinfl.flower.hospital.store import locked

LEDGER = "ledger.msgpack"
#: a hundred runs of a thousand rounds; and with thousands of hospitals that change in each round, bytes
MOST_ENTRIES = 100_000
MOST_BYTES = 1 << 27
_VERSION = 1


class Ledger:
    """The ledger in a hospital's ``state`` folder.

    ``minimum_others`` is the folder's, ``hospital`` its name for what is refused.
    """

    def __init__(self, state: Path, minimum_others: int, hospital: str = "this hospital"):
        self._state = state
        self._path = state / LEDGER
        self._minimum_others = minimum_others
        self._hospital = hospital

    def admit(self, task: str, cohort: Sequence[str]) -> None:
        """Note that this hospital takes part in ``task`` with ``cohort``; on the disk when this returns.

        ``task`` is a digest of what is computed and of the data that it is computed on. The same task with
        the same hospitals is admitted again. Raises :class:`~skinfl.errors.ProtectionError` where it was
        admitted with others of which, or to which, one was added, or fewer than ``minimum_others``, and
        where the ledger is full, :class:`~skinfl.errors.CheckpointError` where it is damaged.
        """

        def tolerable(earlier: Set[str], now: Set[str]) -> bool:
            sides = (len(earlier - now), len(now - earlier))
            return all(side == 0 or side >= max(2, self._minimum_others) for side in sides)

        self._note(task, cohort, tolerable)

    def bind(self, task: str, names: Sequence[str]) -> None:
        """Note that ``task`` goes with exactly these names; raises where it went with any others."""
        self._note(task, names, lambda earlier, now: False)

    def keep_to(self, division: str, parts: str) -> None:
        """Note that ``division`` gives these parts; raises where it gave others."""
        refusal = (
            f"{self._hospital} has divided its photographs otherwise under this seed: sums over divisions "
            "that are nearly alike would show what they differ in; ask for the same validation_fraction and "
            "test_fraction, or take another seed"
        )
        self._note(division, [parts], lambda earlier, now: False, refusal)

    def _note(
        self,
        task: str,
        cohort: Sequence[str],
        tolerable: Callable[[Set[str], Set[str]], bool],
        refusal: str = "",
    ) -> None:
        names = sorted(set(cohort))
        with locked(self._state, "ledger"):
            for leftover in self._state.glob(".skinfl-*.tmp"):  # of a process that was killed in the middle
                leftover.unlink()
            found = self._read()
            cohorts: List[List[str]] = found["cohorts"]
            entries: Dict[str, List[int]] = found["entries"]
            for place in entries.get(task, []):
                if cohorts[place] == names:
                    return
                if not tolerable(set(cohorts[place]), set(names)):
                    raise ProtectionError(
                        refusal
                        or f"{self._hospital} has taken part in this task ({task[:12]}) with "
                        f"{_listed(cohorts[place]) or 'nobody'}: a second sum, with "
                        f"{_listed(names) or 'nobody'}, would show too few of them: ask for the same "
                        "hospitals and parties; if it is about a model, another seed makes another one"
                    )
            if names not in cohorts:
                cohorts.append(names)
            entries.setdefault(task, []).append(cohorts.index(names))
            self._write(found)

    def _read(self) -> Dict[str, Any]:
        try:
            found = msgpack.unpackb(read_checked(self._path), raw=False)
        except FileNotFoundError:
            return {"version": _VERSION, "cohorts": [], "entries": {}}
        except OSError as error:
            raise CheckpointError(f"cannot read {self._path}: {error.strerror}") from None
        except ValueError:
            found = {}
        if found.get("version") != _VERSION:
            raise CheckpointError(
                f"{self._path} is damaged, or another release's: put back a copy of it; moved away, nothing "
                f"guards what {self._hospital} took part in before"
            )
        return found

    def _write(self, found: Dict[str, Any]) -> None:
        body = msgpack.packb(found, use_bin_type=True)
        if sum(map(len, found["entries"].values())) > MOST_ENTRIES or len(body) > MOST_BYTES:
            raise ProtectionError(
                f"{LEDGER} is full: {self._hospital} takes part in nothing new until it is moved away, "
                "which is safe once the images are others than those that runs were made with"
            )
        write_checked(self._path, body, private=True)


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:10])
    return shown if len(names) <= 10 else f"{shown} and {len(names) - 10} more"

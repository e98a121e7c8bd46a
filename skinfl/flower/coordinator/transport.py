"""The rounds' view of hospitals on machines of their own: a :class:`Transport` over a :class:`Messaging`.

What a round exchanges: the hospitals train and protect. Under secret sharing each party's hospital adds up
what was sealed to it, and two hospitals are asked whether the opened sum proves itself. Under homomorphic
encryption each hospital of the cohort consents to the sum, and one opens what the coordinator added up. The
next request to train brings the sum; how hospitals fare comes with their contributions, in the sum.

Trust model: what passes through here under secret sharing is sealed to parties, under encryption it is
ciphertexts under masks; the coordinator holds no key to either. Hospitals do not rely on anything here: what
they refuse is in :mod:`skinfl.flower.hospital`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, Iterator, Mapping, Optional, Set, Tuple, Union

from skinfl.errors import CheckpointError, SkinflError
from skinfl.federation.common import CommonState
from skinfl.federation.hospital import ClientUpdate, OwnFigures
from skinfl.federation.messages import News, encode_common, encode_told, hand_over, take_over, tell
from skinfl.federation.rules import Task
from skinfl.federation.transport import Combined, Messages, Transport
from skinfl.files import read_checked, write_checked
from skinfl.flower.coordinator.asking import Asker, CoordinatorRoles, Timeouts
from skinfl.flower.coordinator.messaging import Messaging, Request
from skinfl.flower.coordinator.summing import Summing
from skinfl.protection.base import Exchange, Opened

#: what hospitals are told of the sum of a round: a file in the run's folder
_NEWS = "news-{}.msgpack"


class RemoteTransport(Transport):
    """Hospitals behind a :class:`Messaging`; ``folder`` is the run's, where what must last is kept."""

    reports_in_sums = True

    def __init__(self, messaging: Messaging, roles: CoordinatorRoles, timeouts: Timeouts, folder: Path):
        self.hospitals = roles.members.hospitals
        self._asker = Asker(messaging, roles, timeouts)
        self._summing = Summing(self._asker, roles, folder)
        self._folder = folder
        #: hospitals that hold the state before the last sum, or the one after it
        self._holding: Set[str] = set()
        #: what those that contributed vouch for, by hospital and whom it is for
        self._vouchers: Dict[str, Dict[str, bytes]] = {}
        #: of the last sum, with the vouchers of all that are in it
        self._last = News()

    def resume(self, common: CommonState) -> None:
        """Take up what hospitals are to be told of the sum that led to ``common``, after a restart."""
        path = self._folder / _NEWS.format(common.round)
        try:
            self._last = take_over(read_checked(path))
        except FileNotFoundError:
            pass  # nothing was summed yet
        except (ValueError, OSError) as error:
            raise CheckpointError(
                f"{path} cannot be read ({error}): restore it, or start a new run in another out"
            ) from None

    def end(self, run: str) -> None:
        """Tell the hospitals that the run is over; whether they hear it does not matter."""
        requests = {name: self._asker.request("end", name, {"run": run}) for name in self.hospitals}
        for _ in self._asker.ask("end", 0, requests):
            pass

    def statistics(self, task: Task) -> Dict[str, Union[ClientUpdate, SkinflError]]:
        requests = {
            name: self._asker.request("statistics", name, {"run": task.common.run})
            for name in task.participants
        }
        found = dict(self._contributions(task, requests))
        return {name: found[name] for name in task.participants}

    def train(self, task: Task) -> Iterator[Tuple[str, Union[ClientUpdate, SkinflError]]]:
        fields = {
            "run": task.common.run,
            "round": task.round,
            "participants": list(task.participants),
            "evaluate": task.evaluate,
        }
        requests = {
            name: self._asker.request("train", name, fields, self._news(name)) for name in task.participants
        }
        yield from self._contributions(task, requests)

    def evaluate(self, common: CommonState) -> Dict[str, Dict[str, Any]]:
        """Return nothing: hospitals report with their contributions, see :meth:`report`."""
        return {}

    def report(self, task: Task) -> Dict[str, Union[ClientUpdate, SkinflError]]:
        fields = {"run": task.common.run, "round": task.round, "participants": list(task.participants)}
        requests = {
            name: self._asker.request("evaluate", name, fields, self._news(name))
            for name in task.participants
        }
        return dict(self._contributions(task, requests))

    def combine(self, messages: Messages, exchange: Exchange, least: int) -> Combined:
        return self._summing.combine(messages, exchange, least)

    def open(self, combined: Combined) -> Opened:
        return self._summing.open(combined)

    def tell(self, task: Task, opened: Opened) -> int:
        # The file comes before the checkpoint: what the checkpoint says was summed can be told.
        vouchers = {name: self._vouchers.get(name, {}) for name in opened.senders}
        told = encode_told(tell(task, opened))
        self._last = News(told, encode_common(task.common), vouchers)
        write_checked(self._folder / _NEWS.format(task.round), hand_over(self._last))
        for older in self._folder.glob(_NEWS.format("*")):
            if older.stem.split("-")[1] not in (str(task.round), str(task.common.round)):
                older.unlink()
        self._holding = set(self._vouchers)
        return len(told)

    def state(self) -> Dict[str, Any]:
        """Return nothing: what is a hospital's own stays on its disk."""
        return {}

    def load_state(self, state: Dict[str, Any]) -> None:
        pass

    def _news(self, name: str) -> bytes:
        """Return what a hospital needs of the last sum, and the state before unless it holds that."""
        if self._last.told is None:
            return b""
        if name in self._holding:
            return hand_over(News(self._last.told))
        vouchers = {n: by[name] for n, by in self._last.vouchers.items() if name in by}
        return hand_over(self._last._replace(vouchers=vouchers))

    def _contributions(
        self, task: Task, requests: Mapping[str, Request]
    ) -> Iterator[Tuple[str, Union[ClientUpdate, SkinflError]]]:
        self._summing.kind = task.kind
        self._vouchers = {}
        for name, answer in self._asker.ask_to_compute(task.kind, task.round, requests):
            if isinstance(answer, SkinflError):
                yield name, answer
                continue
            self._vouchers[name] = answer["vouchers"]
            yield name, ClientUpdate(answer["messages"], _figures(answer["figures"]))


def _figures(found: Optional[Dict[str, Any]]) -> Optional[OwnFigures]:
    """Return a hospital's own figures, where it let all of them out."""
    if found is None or found["clipped"] is None or found["seconds"] is None:
        return None
    loss = float("nan") if found["loss"] is None else found["loss"]
    return OwnFigures(loss, found["clipped"], found["seconds"], found["metrics"], found["personal"])

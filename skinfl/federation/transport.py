"""How the coordinator reaches hospitals and aggregating parties.

The rounds are written once against :class:`Transport`; :class:`LocalTransport` reaches virtual workers
in this process, and a deployment puts its own network behind the same calls.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Dict, Iterable, Iterator, Mapping, NamedTuple, Optional, Sequence, Tuple, Union

import numpy as np

from skinfl.errors import MessageError, SkinflError
from skinfl.federation.hospital import ClientUpdate, HospitalAgent, Task
from skinfl.protection.base import Exchange, Opened, Protected, Roles
from skinfl.protection.roles import majority_first
from skinfl.workers.base import Pointer

Messages = Mapping[str, Mapping[str, bytes]]


class Combined(NamedTuple):
    """The parties' sums, keyed by party, the hospitals in them, and who was refused and why."""

    messages: Dict[str, bytes]
    senders: Tuple[str, ...]
    refused: Dict[str, str]


class Transport(ABC):
    """The coordinator's view of everyone else. Errors of one hospital are returned, not raised."""

    #: all hospitals of the federation, in a fixed order
    hospitals: Tuple[str, ...]
    #: whether the hospitals open the sum themselves (then it is sent down to them)
    hospitals_open: bool

    @abstractmethod
    def statistics(self, run: str) -> Dict[str, Union[Protected, SkinflError]]:
        """Ask all hospitals for the protected sums of pixels and class counts.

        ``run`` is the run's name. Each hospital is in the answer, with its messages or with the error.
        """

    @abstractmethod
    def train(self, tasks: Mapping[str, Task]) -> Iterator[Tuple[str, Union[ClientUpdate, SkinflError]]]:
        """Have the hospitals that ``tasks`` names train, and give each answer as it comes, or its error."""

    @abstractmethod
    def evaluate(self, tasks: Mapping[str, Task]) -> Dict[str, Dict[str, Any]]:
        """Have hospitals evaluate their task's model on their own test images; return metrics by hospital.

        Hospitals without test images are left out.
        """

    @abstractmethod
    def combine(self, messages: Messages, exchange: Exchange, least: int) -> Combined:
        """Have each party add the messages of the hospitals that reached every party.

        ``messages``: by hospital, then by party. A hospital whose message one party refuses is in no sum and
        in ``refused`` with the reason. Where fewer than ``least`` did, nothing is combined and the result's
        ``messages`` are empty.
        """

    @abstractmethod
    def open(self, combined: Combined, exchange: Exchange) -> Opened:
        """Open the sum, at whoever may see it: float64, shape ``(exchange.layout.size,)``.

        Raises what :meth:`~skinfl.protection.base.OpenerSide.open` raises.
        """

    @abstractmethod
    def state(self) -> Dict[str, np.ndarray]:
        """Return the hospitals' own state for a checkpoint; empty where the coordinator may not hold it."""

    @abstractmethod
    def load_state(self, state: Dict[str, np.ndarray]) -> None:
        """Put back what :meth:`state` returned."""


class LocalTransport(Transport):
    """Hospitals behind pointers to virtual workers, parties in this process.

    ``train`` and ``test`` are pointers by hospital; ``agents`` are here for their checkpoints only.
    """

    def __init__(
        self,
        train: Mapping[str, Pointer],
        test: Mapping[str, Pointer],
        agents: Mapping[str, HospitalAgent],
        roles: Roles,
    ):
        self.hospitals = tuple(train)
        self.hospitals_open = roles.opener.place == "hospitals"
        self._train = train
        self._test = test
        self._agents = agents
        self._roles = roles
        self._releases: Dict[str, bytes] = {}

    def statistics(self, run: str) -> Dict[str, Union[Protected, SkinflError]]:
        answers = {name: pointer.ask("statistics", run) for name, pointer in self._train.items()}
        self._releases = {name: answer.release for name, answer in answers.items()}
        return answers

    def train(self, tasks: Mapping[str, Task]) -> Iterator[Tuple[str, Union[ClientUpdate, SkinflError]]]:
        for name, task in tasks.items():
            try:
                answer = self._train[name].ask("train", task)
                self._releases[name] = getattr(answer, "release", b"")
                yield name, answer
            except SkinflError as error:
                yield name, error

    def evaluate(self, tasks: Mapping[str, Task]) -> Dict[str, Dict[str, Any]]:
        return {
            name: self._test[name].ask("evaluate", task) for name, task in tasks.items() if name in self._test
        }

    def combine(self, messages: Messages, exchange: Exchange, least: int) -> Combined:
        exchange = exchange._replace(cohort=exchange.cohort or self.hospitals)
        return combine_at_parties(self._roles.aggregators, messages, exchange, least, self._releases)

    def open(self, combined: Combined, exchange: Exchange) -> Opened:
        return self._roles.opener.open(combined.messages, exchange)

    def state(self) -> Dict[str, np.ndarray]:
        return {
            f"{name}/{key}": array
            for name, agent in self._agents.items()
            for key, array in agent.state().items()
        }

    def load_state(self, state: Dict[str, np.ndarray]) -> None:
        for name, agent in self._agents.items():
            prefix = name + "/"
            agent.load_state({k[len(prefix) :]: a for k, a in state.items() if k.startswith(prefix)})


def receive_at_parties(
    parties: Mapping[str, Any], messages: Messages, exchange: Exchange
) -> Tuple[Tuple[str, ...], Dict[str, str]]:
    """Let each party check; return the hospitals that reached all of them, and who was refused and why.

    ``parties`` are :class:`~skinfl.protection.base.AggregatorSide` by name. A hospital refused by one party
    is left out by all. Hospitals are best asked for their releases, where a party needs them, after this:
    those given for a sum that is not made cost the round.
    """
    received: Dict[str, set] = {party: set() for party in parties}
    refused: Dict[str, str] = {}
    for party, side in parties.items():
        for hospital in majority_first({name: m.get(party, b"") for name, m in messages.items()}):
            try:
                if party not in messages[hospital]:
                    raise MessageError(hospital, f"no message for {party}")
                by_party = messages[hospital]
                sender = side.receive(by_party[party], exchange)
                if sender != hospital:
                    raise MessageError(hospital, f"it is signed {sender!r}")
                received[party].add(hospital)
            except MessageError as error:
                refused.setdefault(hospital, error.reason)
    return common_senders(received.values(), list(messages)), refused


def combine_at_parties(
    parties: Mapping[str, Any],
    messages: Messages,
    exchange: Exchange,
    least: int,
    releases: Optional[Mapping[str, bytes]] = None,
) -> Combined:
    """Let each party check, as :func:`receive_at_parties` does, and add.

    ``releases`` are the :attr:`~skinfl.protection.base.Protected.release` by hospital. Where a party needs
    them, and fewer hospitals are left than ``exchange.cohort`` names, nothing is combined and ``messages``
    are empty.
    """
    senders, refused = receive_at_parties(parties, messages, exchange)
    short = set(exchange.cohort) - set(senders) and any(side.releases for side in parties.values())
    if len(senders) < least or short:
        return Combined({}, senders, refused)
    combined = {party: side.combine(senders, exchange, releases) for party, side in parties.items()}
    return Combined(combined, senders, refused)


def common_senders(received: Iterable[set], order: Sequence[str]) -> Tuple[str, ...]:
    """Return the hospitals that every party received, in the given order."""
    sets = list(received)
    return tuple(name for name in order if all(name in s for s in sets))

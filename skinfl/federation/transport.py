"""How the coordinator reaches hospitals and aggregating parties.

The rounds are written once against :class:`Transport`; :class:`LocalTransport` reaches virtual workers
in this process, and a deployment puts its own network behind the same calls.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Callable, Dict, Iterator, Mapping, NamedTuple, Optional, Tuple, Union

import numpy as np
from torch import nn

from skinfl.errors import SkinflError, TrainingError
from skinfl.federation.common import CommonState
from skinfl.federation.hospital import ClientUpdate, HospitalAgent
from skinfl.federation.messages import encode_told, tell
from skinfl.federation.rules import Task
from skinfl.protection.base import AggregatorSide, Exchange, Opened, Roles
from skinfl.protection.receiving import receive_at_parties
from skinfl.workers.base import Pointer

Messages = Mapping[str, Mapping[str, bytes]]


class Combined(NamedTuple):
    """The parties' sums, keyed by party, the hospitals in them, and who was refused and why.

    ``exchange`` is the one that was added up: of the last attempt, where protection was repeated.
    """

    messages: Dict[str, bytes]
    senders: Tuple[str, ...]
    refused: Dict[str, str]
    exchange: Exchange


class Transport(ABC):
    """The coordinator's view of everyone else. Errors of one hospital are returned, not raised."""

    #: all hospitals of the federation, in a fixed order
    hospitals: Tuple[str, ...]
    #: whether hospitals tell how they fare in sums only, of the model before with each contribution; else
    #: :meth:`evaluate` says it of each
    reports_in_sums: bool = False

    @abstractmethod
    def statistics(self, task: Task) -> Dict[str, Union[ClientUpdate, SkinflError]]:
        """Ask the participants for the protected sums of pixels and class counts.

        Each is in the answer, with its messages or with the error.
        """

    @abstractmethod
    def train(self, task: Task) -> Iterator[Tuple[str, Union[ClientUpdate, SkinflError]]]:
        """Have the participants train, and give each answer as it comes, or its error."""

    @abstractmethod
    def evaluate(self, common: CommonState) -> Dict[str, Dict[str, Any]]:
        """Return what hospitals tell of the common model on their own test images, by hospital.

        Hospitals without test images, and those that keep it to themselves, are left out.
        """

    def evaluate_personal(self, common: CommonState) -> Dict[str, Dict[str, Any]]:
        """Have hospitals make their own models of the kept common one, and return how these do, by hospital.

        As :meth:`evaluate`, whose hospitals are left out here, too, and those that could not train one.
        """
        return {}

    def personal_models(self, common: CommonState) -> Iterator[Tuple[str, nn.Module]]:
        """Give each hospital's own model in turn, where whoever runs all of them may have it."""
        return iter(())

    @abstractmethod
    def report(self, task: Task) -> Dict[str, Union[ClientUpdate, SkinflError]]:
        """Ask the participants for protected metrics of the common model, for a sum of their own."""

    @abstractmethod
    def combine(self, messages: Messages, exchange: Exchange, least: int) -> Combined:
        """Have each party add the messages of the hospitals that reached every party.

        ``messages``: by hospital, then by party. A hospital whose message one party refuses is in no sum and
        in ``refused`` with the reason. Where fewer than ``least`` did, nothing is combined and the result's
        ``messages`` are empty.
        """

    @abstractmethod
    def open(self, combined: Combined) -> Opened:
        """Open the sum, at whoever may see it, and have a hospital verify it.

        Raises what :meth:`~skinfl.protection.base.OpenerSide.open` and
        :meth:`~skinfl.protection.base.HospitalSide.verify` raise.
        """

    def tell(self, task: Task, opened: Opened) -> int:
        """Keep a sum that was applied: hospitals are told it, and how to prove it, with the next task.

        Returns how many bytes each is told.
        """
        return len(encode_told(tell(task, opened)))

    @abstractmethod
    def state(self) -> Dict[str, np.ndarray]:
        """Return the hospitals' own state for a checkpoint; empty where the coordinator may not hold it."""

    @abstractmethod
    def load_state(self, state: Dict[str, np.ndarray]) -> None:
        """Put back what :meth:`state` returned."""


class LocalTransport(Transport):
    """Hospitals behind pointers to virtual workers, parties in this process.

    ``train`` and ``test`` are pointers by hospital; ``agents`` are here to protect what was trained, beside
    the next one's training and again where the cohort shrinks, and for their checkpoints.
    """

    def __init__(
        self,
        train: Mapping[str, Pointer],
        test: Mapping[str, Pointer],
        agents: Mapping[str, HospitalAgent],
        roles: Roles,
    ):
        self.hospitals = tuple(train)
        self._train = train
        self._test = test
        self._agents = agents
        self._roles = roles

    def statistics(self, task: Task) -> Dict[str, Union[ClientUpdate, SkinflError]]:
        return {name: self._train[name].ask("statistics", task) for name in task.participants}

    def train(self, task: Task) -> Iterator[Tuple[str, Union[ClientUpdate, SkinflError]]]:
        """Have the participants train in turn, each while the one before it protects what it has trained.

        At most one is protected at a time, and no hospital's two halves run at once: the same comes of it as
        one after the other. Protection waits for no device, and numpy and SEAL leave other threads alone.
        """
        with ThreadPoolExecutor(1, "protection") as thread:
            before: Optional[Tuple[str, Future[ClientUpdate]]] = None
            for name in task.participants:
                failed: Optional[SkinflError] = None
                try:
                    self._train[name].ask("train", task)
                except SkinflError as error:
                    failed = error
                if before is not None:
                    yield before[0], _outcome(before[1])
                    before = None
                if failed is not None:
                    yield name, failed
                else:
                    before = name, thread.submit(self._agents[name].protect_trained)
            if before is not None:
                yield before[0], _outcome(before[1])

    def evaluate(self, common: CommonState) -> Dict[str, Dict[str, Any]]:
        return {name: pointer.ask("evaluate", common) for name, pointer in self._test.items()}

    def evaluate_personal(self, common: CommonState) -> Dict[str, Dict[str, Any]]:
        found = {}
        for name, pointer in self._train.items():
            try:
                pointer.ask("personalise", common)
            except TrainingError:
                continue
            if name in self._test:
                found[name] = self._test[name].ask("evaluate_personal", common)
        return found

    def personal_models(self, common: CommonState) -> Iterator[Tuple[str, nn.Module]]:
        for name, agent in self._agents.items():
            if agent.has_own:
                yield name, agent.load_personal(common)

    def report(self, task: Task) -> Dict[str, Union[ClientUpdate, SkinflError]]:
        found: Dict[str, Union[ClientUpdate, SkinflError]] = {}
        for name in task.participants:
            try:
                found[name] = self._train[name].ask("report", task)
            except SkinflError as error:
                found[name] = error
        return found

    def combine(self, messages: Messages, exchange: Exchange, least: int) -> Combined:
        return combine_at_parties(
            self._roles.aggregators, messages, exchange, least, self._protect_again, self._release
        )

    def open(self, combined: Combined) -> Opened:
        opened = self._roles.opener.open(combined.messages, combined.exchange)
        if self._roles.opener.place == "hospitals" or opened.words is None:
            return opened
        # the opener holds no key to prove it by; any hospital does
        return self._roles.hospitals[opened.senders[0]].verify(
            opened.words, opened.senders, combined.exchange
        )

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

    def _protect_again(self, exchange: Exchange) -> Messages:
        return {name: self._agents[name].protect_again(exchange).messages for name in exchange.cohort}

    def _release(self, exchange: Exchange) -> Dict[str, bytes]:
        return {name: self._agents[name].release for name in exchange.cohort}


def _outcome(protected: Future[ClientUpdate]) -> Union[ClientUpdate, SkinflError]:
    """Wait for a hospital's update; an error is that hospital's."""
    try:
        return protected.result()
    except SkinflError as error:
        return error


def combine_at_parties(
    parties: Mapping[str, AggregatorSide],
    messages: Messages,
    exchange: Exchange,
    least: int,
    protect_again: Callable[[Exchange], Messages],
    release: Callable[[Exchange], Mapping[str, bytes]],
) -> Combined:
    """Let each party check and add; a hospital refused by one party is left out by all.

    Where parties need releases (:attr:`~skinfl.protection.base.AggregatorSide.releases`) the senders must be
    the whole cohort: those that are left are asked to ``protect_again`` as a smaller one, under the next
    attempt, until all of a cohort's messages are there; then for their ``release``. Both return what came,
    by hospital. A release that is missing loses the sum: the others have let theirs out, and give no other.
    """
    refused: Dict[str, str] = {}
    while True:
        # parties have no secret to key the digests with: they hold the messages against each other
        blind = exchange._replace(task="", base="")
        senders, reasons = receive_at_parties(parties, messages, blind)
        refused = {**reasons, **refused}
        if len(senders) < least:
            return Combined({}, senders, refused, exchange)
        if not any(side.releases for side in parties.values()):
            combined = {party: side.combine(senders, blind) for party, side in parties.items()}
            return Combined(combined, senders, refused, exchange)
        if set(senders) == set(exchange.cohort):
            break
        exchange = exchange._replace(cohort=tuple(sorted(senders)), attempt=exchange.attempt + 1)
        messages = protect_again(exchange)
        for name in senders:
            if name not in messages:
                refused.setdefault(
                    name, "it did not protect its contribution again, as others had dropped out"
                )
    releases = release(exchange)
    missing = [name for name in exchange.cohort if name not in releases]
    if missing:
        why = f"{missing[0]} was lost between protecting and releasing: this sum cannot be opened"
        return Combined({}, (), {**refused, **dict.fromkeys(exchange.cohort, why)}, exchange)
    combined = {party: side.combine(senders, blind, releases) for party, side in parties.items()}
    return Combined(combined, senders, refused, exchange)

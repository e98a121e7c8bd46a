"""Asking hospitals: requests with what each still needs of the others' keys, and answers that are checked."""

from __future__ import annotations

from typing import Any, Dict, Iterator, Mapping, NamedTuple, Optional, Set, Tuple, Union

from skinfl.errors import SkinflError
from skinfl.flower import protocol
from skinfl.flower.coordinator.messaging import Messaging, NoAnswer, Request
from skinfl.flower.keys import Members
from skinfl.protection.base import AggregatorSide, OpenerSide


class CoordinatorRoles(NamedTuple):
    """What joining gave the coordinator.

    ``sealed``: for each hospital, what the others sealed to it. ``aggregators`` and ``opener`` are the
    roles that the coordinator plays itself.
    """

    members: Members
    sealed: Dict[str, Dict[str, Any]]
    aggregators: Dict[str, AggregatorSide]
    opener: Optional[OpenerSide]


class Timeouts(NamedTuple):
    """Seconds to wait for an answer that needs training, and for one that does not."""

    training: float
    other: float


#: a hospital's checked answer, or why there is none
Answer = Union[Dict[str, Any], SkinflError]


class Asker:
    """Asks hospitals over a messaging. An answer that is malformed is an error of its hospital, no more."""

    def __init__(self, messaging: Messaging, roles: CoordinatorRoles, timeouts: Timeouts):
        self._messaging = messaging
        self._sealed = roles.sealed
        self._timeouts = timeouts
        #: hospitals that have taken in the others' keys
        self._informed: Set[str] = set()

    def request(self, kind: str, name: str, fields: Dict[str, Any], body: bytes = b"") -> Request:
        """Return a request to one hospital; ``body`` is what comes beside it."""
        sealed = {} if name in self._informed else self._sealed[name]
        return Request(protocol.encode_request(kind, {**fields, "sealed": sealed}), body)

    def ask(
        self, kind: str, round: int, requests: Mapping[str, Request], *, insist: bool = False
    ) -> Iterator[Tuple[str, Answer]]:
        """Send requests that need no training, and give each hospital's answer as it comes."""
        return self._ask(kind, round, requests, self._timeouts.other, insist)

    def ask_to_compute(
        self, kind: str, round: int, requests: Mapping[str, Request]
    ) -> Iterator[Tuple[str, Answer]]:
        """Send requests that take as long as training does."""
        return self._ask(kind, round, requests, self._timeouts.training, False)

    def _ask(
        self, kind: str, round: int, requests: Mapping[str, Request], timeout: float, insist: bool
    ) -> Iterator[Tuple[str, Answer]]:
        for name, reply in self._messaging.ask(kind, round, requests, timeout, insist=insist):
            if isinstance(reply, NoAnswer):
                yield name, reply
                continue
            try:
                answer = protocol.decode_answer(kind, name, reply)
                self._informed.add(name)
                yield name, answer
            except SkinflError as error:
                yield name, error

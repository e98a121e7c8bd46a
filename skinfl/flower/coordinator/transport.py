"""The rounds' view of hospitals on machines of their own: a :class:`Transport` over a :class:`Messaging`.

A round is two exchanges at most. First the hospitals train and protect. Then, under secret sharing, each
party's hospital adds up what was sealed to it; under homomorphic encryption one hospital opens the sum
that the coordinator added up. Metrics at the hospitals need no exchange of their own: the request to
train asks for those of the model that it brings.

Trust model: what passes through here under secret sharing is sealed to parties, under encryption it is
ciphertexts; the coordinator holds no key to either. It is trusted to ask every party for the same sum;
parties refuse a second one in a round.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, NamedTuple, Optional, Set, Tuple, Union

import numpy as np

from skinfl.errors import ProtectionError, SkinflError
from skinfl.federation.hospital import STATISTICS_ROUND, ClientUpdate, Task
from skinfl.federation.messages import encode_server
from skinfl.federation.transport import Combined, Messages, Transport, combine_at_parties
from skinfl.files import write_json
from skinfl.flower import protocol
from skinfl.flower.coordinator.messaging import Messaging, NoAnswer, Request
from skinfl.flower.keys import Members
from skinfl.protection.base import AggregatorSide, Exchange, Opened, OpenerSide, Protected


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


class RemoteTransport(Transport):
    """Hospitals behind a :class:`Messaging`.

    ``evaluate_every`` is the number of rounds between evaluations at the hospitals, ``rounds`` the last
    round. ``metrics`` collects, by round, what hospitals reported of the model after it. ``begun`` is a
    file that remembers of whom the last sum was asked.
    """

    def __init__(
        self,
        messaging: Messaging,
        roles: CoordinatorRoles,
        timeouts: Timeouts,
        *,
        rounds: int,
        evaluate_every: int,
        begun: Path,
    ):
        self.hospitals = roles.members.hospitals
        self.hospitals_open = roles.opener is None
        self.metrics: Dict[int, Dict[str, Dict[str, Any]]] = {}
        self._messaging = messaging
        self._roles = roles
        self._timeouts = timeouts
        self._rounds = rounds
        self._evaluate_every = evaluate_every
        self._begun = begun
        #: hospitals that have taken in the others' keys
        self._informed: Set[str] = set()
        #: hospitals whose shares a party refused, and why: their next ones would spoil another round
        self._distrusted: Dict[str, str] = {}

    def statistics(self, run: str) -> Dict[str, Union[Protected, SkinflError]]:
        requests = {name: self._request("statistics", name, {"run": run}) for name in self.hospitals}
        found: Dict[str, Union[Protected, SkinflError]] = {}
        for name, answer in self._ask("statistics", STATISTICS_ROUND, requests, self._timeouts.training):
            found[name] = (
                answer
                if isinstance(answer, SkinflError)
                else Protected(answer["messages"], answer["clipped"])
            )
        return {name: found[name] for name in self.hospitals}

    def train(self, tasks: Mapping[str, Task]) -> Iterator[Tuple[str, Union[ClientUpdate, SkinflError]]]:
        round = next(iter(tasks.values())).round
        evaluate = round > 1 and (round - 1) % self._evaluate_every == 0
        requests = {}
        for name, task in tasks.items():
            fields = {**_task_fields(task), "participants": list(tasks), "evaluate": evaluate}
            requests[name] = self._request("train", name, fields, encode_server(task.server))
        for name, answer in self._ask("train", round, requests, self._timeouts.training):
            if isinstance(answer, SkinflError):
                yield name, answer
                continue
            if answer["metrics"] is not None:
                self.metrics.setdefault(round - 1, {})[name] = answer["metrics"]
            yield name, ClientUpdate(answer["messages"], answer["loss"], answer["clipped"], answer["seconds"])

    def evaluate(self, tasks: Mapping[str, Task]) -> Dict[str, Dict[str, Any]]:
        """Ask after the last round only; the metrics of other rounds come with the next one's training."""
        round = next(iter(tasks.values())).round
        if round != self._rounds:
            return {}
        requests = {}
        for name, task in tasks.items():
            fields = {**_task_fields(task), "last": True}
            requests[name] = self._request("evaluate", name, fields, encode_server(task.server))
        found = {}
        for name, answer in self._ask("evaluate", round, requests, self._timeouts.training):
            if not isinstance(answer, SkinflError) and answer["metrics"] is not None:
                found[name] = answer["metrics"]
        return {name: found[name] for name in self.hospitals if name in found}

    def combine(self, messages: Messages, exchange: Exchange, least: int) -> Combined:
        refused = {name: reason for name, reason in self._distrusted.items() if name in messages}
        trusted = {
            name: messages[name] for name in self.hospitals if name in messages and name not in refused
        }
        if self._roles.aggregators:
            combined = combine_at_parties(self._roles.aggregators, trusted, exchange, least)
            return combined._replace(refused={**refused, **combined.refused})
        parties = self._roles.members.parties
        for name, by_party in list(trusted.items()):
            if set(by_party) != set(parties):
                refused[name] = "it did not send a share to every party"
                del trusted[name]
        if len(trusted) < least:
            return Combined({}, tuple(trusted), refused)
        for name in self._late(exchange, list(trusted)):
            refused[name] = "a sum without it was begun before the coordinator was restarted"
            del trusted[name]
        return self._combine_remotely(trusted, exchange, refused)

    def open(self, combined: Combined, exchange: Exchange) -> Opened:
        if self._roles.opener is not None:
            return self._open_here(self._roles.opener, combined, exchange)
        # One hospital after the other until one opens: each holds the key, and each can be away.
        reasons = []
        for name in (*combined.senders, *(n for n in self.hospitals if n not in combined.senders)):
            fields = {"run": exchange.run, "round": exchange.round, "combined": combined.messages}
            requests = {name: self._request("open", name, fields)}
            for _, answer in self._ask("open", exchange.round, requests, self._timeouts.other):
                if isinstance(answer, SkinflError):
                    reasons.append(f"{name}: {answer}")
                else:
                    total = np.frombuffer(answer["total"], "<f8").astype(np.float64)
                    if total.shape == (exchange.layout.size,):
                        packed = answer["ranges"]
                        ranges = None if packed is None else np.frombuffer(packed, "<f8").astype(np.float64)
                        return Opened(total, tuple(answer["senders"]), ranges)
                    reasons.append(f"{name}: a sum of {len(total)} values, {exchange.layout.size} expected")
        raise ProtectionError(
            f"round {exchange.round}: no hospital opened the sum ({'; '.join(reasons)}): "
            "resume once one that trained is connected again"
        )

    def state(self) -> Dict[str, np.ndarray]:
        """Return nothing: what is a hospital's own stays on its disk."""
        return {}

    def load_state(self, state: Dict[str, np.ndarray]) -> None:
        pass

    def _open_here(self, opener: OpenerSide, combined: Combined, exchange: Exchange) -> Opened:
        """Open, and where that fails say which hospitals' sums are missing: the opener knows parties only."""
        try:
            return opener.open(combined.messages, exchange)
        except ProtectionError as error:
            parties = self._roles.members.parties
            missing = [host for party, host in parties.items() if party not in combined.messages]
            if not missing:
                raise
            raise ProtectionError(
                f"round {exchange.round}: {', '.join(missing)} did not add up the shares in time: {error}; "
                "the last round is kept, resume when they are connected again"
            ) from None

    def _late(self, exchange: Exchange, senders: List[str]) -> List[str]:
        """Note of whom this round's sum is asked; return those of whom it was not, where it was before.

        Some parties may have added up a round in which the coordinator was then restarted. They make no
        second sum over others, but give the same answer to the same request.
        """
        found = json.loads(self._begun.read_text("utf-8")) if self._begun.exists() else {}
        if found.get("run") == exchange.run and found.get("round") == exchange.round:
            return [name for name in senders if name not in found["senders"]]
        write_json(self._begun, {"run": exchange.run, "round": exchange.round, "senders": senders})
        return []

    def _combine_remotely(self, trusted: Messages, exchange: Exchange, refused: Dict[str, str]) -> Combined:
        """Hand each party its shares; where a party refuses a hospital's, this round has no sum."""
        requests: Dict[str, Request] = {}
        for host in dict.fromkeys(self._roles.members.parties.values()):
            own = [party for party, at in self._roles.members.parties.items() if at == host]
            fields = {
                "run": exchange.run,
                "round": exchange.round,
                "messages": {party: {n: trusted[n][party] for n in trusted} for party in own},
                "senders": list(trusted),
            }
            requests[host] = self._request("combine", host, fields)
        sums: Dict[str, bytes] = {}
        spoilt: Dict[str, str] = {}
        answers = self._ask("combine", exchange.round, requests, self._timeouts.other, insist=True)
        for host, answer in answers:
            if isinstance(answer, NoAnswer):
                continue  # Shamir opens without it; where it is needed, open() names it
            if isinstance(answer, SkinflError):
                spoilt[host] = f"it adds nothing up: {answer}"
            elif answer["refused"]:
                spoilt.update({n: f"{host} refused its share: {why}" for n, why in answer["refused"].items()})
                self._distrusted.update({n: spoilt[n] for n in answer["refused"]})
            else:
                sums.update(answer["sums"])
        if spoilt:
            return Combined({}, (), {**refused, **spoilt})
        if not sums:
            raise ProtectionError(f"round {exchange.round}: no party answered, so there is no sum to open")
        return Combined(sums, tuple(trusted), refused)

    def _request(self, kind: str, name: str, fields: Dict[str, Any], server: bytes = b"") -> Request:
        sealed = {} if name in self._informed else self._roles.sealed[name]
        return Request(protocol.encode_request(kind, {**fields, "sealed": sealed}), server)

    def _ask(
        self,
        kind: str,
        round: int,
        requests: Mapping[str, Request],
        timeout: float,
        *,
        insist: bool = False,
    ) -> Iterator[Tuple[str, Union[Dict[str, Any], SkinflError]]]:
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


def _task_fields(task: Task) -> Dict[str, Any]:
    weights: Optional[List[float]] = None if task.class_weights is None else task.class_weights.tolist()
    return {
        "run": task.run,
        "round": task.round,
        "normalisation": [list(task.normalisation.mean), list(task.normalisation.std)],
        "class_weights": weights,
        "accepted_round": task.accepted_round,
        "ranges": None if task.ranges is None else task.ranges.astype("<f8").tobytes(),
    }

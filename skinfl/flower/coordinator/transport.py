"""The rounds' view of hospitals on machines of their own: a :class:`Transport` over a :class:`Messaging`.

What a round exchanges: the hospitals train and protect. Under secret sharing each party's hospital adds up
what was sealed to it, and a hospital is asked whether the opened sum proves itself. Under homomorphic
encryption each hospital of the cohort consents to the sum, and one opens what the coordinator added up. The
next request to train brings the sum; how hospitals fare comes with their contributions, in the sum.

Trust model: what passes through here under secret sharing is sealed to parties, under encryption it is
ciphertexts under masks; the coordinator holds no key to either. Hospitals do not rely on anything here: what
they refuse is in :mod:`skinfl.flower.hospital`. The coordinator in turn believes no hospital: an answer that
is malformed is none, and a party's complaint counts for as much as the party is willing to lose by it.
"""

from __future__ import annotations

import json
from itertools import combinations, islice
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, NamedTuple, Optional, Set, Tuple, Union

from skinfl.errors import MessageError, ProtectionError, SkinflError, UnprovedSum
from skinfl.federation.common import CommonState
from skinfl.federation.hospital import ClientUpdate, OwnFigures
from skinfl.federation.messages import encode_common, encode_told, hand_over, take_over, tell
from skinfl.federation.rules import STATISTICS, Task
from skinfl.federation.transport import Combined, Messages, Transport, combine_at_parties
from skinfl.files import write_bytes, write_json
from skinfl.flower import protocol
from skinfl.flower.coordinator.benches import Benches
from skinfl.flower.coordinator.messaging import Messaging, NoAnswer, Request
from skinfl.flower.keys import Members
from skinfl.protection import wire
from skinfl.protection.base import AggregatorSide, Exchange, Opened, OpenerSide, Protected
from skinfl.protection.roles import Basis
from skinfl.protection.words import decode_words, encode_words

#: of whom the last sum was asked, and how often: files in the run's folder
BEGUN = "begun.json"
_NEWS = "news-{}.msgpack"
#: hospitals that must find a sum proved: one of them may lie
_WITNESSES = 2
#: sets of parties that are tried where the sums of some are wrong
_MOST_CHOICES = 50


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
    """Hospitals behind a :class:`Messaging`; ``folder`` is the run's, where what must last is kept."""

    reports_in_sums = True

    def __init__(self, messaging: Messaging, roles: CoordinatorRoles, timeouts: Timeouts, folder: Path):
        self.hospitals = roles.members.hospitals
        self._messaging = messaging
        self._roles = roles
        self._timeouts = timeouts
        self._folder = folder
        self._kind = STATISTICS
        #: hospitals that have taken in the others' keys
        self._informed: Set[str] = set()
        #: hospitals that hold the state before the last sum, or the one after it
        self._holding: Set[str] = set()
        self._answered: Set[str] = set()
        self._told: Optional[bytes] = None
        self._base: Optional[bytes] = None
        self._benches = Benches()

    def resume(self, common: CommonState) -> None:
        """Take up what hospitals are to be told of the sum that led to ``common``, after a restart."""
        path = self._folder / _NEWS.format(common.round)
        if path.exists():
            parts = take_over(path.read_bytes())
            self._told, self._base = parts["told"], parts["base"]

    def end(self, run: str) -> None:
        """Tell the hospitals that the run is over; whether they hear it does not matter."""
        requests = {name: self._request("end", name, {"run": run}) for name in self.hospitals}
        for _ in self._ask("end", 0, requests, self._timeouts.other):
            pass

    def statistics(self, task: Task) -> Dict[str, Union[Protected, SkinflError]]:
        requests = {
            name: self._request("statistics", name, {"run": task.common.run}) for name in task.participants
        }
        found: Dict[str, Union[Protected, SkinflError]] = {}
        for name, answer in self._contributions(task, requests):
            found[name] = answer if isinstance(answer, SkinflError) else Protected(answer.messages, 0.0)
        return {name: found[name] for name in task.participants}

    def train(self, task: Task) -> Iterator[Tuple[str, Union[ClientUpdate, SkinflError]]]:
        fields = {
            "run": task.common.run,
            "round": task.round,
            "participants": list(task.participants),
            "evaluate": task.evaluate,
        }
        requests = {
            name: self._request("train", name, fields, self._news(name)) for name in task.participants
        }
        yield from self._contributions(task, requests)

    def evaluate(self, common: CommonState) -> Dict[str, Dict[str, Any]]:
        """Return nothing: hospitals report with their contributions, see :meth:`report`."""
        return {}

    def report(self, task: Task) -> Dict[str, Union[ClientUpdate, SkinflError]]:
        fields = {"run": task.common.run, "round": task.round, "participants": list(task.participants)}
        requests = {
            name: self._request("evaluate", name, fields, self._news(name)) for name in task.participants
        }
        return dict(self._contributions(task, requests))

    def combine(self, messages: Messages, exchange: Exchange, least: int) -> Combined:
        if self._roles.aggregators:
            return self._combine_here(messages, exchange, least)
        parties = self._roles.members.parties
        refused = {
            name: why for name, why in self._benches.sitting(exchange.round).items() if name in messages
        }
        trusted = {
            name: messages[name] for name in self.hospitals if name in messages and name not in refused
        }
        for name, reason in _odd(trusted, set(parties), exchange).items():
            refused[name] = reason
            del trusted[name]
        if len(trusted) < least:
            return Combined({}, tuple(trusted), refused, exchange)
        for name in self._late(exchange, list(trusted)):
            refused[name] = "a sum without it was begun before the coordinator was restarted"
            del trusted[name]
        return self._combine_remotely(trusted, exchange, refused, least)

    def open(self, combined: Combined) -> Opened:
        if self._roles.opener is None:
            return self._open_at_hospitals(combined)
        if not self._roles.members.parties:
            return self._open_here(self._roles.opener, combined)  # without protection nothing proves a sum
        return self._open_proved(self._roles.opener, combined)

    def tell(self, task: Task, opened: Opened) -> None:
        # The file comes before the checkpoint: what the checkpoint says was summed can be told.
        self._told, self._base = encode_told(tell(task, opened)), encode_common(task.common)
        write_bytes(self._folder / _NEWS.format(task.round), hand_over(self._told, self._base))
        for older in self._folder.glob(_NEWS.format("*")):
            if older.stem.split("-")[1] not in (str(task.round), str(task.common.round)):
                older.unlink()
        self._holding = set(self._answered)

    def state(self) -> Dict[str, Any]:
        """Return nothing: what is a hospital's own stays on its disk."""
        return {}

    def load_state(self, state: Dict[str, Any]) -> None:
        pass

    def _news(self, name: str) -> bytes:
        """Return what a hospital needs of the last sum, and the state before unless it holds that."""
        if self._told is None:
            return b""
        return hand_over(self._told, None if name in self._holding else self._base)

    def _contributions(
        self, task: Task, requests: Mapping[str, Request]
    ) -> Iterator[Tuple[str, Union[ClientUpdate, SkinflError]]]:
        self._kind = task.kind
        self._answered = set()
        for name, answer in self._ask(task.kind, task.round, requests, self._timeouts.training):
            if isinstance(answer, SkinflError):
                yield name, answer
                continue
            self._answered.add(name)
            yield name, ClientUpdate(answer["messages"], b"", _figures(answer["figures"]))

    def _combine_here(self, messages: Messages, exchange: Exchange, least: int) -> Combined:
        found = self._begun(exchange)
        if found is not None and found["attempt"]:
            # hospitals consent to one attempt: after a restart the one that was begun goes on
            exchange = exchange._replace(cohort=tuple(found["senders"]), attempt=found["attempt"])
            messages = self._protect_again(exchange)
        return combine_at_parties(
            self._roles.aggregators, messages, exchange, least, self._protect_again, self._release
        )

    def _protect_again(self, exchange: Exchange) -> Messages:
        self._begin(exchange, list(exchange.cohort))
        answers = self._ask_cohort("protect", exchange)
        return {name: answer["messages"] for name, answer in answers.items()}

    def _release(self, exchange: Exchange) -> Dict[str, bytes]:
        answers = self._ask_cohort("release", exchange)
        return {name: answer["release"] for name, answer in answers.items() if answer["release"]}

    def _ask_cohort(self, kind: str, exchange: Exchange) -> Dict[str, Dict[str, Any]]:
        fields = {**self._sum(exchange), "attempt": exchange.attempt, "cohort": list(exchange.cohort)}
        requests = {name: self._request(kind, name, fields) for name in exchange.cohort}
        answers = self._ask(kind, exchange.round, requests, self._timeouts.other, insist=True)
        return {name: answer for name, answer in answers if not isinstance(answer, SkinflError)}

    def _open_at_hospitals(self, combined: Combined) -> Opened:
        """Ask one hospital after the other until one opens: each holds the key, and each can be away."""
        exchange, reasons = combined.exchange, []
        unproved = 0
        for name in combined.senders:
            if unproved >= _WITNESSES:  # to ask more would only cost them openings
                break
            fields = {**self._sum(exchange), "combined": combined.messages}
            requests = {name: self._request("open", name, fields)}
            for _, answer in self._ask("open", exchange.round, requests, self._timeouts.other):
                try:
                    if isinstance(answer, SkinflError):
                        raise answer
                    if tuple(answer["senders"]) != tuple(sorted(combined.senders)):
                        raise MessageError(name, "it opened the sum of other hospitals")
                    words = decode_words(answer["dtype"], answer["words"])
                    (aggregator,) = self._roles.aggregators.values()
                    opened = aggregator.read_sum(words, combined.senders, exchange, combined.messages)
                    return self._verified(opened, exchange, {name})
                except SkinflError as error:
                    reasons.append(f"{name}: {error}")
                    unproved += UnprovedSum.MARK in str(error)
        kind = UnprovedSum if unproved else ProtectionError
        raise kind(
            f"round {exchange.round}: no hospital opened the sum ({'; '.join(reasons)}): "
            "resume once one that trained is connected again"
        )

    def _open_here(self, opener: OpenerSide, combined: Combined) -> Opened:
        """Open, and where that fails say which hospitals' sums are missing: the opener knows parties only."""
        try:
            return opener.open(combined.messages, combined.exchange)
        except ProtectionError as error:
            parties = self._roles.members.parties
            missing = [host for party, host in parties.items() if party not in combined.messages]
            if not missing:
                raise
            raise ProtectionError(
                f"round {combined.exchange.round}: {', '.join(missing)} did not add up the shares in time: "
                f"{error}; the last round is kept, resume when they are connected again"
            ) from None

    def _open_proved(self, opener: OpenerSide, combined: Combined) -> Opened:
        """Open a sum that hospitals find proved: from fewer parties, where some sums are wrong."""
        exchange, sums, reasons = combined.exchange, {}, []
        for party, message in combined.messages.items():
            try:
                opener.check(party, message, exchange)
                sums[party] = message
            except MessageError as error:
                reasons.append(f"{self._roles.members.parties[party]}: {error.reason}")
        whole = combined._replace(messages=sums)
        choices = [whole]
        if len(sums) > opener.threshold:
            few = islice(combinations(sums, opener.threshold), _MOST_CHOICES)
            choices += [whole._replace(messages={party: sums[party] for party in some}) for some in few]
        for choice in choices:
            try:
                return self._verified(self._open_here(opener, choice), exchange, set())
            except SkinflError as error:
                if len(sums) < opener.threshold and not reasons:
                    raise
                reasons.append(str(error))
        raise UnprovedSum(f"round {exchange.round}: the sum {UnprovedSum.MARK}: {'; '.join(reasons[:4])}")

    def _verified(self, opened: Opened, exchange: Exchange, by: Set[str]) -> Opened:
        """Return a sum that two hospitals find proved, so that no single one can pass off another.

        The coordinator holds no key to do so itself. ``by``: who has said so already.
        """
        assert opened.words is not None, "there is something to prove"
        dtype, words = encode_words(opened.words)
        proved = set(by)
        reasons: List[str] = []
        for name in (name for name in opened.senders if name not in by):
            if len(reasons) >= _WITNESSES and proved == by:
                break  # it is no single one that says so
            fields = {**self._sum(exchange), "senders": list(opened.senders), "dtype": dtype}
            requests = {name: self._request("verify", name, fields, words)}
            for _, answer in self._ask("verify", exchange.round, requests, self._timeouts.other):
                if not isinstance(answer, SkinflError) and answer["proved"]:
                    proved.add(name)
                    if len(proved) >= _WITNESSES:
                        return opened
                    continue
                reasons.append(f"{name}: {answer if isinstance(answer, SkinflError) else 'not proved'}")
        raise UnprovedSum(
            f"round {exchange.round}: the sum {UnprovedSum.MARK} to {_WITNESSES} hospitals "
            f"({'; '.join(reasons)})"
        )

    def _begun(self, exchange: Exchange) -> Optional[Dict[str, Any]]:
        """Return of whom this very sum was asked before a restart, None where it was not."""
        path = self._folder / BEGUN
        found: Dict[str, Any] = json.loads(path.read_text("utf-8")) if path.exists() else {}
        same = [found.get(name) for name in ("run", "kind", "round")]
        return found if same == [exchange.run, self._kind, exchange.round] else None

    def _begin(self, exchange: Exchange, senders: List[str]) -> None:
        content = {**self._sum(exchange), "attempt": exchange.attempt, "senders": senders}
        write_json(self._folder / BEGUN, content)

    def _late(self, exchange: Exchange, senders: List[str]) -> List[str]:
        """Note of whom this round's sum is asked; return those of whom it was not, where it was before.

        Some parties may have added up a round in which the coordinator was then restarted. They make no
        second sum over others, but give the same answer to the same request.
        """
        found = self._begun(exchange)
        if found is not None:
            return [name for name in senders if name not in found["senders"]]
        self._begin(exchange, senders)
        return []

    def _combine_remotely(
        self, trusted: Messages, exchange: Exchange, refused: Dict[str, str], least: int
    ) -> Combined:
        """Hand each party its shares.

        A party that refuses shares of a hospital says so and adds nothing up. Where enough other parties
        add up, nobody is left out. Where enough have added nothing up they are asked again without those whom
        most accuse. Else this sum is lost, and the next ones do without these, or, where it is one word
        against another, without both.
        """
        parties = self._roles.members.parties
        requests: Dict[str, Request] = {}
        for host in dict.fromkeys(parties.values()):
            own = [party for party, at in parties.items() if at == host]
            fields = {
                **self._sum(exchange),
                "messages": {party: {n: trusted[n][party] for n in trusted} for party in own},
                "senders": sorted(trusted),
            }
            requests[host] = self._request("combine", host, fields)
        sums: Dict[str, bytes] = {}
        complaints: Dict[str, Dict[str, str]] = {}  # accuser -> accused -> reason
        broken: Dict[str, str] = {}
        answers = self._ask("combine", exchange.round, requests, self._timeouts.other, insist=True)
        for host, answer in answers:
            if isinstance(answer, SkinflError):
                if not isinstance(answer, NoAnswer):
                    broken[host] = f"it adds nothing up: {answer}"
                continue  # Shamir opens without it; where it is needed, open() names it
            accused = {name: why for name, why in answer["refused"].items() if name in trusted}
            if accused:
                complaints[host] = accused
            else:
                sums.update({p: found for p, found in answer["sums"].items() if parties.get(p) == host})
        opener = self._roles.opener
        if opener is None or len(sums) >= opener.threshold or not (complaints or broken):
            if not sums:
                raise ProtectionError(
                    f"round {exchange.round}: no party answered, so there is no sum to open"
                )
            return Combined(sums, tuple(trusted), refused, exchange)
        found = self._benches.judge(complaints, len(requests), exchange.round)
        outvoted = [n for n in found if 2 * sum(n in by for by in complaints.values()) > len(requests)]
        fewer = {name: messages for name, messages in trusted.items() if name not in outvoted}
        free = sum(host in complaints for host in parties.values())
        if outvoted and least <= len(fewer) and opener.threshold <= free:
            self._begin(exchange, list(fewer))
            reasons = {name: found[name] for name in outvoted}
            return self._combine_remotely(fewer, exchange, {**refused, **reasons}, least)
        return Combined({}, (), {**refused, **broken, **found}, exchange)

    def _sum(self, exchange: Exchange) -> Dict[str, Any]:
        return {"run": exchange.run, "round": exchange.round, "kind": self._kind}

    def _request(self, kind: str, name: str, fields: Dict[str, Any], body: bytes = b"") -> Request:
        sealed = {} if name in self._informed else self._roles.sealed[name]
        return Request(protocol.encode_request(kind, {**fields, "sealed": sealed}), body)

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


def _figures(found: Optional[Dict[str, Any]]) -> Optional[OwnFigures]:
    """Return a hospital's own figures, where it let all of them out."""
    if found is None or found["clipped"] is None or found["seconds"] is None:
        return None
    loss = float("nan") if found["loss"] is None else found["loss"]
    return OwnFigures(loss, found["clipped"], found["seconds"], found["metrics"])


def _odd(messages: Messages, parties: Set[str], exchange: Exchange) -> Dict[str, str]:
    """Return the hospitals whose messages' headers are not as those of most, and why.

    What can be seen without a key is found here, before a party has to complain of it.
    """
    found: Dict[str, str] = {}
    bases: Dict[str, Basis] = {}
    for name, by_party in messages.items():
        try:
            if set(by_party) != parties:
                raise MessageError(name, "it did not send a share to every party")
            headers = [wire.parse(by_party[party]).header for party in sorted(parties)]
            expected = (exchange.run, exchange.round, exchange.layout.digest, name, 0)
            for party, header in zip(sorted(parties), headers):
                said = (header.run, header.round, header.layout, header.sender, header.attempt)
                if said != expected or header.recipient != party or Basis.of(header) != Basis.of(headers[0]):
                    raise MessageError(name, f"its share for {party} is labelled otherwise")
            bases[name] = Basis.of(headers[0])
        except MessageError as error:
            found[name] = error.reason
    most = max(bases.values(), key=list(bases.values()).count) if bases else None
    for name, basis in bases.items():
        if basis != most:
            found[name] = "it contributed to another task than most: its model or settings differ"
    return found

"""One sum at the coordinator: who is in it, who adds it up, who opens it, and whether it is proved.

Trust model: the coordinator holds no key to what it passes on, and hospitals do not rely on anything here. It
in turn believes no hospital: an answer that is malformed is none, a sum must be proved to two of them, and a
party's complaint counts for as much as the party is willing to lose by it.
"""

from __future__ import annotations

import json
from itertools import combinations, islice
from pathlib import Path
from typing import Any, Dict, List, Optional, Set

from skinfl.errors import CheckpointError, MessageError, ProtectionError, SkinflError, UnprovedSum
from skinfl.federation.rules import STATISTICS
from skinfl.federation.transport import Combined, Messages, combine_at_parties
from skinfl.files import read_checked, write_checked
from skinfl.flower.coordinator.asking import Asker, CoordinatorRoles
from skinfl.flower.coordinator.benches import Benches
from skinfl.flower.coordinator.messaging import NoAnswer, Request
from skinfl.protection import wire
from skinfl.protection.base import Exchange, Opened, OpenerSide
from skinfl.protection.roles import Basis
from skinfl.protection.words import decode_words, encode_words

#: of whom the last sum was asked, and how often: a file in the run's folder
BEGUN = "begun"
#: hospitals that must find a sum proved: one of them may lie
_WITNESSES = 2
#: sets of parties that are tried where the sums of some are wrong
_MOST_CHOICES = 50


class Summing:
    """Has contributions added up and opened; ``folder`` is the run's.

    ``kind`` is that of the sum at hand, see :data:`skinfl.federation.rules.KINDS`.
    """

    def __init__(self, asker: Asker, roles: CoordinatorRoles, folder: Path):
        self.kind = STATISTICS
        self._asker = asker
        self._roles = roles
        self._folder = folder
        self._benches = Benches()

    def combine(self, messages: Messages, exchange: Exchange, least: int) -> Combined:
        """Have contributions added up, see :meth:`skinfl.federation.transport.Transport.combine`."""
        if self._roles.aggregators:
            return self._combine_here(messages, exchange, least)
        parties = self._roles.members.parties
        refused = {
            name: why for name, why in self._benches.sitting(exchange.round).items() if name in messages
        }
        trusted = {
            name: messages[name]
            for name in self._roles.members.hospitals
            if name in messages and name not in refused
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
        """Have a sum opened and proved, see :meth:`skinfl.federation.transport.Transport.open`."""
        if self._roles.opener is None:
            return self._open_at_hospitals(combined)
        if not self._roles.members.parties:
            return self._open_here(self._roles.opener, combined)  # without protection nothing proves a sum
        return self._open_proved(self._roles.opener, combined)

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
        requests = {name: self._asker.request(kind, name, fields) for name in exchange.cohort}
        answers = self._asker.ask(kind, exchange.round, requests, insist=True)
        return {name: answer for name, answer in answers if not isinstance(answer, SkinflError)}

    def _open_at_hospitals(self, combined: Combined) -> Opened:
        """Ask one hospital after the other until one opens: each holds the key, and each can be away."""
        exchange, reasons = combined.exchange, []
        unproved = 0
        for name in combined.senders:
            if unproved >= _WITNESSES:  # to ask more would only cost them openings
                break
            fields = {**self._sum(exchange), "combined": combined.messages}
            requests = {name: self._asker.request("open", name, fields)}
            for _, answer in self._asker.ask("open", exchange.round, requests):
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
                    unproved += isinstance(error, UnprovedSum)
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
        exchange = combined.exchange
        try:
            return self._verified(self._open_here(opener, combined), exchange, set())
        except SkinflError as error:
            if len(combined.messages) < opener.threshold:
                raise
            reasons = [str(error)]
        sound: Dict[str, bytes] = {}
        for party, message in combined.messages.items():
            try:
                opener.check(party, message, exchange)
                sound[party] = message
            except MessageError as error:
                reasons.append(f"{self._roles.members.parties[party]}: {error.reason}")
        for some in islice(combinations(sound, opener.threshold), _MOST_CHOICES):
            if len(some) == len(combined.messages):
                break  # all of them, which was tried
            choice = combined._replace(messages={party: sound[party] for party in some})
            try:
                return self._verified(self._open_here(opener, choice), exchange, set())
            except SkinflError as error:
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
            requests = {name: self._asker.request("verify", name, fields, words)}
            for _, answer in self._asker.ask("verify", exchange.round, requests):
                if not isinstance(answer, SkinflError) and answer["proved"]:
                    proved.add(name)
                elif not isinstance(answer, NoAnswer):  # which says nothing of the sum
                    reasons.append(f"{name}: {answer if isinstance(answer, SkinflError) else 'not proved'}")
            if len(proved) >= _WITNESSES:
                return opened
        raise UnprovedSum(
            f"round {exchange.round}: the sum {UnprovedSum.MARK} to {_WITNESSES} hospitals "
            f"({'; '.join(reasons)})"
        )

    def _begun(self, exchange: Exchange) -> Optional[Dict[str, Any]]:
        """Return of whom this very sum was asked before a restart, None where it was not."""
        path = self._folder / BEGUN
        try:
            found: Dict[str, Any] = json.loads(read_checked(path))
        except FileNotFoundError:
            return None
        except (ValueError, OSError) as error:
            raise CheckpointError(
                f"{path} cannot be read ({error}): restore it, or start a new run in another out"
            ) from None
        same = [found.get(name) for name in ("run", "kind", "round")]
        return found if same == [exchange.run, self.kind, exchange.round] else None

    def _begin(self, exchange: Exchange, senders: List[str]) -> None:
        content = {**self._sum(exchange), "attempt": exchange.attempt, "senders": senders}
        write_checked(self._folder / BEGUN, json.dumps(content).encode())

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
            requests[host] = self._asker.request("combine", host, fields)
        sums: Dict[str, bytes] = {}
        complaints: Dict[str, Dict[str, str]] = {}  # accuser -> accused -> reason
        broken: Dict[str, str] = {}
        answers = self._asker.ask("combine", exchange.round, requests, insist=True)
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
        return {"run": exchange.run, "round": exchange.round, "kind": self.kind}


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

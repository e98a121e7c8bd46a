"""Parties take in hospitals' messages: the same in one process and on machines of their own."""

from __future__ import annotations

from typing import Dict, Iterable, List, Mapping, Optional, Sequence, Tuple

from skinfl.errors import MessageError
from skinfl.protection import wire
from skinfl.protection.base import AggregatorSide, Exchange
from skinfl.protection.roles import Basis


def receive_at_parties(
    parties: Mapping[str, AggregatorSide], messages: Mapping[str, Mapping[str, bytes]], exchange: Exchange
) -> Tuple[Tuple[str, ...], Dict[str, str]]:
    """Let each party check; return the hospitals that reached all of them, and who was refused and why.

    ``messages``: by hospital, then by party.
    """
    received: Dict[str, set] = {party: set() for party in parties}
    refused: Dict[str, str] = {}
    for party, side in parties.items():
        for hospital in majority_first({name: m.get(party, b"") for name, m in messages.items()}):
            try:
                if party not in messages[hospital]:
                    raise MessageError(hospital, f"no message for {party}")
                sender = side.receive(messages[hospital][party], exchange)
                if sender != hospital:
                    raise MessageError(hospital, f"it is signed {sender!r}")
                received[party].add(hospital)
            except MessageError as error:
                refused.setdefault(hospital, error.reason)
    return common_senders(received.values(), list(messages)), refused


def majority_first(messages: Mapping[str, bytes]) -> List[str]:
    """Return the senders of messages, by name, those that rest on what most rest on first.

    A single one that rests on something else is then refused, and not all that came after it. One whose
    header cannot be read comes last.
    """
    found: Dict[str, Optional[Basis]] = {}
    for name, message in messages.items():
        try:
            found[name] = Basis.of(wire.parse(message).header)
        except MessageError:
            found[name] = None
    bases = list(found.values())
    return sorted(found, key=lambda name: (found[name] is None, -bases.count(found[name]), found[name] or ()))


def common_senders(received: Iterable[set], order: Sequence[str]) -> Tuple[str, ...]:
    """Return the hospitals that every party received, in the given order."""
    sets = list(received)
    return tuple(name for name in order if all(name in s for s in sets))

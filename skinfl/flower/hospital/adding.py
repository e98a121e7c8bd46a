"""What a hospital does with the others' protected updates: it adds up shares, or opens a sum."""

from __future__ import annotations

from typing import Any, Dict

import msgpack

from skinfl.errors import MessageError, ProtectionError
from skinfl.flower import keys, protocol
from skinfl.flower.hospital.membership import Run, check_others
from skinfl.flower.hospital.store import Answer
from skinfl.flower.provisioning.folders import HospitalFolder
from skinfl.protection.base import Exchange


def combine(folder: HospitalFolder, run: Run, fields: Dict[str, Any]) -> bytes:
    """Add up the shares sealed to the parties that this hospital plays; answer with their sums.

    Where a share is refused nothing is added up, and the answer says whose it is. Raises
    :class:`~skinfl.errors.ProtectionError` for a second sum over others in a round, and for a sum of
    too few.
    """
    senders, round = tuple(fields["senders"]), fields["round"]
    check_others(folder, senders, f"the sum of round {round}")
    request = digest_of(fields)
    known = run.store.answered("combine")
    if known is not None and known.request == request:
        return known.answer
    if known is not None and round <= known.round:
        raise ProtectionError(
            f"{folder.name} has added up round {known.round} already: a second sum over other senders "
            "could be told apart from the first"
        )
    exchange = _exchange(run, round)
    sides = []
    refused: Dict[str, str] = {}
    for party, messages in fields["messages"].items():
        if run.members.parties.get(party) != folder.name:
            raise ProtectionError(f"{folder.name} does not play {party} in this run")
        side = run.keying().party(party, run.own, run.coordinator)
        sides.append((party, side))
        for hospital in senders:
            try:
                if hospital not in messages:
                    raise MessageError(hospital, f"no message for {party}")
                if side.receive(messages[hospital], exchange) != hospital:
                    raise MessageError(hospital, "it is signed by another hospital")
            except MessageError as error:
                refused[hospital] = error.reason
    if refused:  # nothing was added up: the coordinator may ask again without them
        return protocol.encode_answer({"sums": {}, "refused": refused})
    sums = {party: side.combine(senders, exchange) for party, side in sides}
    answer = protocol.encode_answer({"sums": sums, "refused": {}})
    run.store.keep_answer("combine", Answer(request, round, answer))
    return answer


def open_sum(folder: HospitalFolder, run: Run, fields: Dict[str, Any]) -> bytes:
    """Decrypt a sum that the coordinator added up; raises where it holds too few hospitals."""
    exchange = _exchange(run, fields["round"])
    opened = run.keying().opener(run.own, run.coordinator).open(fields["combined"], exchange)
    check_others(folder, opened.senders, f"the sum of round {fields['round']}")
    packed = None if opened.ranges is None else opened.ranges.astype("<f8").tobytes()
    total = opened.total.astype("<f8").tobytes()
    return protocol.encode_answer({"total": total, "senders": list(opened.senders), "ranges": packed})


def digest_of(fields: Dict[str, Any], server: bytes = b"") -> str:
    """Return what identifies a request; fields keep the order in which they were sent."""
    return keys.digest(msgpack.packb(fields, use_bin_type=True) + server)


def _exchange(run: Run, round: int) -> Exchange:
    return Exchange(run.name, round, run.layouts["round" if round else "statistics"])

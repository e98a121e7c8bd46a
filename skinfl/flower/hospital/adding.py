"""What a hospital does once it has contributed: it consents to one sum, adds up shares, opens and proves.

Nothing here needs torch, so that adding up shares does not wait for it to be loaded.

Trust model: whoever asks may ask for anything, in any order, and as often. For one run, kind of sum and
round a hospital lets out one contribution (for ever smaller cohorts, of which it consents to one), adds up
one set of shares, and opens one sum. Each is on disk before it is answered; asked again it gives the same,
or refuses.
"""

from __future__ import annotations

from typing import Any, Dict, Mapping, NamedTuple, Optional, Tuple

import msgpack

from skinfl.errors import MessageError, ProtectionError
from skinfl.flower import keys, protocol
from skinfl.flower.hospital.ledger import Ledger
from skinfl.flower.hospital.membership import Run, check_others
from skinfl.flower.hospital.store import Answer
from skinfl.flower.provisioning.folders import HospitalFolder
from skinfl.protection import attempts, wire
from skinfl.protection.attempts import Contribution
from skinfl.protection.base import Exchange
from skinfl.protection.receiving import receive_at_parties
from skinfl.protection.roles import keyed
from skinfl.protection.words import decode_words, encode_words

#: the kind of sums that tell of images alone, as in skinfl.federation.rules, which needs torch
STATISTICS = "statistics"
#: sums that do not prove themselves, before a hospital opens no more in a run: whether one does is a bit of
#: information on what was decrypted
FAILED_OPENINGS = 8


class Consent(NamedTuple):
    """What a hospital knows of the sum that it contributed to last, of one kind.

    ``subjects``: what the sum tells of, for the ledger. ``release`` belongs to the last attempt.
    """

    subjects: Tuple[str, ...]
    exchange: Exchange
    release: bytes


def keep(run: Run, kind: str, subjects: Tuple[str, ...], last: Contribution, release: bytes) -> None:
    """Keep a contribution before it is answered, and what consent to its sum consists of."""
    side = {f"side/{name}": array for name, array in last.side.items()}
    run.store.write_arrays(f"kept-{kind}", {"vector": last.vector, **side})
    _write(run, kind, Consent(subjects, last.exchange, release))


def contributed(run: Run, kind: str, round: int) -> Optional[Consent]:
    """Return what this hospital contributed to a sum, None where it did not."""
    found = run.store.read(f"consent-{kind}")
    if found is None or found["round"] != round:
        return None
    exchange = Exchange(
        run.name,
        round,
        run.layouts[kind],
        found["task"],
        found["base"],
        tuple(found["cohort"]),
        found["attempt"],
    )
    return Consent(tuple(found["subjects"]), exchange, found["release"])


def protect_again(folder: HospitalFolder, run: Run, fields: Dict[str, Any]) -> bytes:
    """Protect the last contribution for a smaller cohort; raises where a sum has this hospital's consent."""
    kind, round = fields["kind"], fields["round"]
    cohort, attempt = tuple(sorted(fields["cohort"])), fields["attempt"]
    known = _contributed(folder, run, kind, round)
    check_others(folder, cohort, f"the sum of round {round}")
    request = digest_of(fields)
    answered = run.store.answered(f"protect-{kind}")
    if answered is not None and answered.request == request:
        return answered.answer
    if _consented(run, kind, round):
        raise ProtectionError(f"{folder.name} has consented to another sum of round {round} already")
    kept = run.store.read_arrays(f"kept-{kind}") or {}
    side = {name[len("side/") :]: array for name, array in kept.items() if name.startswith("side/")}
    exchange = known.exchange._replace(cohort=cohort, attempt=attempt)
    last = Contribution(kept["vector"], side, known.exchange)
    protected = attempts.protect_again(
        run.keying().hospital(folder.name, run.own, run.coordinator), last, exchange
    )
    answer = protocol.encode_answer({"messages": protected.messages, "figures": None, "vouchers": {}})
    _write(run, kind, known._replace(exchange=exchange, release=protected.release))
    run.store.keep_answer(f"protect-{kind}", Answer(request, round, answer))
    return answer


def release(folder: HospitalFolder, run: Run, fields: Dict[str, Any]) -> bytes:
    """Consent to the sum of a cohort: once a round, and to no two that would show a single hospital."""
    kind, round = fields["kind"], fields["round"]
    known = _contributed(folder, run, kind, round)
    cohort, attempt = known.exchange.cohort, known.exchange.attempt
    if (attempt, cohort) != (fields["attempt"], tuple(sorted(fields["cohort"]))):
        raise ProtectionError(
            f"{folder.name} has protected round {round} for other hospitals: ask for that attempt"
        )

    def make() -> bytes:
        check_others(folder, cohort, f"the sum of round {round}")
        _admit(folder, known.subjects, cohort)
        return protocol.encode_answer({"release": known.release})

    return run.store.once(f"release-{kind}", round, digest_of(fields), make)


def combine(folder: HospitalFolder, run: Run, fields: Dict[str, Any]) -> bytes:
    """Add up the shares sealed to the parties that this hospital plays; answer with their sums.

    Where a share is refused nothing is added up, and the answer says whose it is. Raises
    :class:`~skinfl.errors.ProtectionError` for a second sum over others in a round, for a sum of
    too few, and for one that would show a single hospital beside an earlier one of the same.
    """
    senders, round, kind = tuple(sorted(fields["senders"])), fields["round"], fields["kind"]
    check_others(folder, senders, f"the sum of round {round}")
    request = digest_of({"senders": list(senders)})
    answered = run.store.answered(f"combine-{kind}")
    if answered is not None and answered.round == round and answered.request == request:
        return answered.answer
    exchange, subjects = _asked_of_party(folder, run, kind, round)
    by_party = fields["messages"]
    if not by_party:
        raise ProtectionError(f"{folder.name} is asked for the sum of no party")
    for party in by_party:
        if run.members.parties.get(party) != folder.name:
            raise ProtectionError(f"{folder.name} does not play {party} in this run")
    sides = {party: run.keying().party(party, run.own, run.coordinator) for party in by_party}
    messages = {
        name: {party: sent[name] for party, sent in by_party.items() if name in sent} for name in senders
    }
    _, refused = receive_at_parties(sides, messages, exchange)
    if refused:  # nothing was added up: the coordinator may ask again without them
        return protocol.encode_answer({"sums": {}, "refused": refused})

    if not subjects:  # the party takes no two that differ in what they say they are about
        first = next(iter(messages[senders[0]].values()))
        subjects = tuple(wire.parse(first).header.base.split(", "))

    def make() -> bytes:
        _admit(folder, subjects, senders)
        sums = {party: side.combine(senders, exchange) for party, side in sides.items()}
        return protocol.encode_answer({"sums": sums, "refused": {}})

    return run.store.once(f"combine-{kind}", round, request, make)


def open_sum(folder: HospitalFolder, run: Run, fields: Dict[str, Any]) -> bytes:
    """Decrypt the sum that this hospital consented to, prove it, and answer with its words.

    Raises :class:`~skinfl.errors.ProtectionError` for any other sum, and for one that is not proved; after
    :data:`FAILED_OPENINGS` of these for every further one.
    """
    kind, round = fields["kind"], fields["round"]
    known = _contributed(folder, run, kind, round)
    if not _consented(run, kind, round):
        raise ProtectionError(
            f"{folder.name} has not consented to a sum of round {round}: ask for that first"
        )
    failed = (run.store.read("failed-openings") or {"count": 0})["count"]
    if failed >= FAILED_OPENINGS:
        raise ProtectionError(
            f"{failed} sums did not prove themselves: {folder.name} opens no more of this run"
        )
    try:
        opened = run.keying().opener(run.own, run.coordinator).open(fields["combined"], known.exchange)
    except ProtectionError:
        run.store.write("failed-openings", {"count": failed + 1})
        raise
    if tuple(opened.senders) != known.exchange.cohort or opened.words is None:
        raise ProtectionError(f"{folder.name} opens the sum of {', '.join(known.exchange.cohort)} only")
    dtype, words = encode_words(opened.words)
    answer = {"words": words, "dtype": dtype, "senders": list(opened.senders)}
    return run.store.once(
        f"open-{kind}", round, digest_of({"words": words}), lambda: protocol.encode_answer(answer)
    )


def verify(folder: HospitalFolder, run: Run, fields: Dict[str, Any], words: bytes) -> bytes:
    """Say whether words are proved to be the sum of these hospitals; raises where they are not."""
    known = _contributed(folder, run, fields["kind"], fields["round"])
    try:
        found = decode_words(fields["dtype"], words)
    except ValueError as error:
        raise MessageError(protocol.COORDINATOR, f"the sum's words are cut short: {error}") from None
    side = run.keying().hospital(folder.name, run.own, run.coordinator)
    side.verify(found, tuple(fields["senders"]), known.exchange)
    return protocol.encode_answer({"proved": True})


def digest_of(fields: Mapping[str, Any]) -> str:
    """Return what identifies a request."""
    return keys.digest(msgpack.packb(sorted(fields.items()), use_bin_type=True))


def ledger_of(folder: HospitalFolder) -> Ledger:
    """Return what the hospital has taken part in, in all runs."""
    return Ledger(folder.state, folder.minimum_others, folder.name)


def _admit(folder: HospitalFolder, subjects: Tuple[str, ...], senders: Tuple[str, ...]) -> None:
    """Have the ledger admit a sum over senders: of everything that it tells of."""
    for subject in subjects:
        ledger_of(folder).admit(f"sum of {subject}", senders)


def _write(run: Run, kind: str, consent: Consent) -> None:
    exchange = consent.exchange
    run.store.write(
        f"consent-{kind}",
        {
            "subjects": list(consent.subjects),
            "round": exchange.round,
            "task": exchange.task,
            "base": exchange.base,
            "cohort": list(exchange.cohort),
            "attempt": exchange.attempt,
            "release": consent.release,
        },
    )


def _contributed(folder: HospitalFolder, run: Run, kind: str, round: int) -> Consent:
    found = contributed(run, kind, round)
    if found is None:
        raise ProtectionError(f"{folder.name} has contributed nothing to the {kind} sum of round {round}")
    return found


def _consented(run: Run, kind: str, round: int) -> bool:
    answered = run.store.answered(f"release-{kind}")
    return answered is not None and answered.round == round


def _asked_of_party(
    folder: HospitalFolder, run: Run, kind: str, round: int
) -> Tuple[Exchange, Tuple[str, ...]]:
    """Return the exchange to hold others' messages against, and what its sum tells of, empty if unknown.

    A party that was asked to contribute knows the task; one that was not holds the messages against each
    other, and believes what they all say they are about. Statistics say nothing that two runs have in common.
    """
    known = contributed(run, kind, round)
    if known is not None:
        own = known.exchange
        return own._replace(task=keyed(run.keying().secret(run.own), own.task)), known.subjects
    if kind == STATISTICS:
        raise ProtectionError(f"{folder.name} adds up no statistics before it has told its own")
    return Exchange(run.name, round, run.layouts[kind]), ()

"""One hospital that breaks the rules under an honest coordinator: it hurts itself, and nobody else."""

from __future__ import annotations

import pytest
from attacks import broken, may_be_refused, must_not_end, succeeded_if
from flower_helpers import coordinator_of, settings_of
from hostile_coordinator import (
    CHECKPOINT,
    FOUR,
    HostilePost,
    RunLog,
    additive,
    load_checkpoint,
    protocol,
)

BAD, HONEST = FOUR[0], FOUR[1:]
WRONG_TAG = "its tag is wrong: altered, or sealed with another key"


def train(hospitals, out, settings=None, tamper=None, lines=None):
    """Run four hospitals and return the records of finished rounds; ``lines`` takes what is logged."""
    settings = settings or settings_of(protection="smpc", strategy="fedavg", hospitals=4, rounds=3)
    post = HostilePost(hospitals, FOUR)
    if tamper is not None:
        post.tamper = tamper
    lines = [] if lines is None else lines
    listeners = [RunLog("run", lines.append)]
    coordinator_of(*hospitals, settings, post, out, say=lines.append).run(FOUR, listeners)
    return load_checkpoint(out / CHECKPOINT).state.records


def answering(kind, round, answer):
    """Return a ``tamper`` by which the bad hospital answers one request with ``answer``.

    That is a whole answer as bytes, or fields that replace the genuine ones.
    """

    def tamper(at, when, name, request, genuine):
        if (at, when, name) != (kind, round, BAD):
            return genuine
        if isinstance(answer, bytes):
            return answer
        fields = protocol.decode_answer(kind, name, genuine)
        return protocol.encode_answer({**fields, **answer})

    return tamper


def test_four_honest_hospitals_train_in_every_round(four_hospitals, tmp_path):
    """What the tests below presuppose."""
    lines = []
    records = train(four_hospitals, tmp_path / "out", lines=lines)
    assert [record.trained for record in records] == [tuple(FOUR)] * 3
    assert all(line.isprintable() for line in lines)
    assert not any(record.left_out for record in records)


# No eviction on one word.


@broken("a party that accuses others is believed: they are out for good, and it is in a sum of two")
def test_a_party_that_accuses_honest_hospitals(four_hospitals, tmp_path):
    accused = HONEST[1:]
    complaint = {"sums": {}, "refused": dict.fromkeys(accused, WRONG_TAG)}
    with may_be_refused():
        records = train(four_hospitals, tmp_path / "out", tamper=answering("combine", 1, complaint))
        assert len(records) == 3
        trained = [set(record.trained) for record in records]
        evicted = [i + 1 for i, names in enumerate(trained) if BAD in names and not set(accused) <= names]
        succeeded_if(bool(evicted), f"sums with the accuser and without the accused, in rounds {evicted}")


@broken("who differs from the first to come is thrown out: one odd header field evicts all the others")
def test_a_hospital_with_an_agreement_of_its_own(four_hospitals, tmp_path, monkeypatch):
    original = additive.begin_update

    def odd(terms, link, sender, recipient, exchange, **options):
        if sender == BAD and exchange.round == 1:
            options["agreement"] = "of my own"
        return original(terms, link, sender, recipient, exchange, **options)

    monkeypatch.setattr(additive, "begin_update", odd)
    with must_not_end("the run"):
        records = train(four_hospitals, tmp_path / "out")
    assert len(records) == 3
    evicted = sorted({name for r in records[1:] for name in HONEST if name not in r.trained})
    succeeded_if(bool(evicted), f"honest hospitals without a place in later rounds: {evicted}")


# Malformed is never fatal: whoever sent it is left out, the others go on.

#: what the bad hospital answers: to which request, in which round, with which fields
MALFORMED = {
    "a short public key": ("join", 0, {"public_key": b"short"}),
    "numbers for sealed keys": ("join", 0, {"sealed": dict.fromkeys(HONEST, 7)}),
    "numbers for statistics": ("statistics", 0, {"messages": dict.fromkeys(FOUR, 7)}),
    "no seconds": ("train", 1, {"seconds": {}}),
    "seconds as text": ("train", 1, {"seconds": {"train": "a", "protect": "b"}}),
    "a number for messages": ("train", 1, {"messages": dict.fromkeys(FOUR, 7)}),
    "text for a message": ("train", 1, {"messages": dict.fromkeys(FOUR, "text")}),
    "bytes for a metric": ("train", 2, {"metrics": {"accuracy": b"1"}}),
    "a number for a sum": ("combine", 1, {"sums": {BAD: 7}}),
    "a number for a reason": ("combine", 1, {"sums": {}, "refused": {BAD: 7}}),
    "a complaint of nobody": ("combine", 1, {"sums": {}, "refused": {"nobody": WRONG_TAG}}),
}


@broken("one malformed answer ends the run of all with a traceback")
@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_answer(four_hospitals, tmp_path, case):
    kind, round, answer = MALFORMED[case]
    settings = settings_of(protection="smpc", smpc_scheme="shamir", strategy="fedavg", hospitals=4)
    goes_on(four_hospitals, tmp_path / "out", settings, answering(kind, round, answer))


def goes_on(hospitals, out, settings, tamper=None):
    """See that the honest hospitals train in both rounds, whatever the bad one does."""
    with must_not_end("the run"):
        records = train(hospitals, out, settings, tamper)
    assert len(records) == 2
    evicted = sorted({name for record in records for name in HONEST if name not in record.trained})
    succeeded_if(bool(evicted), f"honest hospitals without a place: {evicted}")


@broken("one valid ciphertext of another form than expected ends the run of all with a traceback")
def test_a_ciphertext_of_another_form(four_hospitals, tmp_path, monkeypatch):
    seal = pytest.importorskip("skinfl.protection.he.seal")
    from skinfl.protection.he import roles

    settings = settings_of(protection="he", he_scheme="bfv", strategy="fedavg", hospitals=4)
    records = train(four_hospitals, tmp_path / "honest", settings)
    assert [record.trained for record in records] == [tuple(FOUR)] * 2
    original = roles.HeHospital.protect

    def transformed(side, vector, exchange):
        """Send ciphertexts as SEAL writes them, in number-theoretic form, which it does not add to others."""
        if side.name != BAD:
            return original(side, vector, exchange)
        context = side._packing.context

        def encode(_, fresh, mask):
            ciphertext = seal.load(seal.sealapi.Ciphertext(), context, seal.dump(fresh))
            seal.sealapi.Evaluator(context).transform_to_ntt_inplace(ciphertext)
            return seal.dump(ciphertext)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(roles.Codec, "encode", encode)
            return original(side, vector, exchange)

    monkeypatch.setattr(roles.HeHospital, "protect", transformed)
    goes_on(four_hospitals, tmp_path / "out", settings)


FORGED = "busy\nrun run round 2: summed hospital-2, hospital-3\x1b[2J"


@pytest.mark.parametrize(("kind", "round"), [("join", 0), ("train", 1), ("combine", 1)])
def test_a_reason_with_lines_of_its_own(four_hospitals, tmp_path, kind, round):
    lines = []
    settings = settings_of(protection="smpc", smpc_scheme="shamir", strategy="fedavg", hospitals=4)
    tamper = answering(kind, round, protocol.encode_refusal(FORGED))
    train(four_hospitals, tmp_path / "out", settings, tamper, lines=lines)
    assert any(BAD in line for line in lines)
    forged = [line for line in lines if not line.isprintable()]
    succeeded_if(bool(forged), f"lines with control characters in the log: {forged}")

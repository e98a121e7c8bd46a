"""One hospital that breaks the rules under an honest coordinator: it hurts itself, and nobody else."""

from __future__ import annotations

import numpy as np
import pytest
from attacks import must_not_end, succeeded_if
from flower_helpers import coordinator_of, settings_of
from hostile_coordinator import (
    CHECKPOINT,
    FOUR,
    HostilePost,
    RunLog,
    additive,
    hospitals_in,
    load_checkpoint,
    protocol,
    shamir,
)

from skinfl.errors import TrainingError
from skinfl.federation.hospital import HospitalAgent
from skinfl.federation.rules import TRAIN

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


@pytest.fixture
def lenient_hospitals(tmp_path):
    """Four that contribute to sums of two."""
    return hospitals_in(tmp_path, FOUR, minimum_others=1)


def evictions(records, accused):
    """Return the rounds whose sum has the accuser and lacks an accused."""
    return [r.round for r in records if BAD in r.trained and not set(accused) <= set(r.trained)]


@pytest.mark.parametrize("scheme", ["additive", "shamir"])
@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_party_that_accuses_honest_hospitals(lenient_hospitals, tmp_path, scheme, number):
    """It is in no sum without them, and loses as much as they do."""
    accused = HONEST[-number:]
    complaint = {"sums": {}, "refused": dict.fromkeys(accused, WRONG_TAG)}
    settings = settings_of(
        protection="smpc", smpc_scheme=scheme, strategy="fedavg", hospitals=4, rounds=4, parties="hospitals"
    )
    lines = []
    tamper = answering("combine", 1, complaint)
    with must_not_end("the run"):
        records = train(lenient_hospitals, tmp_path / "out", settings, tamper, lines)
    assert [record.round for record in records] == [1, 2, 3, 4]
    assert evictions(records, accused) == []
    assert set(records[-1].trained) == set(FOUR)
    if scheme == "shamir":  # enough others add up: nobody loses anything
        assert all(set(record.trained) == set(FOUR) for record in records)
    else:
        assert "it refused the share of" in records[0].left_out[BAD]


def test_a_party_that_accuses_in_every_round(lenient_hospitals, tmp_path):
    """It sits out twice as long each time."""
    settings = settings_of(protection="smpc", strategy="fedavg", hospitals=4, rounds=9)

    def tamper(kind, round, name, request, genuine):
        senders = protocol.decode_request(request.body)[1].get("senders", [])
        if (kind, name) != ("combine", BAD) or round == 0 or BAD not in senders:
            return genuine
        return protocol.encode_answer({"sums": {}, "refused": {senders[-1]: WRONG_TAG}})

    with must_not_end("the run"):
        records = train(lenient_hospitals, tmp_path / "out", settings, tamper)
    assert len(records) == 9
    assert [r.round for r in records if BAD in r.trained] == []
    assert {name for r in records for name in r.trained} >= {"hospital-2", "hospital-3"}


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


def flipped(value):
    """Return an answer whose bytes end otherwise than sealed, in every map at any depth."""
    if isinstance(value, dict):
        return {key: flipped(inner) for key, inner in value.items()}
    return value[:-1] + bytes([value[-1] ^ 1]) if isinstance(value, bytes) and value else value


def first_replaced(fields, by):
    name = next(iter(fields))
    return {**fields, name: by}


#: from the genuine fields, what is sent instead
SPOILT = {
    "half of it": lambda fields: protocol.encode_answer(fields)[: len(protocol.encode_answer(fields)) // 2],
    "one field more": lambda fields: protocol.encode_answer({**fields, "seconds": {}}),
    "numbers in a map": lambda fields: protocol.encode_answer(first_replaced(fields, dict.fromkeys(FOUR, 7))),
    "bytes in a map": lambda fields: protocol.encode_answer(
        first_replaced(fields, dict.fromkeys(FOUR, b"7"))
    ),
    "broken seals": lambda fields: protocol.encode_answer(flipped(fields)),
}
KINDS = {
    "shamir": ("join", "statistics", "train", "combine", "verify", "evaluate"),
    "bfv": ("join", "statistics", "train", "protect", "release", "open", "evaluate"),
}
SCHEMES = {
    "shamir": {"protection": "smpc", "smpc_scheme": "shamir"},
    "bfv": {"protection": "he", "he_scheme": "bfv"},
}


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("how", SPOILT)
def test_malformed_answers(tmp_path, scheme, how):
    """The bad hospital spoils its first answer of each kind; others go on, and in the end are all there."""
    if scheme == "bfv":
        pytest.importorskip("tenseal")
    settings = settings_of(**SCHEMES[scheme], strategy="fedavg", hospitals=4)
    for number, kind in enumerate(KINDS[scheme]):
        hospitals = hospitals_in(tmp_path / str(number), FOUR)

        def tamper(at, when, name, request, genuine, kind=kind, done=[]):  # noqa: B006
            if kind == "protect" and (at, when, name) == ("train", 1, FOUR[3]):
                return None  # it drops out: the others are asked to protect again
            first = {"join": 0, "statistics": 0, "evaluate": 2}.get(kind, 1)
            if (at, when, name) != (kind, first, BAD):
                return genuine
            done.append(at)
            return SPOILT[how](protocol.decode_answer(kind, name, genuine))

        if (how, kind) == ("broken seals", "join"):  # nobody can read its key: the run does not begin
            with pytest.raises(TrainingError, match=f"message from '{BAD}' refused: its tag is wrong"):
                train(hospitals, tmp_path / str(number) / "out", settings, tamper)
            continue
        with must_not_end(f"the run, by {kind}:"):
            records = train(hospitals, tmp_path / str(number) / "out", settings, tamper)
        assert tamper.__defaults__[-1], f"{kind} was never asked for"
        assert len(records) == 2
        evicted = [name for name in HONEST if name not in records[-1].trained]
        succeeded_if(bool(evicted), f"by {kind}, honest hospitals without a place in the end: {evicted}")


def goes_on(hospitals, out, settings, tamper=None):
    """See that the honest hospitals train in both rounds, whatever the bad one does."""
    with must_not_end("the run"):
        records = train(hospitals, out, settings, tamper)
    assert len(records) == 2
    evicted = sorted({name for record in records for name in HONEST if name not in record.trained})
    succeeded_if(bool(evicted), f"honest hospitals without a place: {evicted}")


def test_a_ciphertext_of_another_form(four_hospitals, tmp_path, monkeypatch):
    seal = pytest.importorskip("skinfl.protection.he.seal")
    from skinfl.protection.he import roles

    settings = settings_of(protection="he", he_scheme="bfv", strategy="fedavg", hospitals=4)
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


def test_a_party_that_adds_something_of_its_own(four_hospitals, tmp_path, monkeypatch):
    """Its sum is well sealed and wrong: the others' are enough, and hospitals say which are."""
    original = shamir.ShamirParty.add

    def add(party, contents, exchange, writer):
        if party.name == BAD:
            contents = [*contents, np.ones(party._encoder.size(exchange.layout), party._field.unsigned)]
        original(party, contents, exchange, writer)

    monkeypatch.setattr(shamir.ShamirParty, "add", add)
    settings = settings_of(**SCHEMES["shamir"], strategy="fedavg", hospitals=4)
    goes_on(four_hospitals, tmp_path / "out", settings)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_hospital_that_vouches_for_a_false_sum(four_hospitals, tmp_path, scheme):
    """It is the first to be asked, opens something else, and finds everything proved."""
    if scheme == "bfv":
        pytest.importorskip("tenseal")

    def tamper(kind, round, name, request, genuine):
        if name == BAD and kind == "open":
            fields = protocol.decode_answer(kind, name, genuine)
            words = np.frombuffer(fields["words"], fields["dtype"]) // 2
            return protocol.encode_answer({**fields, "words": words.tobytes()})
        return protocol.encode_answer({"proved": True}) if (name, kind) == (BAD, "verify") else genuine

    settings = settings_of(**SCHEMES[scheme], strategy="fedavg", hospitals=4)
    goes_on(four_hospitals, tmp_path / "out", settings, tamper)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_hospital_that_finds_nothing_proved(four_hospitals, tmp_path, scheme):
    if scheme == "bfv":
        pytest.importorskip("tenseal")

    def tamper(kind, round, name, request, genuine):
        return protocol.encode_refusal("no") if (name, kind) == (BAD, "verify") else genuine

    settings = settings_of(**SCHEMES[scheme], strategy="fedavg", hospitals=4)
    goes_on(four_hospitals, tmp_path / "out", settings, tamper)


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


@pytest.mark.parametrize("weight", [-4.0, 0.0, 1e-9, 1000.0])
def test_a_weight_that_no_hospital_has(four_hospitals, tmp_path, monkeypatch, weight):
    """The model's change is divided by it: a sum with a false one is not applied, and the run goes on."""
    original = HospitalAgent._protect

    def protect(agent, vector, task):
        if agent.name == BAD and task.kind == TRAIN and task.round == 1:
            vector = vector.copy()
            vector[agent._rules.vectors(TRAIN).slices()["counts"]] = weight
        return original(agent, vector, task)

    monkeypatch.setattr(HospitalAgent, "_protect", protect)
    with must_not_end("the run"):
        records = train(four_hospitals, tmp_path / "out")
    assert [record.trained for record in records[1:]] == [tuple(FOUR)] * 2
    if weight in (-4.0, 1000.0):
        assert records[0].trained == ()
        assert "weight in" in records[0].left_out[HONEST[0]]


@pytest.mark.parametrize("field", ["public_key", "opener_key"])
def test_a_public_key_that_nothing_can_be_sealed_to(four_hospitals, tmp_path, field):
    lines = []
    settings = settings_of(protection="smpc", strategy="fedavg", hospitals=4)
    tamper = answering("join", 0, {field: bytes(32)})
    records = train(four_hospitals, tmp_path / "out", settings, tamper, lines)
    assert [record.trained for record in records] == [tuple(HONEST)] * 2
    assert any(BAD in line and "its public key is unusable" in line for line in lines)

"""Requests and answers spoilt in every way: each is refused in one line, or still a valid one."""

import math
import os

import msgpack
import numpy as np
import pytest
from protocol_samples import ANSWERS, FIGURES, METRICS, REQUESTS, spoil

from skinfl.errors import MessageError, ProtectionError, UnprovedSum
from skinfl.flower import protocol

#: spoilt messages of each kind in each direction: 700 in all unless told otherwise, with 600 over 10,000
ROUNDS = int(os.environ.get("SKINFL_FUZZ", "40"))
KINDS = [("request", kind) for kind in protocol.REQUESTS] + [("answer", kind) for kind in protocol.ANSWERS]


def sample(direction, kind):
    """Return a valid message as values and as bytes, and what decodes it."""
    if direction == "request":
        fields = REQUESTS[kind]
        return fields, protocol.encode_request(kind, fields), protocol.decode_request
    fields = ANSWERS[kind]
    return (
        fields,
        protocol.encode_answer(fields),
        lambda data: protocol.decode_answer(kind, "hospital-1", data),
    )


@pytest.mark.parametrize(("direction", "kind"), KINDS)
def test_a_valid_message_is_read_as_it_was_written(direction, kind):
    fields, data, decode = sample(direction, kind)
    assert decode(data) == ((kind, fields) if direction == "request" else fields)


@pytest.mark.parametrize(("direction", "kind"), KINDS)
def test_a_spoilt_message_is_refused_in_one_line_or_valid(direction, kind):
    rng = np.random.RandomState(KINDS.index((direction, kind)))
    _, data, decode = sample(direction, kind)
    message = msgpack.unpackb(data)
    others = [sample(*other)[1] for other in KINDS]
    refused = 0
    for _ in range(ROUNDS):
        spoilt = spoil(rng, data, message, others)
        for _ in range(rng.randint(2)):
            spoilt = spoil(rng, spoilt or b"\0", message, others)
        try:
            found = decode(spoilt)
        except ProtectionError as error:
            refused += 1
            assert str(error).isprintable() and len(str(error)) < 700
            assert not isinstance(error, MessageError) or error.sender in ("coordinator", "hospital-1")
            continue
        # what is valid stays valid, and the same, when it is written and read again
        if direction == "request":
            assert decode(protocol.encode_request(*found)) == found
        else:
            assert decode(protocol.encode_answer(found)) == found
    assert refused > ROUNDS / 2


@pytest.mark.parametrize(
    "data",
    [
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff" * 50,
        b"\x91" * 100_000,
        b"\xdd\x00\x40\x00\x00" + b"\x80" * 0x400000,
        b"\x9f" + (b"\xdc\xff\xff" + b"\xc0" * 0xFFFF) * 15,
        b"\xc7\x04\x01abcd",
        b"\xd6\xff\x00\x00\x00\x00",
        b"\x82\xa1a\x01\xa1a\x02",
    ],
)
def test_what_would_take_much_room_is_refused_before_it_is_decoded(data):
    for read in (protocol.decode_request, lambda data: protocol.decode_answer("join", "h", data)):
        with pytest.raises(MessageError, match="cut short, damaged, or holds too much"):
            read(data)


def test_the_readers_limit_counts_in_bytes():
    _, data, _ = sample("request", "train")
    assert protocol.decode_request(data, len(data))[0] == "train"
    with pytest.raises(MessageError, match="are the limit"):
        protocol.decode_request(data, len(data) - 1)


def test_a_reason_to_refuse_is_one_short_line():
    forged = "no\nrun 7 round 3: summed everybody\x1b[1A\u202e" + "x" * 9000
    for written in (
        protocol.encode_refusal(ProtectionError(forged)),
        msgpack.packb({"version": protocol.VERSION, "refused": forged}),
    ):
        with pytest.raises(ProtectionError) as caught:
            protocol.decode_answer("train", "hospital-1", written)
        assert not isinstance(caught.value, MessageError)
        assert str(caught.value).startswith("no run 7 round 3: summed everybody?[1A?xxx")
        assert len(str(caught.value)) == 500
    protocol.encode_refusal(ProtectionError("half a character: \udcff"))


@pytest.mark.parametrize("kind", [ProtectionError, UnprovedSum])
def test_that_a_sum_is_not_proved_is_said_by_the_refusal_not_by_its_words(kind):
    refusal = protocol.encode_refusal(kind(f"the sum {UnprovedSum.MARK}"))
    with pytest.raises(ProtectionError, match=UnprovedSum.MARK) as caught:
        protocol.decode_answer("open", "hospital-1", refusal)
    assert type(caught.value) is kind


@pytest.mark.parametrize(
    ("kind", "changes", "reason"),
    [
        ("train", {"round": True}, "round is not a whole number from 1 to 1000000"),
        ("train", {"round": 0}, "round is not a whole number"),
        ("train", {"participants": ["hospital-1", "hospital-1"]}, "different values"),
        ("train", {"participants": ["a\n"]}, "small letters"),
        ("train", {"sealed": {"keys": {}, "public": {}}}, "sealed is not a map of exactly the fields"),
        ("join", {"settings": {"lr": math.nan}}, r"settings\.lr is not a setting's value"),
        ("join", {"coordinator_key": b"x" * 31}, "coordinator_key is not 32 bytes"),
        ("combine", {"messages": {"party-1": {"hospital-1": [1]}}}, r"messages\.party-1\.hospital-1"),
        ("open", {"kind": "gradient"}, "one of statistics, train, evaluate"),
        ("release", {"attempt": 1001}, "attempt is not"),
    ],
)
def test_a_requests_fault_is_named(kind, changes, reason):
    request = protocol.encode_request(kind, {**REQUESTS[kind], **changes})
    with pytest.raises(MessageError, match=reason):
        protocol.decode_request(request)


@pytest.mark.parametrize(
    ("kind", "changes", "reason"),
    [
        (
            "train",
            {"figures": {**FIGURES, "loss": math.inf}},
            r"figures\.loss is not a finite",
        ),
        (
            "train",
            {"figures": {**FIGURES, "seconds": {}}},
            "exactly the fields train, protect",
        ),
        ("train", {"figures": {**FIGURES, "clipped": 2.0}}, "a number from 0 to 1"),
        (
            "train",
            {
                "figures": {
                    **FIGURES,
                    "metrics": {**METRICS, "confusion": [[1]]},
                }
            },
            "of one number of classes",
        ),
        ("train", {"messages": {"party-1": 7}}, "at most 4294967295 bytes"),
        ("open", {"words": b"w" * 63}, "of whole words"),
        ("open", {"dtype": "|O"}, "dtype is not one of"),
        ("release", {"release": b"r" * 31}, "0 or 32 bytes"),
        ("join", {"image_shape": [3, 28]}, "a list of 3 to 3 values"),
        ("join", {"classes": ["nv", "\x1b[31m"]}, r"classes\[1\] is not printable"),
        ("verify", {"proved": 1}, "true or false"),
    ],
)
def test_an_answers_fault_is_named(kind, changes, reason):
    answer = protocol.encode_answer({**ANSWERS[kind], **changes})
    with pytest.raises(MessageError, match=reason) as caught:
        protocol.decode_answer(kind, "hospital-2", answer)
    assert caught.value.sender == "hospital-2"


def test_the_metrics_of_an_evaluation_are_what_an_answer_may_hold():
    from skinfl.metrics import SCALARS, evaluate_predictions

    rng = np.random.RandomState(0)
    probabilities = rng.dirichlet(np.ones(3), 20)
    for images in (20, 0):
        found = evaluate_predictions(probabilities[:images], rng.randint(0, 3, images), ["nv", "mel", "bkl"])
        metrics = {**found, "loss": 1.0}
        assert set(metrics) == {*SCALARS, "per_class", "confusion"}
        answer = {"messages": {}, "figures": {**FIGURES, "metrics": metrics}, "vouchers": {}}
        assert protocol.decode_answer("train", "h", protocol.encode_answer(answer)) == answer


def test_every_setting_of_a_run_passes_a_request_to_join():
    from skinfl.settings import Settings

    for protection in ("plaintext", "smpc", "he"):
        told = Settings(protection=protection, data="").asdict()
        request = protocol.encode_request("join", {**REQUESTS["join"], "settings": told})
        assert protocol.decode_request(request)[1]["settings"] == told


def test_no_line_of_the_log_can_be_forged():
    from skinfl.federation.events import HospitalLeftOut
    from skinfl.flower.coordinator.log import RunLog

    lines = []
    RunLog("7", lines.append)(HospitalLeftOut(3, "hospital-1", "no\nrun 7 round 3: finished\x1b[1A"))
    assert lines == ["run 7 round 3: left out hospital-1: no run 7 round 3: finished?[1A"]
    error = MessageError("a\n\x1b[2Kb" * 50, "c\u202ed" * 900)
    assert str(error).isprintable() and error.sender.isprintable() and len(str(error)) < 700

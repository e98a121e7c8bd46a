from __future__ import annotations

import msgpack
import pytest

from skinfl.data.preparation import Preparation
from skinfl.errors import MessageError, ProtectionError
from skinfl.inference.info import ModelInfo, from_json, to_json
from skinfl.inference.messages import Refused, pack, unpack
from skinfl.inference.parameters import VERSION, BatchSpec, LatencySpec, from_mapping, to_mapping

SPEC = LatencySpec(1, 28, 7, 10, 8, 8192, (58, 48, 54, 58), 20, 256.0, (1, 2, 4095))
BATCH = BatchSpec(1, 28, 7, 8192, (27,) * 6, 20)
INFO = ModelInfo(
    "skinnet", tuple("abcdefg"), (0.5,), (0.25,), Preparation(SPEC.image_size, "pad"), SPEC, BATCH
)


def test_a_message_comes_back():
    body = unpack(pack("image", "f" * 32, keys="k", image=[b"1", b"2"]), "image", "f" * 32, "client")
    assert body == {"keys": "k", "image": [b"1", b"2"]}


def envelope(**changes):
    return msgpack.packb({"skinfl": VERSION, "kind": "image", "parameters": "f", "body": {}, **changes})


@pytest.mark.parametrize(
    "message,status,code",
    [
        (b"", 400, "malformed"),
        (b"\xc1", 400, "malformed"),
        (b"\xdf\xff\xff\xff\xff", 400, "malformed"),
        (pack("image", "f", keys="k", image=[b"1"])[:-1], 400, "malformed"),
        (pack("image", "f", keys="k", image=[b"1"]) + b"x", 400, "malformed"),
        (msgpack.packb([1, 2]), 400, "malformed"),
        (msgpack.packb({"skinfl": 1}), 400, "malformed"),
        (envelope(skinfl=VERSION + 1), 409, "version"),
        (envelope(skinfl="1"), 409, "version"),
        (envelope(kind="keys"), 400, "malformed"),
        (envelope(parameters="g"), 409, "parameters"),
        (envelope(body=[]), 400, "malformed"),
        (envelope(body={"keys": "k"}), 400, "malformed"),
        (envelope(body={"keys": 1, "image": []}), 400, "malformed"),
        (envelope(body={"keys": "k", "image": ["text"]}), 400, "malformed"),
        (envelope(body={"keys": "k", "image": [], "more": 1}), 400, "malformed"),
    ],
)
def test_what_is_not_as_expected_is_refused_with_its_status(message, status, code):
    with pytest.raises(Refused) as refused:
        unpack(message, "image", "f", "client")
    assert (refused.value.status, refused.value.code) == (status, code)
    assert "client" in str(refused.value)


def test_fingerprints_differ_with_every_field():
    changed = [
        SPEC._replace(**{field: value})
        for field, value in [
            ("channels", 3),
            ("image_size", 27),
            ("classes", 6),
            ("copies", 9),
            ("period", 16),
            ("bits", (58, 50, 52, 58)),
            ("input_bits", 19),
            ("logit_range", 128.0),
            ("rotations", (1, 2)),
        ]
    ]
    fingerprints = {spec.fingerprint for spec in [SPEC, *changed]} | {BATCH.fingerprint}
    assert len(fingerprints) == len(changed) + 2
    assert from_mapping(LatencySpec, to_mapping(SPEC)) == SPEC
    assert from_mapping(BatchSpec, to_mapping(BATCH)) == BATCH


@pytest.mark.parametrize(
    "change",
    [
        {"degree": 4096},
        {"bits": [60, 60, 60, 60]},
        {"degree": "8192"},
        {"channels": True},
        {"bits": [58.0, 48, 54, 58]},
        {"rotations": [0]},
        {"rotations": list(range(1, 300))},
        {"copies": 11},
        {"period": 7},
        {"input_bits": 41},
        {"logit_range": None},
        {"unknown": 1},
    ],
)
def test_a_client_refuses_parameters_that_are_insecure_or_absurd(change):
    """Whoever runs the server must not be able to talk a client into weak encryption."""
    with pytest.raises(ProtectionError):
        from_mapping(LatencySpec, {**to_mapping(SPEC), **change})


@pytest.mark.parametrize("change", [{"bits": [60] * 6}, {"image_size": 0}, {"classes": 1}, {"bits": [27]}])
def test_the_same_for_batches(change):
    with pytest.raises(ProtectionError):
        from_mapping(BatchSpec, {**to_mapping(BATCH), **change})


def test_model_description_comes_back():
    assert from_json(to_json(INFO)) == INFO
    assert from_json(to_json(INFO._replace(batch=None))).batch is None
    warm = INFO._replace(temperature=1.5, titles=tuple(f"disease {c}" for c in "abcdefg"))
    assert from_json(to_json(warm)) == warm
    older = {key: value for key, value in to_json(warm).items() if key not in ("temperature", "titles")}
    assert from_json(older) == INFO


@pytest.mark.parametrize(
    "change,word",
    [
        ({"version": 9}, "version 9"),
        ({"latency_fingerprint": "0" * 32}, "fingerprint differ"),
        ({"class_names": ["a"]}, "contradicts"),
        ({"mean": [0.5, 0.5]}, "contradicts"),
        ({"mean": ["x"]}, "unsound"),
        ({"std": [0.0]}, "not positive"),
        ({"preparation": None}, "unsound"),
        ({"preparation": {}}, "unsound"),
        ({"preparation": {"image_size": 28, "fit": "stretch"}}, "unknown fit 'stretch'"),
        ({"preparation": {"image_size": 28, "turn": 90}}, "unsound"),
        ({"preparation": {"image_size": 27}}, "contradicts"),
        ({"latency": {**to_mapping(SPEC), "degree": 4096}}, "128-bit"),
        ({"latency": None}, "unsound"),
        ({"temperature": 0.0}, "unsound"),
        ({"temperature": "hot"}, "unsound"),
        ({"titles": ["one"]}, "unsound"),
    ],
)
def test_an_unsound_description_is_refused(change, word):
    with pytest.raises(MessageError, match=word):
        from_json({**to_json(INFO), **change})
    for foreign in ([], {"hello": 1}, None):
        with pytest.raises(MessageError, match="does not describe a model"):
            from_json(foreign)

import msgpack
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from skinfl.errors import MessageError, ProtectionError
from skinfl.protection import wire
from skinfl.protection.base import Exchange
from skinfl.protection.keys import public_bytes
from skinfl.protection.layout import Layout, Segment
from skinfl.protection.sealing import Channel, Plain

HEADER = wire.Header("smpc", "update", "f" * 32, "run", 3, "a", "b", "d" * 32)
EXCHANGE = Exchange("run", 3, Layout([Segment("w", 4)]))


@pytest.fixture
def ends():
    alice, bob = X25519PrivateKey.generate(), X25519PrivateKey.generate()
    return Channel(alice, public_bytes(bob)), Channel(bob, public_bytes(alice))


def message(link, body=b"hello", header=HEADER):
    writer = link.writer(header, len(body))
    writer.write(body)
    return writer.finish()


def test_a_message_is_plain_msgpack(ends):
    for link in (ends[0], Plain()):
        version, header, body = msgpack.unpackb(message(link), raw=False)
        assert version == wire.VERSION
        assert header["sender"] == "a" and header["round"] == 3
        assert len(body) > 5


def test_opens_at_the_other_end_only(ends):
    sent = message(ends[0], b"x" * 300_000)
    assert ends[1].open(wire.parse(sent)) == b"x" * 300_000
    eve = Channel(X25519PrivateKey.generate(), public_bytes(X25519PrivateKey.generate()))
    with pytest.raises(MessageError, match=r"'a' refused.*another key"):
        eve.open(wire.parse(sent))


def test_body_is_hidden_and_never_sealed_twice_alike(ends):
    first, second = message(ends[0], bytes(64)), message(ends[0], bytes(64))
    assert bytes(64) not in first
    assert wire.parse(first).header.salt != wire.parse(second).header.salt
    assert bytes(wire.parse(first).body) != bytes(wire.parse(second).body)


@pytest.mark.parametrize(
    "field",
    [
        "run",
        "sender",
        "recipient",
        "layout",
        "fingerprint",
        "scheme",
        "agreement",
        "task",
        "base",
        "attempt",
        "round",
    ],
)
def test_header_is_authenticated(ends, field):
    sent = message(ends[0])
    envelope = wire.parse(sent)
    other = 7 if field in ("attempt", "round") else "other"
    head = wire.encode_head(envelope.header._replace(**{field: other}))
    forged = head + wire.encode_length(len(envelope.body)) + bytes(envelope.body)
    with pytest.raises(MessageError, match="tag is wrong"):
        ends[1].open(wire.parse(forged))


@pytest.mark.parametrize("link", ["sealed", "plain"])
def test_growing_and_reserved_buffers_give_the_same_body(ends, link):
    sender, receiver = ends if link == "sealed" else (Plain(), Plain())
    for reserve in (0, 2, 6, 100):
        writer = sender.writer(HEADER, reserve)
        writer.write(b"abc")
        writer.write(b"def")
        assert receiver.open(wire.parse(writer.finish())) == b"abcdef"


def test_damage_in_an_unsealed_message_is_found():
    sent = bytearray(message(Plain()))
    sent[-6] ^= 1
    with pytest.raises(MessageError, match="checksum"):
        Plain().open(wire.parse(bytes(sent)))


def test_an_unsealed_message_is_refused_where_sealing_is_expected(ends):
    with pytest.raises(MessageError, match="isn't sealed"):
        ends[1].open(wire.parse(message(Plain(), b"x" * 40)))


def test_invalid_public_keys_are_refused():
    for key in (b"short", bytes(32)):  # the zero point would make the secret known to all
        with pytest.raises(ProtectionError, match="not a valid X25519 key"):
            Channel(X25519PrivateKey.generate(), key)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "isn't a protected message"),
        (b"\xc1\xc1\xc1", "isn't a protected message"),
        (b"\x01\x02", "isn't a protected message"),
        (msgpack.packb([1, {}, b""]), "format version 1, this is version 2"),
        (msgpack.packb([True, {}, b""]), "format version True"),
        (msgpack.packb([2, {}]), "format version 2"),
        (msgpack.packb([2, {"sender": "a"}, b""]), "lacks fields"),
        (msgpack.packb([2, 5, b""]), "lacks fields"),
        (b"\x93\x02", "cut short"),
        (b"\x93\x02\x81\xa1", "cut short"),
    ],
)
def test_what_is_no_envelope_is_refused(data, reason):
    with pytest.raises(MessageError, match=reason):
        wire.parse(data)


def test_wrong_types_in_the_header_are_refused():
    for field, value in (
        ("round", "3"),
        ("round", True),
        ("senders", "ab"),
        ("senders", [1]),
        ("salt", ""),
        ("run", 7),
        ("task", b""),
        ("base", 1),
        ("attempt", "1"),
        ("attempt", True),
    ):
        fields = {**HEADER._asdict(), "senders": [], field: value}
        with pytest.raises(MessageError, match=r"'a' refused.*wrong type"):
            wire.parse(msgpack.packb([wire.VERSION, fields, b""], use_bin_type=True))


def test_lengths_are_checked(ends):
    sent = message(ends[0])
    for cut in (sent[:-1], sent + b"x"):
        with pytest.raises(MessageError, match=r"bytes, .* were announced"):
            wire.parse(cut)
    head = wire.parse(sent).head
    with pytest.raises(MessageError, match="body is missing"):
        wire.parse(head)
    with pytest.raises(ProtectionError, match="too long"):
        wire.encode_length(1 << 32)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"sender": "eve"}, "message from 'eve' refused: no such sender"),
        ({"scheme": "he"}, "its scheme is 'he', expected 'smpc'"),
        ({"kind": "sum"}, "its kind is 'sum'"),
        ({"run": "old"}, "its run is 'old'"),
        ({"round": 2}, "its round is 2, expected 3"),
        ({"attempt": 1}, "its attempt is 1, expected 0"),
        ({"recipient": "c"}, "its recipient is 'c'"),
        ({"fingerprint": "0"}, "other parameters or keys"),
        ({"layout": "0"}, "another model or strategy"),
    ],
)
def test_check_names_the_sender_and_the_difference(changes, reason):
    header = HEADER._replace(layout=EXCHANGE.layout.digest)
    expected = {
        "scheme": "smpc",
        "kind": "update",
        "fingerprint": "f" * 32,
        "exchange": EXCHANGE,
        "recipient": "b",
        "senders": {"a"},
    }
    wire.check(header, **expected)
    with pytest.raises(MessageError, match=reason):
        wire.check(header._replace(**changes), **expected)


def test_fingerprints_differ_whenever_a_part_does():
    marks = [
        wire.fingerprint(*p) for p in (("a", "b"), ("ab",), ("a", b"b"), ("b", "a"), ("a", 1), ("a", "1"))
    ]
    assert len(set(marks)) == len(marks)
    assert all(len(mark) == 32 for mark in marks)

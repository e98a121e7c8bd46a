"""The envelope of every protected message: msgpack of ``[version, header, body]``.

The header says what the message is and for whom; the body is the scheme's own bytes followed by an
authentication tag (:mod:`skinfl.protection.sealing`). Any msgpack reader can look inside, nothing in
it is ever executed, and a report's sizes are the lengths of these bytes.
"""

from __future__ import annotations

import hashlib
from typing import Collection, NamedTuple, Tuple

import msgpack

from skinfl.errors import MessageError, ProtectionError
from skinfl.protection.base import Exchange

VERSION = 2
#: longest version and header: room for some ten thousand senders' names
_HEADER_LIMIT = 1 << 20
_BODY_LIMIT = (1 << 32) - 1
_BIN32 = b"\xc6"
#: what msgpack raises for bytes that aren't msgpack, or are cut short
_MALFORMED = (ValueError, TypeError, OverflowError, msgpack.UnpackException)


class Header(NamedTuple):
    """What a message says of itself.

    ``kind`` is ``"update"`` (a hospital to a party) or ``"sum"`` (a party to the opener); ``senders``
    lists, sorted, the hospitals in a sum and is empty in an update. ``agreement`` is a digest of what
    hospitals agreed on from the last sum, empty where a scheme or a first round has nothing of the
    kind. ``task``, ``base`` and ``attempt`` are the exchange's, the first keyed with the hospitals'
    secret. ``salt`` makes the sealing key fresh and is empty where nothing is sealed.
    """

    scheme: str
    kind: str
    fingerprint: str
    run: str
    round: int
    sender: str
    recipient: str
    layout: str
    senders: Tuple[str, ...] = ()
    agreement: str = ""
    task: str = ""
    base: str = ""
    attempt: int = 0
    salt: bytes = b""


class Envelope(NamedTuple):
    """A message taken apart: the header, its bytes, and the body as a view into the message."""

    header: Header
    head: bytes
    body: memoryview


def fingerprint(*parts: object) -> str:
    """Return 32 hexadecimal digits that differ whenever a part does."""
    text = msgpack.packb([repr(part) if not isinstance(part, bytes) else part for part in parts])
    return hashlib.sha256(text).hexdigest()[:32]


def encode_head(header: Header) -> bytes:
    """Return the bytes before the body's length."""
    fields = header._asdict()
    fields["senders"] = list(header.senders)
    return b"\x93" + msgpack.packb(VERSION) + msgpack.packb(dict(fields), use_bin_type=True)


def encode_length(length: int) -> bytes:
    """Return msgpack's prefix of a body of ``length`` bytes."""
    if length > _BODY_LIMIT:
        raise ProtectionError(
            f"a message of {length} bytes is too long: split the layout over several rounds"
        )
    return _BIN32 + length.to_bytes(4, "big")


def parse(message: bytes) -> Envelope:
    """Take a message apart; raise MessageError for whatever isn't an envelope of this version."""
    unpacker = msgpack.Unpacker(raw=False, strict_map_key=True, max_buffer_size=_HEADER_LIMIT)
    try:
        unpacker.feed(bytes(memoryview(message)[:_HEADER_LIMIT]))
        length = unpacker.read_array_header()
        version = unpacker.unpack()
    except _MALFORMED as error:
        raise MessageError("unknown", "it isn't a protected message") from error
    if length != 3 or type(version) is not int or version != VERSION:
        raise MessageError("unknown", f"it has format version {version!r}, this is version {VERSION}")
    try:
        fields = unpacker.unpack()
        start = unpacker.tell()
    except _MALFORMED as error:
        raise MessageError("unknown", "its header is cut short or damaged") from error
    header = _header(fields)
    prefix = bytes(memoryview(message)[start : start + 5])
    body = memoryview(message)[start + 5 :]
    if len(prefix) != 5 or prefix[:1] != _BIN32:
        raise MessageError(header.sender, "its body is missing")
    claimed = int.from_bytes(prefix[1:], "big")
    if claimed != len(body):
        raise MessageError(header.sender, f"its body has {len(body)} bytes, {claimed} were announced")
    return Envelope(header, bytes(memoryview(message)[:start]), body)


def _header(fields: object) -> Header:
    """Check the header's fields and their types."""
    if not isinstance(fields, dict) or set(fields) != set(Header._fields):
        raise MessageError("unknown", "its header lacks fields or has strange ones")
    sender = fields["sender"] if isinstance(fields["sender"], str) else "unknown"
    texts = ("scheme", "kind", "fingerprint", "run", "sender", "recipient", "layout")
    digests = ("agreement", "task", "base")
    names = fields["senders"]
    sound = (
        all(isinstance(fields[name], str) for name in (*texts, *digests))
        and type(fields["round"]) is int
        and type(fields["attempt"]) is int
        and isinstance(fields["salt"], bytes)
        and isinstance(names, list)
        and all(isinstance(name, str) for name in names)
    )
    if not sound:
        raise MessageError(sender, "its header has fields of a wrong type")
    fields["senders"] = tuple(names)
    return Header(**fields)


def check(
    header: Header,
    *,
    scheme: str,
    kind: str,
    fingerprint: str,
    exchange: Exchange,
    recipient: str,
    senders: Collection[str],
) -> None:
    """Refuse a message that isn't from one of ``senders`` to ``recipient`` for this very exchange."""
    if header.sender not in senders:
        raise MessageError(header.sender, "no such sender takes part in this run")
    for what, found, expected in (
        ("scheme", header.scheme, scheme),
        ("kind", header.kind, kind),
        ("run", header.run, exchange.run),
        ("round", header.round, exchange.round),
        ("attempt", header.attempt, exchange.attempt),
        ("recipient", header.recipient, recipient),
    ):
        if found != expected:
            raise MessageError(header.sender, f"its {what} is {found!r}, expected {expected!r}")
    if header.fingerprint != fingerprint:
        raise MessageError(header.sender, "it was made with other parameters or keys (fingerprints differ)")
    if header.layout != exchange.layout.digest:
        raise MessageError(header.sender, "its layout is that of another model or strategy (digests differ)")

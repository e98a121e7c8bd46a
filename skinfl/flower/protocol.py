"""What coordinator and hospitals say to each other, as msgpack: never pickle.

A request is a kind and its fields; an answer is fields, or the hospital's reason to refuse. What a kind holds
is in ``REQUESTS`` and ``ANSWERS``, to the last inner value: a message with other fields, or with values of
another type, size or range, is refused before any of it is used. How much is decoded is bounded first.

Before training:

1. ``join``: the settings and who takes part; the hospital answers with its fresh public key, once in the
   clear and once sealed to each of the others.
2. ``statistics``: asks for the protected sums for normalisation and class weights.

Each round ``train`` asks for the protected contribution, and ``evaluate`` for the protected metrics of the
round's model. What is summed, in any of these, goes through

1. ``protect``, where hospitals dropped out: asks those that remain to protect the same once more,
2. ``release``: asks each for its consent to a sum over these hospitals,
3. ``combine`` (secret sharing): brings a party the shares sealed to it, asks for its sum; ``open``
   (homomorphic encryption): brings the encrypted sum, asks for the sum,
4. ``verify`` (secret sharing): brings a hospital the opened sum, asks whether it proves itself.

``end`` says that a run is over: its keys can go.

All but ``join`` carry ``sealed``: what the other hospitals sealed to this one when they joined, until it has
answered once.
"""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, Optional, Tuple

import msgpack

from skinfl.errors import MessageError, ProtectionError, SkinflError, UnprovedSum
from skinfl.flower.schema import (
    Bool,
    Bytes,
    Choice,
    Fields,
    Kind,
    ListOf,
    MapOf,
    Maybe,
    Number,
    OneOf,
    OrEmpty,
    Reason,
    Text,
    Unfit,
    Whole,
)
from skinfl.protection.unpacking import check_size
from skinfl.protection.words import DTYPES

VERSION = 3
COORDINATOR = "coordinator"
#: the query by which a node that was registered without a name is asked for one; not a request
WHO = "who"
#: a hospital's name, and a party's
NAME = r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?"
#: longest message, in bytes, where the reader sets no other limit
MESSAGE_BYTES = 1 << 30

#: values in one message, nested so deep at most: room for ten thousand hospitals or a thousand classes
_VALUES, _DEPTH = 1 << 21, 8
_HOSPITALS, _CLASSES, _ROUNDS, _ATTEMPTS = 10_000, 1000, 10**6, 1000
#: a reason to refuse may be long, and is cut when it is read
_TEXT_BYTES = 1 << 16
_KEY_BYTES, _COMMON_BYTES = 4096, 1 << 24


def _of_whole_words(found: Dict[str, Any]) -> Optional[str]:
    return "of whole words" if len(found["words"]) % int(found["dtype"][-1]) else None


def _square(found: Dict[str, Any]) -> Optional[str]:
    rows: List[List[int]] = found["confusion"]
    square = all(len(row) == len(rows) for row in rows) and len(found["per_class"]) == len(rows)
    return None if square else "of one number of classes"


_name = Text(32, NAME, "1 to 32 small letters, digits and hyphens")
_names = ListOf(_name, _HOSPITALS, distinct=True)
_run = Text(64, "[0-9a-f]{8,64}", "8 to 64 hexadecimal digits")
_round = Whole(1, _ROUNDS)
#: of what a sum may be: before the first round it is the statistics', whose round is 0
_sum: Dict[str, Kind] = {
    "run": _run,
    "round": Whole(0, _ROUNDS),
    "kind": Choice("statistics", "train", "evaluate"),
}
#: as long as msgpack has it: the reader's limit is on the whole message
_body = Bytes((1 << 32) - 1)
_dtype = Choice(*DTYPES)
_by_party = MapOf(_name, _body, _HOSPITALS)
_public_key = Bytes(32, [32])
_sealed = OrEmpty(
    Fields(
        {
            "keys": MapOf(_name, Bytes(_KEY_BYTES), _HOSPITALS),
            "public": MapOf(_name, _public_key, _HOSPITALS),
            "common": Bytes(_COMMON_BYTES),
        }
    )
)
_setting = OneOf(
    "a setting's value",
    Maybe(Bool()),
    Whole(-(1 << 63), (1 << 64) - 1),
    Number(),
    Text(4096),
    ListOf(Text(4096), 1000),
)
_share = Number(0, 1)
_count = Whole(0, 1 << 40)
#: of a metric that is a ratio, which rounding may carry past its ends
_ratio = Maybe(Number(-1e-6, 1 + 1e-6))
#: skinfl.metrics.SCALARS, which is not imported: it brings scikit-learn, and adding up shares needs none
_SCALARS = (
    *("accuracy", "balanced_accuracy", "macro_f1", "auc", "melanoma_sensitivity_at_90_specificity", "ece"),
    "loss",
)
_metrics = Fields(
    {
        **{name: Maybe(Number()) if name == "loss" else _ratio for name in _SCALARS},
        "per_class": MapOf(
            Text(200),
            Fields({"sensitivity": _ratio, "specificity": _ratio, "auc": _ratio, "support": _count}),
            _CLASSES,
        ),
        "confusion": ListOf(ListOf(_count, _CLASSES), _CLASSES),
    },
    rule=_square,
)
_figures = Fields(
    {
        "loss": Maybe(Number()),
        "clipped": Maybe(_share),
        "seconds": Maybe(Fields({"train": Number(0), "protect": Number(0)})),
        "metrics": Maybe(_metrics),
        "personal": Maybe(_metrics),
    }
)
_protected = Fields(
    {
        "messages": _by_party,
        "figures": Maybe(_figures),
        "vouchers": MapOf(_name, Bytes(32, [32]), _HOSPITALS),
    }
)

REQUESTS: Dict[str, Fields] = {
    "join": Fields(
        {
            "run": _run,
            "settings": MapOf(Text(64, "[a-z][a-z0-9_]*", "a setting's name"), _setting, 1000),
            "hospitals": _names,
            "parties": MapOf(_name, _name, _HOSPITALS),
            "coordinator_key": _public_key,
            "unit": Whole(1, 1 << 22),
        }
    ),
    "statistics": Fields({"run": _run, "sealed": _sealed}),
    "train": Fields(
        {"run": _run, "round": _round, "participants": _names, "evaluate": Bool(), "sealed": _sealed}
    ),
    "protect": Fields({**_sum, "attempt": Whole(1, _ATTEMPTS), "cohort": _names, "sealed": _sealed}),
    "release": Fields({**_sum, "attempt": Whole(0, _ATTEMPTS), "cohort": _names, "sealed": _sealed}),
    "combine": Fields(
        {
            **_sum,
            "messages": MapOf(_name, MapOf(_name, _body, _HOSPITALS), _HOSPITALS),
            "senders": _names,
            "sealed": _sealed,
        }
    ),
    "open": Fields({**_sum, "combined": _by_party, "sealed": _sealed}),
    "verify": Fields({**_sum, "senders": _names, "dtype": _dtype, "sealed": _sealed}),
    "evaluate": Fields({"run": _run, "round": _round, "participants": _names, "sealed": _sealed}),
    "end": Fields({"run": _run, "sealed": _sealed}),
}
ANSWERS: Dict[str, Fields] = {
    "join": Fields(
        {
            "classes": ListOf(Text(200), _CLASSES, distinct=True),
            "image_shape": ListOf(Whole(1, 1 << 16), 3, 3),
            "layout": Text(128),
            "model": Text(128),
            # SHA-256 of the weights that the network starts from; empty where they are drawn
            "weights": Text(64, "([0-9a-f]{64})?", "64 hexadecimal digits, or nothing"),
            "public_key": _public_key,
            "sealed": MapOf(_name, Bytes(_KEY_BYTES), _HOSPITALS),
            "common": MapOf(_name, Bytes(_COMMON_BYTES), _HOSPITALS),
            "key_id": Bytes(64),
            "opener_key": Bytes(32, [0, 32]),
        }
    ),
    "statistics": _protected,
    "train": _protected,
    "evaluate": _protected,
    "protect": _protected,
    "release": Fields({"release": Bytes(32, [0, 32])}),
    "combine": Fields({"sums": _by_party, "refused": MapOf(_name, Reason(), _HOSPITALS)}),
    "open": Fields({"words": _body, "dtype": _dtype, "senders": _names}, rule=_of_whole_words),
    "verify": Fields({"proved": Bool()}),
    "end": Fields({}),
}


def encode_request(kind: str, fields: Mapping[str, Any]) -> bytes:
    """Return a request as bytes."""
    return msgpack.packb({"version": VERSION, "kind": kind, "fields": dict(fields)}, use_bin_type=True)


def decode_request(data: bytes, limit: int = MESSAGE_BYTES) -> Tuple[str, Dict[str, Any]]:
    """Return kind and fields of a request of at most ``limit`` bytes.

    Raises :class:`~skinfl.errors.MessageError` for anything else.
    """
    found = _unpack(COORDINATOR, data, limit)
    kind = found.get("kind")
    if not isinstance(kind, str) or kind not in REQUESTS:
        raise MessageError(COORDINATOR, f"a request of kind {str(kind)[:40]!r} is unknown here")
    return kind, _read(COORDINATOR, found, {"kind"}, REQUESTS[kind])


def encode_answer(fields: Mapping[str, Any]) -> bytes:
    """Return an answer as bytes."""
    return msgpack.packb({"version": VERSION, "fields": dict(fields)}, use_bin_type=True)


def encode_refusal(error: SkinflError) -> bytes:
    """Return a refusal as bytes: what is wrong, and whether it is that a sum is not proved."""
    part = "unproved" if isinstance(error, UnprovedSum) else "refused"
    told = Reason().read(str(error), "reason")
    return msgpack.packb({"version": VERSION, part: told}, use_bin_type=True)


def decode_answer(kind: str, sender: str, data: bytes, limit: int = MESSAGE_BYTES) -> Dict[str, Any]:
    """Return the fields of ``sender``'s answer of at most ``limit`` bytes to a request of that kind.

    Raises :class:`~skinfl.errors.ProtectionError` with the hospital's reason, made one printable line, where
    it refused (:class:`~skinfl.errors.UnprovedSum` where it is that), and
    :class:`~skinfl.errors.MessageError` for what is no answer.
    """
    found = _unpack(sender, data, limit)
    for part, kind_of_error in (("refused", ProtectionError), ("unproved", UnprovedSum)):
        if set(found) == {"version", part} and isinstance(found[part], str):
            raise kind_of_error(Reason().read(found[part], "reason"))
    return _read(sender, found, set(), ANSWERS[kind])


def _unpack(sender: str, data: bytes, limit: int) -> Dict[str, Any]:
    if not isinstance(data, bytes):
        raise MessageError(sender, "it is no bytes")
    if len(data) > limit:
        raise MessageError(sender, f"it has {len(data)} bytes, {limit} are the limit")
    try:
        check_size(data, _VALUES, _DEPTH)
        found = msgpack.unpackb(
            data,
            raw=False,
            strict_map_key=True,
            object_pairs_hook=_once_each,
            max_str_len=_TEXT_BYTES,
            max_bin_len=limit,
            max_array_len=_HOSPITALS,
            max_map_len=_HOSPITALS,
            max_ext_len=0,
        )
    except Exception as error:  # msgpack raises what comes to hand, also of its own buffers
        raise MessageError(sender, "it is cut short, damaged, or holds too much") from error
    if not isinstance(found, dict):
        raise MessageError(sender, "it is no message of this package")
    if type(found.get("version")) is not int or found["version"] != VERSION:
        claimed = str(found.get("version"))[:20]
        raise MessageError(
            sender, f"it speaks version {claimed}, this is {VERSION}: install one release everywhere"
        )
    return found


def _once_each(pairs: List[Tuple[Any, Any]]) -> Dict[Any, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice in one map")
    return found


def _read(sender: str, found: Dict[str, Any], beside: set, fields: Fields) -> Dict[str, Any]:
    if set(found) != {"version", "fields", *beside}:
        raise MessageError(sender, "it lacks parts or has strange ones")
    try:
        return fields.read(found["fields"], "")
    except Unfit as error:
        raise MessageError(sender, str(error)) from None

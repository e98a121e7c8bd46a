"""What coordinator and hospitals say to each other, as msgpack: never pickle.

A request is a kind and its fields; an answer is fields, or the hospital's reason to refuse. Which
fields a kind has is in ``FIELDS``; a message with others, or with values of another type, is refused.

1. ``join`` (once per run): the settings and who takes part; the hospital answers with its fresh public
   key, once in the clear and once sealed to each of the others.
2. ``statistics`` (once per run): asks for the protected sums for normalisation and class weights.
3. ``train`` (each round): brings the model, asks for the protected contribution.
4. ``combine`` (each round, secret sharing): brings a party the shares sealed to it, asks for its sum.
   ``open`` (each round, homomorphic encryption): brings the encrypted sum, asks for the sum.
5. ``evaluate`` (after the last round): asks for metrics of the final model.

All but ``join`` carry ``sealed``: what the other hospitals sealed to
this one when they joined, until it has answered once.
"""

from __future__ import annotations

from typing import Any, Dict, Mapping, Tuple, Union

import msgpack

from skinfl.errors import MessageError, ProtectionError

VERSION = 1
COORDINATOR = "coordinator"
#: the query by which a node that was registered without a name is asked for one; not a request
WHO = "who"

_Types = Union[type, Tuple[type, ...]]
_TASK: Dict[str, _Types] = {
    "run": str,
    "round": int,
    "normalisation": list,
    "class_weights": (list, type(None)),
    "accepted_round": int,
    "ranges": (bytes, type(None)),
}
FIELDS: Dict[str, Dict[str, _Types]] = {
    "join": {
        "run": str,
        "settings": dict,
        "hospitals": list,
        "parties": dict,
        "coordinator_key": bytes,
        "unit": int,
    },
    "statistics": {"run": str, "sealed": dict},
    "train": {**_TASK, "participants": list, "evaluate": bool, "sealed": dict},
    "combine": {"run": str, "round": int, "messages": dict, "senders": list, "sealed": dict},
    "open": {"run": str, "round": int, "combined": dict, "sealed": dict},
    "evaluate": {**_TASK, "last": bool, "sealed": dict},
}
ANSWERS: Dict[str, Dict[str, _Types]] = {
    "join": {
        "classes": list,
        "image_shape": list,
        "layout": str,
        "public_key": bytes,
        "sealed": dict,
        "common": dict,
        "key_id": bytes,
        "opener_key": bytes,
    },
    "statistics": {"messages": dict, "clipped": float},
    "train": {
        "messages": dict,
        "loss": float,
        "clipped": float,
        "seconds": dict,
        "metrics": (dict, type(None)),
    },
    "combine": {"sums": dict, "refused": dict},
    "open": {"total": bytes, "senders": list, "ranges": (bytes, type(None))},
    "evaluate": {"metrics": (dict, type(None))},
}


def encode_request(kind: str, fields: Mapping[str, Any]) -> bytes:
    """Return a request as bytes."""
    return msgpack.packb({"version": VERSION, "kind": kind, "fields": dict(fields)}, use_bin_type=True)


def decode_request(data: bytes) -> Tuple[str, Dict[str, Any]]:
    """Return kind and fields of a request; raises :class:`~skinfl.errors.MessageError` for others."""
    found = _unpack(COORDINATOR, data)
    kind = found.get("kind")
    if not isinstance(kind, str) or kind not in FIELDS:
        raise MessageError(COORDINATOR, f"a request of kind {kind!r} is unknown here")
    return kind, _checked(COORDINATOR, found.get("fields"), FIELDS[kind])


def encode_answer(fields: Mapping[str, Any]) -> bytes:
    """Return an answer as bytes."""
    return msgpack.packb({"version": VERSION, "fields": dict(fields)}, use_bin_type=True)


def encode_refusal(reason: str) -> bytes:
    """Return a refusal as bytes."""
    return msgpack.packb({"version": VERSION, "refused": reason}, use_bin_type=True)


def decode_answer(kind: str, sender: str, data: bytes) -> Dict[str, Any]:
    """Return the fields of ``sender``'s answer to a request of that kind.

    Raises :class:`~skinfl.errors.ProtectionError` with the hospital's reason where it refused,
    :class:`~skinfl.errors.MessageError` for what is no answer.
    """
    found = _unpack(sender, data)
    if isinstance(found.get("refused"), str):
        raise ProtectionError(found["refused"])
    return _checked(sender, found.get("fields"), ANSWERS[kind])


def _unpack(sender: str, data: bytes) -> Dict[str, Any]:
    try:
        found = msgpack.unpackb(data, raw=False, strict_map_key=True)
    except Exception as error:  # msgpack raises what comes to hand, also of its own buffers
        raise MessageError(sender, "it is cut short or damaged") from error
    if not isinstance(found, dict):
        raise MessageError(sender, "it is no message of this package")
    if found.get("version") != VERSION:
        raise MessageError(
            sender,
            f"it speaks version {found.get('version')!r}, this is {VERSION}: install one release everywhere",
        )
    return found


def _checked(sender: str, fields: Any, expected: Mapping[str, _Types]) -> Dict[str, Any]:
    if not isinstance(fields, dict) or set(fields) != set(expected):
        raise MessageError(sender, "it lacks fields or has strange ones")
    for name, kinds in expected.items():
        value = fields[name]
        is_bool_as_int = isinstance(value, bool) and kinds is int
        if not isinstance(value, kinds) or is_bool_as_int:
            raise MessageError(sender, f"its field {name!r} is of a wrong type")
    return fields

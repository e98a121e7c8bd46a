"""Messages between client and server: msgpack of ``{skinfl, kind, parameters, body}``.

``skinfl`` is the version of messages, ``parameters`` the fingerprint of the specification that sender and
receiver must share. Nothing in a message is executed, its size is bounded by who receives it, and what is
not exactly as expected is refused with a reason.

============ =================================== ==========================
kind         body                                answered by
============ =================================== ==========================
keys         galois, relin: bytes                registered: keys (an id)
image        keys: id, image: list of bytes      answer: answer (bytes)
batch        pixels: list of bytes               answers: answers (list)
============ =================================== ==========================
"""

from __future__ import annotations

from typing import Any, Dict, Mapping

import msgpack

from skinfl.errors import MessageError
from skinfl.inference.parameters import VERSION

MEDIA_TYPE = "application/msgpack"
#: kind -> its fields and their types; a list holds bytes
FIELDS: Dict[str, Mapping[str, type]] = {
    "keys": {"galois": bytes, "relin": bytes},
    "registered": {"keys": str},
    "image": {"keys": str, "image": list},
    "answer": {"answer": bytes},
    "batch": {"pixels": list},
    "answers": {"answers": list},
}


class Refused(MessageError):
    """A message that was refused, with the HTTP ``status`` and a short ``code`` that say why."""

    def __init__(self, sender: str, status: int, code: str, reason: str):
        super().__init__(sender, reason)
        self.status = status
        self.code = code


def pack(kind: str, fingerprint: str, **body: Any) -> bytes:
    """Return a message of ``kind``."""
    envelope = {"skinfl": VERSION, "kind": kind, "parameters": fingerprint, "body": body}
    return msgpack.packb(envelope, use_bin_type=True)


def unpack(message: bytes, kind: str, fingerprint: str, sender: str) -> Dict[str, Any]:
    """Return the body of a message of ``kind`` and of these parameters.

    Raises :class:`Refused` with status 400 for anything else, 409 for another version or other parameters.
    """
    try:
        envelope = msgpack.unpackb(
            message, raw=False, max_map_len=8, max_array_len=1 << 16, max_str_len=256, max_ext_len=0
        )
    except Exception as error:  # msgpack raises several kinds, also RecursionError-like ones of its own
        raise Refused(sender, 400, "malformed", "it is not a message of skinfl, or is cut short") from error
    if not isinstance(envelope, dict) or set(envelope) != {"skinfl", "kind", "parameters", "body"}:
        raise Refused(sender, 400, "malformed", "it is not a message of skinfl")
    if envelope["skinfl"] != VERSION:
        raise Refused(
            sender,
            409,
            "version",
            f"it is of message version {envelope['skinfl']!r}, not {VERSION}: use one skinfl on both sides",
        )
    if envelope["kind"] != kind:
        raise Refused(sender, 400, "malformed", f"it is of kind {envelope['kind']!r}, expected {kind!r}")
    if envelope["parameters"] != fingerprint:
        raise Refused(
            sender, 409, "parameters", "it was made for other parameters: ask for the model's parameters anew"
        )
    body, fields = envelope["body"], FIELDS[kind]
    sound = (
        isinstance(body, dict)
        and set(body) == set(fields)
        and all(isinstance(body[name], expected) for name, expected in fields.items())
        and all(isinstance(v, bytes) for name, t in fields.items() if t is list for v in body[name])
    )
    if not sound:
        raise Refused(sender, 400, "malformed", f"its body is not that of {kind!r}")
    return body

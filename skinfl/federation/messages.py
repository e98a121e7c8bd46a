"""The server's state as bytes, as it is sent to the hospitals.

Only arrays that the strategy declares as sent are in it. A hospital holds what comes to the declaration
of its own strategy for its own network, and refuses anything else.
"""

from __future__ import annotations

from typing import Iterable

import msgpack
import numpy as np

from skinfl.errors import MessageError
from skinfl.federation.state import ServerState, StateArray

_VERSION = 2


def encode_server(server: ServerState) -> bytes:
    """Return the arrays declared as sent, as msgpack: float32, little-endian."""
    arrays = {name: array.astype("<f4").tobytes() for name, array in server.sent().items()}
    return msgpack.packb({"version": _VERSION, "arrays": arrays})


def decode_server(data: bytes, declared: Iterable[StateArray]) -> ServerState:
    """Return the state that :func:`encode_server` encoded.

    ``declared`` is the hospital's own :meth:`~skinfl.federation.strategies.base.Strategy.state_layout`.
    Raises :class:`~skinfl.errors.MessageError` for any other names, sizes or content.
    """
    sent = [d for d in declared if d.sent]
    try:
        fields = msgpack.unpackb(data)
        version, arrays = fields["version"], fields["arrays"]
        if version != _VERSION:
            raise MessageError(
                "server", f"state of version {str(version)[:20]}, this package reads {_VERSION}"
            )
        if len(fields) != 2 or any(type(a) is not bytes for a in arrays.values()):
            raise TypeError
    except (ValueError, KeyError, TypeError, AttributeError, msgpack.exceptions.UnpackException):
        raise MessageError("server", "not a model state: cut short or damaged; ask for it again") from None
    try:
        values = {name: np.frombuffer(array, "<f4") for name, array in arrays.items()}
        return ServerState(sent, values)
    except ValueError as error:
        raise MessageError(
            "server", f"{error}: let all machines run one release with one network and strategy"
        ) from None


def server_bytes(server: ServerState) -> int:
    """Return how long the encoded state is."""
    return len(encode_server(server))

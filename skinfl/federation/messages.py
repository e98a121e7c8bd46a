"""The server's state as bytes, as it is sent to the hospitals."""

from __future__ import annotations

import msgpack
import numpy as np

from skinfl.errors import MessageError
from skinfl.federation.strategies.base import ServerState

_VERSION = 1


def encode_server(server: ServerState) -> bytes:
    """Return the state as msgpack: float32, little-endian."""
    control = None if server.control is None else server.control.astype("<f4").tobytes()
    return msgpack.packb(
        {"version": _VERSION, "model": server.model.astype("<f4").tobytes(), "control": control}
    )


def decode_server(data: bytes) -> ServerState:
    """Return the state that :func:`encode_server` encoded; raises :class:`MessageError` for others."""
    try:
        fields = msgpack.unpackb(data)
        if fields["version"] != _VERSION:
            raise MessageError(
                "server", f"state of version {fields['version']}, this package reads {_VERSION}"
            )
        control = None if fields["control"] is None else np.frombuffer(fields["control"], "<f4")
        return ServerState(np.frombuffer(fields["model"], "<f4"), control)
    except (ValueError, KeyError, TypeError, msgpack.exceptions.UnpackException):
        raise MessageError("server", "not a model state: cut short or damaged; ask for it again") from None


def server_bytes(server: ServerState) -> int:
    """Return how long the encoded state is."""
    return len(encode_server(server))

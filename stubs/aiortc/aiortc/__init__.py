"""A stand-in for aiortc: holds the names that PySyft 0.2.9 imports, each of which raises when used.

PySyft needs aiortc only to connect grid nodes over WebRTC. Virtual workers, websocket workers and
all that skinfl does never reach these names.
"""


class StandInError(RuntimeError):
    """WebRTC was asked of the stand-in for aiortc."""

    def __init__(self, name: str):
        super().__init__(
            f"aiortc.{name} was used, but a stand-in without WebRTC is installed in the place of aiortc; "
            "docs/environments.md of skinfl says how to install the real one"
        )


class RTCPeerConnection:
    """Raises :class:`StandInError` when made."""

    def __init__(self, *args: object, **kwargs: object):
        raise StandInError("RTCPeerConnection")


class RTCSessionDescription:
    """Raises :class:`StandInError` when made."""

    def __init__(self, *args: object, **kwargs: object):
        raise StandInError("RTCSessionDescription")

"""The signalling names that PySyft 0.2.9 imports; each raises when used."""

from aiortc import StandInError


class CopyAndPasteSignaling:
    """Raises :class:`~aiortc.StandInError` when made."""

    def __init__(self, *args: object, **kwargs: object):
        raise StandInError("contrib.signaling.CopyAndPasteSignaling")


def object_from_string(*args: object, **kwargs: object) -> None:
    """Raise :class:`~aiortc.StandInError`."""
    raise StandInError("contrib.signaling.object_from_string")


def object_to_string(*args: object, **kwargs: object) -> None:
    """Raise :class:`~aiortc.StandInError`."""
    raise StandInError("contrib.signaling.object_to_string")

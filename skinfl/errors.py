"""Errors that a user can mend: each is one line that says what is wrong and what to do about it.

Whatever derives from :class:`SkinflError` ends a command with exit status 2 and no traceback.
Anything else is a defect of the package and keeps its traceback.
"""

from __future__ import annotations

import difflib
from typing import Iterable


class SkinflError(Exception):
    """Base of all errors caused by input, settings, files or messages."""


class SettingsError(SkinflError):
    """A setting that does not exist, or whose value is impossible."""


class DataError(SkinflError):
    """A data set that is missing, incomplete, malformed or cannot be split as asked."""


class ModelError(SkinflError):
    """A network that cannot be built for the given input, or weights that do not fit it."""


class ProtectionError(SkinflError):
    """Parameters of a protection that are unsafe, would overflow, or cannot open a sum."""


class MessageError(ProtectionError):
    """A protected message that was refused; ``sender`` names who claims to have sent it.

    ``reason`` is the bare reason, the text of the error names the sender as well.
    """

    def __init__(self, sender: str, reason: str):
        super().__init__(f"message from {sender!r} refused: {reason}")
        self.sender = sender
        self.reason = reason


class CheckpointError(SkinflError):
    """A checkpoint that is cut short, damaged, or of another configuration."""


class TrainingError(SkinflError):
    """Training that cannot go on, for instance because every hospital's loss is not a number."""


class DataAccessError(SkinflError):
    """An attempt to fetch data from where it must stay."""


class WriteError(SkinflError):
    """A file that cannot be written; ``reason`` is the system's, the error's text names the place too."""

    def __init__(self, path: object, reason: str):
        super().__init__(f"cannot write {path}: {reason}; make room or rights there, or choose another place")
        self.reason = reason


class MissingExtra(SkinflError):
    """An optional package is not installed; the message names the extra that brings it."""

    def __init__(self, package: str, extra: str, purpose: str):
        super().__init__(f"{purpose} needs the package {package}: pip install 'skinfl[{extra}]'")


def nearest(name: str, valid: Iterable[str]) -> str:
    """Return a hint for a mistyped name: the nearest valid one, or the list of all."""
    valid = sorted(valid)
    close = difflib.get_close_matches(name, valid, n=1)
    return f"did you mean {close[0]!r}?" if close else "valid: " + ", ".join(valid)

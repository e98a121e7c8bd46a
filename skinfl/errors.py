"""Errors that a user can mend: each is one line that says what is wrong and what to do about it.

Whatever derives from :class:`SkinflError` ends a command with exit status 2 and no traceback.
Anything else is a defect of the package and keeps its traceback.
"""

from __future__ import annotations

import difflib
from typing import Iterable, Optional


def printable(text: str, limit: Optional[int] = None) -> str:
    """Return text of another's as one line that forges nothing: for errors, logs and terminals.

    Line ends and tabs become spaces, and what is not printable (escape codes, marks that turn the direction
    of writing, halves of characters) question marks. What is beyond ``limit`` characters is cut off.
    """
    if limit is not None and len(text) > limit:
        text = text[: max(limit - 3, 0)] + "..."
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else " " if c.isspace() else "?" for c in text)


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

    ``reason`` is the bare reason, the text of the error names the sender as well. Both may hold what a
    stranger wrote, so both are made printable and cut.
    """

    def __init__(self, sender: str, reason: str):
        sender, reason = printable(sender, 64), printable(reason, 500)
        super().__init__(f"message from {sender!r} refused: {reason}")
        self.sender = sender
        self.reason = reason


class UnprovedSum(ProtectionError):
    """An opened sum that is not proved to be what its senders protected; :data:`MARK` is in its text."""

    MARK = "is not proved"


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


class BrokenPackage(SkinflError):
    """A package that this one needs is missing or cannot be loaded; the message says what it died of."""

    def __init__(self, package: str, error: BaseException):
        if is_missing(package, error):
            text = f"the package {package} is missing: pip install {package}"
        else:
            reason = (str(error).splitlines() or ["no message"])[0]
            text = (
                f"the package {package} is installed and cannot be loaded ({type(error).__name__}: "
                f"{reason}): install it anew, in a version that goes with the others (docs/environments.md)"
            )
        super().__init__(text)


def check_name(text: str) -> str:
    """Return a path as it is; refuse one that no file can record, which UTF-8 has no bytes for.

    Python stands strange bytes of a name for lone surrogates: all beyond ASCII in the locale "C" of old
    systems and bare containers, and names from old disks anywhere.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise SettingsError(
            f"the path {text!r} is no text in this locale: set PYTHONUTF8=1 or LC_ALL=C.UTF-8, or rename it"
        ) from None
    return text


def is_missing(package: str, error: BaseException) -> bool:
    """Say whether ``error`` means that ``package`` is not there; one that breaks on import is."""
    return isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] == package


def broken_package(error: BaseException) -> Optional[BrokenPackage]:
    """Return what to say of an error that arose while somebody else's package was imported.

    None for any other. A package that was built for another release of its neighbours, or lacks a library
    of the system, dies of whatever its first lines do: ImportError, OSError, AttributeError, RuntimeError.
    """
    package, trace = "", error.__traceback__
    while trace is not None and not package:
        if trace.tb_frame.f_code.co_name == "<module>":
            name = str(trace.tb_frame.f_globals.get("__name__")).partition(".")[0]
            package = "" if name in ("skinfl", "__main__") else name
        trace = trace.tb_next
    if not package and isinstance(error, ImportError):
        package = (error.name or "").partition(".")[0]
    return BrokenPackage(package, error) if package not in ("", "skinfl") else None


def nearest(name: str, valid: Iterable[str]) -> str:
    """Return a hint for a mistyped name: the nearest valid one, or the list of all."""
    valid = sorted(valid)
    close = difflib.get_close_matches(name, valid, n=1)
    return f"did you mean {close[0]!r}?" if close else "valid: " + ", ".join(valid)

"""A protection by name, from the options that settings give."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Dict, NamedTuple, Tuple

from skinfl.errors import SettingsError, nearest
from skinfl.protection.base import Protection


class Choice(NamedTuple):
    """The module that a protection's class is in, the class, and the names of its options."""

    module: str
    cls: str
    options: Tuple[str, ...] = ()


_ENCODING = ("precision", "clip", "rounding")
_LIBRARY = ("parties", "precision", "clip")
#: a new protection is added here; its module is imported only where it is chosen
CHOICES: Dict[str, Choice] = {
    "plaintext": Choice("skinfl.protection.plaintext", "Plaintext"),
    "smpc": Choice(
        "skinfl.protection.smpc.protection",
        "Smpc",
        ("smpc_scheme", "parties", "threshold", "ring", *_ENCODING),
    ),
    "he": Choice(
        "skinfl.protection.he.protection",
        "He",
        ("he_scheme", "bits", "degree", "rounding_seed", "error_feedback", *_ENCODING),
    ),
    "sympc": Choice("skinfl.openmined.sympc_sharing", "Sympc", _LIBRARY),
    "pysyft": Choice("skinfl.openmined.pysyft_sharing", "PySyftSharing", _LIBRARY),
}


def build_protection(name: str, **options: Any) -> Protection:
    """Return the protection ``name``, one of :data:`CHOICES`.

    An option that is None takes its default; ``smpc_scheme`` and ``he_scheme`` are those classes'
    ``scheme``. See :class:`~skinfl.protection.smpc.protection.Smpc` and
    :class:`~skinfl.protection.he.protection.He` for what the others mean. ``"sympc"`` and ``"pysyft"``
    are the libraries' own sharing, to compare with, where they are installed.

    Raises :class:`~skinfl.errors.SettingsError` for an unknown name or option and an impossible value.
    """
    if name not in CHOICES:
        raise SettingsError(f"unknown protection {name!r}: {nearest(str(name), CHOICES)}")
    choice = CHOICES[name]
    given = {option: value for option, value in options.items() if value is not None}
    for option in given:
        if option not in choice.options:
            hint = nearest(option, choice.options) if choice.options else "it has none"
            raise SettingsError(f"protection {name!r} has no option {option!r}: {hint}")
    scheme = given.pop(f"{name}_scheme", None)
    if scheme is not None:
        given["scheme"] = scheme
    module = import_module(choice.module)
    return getattr(module, choice.cls)(**given)


def protection_of(settings: Any, **more: Any) -> Protection:
    """Return the protection that ``settings.protection`` names, with those of its options that are set.

    ``settings`` is anything with options as attributes, so that nothing here knows
    :class:`~skinfl.settings.Settings`. Options of other protections are left alone: a comparison runs
    several on one set of settings. ``more`` are options that no setting has.
    """
    choice = CHOICES[settings.protection]
    options = {name: getattr(settings, name) for name in choice.options if hasattr(settings, name)}
    if options.get("parties") not in (None, "hospitals"):
        options["parties"] = int(options["parties"])
    return build_protection(settings.protection, **options, **more)

"""A protection by name, from the options that settings give."""

from __future__ import annotations

from typing import Any, Dict, Tuple

from skinfl.errors import SettingsError, nearest
from skinfl.protection.base import Protection
from skinfl.protection.plaintext import Plaintext
from skinfl.protection.smpc.protection import Smpc

_ENCODING = ("precision", "clip", "rounding")
_OPTIONS: Dict[str, Tuple[str, ...]] = {
    "plaintext": (),
    "smpc": ("smpc_scheme", "parties", "threshold", "ring", *_ENCODING),
    "he": ("he_scheme", "bits", "degree", "rounding_seed", "error_feedback", *_ENCODING),
}


def build_protection(name: str, **options: Any) -> Protection:
    """Return the protection ``name``: ``"plaintext"``, ``"smpc"`` or ``"he"``.

    An option that is None takes its default. Options of ``smpc``: smpc_scheme, parties, threshold,
    ring; of ``he``: he_scheme, bits, degree, rounding_seed, error_feedback; of both: precision, clip,
    rounding. See
    :class:`~skinfl.protection.smpc.protection.Smpc` and :class:`~skinfl.protection.he.protection.He`.

    Raises :class:`~skinfl.errors.SettingsError` for an unknown name or option and an impossible value.
    """
    if name not in _OPTIONS:
        raise SettingsError(f"unknown protection {name!r}: {nearest(str(name), _OPTIONS)}")
    given = {option: value for option, value in options.items() if value is not None}
    for option in given:
        if option not in _OPTIONS[name]:
            hint = nearest(option, _OPTIONS[name]) if _OPTIONS[name] else "it has none"
            raise SettingsError(f"protection {name!r} has no option {option!r}: {hint}")
    if name == "plaintext":
        return Plaintext()
    scheme = given.pop(f"{name}_scheme", None)
    if scheme is not None:
        given["scheme"] = scheme
    if name == "smpc":
        return Smpc(**given)
    from skinfl.protection.he.protection import He  # tenseal is loaded only where it is used

    return He(**given)

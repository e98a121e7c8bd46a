"""A protection by name, from the options that settings give."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from skinfl.errors import SettingsError, nearest
from skinfl.protection.registry import PROTECTIONS

if TYPE_CHECKING:
    from skinfl.protection.base import Protection


def build_protection(name: str, **options: Any) -> Protection:
    """Return the protection ``name``, one of :data:`~skinfl.protection.registry.PROTECTIONS`.

    An option that is None takes its default. See :class:`~skinfl.protection.smpc.protection.Smpc` and
    :class:`~skinfl.protection.he.protection.He` for what they mean; ``smpc_scheme`` and ``he_scheme`` are
    those classes' ``scheme``.

    Raises :class:`~skinfl.errors.SettingsError` for an unknown name or option and an impossible value.
    """
    entry = PROTECTIONS[name]
    given = {option: value for option, value in options.items() if value is not None}
    for option in given:
        if option not in entry.keywords:
            hint = nearest(option, entry.keywords) if entry.keywords else "it has none"
            raise SettingsError(f"protection {name!r} has no option {option!r}: {hint}")
    protection: Protection = entry.builder(**given)
    return protection


def check_protection(name: str, hospitals: int, **options: Any) -> None:
    """Refuse what :func:`build_protection` or the set-up for so many hospitals would refuse; make no keys.

    Raises a :class:`~skinfl.errors.SkinflError` that says what to change.
    """
    build_protection(name, **options).check(hospitals)

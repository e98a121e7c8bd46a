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


def protection_of(settings: Any, **facts: Any) -> Protection:
    """Return the protection that ``settings.protection`` names, with its own options.

    Nothing here knows more of settings than that name and ``asdict()``. Options of other protections are
    left alone: a comparison runs several on one set of settings. ``facts``: what no setting says, such as
    ``simulation_seed`` where one process plays all roles.
    """
    protection: Protection = PROTECTIONS.build(settings.protection, settings.asdict(), **facts)
    return protection

"""The registry of update transforms. Each registers itself in its own file."""

from __future__ import annotations

from skinfl.registry import Registry

TRANSFORMS = Registry(
    "transforms",
    group="Transforms",
    help="what updates go through before they are protected",
    default="",
    derived="none",
    several=True,
)

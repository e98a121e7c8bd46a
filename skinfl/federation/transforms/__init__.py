"""Update transforms, one file each, and their choice by name."""

from __future__ import annotations

from typing import Any, Mapping

from skinfl.federation.transforms.base import (
    Figures,
    HospitalContext,
    Pipeline,
    ServerContext,
    UpdateTransform,
)
from skinfl.federation.transforms.clipping import NormClipping
from skinfl.federation.transforms.registry import TRANSFORMS


def build_pipeline(names: str, values: Mapping[str, Any]) -> Pipeline:
    """Return the transforms that ``names`` lists, separated by commas, each new: they may keep state.

    Their options are taken out of ``values``. Raises :class:`~skinfl.errors.SettingsError` for an unknown or
    repeated name and an impossible option.
    """
    return Pipeline([TRANSFORMS.build(entry.name, values) for entry in TRANSFORMS.chosen(names)])


__all__ = [
    "TRANSFORMS",
    "Figures",
    "HospitalContext",
    "NormClipping",
    "Pipeline",
    "ServerContext",
    "UpdateTransform",
    "build_pipeline",
]

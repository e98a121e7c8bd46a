"""Update transforms, one file each, and their choice by name."""

from __future__ import annotations

from typing import Any, Dict, Mapping, Type

from skinfl.errors import SettingsError, nearest
from skinfl.federation.transforms.base import (
    Figures,
    HospitalContext,
    Pipeline,
    ServerContext,
    UpdateTransform,
    parameters,
)
from skinfl.federation.transforms.clipping import NormClipping

#: a new transform is added here
TRANSFORMS: Dict[str, Type[UpdateTransform]] = {"clipping": NormClipping}


def build_pipeline(names: str, options: Mapping[str, Any]) -> Pipeline:
    """Return the transforms that ``names`` lists, separated by commas, each new: they may keep state.

    A transform's parameters are taken from the ``options`` of the same name where there are such. Raises
    :class:`~skinfl.errors.SettingsError` for an unknown or repeated name and an impossible parameter.
    """
    transforms = []
    for name in filter(None, (part.strip() for part in names.split(","))):
        if name not in TRANSFORMS:
            raise SettingsError(f"unknown transform {name!r}: {nearest(name, TRANSFORMS)}")
        cls = TRANSFORMS[name]
        transforms.append(cls(**{key: options[key] for key in parameters(cls) if key in options}))
    return Pipeline(transforms)


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

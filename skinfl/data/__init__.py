"""What a hospital holds: readers of published data sets, splits, partitions, transforms.

Settings declare partitions without waiting for the readers: these are imported when first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from skinfl.data.dataset import Lesion, LesionDataset
    from skinfl.data.detect import load

_WHERE = {"Lesion": "dataset", "LesionDataset": "dataset", "load": "detect"}


def __getattr__(name: str) -> Any:
    """Import what is asked for."""
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)


__all__ = ["Lesion", "LesionDataset", "load"]

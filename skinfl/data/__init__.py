"""What a hospital holds: readers of published data sets, splits, partitions, transforms.

What is exported here is loaded when it is first asked for: a clinic that opens one image
(:mod:`skinfl.data.images`) needs no reader.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Dict, List

if TYPE_CHECKING:
    from skinfl.data.dataset import Lesion, LesionDataset
    from skinfl.data.detect import load

__all__ = ["Lesion", "LesionDataset", "load"]

_MODULES: Dict[str, str] = {
    "Lesion": "skinfl.data.dataset",
    "LesionDataset": "skinfl.data.dataset",
    "load": "skinfl.data.detect",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> List[str]:
    return sorted({*globals(), *__all__})

"""What a hospital holds: readers of published data sets, splits, partitions, transforms.

A reader of one's own needs the names exported here and :mod:`skinfl.data.folders`, :mod:`skinfl.data.tables`.
They are loaded when first asked for: a clinic that opens one image (:mod:`skinfl.data.images`) needs no
reader.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from skinfl.lazy import exports

if TYPE_CHECKING:
    from skinfl.data.dataset import Lesion, LesionDataset
    from skinfl.data.detect import load
    from skinfl.data.index import Complain, Index, Photograph
    from skinfl.data.readers import Found, Reader, all_readers, register
    from skinfl.data.sources import Progress, Source
    from skinfl.predictions import LesionClass

__all__ = [
    "Complain",
    "Found",
    "Index",
    "Lesion",
    "LesionClass",
    "LesionDataset",
    "Photograph",
    "Progress",
    "Reader",
    "Source",
    "all_readers",
    "load",
    "register",
]

__getattr__, __dir__ = exports(
    __name__,
    {
        "Complain": "skinfl.data.index",
        "Found": "skinfl.data.readers",
        "Index": "skinfl.data.index",
        "Lesion": "skinfl.data.dataset",
        "LesionClass": "skinfl.predictions",
        "LesionDataset": "skinfl.data.dataset",
        "Photograph": "skinfl.data.index",
        "Progress": "skinfl.data.sources",
        "Reader": "skinfl.data.readers",
        "Source": "skinfl.data.sources",
        "all_readers": "skinfl.data.readers",
        "load": "skinfl.data.detect",
        "register": "skinfl.data.readers",
    },
)

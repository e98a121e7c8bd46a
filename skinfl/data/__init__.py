"""What a hospital holds: readers of published data sets, splits, partitions, transforms.

A reader of one's own needs the names exported here and :mod:`skinfl.data.folders`, :mod:`skinfl.data.tables`.
"""

from skinfl.data.dataset import Lesion, LesionClass, LesionDataset
from skinfl.data.detect import load
from skinfl.data.index import Complain, Index, Photograph
from skinfl.data.readers import Found, Reader, all_readers, register
from skinfl.data.sources import Progress, Source

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

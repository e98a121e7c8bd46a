"""What a hospital holds: readers of published data sets, splits, partitions, transforms."""

from skinfl.data.dataset import Lesion, LesionDataset
from skinfl.data.detect import load

__all__ = ["Lesion", "LesionDataset", "load"]

"""Photographs as a frozen trunk sees them: its outputs in the place of pixels."""

from __future__ import annotations

from typing import Sequence, Tuple

import numpy as np

from skinfl.data.dataset import Indices, LesionDataset
from skinfl.data.rows import Images


class FeatureDataset(LesionDataset):
    """A data set whose ``images`` are features, shape (n, height, width, channels), float16 or float32.

    ``photographs``: what they were computed of, with the same labels and identities. ``views``: the features
    of each view of these, the first being ``images``.
    """

    def __init__(self, photographs: LesionDataset, views: Sequence[Images]):
        super().__init__(images=views[0], labels=photographs.labels, **photographs.captions())
        self.views = tuple(views)
        self._photographs = photographs

    @property
    def photographs(self) -> LesionDataset:
        """The photographs themselves, in the same order."""
        return self._photographs

    @property
    def photograph_shape(self) -> Tuple[int, int, int]:
        return self._photographs.photograph_shape

    def subset(self, indices: Indices) -> FeatureDataset:
        chosen = super().subset(np.asarray(indices, dtype=np.int64))
        return FeatureDataset(self._photographs.subset(indices), chosen.views)

    def digest(self) -> str:
        """Return the photographs' digest: features differ in their last bits from machine to machine."""
        return self._photographs.digest()

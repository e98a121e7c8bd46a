"""Photographs as a frozen trunk sees them: its outputs in the place of pixels."""

from __future__ import annotations

from typing import Any, Optional, Sequence, Tuple

import numpy as np

from skinfl.data.dataset import Indices, LesionDataset


class FeatureDataset(LesionDataset):
    """A data set whose ``images`` are features, shape (n, height, width, channels), float16 or float32.

    ``photographs``: what they were computed of, with the same labels and identities. ``views``: by view of
    the photographs (as it is, flipped, turned), their features, of which training draws one each time and
    over which evaluation averages; ``images`` are those of the first. ``trunk``: a digest of what computed
    them.
    """

    def __init__(
        self,
        photographs: LesionDataset,
        views: Sequence[Any],
        trunk: str,
        indices: Optional[np.ndarray] = None,
    ):
        self._source = photographs
        self._indices = indices
        self.trunk = trunk
        self._all = tuple(views)
        self.views = tuple(view if indices is None else view[indices] for view in views)
        captions, labels = photographs.captions(), photographs.labels
        if indices is not None:
            labels = labels[indices]
            captions = {
                name: value[indices] if isinstance(value, np.ndarray) else value
                for name, value in captions.items()
            }
        super().__init__(images=self.views[0], labels=labels, **captions)

    @property
    def photographs(self) -> LesionDataset:
        """The photographs themselves, in the same order."""
        return self._source if self._indices is None else self._source.subset(self._indices)

    @property
    def photograph_shape(self) -> Tuple[int, int, int]:
        return self._source.photograph_shape

    def subset(self, indices: Indices) -> FeatureDataset:
        chosen = np.asarray(indices, dtype=np.int64)
        of_source = chosen if self._indices is None else self._indices[chosen]
        return FeatureDataset(self._source, self._all, self.trunk, of_source)

    @property
    def looks(self) -> Tuple[Any, ...]:
        return self.views

    def drawn(self, indices: np.ndarray, rng: Optional[np.random.Generator] = None) -> np.ndarray:
        if len(self.views) == 1 or rng is None:
            return self.images[indices]
        # of floats as many are used as are asked for, so that it does not matter how many are drawn at once
        which = (rng.random(len(indices)) * len(self.views)).astype(np.int64)
        found = np.empty((len(indices), *self.images.shape[1:]), self.images.dtype)
        for view, features in enumerate(self.views):
            found[which == view] = features[indices[which == view]]
        return found

    def digest(self) -> str:
        """Return the photographs' digest: features differ in their last bits from machine to machine."""
        return self.photographs.digest()

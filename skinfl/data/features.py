"""Photographs as a frozen trunk sees them: its outputs in the place of pixels."""

from __future__ import annotations

from typing import Any, Optional, Sequence, Tuple

import numpy as np

from skinfl.data.dataset import Indices, LesionDataset


class ViewedDataset(LesionDataset):
    """A data set of which each image is there in several views.

    ``views``: by view of the photographs (as it is, flipped, turned), all images; ``images`` are those of the
    first. Training draws one view each time, evaluation averages over all. Everything else is
    :class:`LesionDataset`'s.
    """

    def __init__(self, views: Sequence[Any], labels: Indices, **captions: Any):
        super().__init__(images=views[0], labels=labels, **captions)
        self.views = tuple(views)

    @property
    def looks(self) -> Tuple[Any, ...]:
        return self.views

    def drawn(self, indices: np.ndarray, rng: Optional[np.random.Generator] = None) -> np.ndarray:
        if len(self.views) == 1 or rng is None:
            return self.images[indices]
        # of floats as many are used as are asked for, so that it does not matter how many are drawn at once
        which = (rng.random(len(indices)) * len(self.views)).astype(np.int64)
        found = np.empty((len(indices), *self.images.shape[1:]), self.images.dtype)
        for view, images in enumerate(self.views):
            found[which == view] = images[indices[which == view]]
        return found


class FeatureDataset(ViewedDataset):
    """A data set whose ``images`` are features, shape (n, height, width, channels), float16 or float32.

    ``photographs``: what they were computed of, with the same labels and identities. ``views``: the features
    of each view of these. ``trunk``: a digest of what computed them.
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
        captions, labels = photographs.captions(), photographs.labels
        if indices is not None:
            labels = labels[indices]
            captions = {
                name: value[indices] if isinstance(value, np.ndarray) else value
                for name, value in captions.items()
            }
        chosen = [view if indices is None else view[indices] for view in views]
        super().__init__(chosen, labels, **captions)

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

    def digest(self) -> str:
        """Return the photographs' digest: features differ in their last bits from machine to machine."""
        return self.photographs.digest()

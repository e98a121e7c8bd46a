"""PySyft 0.2.9's own additive sharing as a protection: ``fix_precision().share(...)``, to compare with.

Trust model: none that holds. It is :mod:`skinfl.openmined.library`'s but for the random integers, which
PySyft draws from torch's global generator: that starts from the same seed in every process, and whoever
knows or guesses its state computes all shares. Never for real updates.
"""

from __future__ import annotations

import operator
import weakref
from functools import reduce
from typing import Any, List, Sequence, Tuple

import numpy as np
import torch

from skinfl.openmined.hook import VERSION, add_worker, forget_worker, syft
from skinfl.openmined.library import Library, LibraryProtection


class PySyftLibrary(Library):
    """PySyft's fixed-point encoder and shares, added at a ``syft.VirtualWorker`` for each party."""

    def __init__(self, parties: Tuple[str, ...], precision: int):
        self._precision = precision
        self.workers = {party: add_worker(party) for party in parties}
        for worker in self.workers.values():
            weakref.finalize(self, forget_worker, worker)

    def encode(self, values: np.ndarray) -> np.ndarray:
        tensor: Any = torch.from_numpy(values)  # PySyft adds methods to tensors
        fixed = tensor.fix_precision(base=2, precision_fractional=self._precision)
        return fixed.child.child.numpy()

    def share(self, integers: np.ndarray) -> List[np.ndarray]:
        sharing = syft.AdditiveSharingTensor(dtype="long")
        shares = sharing.generate_shares(torch.from_numpy(integers), len(self.workers), sharing.torch_dtype)
        return [share.numpy() for share in shares]

    def keep(self, party: str, share: np.ndarray) -> Any:
        tensor: Any = torch.from_numpy(np.array(share))
        return tensor.send(self.workers[party])

    def add(self, pointers: Sequence[Any]) -> np.ndarray:
        return reduce(operator.add, pointers).get().numpy()

    def reconstruct(self, sums: Sequence[np.ndarray]) -> np.ndarray:
        return reduce(np.add, sums)


class PySyftSharing(LibraryProtection):
    """PySyft 0.2.9's additive sharing, at 16 fractional bits by default."""

    name = "pysyft"
    library = f"syft {VERSION} (predictable, only to compare)"

    def set_up(self, parties: Tuple[str, ...]) -> PySyftLibrary:
        """Make a virtual worker for each party."""
        return PySyftLibrary(parties, self.precision)

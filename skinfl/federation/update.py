"""A network's state as one flat vector, and back.

Both sides derive the same layout from the network and compare it by digest. Four kinds of state are
kept apart: trainable *parameters* and float *statistics* (BatchNorm's running mean and variance) are
sent; integer *counters* stay where they are, because a mean of counts has no meaning; *constants*
(frozen parameters) are equal everywhere and never sent.
"""

from __future__ import annotations

from typing import Dict, List, NamedTuple, Tuple

import numpy as np
import torch
from torch import nn

from skinfl.errors import ModelError
from skinfl.protection.layout import Segment

_BATCHNORM = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class Entry(NamedTuple):
    """One tensor of the state: its name, shape and number of values."""

    name: str
    shape: Tuple[int, ...]
    size: int


class StateLayout:
    """Where each tensor of a network lies in the vector: parameters first, then statistics.

    ``share_statistics=False`` leaves BatchNorm's statistics at each hospital (SiloBN; Andreux et al.,
    *Siloed Federated Learning for Multi-Centric Histopathology Datasets*, 2020).
    """

    def __init__(self, model: nn.Module, *, share_statistics: bool = True):
        self.parameters: List[Entry] = []
        self.statistics: List[Entry] = []
        for name, p in model.named_parameters():
            if p.requires_grad:
                self.parameters.append(Entry(name, tuple(p.shape), p.numel()))
        if share_statistics:
            for name, b in model.named_buffers():
                if b.dtype.is_floating_point:
                    self.statistics.append(Entry(name, tuple(b.shape), b.numel()))
        if not self.parameters:
            raise ModelError("the network has no trainable parameters: there is nothing to learn together")
        self.n_parameters = sum(e.size for e in self.parameters)
        self.n_statistics = sum(e.size for e in self.statistics)
        self.size = self.n_parameters + self.n_statistics
        #: which of the statistics are variances, bool, shape ``(n_statistics,)``
        self.is_variance = np.repeat(
            [e.name.endswith("running_var") for e in self.statistics], [e.size for e in self.statistics]
        ).astype(bool)

    def segments(self, prefix: str = "", *, statistics: bool = True) -> List[Segment]:
        """Return one segment per tensor, in the vector's order.

        ``prefix`` goes before parameters' names; those of statistics begin with ``statistics/``.
        """
        found = [Segment(prefix + e.name, e.size) for e in self.parameters]
        return found + [Segment("statistics/" + e.name, e.size) for e in self.statistics if statistics]

    def flatten(self, model: nn.Module) -> np.ndarray:
        """Return the state as float32, shape ``(size,)``."""
        tensors = _tensors(model)
        parts = [tensors[e.name].detach().reshape(-1) for e in self.parameters + self.statistics]
        return torch.cat([p.to(torch.float32) for p in parts]).cpu().numpy().copy()

    def write(self, model: nn.Module, vector: np.ndarray) -> None:
        """Set the network's state from ``vector``, shape ``(size,)``."""
        if vector.shape != (self.size,):
            raise ModelError(f"the state has {self.size} values, the vector {vector.shape}: another network?")
        tensors, start = _tensors(model), 0
        flat = torch.from_numpy(np.ascontiguousarray(vector, dtype=np.float32))
        with torch.no_grad():
            for e in self.parameters + self.statistics:
                tensors[e.name].copy_(flat[start : start + e.size].reshape(e.shape))
                start += e.size

    def parameter_tensors(self, vector: np.ndarray) -> List[torch.Tensor]:
        """Return the parameters' part of ``vector`` as tensors shaped like the parameters."""
        parts, start = [], 0
        for e in self.parameters:
            piece = np.ascontiguousarray(vector[start : start + e.size], dtype=np.float32)
            parts.append(torch.from_numpy(piece).reshape(e.shape))
            start += e.size
        return parts


def _tensors(model: nn.Module) -> Dict[str, torch.Tensor]:
    found: Dict[str, torch.Tensor] = dict(model.named_parameters())
    found.update(model.named_buffers())
    return found


def private_state(model: nn.Module, layout: StateLayout) -> Dict[str, np.ndarray]:
    """Return the buffers that the layout does not send: they belong to the hospital."""
    sent = {e.name for e in layout.statistics}
    return {n: b.detach().cpu().numpy().copy() for n, b in model.named_buffers() if n not in sent}


def load_private_state(model: nn.Module, state: Dict[str, np.ndarray]) -> None:
    """Put back what :func:`private_state` returned."""
    buffers = dict(model.named_buffers())
    with torch.no_grad():
        for name, value in state.items():
            buffers[name].copy_(torch.from_numpy(np.asarray(value)))


def has_batchnorm(model: nn.Module) -> bool:
    """Say whether the network normalises by statistics of a batch."""
    return any(isinstance(m, _BATCHNORM) for m in model.modules())

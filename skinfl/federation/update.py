"""A network's state as one flat vector, and back.

Both sides derive the same layout from the network and compare it by digest. Five kinds of state are
kept apart: trainable *parameters* and float *statistics* (BatchNorm's running mean and variance) are
sent; integer *counters* stay where they are, because a mean of counts has no meaning; *constants*
(frozen parameters) are equal everywhere and never sent; *personal* state is each hospital's own.
"""

from __future__ import annotations

from typing import Collection, Dict, FrozenSet, List, NamedTuple, Tuple

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
    *Siloed Federated Learning for Multi-Centric Histopathology Datasets*, 2020). ``personal``: names of
    parameters and buffers that stay there, too.
    """

    def __init__(
        self, model: nn.Module, *, share_statistics: bool = True, personal: Collection[str] = frozenset()
    ):
        self.parameters: List[Entry] = []
        self.statistics: List[Entry] = []
        #: names of what stays at each hospital because it is its own
        self.personal: FrozenSet[str] = frozenset(personal)
        for name, p in model.named_parameters():
            if p.requires_grad and name not in self.personal:
                self.parameters.append(Entry(name, tuple(p.shape), p.numel()))
        if share_statistics:
            for name, b in model.named_buffers():
                if b.dtype.is_floating_point and name not in self.personal:
                    self.statistics.append(Entry(name, tuple(b.shape), b.numel()))
        if not self.parameters and self.personal:
            raise ModelError(
                "all that is trained of the network is personal: nothing is left to learn together; keep "
                "less of it at hospitals, or train more of it"
            )
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

    def shared(self, model: nn.Module) -> List[nn.Parameter]:
        """Return the network's own parameters that the vector holds, in its order."""
        own = dict(model.named_parameters())
        return [own[e.name] for e in self.parameters]

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


def whole_state(model: nn.Module) -> Dict[str, np.ndarray]:
    """Return all that training changes, by name: trainable parameters and buffers."""
    found: Dict[str, torch.Tensor] = {n: p for n, p in model.named_parameters() if p.requires_grad}
    found.update(model.named_buffers())
    return {n: t.detach().cpu().numpy().copy() for n, t in found.items()}


def private_state(model: nn.Module, layout: StateLayout) -> Dict[str, np.ndarray]:
    """Return what training changes and the layout does not send: it belongs to the hospital."""
    sent = {e.name for e in layout.parameters + layout.statistics}
    return {n: a for n, a in whole_state(model).items() if n not in sent}


def load_private_state(model: nn.Module, state: Dict[str, np.ndarray]) -> None:
    """Put back what :func:`private_state` or :func:`whole_state` returned."""
    tensors = _tensors(model)
    with torch.no_grad():
        for name, value in state.items():
            tensors[name].copy_(torch.from_numpy(np.asarray(value)))


def has_batchnorm(model: nn.Module) -> bool:
    """Say whether the network normalises by statistics of a batch."""
    return any(isinstance(m, _BATCHNORM) for m in model.modules())


def batchnorm_names(model: nn.Module) -> FrozenSet[str]:
    """Return the names of all parameters and buffers of BatchNorm layers, which FedBN keeps at each hospital.

    Li et al., *FedBN: Federated Learning on Non-IID Features via Local Batch Normalization*, ICLR 2021,
    Algorithm 1. Raises :class:`~skinfl.errors.ModelError` where there are none.
    """
    layers = [prefix for prefix, m in model.named_modules() if isinstance(m, _BATCHNORM)]
    found = frozenset(name for name in _tensors(model) if name.rpartition(".")[0] in layers)
    if not found:
        raise ModelError(
            "personal = batchnorm keeps BatchNorm at hospitals, and this network has none: choose personal = "
            "head or ditto, or another model"
        )
    return found


def head_names(model: nn.Module) -> FrozenSet[str]:
    """Return the names of the parameters of the last layer that is trained, which FedPer keeps at hospitals.

    Arivazhagan et al., *Federated Learning with Personalization Layers*, arXiv 1912.00818, 2019, with one
    personal layer. The last is the one that the network registers last, as classifiers do with theirs.
    """
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    last = trained[-1].rpartition(".")[0] if trained else ""
    return frozenset(name for name in trained if name.rpartition(".")[0] == last)

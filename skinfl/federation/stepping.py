"""How the optimisers of :mod:`skinfl.federation.optimisers` step, where torch's own is not taken as it is."""

from __future__ import annotations

from typing import Any, Iterable

import torch


def sgd(params: Iterable[Any], lr: float, momentum: float, weight_decay: float) -> torch.optim.Optimizer:
    """Return stochastic gradient descent, on the processor in one pass over the values where torch has it."""
    params = list(params)
    options: Any = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
    if all(p.device.type == "cpu" for p in params):
        try:  # one pass over the values instead of three
            return torch.optim.SGD(params, fused=True, **options)
        except (TypeError, RuntimeError):  # came with torch 2.4, to other devices' before
            pass
    return torch.optim.SGD(params, **options)

"""The optimisers of local training: what each defaults to; :mod:`skinfl.federation.local` steps with them."""

from __future__ import annotations

from typing import Any, Iterable

from skinfl.registry import Registry

OPTIMISERS = Registry("optimiser", group="Training", help="optimiser at the hospital", default="sgd")


def _sgd_lr(settings: Any) -> float:
    return 0.03 if settings.momentum else 0.1


def _sgd(params: Iterable[Any], lr: float, momentum: float, weight_decay: float) -> Any:
    import torch

    params = list(params)
    options: Any = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
    if all(p.device.type == "cpu" for p in params):
        try:  # one pass over the values instead of three
            return torch.optim.SGD(params, fused=True, **options)
        except (TypeError, RuntimeError):  # came with torch 2.4, to other devices' before
            pass
    return torch.optim.SGD(params, **options)


OPTIMISERS.register(
    "sgd",
    "stochastic gradient descent, with momentum if wanted",
    _sgd,
    uses=("params", "lr", "momentum", "weight_decay"),
    defaults={"lr": _sgd_lr, "momentum": 0.9},
)
OPTIMISERS.register(
    "adam",
    "Adam (Kingma and Ba, 2015)",
    "torch.optim:Adam",
    uses=("params", "lr", "weight_decay"),
    defaults={"lr": 0.002, "momentum": 0.0},
)

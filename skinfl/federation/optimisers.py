"""The optimisers of local training: what each defaults to; :mod:`skinfl.federation.local` steps with them."""

from __future__ import annotations

from typing import Any, Iterable

from skinfl.registry import Registry

OPTIMISERS = Registry("optimiser", group="Training", help="optimiser at the hospital", default="sgd")


def _sgd_lr(settings: Any) -> float:
    if settings.pretrained != "none" and settings.trainable != "head":
        return 0.01  # what was learned before should not be lost in the first steps
    return 0.03 if settings.momentum else 0.1


def _adam_lr(settings: Any) -> float:
    return 0.002 if settings.pretrained == "none" else 0.0005


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
    defaults={"lr": _adam_lr, "momentum": 0.0},
)
OPTIMISERS.register(
    "adamw",
    "Adam with decay of the weights apart from the gradient (Loshchilov and Hutter, 2019)",
    "torch.optim:AdamW",
    uses=("params", "lr", "weight_decay"),
    defaults={"lr": _adam_lr, "momentum": 0.0, "weight_decay": 0.01},
)

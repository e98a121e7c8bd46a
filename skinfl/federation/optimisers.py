"""The optimisers of local training: what each defaults to; :mod:`skinfl.federation.local` steps with them."""

from __future__ import annotations

from typing import Any

from skinfl.registry import Registry


def _optimiser(settings: Any) -> str:
    return "sgd" if settings.pretrained == "none" else "adamw"


OPTIMISERS = Registry(
    "optimiser",
    group="Training",
    help="optimiser at the hospital",
    default=_optimiser,
    derived="sgd, with pretrained weights adamw",
)


def _sgd_lr(settings: Any) -> float:
    if settings.pretrained != "none":
        # thousands of features move a head far in one step; what a trunk has learned should not be lost in it
        return 0.001 if settings.trainable == "head" else 0.01
    return 0.03 if settings.momentum else 0.1


def _adam_lr(settings: Any) -> float:
    return 0.002 if settings.pretrained == "none" else 0.0003


class _Decay:
    """AdamW's default: thousands of features tell a few thousand photographs apart by chance as well."""

    def __call__(self, settings: Any) -> float:
        return 0.1 if settings.trainable == "head" else 0.01

    def __str__(self) -> str:
        return "0.01, of a head alone 0.1"


OPTIMISERS.register(
    "sgd",
    "stochastic gradient descent, with momentum if wanted",
    "skinfl.federation.stepping:sgd",
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
    defaults={"lr": _adam_lr, "momentum": 0.0, "weight_decay": _Decay()},
)

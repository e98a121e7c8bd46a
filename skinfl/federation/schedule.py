"""The learning rate over the rounds: a share of ``lr``, a pure function of the time in rounds.

Time is counted from 0, where the first round begins, to the number of rounds; a step in the middle of the
second round is at 1.5. Hospitals know round and rounds, so each computes its own rate, and nothing of it has
to be kept. Within a round, a hospital with more steps takes smaller strides through the same time.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from skinfl.errors import SettingsError
from skinfl.registry import Option, Registry

LR_SCHEDULES = Registry(
    "lr_schedule", group="Training", help="learning rate over the rounds", default="constant"
)


class LearningRate(ABC):
    """How the learning rate goes."""

    @abstractmethod
    def share(self, time: float) -> float:
        """Return the rate at a time in rounds, as a share of ``lr``, 0 to 1."""

    def at_step(self, round: int, step: int, steps: int) -> float:
        """Return the share at step ``step`` (from 0) of a hospital's ``steps`` in ``round`` (from 1).

        A step stands for the middle of its stretch of time: the first is not lost at a rate of 0.
        """
        return self.share(round - 1 + (step + 0.5) / steps)


@dataclass(frozen=True)
class Constant(LearningRate):
    """A linear rise from 0 over the first ``warmup_rounds``, then 1.

    Goyal et al., *Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour*, 2017, section 2.2.
    """

    warmup_rounds: int = 0

    def share(self, time: float) -> float:
        return time / self.warmup_rounds if time < self.warmup_rounds else 1.0


@dataclass(frozen=True)
class Cosine(LearningRate):
    """A linear rise from 0 over ``warmup_rounds``, then half a cosine from 1 down to ``lr_min_share``.

    Loshchilov and Hutter, *SGDR: Stochastic Gradient Descent with Warm Restarts*, ICLR 2017, equation 5,
    without restarts; the end is at ``rounds``.
    """

    rounds: int
    warmup_rounds: int = 0
    lr_min_share: float = 0.01

    def share(self, time: float) -> float:
        if time < self.warmup_rounds:
            return time / self.warmup_rounds
        passed = min(1.0, (time - self.warmup_rounds) / (self.rounds - self.warmup_rounds))
        return self.lr_min_share + (1 - self.lr_min_share) * (1 + math.cos(math.pi * passed)) / 2


def _leaves_rounds(settings: Any) -> None:
    if settings.warmup_rounds >= settings.rounds:
        raise SettingsError(
            f"warmup_rounds = {settings.warmup_rounds} leaves none of rounds = {settings.rounds} to train at "
            "the full rate: lower it, or ask for more rounds"
        )


_WARMUP = Option("warmup_rounds", int, 0, "rounds in which the learning rate rises from 0", low=0)

LR_SCHEDULES.register(
    "constant", "the same in all rounds", Constant, options=(_WARMUP,), rules=(_leaves_rounds,)
)
# What uses rounds takes no others when a run is resumed: its first rounds would have been others, too.
LR_SCHEDULES.register(
    "cosine",
    "half a cosine down to the last round",
    Cosine,
    options=(
        _WARMUP,
        Option(
            "lr_min_share",
            float,
            0.01,
            "where the learning rate ends, as a share of lr",
            low=0.0,
            high=1.0,
        ),
    ),
    uses=("rounds",),
    rules=(_leaves_rounds,),
)

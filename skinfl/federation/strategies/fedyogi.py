"""FedYogi: Yogi at the server, whose second moment changes by a bounded amount in each round.

Reddi et al., *Adaptive Federated Optimization*, ICLR 2021, Algorithm 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from skinfl.federation.strategies.fedopt import DEFAULTS, OPTIONS, FedOpt
from skinfl.federation.strategies.registry import STRATEGIES


@dataclass(frozen=True)
class FedYogi(FedOpt):
    """FedOpt with ``v <- v - (1 - beta2) D^2 sign(v - D^2)``, which forgets a large ``D`` more slowly."""

    name: ClassVar[str] = "fedyogi"

    def second_moment(self, v: np.ndarray, squared: np.ndarray) -> np.ndarray:
        return v - (1 - self.beta2) * squared * np.sign(v - squared)


STRATEGIES.register(
    "fedyogi",
    "Yogi at the server, whose second moment falls slower than Adam's",
    FedYogi,
    options=OPTIONS,
    defaults=DEFAULTS,
)

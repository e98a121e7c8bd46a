"""FedAdam: Adam at the server.

Reddi et al., *Adaptive Federated Optimization*, ICLR 2021, Algorithm 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from skinfl.federation.strategies.fedopt import DEFAULTS, OPTIONS, FedOpt
from skinfl.federation.strategies.registry import STRATEGIES


@dataclass(frozen=True)
class FedAdam(FedOpt):
    """FedOpt with ``v <- beta2 v + (1 - beta2) D^2``."""

    name: ClassVar[str] = "fedadam"

    def second_moment(self, v: np.ndarray, squared: np.ndarray) -> np.ndarray:
        return self.beta2 * v + (1 - self.beta2) * squared


STRATEGIES.register("fedadam", "Adam at the server", FedAdam, options=OPTIONS, defaults=DEFAULTS)

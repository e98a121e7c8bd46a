"""FedAdam: Adam at the server.

Reddi et al., *Adaptive Federated Optimization*, ICLR 2021, Algorithm 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from skinfl.federation.strategies.fedopt import FedOpt


@dataclass(frozen=True)
class FedAdam(FedOpt):
    """FedOpt with ``v <- beta2 v + (1 - beta2) D^2``."""

    name: ClassVar[str] = "fedadam"

    def second_moment(self, v: np.ndarray, squared: np.ndarray) -> np.ndarray:
        return self.beta2 * v + (1 - self.beta2) * squared

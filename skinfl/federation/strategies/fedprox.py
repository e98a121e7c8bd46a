"""FedProx: FedAvg with a pull of each local step towards the model that was sent.

Li et al., *Federated Optimization in Heterogeneous Networks*, MLSys 2020, Algorithm 2: the hospital
minimises ``F_k(y) + mu/2 * ||y - x||^2``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Optional

import numpy as np

from skinfl.federation.state import ServerState
from skinfl.federation.strategies.base import Correction
from skinfl.federation.strategies.fedavg import FedAvg
from skinfl.federation.strategies.registry import SERVER_LR, STRATEGIES
from skinfl.registry import Option


@dataclass(frozen=True)
class FedProx(FedAvg):
    """FedAvg whose hospitals add ``mu * (y - x)`` to the gradient."""

    name: ClassVar[str] = "fedprox"
    mu: float = 0.01

    def correction(self, server: ServerState, control: Optional[np.ndarray]) -> Correction:
        return Correction(proximal=self.mu)


STRATEGIES.register(
    "fedprox",
    "FedAvg with a pull towards the model that was sent",
    FedProx,
    options=(SERVER_LR, Option("mu", float, 0.01, "weight of FedProx's proximal term", low=0.0)),
)

"""FedAvg: the example-weighted mean of the hospitals' changes.

McMahan et al., *Communication-Efficient Learning of Deep Networks from Decentralized Data*, AISTATS
2017, Algorithm 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Optional, Tuple

import numpy as np

from skinfl.federation.state import ServerState
from skinfl.federation.strategies.base import Strategy, UpdateSum, pack
from skinfl.federation.strategies.registry import SERVER_LR, STRATEGIES

if TYPE_CHECKING:
    from skinfl.federation.local import LocalResult
    from skinfl.federation.update import StateLayout


@dataclass(frozen=True)
class FedAvg(Strategy):
    """``x <- x + server_lr * sum(w_k * delta_k) / sum(w_k)``.

    BatchNorm's statistics are averaged as well, but without ``server_lr``.
    """

    name: ClassVar[str] = "fedavg"
    server_lr: float = 1.0

    def contribute(
        self,
        result: LocalResult,
        weight: float,
        layout: StateLayout,
        server: ServerState,
        control: Optional[np.ndarray],
    ) -> Tuple[np.ndarray, Optional[np.ndarray]]:
        return pack(weight * result.delta.astype(np.float64), None, (weight,)), None

    def apply(
        self, server: ServerState, total: UpdateSum, layout: StateLayout, hospitals: int
    ) -> ServerState:
        return self.step(server, total, layout, total.mean_change)


STRATEGIES.register(
    "fedavg", "the example-weighted mean of the hospitals' changes", FedAvg, options=(SERVER_LR,)
)

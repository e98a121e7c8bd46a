"""FedAvgM: the server follows the hospitals' mean change with momentum.

Hsu, Qi and Brown, *Measuring the Effects of Non-Identical Data Distribution for Federated Visual
Classification*, arXiv 1909.06335, 2019, section 4.2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Tuple

import numpy as np

from skinfl.federation.state import AUXILIARY, ServerState, StateArray
from skinfl.federation.strategies.base import UpdateSum
from skinfl.federation.strategies.fedavg import FedAvg
from skinfl.federation.strategies.registry import SERVER_LR, STRATEGIES
from skinfl.registry import Option

if TYPE_CHECKING:
    from skinfl.federation.update import StateLayout


@dataclass(frozen=True)
class FedAvgM(FedAvg):
    """``v <- server_momentum * v + mean(delta_k)`` and ``x <- x + server_lr * v``.

    The mean is FedAvg's, weighted by images. ``v`` starts at zero and stays at the server. After many
    rounds a step is up to ``server_lr / (1 - server_momentum)`` times the mean change.
    """

    name: ClassVar[str] = "fedavgm"
    server_momentum: float = 0.9

    def state_layout(self, layout: StateLayout) -> Tuple[StateArray, ...]:
        return (*super().state_layout(layout), StateArray("v", layout.n_parameters, AUXILIARY))

    def apply(
        self, server: ServerState, total: UpdateSum, layout: StateLayout, hospitals: int
    ) -> ServerState:
        v = self.server_momentum * server["v"].astype(np.float64) + total.mean_change
        return self.step(server, total, layout, v).replace(v=v)


STRATEGIES.register(
    "fedavgm",
    "the mean of the changes, with momentum at the server",
    FedAvgM,
    options=(
        SERVER_LR,
        Option("server_momentum", float, 0.9, "momentum of FedAvgM's server", low=0.0, high=0.999),
    ),
)

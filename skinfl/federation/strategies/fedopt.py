"""What FedAdam, FedYogi and FedAdagrad share: an adaptive optimiser at the server, fed with the mean change.

Reddi et al., *Adaptive Federated Optimization*, ICLR 2021, Algorithm 2.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Tuple

import numpy as np

from skinfl.federation.state import AUXILIARY, ServerState, StateArray
from skinfl.federation.strategies.base import UpdateSum
from skinfl.federation.strategies.fedavg import FedAvg
from skinfl.federation.strategies.registry import SERVER_LR
from skinfl.registry import Option

if TYPE_CHECKING:
    from skinfl.federation.update import StateLayout

#: the options of FedAdam and FedYogi
OPTIONS = (
    SERVER_LR,
    Option("beta1", float, 0.9, "decay of the server's first moment", low=0.0, high=0.999),
    Option("beta2", float, 0.99, "decay of the server's second moment", low=0.0, high=0.9999),
    Option("tau", float, 1e-3, "size of a mean change below which the server's steps get shorter", low=1e-9),
)
#: a parameter moves by about this much a round, however large the mean change is
DEFAULTS = {"server_lr": 0.03}


@dataclass(frozen=True)
class FedOpt(FedAvg):
    """``m <- beta1 m + (1 - beta1) D`` and ``x <- x + server_lr * m / (sqrt(v) + tau)``.

    ``D`` is FedAvg's mean change, weighted by images; how ``v`` follows ``D^2`` is the subclass's. ``m``
    starts at zero, ``v`` at ``tau^2``; neither is corrected for that, as in the paper, and both stay at the
    server. A parameter moves by about ``server_lr`` a round, however large ``D`` is, so ``server_lr`` is
    far below one. ``tau`` is the size of a change below which steps get shorter.
    """

    server_lr: float = 0.03
    beta1: float = 0.9
    beta2: float = 0.99
    tau: float = 1e-3

    def state_layout(self, layout: StateLayout) -> Tuple[StateArray, ...]:
        kept = [StateArray(name, layout.n_parameters, AUXILIARY) for name in ("m", "v")]
        return (*super().state_layout(layout), *kept)

    def init(self, model: np.ndarray, layout: StateLayout) -> ServerState:
        return super().init(model, layout).replace(v=np.full(layout.n_parameters, self.tau**2))

    @abstractmethod
    def second_moment(self, v: np.ndarray, squared: np.ndarray) -> np.ndarray:
        """Return the next ``v`` from the last one and ``D^2``, all float64, shape ``(n_parameters,)``."""

    def apply(
        self, server: ServerState, total: UpdateSum, layout: StateLayout, hospitals: int
    ) -> ServerState:
        change = total.mean_change
        m = self.beta1 * server["m"].astype(np.float64) + (1 - self.beta1) * change
        v = self.second_moment(server["v"].astype(np.float64), change**2)
        return self.step(server, total, layout, m / (np.sqrt(v) + self.tau)).replace(m=m, v=v)

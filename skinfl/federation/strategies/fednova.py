"""FedNova: changes are divided by the length of each hospital's path before they are averaged.

Wang et al., *Tackling the Objective Inconsistency Problem in Heterogeneous Federated Optimization*,
NeurIPS 2020, equations (6) to (9). Without it, a hospital that takes more steps pulls the common
minimum towards its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Optional, Tuple

import numpy as np

from skinfl.errors import SettingsError
from skinfl.federation.state import ServerState
from skinfl.federation.strategies.base import Strategy, UpdateSum, pack
from skinfl.federation.strategies.registry import SERVER_LR, STRATEGIES

if TYPE_CHECKING:
    from skinfl.federation.local import LocalResult
    from skinfl.federation.update import StateLayout


def path_length(shares: np.ndarray, momentum: float) -> float:
    """Return ``||a_k||_1`` of SGD steps, section 4.1: their number at a constant rate without momentum.

    ``shares``: shape (steps,), the learning rate of each step over the first one's, say; ``a_k`` are the
    coefficients of the steps' gradients in the change of the model.
    """
    travelled = (1 - momentum ** np.arange(1, len(shares) + 1)) / (1 - momentum)
    return float((np.asarray(shares, np.float64) * travelled).sum())


@dataclass(frozen=True)
class FedNova(Strategy):
    """``x <- x + server_lr * tau_eff * sum(p_k * delta_k / a_k)`` with ``tau_eff = sum(p_k * a_k)``.

    ``p_k`` are the hospitals' shares of the images, ``a_k`` their path lengths. BatchNorm's statistics
    are not gradients and are averaged as in FedAvg. Path lengths are measured in ``unit_length``, the
    public number of steps of a hospital of unit weight, so that what is sent stays near one.
    """

    name: ClassVar[str] = "fednova"
    counts: ClassVar[Tuple[str, ...]] = ("weight", "weighted_path_length")
    server_lr: float = 1.0
    momentum: float = 0.0
    unit_length: float = 1.0

    def contribute(
        self,
        result: LocalResult,
        weight: float,
        layout: StateLayout,
        server: ServerState,
        control: Optional[np.ndarray],
    ) -> Tuple[np.ndarray, Optional[np.ndarray]]:
        length = path_length(result.rates, self.momentum) / self.unit_length
        change = weight * result.delta.astype(np.float64)
        change[: layout.n_parameters] /= length
        return pack(change, None, (weight, weight * length)), None

    def apply(
        self, server: ServerState, total: UpdateSum, layout: StateLayout, hospitals: int
    ) -> ServerState:
        effective_length = total.counts[1] / total.counts[0]
        return self.step(server, total, layout, effective_length * total.mean_change)


def _needs_sgd(settings: Any) -> None:
    if settings.optimiser != "sgd":
        raise SettingsError(
            f"FedNova normalises by the length of SGD's path, which {settings.optimiser} does not have: "
            "use --optimiser sgd, or another strategy"
        )


@STRATEGIES.register(
    "fednova",
    "changes divided by the length of each hospital's path",
    options=(SERVER_LR,),
    uses=("momentum", "local_epochs", "batch_size", "unit"),
    rules=(_needs_sgd,),
)
def build(*, server_lr: float, momentum: float, local_epochs: int, batch_size: int, unit: int) -> FedNova:
    """Return FedNova; path lengths are measured in those of a hospital of ``unit`` images."""
    return FedNova(
        server_lr=server_lr, momentum=momentum, unit_length=max(1.0, local_epochs * unit / batch_size)
    )

"""SCAFFOLD: control variates take the drift towards a hospital's own minimum out of each local step.

Karimireddy et al., *SCAFFOLD: Stochastic Controlled Averaging for Federated Learning*, ICML 2020,
Algorithm 1 and equations (3) to (5).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Optional, Tuple

import numpy as np

from skinfl.errors import SettingsError
from skinfl.federation.state import AUXILIARY, ServerState, StateArray
from skinfl.federation.strategies.base import Correction, Strategy, UpdateSum, pack
from skinfl.federation.strategies.registry import SERVER_LR, STRATEGIES
from skinfl.registry import Option

if TYPE_CHECKING:
    from skinfl.federation.local import LocalResult
    from skinfl.federation.update import StateLayout


@dataclass(frozen=True)
class Scaffold(Strategy):
    """Local step ``y <- y - lr * (g(y) - c_k + c)``.

    After training, option 1 sets ``c_k`` to the full gradient at the model that was sent, option 2 to
    ``c_k - c + (x - y) / (steps * lr)``, the sum of the steps' rates below where ``lr`` goes by a schedule.
    The server adds the example-weighted mean of the changes (the paper's uniform mean where all hospitals are
    equally large) and ``sum(c_k+ - c_k) / N`` to ``c``, with ``N`` all hospitals. Needs plain SGD: with
    momentum or Adam, ``(x - y) / (steps * lr)`` is no mean of gradients.
    """

    name: ClassVar[str] = "scaffold"
    has_control: ClassVar[bool] = True
    server_lr: float = 1.0
    lr: float = 0.05
    option: int = 2

    def state_layout(self, layout: StateLayout) -> Tuple[StateArray, ...]:
        return (*super().state_layout(layout), StateArray("control", layout.n_parameters, AUXILIARY))

    def correction(self, server: ServerState, control: Optional[np.ndarray]) -> Correction:
        own = 0.0 if control is None else control
        return Correction(drift=server["control"] - own, full_gradient=self.option == 1)

    def contribute(
        self,
        result: LocalResult,
        weight: float,
        layout: StateLayout,
        server: ServerState,
        control: Optional[np.ndarray],
    ) -> Tuple[np.ndarray, Optional[np.ndarray]]:
        old = np.zeros(layout.n_parameters, np.float32) if control is None else control
        if self.option == 1:
            new = result.gradient
        else:
            travelled = -result.delta[: layout.n_parameters].astype(np.float64)
            new = old - server["control"] + travelled / (result.rates.sum() * self.lr)
        new = np.asarray(new, np.float32)
        change = new.astype(np.float64) - old
        return pack(weight * result.delta.astype(np.float64), change, (weight,)), new

    def apply(
        self, server: ServerState, total: UpdateSum, layout: StateLayout, hospitals: int
    ) -> ServerState:
        control = server["control"] + total.control / hospitals
        return self.step(server, total, layout, total.mean_change).replace(control=control)


def _needs_plain_sgd(settings: Any) -> None:
    if settings.optimiser != "sgd" or settings.momentum:
        raise SettingsError(
            "SCAFFOLD's control variates assume plain SGD steps: use --optimiser sgd and --momentum 0, "
            "or another strategy"
        )


@STRATEGIES.register(
    "scaffold",
    "control variates take out the drift towards a hospital's own minimum",
    options=(
        SERVER_LR,
        Option("scaffold_option", int, 2, "SCAFFOLD's control update: 1 (extra pass) or 2", choices=(1, 2)),
    ),
    uses=("lr",),
    defaults={"momentum": 0.0},
    rules=(_needs_plain_sgd,),
)
def build(*, server_lr: float, scaffold_option: int, lr: float) -> Scaffold:
    """Return SCAFFOLD for hospitals that step with ``lr``."""
    return Scaffold(server_lr=server_lr, lr=lr, option=scaffold_option)

"""An exponential moving average of the common model, around any strategy.

Training goes on from the strategy's own model; the average is what is evaluated and kept. Averaging over the
path of SGD finds flatter and steadier minima (Izmailov et al., *Averaging Weights Leads to Wider Optima and
Better Generalization*, UAI 2018); of a federation's models it takes out part of the noise of who took part.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Optional, Tuple

import numpy as np

from skinfl.federation.state import AUXILIARY, AVERAGE, ServerState, StateArray
from skinfl.federation.strategies.base import Correction, Strategy, UpdateSum
from skinfl.protection.layout import Layout

if TYPE_CHECKING:
    from skinfl.federation.local import LocalResult
    from skinfl.federation.update import StateLayout

_MODEL, _WEIGHT = "average", "average_weight"


@dataclass(frozen=True)
class Averaged(Strategy):
    """``strategy``, and the mean of its models ``x_1 .. x_t`` with weights ``decay^(t - i)``.

    The weights are divided by their sum, as Adam corrects its moments: the model before training is not in
    the mean, and after one round it is that round's model. Parameters and BatchNorm's statistics are averaged
    alike. Two arrays are added to the state: the mean, and the sum of its weights times ``1 - decay``.
    """

    strategy: Strategy
    decay: float

    @property
    def name(self) -> str:  # type: ignore[override]
        """The strategy's own."""
        return self.strategy.name

    @property
    def has_control(self) -> bool:  # type: ignore[override]
        """The strategy's own."""
        return self.strategy.has_control

    @property
    def counts(self) -> Tuple[str, ...]:  # type: ignore[override]
        """The strategy's own."""
        return self.strategy.counts

    @property
    def server_lr(self) -> float:  # type: ignore[override]
        """The strategy's own."""
        return self.strategy.server_lr

    def state_layout(self, layout: StateLayout) -> Tuple[StateArray, ...]:
        return (
            *self.strategy.state_layout(layout),
            StateArray(_MODEL, layout.size, AVERAGE),
            StateArray(_WEIGHT, 1, AUXILIARY),
        )

    def init(self, model: np.ndarray, layout: StateLayout) -> ServerState:
        own = self.strategy.init(model, layout)
        return ServerState(self.state_layout(layout), {**own, _MODEL: own.model, _WEIGHT: np.zeros(1)})

    def contribution_layout(self, layout: StateLayout) -> Layout:
        return self.strategy.contribution_layout(layout)

    def correction(self, server: ServerState, control: Optional[np.ndarray]) -> Correction:
        return self.strategy.correction(server, control)

    def contribute(
        self,
        result: LocalResult,
        weight: float,
        layout: StateLayout,
        server: ServerState,
        control: Optional[np.ndarray],
    ) -> Tuple[np.ndarray, Optional[np.ndarray]]:
        return self.strategy.contribute(result, weight, layout, server, control)

    def apply(
        self, server: ServerState, total: UpdateSum, layout: StateLayout, hospitals: int
    ) -> ServerState:
        moved: Any = self.strategy.apply(server, total, layout, hospitals)
        weight = self.decay * server[_WEIGHT].astype(np.float64) + (1 - self.decay)
        before = server[_MODEL].astype(np.float64)
        return moved.replace(
            **{_MODEL: before + (1 - self.decay) / weight * (moved.model - before), _WEIGHT: weight}
        )

    def unpack(self, total: np.ndarray, layout: StateLayout) -> UpdateSum:
        return self.strategy.unpack(total, layout)

"""What a strategy is: an immutable pair of ``init`` and ``apply`` over explicit state.

A strategy never sees a hospital's update. Each hospital turns what it learnt into a *contribution*,
one flat vector; protections add contributions; ``apply`` is given the sum. So every strategy runs under
every protection.

A contribution is laid out as::

    [ weight * model change | control change (if the strategy has one) | counts ]

``counts`` are the few numbers that averages are divided by. They travel inside the protected vector,
so that the aggregator cannot tell a large hospital from a small one. ``weight`` is the number of the
hospital's training images over a public unit, so it lies in (0, 1].
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Optional, Tuple

import numpy as np

from skinfl.errors import TrainingError
from skinfl.protection.layout import Layout, Segment

if TYPE_CHECKING:
    from skinfl.federation.local import LocalResult
    from skinfl.federation.update import StateLayout


class ServerState(NamedTuple):
    """What a strategy keeps between rounds; all of it is in a checkpoint.

    ``model``: float32, shape ``(layout.size,)``. ``control``: float32, shape
    ``(layout.n_parameters,)``, for strategies that have one.
    """

    model: np.ndarray
    control: Optional[np.ndarray]


class Correction(NamedTuple):
    """How the local gradient is corrected, see :mod:`skinfl.federation.local`."""

    proximal: float = 0.0
    drift: Optional[np.ndarray] = None
    full_gradient: bool = False


class UpdateSum(NamedTuple):
    """The opened sum, cut into its parts (float64)."""

    model: np.ndarray
    control: Optional[np.ndarray]
    counts: np.ndarray


class Strategy(ABC):
    """Base of all strategies. Subclasses are frozen dataclasses."""

    name: ClassVar[str]
    #: whether contributions carry a control change
    has_control: ClassVar[bool] = False
    #: names of the numbers at the contribution's end; the first is always the weight
    counts: ClassVar[Tuple[str, ...]] = ("weight",)

    server_lr: float

    def init(self, model: np.ndarray, layout: StateLayout) -> ServerState:
        """Return the state before the first round."""
        control = np.zeros(layout.n_parameters, np.float32) if self.has_control else None
        return ServerState(np.asarray(model, np.float32), control)

    def contribution_layout(self, layout: StateLayout) -> Layout:
        """Return the layout of the vectors that are summed."""
        segments = layout.segments("model/")
        if self.has_control:
            segments += layout.segments("control/", statistics=False)
        return Layout([*segments, Segment("counts", len(self.counts), "count")])

    def correction(self, server: ServerState, control: Optional[np.ndarray]) -> Correction:
        """Return the correction of a hospital's gradient; ``control`` is the hospital's own."""
        return Correction()

    @abstractmethod
    def contribute(
        self,
        result: LocalResult,
        weight: float,
        layout: StateLayout,
        server: ServerState,
        control: Optional[np.ndarray],
    ) -> Tuple[np.ndarray, Optional[np.ndarray]]:
        """Return the contribution (float32) and the hospital's new control."""

    @abstractmethod
    def apply(
        self, server: ServerState, total: UpdateSum, layout: StateLayout, hospitals: int
    ) -> ServerState:
        """Return the next state. ``hospitals`` counts all of the federation, asked or not."""

    def unpack(self, total: np.ndarray, layout: StateLayout) -> UpdateSum:
        """Cut an opened sum into its parts."""
        a, b = layout.size, layout.size + (layout.n_parameters if self.has_control else 0)
        parts = UpdateSum(total[:a], total[a:b] if self.has_control else None, total[b:])
        if not parts.counts[0] > 0:
            raise TrainingError("the opened sum has no weight in it: no hospital contributed")
        return parts


def pack(model: np.ndarray, control: Optional[np.ndarray], counts: Tuple[float, ...]) -> np.ndarray:
    """Put a contribution together as float32, the reverse of :meth:`Strategy.unpack`."""
    parts = [model] if control is None else [model, control]
    return np.concatenate([*parts, np.asarray(counts)]).astype(np.float32)


def step(server: ServerState, change: np.ndarray, server_lr: float) -> np.ndarray:
    """Return the model moved by ``server_lr * change``, rounded to float32 once."""
    return (server.model.astype(np.float64) + server_lr * change).astype(np.float32)

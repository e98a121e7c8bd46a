"""What a strategy is: an immutable pair of ``init`` and ``apply`` over explicit state.

A strategy never sees a hospital's update. Each hospital turns what it learnt into a *contribution*,
one flat vector; protections add contributions; ``apply`` is given the sum. So every strategy runs under
every protection.

A contribution is laid out as::

    [ weight * model change | control change (if the strategy has one) | counts ]

``counts`` are the few numbers that averages are divided by. They travel inside the protected vector,
so that the aggregator cannot tell a large hospital from a small one. ``weight`` is the number of the
hospital's training images over a public unit, so it lies in (0, 1].

Nothing here or in the strategies imports torch: they are arithmetic on numpy vectors.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Optional, Tuple

import numpy as np

from skinfl.errors import TrainingError
from skinfl.federation.state import PARAMETERS, STATISTICS, ServerState, StateArray
from skinfl.protection.layout import Layout, Segment

if TYPE_CHECKING:
    from skinfl.federation.local import LocalResult
    from skinfl.federation.update import StateLayout


class Correction(NamedTuple):
    """How the local gradient ``g`` at ``y`` is corrected: ``g + proximal * (y - x) + drift``.

    ``drift``: float32, shape ``(layout.n_parameters,)``, in the gradient's unit, or None.
    ``full_gradient`` asks for the mean gradient at ``x`` over all images besides.
    """

    proximal: float = 0.0
    drift: Optional[np.ndarray] = None
    full_gradient: bool = False


class UpdateSum(NamedTuple):
    """The opened sum over the hospitals in it, cut into its parts, all float64.

    ``parameters``: shape ``(layout.n_parameters,)``, ``sum(w_k * change of the parameters)``;
    ``statistics``: shape ``(layout.n_statistics,)``, the same of BatchNorm's statistics;
    ``control``: shape ``(layout.n_parameters,)``, the sum of the control variates' changes; ``(0,)`` for a
    strategy without one;
    ``counts``: shape ``(len(strategy.counts),)``, the weight ``sum(w_k)`` first.
    """

    parameters: np.ndarray
    statistics: np.ndarray
    control: np.ndarray
    counts: np.ndarray

    @property
    def mean_change(self) -> np.ndarray:
        """Return the weighted mean change of the parameters, float64, shape ``(layout.n_parameters,)``."""
        return self.parameters / self.counts[0]


class Strategy(ABC):
    """Base of all strategies. Subclasses are frozen dataclasses whose fields are their options."""

    name: ClassVar[str]
    #: whether contributions carry a control change
    has_control: ClassVar[bool] = False
    #: names of the numbers at the contribution's end; the first is always the weight
    counts: ClassVar[Tuple[str, ...]] = ("weight",)

    server_lr: float

    def state_layout(self, layout: StateLayout) -> Tuple[StateArray, ...]:
        """Return the arrays that the server keeps between rounds; both ends derive the same.

        A strategy with arrays of its own adds them to these two, which are the model::

            m = StateArray("m", layout.n_parameters, AUXILIARY)
            return (*super().state_layout(layout), m)
        """
        return (
            StateArray("parameters", layout.n_parameters, PARAMETERS),
            StateArray("statistics", layout.n_statistics, STATISTICS),
        )

    def init(self, model: np.ndarray, layout: StateLayout) -> ServerState:
        """Return the state before the first round: ``model``, shape ``(layout.size,)``, and zeros.

        Raises :class:`ValueError` where ``model`` has another size.
        """
        declared = self.state_layout(layout)
        arrays = {d.name: np.zeros(d.size, np.float32) for d in declared}
        arrays["parameters"], arrays["statistics"] = np.split(np.asarray(model), [layout.n_parameters])
        return ServerState(declared, arrays)

    def contribution_layout(self, layout: StateLayout) -> Layout:
        """Return the layout of the vectors that are summed; both ends compare its digest.

        Model first (parameters, then statistics), the control variate's change if there is one, counts last.
        """
        segments = layout.segments("model/")
        if self.has_control:
            segments += layout.segments("control/", statistics=False)
        return Layout([*segments, Segment("counts", len(self.counts), "count")])

    def correction(self, server: ServerState, control: Optional[np.ndarray]) -> Correction:
        """Return the correction of a hospital's gradient.

        ``control`` is the hospital's own control variate, float32,
        shape ``(layout.n_parameters,)``; None before its first contribution entered a sum.
        """
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
        """Return a hospital's contribution and its new control variate.

        The contribution is float32, shape ``(contribution_layout(layout).size,)``: see :func:`pack`. The
        control is float32, shape ``(layout.n_parameters,)``, None for strategies without one; it
        replaces the old one once the contribution entered a sum. ``weight`` lies in (0, 1]; ``server`` and
        ``control`` are as in :meth:`correction`.
        """

    @abstractmethod
    def apply(
        self, server: ServerState, total: UpdateSum, layout: StateLayout, hospitals: int
    ) -> ServerState:
        """Return the next state, of the same arrays as ``server``.

        ``hospitals`` counts all of the federation, asked or not.
        """

    def step(
        self, server: ServerState, total: UpdateSum, layout: StateLayout, change: np.ndarray
    ) -> ServerState:
        """Return the state with the parameters moved by ``server_lr * change`` and statistics averaged.

        ``change`` has shape ``(layout.n_parameters,)``. Statistics take the weighted mean change whatever
        ``server_lr`` is: beyond one, a variance would be extrapolated below zero. The rounding of a
        protection can do so too, hence the floor. Both are computed in float64 and rounded once.
        """
        parameters = server["parameters"].astype(np.float64) + self.server_lr * change
        statistics = server["statistics"].astype(np.float64) + total.statistics / total.counts[0]
        statistics = np.where(layout.is_variance, np.maximum(statistics, 0.0), statistics)
        return server.replace(parameters=parameters, statistics=statistics)

    def unpack(self, total: np.ndarray, layout: StateLayout) -> UpdateSum:
        """Cut an opened sum, shape ``(contribution_layout(layout).size,)``, into its parts.

        Raises :class:`~skinfl.errors.TrainingError` where no weight is in it.
        """
        ends = [layout.n_parameters, layout.size]
        ends.append(layout.size + (layout.n_parameters if self.has_control else 0))
        parameters, statistics, control, counts = np.split(total, ends)
        if not counts[0] > 0:
            raise TrainingError("the opened sum has no weight in it: no hospital contributed")
        return UpdateSum(parameters, statistics, control, counts)


def pack(model: np.ndarray, control: Optional[np.ndarray], counts: Tuple[float, ...]) -> np.ndarray:
    """Put a contribution together as float32, the reverse of :meth:`Strategy.unpack`.

    ``model`` is the weighted change, shape ``(layout.size,)``, ``control`` the control's change, shape
    ``(layout.n_parameters,)``, or None.
    """
    parts = [model] if control is None else [model, control]
    return np.concatenate([*parts, np.asarray(counts)]).astype(np.float32)

"""What runs at a hospital: it trains where the data is and lets out protected bytes only.

An agent holds everything that is the hospital's own: its side of the protection (with its keys), its
SCAFFOLD control, its BatchNorm statistics where those stay local. The data is handed to each operation
by the worker that holds it, so that the same agent serves on virtual workers and on machines of their own.

Trust model: what an agent returns may leave the hospital. That is protected messages, the mean training
loss, the metrics of its own test images and the clipped share; nothing else.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Callable, Dict, NamedTuple, Optional, Tuple

import numpy as np
from torch import nn

from skinfl import seeds
from skinfl.data.dataset import LesionDataset
from skinfl.data.transforms import Normalisation, pixel_sums
from skinfl.errors import ProtectionError
from skinfl.federation.evaluation import evaluate
from skinfl.federation.local import LocalPlan, train
from skinfl.federation.state import ServerState, StateArray
from skinfl.federation.strategies.base import Strategy
from skinfl.federation.transforms import HospitalContext, Pipeline
from skinfl.federation.update import StateLayout, load_private_state, private_state
from skinfl.protection.base import Exchange, HospitalSide, Protected
from skinfl.protection.layout import Layout, Segment

#: round number of the exchange that sums pixel statistics and class counts before training
STATISTICS_ROUND = 0


class Task(NamedTuple):
    """What a hospital is asked to do in one round.

    ``server`` holds the arrays that the strategy declares as sent. ``accepted_round`` is the last round
    in which this hospital's contribution entered the sum; a control that it computed for another round
    is dropped, since the server never saw it. ``ranges`` is what the protection's last sum says all are
    to use; see :meth:`HospitalSide.set_ranges`.
    """

    run: str
    round: int
    server: ServerState
    normalisation: Normalisation
    class_weights: Optional[np.ndarray]
    accepted_round: int
    ranges: Optional[np.ndarray] = None


class ClientUpdate(NamedTuple):
    """What leaves the hospital after training."""

    messages: Dict[str, bytes]
    loss: float
    clipped: float
    seconds: Dict[str, float]


class HospitalAgent:
    """One hospital's part of the federation.

    ``unit``: the public number of images that has weight one; a hospital with more refuses to take
    part. ``transforms``, of this hospital alone, are what its contributions go through before they are
    protected. ``audit``, in simulations only, is called with (hospital, round, contribution) so that the
    opened sum can be compared with the plaintext one.
    """

    def __init__(
        self,
        name: str,
        model: nn.Module,
        layout: StateLayout,
        strategy: Strategy,
        side: HospitalSide,
        plan: LocalPlan,
        *,
        seed: int,
        unit: int,
        transforms: Optional[Pipeline] = None,
        audit: Optional[Callable[[str, int, np.ndarray], None]] = None,
    ):
        self.name = name
        self._model = model
        self._layout = layout
        self._strategy = strategy
        self._side = side
        self._plan = plan
        self._seed = seed
        self._unit = unit
        self._transforms = Pipeline() if transforms is None else transforms
        self._audit = audit
        self._control: Optional[np.ndarray] = None
        self._pending: Optional[np.ndarray] = None
        self._pending_round = -1
        self._private = private_state(model, layout)

    @property
    def server_arrays(self) -> Tuple[StateArray, ...]:
        """The arrays of the server's state, as this hospital's own strategy and network declare them."""
        return self._strategy.state_layout(self._layout)

    def statistics(self, dataset: LesionDataset, run: str) -> Protected:
        """Return the protected sums of pixels and class counts, for normalisation and class weights."""
        self._weight(dataset)  # refuses a hospital larger than agreed
        vector = np.concatenate([pixel_sums(dataset.images), dataset.class_counts()]) / self._unit
        channels = dataset.image_shape[0]
        self._report(STATISTICS_ROUND, vector)
        exchange = Exchange(run, STATISTICS_ROUND, statistics_layout(channels, len(dataset.classes)))
        return self._side.protect(vector, exchange)

    def train(self, dataset: LesionDataset, task: Task) -> ClientUpdate:
        """Train on ``dataset`` and return the protected contribution.

        Raises :class:`~skinfl.errors.TrainingError` where the loss is not a number.
        """
        self._settle(task.accepted_round)
        if task.ranges is not None:
            self._side.set_ranges(task.ranges)
        started = time.perf_counter()
        load_private_state(self._model, self._private)
        correction = self._strategy.correction(task.server, self._control)
        result = train(
            self._model,
            self._layout,
            dataset,
            task.normalisation,
            self._plan,
            start=task.server.model,
            seed=self._seed,
            purpose=(task.round, self.name),
            class_weights=task.class_weights,
            proximal=correction.proximal,
            drift=correction.drift,
            full_gradient=correction.full_gradient,
        )
        self._private = private_state(self._model, self._layout)
        vector, control = self._strategy.contribute(
            result, self._weight(dataset), self._layout, task.server, self._control
        )
        self._pending, self._pending_round = control, task.round
        trained = time.perf_counter()
        contribution = self._strategy.contribution_layout(self._layout)
        seed = partial(seeds.derive, self._seed, "transform", task.round)
        vector = self._transforms.at_hospital(
            vector,
            HospitalContext(task.run, task.round, contribution, seed, self.name, task.accepted_round),
        )
        self._report(task.round, vector)
        exchange = Exchange(task.run, task.round, self._transforms.layout(contribution))
        protected = self._side.protect(vector, exchange)
        seconds = {"train": trained - started, "protect": time.perf_counter() - trained}
        return ClientUpdate(protected.messages, result.loss, protected.clipped, seconds)

    def evaluate(self, dataset: LesionDataset, task: Task) -> Dict[str, object]:
        """Return the metrics of the sent model on the hospital's own test images."""
        load_private_state(self._model, self._private)
        self._layout.write(self._model, task.server.model)
        return evaluate(self._model, dataset, task.normalisation)

    def state(self) -> Dict[str, np.ndarray]:
        """Return all that a resumed run needs, as arrays."""
        found = {f"private/{n}": a for n, a in self._private.items()}
        found.update({f"side/{n}": a for n, a in self._side.state().items()})
        found.update({f"transforms/{n}": a for n, a in self._transforms.state().items()})
        if self._control is not None:
            found["control"] = self._control
        if self._pending is not None:
            found["pending"] = self._pending
        found["pending_round"] = np.asarray(self._pending_round)
        return found

    def load_state(self, state: Dict[str, np.ndarray]) -> None:
        """Put back what :meth:`state` returned."""
        self._private = {n[len("private/") :]: a for n, a in state.items() if n.startswith("private/")}
        self._side.load_state({n[len("side/") :]: a for n, a in state.items() if n.startswith("side/")})
        prefix = "transforms/"
        self._transforms.load_state({n[len(prefix) :]: a for n, a in state.items() if n.startswith(prefix)})
        self._control = state.get("control")
        self._pending = state.get("pending")
        self._pending_round = int(state["pending_round"])

    def _settle(self, accepted_round: int) -> None:
        """Keep the control of the last training if its contribution entered the sum, else drop it."""
        if self._pending is not None and self._pending_round == accepted_round:
            self._control = self._pending
        self._pending, self._pending_round = None, -1

    def _weight(self, dataset: LesionDataset) -> float:
        if len(dataset) > self._unit:
            raise ProtectionError(
                f"{self.name} holds {len(dataset)} training images, more than the agreed {self._unit}: "
                "raise the agreed unit for all hospitals"
            )
        return len(dataset) / self._unit

    def _report(self, round: int, vector: np.ndarray) -> None:
        if self._audit is not None:
            self._audit(self.name, round, vector)


def statistics_layout(channels: int, classes: int) -> Layout:
    """Return the layout of the sums that :meth:`HospitalAgent.statistics` protects."""
    return Layout([Segment("pixels", 2 * channels + 1, "count"), Segment("classes", classes, "count")])

"""What runs at a hospital: it trains where the data is and lets out protected bytes only.

An agent holds everything that is the hospital's own: its side of the protection (with its keys), its
SCAFFOLD control, its BatchNorm statistics where those stay local, its personal model. The
data is handed to each operation by the worker that holds it, so that the same agent serves on virtual workers
and on machines of their own.

Trust model: an agent returns protected messages, and besides them a hospital's own figures (its loss,
clipped share, seconds, metrics), which whoever runs the agent lets out or not: a simulation does, a
deployment's hospital only where its own configuration says so. Their sums over hospitals are in what is
protected.
"""

from __future__ import annotations

import time
from typing import Any, Callable, Dict, NamedTuple, Optional

import numpy as np
from torch import nn

from skinfl.data.dataset import LesionDataset
from skinfl.data.transforms import pixel_sums
from skinfl.devices import Compute
from skinfl.errors import ProtectionError
from skinfl.federation.common import CommonState
from skinfl.federation.evaluation import evaluate, predict
from skinfl.federation.figures import pack_evaluation
from skinfl.federation.local import LocalPlan, train
from skinfl.federation.personal import PersonalPlan
from skinfl.federation.rules import EVALUATE, Rules, Task
from skinfl.federation.schedule import Constant
from skinfl.federation.transforms import HospitalContext
from skinfl.federation.update import StateLayout, load_private_state, private_state, whole_state
from skinfl.federation.validation import pack_validation, validation_segment
from skinfl.protection.attempts import Contribution, protect_again
from skinfl.protection.base import Exchange, HospitalSide, Protected

Metrics = Dict[str, Any]


class OwnFigures(NamedTuple):
    """How one hospital fares: its own business.

    ``loss``: mean training loss. ``clipped``: share of values that the protection cut off, 0 to 1.
    ``seconds``: by phase. ``metrics``: of the model that training started from, on its test images; None
    where they were not asked for or there are none. ``personal``: of its own model after the last round.
    """

    loss: float
    clipped: float
    seconds: Dict[str, float]
    metrics: Optional[Metrics]
    personal: Optional[Metrics] = None


class ClientUpdate(NamedTuple):
    """What a task gives. ``messages`` may leave the hospital, for ``figures`` see this module's head; None:
    there are none, or they were not let out.
    """

    messages: Dict[str, bytes]
    figures: Optional[OwnFigures] = None


class _Trained(NamedTuple):
    """What training came to, not yet protected: a contribution before transforms, and what goes with it."""

    task: Task
    vector: np.ndarray
    own: np.ndarray
    context: HospitalContext
    loss: float
    metrics: Optional[Metrics]
    seconds: float


class HospitalAgent:
    """One hospital's part of the federation.

    ``rules``: this hospital's own, with its own transforms. ``seed`` decides how local training draws
    batches and augments; nobody else needs to know it. ``compute``: where it trains, by default on the
    processor. ``personal``: what it trains for itself. ``audit``, in simulations only, is called with
    (hospital, round, contribution) so that the opened sum can be compared with the plaintext one.
    """

    def __init__(
        self,
        name: str,
        model: nn.Module,
        rules: Rules,
        side: HospitalSide,
        plan: LocalPlan,
        *,
        seed: int,
        compute: Optional[Compute] = None,
        personal: PersonalPlan = PersonalPlan(),
        audit: Optional[Callable[[str, int, np.ndarray], None]] = None,
    ):
        self.name = name
        self._model = model
        self._rules = rules
        self._side = side
        self._plan = plan
        self._seed = seed
        self._compute = Compute("cpu") if compute is None else compute
        self._personal = personal
        self._audit = audit
        self._control: Optional[np.ndarray] = None
        self._pending: Optional[np.ndarray] = None
        self._pending_round = -1
        self._private = private_state(model, rules.layout)
        #: of a personal model beside the common one, or of the one that was fine-tuned; empty: there is none
        self._own: Dict[str, np.ndarray] = {}
        self._trained: Optional[_Trained] = None
        self._last: Optional[Contribution] = None
        #: of the last that was protected, see :class:`~skinfl.protection.base.Protected`
        self.release = b""

    def statistics(self, dataset: LesionDataset, task: Task) -> ClientUpdate:
        """Return the protected sums of pixels and class counts, for normalisation and class weights."""
        self._weight(dataset)  # refuses a hospital larger than agreed
        vector = np.concatenate([pixel_sums(dataset.images), dataset.class_counts()]) / self._rules.unit
        return ClientUpdate(self._protect(vector, task).messages)

    def train(
        self,
        dataset: LesionDataset,
        task: Task,
        test: Optional[LesionDataset] = None,
        validation: Optional[LesionDataset] = None,
    ) -> ClientUpdate:
        """Train on ``dataset`` and return the protected contribution.

        ``test`` and ``validation``: the images on which the model is evaluated first, where the task says so.
        Raises :class:`~skinfl.errors.TrainingError` where the loss is not a number.
        """
        self.compute(dataset, task, test, validation)
        return self.protect_trained()

    def compute(
        self,
        dataset: LesionDataset,
        task: Task,
        test: Optional[LesionDataset] = None,
        validation: Optional[LesionDataset] = None,
    ) -> None:
        """Do the first half of :meth:`train`, which needs the device; what comes of it stays here."""
        common, rules = task.common, self._rules
        accepted = common.accepted.get(self.name, -1)
        self._settle(accepted)
        if common.ranges is not None:
            self._side.set_ranges(common.ranges)
        metrics = None
        if task.evaluate and test is not None and len(test):
            metrics = self.evaluate(test, common)
        evaluated = self._evaluated(metrics, validation if task.evaluate else None, common)
        started = time.perf_counter()
        load_private_state(self._model, self._private)
        correction = rules.strategy.correction(common.server, self._control)
        result = train(
            self._model,
            rules.layout,
            dataset,
            common.begun.normalisation,
            self._plan,
            start=common.server.model,
            seed=self._seed,
            purpose=(task.round, self.name),
            round=task.round,
            class_weights=common.begun.class_weights,
            class_shares=common.begun.class_shares,
            proximal=correction.proximal,
            drift=correction.drift,
            full_gradient=correction.full_gradient,
            compute=self._compute,
        )
        self._private = private_state(self._model, rules.layout)
        if self._personal.ditto is not None:
            purpose = (task.round, self.name, "personal")
            self._own = self._trained_own(
                dataset, common, self._plan, self._personal.ditto, purpose, task.round
            )
        weight = self._weight(dataset)
        vector, control = rules.strategy.contribute(
            result, weight, rules.layout, common.server, self._control
        )
        self._pending, self._pending_round = control, task.round
        trained = time.perf_counter()
        context = HospitalContext(
            common.run, task.round, rules.contribution, rules.seed(task.round), self.name, accepted
        )
        own = np.concatenate([[weight * result.loss], evaluated])
        seconds = trained - started
        self._trained = _Trained(task, vector, own, context, float(result.loss), metrics, seconds)

    def protect_trained(self) -> ClientUpdate:
        """Do the second half of :meth:`train`: return what :meth:`compute` came to, protected.

        No network is in this half, so that another hospital's may train on the device meanwhile; of this
        hospital nothing else may run. Raises :class:`~skinfl.errors.ProtectionError` where nothing was
        computed.
        """
        trained, self._trained = self._trained, None
        if trained is None:
            raise ProtectionError(f"{self.name} has trained nothing that is not protected already")
        started = time.perf_counter()
        vector = self._rules.transforms.at_hospital(trained.vector, trained.context)
        protected = self._protect(np.concatenate([vector, trained.own]).astype(np.float32), trained.task)
        seconds = {"train": trained.seconds, "protect": time.perf_counter() - started}
        figures = OwnFigures(trained.loss, float(protected.clipped), seconds, trained.metrics)
        return ClientUpdate(protected.messages, figures)

    def evaluate(self, dataset: LesionDataset, common: CommonState) -> Metrics:
        """Return the metrics of the common model on the hospital's own test images."""
        self._load_common(common)
        with self._compute.place(self._model):
            return evaluate(self._model, dataset, common.begun.normalisation)

    def report(
        self,
        dataset: Optional[LesionDataset],
        task: Task,
        validation: Optional[LesionDataset] = None,
        train: Optional[LesionDataset] = None,
    ) -> ClientUpdate:
        """Return the protected metrics of the common model, for a sum of their own; zeros without images.

        ``dataset``: the test images. Where hospitals tell how their own models do, the hospital's own is made
        of ``train`` first.
        """
        own = self._personal.evaluated
        if own and train is not None:
            self.personalise(train, task.common)
        metrics, personal = None, None
        if dataset is not None and len(dataset):
            metrics = self.evaluate(dataset, task.common)
            personal = self.evaluate_personal(dataset, task.common) if own else None
        vector = self._evaluated(metrics, validation, task.common)
        if own:
            packed = pack_evaluation(personal, len(self._rules.classes), self._rules.unit)
            vector = np.concatenate([vector, packed])
        protected = self._protect(vector, task)
        figures = OwnFigures(0.0, protected.clipped, {"train": 0.0, "protect": 0.0}, metrics, personal)
        return ClientUpdate(protected.messages, figures)

    def personalise(self, dataset: LesionDataset, common: CommonState) -> None:
        """Fine-tune the kept common model on the hospital's training images, where the plan says so.

        Asked again, it makes the same once more. Raises :class:`~skinfl.errors.TrainingError` where the loss
        is not a number.
        """
        own = self._personal
        if own.fine_tune_epochs:
            plan = self._plan._replace(epochs=own.fine_tune_epochs, lr=own.fine_tune_lr, rate=Constant())
            self._own = {}
            self._own = self._trained_own(dataset, common, plan, 0.0, (self.name, "fine-tune"), 1)

    def evaluate_personal(self, dataset: LesionDataset, common: CommonState) -> Metrics:
        """Return the metrics of the hospital's own model on its own test images."""
        self.load_personal(common)
        with self._compute.place(self._model):
            return evaluate(self._model, dataset, common.begun.normalisation)

    @property
    def has_own(self) -> bool:
        """Whether the hospital has a model that is not the common one."""
        return bool(self._own or self._rules.layout.personal)

    def load_personal(self, common: CommonState) -> nn.Module:
        """Return the network with the state of the hospital's own model, or the common one's without."""
        self._load_common(common)
        load_private_state(self._model, self._own)
        return self._model

    def _load_common(self, common: CommonState) -> None:
        """Make the network the common model that is evaluated, with what the hospital keeps to itself."""
        load_private_state(self._model, self._private)
        self._rules.layout.write(self._model, common.server.evaluated)

    def _trained_own(
        self,
        dataset: LesionDataset,
        common: CommonState,
        plan: LocalPlan,
        pull: float,
        purpose: tuple,
        round: int,
    ) -> Dict[str, np.ndarray]:
        """Return the hospital's own model, trained further under a pull towards the common one.

        Li et al., *Ditto: Fair and Robust Federated Learning Through Personalization*, ICML 2021,
        Algorithm 1: steps ``v <- v - lr (g(v) + pull (v - x))``. It begins as the common model of its first
        round.
        """
        layout = StateLayout(self._model)
        self._load_common(common)
        anchor = layout.flatten(self._model)
        load_private_state(self._model, self._own)
        train(
            self._model,
            layout,
            dataset,
            common.begun.normalisation,
            plan,
            start=layout.flatten(self._model),
            seed=self._seed,
            purpose=purpose,
            round=round,
            class_weights=common.begun.class_weights,
            class_shares=common.begun.class_shares,
            proximal=pull,
            anchor=anchor,
            compute=self._compute,
        )
        return whole_state(self._model)

    def _evaluated(
        self, metrics: Optional[Metrics], validation: Optional[LesionDataset], common: CommonState
    ) -> np.ndarray:
        """Return how the common model does on test and validation images, as numbers that may be added."""
        rules = self._rules
        number = len(rules.classes)
        on_test = pack_evaluation(metrics, number, rules.unit)
        if not rules.validates:
            return on_test
        if validation is None or not len(validation):
            return np.concatenate([on_test, np.zeros(validation_segment(number).size)])
        self._load_common(common)
        with self._compute.place(self._model):
            probabilities, _ = predict(self._model, validation, common.begun.normalisation)
        malignant = [each.malignant for each in validation.class_info]
        packed = pack_validation(probabilities, validation.labels, malignant, rules.unit)
        return np.concatenate([on_test, packed])

    def protect_again(self, exchange: Exchange) -> Protected:
        """Protect the last vector once more, as a new attempt of a smaller cohort.

        ``exchange`` is the last one but for cohort and attempt. Raises
        :class:`~skinfl.errors.ProtectionError` for another sum, and for a cohort without this hospital.
        """
        if self._last is None:
            raise ProtectionError(f"{self.name} has protected nothing yet")
        protected = protect_again(self._side, self._last, exchange)
        self.release = protected.release
        return protected

    @property
    def side(self) -> HospitalSide:
        """The hospital's side of the protection."""
        return self._side

    @property
    def last(self) -> Optional[Contribution]:
        """What was protected last, which a deployment keeps on disk."""
        return self._last

    def state(self) -> Dict[str, np.ndarray]:
        """Return all that a resumed run needs, as arrays."""
        found = {f"private/{n}": a for n, a in self._private.items()}
        found.update({f"own/{n}": a for n, a in self._own.items()})
        found.update({f"side/{n}": a for n, a in self._side.state().items()})
        found.update({f"transforms/{n}": a for n, a in self._rules.transforms.state().items()})
        if self._control is not None:
            found["control"] = self._control
        if self._pending is not None:
            found["pending"] = self._pending
        found["pending_round"] = np.asarray(self._pending_round)
        return found

    def load_state(self, state: Dict[str, np.ndarray]) -> None:
        """Put back what :meth:`state` returned."""
        self._private = {n[len("private/") :]: a for n, a in state.items() if n.startswith("private/")}
        self._own = {n[len("own/") :]: a for n, a in state.items() if n.startswith("own/")}
        self._side.load_state({n[len("side/") :]: a for n, a in state.items() if n.startswith("side/")})
        prefix = "transforms/"
        self._rules.transforms.load_state(
            {n[len(prefix) :]: a for n, a in state.items() if n.startswith(prefix)}
        )
        self._control = state.get("control")
        self._pending = state.get("pending")
        self._pending_round = int(state["pending_round"])

    def _settle(self, accepted_round: int) -> None:
        """Keep the control of the last training if its contribution entered the sum, else drop it."""
        if self._pending is not None and self._pending_round == accepted_round:
            self._control = self._pending
        self._pending, self._pending_round = None, -1

    def _weight(self, dataset: LesionDataset) -> float:
        unit = self._rules.unit
        if len(dataset) > unit:
            raise ProtectionError(
                f"{self.name} holds more training images than the agreed {unit}: "
                "raise the agreed unit for all hospitals"
            )
        return len(dataset) / unit

    def _protect(self, vector: np.ndarray, task: Task) -> Protected:
        if task.kind != EVALUATE:  # of which no simulation compares sums
            self._report(task.round, vector)
        exchange = self._rules.exchange(task)
        self._last = Contribution(vector, self._side.state(), exchange)
        protected = self._side.protect(vector, exchange)
        self.release = protected.release
        return protected

    def _report(self, round: int, vector: np.ndarray) -> None:
        if self._audit is not None:
            self._audit(self.name, round, vector)

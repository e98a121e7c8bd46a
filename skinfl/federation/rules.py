"""How the common state moves on: hospitals compute the next model by these rules, as the coordinator does.

Everybody derives the same from the same settings, and what is asked is bound into what is protected: the
task's digest covers the kind of sum, the run and round, the terms on which hospitals joined, who was asked,
and the whole state to start from (model, normalisation, class weights, quantisation ranges). Contributions
made for different tasks never add up to an opened sum.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Dict, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from skinfl import seeds
from skinfl.data.normalisation import Normalisation
from skinfl.data.transforms import normalisation_from_sums
from skinfl.errors import ProtectionError, TrainingError
from skinfl.federation import figures, validation
from skinfl.federation.common import NO_ROUND, STATISTICS_ROUND, CommonState, Prepared
from skinfl.federation.strategies.base import Strategy
from skinfl.federation.transforms import Figures, Pipeline, ServerContext
from skinfl.federation.update import StateLayout
from skinfl.protection import wire
from skinfl.protection.base import Exchange, Opened
from skinfl.protection.layout import Layout, Segment

#: what is summed: pixels and classes before training, contributions, and how the last model does
STATISTICS, TRAIN, EVALUATE = KINDS = ("statistics", "train", "evaluate")


class Task(NamedTuple):
    """What all hospitals are asked alike.

    ``kind``: one of :data:`KINDS`. ``common``: the state to start from. ``participants``: who is asked.
    ``evaluate``: whether a contribution also carries how the model that it starts from does on the
    hospital's test and validation images.
    """

    kind: str
    round: int
    common: CommonState
    participants: Tuple[str, ...]
    evaluate: bool = False

    @property
    def subjects(self) -> Tuple[str, ...]:
        """What a sum tells of besides the hospitals' images; the statistics' tells of these alone."""
        weights = self.common.weights_digest
        trained = (f"model {weights}",) if self.kind == TRAIN else ()
        if self.kind != EVALUATE and not self.evaluate:
            return trained
        return (*trained, f"evaluation of {self.common.evaluated_digest}")


class Applied(NamedTuple):
    """What a sum gave: the next state, transforms' public figures by name, and how hospitals fare together.

    ``loss``: the mean training loss, weighted by images; None for other sums than a round's.
    ``evaluation``: metrics on all the hospitals' test images of the model that the round started from, as
    :func:`skinfl.federation.figures.unpack_evaluation` gives them; None where it was not asked for.
    ``validation``: the same of their validation images, as
    :func:`skinfl.federation.validation.unpack_validation` gives it. ``personal``: as ``evaluation``, of the
    hospitals' own models.
    """

    common: CommonState
    transforms: Dict[str, Figures]
    loss: Optional[float] = None
    evaluation: Optional[Dict[str, Any]] = None
    validation: Optional[Dict[str, Any]] = None
    personal: Optional[Dict[str, Any]] = None


class Rules:
    """What makes the next state out of a state and a sum.

    ``hospitals``: all of the federation. ``transforms``: the pipeline whose server's halves run here.
    ``class_weights``: a kind of :func:`class_weights`, with ``effective_beta``. ``unit``: the public
    number of images that has weight one. ``validates``: whether hospitals keep validation images, of which
    evaluations tell as well. ``terms``: a digest of whatever else all must agree on; a deployment's is of the
    request to join. ``normalisation``: what pretrained weights bring along; None derives it from the sums.
    ``personal``: whether hospitals tell how their own models do.
    """

    def __init__(
        self,
        strategy: Strategy,
        layout: StateLayout,
        transforms: Optional[Pipeline] = None,
        *,
        hospitals: Sequence[str],
        channels: int,
        classes: Sequence[str],
        class_weights: str,
        effective_beta: float = 0.999,
        seed: int,
        unit: int,
        validates: bool = False,
        terms: str = "",
        normalisation: Optional[Normalisation] = None,
        personal: bool = False,
    ):
        self.strategy = strategy
        self.layout = layout
        self.transforms = Pipeline() if transforms is None else transforms
        self.hospitals = tuple(hospitals)
        self.classes = tuple(classes)
        self.unit = unit
        self.validates = validates
        #: of what a strategy contributes, before transforms
        self.contribution = strategy.contribution_layout(layout)
        self._channels = channels
        self._class_weights = class_weights
        self._effective_beta = effective_beta
        self._seed = seed
        self._terms = terms
        self._normalisation = normalisation
        transformed = self.transforms.layout(self.contribution)
        number = len(self.classes)
        validated = [validation.validation_segment(number)] if validates else []
        own = [figures.training_segment(number), *validated]
        #: how many numbers of a hospital's own end a contribution
        self._own = sum(segment.size for segment in own)
        #: whether an evaluation is also of the hospitals' own models
        self.personal = personal
        personally = [figures.personal_segment(number)] if personal else []
        self._layouts = {
            STATISTICS: statistics_layout(channels, number),
            TRAIN: Layout([*transformed.segments, *own], transforms=transformed.transforms),
            EVALUATE: Layout([figures.evaluation_segment(number), *validated, *personally]),
        }

    def start(self, run: str, model: np.ndarray) -> CommonState:
        """Return the state before any sum; ``model``: float32, shape ``(layout.size,)``."""
        return CommonState(run, NO_ROUND, self.strategy.init(model, self.layout), None, {})

    def vectors(self, kind: str) -> Layout:
        """Return the layout of the vectors that are summed."""
        return self._layouts[kind]

    def check_fits(self, common: CommonState) -> None:
        """Refuse a state that was handed over whose normalisation or class weights are of other data.

        Raises :class:`~skinfl.errors.ProtectionError`.
        """
        if common.prepared is None:
            return
        (mean, std), weights, shares = common.prepared
        sound = len(mean) == len(std) == self._channels and all(s > 0 for s in std)
        of_classes = shares.shape == (len(self.classes),) and bool((shares > 0).all())
        if not (sound and of_classes) or (weights is not None and weights.shape != shares.shape):
            raise ProtectionError("the state that was handed over is of other channels or classes")

    def exchange(self, task: Task) -> Exchange:
        """Return which sum the contributions to a task enter."""
        common = task.common
        digest = wire.fingerprint(
            "task",
            task.kind,
            common.run,
            task.round,
            self._terms,
            sorted(task.participants),
            bool(task.evaluate),
            common.digest,
        )
        cohort = tuple(sorted(task.participants))
        base = ", ".join(task.subjects)
        return Exchange(common.run, task.round, self._layouts[task.kind], digest, base, cohort)

    def seed(self, round: int) -> Any:
        """Return what gives transforms their public seeds in a round."""
        return partial(seeds.derive, self._seed, "transform", round)

    def apply(self, task: Task, opened: Opened) -> Applied:
        """Return the state after a sum.

        Raises :class:`~skinfl.errors.TrainingError` where nobody's weight is in it.
        """
        if task.kind == STATISTICS:
            return self._prepare(task, opened)
        if task.kind == EVALUATE:
            cut = len(opened.total) - (figures.evaluation_size(len(self.classes)) if self.personal else 0)
            evaluation, validated = self._evaluated(opened.total[:cut])
            personal = None
            if self.personal:
                personal = figures.unpack_evaluation(opened.total[cut:], self.classes, self.unit)
            return Applied(task.common, {}, evaluation=evaluation, validation=validated, personal=personal)
        cut = len(opened.total) - self._own
        total, own = opened.total[:cut], opened.total[cut:]
        context = ServerContext(
            task.common.run, task.round, self.contribution, self.seed(task.round), opened.senders
        )
        restored, shown = self.transforms.at_server(total, context)
        update = self.strategy.unpack(restored, self.layout)
        self._check_weight(float(update.counts[0]), len(opened.senders))
        common = CommonState(
            task.common.run,
            task.round,
            self.strategy.apply(task.common.server, update, self.layout, len(self.hospitals)),
            task.common.prepared,
            {**task.common.accepted, **dict.fromkeys(opened.senders, task.round)},
            opened.ranges,
        )
        evaluated = self._evaluated(own[1:]) if task.evaluate else (None, None)
        return Applied(common, shown, float(own[0] / update.counts[0]), *evaluated)

    def _check_weight(self, weight: float, senders: int) -> None:
        """Refuse a weight that so many hospitals, of one image to a unit's, cannot have."""
        if not 0.5 * senders / self.unit <= weight <= senders * (1 + 1e-6):
            raise TrainingError(
                f"the weight in the opened sum is {weight:g}, which {senders} hospitals cannot have: one "
                "of them sent a false one"
            )

    def _prepare(self, task: Task, opened: Opened) -> Applied:
        pixels = opened.total[: 2 * self._channels + 1]
        counts = opened.total[2 * self._channels + 1 :]
        images = float(pixels[-1])
        if not counts.sum() > 0 or counts.min() < -1e-6 or abs(counts.sum() - images) > 1e-3 * images:
            raise TrainingError(
                "the sums before training do not hold as many images as photographs of the classes: a "
                "hospital sent false ones"
            )
        numbers = counts * self.unit
        prepared = Prepared(
            self._normalisation or normalisation_from_sums(pixels),
            class_weights(numbers, self._class_weights, self._effective_beta),
            class_shares(numbers),
        )
        before = task.common
        return Applied(CommonState(before.run, STATISTICS_ROUND, before.server, prepared, {}), {})

    def _evaluated(self, total: np.ndarray) -> Tuple[Optional[Dict[str, Any]], Optional[Dict[str, Any]]]:
        """Return what a sum says of the test images and of the validation images."""
        on_test, on_validation = np.split(total, [figures.evaluation_size(len(self.classes))])
        evaluation = figures.unpack_evaluation(on_test, self.classes, self.unit)
        if not self.validates:
            return evaluation, None
        return evaluation, validation.unpack_validation(on_validation, self.classes, self.unit)


def statistics_layout(channels: int, classes: int) -> Layout:
    """Return the layout of the sums before training."""
    return Layout([Segment("pixels", 2 * channels + 1, "count"), Segment("classes", classes, "count")])


def class_weights(counts: np.ndarray, kind: str, beta: float = 0.999) -> Optional[np.ndarray]:
    """Return the loss weight of each class, with a mean over all images of one; float64.

    ``counts``: numbers of images, shape ``(classes,)``. ``kind`` is ``"none"`` (returns None), ``"inverse"``
    of a class's share, ``"sqrt"`` of that, which trades less accuracy for balance and keeps the gradient's
    variance down, or ``"effective"``: the inverse of the effective number ``(1 - beta^n) / (1 - beta)`` of
    its n images (Cui et al., *Class-Balanced Loss Based on Effective Number of Samples*, CVPR 2019), which
    goes from no weights at ``beta`` 0 to ``"inverse"`` near 1. A class that no hospital holds has weight 0.
    """
    if kind == "none":
        return None
    shares = counts / counts.sum()
    # An opened share of zero may be off by the encoding's last bit; one image never is that small.
    present = shares > 1e-7
    if kind == "effective":
        numbers = np.where(present, counts, 1.0)
        with np.errstate(divide="ignore"):  # beta 0 has the logarithm that its power needs
            weights = np.where(present, 1.0 / -np.expm1(numbers * np.log(beta)), 0.0)
    else:
        weights = np.where(present, 1.0 / np.where(present, shares, 1.0), 0.0)
        if kind == "sqrt":
            weights = np.sqrt(weights)
    return weights / (weights * shares).sum()


def class_shares(counts: np.ndarray) -> np.ndarray:
    """Return each class's share of all images, float64, above 0; ``counts`` are numbers of images.

    A class that no hospital held counts as half an image: one that joins later may hold it, and a loss that
    takes the logarithm of its share must stay finite.
    """
    numbers = np.maximum(counts, 0.5)
    shares: np.ndarray = numbers / numbers.sum()
    return shares

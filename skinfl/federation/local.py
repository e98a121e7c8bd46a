"""Training at one hospital: some epochs of SGD or Adam, with a strategy's correction of the gradient.

All strategies need one form of local step only::

    gradient + mu * (y - x) + drift

where ``y`` is the hospital's model, ``x`` the one it was sent, ``mu`` FedProx's weight and ``drift``
SCAFFOLD's ``c - c_i``. The strategies choose ``mu`` and ``drift``; this module does not know them.
"""

from __future__ import annotations

import math
from typing import Any, List, Mapping, NamedTuple, Optional

import numpy as np
import torch
from torch import nn

from skinfl import seeds
from skinfl.data.dataset import LesionDataset
from skinfl.data.feeding import feed
from skinfl.data.transforms import Augmentation, Normalisation
from skinfl.devices import Compute, is_out_of_memory
from skinfl.errors import TrainingError
from skinfl.federation.objective import mix, objective_of
from skinfl.federation.optimisers import OPTIMISERS
from skinfl.federation.schedule import Constant, LearningRate
from skinfl.federation.update import StateLayout, load_private_state, private_state

#: BatchNorm cannot train on a single image
LEAST_PART = 2


class LocalPlan(NamedTuple):
    """How a hospital trains: the same for all hospitals and rounds of a run.

    ``max_grad_norm`` limits the norm of a step's gradient, before a strategy corrects it; 0 does not.
    ``augmentation``: what is done to images anew each time, None for nothing.
    ``loss`` is a name in :data:`~skinfl.federation.losses.LOSSES`, ``loss_options`` are its own; ``mixup`` is
    the alpha of :func:`~skinfl.federation.objective.mix`, 0 mixes nothing; ``rate`` is how ``lr`` goes.
    """

    epochs: int
    batch_size: int
    optimiser: str
    lr: float
    momentum: float
    weight_decay: float
    max_grad_norm: float
    augmentation: Optional[Augmentation]
    loss: str = "cross_entropy"
    loss_options: Mapping[str, Any] = {}
    label_smoothing: float = 0.0
    mixup: float = 0.0
    rate: LearningRate = Constant()


class LocalResult(NamedTuple):
    """What training gave, before any protection.

    ``delta``: float32, shape ``(layout.size,)``, new minus old state. ``gradient``: the mean
    gradient at the old parameters, float32, shape ``(layout.n_parameters,)``, where it was asked for.
    ``lr_shares``: each step's learning rate over the plan's, shape ``(steps,)``; None: all are 1.
    """

    delta: np.ndarray
    steps: int
    examples: int
    loss: float
    gradient: Optional[np.ndarray]
    lr_shares: Optional[np.ndarray] = None

    @property
    def rates(self) -> np.ndarray:
        """Return each step's learning rate over the plan's, float64, shape ``(steps,)``."""
        return np.ones(self.steps) if self.lr_shares is None else self.lr_shares


def batches(n: int, batch_size: int, rng: np.random.Generator) -> List[np.ndarray]:
    """Return shuffled index batches; a last batch of one joins the one before it.

    BatchNorm cannot train on a single image, and a single image's gradient would weigh as a batch's.
    """
    order = rng.permutation(n)
    parts = [order[i : i + batch_size] for i in range(0, n, batch_size)]
    if len(parts) > 1 and len(parts[-1]) == 1:
        parts[-2:] = [np.concatenate(parts[-2:])]
    return parts


def train(
    model: nn.Module,
    layout: StateLayout,
    dataset: LesionDataset,
    normalisation: Normalisation,
    plan: LocalPlan,
    *,
    start: np.ndarray,
    seed: int,
    purpose: tuple,
    round: int = 1,
    class_weights: Optional[np.ndarray] = None,
    class_shares: Optional[np.ndarray] = None,
    proximal: float = 0.0,
    anchor: Optional[np.ndarray] = None,
    drift: Optional[np.ndarray] = None,
    full_gradient: bool = False,
    compute: Optional[Compute] = None,
) -> LocalResult:
    """Train ``model`` from the state ``start`` on a hospital's data.

    What the layout leaves out of ``start`` is trained from what it is in ``model``; a strategy's corrections
    do not concern it. ``proximal`` pulls towards ``anchor``, a state as ``start`` is, or else ``start``.

    ``purpose`` names the use of randomness, e.g. ``(round, hospital)``: the same seed and purpose
    give the same result bit for bit on one kind of device. ``round``, from 1, says where in the learning
    rate's schedule it is. ``class_weights`` and ``class_shares``: see
    :class:`~skinfl.federation.common.Prepared`. ``drift`` has shape ``(layout.n_parameters,)``.

    ``compute``: where, by default on the processor. Where its memory is too small for a batch, it says
    whether training starts anew with parts of batches whose gradients add up to the batch's. BatchNorm
    then normalises by the part.

    Raises :class:`~skinfl.errors.TrainingError` where the loss is not a number, and where memory is too
    small: it says how many images fit.
    """
    compute = Compute("cpu") if compute is None else compute
    task = _Task(
        layout,
        normalisation,
        plan,
        start,
        seed,
        purpose,
        round,
        class_weights,
        class_shares,
        proximal,
        start if anchor is None else anchor,
        drift,
        full_gradient,
    )
    private = private_state(model, layout)
    part = min(compute.part or plan.batch_size, plan.batch_size)
    tried = dataset
    while True:
        try:
            with compute.place(model):
                result = _train(model, task, tried, compute, part)
            if tried is dataset:
                return result
            load_private_state(model, private)
            raise TrainingError(
                f"{compute.description} has not the memory for a batch of {plan.batch_size}: {part} images "
                f"fit; use --batch-size {part}, or --oom-smaller, which adds up the gradients of parts"
            )
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        # out of the handler, whose error holds on to all that was in memory
        compute.release()
        load_private_state(model, private)
        if part <= LEAST_PART:
            raise TrainingError(
                f"{compute.description} has not the memory for {part} images of "
                f"{dataset.image_shape[1]} pixels: use a smaller network or --image-size, or another --device"
            )
        part = max(part // 2, LEAST_PART)
        if compute.smaller:
            compute.part = part
        else:  # one batch tells what fits
            tried = dataset.subset(np.arange(min(len(dataset), plan.batch_size)))
            task = task._replace(plan=plan._replace(epochs=1))


class _Task(NamedTuple):
    """What :func:`train` was asked for, but for network, data and device."""

    layout: StateLayout
    normalisation: Normalisation
    plan: LocalPlan
    start: np.ndarray
    seed: int
    purpose: tuple
    round: int
    class_weights: Optional[np.ndarray]
    class_shares: Optional[np.ndarray]
    proximal: float
    anchor: np.ndarray
    drift: Optional[np.ndarray]
    full_gradient: bool


def _train(model: nn.Module, task: _Task, dataset: LesionDataset, compute: Compute, part: int) -> LocalResult:
    """Train ``model``, which is on the device; ``part``: images whose gradients are computed at once."""
    layout, plan, seed = task.layout, task.plan, task.seed
    layout.write(model, task.start)
    parameters = [p for p in model.parameters() if p.requires_grad]
    shared = layout.shared(model)
    objective = objective_of(
        plan.loss, plan.loss_options, plan.label_smoothing, task.class_weights, task.class_shares
    ).to(compute.device)

    gradient = None
    if task.full_gradient:
        gradient = _full_gradient(model, shared, dataset, task.normalisation, objective, part)

    correction = _Correction(shared, task, compute.device)
    optimiser = _optimiser(parameters, plan)
    scaler = compute.scaler()
    losses, shares = _Losses(), []
    orders = [seeds.numpy_rng(seed, "shuffle", *task.purpose, epoch) for epoch in range(plan.epochs)]
    epochs = [batches(len(dataset), plan.batch_size, rng) for rng in orders]
    planned = sum(map(len, epochs))
    model.train()
    with seeds.seeded(seed, "train", *task.purpose):
        for epoch, parts in enumerate(epochs):
            mixing = seeds.numpy_rng(seed, "mixup", *task.purpose, epoch)
            for images, labels in feed(
                dataset,
                parts,
                task.normalisation,
                plan.augmentation,
                seeds.numpy_rng(seed, "augment", *task.purpose, epoch),
                device=compute.device,
            ):
                if plan.mixup:
                    images, labels = mix(images, labels, len(dataset.classes), plan.mixup, mixing)
                shares.append(plan.rate.at_step(task.round, losses.steps, planned))
                for group in optimiser.param_groups:
                    group["lr"] = plan.lr * shares[-1]
                optimiser.zero_grad()
                losses.add(_backward(model, images, labels, objective, compute, part, scaler))
                if scaler is not None:
                    scaler.unscale_(optimiser)
                # Quadratic activations have no bounded slope: one odd batch could throw the weights
                # so far that they never return. Clipped before the correction, SCAFFOLD's controls
                # remain means of the very gradients that are used.
                if plan.max_grad_norm:
                    nn.utils.clip_grad_norm_(parameters, plan.max_grad_norm)
                correction.apply()
                if scaler is None:
                    optimiser.step()
                else:  # which leaves out a step whose gradients have overflowed
                    scaler.step(optimiser)
                    scaler.update()
    mean = losses.mean()
    delta = layout.flatten(model) - np.asarray(task.start, dtype=np.float32)
    if not np.isfinite(delta).all():
        raise TrainingError(f"weights are not finite after {losses.steps} steps: lower --lr")
    return LocalResult(delta, losses.steps, len(dataset), mean, gradient, np.array(shares))


def _backward(
    model: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    objective: nn.Module,
    compute: Compute,
    part: int,
    scaler: Optional[Any],
) -> torch.Tensor:
    """Add the gradient of a batch's mean loss to the parameters', and return that loss.

    In parts of ``part`` images where the batch is larger by more than one, which is the odd image that
    :func:`batches` may add.
    """
    n = len(labels)
    if n <= part + 1:
        pieces = [(images, labels)]
    else:
        count = -(-n // part)
        pieces = list(zip(images.chunk(count), labels.chunk(count)))
    total: List[torch.Tensor] = []
    for some_images, some_labels in pieces:
        with compute.autocast():
            logits = model(some_images)
        loss = objective(logits.float(), some_labels)
        if len(pieces) > 1:
            loss = loss * (len(some_labels) / n)
        (loss if scaler is None else scaler.scale(loss)).backward()
        total.append(loss.detach())
    return total[0] if len(total) == 1 else torch.stack(total).sum()


class _Correction:
    """A strategy's correction of the gradient: ``mu * (y - x) + drift``."""

    def __init__(self, parameters: List[nn.Parameter], task: _Task, device: torch.device):
        self._parameters = parameters
        self._proximal = task.proximal
        self._origin, self._drift = (
            None if vector is None else [t.to(device) for t in task.layout.parameter_tensors(vector)]
            for vector in (task.anchor if task.proximal else None, task.drift)
        )

    def apply(self) -> None:
        """Correct the parameters' gradients; one that takes no part in the loss has none."""
        for i, p in enumerate(self._parameters):
            if p.grad is None:
                continue
            if self._origin is not None:
                p.grad.add_(p.detach() - self._origin[i], alpha=self._proximal)
            if self._drift is not None:
                p.grad.add_(self._drift[i])


class _Losses:
    """The loss of each step, looked at every few: reading a number waits until the device has it."""

    _EVERY = 32

    def __init__(self) -> None:
        self.steps = 0
        self._read: List[float] = []
        self._waiting: List[torch.Tensor] = []

    def add(self, loss: torch.Tensor) -> None:
        """Add a step's. Raises TrainingError where one of the last is not a number."""
        self.steps += 1
        self._waiting.append(loss)
        if len(self._waiting) == self._EVERY:
            self._look()

    def mean(self) -> float:
        """Return the mean over all steps. Raises TrainingError where one is not a number."""
        self._look()
        return float(np.mean(self._read))

    def _look(self) -> None:
        if self._waiting:
            for loss in torch.stack(self._waiting).tolist():
                self._read.append(loss)
                if not math.isfinite(loss):
                    raise TrainingError(f"the loss is {loss} after {len(self._read)} steps: lower --lr")
            self._waiting = []


def _optimiser(parameters: List[nn.Parameter], plan: LocalPlan) -> torch.optim.Optimizer:
    optimiser: torch.optim.Optimizer = OPTIMISERS.build(plan.optimiser, plan._asdict(), params=parameters)
    return optimiser


def _full_gradient(
    model: nn.Module,
    parameters: List[nn.Parameter],
    dataset: LesionDataset,
    normalisation: Normalisation,
    objective: nn.Module,
    batch_size: int,
) -> np.ndarray:
    """Return the gradient of the mean loss over all images, without augmentation, float32."""
    model.eval()
    total = [torch.zeros_like(p) for p in parameters]
    parts = [np.arange(i, min(i + batch_size, len(dataset))) for i in range(0, len(dataset), batch_size)]
    for images, labels in feed(dataset, parts, normalisation, device=parameters[0].device):
        loss = objective(model(images), labels)
        for t, g in zip(total, torch.autograd.grad(loss, parameters)):
            t.add_(g, alpha=len(labels) / len(dataset))
    return torch.cat([t.reshape(-1) for t in total]).cpu().numpy()

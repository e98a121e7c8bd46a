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
from skinfl.data.transforms import Normalisation, augmentation, to_batch
from skinfl.errors import TrainingError
from skinfl.federation.objective import mix, objective_of
from skinfl.federation.optimisers import OPTIMISERS
from skinfl.federation.schedule import Constant, LearningRate
from skinfl.federation.update import StateLayout


class LocalPlan(NamedTuple):
    """How a hospital trains: the same for all hospitals and rounds of a run.

    ``max_grad_norm`` limits the norm of a step's gradient, before a strategy corrects it; 0 does not.
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
    augment: bool
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
) -> LocalResult:
    """Train ``model`` from the state ``start`` on a hospital's data.

    What the layout leaves out of ``start`` is trained from what it is in ``model``; a strategy's corrections
    do not concern it. ``proximal`` pulls towards ``anchor``, a state as ``start`` is, or else ``start``.

    ``purpose`` names the use of randomness, e.g. ``(round, hospital)``: the same seed and purpose
    give the same result bit for bit. ``round``, from 1, says where in the learning rate's schedule it is.
    ``class_weights`` and ``class_shares``: see :class:`~skinfl.federation.common.Prepared`. ``drift`` has
    shape ``(layout.n_parameters,)``.

    Raises :class:`~skinfl.errors.TrainingError` where the loss is not a number.
    """
    layout.write(model, start)
    objective = objective_of(plan.loss, plan.loss_options, plan.label_smoothing, class_weights, class_shares)
    parameters = [p for p in model.parameters() if p.requires_grad]
    shared = layout.shared(model)
    origin = layout.parameter_tensors(start if anchor is None else anchor) if proximal else None
    offset = None if drift is None else layout.parameter_tensors(drift)
    labels = torch.from_numpy(dataset.labels)

    gradient = None
    if full_gradient:
        gradient = _full_gradient(model, shared, dataset, normalisation, objective, plan.batch_size)

    augment = augmentation(dataset.image_shape[1]) if plan.augment else None
    optimiser = _optimiser(parameters, plan)
    model.train()
    steps, losses, shares = 0, [], []
    orders = [seeds.numpy_rng(seed, "shuffle", *purpose, epoch) for epoch in range(plan.epochs)]
    epochs = [batches(len(dataset), plan.batch_size, rng) for rng in orders]
    planned = sum(map(len, epochs))
    with seeds.seeded(seed, "train", *purpose):
        for epoch, parts in enumerate(epochs):
            mixing = seeds.numpy_rng(seed, "mixup", *purpose, epoch)
            for index in parts:
                images = to_batch(dataset.images[index], normalisation, augment)
                target = labels[torch.from_numpy(index)]
                if plan.mixup:
                    images, target = mix(images, target, len(dataset.classes), plan.mixup, mixing)
                shares.append(plan.rate.at_step(round, steps, planned))
                for group in optimiser.param_groups:
                    group["lr"] = plan.lr * shares[-1]
                optimiser.zero_grad()
                loss = objective(model(images), target)
                loss.backward()
                # Quadratic activations have no bounded slope: one odd batch could throw the weights
                # so far that they never return. Clipped before the correction, SCAFFOLD's controls
                # remain means of the very gradients that are used.
                if plan.max_grad_norm:
                    nn.utils.clip_grad_norm_(parameters, plan.max_grad_norm)
                for i, p in enumerate(shared):
                    if p.grad is None:  # it takes no part in the loss
                        continue
                    if origin is not None:
                        p.grad.add_(p.detach() - origin[i], alpha=proximal)
                    if offset is not None:
                        p.grad.add_(offset[i])
                optimiser.step()
                steps += 1
                losses.append(loss.item())
                if not math.isfinite(losses[-1]):
                    raise TrainingError(f"the loss is {losses[-1]} after {steps} steps: lower --lr")
    delta = layout.flatten(model) - np.asarray(start, dtype=np.float32)
    if not np.isfinite(delta).all():
        raise TrainingError(f"weights are not finite after {steps} steps: lower --lr")
    return LocalResult(delta, steps, len(dataset), float(np.mean(losses)), gradient, np.array(shares))


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
    for i in range(0, len(dataset), batch_size):
        images = to_batch(dataset.images[i : i + batch_size], normalisation)
        labels = torch.from_numpy(dataset.labels[i : i + batch_size])
        loss = objective(model(images), labels)
        for t, g in zip(total, torch.autograd.grad(loss, parameters)):
            t.add_(g, alpha=len(labels) / len(dataset))
    return torch.cat([t.reshape(-1) for t in total]).numpy()

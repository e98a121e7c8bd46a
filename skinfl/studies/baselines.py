"""The two ends of the scale: all data in one place, and each hospital on its own.

Both see as many images as the federated run: ``rounds * local_epochs`` passes over the very photographs that
hospitals train on. Those that hospitals keep to choose a round by choose here as well: all together for
the network of all, a hospital's own for its own. The moving average and early stopping (``ema``,
``patience``) are a federation's and left out. They need what a federation must not have
(all data in one place) and are for comparison only.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, NamedTuple, Optional, Tuple

import numpy as np
from torch import nn

from skinfl.assembly import FederatedData, TrainingParts, compute_of, divided, local_plan, training_parts
from skinfl.data.dataset import LesionDataset
from skinfl.data.normalisation import Normalisation
from skinfl.data.sources import Progress
from skinfl.data.transforms import normalisation_from_sums, pixel_sums
from skinfl.devices import Compute
from skinfl.federation.evaluation import evaluate, predict
from skinfl.federation.local import train
from skinfl.federation.rules import class_shares, class_weights
from skinfl.federation.selection import LAST, Selection
from skinfl.federation.update import StateLayout
from skinfl.federation.validation import pack_validation, unpack_validation
from skinfl.metrics import SCALARS, mean_of_known
from skinfl.networks import learner_of
from skinfl.settings import Settings


class Baseline(NamedTuple):
    """Metrics on the common test set, None where no network is for all; and at each hospital on its own part.

    Where each hospital has a network, ``metrics`` are the mean over them.
    """

    name: str
    metrics: Optional[Dict[str, Any]]
    at_hospitals: Dict[str, Dict[str, Any]]


def centralised(settings: Settings, federated: FederatedData, progress: Progress = None) -> Baseline:
    """Train on all hospitals' training images in one place."""
    measure = _train_alone(settings, pooled(settings, federated), "centralised", progress)
    at_hospitals = {name: measure(federated.test_of(name)) for name in federated.partition}
    return Baseline("centralised", measure(federated.test), _known(at_hospitals))


def pooled(settings: Settings, federated: FederatedData) -> TrainingParts:
    """Return what all hospitals train on, and what they choose by, each in one place."""
    parts = []
    for name in federated.partition:
        held = federated.train_indices(name)
        parts.append([held[part] for part in divided(settings, federated.dataset.subset(held), name)])
    return TrainingParts(*(federated.dataset.subset(np.sort(np.concatenate(part))) for part in zip(*parts)))


def local_only(settings: Settings, federated: FederatedData, progress: Progress = None) -> Baseline:
    """Train a network at each hospital on its own images; ``metrics`` are the mean over hospitals."""
    common, at_hospitals = [], {}
    for name in federated.partition:
        parts = training_parts(settings, federated.train_of(name), name)
        measure = _train_alone(settings, parts, name, progress)
        common.append(measure(federated.test))
        at_hospitals[name] = measure(federated.test_of(name))
    metrics = {key: mean_of_known([m[key] for m in common if m is not None]) for key in SCALARS}
    return Baseline("local-only", metrics, _known(at_hospitals))


def _known(metrics: Dict[str, Optional[Dict[str, Any]]]) -> Dict[str, Dict[str, Any]]:
    """Leave out hospitals that have no test photographs."""
    return {name: found for name, found in metrics.items() if found is not None}


def _train_alone(
    settings: Settings,
    parts: TrainingParts,
    name: str,
    progress: Progress,
) -> Callable[[LesionDataset], Optional[Dict[str, Any]]]:
    """Train; return what measures the network of the round that the validation part chooses, else the last.

    It gives metrics on a data set, None on an empty one.
    """
    dataset = parts.train
    learner = learner_of(settings, dataset.photograph_shape, len(dataset.classes))
    model = learner.model
    layout = StateLayout(model)
    normalisation = learner.normalisation or normalisation_from_sums(pixel_sums(dataset.images))
    counts = dataset.class_counts()
    weights = class_weights(counts, settings.class_weights, settings.effective_beta)
    shares = class_shares(counts)
    state = layout.flatten(model)
    compute = compute_of(settings)
    best: Optional[Tuple[Tuple[float, float], np.ndarray]] = None
    for round in range(1, settings.rounds + 1):
        result = train(
            model,
            layout,
            dataset,
            normalisation,
            local_plan(settings),
            start=state,
            seed=settings.seed,
            purpose=(round, name),
            round=round,
            class_weights=weights,
            class_shares=shares,
            compute=compute,
        )
        state = state + result.delta
        if round % settings.evaluate_every == 0 or round == settings.rounds:
            layout.write(model, state)
            score = _score(settings, model, parts.validation, normalisation, compute)
            if score is not None and (best is None or score > best[0]):
                best = score, state
        if progress is not None:
            progress(round, settings.rounds, f"{name} trains")
    layout.write(model, state if best is None else best[1])

    def measure(test: LesionDataset) -> Optional[Dict[str, Any]]:
        if not len(test):
            return None
        with compute.place(model):
            return evaluate(model, test, normalisation)

    return measure


def _score(
    settings: Settings,
    model: nn.Module,
    validation: LesionDataset,
    normalisation: Normalisation,
    compute: Compute,
) -> Optional[Tuple[float, float]]:
    """Return what a round is compared by, as a federation compares it; None where nothing is."""
    if settings.select == LAST or not len(validation):
        return None
    with compute.place(model):
        probabilities, _ = predict(model, validation, normalisation)
    malignant = [each.malignant for each in validation.class_info]
    unit = len(validation)
    packed = pack_validation(probabilities, validation.labels, malignant, unit)
    found = unpack_validation(packed, validation.classes, unit)
    assert found is not None, "there are images"
    return Selection(settings.select).score(found)

"""The two ends of the scale: all data in one place, and each hospital on its own.

Both see as many images as the federated run: ``rounds * local_epochs`` passes. They need what a
federation must not have (all data in one place) and are for comparison only.
"""

from __future__ import annotations

from typing import Any, Dict, NamedTuple

import numpy as np

from skinfl.assembly import FederatedData, compute_of, local_plan
from skinfl.data.dataset import LesionDataset
from skinfl.data.sources import Progress
from skinfl.data.transforms import normalisation_from_sums, pixel_sums
from skinfl.federation.evaluation import evaluate
from skinfl.federation.local import train
from skinfl.federation.rules import class_shares, class_weights
from skinfl.federation.update import StateLayout
from skinfl.metrics import SCALARS
from skinfl.networks import learner_of
from skinfl.settings import Settings


class Baseline(NamedTuple):
    """Metrics on the common test set; ``by_hospital`` is filled where each trained on its own."""

    name: str
    metrics: Dict[str, Any]
    by_hospital: Dict[str, Dict[str, Any]]


def centralised(settings: Settings, federated: FederatedData, progress: Progress = None) -> Baseline:
    """Train on all hospitals' training images in one place."""
    pooled = federated.dataset.subset(federated.split.train)
    metrics = _train_alone(settings, pooled, federated.test, "centralised", progress)
    return Baseline("centralised", metrics, {})


def local_only(settings: Settings, federated: FederatedData, progress: Progress = None) -> Baseline:
    """Train a network at each hospital on its own images; ``metrics`` are the mean over hospitals."""
    test = federated.test
    by_hospital = {
        name: _train_alone(settings, federated.train_of(name), test, name, progress)
        for name in federated.partition
    }
    metrics: Dict[str, Any] = {}
    for key in SCALARS:
        found = [m[key] for m in by_hospital.values() if m[key] is not None]
        metrics[key] = float(np.mean(found)) if found else None
    return Baseline("local-only", metrics, by_hospital)


def _train_alone(
    settings: Settings,
    dataset: LesionDataset,
    test: LesionDataset,
    name: str,
    progress: Progress,
) -> Dict[str, Any]:
    learner = learner_of(settings, dataset.photograph_shape, len(dataset.classes))
    model = learner.model
    layout = StateLayout(model)
    normalisation = learner.normalisation or normalisation_from_sums(pixel_sums(dataset.images))
    counts = dataset.class_counts()
    weights = class_weights(counts, settings.class_weights, settings.effective_beta)
    state = layout.flatten(model)
    compute = compute_of(settings)
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
            class_shares=class_shares(counts),
            compute=compute,
        )
        state = state + result.delta
        if progress is not None:
            progress(round, settings.rounds, f"{name} trains")
    layout.write(model, state)
    with compute.place(model):
        return evaluate(model, test, normalisation)

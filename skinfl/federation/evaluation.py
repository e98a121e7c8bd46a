"""Evaluating a network on photographs, where they are."""

from __future__ import annotations

from typing import Dict, Tuple

import numpy as np
import torch
from torch import nn

from skinfl.data.dataset import LesionDataset
from skinfl.data.transforms import Normalisation, to_batch
from skinfl.metrics import evaluate_predictions

_BATCH = 256


def predict(
    model: nn.Module, dataset: LesionDataset, normalisation: Normalisation, *, batch_statistics: bool = False
) -> Tuple[np.ndarray, float]:
    """Return class probabilities, shape (n, classes), and the mean cross entropy.

    ``batch_statistics`` lets BatchNorm normalise by the test images themselves: a data set that
    belongs to no hospital has no statistics of its own where each hospital keeps its own.
    """
    saved = {name: b.clone() for name, b in model.named_buffers()} if batch_statistics else {}
    model.train(batch_statistics)
    logits = []
    with torch.no_grad():
        for i in range(0, len(dataset), _BATCH):
            logits.append(model(to_batch(dataset.images[i : i + _BATCH], normalisation)))
        for name, b in model.named_buffers():
            if name in saved:
                b.copy_(saved[name])
    model.eval()
    stacked = torch.cat(logits)
    loss = nn.functional.cross_entropy(stacked, torch.from_numpy(dataset.labels)).item()
    return torch.softmax(stacked.double(), dim=1).numpy(), loss


def evaluate(
    model: nn.Module, dataset: LesionDataset, normalisation: Normalisation, *, batch_statistics: bool = False
) -> Dict[str, object]:
    """Return all metrics of :func:`skinfl.metrics.evaluate_predictions` and ``"loss"``."""
    probabilities, loss = predict(model, dataset, normalisation, batch_statistics=batch_statistics)
    return {**evaluate_predictions(probabilities, dataset.labels, dataset.classes), "loss": loss}

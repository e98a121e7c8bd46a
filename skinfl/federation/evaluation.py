"""Evaluating a network on photographs, where they are."""

from __future__ import annotations

from typing import Any, Dict, List, Tuple

import numpy as np
import torch
from torch import nn

from skinfl.data.dataset import LesionDataset
from skinfl.data.transforms import Normalisation, to_batch
from skinfl.devices import is_out_of_memory
from skinfl.metrics import evaluate_predictions

_BATCH = 256


def predict(
    model: nn.Module, dataset: LesionDataset, normalisation: Normalisation, *, batch_statistics: bool = False
) -> Tuple[np.ndarray, float]:
    """Return class probabilities, shape (n, classes), and the mean cross entropy.

    ``batch_statistics`` lets BatchNorm normalise by the test images themselves: a data set that
    belongs to no hospital has no statistics of its own where each hospital keeps its own.

    Where there are several views of each photograph their logits are averaged (test-time augmentation).
    Computed where the network is, always in float32. Where memory is too small for a batch, a smaller one is
    taken, unless ``batch_statistics`` are of the batch.
    """
    saved = {name: b.clone() for name, b in model.named_buffers()} if batch_statistics else {}
    model.train(batch_statistics)
    with torch.no_grad():
        shrink = not batch_statistics
        views = [_logits(model, look, normalisation, shrink=shrink) for look in dataset.views]
        logits = views[0] if len(views) == 1 else torch.stack(views).mean(dim=0)
        for name, b in model.named_buffers():
            if name in saved:
                b.copy_(saved[name])
    model.eval()
    loss = nn.functional.cross_entropy(logits, torch.from_numpy(dataset.labels)).item()
    return torch.softmax(logits.double(), dim=1).numpy(), loss


def _logits(model: nn.Module, images: Any, normalisation: Normalisation, *, shrink: bool) -> torch.Tensor:
    """Return logits in the computer's memory; ``shrink`` halves the batch where memory runs out."""
    device = next(model.parameters()).device
    logits: List[torch.Tensor] = []
    done, batch = 0, _BATCH
    while done < len(images):
        try:
            part = to_batch(images[done : done + batch], normalisation, device=device)
            logits.append(model(part).cpu())
            done += batch
        except (RuntimeError, MemoryError) as error:
            if not (shrink and batch > 1 and is_out_of_memory(error)):
                raise
            batch //= 2
    return torch.cat(logits)


def evaluate(
    model: nn.Module, dataset: LesionDataset, normalisation: Normalisation, *, batch_statistics: bool = False
) -> Dict[str, object]:
    """Return all metrics of :func:`skinfl.metrics.evaluate_predictions` and ``"loss"``."""
    probabilities, loss = predict(model, dataset, normalisation, batch_statistics=batch_statistics)
    return {**evaluate_predictions(probabilities, dataset.labels, dataset.classes), "loss": loss}

"""From a model file to what a server serves: the collapsed network, room for its values, a description."""

from __future__ import annotations

from typing import NamedTuple, Sequence

import numpy as np

from skinfl.errors import ModelError
from skinfl.inference.circuit.batch import BatchCircuit
from skinfl.inference.circuit.collapse import collapse
from skinfl.inference.circuit.latency import LatencyCircuit
from skinfl.inference.circuit.network import Bounds, Collapsed
from skinfl.inference.info import ModelInfo
from skinfl.models import StoredModel
from skinfl.predictions import in_full
from skinfl.seeds import numpy_rng


class Served(NamedTuple):
    """A model to serve: ``info`` is public, the rest stays with the server."""

    info: ModelInfo
    network: Collapsed
    bounds: Bounds


def prepare(stored: StoredModel, *, batches: bool = False) -> Served:
    """Collapse a stored model and see that it fits.

    Raises :class:`~skinfl.errors.ModelError` that says why one does not.
    """
    network = collapse(stored.model, in_channels=stored.in_channels, image_size=stored.image_size)
    bounds = probe_bounds(network, stored.mean, stored.std)
    info = ModelInfo(
        name=stored.name,
        class_names=stored.class_names,
        mean=stored.mean,
        std=stored.std,
        preparation=stored.preparation,
        latency=LatencyCircuit(network, bounds).spec,
        batch=BatchCircuit(network, bounds).spec if batches else None,
        temperature=stored.temperature,
        titles=tuple(map(in_full, stored.class_info)),
    )
    return Served(info, network, bounds)


def probe_bounds(network: Collapsed, mean: Sequence[float], std: Sequence[float]) -> Bounds:
    """Return twice the largest magnitudes over images more extreme than any photograph.

    The images are flat fields from black to white, noise, and black-and-white noise, all normalised by
    ``mean`` and ``std``. A bound that holds for every conceivable image would be thousands of times what
    photographs reach, and the precision that costs is spent better: an image crafted to exceed the bound
    deceives its sender alone, and the answer shows it (see :mod:`skinfl.inference.clinic.client`).

    Raises :class:`~skinfl.errors.ModelError` for a network that is not finite on them.
    """
    shape = (network.channels, network.image_size, network.image_size)
    rng = numpy_rng(0, "probe bounds")
    flat = np.linspace(0, 1, 9)[:, None, None, None] * np.ones(shape)
    noise = rng.random((32, *shape))
    images = np.concatenate([flat, noise, np.rint(noise)])
    axis = (slice(None), None, None)
    normalised = (images - np.asarray(mean)[axis]) / np.asarray(std)[axis]
    _, second, logits = network.forward(normalised)
    bounds = Bounds(2 * float(np.abs(second).max()), 2 * float(np.abs(logits).max()))
    if not np.isfinite(bounds).all():
        raise ModelError("the network's answers are not finite: its training diverged, train it again")
    return bounds

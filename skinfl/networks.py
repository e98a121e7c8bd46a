"""From settings to what is trained: a whole network, its last stages, or a head on a frozen trunk's features.

Everybody makes the very same from the same settings and the same pretrained weights: coordinator, hospitals,
and whoever opens the model file.
"""

from __future__ import annotations

import json
from typing import Any, Dict, NamedTuple, Optional, Tuple

import torch
from torch import nn

from skinfl import seeds
from skinfl.data.dataset import LesionDataset
from skinfl.data.normalisation import Normalisation
from skinfl.data.sources import Progress
from skinfl.errors import SettingsError
from skinfl.features import feature_shape, featured
from skinfl.models import pretrained, trunk
from skinfl.models.registry import ALL, HEAD, MODELS, NONE, last_stages
from skinfl.paths import PathLike
from skinfl.settings import Settings


class Learner(NamedTuple):
    """What is trained, and what surrounds it.

    ``model``: what is trained, with its first weights. ``channels``: of what it takes. ``base``: the whole
    network as it was pretrained. ``trunk``: what stays as it is and computes the features that ``model``
    takes; None where it takes images. ``normalisation``: of what ``model`` takes; None where it comes from
    the hospitals' sums. ``pixels``: of images, where weights bring it along. ``described``: what decides the
    trunk's features, and tells one network from another; empty where nothing is pretrained.
    """

    model: nn.Module
    channels: int
    base: nn.Module
    trunk: Optional[nn.Module]
    normalisation: Optional[Normalisation]
    pixels: Optional[Normalisation]
    described: str
    weights: Optional[pretrained.Weights]

    @property
    def sha256(self) -> str:
        """The SHA-256 of the pretrained weights; empty where there are none."""
        return "" if self.weights is None else self.weights.sha256


class Whole(NamedTuple):
    """A whole network for a model file: ``head`` describes a head on pooled features, see ``load_model``."""

    model: nn.Module
    normalisation: Normalisation
    head: Optional[Dict[str, Any]]


def check(settings: Settings) -> None:
    """Refuse, before any data is read, weights that are not there and a network that cannot be cut."""
    pretrained.check(settings.model, settings.pretrained)
    count = last_stages(settings.trainable)
    if settings.trainable != ALL:
        most = trunk.count_stages(settings.model)
        if count >= most:
            raise SettingsError(
                f"--trainable {settings.trainable}: {settings.model} has {most} stages; use last:1 to "
                f"last:{most - 1}, or all"
            )


def learner_of(settings: Settings, photographs: Tuple[int, int, int], classes: int) -> Learner:
    """Return what is trained, for photographs of (channels, height, width)."""
    check(settings)
    channels, size, _ = photographs
    weights = None
    if settings.pretrained != NONE:
        weights = pretrained.load_weights(settings.model, settings.pretrained)
    with seeds.seeded(settings.seed, "model"):
        shape = {"in_channels": channels, "image_size": size, "classes": classes}
        base: nn.Module = MODELS.build(settings.model, settings.asdict(), **shape)
        if weights is None:
            return Learner(base, channels, base, None, None, None, "", None)
        pretrained.apply_weights(settings.model, base, weights)
        pixels = Normalisation(*pretrained.scale_for(weights.scale, channels))
        if settings.trainable == ALL:
            described = _described(settings, weights, pixels, photographs)
            return Learner(base, channels, base, None, pixels, pixels, described, weights)
        parts = trunk.parts_of(settings.model, base)
        described = _described(settings, weights, pixels, photographs)
        if settings.trainable == HEAD:
            pooled = trunk.PooledTrunk(parts.stages, settings.features == "stages").eval()
            features = feature_shape(pooled, photographs)[2]
            head = trunk.Head(features, classes, **head_options(settings))
            return Learner(head, features, base, pooled, None, pixels, described, weights)
        count = last_stages(settings.trainable)
        frozen = nn.Sequential(*parts.stages[:-count]).eval()
        rest = trunk.frozen_norms(nn.Sequential(*parts.stages[-count:], parts.top))
        maps = feature_shape(frozen, photographs)[2]
        identity = Normalisation((0.0,) * maps, (1.0,) * maps)
        return Learner(rest, maps, base, frozen, identity, pixels, described, weights)


def head_options(settings: Settings) -> Dict[str, Any]:
    """Return how a head is built, see :class:`~skinfl.models.trunk.Head`."""
    hidden = settings.head_hidden if settings.head == "mlp" else 0
    return {"hidden": hidden, "dropout": settings.head_dropout}


def learnt_from(
    settings: Settings,
    dataset: LesionDataset,
    progress: Progress = None,
    cache_dir: Optional[PathLike] = None,
) -> LesionDataset:
    """Return what is trained on: the photographs themselves, or a frozen trunk's features of them."""
    check(settings)
    if settings.trainable == ALL or dataset.images.dtype.kind == "f":
        return dataset
    learner = learner_of(settings, dataset.photograph_shape, len(dataset.classes))
    assert learner.trunk is not None and learner.pixels is not None, "what is not trained is pretrained"
    return featured(
        dataset,
        learner.trunk,
        learner.pixels,
        learner.described,
        views=settings.views,
        cache_dir=cache_dir,
        progress=progress,
    )


def whole(settings: Settings, learner: Learner, normalisation: Normalisation) -> Whole:
    """Return the whole network that ``learner.model`` is the trained part of.

    ``normalisation``: of what is trained, as the hospitals' sums gave it.
    """
    if learner.trunk is None or learner.pixels is None:
        return Whole(learner.model, normalisation, None)
    if isinstance(learner.trunk, trunk.PooledTrunk):
        mean, std = (torch.tensor(values, dtype=torch.float32) for values in normalisation)
        head = {"features": settings.features, **head_options(settings)}
        return Whole(trunk.WithHead(learner.trunk, learner.model, mean, std), learner.pixels, head)
    parts = trunk.parts_of(settings.model, learner.base)
    rest = nn.Sequential(*parts.stages[-last_stages(settings.trainable) :], parts.top)
    rest.load_state_dict(learner.model.state_dict(), strict=False)  # all but counters of batches
    return Whole(learner.base, learner.pixels, None)


def _described(
    settings: Settings, weights: pretrained.Weights, pixels: Normalisation, photographs: Tuple[int, int, int]
) -> str:
    features = settings.features if settings.trainable == HEAD else ""
    parts = [settings.model, weights.sha256, pixels, settings.trainable, features, photographs]
    return json.dumps(parts)

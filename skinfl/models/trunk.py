"""A network cut in two: a trunk that stays as it was pretrained, and the rest, which is trained.

Known networks are lists of parts (:func:`parts_of`): each ends at a stage, whose maps are worth looking at,
and the last thing is what makes logits of the last maps. A trunk's outputs are the same in every epoch, so
they are computed once.
"""

from __future__ import annotations

import copy
from typing import Any, Callable, Dict, List, NamedTuple, Sequence, Tuple

import torch
from torch import nn

from skinfl.errors import ModelError

#: a pooled deviation of no deviation must have a slope
_SMALLEST_VARIANCE = 1e-6


class Parts(NamedTuple):
    """``stages``: in order, each takes the maps of the one before, the first images. ``top``: to logits."""

    stages: List[nn.Module]
    top: nn.Module


def _lite(model: Any) -> Parts:
    stages = list(model.stages.children())
    first = nn.Sequential(model.stem, stages[0])
    top = nn.Sequential(model.pool, model.flatten, model.dropout, model.classifier)
    return Parts([first, *stages[1:], model.head], top)


def _resnet(model: Any) -> Parts:
    first = nn.Sequential(model.conv1, model.bn1, model.relu, model.maxpool, model.layer1)
    top = nn.Sequential(model.avgpool, nn.Flatten(), model.fc)
    return Parts([first, model.layer2, model.layer3, model.layer4], top)


def _of_features(*ends: int) -> Callable[[Any], Parts]:
    def cut(model: Any) -> Parts:
        layers = list(model.features.children())
        starts = [0, *ends[:-1]]
        stages: List[nn.Module] = [nn.Sequential(*layers[a:b]) for a, b in zip(starts, ends)]
        return Parts(stages, nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), model.classifier))

    return cut


#: by name of the network, how many stages it has and what cuts it; torchvision's lists of layers at the ends
#: of stages
_CUTS: Dict[str, Tuple[int, Callable[[Any], Parts]]] = {
    "efficientnet_lite0": (8, _lite),
    "resnet18": (4, _resnet),
    "mobilenet_v2": (8, _of_features(2, 4, 7, 11, 14, 17, 18, 19)),
    "efficientnet_b0": (8, _of_features(2, 3, 4, 5, 6, 7, 8, 9)),
}


def parts_of(name: str, model: nn.Module) -> Parts:
    """Return the parts of a network; they share its tensors."""
    count_stages(name)
    return _CUTS[name][1](model)


def count_stages(name: str) -> int:
    """Return how many stages a network has; raises ModelError for one whose parts are not known."""
    if name not in _CUTS:
        raise ModelError(
            f"{name} cannot be cut into a trunk and the rest: use one of {', '.join(_CUTS)}, or "
            "--trainable all"
        )
    return _CUTS[name][0]


class PooledTrunk(nn.Module):
    """Mean and standard deviation over each map that a stage ends with: floats, shape (n, features).

    ``deep``: of all stages, else of the last one. Early stages know textures and colours, the last one knows
    what photographs of everyday things show.
    """

    def __init__(self, stages: Sequence[nn.Module], deep: bool = True):
        super().__init__()
        self.stages = nn.ModuleList(list(stages))
        self.deep = deep

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the features of normalised images, shape (n, channels, height, width)."""
        pooled = []
        x = images
        last = len(self.stages) - 1
        for i, stage in enumerate(self.stages):
            x = stage(x)
            if self.deep or i == last:
                mean = x.mean(dim=(2, 3))
                centred = x - mean[:, :, None, None]
                variance = (centred * centred).mean(dim=(2, 3))
                pooled += [mean, (variance + _SMALLEST_VARIANCE).sqrt()]
        return torch.cat(pooled, dim=1)


class Head(nn.Module):
    """What is trained on pooled features: logits from (n, features, 1, 1).

    ``hidden`` units between, or none where it is 0. The output layer starts near an even guess.
    """

    def __init__(self, features: int, classes: int, hidden: int = 0, dropout: float = 0.0):
        super().__init__()
        self.flatten = nn.Flatten()
        self.dropout = nn.Dropout(dropout)
        if hidden:
            self.hidden: nn.Module = nn.Sequential(
                nn.Linear(features, hidden), nn.ReLU(), nn.Dropout(dropout)
            )
        else:
            self.hidden = nn.Identity()
        self.output = nn.Linear(hidden or features, classes)
        nn.init.normal_(self.output.weight, std=1e-3)
        nn.init.zeros_(self.output.bias)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return logits, shape (n, classes)."""
        return self.output(self.hidden(self.dropout(self.flatten(features))))


class WithHead(nn.Module):
    """A whole network again: a pooled trunk, the normalisation of its features, and the trained head.

    ``mean`` and ``std`` of the features, shape (features,), are buffers, so a model file has them.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, trunk: PooledTrunk, head: nn.Module, mean: torch.Tensor, std: torch.Tensor):
        super().__init__()
        self.trunk = trunk
        self.head = head
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits, shape (n, classes), of normalised images."""
        features = (self.trunk(images) - self.mean) / self.std
        return self.head(features)


def with_head(
    name: str,
    model: nn.Module,
    classes: int,
    in_channels: int,
    image_size: int,
    *,
    features: str,
    hidden: int,
    dropout: float,
) -> WithHead:
    """Return a network's trunk with a new head, for a state to be loaded into; see :class:`Head`."""
    trunk = PooledTrunk(parts_of(name, model).stages, features == "stages").eval()
    with torch.no_grad():
        number = int(trunk(torch.zeros(1, in_channels, image_size, image_size)).shape[1])
    head = Head(number, classes, hidden, dropout)
    return WithHead(trunk, head, torch.zeros(number), torch.ones(number))


class FrozenNorm2d(nn.Module):
    """Batch normalisation by the pretrained statistics, which stay; scale and shift are trained.

    A hospital's few images a step, of few classes, would drag the statistics away from those that the
    trunk's maps come with. They are parameters without gradient: constants, which are never sent.
    """

    def __init__(self, norm: nn.BatchNorm2d):
        super().__init__()
        self.eps = norm.eps
        self.weight = nn.Parameter(norm.weight.detach().clone())
        self.bias = nn.Parameter(norm.bias.detach().clone())
        mean, variance = norm.running_mean, norm.running_var
        assert mean is not None and variance is not None, "networks here keep running statistics"
        self.running_mean = nn.Parameter(mean.detach().clone(), requires_grad=False)
        self.running_var = nn.Parameter(variance.detach().clone(), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the normalised maps."""
        return nn.functional.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
        )


def replaced(model: nn.Module, kind: type, make: Callable[[Any], nn.Module]) -> nn.Module:
    """Return a copy of a module in which each module of a kind is what ``make`` makes of it."""
    if isinstance(model, kind):
        return make(model)
    copied = copy.deepcopy(model)
    for parent in list(copied.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, kind):
                setattr(parent, name, make(child))
    return copied


def frozen_norms(model: nn.Module) -> nn.Module:
    """Return a copy in which every batch normalisation is a :class:`FrozenNorm2d`."""
    return replaced(model, nn.BatchNorm2d, FrozenNorm2d)


def folded_norms(model: nn.Module) -> nn.Module:
    """Return a copy for inference: a convolution followed by batch normalisation becomes one convolution."""
    copied = copy.deepcopy(model).eval()
    for parent in list(copied.modules()):
        children = list(parent.named_children())
        for (before, conv), (after, norm) in zip(children, children[1:]):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(parent, before, _folded(conv, norm))
                setattr(parent, after, nn.Identity())
    return copied


def _folded(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d:
    both = copy.deepcopy(conv)
    assert norm.running_mean is not None and norm.running_var is not None, "networks here keep statistics"
    with torch.no_grad():
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        bias = norm.bias - norm.running_mean * scale
        if conv.bias is not None:
            bias = bias + conv.bias * scale
        both.weight = nn.Parameter(conv.weight * scale[:, None, None, None])
        both.bias = nn.Parameter(bias)
    return both

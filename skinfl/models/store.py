"""A trained network in one file: weights, and what is needed to feed it an image and name its answer.

The file is a numpy archive of arrays and one JSON header. Nothing in it is executed on loading
(``allow_pickle=False``), so a model from elsewhere can be wrong but cannot run code.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any, Dict, Mapping, NamedTuple, Optional, Sequence, Tuple, Union

import numpy as np
import torch
from torch import nn

from skinfl.data.preparation import Preparation
from skinfl.errors import DataError, ModelError, SettingsError, WriteError, printable
from skinfl.files import whole_file
from skinfl.models.registry import MODELS, build_model
from skinfl.models.trunk import with_head
from skinfl.predictions import LesionClass

FORMAT = "skinfl-model"
VERSION = 1
_HEADER = "header"
_STATE = "state/"


class StoredModel(NamedTuple):
    """A loaded model. ``mean`` and ``std`` normalise pixels in 0..1, one number for each channel.

    ``preparation``: how a photograph becomes the network's square of pixels. Logits are divided by
    ``temperature`` before they become probabilities (Guo et al., *On Calibration of Modern Neural Networks*,
    ICML 2017, section 4.2). ``class_info`` describes the classes; of a file that does not, the short names
    are all that is known. ``views``: over how many views of a photograph logits are averaged.
    """

    model: nn.Module
    name: str
    class_names: Tuple[str, ...]
    mean: Tuple[float, ...]
    std: Tuple[float, ...]
    image_size: int
    in_channels: int
    preparation: Preparation
    temperature: float = 1.0
    class_info: Tuple[LesionClass, ...] = ()
    views: int = 1


def save_model(
    path: Union[str, Path],
    model: nn.Module,
    *,
    name: str,
    in_channels: int,
    image_size: int,
    classes: int,
    class_names: Sequence[str],
    doconv: bool,
    normalisation_mean: Sequence[float],
    normalisation_std: Sequence[float],
    options: Optional[Mapping[str, Any]] = None,
    fit: str = "squash",
    colour_constancy: str = "none",
    head: Optional[Mapping[str, Any]] = None,
    temperature: float = 1.0,
    class_info: Sequence[Tuple[str, str, Optional[bool]]] = (),
    views: int = 1,
) -> None:
    """Write ``model``, built by ``build_model`` with the same arguments, to ``path``.

    ``normalisation_mean`` and ``normalisation_std`` have one number for each channel, for pixels in 0..1.
    ``options`` are those that the network registers, where it has others than ``doconv``. ``fit`` and
    ``colour_constancy`` say how photographs were prepared (:mod:`skinfl.data.preparation`). ``head`` says
    that ``model`` is a :class:`~skinfl.models.trunk.WithHead` of that network, and which. ``class_info`` has
    for each class its short name, its name in full and whether it is malignant; ``temperature`` is as in
    :class:`StoredModel`. The file appears whole or not at all.

    Raises :class:`~skinfl.errors.ModelError` where the description contradicts itself or the place cannot be
    written.
    """
    header = {
        "format": FORMAT,
        "version": VERSION,
        "name": name,
        "in_channels": int(in_channels),
        "image_size": int(image_size),
        "fit": fit,
        "colour_constancy": colour_constancy,
        "classes": int(classes),
        "class_names": [str(c) for c in class_names],
        "doconv": bool(doconv),
        "options": dict(options or {}),
        "mean": [float(v) for v in normalisation_mean],
        "std": [float(v) for v in normalisation_std],
        "temperature": float(temperature),
        "views": int(views),
    }
    if head is not None:
        header["head"] = dict(head)
    if class_info:
        header["class_info"] = [LesionClass(*each)._asdict() for each in class_info]
    _check_header(Path(path), header)
    arrays = {_STATE + key: value.detach().cpu().numpy() for key, value in model.state_dict().items()}
    arrays[_HEADER] = np.array(json.dumps(header))
    try:
        with whole_file(path) as file:
            np.savez(file, **arrays)
    except WriteError as error:
        raise ModelError(f"cannot write the model to {path}: {error.reason}") from error


def load_model(path: Union[str, Path]) -> StoredModel:
    """Read a model that :func:`save_model` wrote; it comes in evaluation mode.

    Raises :class:`~skinfl.errors.ModelError` for a file that is missing, cut short, not a model, or
    whose weights do not fit the network it names.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelError(f"no model at {path}: give the file that training wrote")
    header, state = _read(path)
    _check_header(path, header)
    if ":" in header["name"] and header["name"] not in MODELS:
        raise ModelError(
            f"{path} holds the network {printable(header['name'], 100)}, which is not this package's: if you "
            f"trust that code, load it with --plugin {printable(header['name'], 100)}"
        )
    model = build_model(
        header["name"],
        in_channels=header["in_channels"],
        image_size=header["image_size"],
        classes=header["classes"],
        **{"doconv": header["doconv"], **header.get("options", {})},
    )
    if "head" in header:
        model = with_head(
            header["name"],
            model,
            header["classes"],
            header["in_channels"],
            header["image_size"],
            **header["head"],
        )
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise ModelError(f"{path}: the weights do not fit the network {header['name']!r} it names") from error
    if not all(torch.isfinite(value).all() for value in state.values()):
        raise ModelError(f"{path}: some weights are not numbers; its training diverged: train it again")
    return StoredModel(
        model.eval(),
        header["name"],
        tuple(header["class_names"]),
        tuple(header["mean"]),
        tuple(header["std"]),
        header["image_size"],
        header["in_channels"],
        _preparation(header),
        float(header.get("temperature", 1.0)),
        tuple(LesionClass(**each) for each in header["class_info"])
        if "class_info" in header
        else tuple(LesionClass(name, name) for name in header["class_names"]),
        int(header.get("views", 1)),
    )


def _read(path: Path) -> Tuple[Dict, Dict[str, torch.Tensor]]:
    damaged = f"{path} is not a model file, or is cut short: give the file that training wrote"
    try:
        with open(str(path), "rb"):
            pass
    except OSError as error:
        raise ModelError(f"cannot read the model {path}: {error.strerror}") from error
    if not zipfile.is_zipfile(str(path)):
        raise ModelError(damaged)
    try:
        with np.load(str(path), allow_pickle=False) as archive:
            header = json.loads(str(archive[_HEADER][()]))
            state = {
                key[len(_STATE) :]: torch.from_numpy(np.array(archive[key]))
                for key in archive.files
                if key.startswith(_STATE)
            }
    except (OSError, ValueError, KeyError, EOFError, AttributeError, TypeError, zipfile.BadZipFile) as error:
        raise ModelError(damaged) from error
    return header, state


def _preparation(header: Dict) -> Preparation:
    # A file of a version that knew no other way says nothing of it.
    return Preparation(
        header["image_size"], header.get("fit", "squash"), header.get("colour_constancy", "none")
    ).check()


_FIELDS = {
    "name": str,
    "in_channels": int,
    "image_size": int,
    "classes": int,
    "class_names": list,
    "doconv": bool,
    "mean": list,
    "std": list,
}


def _check_header(path: Path, header: Dict) -> None:
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise ModelError(f"{path} is not a model file: give the file that training wrote")
    if header.get("version") != VERSION:
        raise ModelError(
            f"{path} has model format {header.get('version')}, this skinfl reads {VERSION}: "
            "use the version of skinfl that wrote it"
        )
    for field, kind in _FIELDS.items():
        if not isinstance(header.get(field), kind):
            raise ModelError(f"{path}: the model's header has no proper {field!r}")
    try:
        _preparation(header)
    except DataError as error:
        raise ModelError(f"{path}: how its photographs were prepared is not known here: {error}") from None
    options = header.get("options", {})
    if not isinstance(options, dict):
        raise ModelError(f"{path}: the model's header has no proper 'options'")
    known = (
        {option.name: option for option in MODELS[header["name"]].options} if header["name"] in MODELS else {}
    )
    for name, value in options.items():
        if name not in known:
            raise ModelError(f"{path}: the network {header['name']!r} has no option {name!r} here")
        try:
            known[name].check(value)
        except SettingsError as error:
            raise ModelError(f"{path}: {error}") from None
    if "head" in header:
        _check_head(path, header["head"])
    temperature = header.get("temperature", 1.0)
    if not isinstance(temperature, (int, float)) or not 0 < temperature < float("inf"):
        raise ModelError(f"{path}: the model's temperature needs a positive number")
    views = header.get("views", 1)
    if not isinstance(views, int) or isinstance(views, bool) or not 1 <= views <= 8:
        raise ModelError(f"{path}: the model's views need to be a whole number from 1 to 8")
    if len(header["class_names"]) != header["classes"]:
        raise ModelError(f"{path}: {len(header['class_names'])} class names for {header['classes']} classes")
    for field in ("mean", "std"):
        values = header[field]
        if len(values) != header["in_channels"] or not all(isinstance(v, (int, float)) for v in values):
            raise ModelError(f"{path}: {field} needs one number for each of {header['in_channels']} channels")
    if not all(np.isfinite(header["mean"])) or not all(np.isfinite(header["std"])) or min(header["std"]) <= 0:
        raise ModelError(f"{path}: the normalisation needs finite means and positive standard deviations")
    described = header.get("class_info")
    if described is not None and not _describes(described, header["class_names"]):
        raise ModelError(f"{path}: the model's header has no proper 'class_info'")


def _check_head(path: Path, head: Any) -> None:
    """Refuse a head that this package does not write."""
    kinds: Dict[str, Tuple[type, ...]] = {"features": (str,), "hidden": (int,), "dropout": (int, float)}
    if (
        not isinstance(head, dict)
        or set(head) != set(kinds)
        or not all(
            isinstance(head[key], kind) and not isinstance(head[key], bool) for key, kind in kinds.items()
        )
        or head["features"] not in ("stages", "last")
        or not (0 <= head["hidden"] <= 65536 and 0 <= head["dropout"] < 1)
    ):
        raise ModelError(f"{path}: the model's header has no proper 'head'")


def _describes(described: Any, names: Sequence[str]) -> bool:
    """Whether a header's ``class_info`` is of just these classes."""
    return (
        isinstance(described, list)
        and all(isinstance(each, dict) and sorted(each) == sorted(LesionClass._fields) for each in described)
        and [each["name"] for each in described] == list(names)
        and all(isinstance(each["full_name"], str) for each in described)
        and all(each["malignant"] in (True, False, None) for each in described)
    )

"""What a server tells everyone about its model: names, preprocessing, parameters. No weights."""

from __future__ import annotations

from typing import Any, Dict, Mapping, NamedTuple, Optional, Tuple

from skinfl.data.preparation import Preparation
from skinfl.errors import DataError, MessageError, ProtectionError
from skinfl.inference.parameters import VERSION, BatchSpec, LatencySpec, from_mapping, to_mapping


class ModelInfo(NamedTuple):
    """A model as a client sees it; ``mean`` and ``std`` normalise pixels in 0..1, by channel.

    ``preparation``: how a photograph becomes the network's square of pixels, as in training. ``batch`` is
    None where the server takes no batches. The client divides decrypted logits by ``temperature``; ``titles``
    are the classes' names in full, malignant ones marked, empty where not known.
    """

    name: str
    class_names: Tuple[str, ...]
    mean: Tuple[float, ...]
    std: Tuple[float, ...]
    preparation: Preparation
    latency: LatencySpec
    batch: Optional[BatchSpec]
    temperature: float = 1.0
    titles: Tuple[str, ...] = ()


def to_json(info: ModelInfo) -> Dict[str, Any]:
    """Return the answer of ``GET /v1/model``."""
    return {
        "version": VERSION,
        "name": info.name,
        "class_names": list(info.class_names),
        "titles": list(info.titles),
        "temperature": info.temperature,
        "mean": list(info.mean),
        "std": list(info.std),
        "preparation": info.preparation._asdict(),
        "latency": to_mapping(info.latency),
        "latency_fingerprint": info.latency.fingerprint,
        "batch": to_mapping(info.batch) if info.batch else None,
        "batch_fingerprint": info.batch.fingerprint if info.batch else None,
    }


def from_json(answer: Any) -> ModelInfo:
    """Check and return what a server says; its parameters must be secure and its fingerprints right.

    Raises :class:`~skinfl.errors.MessageError`.
    """
    if not isinstance(answer, Mapping) or "version" not in answer:
        raise MessageError("server", "it does not describe a model: is this the address of a skinfl server?")
    if answer["version"] != VERSION:
        raise MessageError(
            "server",
            f"it speaks message version {answer['version']!r}, not {VERSION}: use one skinfl on both sides",
        )
    try:
        latency = from_mapping(LatencySpec, answer["latency"])
        batch = from_mapping(BatchSpec, answer["batch"]) if answer["batch"] else None
        info = ModelInfo(
            str(answer["name"]),
            tuple(str(name) for name in answer["class_names"]),
            tuple(float(v) for v in answer["mean"]),
            tuple(float(v) for v in answer["std"]),
            Preparation(**answer["preparation"]).check(),
            latency,
            batch,
            float(answer.get("temperature", 1.0)),  # neither is there in a server of before
            tuple(str(title) for title in answer.get("titles", ())),
        )
        fingerprints = (answer["latency_fingerprint"], answer["batch_fingerprint"])
    except (KeyError, TypeError, ValueError, DataError, ProtectionError) as error:
        raise MessageError("server", f"its description of the model is unsound: {error}") from error
    if fingerprints != (latency.fingerprint, batch.fingerprint if batch else None):
        raise MessageError("server", "its parameters and their fingerprint differ")
    if (
        len(info.class_names) != latency.classes
        or not len(info.mean) == len(info.std) == latency.channels
        or info.preparation.image_size != latency.image_size
    ):
        raise MessageError("server", "its description of the model contradicts itself")
    if len(info.titles) not in (0, latency.classes) or not 0 < info.temperature < float("inf"):
        raise MessageError("server", "its description of the classes or its temperature is unsound")
    if not all(s > 0 for s in info.std):
        raise MessageError("server", "its normalisation has a standard deviation that is not positive")
    return info

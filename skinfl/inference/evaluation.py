"""How encrypted answers compare with plain ones, and what they cost."""

from __future__ import annotations

import os
import time
from typing import Any, Dict, List, NamedTuple

import numpy as np

from skinfl.data.dataset import LesionDataset
from skinfl.data.sources import Progress
from skinfl.data.transforms import Normalisation, to_batch
from skinfl.errors import ModelError
from skinfl.inference.circuit.batch import BatchCircuit
from skinfl.inference.circuit.latency import LatencyCircuit
from skinfl.inference.circuit.network import Bounds, Collapsed
from skinfl.inference.circuit.prepare import prepare
from skinfl.inference.clinic.client import BatchClient, LatencyClient
from skinfl.inference.clinic.preprocess import probabilities
from skinfl.metrics import evaluate_predictions
from skinfl.models import StoredModel


class Measured(NamedTuple):
    """Decrypted logits, shape (n, classes), and figures for a report."""

    logits: np.ndarray
    figures: Dict[str, Any]


def deviation(found: np.ndarray, expected: np.ndarray) -> Dict[str, Any]:
    """Return how decrypted logits differ from plain ones, both of shape (n, classes).

    - ``logit_error_max``: the largest difference
    - ``rel_logit_error_max``: that, divided by the largest plain logit of all images
    - ``rel_logit_error_max_by_image``: the largest over images of the same for one image
    - ``argmax_agreement``: share of the images with the same class
    - ``disagreement_margin_max``: over the others, how far the plain network's two best logits lay apart
      at most, None where there are none; up to twice the largest difference it is explained by that
    """
    error, size = np.abs(found - expected), np.abs(expected)
    same = found.argmax(1) == expected.argmax(1)
    best = np.sort(expected, axis=1)
    margins = (best[:, -1] - best[:, -2])[~same]
    return {
        "logit_error_max": float(error.max()),
        "rel_logit_error_max": float(error.max() / size.max()),
        "rel_logit_error_max_by_image": float((error.max(1) / size.max(1)).max()),
        "argmax_agreement": float(same.mean()),
        "disagreement_margin_max": float(margins.max()) if len(margins) else None,
    }


def measure_latency(
    network: Collapsed, bounds: Bounds, images: np.ndarray, progress: Progress = None
) -> Measured:
    """Evaluate normalised images, shape (n, channels, size, size), one after another in this process.

    The server's time is from an image's bytes to the answer's bytes; ``server_processor_ms_median`` is the
    processor's, which a busy machine does not stretch.
    """
    circuit = LatencyCircuit(network, bounds)
    start = time.perf_counter()
    client = LatencyClient(circuit.spec)
    galois, relin = client.evaluation_keys()
    keygen = time.perf_counter() - start
    keys = circuit.keys(galois, relin)
    times: Dict[str, List[float]] = {"encrypt": [], "server": [], "processor": [], "decrypt": []}
    logits = []
    for done, image in enumerate(images, 1):
        start = time.perf_counter()
        upload = client.encrypt(image)
        encrypted, processor = time.perf_counter(), time.process_time()
        answer = circuit.infer(upload, keys)
        times["processor"].append(time.process_time() - processor)
        evaluated = time.perf_counter()
        logits.append(client.decrypt(answer))
        times["encrypt"].append(encrypted - start)
        times["server"].append(evaluated - encrypted)
        times["decrypt"].append(time.perf_counter() - evaluated)
        if progress is not None:
            progress(done, len(images), "images diagnosed")
    found = np.array(logits)
    figures = {
        "server_ms_median": 1e3 * float(np.median(times["server"])),
        "server_ms_min": 1e3 * min(times["server"]),
        "server_processor_ms_median": 1e3 * float(np.median(times["processor"])),
        "client_encrypt_ms": 1e3 * float(np.median(times["encrypt"])),
        "client_decrypt_ms": 1e3 * float(np.median(times["decrypt"])),
        "upload_bytes": sum(map(len, upload)),
        "download_bytes": len(answer),
        "keys_bytes": len(galois) + len(relin),
        "keygen_s": keygen,
        **deviation(found, network.logits(images)),
        "images": len(images),
    }
    return Measured(found, figures)


def measure_batch(
    network: Collapsed, bounds: Bounds, images: np.ndarray, progress: Progress = None
) -> Measured:
    """Evaluate normalised images by batches in this process and its helpers.

    The time per image is the server's, from a batch's bytes to its answer's bytes; ``server_processor_s`` is
    processor time of all cores, which a busy machine does not stretch.
    """
    circuit = BatchCircuit(network, bounds)
    client = BatchClient(circuit.spec)
    spent = {"encrypt": 0.0, "server": 0.0, "processor": 0.0, "decrypt": 0.0}
    upload = download = 0
    logits = []
    for first in range(0, len(images), circuit.spec.images):
        part = images[first : first + circuit.spec.images]
        start = time.perf_counter()
        pixels = list(client.encrypt(part))
        encrypted, processor = time.perf_counter(), _processor_time()
        answer = circuit.infer(pixels)
        spent["processor"] += _processor_time() - processor
        evaluated = time.perf_counter()
        logits.append(client.decrypt(answer, len(part)))
        spent["encrypt"] += encrypted - start
        spent["server"] += evaluated - encrypted
        spent["decrypt"] += time.perf_counter() - evaluated
        if progress is not None:
            progress(first + len(part), len(images), "images diagnosed")
        upload += sum(map(len, pixels))
        download += sum(map(len, answer))
    found = np.concatenate(logits)
    figures = {
        "images": len(images),
        "ms_per_image": 1e3 * spent["server"] / len(images),
        "server_s": spent["server"],
        "server_processor_s": spent["processor"],
        "client_encrypt_s": spent["encrypt"],
        "client_decrypt_s": spent["decrypt"],
        "upload_bytes_per_image": upload / len(images),
        "download_bytes_per_image": download / len(images),
        **deviation(found, network.logits(images)),
    }
    return Measured(found, figures)


def _processor_time() -> float:
    """Return the seconds of processor time of this process and its finished helpers."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def images_to_test(stored: StoredModel, test: LesionDataset, most: int) -> LesionDataset:
    """Return ``most`` test images (0: all), evenly spread, after checking that the model is one for them.

    Raises :class:`~skinfl.errors.ModelError` where it is not.
    """
    channels, size, _ = test.image_shape
    if (stored.in_channels, stored.image_size, stored.class_names) != (channels, size, test.classes):
        raise ModelError(
            f"the model takes {stored.in_channels} channels of {stored.image_size} pixels and tells "
            f"{', '.join(stored.class_names)}; {test.name} has {channels} of {size} and "
            f"{', '.join(test.classes)}: give the data it was trained on"
        )
    if test.preparation is not None and test.preparation != stored.preparation:
        raise ModelError(
            f"the model was trained on photographs of {stored.preparation}, {test.name} was loaded with "
            f"{test.preparation}: load it as it was for training"
        )
    count = min(most or len(test), len(test))
    return test.subset(np.linspace(0, len(test), count, endpoint=False).astype(int))


def compare_with_plain(
    stored: StoredModel, test: LesionDataset, *, batch: bool, progress: Progress = None
) -> Dict[str, Any]:
    """Classify test images encrypted and plain; return both sides' metrics and the costs."""
    served = prepare(stored, batches=batch)
    images = to_batch(test.images[:], Normalisation(stored.mean, stored.std)).numpy().astype(np.float64)
    measure = measure_batch if batch else measure_latency
    measured = measure(served.network, served.bounds, images, progress)
    metrics = {
        way: evaluate_predictions(probabilities(logits / stored.temperature), test.labels, stored.class_names)
        for way, logits in (("plain", served.network.logits(images)), ("encrypted", measured.logits))
    }
    names = ("accuracy", "balanced_accuracy", "macro_f1", "auc")
    return {
        "data": test.name,
        "synthetic": test.synthetic,
        "mode": "batch" if batch else "latency",
        **{way: {name: found[name] for name in names} for way, found in metrics.items()},
        **measured.figures,
    }

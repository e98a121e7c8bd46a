"""Measure diagnosis on encrypted images, one by one and by the thousand, beside TenSEAL's tutorial way.

    python benchmarks/inference.py [--model FILE] [--data PATH] [--batch-images N ...] [--json FILE]

The network is the model file's, on test images of its data; without one, the paper's network is trained
shortly on ``--data`` (default: the synthetic set; ``--grey`` turns colour images grey first).
Figures are explained in ``skinfl/inference/evaluation.py``. ``batch`` is the run with most images and
``batch_curve`` has the server's time for each number of images: a batch takes the same time however full.

The reference is the way of TenSEAL's tutorial 4 ("Encrypted convolution on MNIST"): ``im2col``, then
``conv2d_im2col``, ``square``, ``mm``, ``square``, ``mm`` on one CKKS vector, at the smallest parameters that
work for it, 128-bit secure. It takes a network small enough to end (``REFERENCE``); the same network is
evaluated by skinfl in the same run, and ``ratio`` is the reference's time over skinfl's.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any, Dict

import numpy as np
import torch
from PIL import Image

from skinfl.assembly import FederatedData, load_federated_data
from skinfl.console import fail
from skinfl.data.dataset import LesionDataset
from skinfl.data.preparation import Preparation
from skinfl.data.transforms import Normalisation, normalisation_from_sums, pixel_sums, to_batch
from skinfl.errors import SkinflError
from skinfl.files import write_json
from skinfl.inference.circuit.network import Collapsed
from skinfl.inference.circuit.prepare import prepare, probe_bounds
from skinfl.inference.evaluation import deviation, images_to_test, measure_batch, measure_latency
from skinfl.models import SkinNet, StoredModel, load_model
from skinfl.seeds import numpy_rng
from skinfl.settings import Settings

#: maps, hidden units and classes of the network that the reference can end with
REFERENCE = {"maps": 4, "units": 16, "classes": 7}
#: 13 x 13 windows of 25 pixels are 4,225 slots, 129 more than degree 8192 has
REFERENCE_DEGREE = 16384
#: one prime for each of the five multiplications and one for ``pack_vectors``; at the tutorial's 26 bits
#: logits are off by 15%
REFERENCE_SCALE = 32
REFERENCE_BITS = [42, *[REFERENCE_SCALE] * 6, 42]


def grey(dataset: LesionDataset) -> LesionDataset:
    pixels = np.stack([np.asarray(Image.fromarray(image).convert("L")) for image in dataset.images])
    return LesionDataset(
        dataset.name + " (grey)",
        pixels[..., None],
        dataset.labels,
        dataset.classes,
        dataset.lesion_ids,
        dataset.image_ids,
        synthetic=dataset.synthetic,
    )


def trained(federated: FederatedData, epochs: int) -> StoredModel:
    """Train the paper's network with Adam on all training images in one place."""
    torch.set_num_threads(1)  # on so small a network a second one only waits for the first
    train = federated.dataset.subset(federated.split.train)
    channels, size, _ = train.image_shape
    normalisation = normalisation_from_sums(pixel_sums(train.images))
    torch.manual_seed(0)
    model = SkinNet(channels, size, len(train.classes))
    optimiser = torch.optim.Adam(model.parameters(), 1e-3)
    labels = torch.from_numpy(train.labels)
    for _ in range(epochs):
        for batch in torch.randperm(len(train)).split(32):
            loss = torch.nn.functional.cross_entropy(
                model(to_batch(train.images[batch.numpy()], normalisation)), labels[batch]
            )
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return StoredModel(
        model.eval(),
        "skinnet",
        train.classes,
        normalisation.mean,
        normalisation.std,
        size,
        channels,
        Preparation(size),
    )


def reference_network(size: int) -> Collapsed:
    rng = numpy_rng(0, "reference network")
    maps, units, classes = REFERENCE["maps"], REFERENCE["units"], REFERENCE["classes"]
    side = (size + 2 - 5) // 2 + 1
    return Collapsed(
        conv=rng.normal(size=(maps, 1, 5, 5)) * 0.07,
        conv_bias=np.full(maps, 0.7),
        hidden=rng.normal(size=(units, maps * side * side)) / np.sqrt(maps * side * side),
        hidden_bias=np.full(units, 0.7),
        output=rng.normal(size=(classes, units)) / np.sqrt(units),
        output_bias=np.zeros(classes),
        image_size=size,
        stride=2,
        padding=1,
    )


def tutorial_way(network: Collapsed, images: np.ndarray) -> Dict[str, Any]:
    """Evaluate images as TenSEAL's tutorial does, and by skinfl for comparison."""
    import tenseal as ts

    context = ts.context(ts.SCHEME_TYPE.CKKS, REFERENCE_DEGREE, coeff_mod_bit_sizes=REFERENCE_BITS)
    context.global_scale = 2.0**REFERENCE_SCALE
    context.generate_galois_keys()
    times, found = [], []
    for image in images:
        padded = np.pad(image[0], network.padding)
        vector, windows = ts.im2col_encoding(context, padded.tolist(), 5, 5, network.stride)
        upload = vector.serialize()
        start = time.perf_counter()
        maps = [
            vector.conv2d_im2col(kernel[0].tolist(), windows) + float(bias)
            for kernel, bias in zip(network.conv, network.conv_bias)
        ]
        values = ts.CKKSVector.pack_vectors(maps)
        values.square_()
        values = values.mm(network.hidden.T.tolist()) + network.hidden_bias.tolist()
        values.square_()
        values = values.mm(network.output.T.tolist()) + network.output_bias.tolist()
        times.append(time.perf_counter() - start)
        found.append(values.decrypt())
    own = measure_latency(network, probe_bounds(network, [0.5], [0.25]), images).figures
    return {
        "network": REFERENCE,
        "images": len(images),
        "server_ms_median": 1e3 * float(np.median(times)),
        "upload_bytes": len(upload),
        **deviation(np.array(found), network.logits(images)),
        "skinfl_server_ms_median": own["server_ms_median"],
        "skinfl_upload_bytes": own["upload_bytes"],
        "skinfl_rel_logit_error_max": own["rel_logit_error_max"],
        "ratio": 1e3 * float(np.median(times)) / own["server_ms_median"],
    }


def chart(result: Dict[str, Any], path: Path) -> None:
    """Draw the server's time for so many images, in batches and one by one."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    counts = [point["images"] for point in result["batch_curve"]]
    batch = [point["server_s"] for point in result["batch_curve"]]
    single = result["latency"]["server_ms_median"] / 1e3
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.2))
    for axis, per_image, label in (
        (axes[0], False, "seconds on the server"),
        (axes[1], True, "milliseconds per image"),
    ):
        for values, name in ((batch, "in batches"), ([single * n for n in counts], "one by one")):
            shown = [1e3 * v / n for v, n in zip(values, counts)] if per_image else values
            axis.plot(counts, shown, marker="o", markersize=3, label=name)
        axis.set(xscale="log", yscale="log", xlabel="images", ylabel=label)
        axis.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def peak_rss() -> int:
    """Return the most memory this process or one of its helpers had, in bytes."""
    return 1024 * max(
        resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="synthetic", help="as for skinfl train")
    parser.add_argument("--grey", action="store_true", help="turn colour images grey")
    parser.add_argument("--model", type=Path, help="model file to take instead of training one")
    parser.add_argument("--epochs", type=int, default=10, help="of the short training")
    parser.add_argument("--images", type=int, default=300, help="images diagnosed one by one")
    parser.add_argument("--batch-images", type=int, nargs="*", default=[4096], help="images in batches")
    parser.add_argument("--reference-images", type=int, default=3, help="images the reference is timed on")
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    parser.add_argument("--chart", type=Path, help="draw the time for so many images to this file")
    arguments = parser.parse_args()

    say(f"data: {arguments.data}")
    federated = load_federated_data(Settings(data=arguments.data))
    if arguments.grey:
        federated = federated._replace(dataset=grey(federated.dataset))
    say("network")
    stored = load_model(arguments.model) if arguments.model else trained(federated, arguments.epochs)
    network = prepare(stored).network
    bounds = probe_bounds(network, stored.mean, stored.std)

    def normalised(count: int) -> np.ndarray:
        test = images_to_test(stored, federated.test, count)
        images = to_batch(test.images, Normalisation(stored.mean, stored.std)).numpy().astype(np.float64)
        return images[np.arange(count) % len(images)]

    result: Dict[str, Any] = {"data": federated.dataset.name, "channels": stored.in_channels}
    say(f"{arguments.images} images one by one")
    result["latency"] = measure_latency(network, bounds, normalised(arguments.images)).figures
    curve = []
    for count in sorted(arguments.batch_images):
        say(f"{count} images in batches")
        result["batch"] = measure_batch(network, bounds, normalised(count)).figures
        result["batch"]["peak_rss_bytes"] = peak_rss()
        curve.append({"images": count, "server_s": result["batch"]["server_s"]})
    result["batch_curve"] = curve
    if arguments.reference_images:
        rng = numpy_rng(0, "reference images")
        images = rng.normal(size=(arguments.reference_images, 1, 28, 28))
        say("the tutorial's way")
        result["reference"] = tutorial_way(reference_network(28), images)
    print(json.dumps(result, indent=2))
    if arguments.json:
        write_json(arguments.json, result)
    if arguments.chart:
        chart(result, arguments.chart)


if __name__ == "__main__":
    try:
        main()
    except SkinflError as error:
        fail(error)

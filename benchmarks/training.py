"""Measure a hospital's local epoch against the loops that people write themselves.

    python benchmarks/training.py [--sizes 28 128] [--models skinnet] [--repeats 5] [--images N] [--json FILE]

Rows, each a pass over the same images in batches of 16, by SGD with momentum and one thread of torch:

- epoch: this package's, augmentation on, from bytes in memory: batches, augmentation, clipping of gradients.
- epoch, plain: the same without augmentation.
- bare loop: torch's own over tensors that are normalised already and in memory, no augmentation, no clipping.
- loader: a DataLoader with two workers and torchvision's transforms of the same kinds, then the bare loop.

Rows take turns within each repeat, so that a busy machine slows all alike; ratios are of medians over repeats
of the ratio within one. ``cpu`` is processor time of the process, all its threads, which is the time on the
clock of a machine with one core and nothing else to do; the loader's workers are other processes and not
in it. Memory: the peak of a process of its own that trains one epoch, over that with torch loaded. First
batch: from a folder of photographs to the first batch, without and with the cache of decoded images
(``--data``).
On a machine with a GPU the same rows are measured there as well.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from skinfl.assembly import local_plan
from skinfl.data import load
from skinfl.data.dataset import LesionDataset
from skinfl.data.feeding import feed
from skinfl.data.normalisation import Normalisation, normalise
from skinfl.data.transforms import Augmentation
from skinfl.devices import Compute
from skinfl.federation.local import batches, train
from skinfl.federation.update import StateLayout
from skinfl.models.registry import build_model
from skinfl.settings import Settings

BATCH = 16
NORMALISATION = Normalisation((0.7, 0.55, 0.55), (0.15, 0.15, 0.17))
ROWS = ("epoch", "epoch, plain", "bare loop", "loader")


def dataset_of(images: int, size: int) -> LesionDataset:
    """Return noise: what it shows is nothing to time."""
    rng = np.random.RandomState(0)
    pixels = rng.randint(0, 256, (images, size, size, 3)).astype(np.uint8)
    ids = [str(i) for i in range(images)]
    return LesionDataset("noise", pixels, rng.randint(0, 7, images), tuple("abcdefg"), ids, ids)


class Photographs(Dataset):
    """What a DataLoader's workers augment one by one."""

    def __init__(self, dataset: LesionDataset):
        self._dataset = dataset
        self._transform = transforms.Compose(
            [
                transforms.ToPILImage(),
                transforms.RandomHorizontalFlip(),
                transforms.RandomVerticalFlip(),
                transforms.RandomApply(
                    [transforms.RandomAffine(15, translate=(0.04, 0.04), scale=(0.95, 1.1))], 0.5
                ),
                transforms.RandomApply([transforms.ColorJitter(0.15, 0.15, 0.15, 0.02)], 0.5),
                transforms.ToTensor(),
                transforms.Normalize(NORMALISATION.mean, NORMALISATION.std),
            ]
        )

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, i: int) -> Any:
        return self._transform(self._dataset.images[i]), int(self._dataset.labels[i])


def rows_of(model_name: str, images: int, size: int, device: str) -> Dict[str, Callable[[], None]]:
    """Return what each row does once."""
    dataset, compute = dataset_of(images, size), Compute(device)
    model = build_model(model_name, in_channels=3, image_size=size, classes=7)
    layout = StateLayout(model)
    start = layout.flatten(model)
    plan = local_plan(Settings(batch_size=BATCH, local_epochs=1, lr=1e-4))
    pixels = torch.from_numpy(normalise(dataset.images, NORMALISATION)).to(device)
    labels = torch.from_numpy(dataset.labels).to(device)

    def epoch(augmentation: Optional[Augmentation]) -> None:
        train(
            model,
            layout,
            dataset,
            NORMALISATION,
            plan._replace(augmentation=augmentation),
            start=start,
            seed=0,
            purpose=(1, "north"),
            compute=compute,
        )

    def steps(pairs: Any) -> None:
        model.to(device).train()
        optimiser = torch.optim.SGD(
            model.parameters(), lr=1e-4, momentum=plan.momentum, weight_decay=plan.weight_decay
        )
        loss_function = nn.CrossEntropyLoss()
        for some_images, some_labels in pairs:
            optimiser.zero_grad()
            loss = loss_function(model(some_images.to(device)), some_labels.to(device))
            loss.backward()
            optimiser.step()
        loss.item()

    def bare() -> None:
        order = torch.randperm(images).to(device)
        steps((pixels[i], labels[i]) for i in order.split(BATCH))

    def loader() -> None:
        steps(DataLoader(Photographs(dataset), BATCH, shuffle=True, num_workers=2))

    return {
        "epoch": lambda: epoch(Augmentation()),
        "epoch, plain": lambda: epoch(None),
        "bare loop": bare,
        "loader": loader,
    }


def measure(model: str, images: int, size: int, device: str, repeats: int) -> Dict[str, Any]:
    """Return images a second by row, on the clock and of processor time, and the ratios of the epoch."""
    rows = rows_of(model, images, size, device)
    for run in rows.values():
        run()
    clock: Dict[str, List[float]] = {name: [] for name in rows}
    cpu: Dict[str, List[float]] = {name: [] for name in rows}
    for _ in range(repeats):
        for name, run in rows.items():
            started, used = time.perf_counter(), time.process_time()
            run()
            clock[name].append(images / (time.perf_counter() - started))
            cpu[name].append(images / (time.process_time() - used))

    def ratio(found: Dict[str, List[float]], name: str) -> float:
        return float(np.median(np.array(found["epoch"]) / np.array(found[name])))

    return {
        "model": model,
        "size": size,
        "device": Compute(device).description,
        "images_per_second": {name: float(np.median(each)) for name, each in clock.items()},
        "images_per_cpu_second": {n: float(np.median(v)) for n, v in cpu.items() if n != "loader"},
        "to_bare": ratio(clock, "bare loop"),
        "to_bare_cpu": ratio(cpu, "bare loop"),
        "to_loader": ratio(clock, "loader"),
    }


def _peak() -> float:
    """Return this process's peak of resident memory in MB."""
    status = Path("/proc/self/status")
    if status.exists():  # what getrusage says includes the process that this one was started by
        return int(status.read_text().split("VmHWM:")[1].split()[0]) / (1 << 10)
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def _memory(pipe: Any, model: str, images: int, size: int) -> None:
    torch.set_num_threads(1)
    before = _peak()
    dataset = dataset_of(images, size)
    network = build_model(model, in_channels=3, image_size=size, classes=7)
    layout = StateLayout(network)
    plan = local_plan(Settings(batch_size=BATCH, local_epochs=1, lr=1e-4))
    start = layout.flatten(network)
    train(network, layout, dataset, NORMALISATION, plan, start=start, seed=0, purpose=(1, "north"))
    pipe.send((_peak() - before, dataset.images.nbytes / (1 << 20)))


def memory(model: str, images: int, size: int) -> Dict[str, float]:
    """Return MB that an epoch takes at its peak in a process of its own, and that the images are."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(False)
    process = context.Process(target=_memory, args=(sender, model, images, size))
    process.start()
    peak, pixels = receiver.recv()
    process.join()
    return {"peak_mb": peak, "images_mb": pixels}


def first_batch(data: Path, size: int) -> Dict[str, float]:
    """Return seconds from a folder of photographs to the first batch, without a cache and with it."""
    found = {}
    with tempfile.TemporaryDirectory() as cache:
        for name in ("cold", "cached"):
            started = time.perf_counter()
            dataset = load(data, image_size=size, cache_dir=Path(cache))
            rng = np.random.default_rng(0)
            parts = batches(len(dataset), BATCH, rng)
            next(feed(dataset, parts, NORMALISATION, Augmentation(), rng, device=torch.device("cpu")))
            found[name] = time.perf_counter() - started
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[28, 128])
    parser.add_argument("--models", nargs="+", default=["skinnet"])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--images", type=int, default=0, help="a pass; by default 2048 at 28 pixels, less above"
    )
    parser.add_argument("--data", type=Path, help="photographs, for the time to the first batch")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    results: List[Dict[str, Any]] = []
    print(
        "images a second      "
        + "".join(f"{name:>14}" for name in ROWS)
        + "   of bare (cpu)  of loader  memory"
    )
    for model in arguments.models:
        for size in arguments.sizes:
            images = arguments.images or max(160, 2048 * 28 * 28 // size**2)
            for device in devices:
                found = measure(model, images, size, device, arguments.repeats)
                found["memory"] = memory(model, images, size)
                results.append(found)
                rates = "".join(f"{found['images_per_second'][name]:14.0f}" for name in ROWS)
                print(
                    f"{model:9} {size:4} {device:6}{rates}   {found['to_bare']:7.2f} "
                    f"({found['to_bare_cpu']:.2f})"
                    f"  {found['to_loader']:9.2f}  {found['memory']['peak_mb']:.0f} MB, images "
                    f"{found['memory']['images_mb']:.0f}",
                    flush=True,
                )
    if arguments.data:
        for size in arguments.sizes:
            seconds = first_batch(arguments.data, size)
            results.append({"size": size, "first_batch": seconds})
            print(
                f"first batch, {size} pixels: {seconds['cold']:.1f} s cold, {seconds['cached']:.2f} s cached"
            )
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()

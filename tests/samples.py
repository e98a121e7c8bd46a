"""Small data that several tests learn from."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from skinfl.data.dataset import LesionDataset

#: of the checkout
ROOT = Path(__file__).resolve().parent.parent
#: settings of a run on :func:`toy_dataset` that is over in a moment
SMALL_RUN = {
    "data": "toy",
    "hospitals": 3,
    "partition": "iid",
    "rounds": 2,
    "batch_size": 8,
    "image_size": 12,
}


def toy_dataset(images: int = 120, size: int = 12, seed: int = 0) -> LesionDataset:
    """Return grey squares on noise whose brightness tells the class: learnt within a few rounds."""
    rng = np.random.RandomState(seed)
    labels = np.arange(images) % 3
    pixels = rng.randint(0, 60, (images, size, size, 1))
    pixels[:, 3:9, 3:9] += (60 * labels)[:, None, None, None]
    lesions = [f"lesion-{i // 2 * 3 + i % 3}" for i in range(images)]
    sites = ["north" if i % 2 else "south" for i in range(images)]
    return LesionDataset(
        "toy", pixels, labels, ("nv", "mel", "bcc"), lesions, [str(i) for i in range(images)], sites
    )

"""Fixtures that every test may use."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from skinfl.data.dataset import LesionDataset

# Small tensors: a second thread would only wait for the first.
torch.set_num_threads(1)

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Return the folder with the real HAM10000 and ISIC2019 tables, or skip."""
    folder = Path(os.environ.get("SKINFL_DATA") or ROOT.parent / "shared" / "data")
    if not (folder / "HAM10000_metadata.csv").is_file():
        pytest.skip(f"no real data in {folder}: set SKINFL_DATA to the folder that holds it")
    return folder


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


@pytest.fixture
def toy(monkeypatch) -> LesionDataset:
    """Let ``--data toy`` and ``Settings(data="toy")`` mean a small data set in memory."""
    dataset = toy_dataset()
    monkeypatch.setattr("skinfl.assembly.load", lambda source, **options: dataset)
    return dataset

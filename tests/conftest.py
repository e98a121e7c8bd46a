"""Fixtures that every test may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from samples import ROOT, toy_dataset

from skinfl import plugins
from skinfl.data.dataset import LesionDataset

# Tests are collected from the registries: what a file of one's own registers is compared with the rest.
plugins.load_for([])

# Small tensors: a second thread would only wait for the first.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Return the folder with the real HAM10000 and ISIC2019 tables, or skip."""
    folder = Path(os.environ.get("SKINFL_DATA") or ROOT.parent / "shared" / "data")
    if not (folder / "HAM10000_metadata.csv").is_file():
        pytest.skip(f"no real data in {folder}: set SKINFL_DATA to the folder that holds it")
    return folder


@pytest.fixture
def toy(monkeypatch) -> LesionDataset:
    """Let ``--data toy`` and ``Settings(data="toy")`` mean a small data set in memory."""
    dataset = toy_dataset()
    monkeypatch.setattr("skinfl.assembly.load", lambda source, **options: dataset)
    return dataset

"""Small golden folders in the publishers' layouts, made by the tests themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Callable, List, Sequence

import numpy as np
import pytest
from golden import HAM_COLOURS, HAM_HEADER, HAM_ROWS, ISIC_CLASSES, ISIC_ROWS, write_csv, write_image

from skinfl.data import load
from skinfl.data.dataset import LesionDataset


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    """Keep every test's cache in its own folder."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("SKINFL_CACHE", str(folder))
    return folder


@pytest.fixture
def ham(tmp_path) -> Path:
    """Return a folder in HAM10000's layout: four photographs of three lesions."""
    folder = tmp_path / "ham"
    for i, colour in enumerate(HAM_COLOURS):
        write_image(folder / f"HAM10000_images_part_{1 + i // 2}" / f"ISIC_{i}.jpg", colour)
    write_csv(folder / "HAM10000_metadata.csv", HAM_HEADER, HAM_ROWS)
    return folder


@pytest.fixture
def isic(tmp_path) -> Path:
    """Return a folder in ISIC 2019's layout with HAM10000's metadata beside it: five photographs."""
    folder = tmp_path / "isic"
    for i, (name, *_) in enumerate(ISIC_ROWS):
        write_image(folder / "ISIC_2019_Training_Input" / f"{name}.jpg", (40 * i, 100, 100))
    write_csv(
        folder / "ISIC_2019_Training_GroundTruth.csv",
        ["image", *ISIC_CLASSES],
        [[name, *(float(label == c) for c in ISIC_CLASSES)] for name, label, _, _ in ISIC_ROWS],
    )
    write_csv(
        folder / "ISIC_2019_Training_Metadata.csv",
        ["image", "age_approx", "anatom_site_general", "lesion_id", "sex"],
        [[name, "55", "torso", lesion, "female"] for name, _, lesion, _ in ISIC_ROWS],
    )
    write_csv(
        folder / "HAM10000_metadata",
        ["image_id", "dataset"],
        [["ISIC_B", "rosendahl"], ["ISIC_E", "vienna_dias"]],
    )
    return folder


@pytest.fixture
def make() -> Callable[..., LesionDataset]:
    """Return a maker of data sets from (lesion, label) pairs, one photograph each."""

    def build(lesions: Sequence[str], labels: Sequence[int], **columns: List) -> LesionDataset:
        n = len(labels)
        pixels = np.arange(n, dtype=np.uint8).reshape(n, 1, 1, 1)
        classes = [f"class-{i}" for i in range(max(labels) + 1)]
        return LesionDataset("made", pixels, labels, classes, lesions, [str(i) for i in range(n)], **columns)

    return build


@pytest.fixture
def many(make) -> LesionDataset:
    """Return 600 photographs of 400 lesions, three classes of 300, 200 and 100, three sites."""
    lesions, labels, sites = [], [], []
    for i in range(600):
        label = 0 if i % 6 < 3 else 1 if i % 6 < 5 else 2
        # Each class's photographs come as a lesion of two, then a lesion of one.
        number = labels.count(label) * 2 // 3
        lesions.append(f"{label}-{number}")
        labels.append(label)
        sites.append("abc"[number % 3])
    return make(lesions, labels, sites=sites)


@pytest.fixture(scope="session")
def real_ham10000(real_data) -> LesionDataset:
    """Return all of HAM10000 at 8x8 pixels."""
    return load(real_data, image_size=8)

"""Handing each hospital its own data, as folders: for federations that live on one machine.

What is written is HAM10000's own layout, so that a hospital reads it with the same reader as its own
data, and without loss, so that training equals that on virtual workers bit for bit.
"""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Iterable

from PIL import Image

from skinfl.assembly import FederatedData
from skinfl.data.dataset import LesionDataset
from skinfl.data.ham10000 import CLASSES, SYNTHETIC_MARK
from skinfl.errors import DataError
from skinfl.flower.provisioning.folders import HOSPITAL_FILE

_COLUMNS = ("lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization", "dataset")


def write_dataset(dataset: LesionDataset, folder: Path) -> None:
    """Write a data set of HAM10000's seven classes: a pixel table if grey, PNG files if in colour."""
    if dataset.classes != CLASSES:
        raise DataError(
            f"{dataset.name} has other classes than HAM10000, in whose layout parts are written: hand each "
            "hospital a folder of the publisher's files instead"
        )
    folder.mkdir(parents=True, mode=0o700)
    with open(folder / "HAM10000_metadata.csv", "w", newline="", encoding="utf-8") as f:
        table = csv.writer(f)
        table.writerow(_COLUMNS)
        for lesion in (dataset[i] for i in range(len(dataset))):
            age = "" if math.isnan(lesion.age) else repr(lesion.age)
            dx = dataset.classes[lesion.label]
            table.writerow((lesion.lesion_id, lesion.image_id, dx, "", age, lesion.sex, "", lesion.site))
    if dataset.synthetic:
        (folder / SYNTHETIC_MARK).write_text("These pictures were drawn, not taken.\n")
    channels, height, width = dataset.image_shape
    if channels == 1:
        _write_table(dataset, folder / f"hmnist_{height}_{width}_L.csv")
        return
    for i in range(len(dataset)):
        Image.fromarray(dataset.images[i]).save(folder / f"{dataset.image_ids[i]}.png", compress_level=1)


def hand_out(federated: FederatedData, federation: Path) -> None:
    """Write each hospital's training and test images into its folder, the common test set into ``test``.

    A hospital without test images gets an empty folder for them. Raises
    :class:`~skinfl.errors.DataError` for images whose colours were corrected: hospitals do it again.
    """
    preparation = federated.dataset.preparation
    if preparation is not None and preparation.colour_constancy != "none":
        raise DataError("hospitals correct colours themselves: hand out data that were loaded without")
    for name in federated.partition:
        folder = federation / name
        write_dataset(federated.train_of(name).photographs, folder / "data")
        test = federated.test_of(name)
        if len(test):
            write_dataset(test.photographs, folder / "test")
        else:
            (folder / "test").mkdir()
        text = (folder / HOSPITAL_FILE).read_text("utf-8")
        (folder / HOSPITAL_FILE).write_text(text.replace('test_data = ""', 'test_data = "test"'), "utf-8")
    write_dataset(federated.test.photographs, federation / "coordinator" / "test")


def hand_weights(pretrained: str, hospitals: Iterable[str], federation: Path) -> None:
    """Name the weights that a run starts from in each hospital's file; the packaged ones need no name."""
    if pretrained in ("none", "package"):
        return
    named = pretrained if pretrained == "imagenet" else Path(pretrained).resolve().as_posix()
    for name in hospitals:
        file = federation / name / HOSPITAL_FILE
        line = f"pretrained = {json.dumps(named, ensure_ascii=False)}"
        file.write_text(file.read_text("utf-8").replace('pretrained = ""', line), "utf-8")


def _write_table(dataset: LesionDataset, path: Path) -> None:
    _, height, width = dataset.image_shape
    with open(path, "w", encoding="ascii") as f:
        f.write(",".join([*(f"pixel{i:04d}" for i in range(height * width)), "label"]) + "\n")
        for image, label in zip(dataset.images, dataset.labels):
            f.write(",".join(map(str, image.ravel().tolist())) + f",{label}\n")

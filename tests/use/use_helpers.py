"""A small network with a file, and small pictures."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from skinfl.models import build_model, save_model

CLASSES = (
    ("nv", "melanocytic nevus", False),
    ("mel", "melanoma", True),
    ("bcc", "basal cell carcinoma", True),
)


def make_model(path, classes=CLASSES, in_channels=3, **more):
    torch.manual_seed(3)
    shape = {"in_channels": in_channels, "image_size": 12, "classes": len(classes), "doconv": True}
    network = build_model("skinnet", **shape)
    with torch.no_grad():
        network.output.weight.mul_(8)
    save_model(
        path,
        network,
        name="skinnet",
        class_names=[each[0] for each in classes],
        class_info=classes,
        normalisation_mean=[0.5] * in_channels,
        normalisation_std=[0.2] * in_channels,
        **shape,
        **more,
    )
    return path


def make_pictures(folder, names, seed=0):
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.RandomState(seed)
    for name in names:
        Image.fromarray(rng.randint(0, 256, (30, 20, 3)).astype(np.uint8)).save(str(folder / name))

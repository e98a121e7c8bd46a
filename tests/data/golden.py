"""Writers and tables of the golden folders; the fixtures beside this file lay them out."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Sequence

from PIL import Image


def write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> Path:
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def write_image(path: Path, colour: Sequence[int], size: Sequence[int] = (12, 9)) -> Path:
    """Write a picture of one colour; (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", tuple(size), tuple(colour)).save(str(path), quality=95)
    return path


HAM_HEADER = ["lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization", "dataset"]
HAM_ROWS = [
    ["HAM_0", "ISIC_0", "bkl", "histo", "80.0", "male", "scalp", "rosendahl"],
    ["HAM_0", "ISIC_1", "bkl", "histo", "80.0", "male", "scalp", "rosendahl"],
    ["HAM_1", "ISIC_2", "mel", "histo", "", "unknown", "back", "vidir_modern"],
    ["HAM_2", "ISIC_3", "nv", "follow_up", "35.0", "female", "trunk", "vienna_dias"],
]
#: a colour for each of the four, so that a mix-up shows
HAM_COLOURS = [(200, 40, 40), (40, 200, 40), (40, 40, 200), (200, 200, 40)]

ISIC_CLASSES = ["MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC", "UNK"]
#: image, class, lesion id, and what FLamby's rule makes of it
ISIC_ROWS = [
    ("ISIC_A", "MEL", "BCN_0001", "BCN"),
    ("ISIC_B", "SCC", "HAM_0002", "HAM_rosendahl"),
    ("ISIC_C", "NV", "MSK4_0003", "MSK"),
    ("ISIC_D", "AK", "", None),
    ("ISIC_E", "BKL", "HAM_0002", "HAM_vienna_dias"),
]

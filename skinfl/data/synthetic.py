"""A set of drawn dermoscopic pictures in HAM10000's layout, for when no data is at hand.

It shows that a pipeline works and how methods compare on unevenly split data. It says nothing about
patients: its classes differ in what ``PROFILES`` lets them differ in, loosely after the dermoscopic
criteria of Argenziano et al., J. Am. Acad. Dermatol. 48:679 (2003), and overlap on purpose.
"""

from __future__ import annotations

import csv
import logging
import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
from PIL import Image

from skinfl.data import folders, ham10000
from skinfl.data.cache import cache_folder
from skinfl.data.dataset import LesionDataset
from skinfl.data.dermoscopy import Camera, Traits, draw
from skinfl.data.ham10000 import CLASSES, SYNTHETIC_MARK
from skinfl.data.index import Complain, Index, refuse
from skinfl.data.preparation import Preparation
from skinfl.data.readers import PHOTOGRAPHS, TRACES, Found, Reader, register
from skinfl.data.sources import Progress, Source
from skinfl.errors import DataError, WriteError
from skinfl.files import whole_folder
from skinfl.paths import PathLike
from skinfl.seeds import derive, numpy_rng

_LOG = logging.getLogger(__name__)

SOURCE = Source(
    "synthetic",
    "drawn pictures in HAM10000's layout and class proportions; not of patients",
    "drawn on this machine: --data synthetic, or 'skinfl data make-synthetic FOLDER'",
    "HAM10000_images_part_1/*.jpg, HAM10000_metadata.csv, SYNTHETIC.txt",
)

#: counted in HAM10000's metadata table
HAM10000_COUNTS = {"akiec": 327, "bcc": 514, "bkl": 1099, "df": 115, "nv": 6705, "vasc": 142, "mel": 1113}
#: share of HAM10000's lesions with one, two, three and four photographs or more
PHOTOGRAPHS_PER_LESION = (0.738, 0.190, 0.066, 0.006)
#: raised whenever a seed gives other pictures, so that no cache mixes the two
VERSION = 1
SMALLEST_CLASS = 8

#: each site with its share of the lesions and its camera; the class has no part in it
SITES: Tuple[Tuple[str, float, Camera], ...] = (
    ("drawn_a", 0.30, Camera((0.96, 0.97, 0.97), 0.10, False, 0.012)),
    ("drawn_b", 0.25, Camera((1.03, 0.95, 0.89), 0.20, False, 0.020)),
    ("drawn_c", 0.20, Camera((0.91, 0.96, 1.04), 0.15, True, 0.016)),
    ("drawn_d", 0.15, Camera((0.99, 0.90, 0.99), 0.25, False, 0.026)),
    ("drawn_e", 0.10, Camera((0.88, 0.91, 0.82), 0.30, False, 0.020)),
)


class Profile(NamedTuple):
    """A class's distribution of traits: (mean, standard deviation), and chances of structures."""

    age: Tuple[float, float]
    size: Tuple[float, float]
    asymmetry: Tuple[float, float]
    irregularity: Tuple[float, float]
    softness: Tuple[float, float]
    melanin: Tuple[float, float]
    haemoglobin: Tuple[float, float]
    variegation: Tuple[float, float]
    structures: Dict[str, float]


PROFILES: Dict[str, Profile] = {
    "akiec": Profile((68, 11), (0.74, 0.15), (0.5, 0.25), (0.7, 0.3), (0.7, 0.25), (0.16, 0.12), (0.65, 0.16),
                     (0.4, 0.25), {"scale": 0.85, "vessels": 0.2}),
    "bcc": Profile((67, 13), (0.72, 0.15), (0.5, 0.25), (0.5, 0.3), (0.5, 0.25), (0.12, 0.10), (0.35, 0.14),
                   (0.5, 0.25), {"vessels": 0.75, "veil": 0.8, "globules": 0.3}),
    "bkl": Profile((64, 13), (0.70, 0.15), (0.4, 0.25), (0.4, 0.3), (0.15, 0.12), (0.60, 0.20), (0.08, 0.08),
                   (0.6, 0.3), {"cysts": 0.7, "network": 0.15, "globules": 0.2, "scale": 0.55}),
    "df": Profile((52, 13), (0.66, 0.12), (0.2, 0.15), (0.25, 0.2), (0.8, 0.2), (0.50, 0.15), (0.25, 0.12),
                  (0.2, 0.15), {"patch": 0.95, "network": 0.6}),
    "nv": Profile((47, 16), (0.58, 0.14), (0.25, 0.18), (0.3, 0.22), (0.45, 0.22), (0.85, 0.24), (0.10, 0.08),
                  (0.3, 0.2), {"network": 0.6, "globules": 0.35}),
    "vasc": Profile((51, 18), (0.66, 0.14), (0.25, 0.2), (0.3, 0.2), (0.3, 0.2), (0.15, 0.10), (2.2, 0.5),
                    (0.3, 0.2), {"lacunae": 0.85, "veil": 0.15}),
    "mel": Profile((61, 15), (0.80, 0.15), (0.65, 0.25), (0.7, 0.3), (0.4, 0.22), (1.30, 0.32), (0.14, 0.10),
                   (0.75, 0.3), {"veil": 0.65, "network": 0.45, "globules": 0.5, "scale": 0.05}),
}  # fmt: skip

_STRUCTURES = ("network", "globules", "veil", "vessels", "cysts", "patch", "scale", "lacunae")
#: chance of a structure that the class is not known for
_STRAY = 0.06


class _Lesion(NamedTuple):
    name: str
    label: str
    site: int
    sex: str
    age: int
    tone: float
    traits: Traits
    photographs: int


def write(
    folder: PathLike,
    *,
    images: int = 2000,
    image_size: int = 96,
    seed: int = 0,
    progress: Progress = None,
) -> Path:
    """Draw a data set into ``folder``, which must not exist or be empty; return the folder.

    Pictures are JPEG files of ``image_size`` pixels in height and 4/3 of that in width, in class
    proportions of HAM10000 with a handful of each class at least. The folder appears whole or not at
    all. ``SYNTHETIC.txt`` in it marks the set as drawn.
    """
    folder = folders.expanded(folder)
    least = SMALLEST_CLASS * len(CLASSES)
    if images < least:
        raise DataError(f"{images} synthetic images are too few: draw {least} or more")
    if image_size < 16:
        raise DataError(f"synthetic images of {image_size} pixels are too small: draw 16 or more")
    try:
        if os.path.lexists(str(folder)) and (not folders.is_folder(folder) or os.listdir(str(folder))):
            raise DataError(f"{folder} exists already: give a new or an empty folder")
        _write_whole(folder, images, image_size, seed, progress)
    except WriteError as error:
        raise DataError(f"{folder} cannot be written ({error.reason}): give another folder") from None
    except OSError as error:
        raise DataError(f"{folder} cannot be written ({error.strerror}): give another folder") from None
    return folder


@contextmanager
def drawn(
    *,
    images: int = 2000,
    image_size: int = 96,
    seed: int = 0,
    cache_dir: Optional[PathLike] = None,
    progress: Progress = None,
    anew: bool = False,
) -> Iterator[Path]:
    """Give the folder of a data set in the cache, drawing it the first time, or again if ``anew``.

    Where the cache cannot be written, the folder is a temporary one that goes when the block ends.
    """
    folder = cache_folder(cache_dir) / f"synthetic-{VERSION}-{images}-{image_size}-{seed}"
    if anew:
        shutil.rmtree(str(folder), ignore_errors=True)
    if not folders.is_file(folder / SYNTHETIC_MARK):
        try:
            _write_whole(folder, images, image_size, seed, progress)
        except WriteError as error:
            _LOG.warning("the synthetic set is not kept for the next run: %s", error)
            with tempfile.TemporaryDirectory() as temporary:
                yield write(
                    Path(temporary) / folder.name,
                    images=images,
                    image_size=image_size,
                    seed=seed,
                    progress=progress,
                )
            return
    yield folder


def _write_whole(folder: Path, images: int, image_size: int, seed: int, progress: Progress) -> None:
    """Write ``folder`` whole or not at all."""
    try:
        with whole_folder(folder) as temporary:
            _write(temporary, images, image_size, seed, progress)
    except WriteError:
        # Another run may have finished the same folder first.
        if not folders.is_file(folder / SYNTHETIC_MARK):
            raise


def _write(folder: Path, images: int, image_size: int, seed: int, progress: Progress) -> None:
    pictures = folder / "HAM10000_images_part_1"
    pictures.mkdir()
    rows: List[Tuple[str, ...]] = []
    for lesion in _plan(images, seed):
        site, _, camera = SITES[lesion.site]
        for _ in range(lesion.photographs):
            name = f"DRAWN_{len(rows):07d}"
            rng = numpy_rng(seed, "photograph", name)
            pixels = draw(lesion.traits, camera, lesion.tone, rng, image_size)
            Image.fromarray(pixels).save(str(pictures / f"{name}.jpg"), quality=92)
            rows.append(
                (lesion.name, name, lesion.label, "drawn", f"{lesion.age}.0", lesion.sex, "unknown", site)
            )
            if progress is not None:
                progress(len(rows), images, "drawing pictures")
    with open(folder / "HAM10000_metadata.csv", "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(("lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization", "dataset"))
        table.writerows(rows)
    (folder / SYNTHETIC_MARK).write_text(
        "These pictures were drawn by skinfl and are of no patient.\n"
        f"version {VERSION}, images {images}, image size {image_size}, seed {seed}\n",
        encoding="utf-8",
    )


def _plan(images: int, seed: int) -> List[_Lesion]:
    """Return the lesions whose photographs make up the set, in mixed order."""
    rng = numpy_rng(seed, "plan")
    chances = np.cumsum(PHOTOGRAPHS_PER_LESION)
    shares = np.cumsum([share for _, share, _ in SITES])
    lesions: List[Tuple[str, int, int]] = []
    for label, count in class_counts(images).items():
        left = count
        while left:
            photographs = min(left, 1 + int(np.searchsorted(chances[:-1], rng.random(), side="right")))
            site = int(np.searchsorted(shares[:-1], rng.random(), side="right"))
            left -= photographs
            lesions.append((label, photographs, site))
    order = np.argsort(rng.random(len(lesions)), kind="stable")
    return [_lesion(number, *lesions[int(i)], seed=seed) for number, i in enumerate(order)]


def class_counts(images: int) -> Dict[str, int]:
    """Return how many of ``images`` photographs are of each class: HAM10000's share, rare ones raised."""
    total = sum(HAM10000_COUNTS.values())
    counts = {label: max(SMALLEST_CLASS, round(images * HAM10000_COUNTS[label] / total)) for label in CLASSES}
    counts["nv"] += images - sum(counts.values())
    return counts


def _lesion(number: int, label: str, photographs: int, site: int, seed: int) -> _Lesion:
    rng = numpy_rng(seed, "lesion", number)
    profile = PROFILES[label]
    age = int(5 * round(float(np.clip(rng.normal(*profile.age), 5, 85)) / 5))
    sex = "male" if rng.random() < 0.54 else "female"
    tone = float(np.clip(rng.normal(0.12, 0.12), 0, 0.8))
    return _Lesion(
        f"DRAWN_L{number:06d}", label, site, sex, age, tone, _traits(profile, number, seed, rng), photographs
    )


def _traits(profile: Profile, number: int, seed: int, rng: np.random.Generator) -> Traits:
    def of(name: str, low: float, high: float) -> float:
        return float(np.clip(rng.normal(*getattr(profile, name)), low, high))

    strengths = {}
    for name in _STRUCTURES:
        present = rng.random() < profile.structures.get(name, _STRAY)
        strength = float(rng.uniform(0.35, 1.0))
        strengths[name] = strength if present else 0.0
    return Traits(
        size=of("size", 0.25, 1.1),
        elongation=float(rng.uniform(0, 1)),
        asymmetry=of("asymmetry", 0, 1),
        irregularity=of("irregularity", 0, 1.2),
        softness=of("softness", 0.05, 1),
        melanin=of("melanin", 0.03, 2),
        haemoglobin=of("haemoglobin", 0, 3.0),
        variegation=of("variegation", 0, 1.2),
        shape_seed=derive(seed, "shape", number),
        **strengths,
    )


class Synthetic(Reader):
    """Drawn pictures: a folder of them, or the set in the cache."""

    source = SOURCE
    looks_for = f"{SYNTHETIC_MARK} in HAM10000's layout"
    word = "synthetic"

    def recognise(self, path: Path, metadata: Optional[Path] = None) -> Sequence[Found]:
        if folders.is_file(path):
            if not path.name.endswith(ham10000.METADATA):
                return ()
            path, metadata = path.parent, metadata or path
        if not folders.is_file(path / SYNTHETIC_MARK):
            return ()
        table = metadata or ham10000.find_metadata(path)
        whole = ham10000.holds_photographs(path, table)
        return (Found(self, path, (PHOTOGRAPHS if whole else TRACES,), table),)

    def index(self, found: Found, complain: Complain, progress: Progress = None) -> Index:
        return _index(found.path, found.metadata, complain, progress)

    def make(
        self,
        preparation: Preparation,
        cache_dir: Optional[PathLike] = None,
        progress: Progress = None,
    ) -> LesionDataset:
        try:
            with drawn(cache_dir=cache_dir, progress=progress) as folder:
                return _index(folder).load(preparation, cache_dir, progress)
        except DataError as error:
            _LOG.warning("the synthetic set in the cache is damaged (%s) and is drawn again", error)
        with drawn(cache_dir=cache_dir, progress=progress, anew=True) as folder:
            return _index(folder).load(preparation, cache_dir, progress)


def _index(
    folder: Path,
    metadata: Optional[Path] = None,
    complain: Complain = refuse,
    progress: Progress = None,
) -> Index:
    return ham10000.index(folder, metadata, complain, progress, SOURCE.name, synthetic=True)


register(Synthetic())

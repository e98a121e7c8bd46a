"""ISIC 2019's training set with the six centres of FLamby's Fed-ISIC2019.

Centres as in Ogier du Terrail et al., "FLamby", NeurIPS 2022: its script
``fed_isic2019/dataset_creation_scripts/download_isic.py`` (github.com/owkin/FLamby) leaves out the
photographs without a lesion id, takes the centre from the first characters of the lesion id (BCN,
HAM or MSK) and parts HAM by the column ``dataset`` of HAM10000's metadata. What it leaves out is left
out here as well: neither the site nor the lesion is known, so no split could be free of leaks.
"""

from __future__ import annotations

from pathlib import Path
from typing import Dict, List, Optional, Sequence

from skinfl.data import folders, ham10000, tables
from skinfl.data.images import find_images
from skinfl.data.index import Complain, Index, Photograph, match, refuse
from skinfl.data.readers import PHOTOGRAPHS, TRACES, Found, Reader, register
from skinfl.data.sources import Progress, Source, remark
from skinfl.errors import DataError
from skinfl.predictions import LesionClass

SOURCE = Source(
    "isic2019",
    "the training set of the ISIC 2019 challenge, 8 classes, six centres (CC BY-NC 4.0)",
    "https://challenge.isic-archive.com/data/#2019",
    "ISIC_2019_Training_Input/*.jpg, ISIC_2019_Training_GroundTruth.csv, "
    "ISIC_2019_Training_Metadata.csv, and HAM10000_metadata with its column 'dataset'",
)
#: in the order of the ground truth's columns
CLASS_INFO = (
    LesionClass("mel", "melanoma", True),
    LesionClass("nv", "melanocytic nevus", False),
    LesionClass("bcc", "basal cell carcinoma", True),
    LesionClass("ak", "actinic keratosis", False),
    LesionClass("bkl", "benign keratosis", False),
    LesionClass("df", "dermatofibroma", False),
    LesionClass("vasc", "vascular lesion", False),
    LesionClass("scc", "squamous cell carcinoma", True),
)
CLASSES = tuple(each.name for each in CLASS_INFO)
#: in the order of FLamby's centre numbers
CENTRES = ("BCN", "HAM_vidir_molemax", "HAM_vidir_modern", "HAM_rosendahl", "MSK", "HAM_vienna_dias")

INPUT = "ISIC_2019_Training_Input"
GROUND_TRUTH = "ISIC_2019_Training_GroundTruth.csv"
METADATA = "ISIC_2019_Training_Metadata.csv"


def index(
    folder: Path,
    metadata: Optional[Path] = None,
    complain: Complain = refuse,
    progress: Progress = None,
) -> Index:
    """Match ground truth, metadata and image files in ``folder``.

    ``metadata`` is HAM10000's table with the column ``dataset``, looked for in ``folder`` if not given.
    """
    truth = tables.read_table(folder / GROUND_TRUTH, ["image", *map(str.upper, CLASSES)], SOURCE.page)
    about = tables.read_table(folder / METADATA, ["image", "age_approx", "lesion_id", "sex"], SOURCE.page)
    inputs = _inputs(folder)
    if not inputs:
        like = [
            path.name for path in folders.subfolders(folder) if path.name.lower().startswith(INPUT.lower())
        ]
        mend = f"rename {like[0]} if it holds its images" if like else f"get it from {SOURCE.page}"
        raise DataError(f"{folder / INPUT} is missing: {mend}")
    row_of = {name: row for row, name in enumerate(about.columns["image"])}
    ids = truth.columns["image"]
    without = [name for name in ids if name not in row_of]
    if without:
        complain(
            f"{len(without)} images of {truth.path} have no row in {about.path} "
            f"({tables.listing(without)}): get both from {SOURCE.page}"
        )
    centres = _centres(folder, about, metadata, progress)
    kept = [row for row, name in enumerate(ids) if name in centres]
    left_out = [name for name in ids if name in row_of and name not in centres]
    if left_out:
        remark(progress, f"{len(left_out)} images without a known centre are left out, as in FLamby")
    files = find_images(inputs, complain)
    missing, extra = match(
        truth.path, [ids[row] for row in kept], files, INPUT, SOURCE.page, complain, left_out
    )
    marks = [name.upper() for name in CLASSES]
    labels = [tables.one_marked(truth, row, marks) for row in range(len(truth))]
    unclear = [ids[row] for row in kept if labels[row] < 0]
    if unclear:
        complain(
            f"{truth.path}: {len(unclear)} images are not of just one of the classes {', '.join(CLASSES)} "
            f"({tables.listing(unclear)}): get it again from {SOURCE.page}"
        )
    photographs = []
    for row in kept:
        name = ids[row]
        if name in files and labels[row] >= 0:
            i = row_of[name]
            lesion_id = tables.known(about.columns["lesion_id"][i]) or name
            sex = tables.known(about.columns["sex"][i])
            years = tables.age(about, "age_approx", i)
            photographs.append(
                Photograph(files[name], labels[row], lesion_id, name, centres[name], sex, years)
            )
    return Index(
        SOURCE.name, CLASS_INFO, photographs, missing, extra, {"unclear": len(unclear)} if unclear else {}
    )


def _inputs(folder: Path) -> List[Path]:
    """Return the folders of images: the published one, in any case, and one of its name in it."""
    return [path for path in folders.named_folders(folder, INPUT) if path.name.lower() == INPUT.lower()]


def _centres(
    folder: Path, about: tables.Table, metadata: Optional[Path], progress: Progress
) -> Dict[str, str]:
    """Return the centre of each image whose centre is known."""
    split = _flamby_split(folder)
    if split is not None:
        remark(progress, f"centres are those of FLamby's table {split.name}")
        return _centres_of_split(split)
    metadata = metadata or ham10000.find_metadata(folder)
    ham: Dict[str, str] = {}
    if metadata is not None and ham10000.has_sites(metadata):
        ham10000.remark_choice(metadata, folder, progress)
        table = tables.read_table(metadata, ["image_id", "dataset"], ham10000.SOURCE.page)
        ham = dict(zip(table.columns["image_id"], table.columns["dataset"]))
    else:
        remark(
            progress,
            "HAM10000's photographs count as one centre: put HAM10000_metadata with its column 'dataset' "
            f"into {folder} to tell its four sites apart (from {ham10000.SOURCE.page})",
        )
    centres = {}
    for row, (name, lesion_id) in enumerate(zip(about.columns["image"], about.columns["lesion_id"])):
        if not tables.known(lesion_id):
            continue
        centre = lesion_id[:3]
        if centre not in ("BCN", "HAM", "MSK"):
            raise DataError(
                f"{about.where(row)}: lesion id {lesion_id!r} is of no known centre (BCN, HAM, MSK): "
                f"get it again from {SOURCE.page}"
            )
        centres[name] = f"HAM_{ham[name]}" if centre == "HAM" and name in ham else centre
    return centres


def _flamby_split(folder: Path) -> Optional[Path]:
    """Return FLamby's split table in ``folder``, which says each image's centre."""
    named = [path for path in folders.files(folder) if "train_test_split" in path.name]
    if len(named) > 1:
        names = tables.listing([path.name for path in named])
        raise DataError(
            f"{folder} has several of FLamby's split tables ({names}), "
            "and each leaves out other images: keep the one that is meant and move the others elsewhere"
        )
    return named[0] if named else None


def _centres_of_split(path: Path) -> Dict[str, str]:
    page = "https://github.com/owkin/FLamby, flamby/datasets/fed_isic2019"
    table = tables.read_table(path, ["image", "center"], page)
    numbers = {str(number): name for number, name in enumerate(CENTRES)}
    for row, number in enumerate(table.columns["center"]):
        if number not in numbers:
            raise DataError(f"{table.where(row)}: center {number!r} is not 0 to 5: get it again from {page}")
    return {name: numbers[number] for name, number in zip(table.columns["image"], table.columns["center"])}


class Isic2019(Reader):
    """The challenge's training set."""

    source = SOURCE
    looks_for = f"{GROUND_TRUTH} with {INPUT}/"

    def recognise(self, path: Path, metadata: Optional[Path] = None) -> Sequence[Found]:
        if not folders.is_folder(path):
            return ()
        parts = folders.is_file(path / GROUND_TRUTH), bool(_inputs(path))
        table = metadata or ham10000.find_metadata(path)
        if all(parts):
            return (Found(self, path, (PHOTOGRAPHS,), table),)
        return (Found(self, path, (TRACES,), table),) if any(parts) else ()

    def index(self, found: Found, complain: Complain, progress: Progress = None) -> Index:
        return index(found.path, found.metadata, complain, progress)


register(Isic2019())

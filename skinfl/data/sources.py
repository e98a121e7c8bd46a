"""Which publishers' data sets are understood, where to get them, and how their folders look."""

from __future__ import annotations

from typing import Callable, NamedTuple, Optional

#: ``progress(done, total, what)``; ``total`` 0 marks a remark rather than a step of some length.
Progress = Optional[Callable[[int, int, str], None]]


class Source(NamedTuple):
    """A data set that :func:`skinfl.data.load` reads; nothing is downloaded, ``page`` has the files."""

    name: str
    what: str
    page: str
    layout: str


HAM10000 = Source(
    "ham10000",
    "10,015 dermoscopic photographs of 7,470 lesions, 7 classes (CC BY-NC 4.0)",
    "https://doi.org/10.7910/DVN/DBW86T (Harvard Dataverse)",
    "HAM10000_images_part_1/*.jpg, HAM10000_images_part_2/*.jpg, HAM10000_metadata.csv",
)
HMNIST = Source(
    "hmnist",
    "the images of HAM10000 as pixel tables of 8x8 or 28x28, grey or colour (CC BY-NC 4.0)",
    "https://www.kaggle.com/datasets/kmader/skin-cancer-mnist-ham10000",
    "hmnist_28_28_RGB.csv (or 28_28_L, 8_8_RGB, 8_8_L) with HAM10000_metadata.csv beside it",
)
ISIC2019 = Source(
    "isic2019",
    "the training set of the ISIC 2019 challenge, 8 classes, six centres (CC BY-NC 4.0)",
    "https://challenge.isic-archive.com/data/#2019",
    "ISIC_2019_Training_Input/*.jpg, ISIC_2019_Training_GroundTruth.csv, "
    "ISIC_2019_Training_Metadata.csv, and HAM10000_metadata with its column 'dataset'",
)
DERMAMNIST = Source(
    "dermamnist",
    "HAM10000 as MedMNIST ships it, 28x28 to 224x224, without lesion ids (CC BY-NC 4.0)",
    "https://medmnist.com",
    "dermamnist.npz, dermamnist_64.npz, dermamnist_128.npz or dermamnist_224.npz",
)
SYNTHETIC = Source(
    "synthetic",
    "drawn pictures in HAM10000's layout and class proportions; not of patients",
    "drawn on this machine: --data synthetic, or 'skinfl data make-synthetic FOLDER'",
    "HAM10000_images_part_1/*.jpg, HAM10000_metadata.csv, SYNTHETIC.txt",
)

ALL = (HAM10000, HMNIST, ISIC2019, DERMAMNIST, SYNTHETIC)


def remark(progress: Progress, text: str) -> None:
    """Tell the user something that is neither a step nor an error."""
    if progress is not None:
        progress(0, 0, text)

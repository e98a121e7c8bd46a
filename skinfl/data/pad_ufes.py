"""PAD-UFES-20: photographs of skin lesions taken with smartphones, with their patients.

Pacheco et al., "PAD-UFES-20: A skin lesion dataset composed of patient data and clinical images collected
from smartphones", Data in Brief 32:106221 (2020). The table has a row per photograph; a lesion's number is
its own within all patients, and is joined with the patient's here all the same, so that nothing rests on
that.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import List, Optional, Sequence

from skinfl.data import contents, folders, tables
from skinfl.data.images import find_images, holds_images, image_folders
from skinfl.data.index import Complain, Index, Photograph, match
from skinfl.data.readers import PHOTOGRAPHS, TRACES, Found, Reader, register
from skinfl.data.sources import Progress, Source
from skinfl.errors import DataError, nearest
from skinfl.predictions import LesionClass

SOURCE = Source(
    "pad_ufes_20",
    "2,298 smartphone photographs of 1,641 lesions of 1,373 patients, 6 classes (CC BY 4.0)",
    "https://data.mendeley.com/datasets/zr7vgbcyr2/1",
    "imgs_part_1/*.png, imgs_part_2/*.png, imgs_part_3/*.png, metadata.csv",
)
#: by the alphabet, as the publisher's table has no order of them; which are cancer is what the publisher says
CLASS_INFO = (
    LesionClass("ack", "actinic keratosis", False),
    LesionClass("bcc", "basal cell carcinoma", True),
    LesionClass("mel", "melanoma", True),
    LesionClass("nev", "nevus", False),
    LesionClass("scc", "squamous cell carcinoma (Bowen's disease among them)", True),
    LesionClass("sek", "seborrheic keratosis", False),
)
CLASSES = tuple(each.name for each in CLASS_INFO)
METADATA = "metadata.csv"

_COLUMNS = ("patient_id", "lesion_id", "img_id", "diagnostic", "age", "gender")
_IMAGES = "imgs_part_"


class PadUfes(Reader):
    """The folder as Mendeley ships it, its zip files unpacked."""

    source = SOURCE
    looks_for = f"{METADATA} with the columns img_id and diagnostic"

    def recognise(self, path: Path, metadata: Optional[Path] = None) -> Sequence[Found]:
        if folders.is_file(path):
            return self.recognise(path.parent, metadata or path) if _is_table(path) else ()
        table = metadata or path / METADATA
        if _is_table(table):
            cells = set(tables.cells(table))
            files = find_images(_image_folders(path), complain=lambda problem: None).values()
            whole = any(file.name in cells or file.stem in cells for file in files)
            return (Found(self, path, (PHOTOGRAPHS if whole else TRACES,), table),)
        return (Found(self, path, (TRACES,)),) if folders.named_folders(path, _IMAGES) else ()

    def index(self, found: Found, complain: Complain, progress: Progress = None) -> Index:
        folder = found.path
        table = tables.read_table(found.metadata or folder / METADATA, _COLUMNS, SOURCE.page)
        columns = {name: [tables.known(value) for value in table.columns[name]] for name in _COLUMNS}
        for name in ("patient_id", "lesion_id", "img_id"):
            if "" in columns[name]:
                where = table.where(columns[name].index(""))
                raise DataError(f"{where}: {name} is empty: get the table again from {SOURCE.page}")
        names = [
            name[: -len(".png")] if name.lower().endswith(".png") else name for name in columns["img_id"]
        ]
        diagnoses = [diagnosis.lower() for diagnosis in table.columns["diagnostic"]]
        unknown = Counter(diagnosis for diagnosis in diagnoses if diagnosis not in CLASSES)
        for diagnosis, times in unknown.items():
            complain(
                f"{table.where(diagnoses.index(diagnosis))}: unknown diagnostic {diagnosis!r} "
                f"({nearest(diagnosis, CLASSES)}), in {times} rows: mend or remove them"
            )
        files = find_images(_image_folders(folder), complain)
        if not files:
            raise DataError(
                f"{folder} has {table.path.name} but no images (it has {contents.describe(folder)}): put "
                f"imgs_part_1, imgs_part_2 and imgs_part_3 beside it, from {SOURCE.page}"
            )
        missing, extra = match(table.path, names, files, str(folder), SOURCE.page, complain)
        photographs = [
            Photograph(
                files[name],
                CLASSES.index(diagnoses[i]),
                f"{columns['patient_id'][i]}_{columns['lesion_id'][i]}",
                name,
                sex=columns["gender"][i].lower(),
                age=tables.age(table, "age", i),
                patient_id=columns["patient_id"][i],
            )
            for i, name in enumerate(names)
            if name in files and diagnoses[i] in CLASSES
        ]
        return Index(SOURCE.name, CLASS_INFO, photographs, missing, extra, unknown)


def _is_table(path: Path) -> bool:
    return folders.is_file(path) and {"img_id", "diagnostic"} <= set(tables.header(path))


def _image_folders(folder: Path) -> List[Path]:
    published = [path for path in folders.named_folders(folder, _IMAGES) if holds_images(path)]
    return published or image_folders(folder)


register(PadUfes())

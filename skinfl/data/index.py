"""What a folder of image files holds, before any image is decoded."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from skinfl.data import images
from skinfl.data.dataset import LesionDataset
from skinfl.data.preparation import Preparation
from skinfl.data.sources import Progress
from skinfl.data.tables import listing
from skinfl.errors import DataError
from skinfl.paths import PathLike
from skinfl.predictions import LesionClass

#: called with each problem found; :func:`refuse` raises at the first, a check collects them all
Complain = Callable[[str], None]


class Photograph(NamedTuple):
    """One row of the publisher's table with the file that belongs to it.

    ``label`` is a place in the index's ``classes``; what is not known stays as it is by default.
    """

    path: Path
    label: int
    lesion_id: str
    image_id: str
    site: str = ""
    sex: str = ""
    age: float = float("nan")
    patient_id: str = ""


class Index(NamedTuple):
    """The photographs of a folder, in the order of the publisher's table.

    ``missing`` are image ids of the table without a file, ``extra`` files without a row, ``unknown`` how
    many rows have each class that is not among ``classes``. ``name`` is what reports call the data set.
    ``lesions_known``: whether each photograph's lesion id is the publisher's.
    """

    name: str
    classes: Sequence[LesionClass]
    photographs: Sequence[Photograph]
    missing: Sequence[str] = ()
    extra: Sequence[str] = ()
    unknown: Mapping[str, int] = {}
    synthetic: bool = False
    lesions_known: bool = True

    def load(
        self, preparation: Preparation, cache_dir: Optional[PathLike] = None, progress: Progress = None
    ) -> LesionDataset:
        """Decode and prepare the images, or take them from the cache."""
        rows = self.photographs
        return LesionDataset(
            self.name,
            images.decode([row.path for row in rows], preparation, cache_dir, progress),
            [row.label for row in rows],
            self.classes,
            [row.lesion_id for row in rows],
            [row.image_id for row in rows],
            [row.site for row in rows],
            [row.sex for row in rows],
            [row.age for row in rows],
            synthetic=self.synthetic,
            lesions_known=self.lesions_known,
            patient_ids=[row.patient_id for row in rows],
            preparation=preparation,
        )


def refuse(problem: str) -> None:
    """Raise at the first problem."""
    raise DataError(problem)


def duplicates(ids: Sequence[str]) -> List[str]:
    """Return the ids that occur more than once."""
    return [name for name, times in Counter(ids).items() if times > 1]


def match(
    table: Path,
    ids: Sequence[str],
    files: Dict[str, Path],
    where: str,
    page: str,
    complain: Complain,
    left_out: Sequence[str] = (),
) -> Tuple[List[str], List[str]]:
    """Compare a table's image ids with the files found; return (missing, extra).

    ``left_out`` are ids whose files are known but not used.
    """
    twice = duplicates(ids)
    if twice:
        complain(f"{table}: image ids on several rows ({listing(twice)}): keep one row of each")
    missing = [name for name in ids if name not in files]
    if missing:
        complain(
            f"{len(missing)} of {len(ids)} images in {table} are not in {where} "
            f"({listing(missing)}{_endings(missing, files)}): get them from {page}"
        )
    extra = sorted(set(files) - set(ids) - set(left_out))
    if extra:
        complain(
            f"{len(extra)} images in {where} have no row in {table} ({listing(extra)}): "
            f"move them elsewhere or get the whole table from {page}"
        )
    return missing, extra


def _endings(missing: Sequence[str], files: Dict[str, Path]) -> str:
    """Return a hint where the table's ids carry an ending that file names are compared without."""
    with_ending = [name for name in missing if name.rpartition(".")[0] in files]
    return f"; {len(with_ending)} are there without the ending in the table's ids" if with_ending else ""

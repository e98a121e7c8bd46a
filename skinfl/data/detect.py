"""Finding out what a folder or file is, and reading it with the right reader."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import List, NamedTuple, Optional, Union

from skinfl.data import ham10000, hmnist, isic2019, medmnist, synthetic
from skinfl.data.dataset import LesionDataset
from skinfl.data.images import check_size, find_images, image_folders
from skinfl.data.sources import DERMAMNIST, HAM10000, HMNIST, ISIC2019, SYNTHETIC, Progress, Source, remark
from skinfl.errors import DataError

_LOG = logging.getLogger(__name__)


class Found(NamedTuple):
    """What there is to read: a data set, its folder or file, and its metadata table if any."""

    source: Source
    path: Path
    metadata: Optional[Path] = None


def load(
    source: Union[str, Path],
    *,
    image_size: int = 28,
    cache_dir: Optional[Union[str, Path]] = None,
    progress: Progress = None,
    metadata: Optional[Union[str, Path]] = None,
) -> LesionDataset:
    """Read a data set as its publisher ships it; nothing is downloaded.

    Parameters
    ----------
    source: ``"synthetic"``, or a folder or file of HAM10000, its hmnist tables, ISIC 2019 or DermaMNIST.
    image_size: images are resized to a square of so many pixels, bilinear.
    cache_dir: where decoded images and the synthetic set are kept; default ``$SKINFL_CACHE`` or
        ``~/.cache/skinfl``.
    progress: called as ``progress(done, total, what)``; total 0 marks a remark.
    metadata: HAM10000's metadata table, where it is not the one in the folder.

    Raises :class:`~skinfl.errors.DataError` that names the file and says how to mend it.
    """
    check_size(image_size)
    if str(source) == SYNTHETIC.name:
        return _load_synthetic(image_size, cache_dir, progress)
    found = detect(Path(source).expanduser(), None if metadata is None else Path(metadata), progress)
    if found.source is HMNIST:
        return hmnist.read(found.path, image_size, found.metadata)
    if found.source is DERMAMNIST:
        return medmnist.read(found.path, image_size)
    if found.source is ISIC2019:
        index = isic2019.index(found.path, found.metadata, progress=progress)
    else:
        index = ham10000.index(found.path, found.metadata)
    return index.load(image_size, cache_dir, progress)


def _load_synthetic(
    image_size: int, cache_dir: Optional[Union[str, Path]], progress: Progress
) -> LesionDataset:
    try:
        with synthetic.drawn(cache_dir=cache_dir, progress=progress) as folder:
            return ham10000.index(folder).load(image_size, cache_dir, progress)
    except DataError as error:
        _LOG.warning("the synthetic set in the cache is damaged (%s) and is drawn again", error)
    with synthetic.drawn(cache_dir=cache_dir, progress=progress, anew=True) as folder:
        return ham10000.index(folder).load(image_size, cache_dir, progress)


def detect(path: Path, metadata: Optional[Path] = None, progress: Progress = None) -> Found:
    """Say what lies at ``path``; of several candidates in a folder the one with most pixels is taken."""
    if metadata is not None and not metadata.is_file():
        raise DataError(f"{metadata} is missing: get it from {HAM10000.page}")
    if path.is_file():
        return _detect_file(path, metadata, progress)
    mend = f"give a folder with {HAM10000.layout}, from {HAM10000.page}, or what 'skinfl data list' shows"
    if not path.is_dir():
        raise DataError(f"{path} does not exist: {mend}")
    if not any(path.iterdir()):
        raise DataError(f"{path} is empty: {mend}")
    candidates = _candidates(path, metadata)
    if not candidates:
        raise DataError(f"{path} holds no data set that is known here: {mend}")
    if len(candidates) > 1:
        first, *others = [
            found.source.name if found.path == path else found.path.name for found in candidates
        ]
        remark(progress, f"{path} holds several data sets: {first} is read, not {', '.join(others)}")
    return candidates[0]


def _detect_file(path: Path, metadata: Optional[Path], progress: Progress) -> Found:
    if path.suffix == ".npz":
        return Found(DERMAMNIST, path)
    if hmnist.format_of(path) is not None:
        return Found(HMNIST, path, metadata or ham10000.find_metadata(path.parent))
    if path.name.endswith(ham10000.METADATA):
        return detect(path.parent, metadata or path, progress)
    raise DataError(
        f"{path} is no file that is known here: give a folder, an hmnist_*.csv or a dermamnist*.npz"
    )


def _candidates(folder: Path, metadata: Optional[Path]) -> List[Found]:
    """Return what the folder holds, the best first: photographs before tables, large before small."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    metadata = metadata or ham10000.find_metadata(folder)
    tables = [path for path in files if hmnist.format_of(path)]
    tables.sort(key=hmnist.format_of, reverse=True)
    arrays = [path for path in files if path.suffix == ".npz" and path.name.startswith("dermamnist")]
    arrays.sort(key=lambda path: path.stat().st_size, reverse=True)
    found = [Found(HMNIST, path, metadata) for path in tables] + [Found(DERMAMNIST, path) for path in arrays]
    if (folder / isic2019.GROUND_TRUTH).is_file() or (folder / isic2019.INPUT).is_dir():
        found.insert(0, Found(ISIC2019, folder, metadata))
    # Beside other data sets a stray picture makes no HAM10000, its photographs do.
    elif _holds_photographs(folder, metadata) or (
        not found and (metadata is not None or image_folders(folder))
    ):
        found.insert(0, Found(HAM10000, folder, metadata))
    return found


def _holds_photographs(folder: Path, metadata: Optional[Path]) -> bool:
    """Whether some image file in ``folder`` is named like an id in the metadata table."""
    if metadata is None:
        return False
    words = set(re.split(rb'[,\t\r\n"]', metadata.read_bytes()))
    images = find_images(ham10000.photograph_folders(folder), complain=lambda problem: None)
    return any(name.encode() in words for name in images)

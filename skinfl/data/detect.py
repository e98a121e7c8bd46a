"""Finding out what a folder or file is, and reading it with the right reader."""

from __future__ import annotations

from pathlib import Path
from typing import List, NamedTuple, Optional, Union

from skinfl.data import ham10000, hmnist, isic2019, medmnist, synthetic
from skinfl.data.dataset import LesionDataset
from skinfl.data.images import check_size, image_folders
from skinfl.data.sources import DERMAMNIST, HAM10000, HMNIST, ISIC2019, Progress, Source, remark
from skinfl.errors import DataError


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
    if str(source) == "synthetic":
        source = synthetic.cached(cache_dir=cache_dir, progress=progress)
    found = detect(Path(source).expanduser(), None if metadata is None else Path(metadata), progress)
    if found.source is HMNIST:
        return hmnist.read(found.path, image_size, found.metadata)
    if found.source is DERMAMNIST:
        return medmnist.read(found.path, image_size)
    if found.source is ISIC2019:
        return isic2019.index(found.path, found.metadata, progress=progress).load(
            image_size, cache_dir, progress
        )
    return ham10000.index(found.path, found.metadata).load(image_size, cache_dir, progress)


def detect(path: Path, metadata: Optional[Path] = None, progress: Progress = None) -> Found:
    """Say what lies at ``path``; of several candidates in a folder the one with most pixels is taken."""
    if metadata is not None and not metadata.is_file():
        raise DataError(f"{metadata} is missing: get it from {HAM10000.page}")
    if path.is_file():
        return _detect_file(path, metadata)
    if not path.is_dir():
        raise DataError(f"{path} does not exist: give a folder with {HAM10000.name} from {HAM10000.page}")
    if not any(path.iterdir()):
        raise DataError(f"{path} is empty: put HAM10000 into it, from {HAM10000.page}")
    candidates = _candidates(path, metadata)
    if not candidates:
        raise DataError(
            f"{path} holds no data set that is known here: it needs {HAM10000.layout}, "
            f"from {HAM10000.page}, or another layout that 'skinfl data list' shows"
        )
    if len(candidates) > 1:
        others = ", ".join(
            found.path.name if found.path != path else found.source.name for found in candidates[1:]
        )
        chosen = candidates[0]
        name = chosen.source.name if chosen.path == path else chosen.path.name
        remark(progress, f"{path} holds several data sets: {name} is read, not {others}")
    return candidates[0]


def _detect_file(path: Path, metadata: Optional[Path]) -> Found:
    if path.suffix == ".npz":
        return Found(DERMAMNIST, path)
    if hmnist.format_of(path) is not None:
        return Found(HMNIST, path, metadata or ham10000.find_metadata(path.parent))
    if path.name.endswith("HAM10000_metadata.csv"):
        return Found(HAM10000, path.parent, metadata or path)
    raise DataError(
        f"{path} is no file that is known here: give a folder, an hmnist_*.csv or a dermamnist*.npz"
    )


def _candidates(folder: Path, metadata: Optional[Path]) -> List[Found]:
    """Return what the folder holds, the best first: photographs before tables, large before small."""
    found = []
    files = sorted(path for path in folder.iterdir() if path.is_file())
    metadata = metadata or ham10000.find_metadata(folder)
    if (folder / isic2019.GROUND_TRUTH).is_file() or (folder / isic2019.INPUT).is_dir():
        found.append(Found(ISIC2019, folder, metadata))
    tables = [path for path in files if hmnist.format_of(path)]
    arrays = [path for path in files if path.suffix == ".npz" and path.name.startswith("dermamnist")]
    photographs = [path for path in image_folders(folder) if path.name != isic2019.INPUT]
    if photographs or (metadata and not found and not tables and not arrays):
        found.append(Found(HAM10000, folder, metadata))
    tables.sort(key=lambda path: hmnist.format_of(path), reverse=True)
    found += [Found(HMNIST, path, metadata) for path in tables]
    arrays.sort(key=lambda path: path.stat().st_size, reverse=True)
    found += [Found(DERMAMNIST, path) for path in arrays]
    return found

"""A frozen trunk's outputs for a whole data set: computed once by all cores, and kept for the next run.

The cache's file is named by what decides its content: the weights' SHA-256, how the trunk is cut, and the
photographs' digest. It ends with a digest of its own, so that a damaged one is made again.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Callable, Iterator, List, Optional, Sequence, Tuple

import numpy as np
import torch
from torch import nn

from skinfl.data import folders
from skinfl.data.cache import cache_folder
from skinfl.data.dataset import LesionDataset
from skinfl.data.features import FeatureDataset
from skinfl.data.normalisation import Normalisation, normalise
from skinfl.data.parallel import cores, in_threads
from skinfl.data.sources import Progress
from skinfl.data.views import turned
from skinfl.devices import image_layout
from skinfl.errors import DataError, WriteError
from skinfl.files import whole_file
from skinfl.models.trunk import folded_norms
from skinfl.paths import PathLike

_LOG = logging.getLogger(__name__)
#: raised whenever the same trunk gives other features
_FORMAT = 1
_BATCH = 16
_DIGEST = 32
#: largest value of a float16
_LARGEST = 65504.0


def featured(
    dataset: LesionDataset,
    trunk: nn.Module,
    normalisation: Normalisation,
    described: str,
    *,
    views: int = 1,
    cache_dir: Optional[PathLike] = None,
    progress: Progress = None,
) -> FeatureDataset:
    """Return what a trunk sees of photographs, float16, from the cache if it can.

    ``trunk`` maps normalised images to features of shape (n, c) or (n, c, height, width). ``described``
    says all that decides what it computes. ``views``: the first so many of the eight ways of flipping and
    turning a square. Raises :class:`~skinfl.errors.DataError` for features that are not finite, and
    :class:`~skinfl.errors.WriteError` where the disk fills while they are written.
    """
    inner = folded_norms(trunk)
    shape = (len(dataset), *feature_shape(inner, dataset.photograph_shape))
    name = hashlib.sha256(f"{_FORMAT}\n{described}\n{dataset.digest()}".encode()).hexdigest()[:32]
    found: List[Any] = []
    for view in range(views):
        file = cache_folder(cache_dir) / f"features-{name}-{view}.npy"
        kept = _read(file, shape)
        if kept is None:
            what = "features" if views == 1 else f"features, view {view + 1} of {views}"
            kept = _made(file, shape, _batches(dataset, inner, normalisation, view, progress, what))
        found.append(kept)
    return FeatureDataset(dataset, found)


def feature_shape(trunk: nn.Module, image_shape: Tuple[int, int, int]) -> Tuple[int, int, int]:
    """Return (height, width, channels) of what a trunk makes of an image of (channels, height, width)."""
    training = trunk.training
    with torch.no_grad():
        out = trunk.eval()(torch.zeros(1, *image_shape))
    trunk.train(training)
    if out.dim() == 2:
        return 1, 1, int(out.shape[1])
    return int(out.shape[2]), int(out.shape[3]), int(out.shape[1])


def _batches(
    dataset: LesionDataset,
    trunk: nn.Module,
    normalisation: Normalisation,
    view: int,
    progress: Progress,
    what: str,
) -> Iterator[np.ndarray]:
    """Yield the features of batches in order, float16, shape (n, height, width, channels).

    Each core takes batches of its own with one thread of torch: two threads in one batch wait for each other
    at every layer, on a machine with other work for most of the time.
    """
    layout = image_layout(torch.device("cpu"))

    def of(number: int) -> np.ndarray:
        start = number * _BATCH
        images = turned(np.asarray(dataset.images[start : start + _BATCH]), view)
        batch = torch.from_numpy(normalise(images, normalisation)).contiguous(memory_format=layout)
        with _inference():
            out = trunk(batch)
        out = out[:, None, None, :] if out.dim() == 2 else out.permute(0, 2, 3, 1)
        features = out.contiguous().numpy()
        if not np.isfinite(features).all():
            raise DataError("the trunk's features are not finite: its weights are damaged, get them again")
        return np.clip(features, -_LARGEST, _LARGEST).astype(np.float16)

    def photographs(batches: int, total: int, what: str) -> None:
        if progress is not None:
            left = (time.monotonic() - started) / batches * (total - batches)
            told = f"{what}, {_duration(left)} left" if batches < total else what
            progress(min(batches * _BATCH, len(dataset)), len(dataset), told)

    started = time.monotonic()
    with _one_thread_each():
        yield from in_threads(of, -(-len(dataset) // _BATCH), photographs, what, threads=cores())


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


@contextmanager
def _inference() -> Iterator[None]:
    mode: Callable[[], Any] = getattr(torch, "inference_mode", torch.no_grad)
    with mode():
        yield


@contextmanager
def _one_thread_each() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # threads that are started from now on take it over
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _made(file: Path, shape: Sequence[int], batches: Iterator[np.ndarray]) -> np.ndarray:
    """Write batches to the cache, or hold them in memory where there is no room or right to write."""
    if _room(file.parent, 2 * int(np.prod(shape)) + (1 << 20)):
        with whole_file(file, private=True) as stream:
            _write(stream, shape, batches)
        kept = _read(file, shape)
        if kept is not None:
            return kept
        raise DataError(f"{file} was damaged while it was written: name another folder with SKINFL_CACHE")
    _LOG.warning("features are not kept for the next run: %s cannot take them", file.parent)
    features = np.empty(shape, np.float16)
    done = 0
    for batch in batches:
        features[done : done + len(batch)] = batch
        done += len(batch)
    return features


def _room(folder: Path, size: int) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return os.access(str(folder), os.W_OK) and shutil.disk_usage(str(folder)).free > size
    except OSError:
        return False


def _write(stream: BinaryIO, shape: Sequence[int], batches: Iterator[np.ndarray]) -> None:
    header = {"descr": "<f2", "fortran_order": False, "shape": tuple(map(int, shape))}
    np.lib.format.write_array_header_1_0(stream, header)
    found = hashlib.sha256()
    for batch in batches:
        content = batch.astype("<f2").tobytes()
        found.update(content)
        try:
            stream.write(content)
        except OSError as error:
            raise WriteError(getattr(stream, "name", "the cache"), str(error.strerror)) from None
    stream.write(found.digest())


def _read(file: Path, shape: Sequence[int]) -> Optional[np.ndarray]:
    """Return the features in ``file``, mapped into memory; None where there are none or they are damaged."""
    if not folders.is_file(file):
        return None
    try:
        features: np.ndarray = np.load(str(file), mmap_mode="r", allow_pickle=False)
        if features.shape != tuple(shape) or features.dtype != np.float16:
            raise ValueError("it holds something else")
        found = hashlib.sha256()
        for start in range(0, len(features), 256):
            found.update(np.ascontiguousarray(features[start : start + 256]).data)
        with open(str(file), "rb") as stream:
            stream.seek(-_DIGEST, os.SEEK_END)
            if stream.read() != found.digest():
                raise ValueError("its digest is another")
    except (OSError, ValueError, EOFError) as error:
        _LOG.warning("%s is damaged (%s) and is made again", file, error)
        return None
    return features

"""Decoded images kept between runs, so that large JPEG folders are decoded once."""

from __future__ import annotations

import hashlib
import logging
import os
import zipfile
from pathlib import Path
from typing import Optional, Sequence

import numpy as np

from skinfl.data import folders
from skinfl.errors import WriteError
from skinfl.files import whole_file
from skinfl.paths import PathLike
from skinfl.paths import path as user_path

_LOG = logging.getLogger(__name__)
#: raised whenever an image file gives other pixels, so that no old ones are taken
_FORMAT = 2


def cache_folder(cache_dir: Optional[PathLike] = None) -> Path:
    """Return ``cache_dir``, else what ``$SKINFL_CACHE`` names, else ``~/.cache/skinfl``.

    A user who has no home, as one of a number only in a container, keeps nothing: the folder is one that
    cannot be made. Raises :class:`~skinfl.errors.SettingsError` for a folder that is named and impossible.
    """
    named = cache_dir or os.environ.get("SKINFL_CACHE")
    if named:
        return user_path(named)
    home = os.path.expanduser("~")
    return Path(os.devnull if home == "~" else home) / ".cache" / "skinfl"


def cache_file(folder: Path, paths: Sequence[Path], image_size: int) -> Path:
    """Return the cache's file for these images: it follows their names, sizes and change times.

    Raises :class:`~skinfl.errors.DataError` for an image that is not there or a link to nothing.
    """
    digest = hashlib.sha256(f"{_FORMAT}\n{image_size}\n".encode())
    for path in paths:
        stat = folders.stat(path)
        digest.update(f"{path.name}\t{stat.st_size}\t{stat.st_mtime_ns}\n".encode())
    return folder / f"images-{image_size}-{digest.hexdigest()[:32]}.npz"


def read(file: Path, shape: Sequence[int]) -> Optional[np.ndarray]:
    """Return the images in ``file``, or None where there are none or they are damaged."""
    if not folders.is_file(file):
        return None
    try:
        if not zipfile.is_zipfile(str(file)):
            raise zipfile.BadZipFile("it has no end")
        # A zip member carries a checksum, so damage anywhere in the pixels is noticed here.
        with np.load(str(file), allow_pickle=False) as arrays:
            images = arrays["images"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        _LOG.warning("%s is damaged (%s) and is made again", file, error)
        return None
    if images.dtype != np.uint8 or images.shape != tuple(shape):
        _LOG.warning("%s holds something else than expected and is made again", file)
        return None
    return images


def write(file: Path, images: np.ndarray) -> None:
    """Keep ``images`` in ``file``, for its owner only; a folder that cannot be written is no failure."""
    try:
        with whole_file(file, private=True) as stream:
            np.savez(stream, images=images)
    except WriteError as error:
        _LOG.warning("decoded images are not kept for the next run: %s", error)

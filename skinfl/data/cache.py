"""Photographs as pixels, kept between runs, so that each is decoded and resized once.

What is kept is a folder: ``pixels.npy``, all images in one array, which is mapped and not read, and
``about``, whose digests say of which photographs, how they were prepared, and that nothing is damaged. It is
named by a digest of all that decides the pixels, and appears whole or not at all.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import logging
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Callable, Iterable, Iterator, List, Optional, Sequence, Tuple

import numpy as np
from PIL import __version__ as pillow_version

from skinfl.data import folders
from skinfl.data.digests import Memory
from skinfl.data.preparation import Preparation
from skinfl.data.rows import ImageRows, MappedFile, mapped
from skinfl.data.sources import Progress
from skinfl.errors import DataError, WriteError
from skinfl.files import read_checked, whole_folder, write_checked
from skinfl.paths import PathLike
from skinfl.paths import path as user_path

_LOG = logging.getLogger(__name__)
#: raised whenever an image file gives other pixels, so that no old ones are taken
_FORMAT = 3
_PIXELS, _ABOUT, _SEEN = "pixels.npy", "about", "seen"
#: up to so many bytes are held in memory where nothing can be written
_LITTLE = 256 << 20
#: of what is kept of other sets of photographs, so many are looked through for some of these
_LOOKED_AT = 16


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


class Wanted:
    """The pixels of some photographs: of files with these digests, in this order, prepared in one way."""

    def __init__(self, folder: Path, digests: Sequence[str], preparation: Preparation):
        self.folder = folder
        self.digests = list(digests)
        self.shape = (len(self.digests), preparation.image_size, preparation.image_size, 3)
        #: other versions of Pillow and its decoders may round otherwise
        self._way = [_FORMAT, pillow_version, *preparation]
        name = hashlib.sha256(json.dumps([self._way, self.digests]).encode()).hexdigest()
        self.place = folder / f"images-{preparation.image_size}-{name[:32]}"

    def kept(self, progress: Progress = None) -> Optional[ImageRows]:
        """Return what was kept, or None where nothing is or it is damaged."""
        if not os.path.lexists(str(self.place)):
            return None
        try:
            digests, images = self._open(self.place, progress)
            if digests != self.digests or images.shape != self.shape or images.dtype != np.uint8:
                raise ValueError("it holds something else than expected")
            return images
        except (OSError, ValueError, DataError) as error:
            _LOG.warning("%s is damaged (%s) and is made again", self.place, error)
            _remove(self.place)
            return None

    def alike(self, progress: Progress = None) -> Callable[[str], Optional[np.ndarray]]:
        """Return what finds, by a photograph's digest, its pixels as kept with other photographs, or None.

        So that where one photograph is added or changed only that one is decoded.
        """
        wanted = set(self.digests)
        best, where = 0, None
        for place in _newest(self.folder, self.place.name.rpartition("-")[0] + "-"):
            with suppress(OSError, ValueError, KeyError, TypeError):
                about = json.loads(read_checked(place / _ABOUT).decode("utf-8"))
                common = len(wanted.intersection(about["digests"])) if about["way"] == self._way else 0
                if common > best:
                    best, where = common, place
        if where is not None:
            with suppress(OSError, ValueError, DataError):
                digests, images = self._open(where, progress)
                row_of = {digest: i for i, digest in enumerate(digests)}
                return lambda digest: images[row_of[digest]] if digest in row_of else None
        return lambda digest: None

    def keep(self, rows: Iterable[np.ndarray]) -> ImageRows:
        """Write the images, uint8, one after another, and return them.

        Where they cannot be kept, that is said once, and they are in an unnamed temporary file or in memory.
        Raises :class:`~skinfl.errors.DataError` where there is no room in either, and lets the errors of
        ``rows`` through.
        """
        row_bytes = int(np.prod(self.shape[1:]))
        source = iter(rows)
        elsewhere: Optional[_Elsewhere] = None
        images: Optional[ImageRows] = None
        try:
            with whole_folder(self.place, private=True) as temporary:
                with open(_create(temporary / _PIXELS), "w+b", buffering=0) as stream:
                    file = _Pixels(stream, self.shape)
                    try:
                        _need_room(temporary, int(np.prod(self.shape, dtype=np.int64)))
                        for row in source:
                            file.add(row)
                        os.fsync(stream.fileno())
                    except OSError:
                        elsewhere = _Elsewhere(self.shape)
                        elsewhere.take_over(file, row_bytes)
                        raise
                about = {"way": self._way, "digests": self.digests, "pixels": file.sha.hexdigest()}
                write_checked(temporary / _ABOUT, json.dumps(about).encode("utf-8"), private=True)
                images = mapped(temporary / _PIXELS) if os.name == "posix" else None
            return images or mapped(self.place / _PIXELS)
        except WriteError as error:
            if images is not None:
                # Another run may have finished the same first; what is mapped stays without its name.
                if not folders.is_file(self.place / _ABOUT):
                    _LOG.warning("decoded images are not kept for the next run: %s", error)
                return images
            _LOG.warning("decoded images are not kept for the next run: %s", error)
        elsewhere = elsewhere or _Elsewhere(self.shape)
        for row in source:
            elsewhere.add(row)
        return elsewhere.images()

    def _open(self, place: Path, progress: Progress) -> Tuple[List[str], ImageRows]:
        about = json.loads(read_checked(place / _ABOUT).decode("utf-8"))
        file = place / _PIXELS
        (digest,) = Memory(place / _SEEN, [file]).digests(progress, "checking kept images")
        if digest != about["pixels"]:
            raise ValueError("its pixels are altered")
        return about["digests"], mapped(file)


class _Pixels:
    """A file that images are written into one after another; ``sha`` is of all of its content."""

    def __init__(self, stream: BinaryIO, shape: Sequence[int]):
        self.stream = stream
        self.done = 0
        self.pending: Optional[np.ndarray] = None
        self.sha = hashlib.sha256()
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            header, {"descr": "|u1", "fortran_order": False, "shape": tuple(shape)}
        )
        self._head = header.getvalue()
        self.offset = len(self._head)
        self._begun = False

    def add(self, row: np.ndarray) -> None:
        """Write one image; where that fails it is ``pending``."""
        self.pending = row
        if not self._begun:
            self._write(memoryview(self._head))
            self._begun = True
        self._write(memoryview(np.ascontiguousarray(row)).cast("B"))
        self.done += 1
        self.pending = None

    def _write(self, content: memoryview) -> None:
        # A disk that is nearly full takes a part, and refuses the rest when it is asked again.
        left = content
        while len(left):
            left = left[self.stream.write(left) :]
        self.sha.update(content)

    def written(self, row_bytes: int) -> Iterator[np.ndarray]:
        """Yield the images that were written, and the one that could not be."""
        self.stream.seek(self.offset)
        for _ in range(self.done):
            yield np.frombuffer(self.stream.read(row_bytes), np.uint8)
        if self.pending is not None:
            yield self.pending


class _Elsewhere:
    """Where images are put that cannot be kept: in memory if they are few, else in a file without a name."""

    def __init__(self, shape: Sequence[int]):
        self._shape = tuple(shape)
        self._bytes = int(np.prod(self._shape, dtype=np.int64))
        self._array: Optional[np.ndarray] = None
        self._file: Optional[_Pixels] = None
        self._done = 0
        if self._bytes > _LITTLE:
            with suppress(OSError):
                if shutil.disk_usage(tempfile.gettempdir()).free > 1.05 * self._bytes:
                    self._file = _Pixels(tempfile.TemporaryFile(buffering=0), self._shape)  # noqa: SIM115
        if self._file is None:
            if self._bytes > max(_LITTLE, _free_memory() // 2):
                raise self._no_room()
            self._array = np.empty(self._shape, np.uint8)

    def take_over(self, file: _Pixels, row_bytes: int) -> None:
        """Take what was written before the disk was full."""
        for row in file.written(row_bytes):
            self.add(row.reshape(self._shape[1:]))

    def add(self, row: np.ndarray) -> None:
        """Put one image behind the others."""
        if self._array is not None:
            self._array[self._done] = row
        elif self._file is not None:
            try:
                self._file.add(row)
            except OSError:
                raise self._no_room() from None
        self._done += 1

    def images(self) -> ImageRows:
        """Return the images."""
        if self._array is not None:
            return ImageRows(self._array)
        assert self._file is not None, "there is one of the two"
        return ImageRows(MappedFile(self._file.stream))

    def _no_room(self) -> DataError:
        return DataError(
            f"there is no room for {self._bytes / 1e9:.1f} GB of decoded images: name a folder that has it "
            "with SKINFL_CACHE, or use a smaller --image-size"
        )


def _need_room(folder: Path, size: int) -> None:
    """Notice a disk that is too small before all is decoded."""
    if shutil.disk_usage(str(folder)).free < size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _free_memory() -> int:
    """Return how many bytes of memory are to be had, all that there may be where it is not known."""
    with suppress(OSError, ValueError, IndexError), open("/proc/meminfo", encoding="ascii") as lines:
        for line in lines:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return 1 << 62


def _create(path: Path) -> int:
    return os.open(str(path), os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)


def _newest(folder: Path, prefix: str) -> List[Path]:
    """Return folders of kept images, the newest first."""
    found = []
    with suppress(OSError):
        for entry in os.scandir(str(folder)):
            if entry.name.startswith(prefix) and entry.is_dir():
                found.append((entry.stat().st_mtime_ns, folder / entry.name))
    return [path for _, path in sorted(found, reverse=True)[:_LOOKED_AT]]


def _remove(place: Path) -> None:
    if os.path.isdir(str(place)) and not os.path.islink(str(place)):
        shutil.rmtree(str(place), ignore_errors=True)
    else:
        with suppress(OSError):
            os.unlink(str(place))

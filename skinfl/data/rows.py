"""Images that need not be in memory: a file of them that is mapped, and some rows of it or of an array."""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Any, BinaryIO, Iterator, Optional, Sequence, Tuple, Union

import numpy as np

#: pages that were read stay in memory until so many bytes may be there
_RESIDENT = 256 << 20
#: what a system may bring into memory around the bytes that are asked for
_AROUND = 1 << 20


class MappedFile:
    """An array in numpy's own file format, read from the disk as it is asked for.

    However much is read, no more than about 256 MB of it stay resident: what was read is given back to the
    system, which keeps it as long as nobody else needs the room. What indexing returns is a copy.
    """

    def __init__(self, stream: BinaryIO):
        """Map a file, which may be closed or even removed afterwards; raises ValueError or OSError."""
        stream.seek(0)
        np.lib.format.read_magic(stream)
        self.shape, in_columns, self.dtype = np.lib.format.read_array_header_1_0(stream)
        count = int(np.prod(self.shape, dtype=np.int64))
        offset = stream.tell()
        if in_columns or self.dtype.hasobject:
            raise ValueError("it holds no rows of numbers")
        self._map = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        if len(self._map) != offset + count * self.dtype.itemsize:
            raise ValueError("it is cut short or too long")
        self._array = np.frombuffer(self._map, self.dtype, count, offset).reshape(self.shape)
        row = self._array[:1].nbytes + _AROUND
        self._at_once = max(1, _RESIDENT // row)
        self._read = 0

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, key: Any) -> np.ndarray:
        if isinstance(key, slice):
            first, last, step = key.indices(len(self))
            key = np.arange(first, last, step)
        if np.ndim(key) == 0:
            self._make_room(1)
            return self._array[int(key)].copy()
        rows = np.asarray(key)
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows.astype(np.int64, copy=False)
        result = np.empty((len(rows), *self.shape[1:]), self.dtype)
        for start in range(0, len(rows), self._at_once):
            part = rows[start : start + self._at_once]
            self._make_room(len(part))
            result[start : start + len(part)] = self._array[part]
        return result

    def _make_room(self, rows: int) -> None:
        self._read += rows
        if self._read > self._at_once and len(self._map) > _RESIDENT and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)
            self._read = rows


class ImageRows:
    """Some rows of an array or of a mapped file, in some order; nothing is copied until it is asked for.

    It has ``shape``, ``dtype``, ``ndim``, ``nbytes`` and a length, is indexed like an array, gives arrays,
    and cannot be written to. ``numpy.asarray`` brings all of it into memory, and so does pickling.
    """

    def __init__(self, source: Union[np.ndarray, MappedFile], rows: Optional[np.ndarray] = None):
        self._source = source
        self._rows = rows

    @property
    def shape(self) -> Tuple[int, ...]:
        """(n, height, width, channels)."""
        return (len(self), *self._source.shape[1:])

    @property
    def dtype(self) -> np.dtype:
        """The numbers' type."""
        return self._source.dtype

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self._source.shape)

    @property
    def nbytes(self) -> int:
        """Bytes that all of it would take in memory."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    def __len__(self) -> int:
        return len(self._source) if self._rows is None else len(self._rows)

    def __getitem__(self, key: Any) -> np.ndarray:
        if isinstance(key, tuple) or key is Ellipsis:
            first = key[0] if isinstance(key, tuple) and key else Ellipsis
            if first is Ellipsis:
                return self[:][key]
            assert isinstance(key, tuple), "the other case is gone"
            one = np.ndim(first) == 0 and not isinstance(first, slice)
            return self[first][key[1:] if one else (slice(None), *key[1:])]
        if self._rows is not None:
            key = self._rows[key]
        return self._source[key]

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[i] for i in range(len(self)))

    def __array__(self, dtype: Any = None, copy: Optional[bool] = None) -> np.ndarray:
        found = self[:]
        return found if dtype is None else found.astype(dtype, copy=False)

    def subset(self, indices: Union[Sequence[int], np.ndarray]) -> ImageRows:
        """Return the rows at ``indices``, in that order; raises IndexError for one that is not there."""
        i = np.asarray(indices, dtype=np.int64)
        rows = np.arange(len(self))[i] if self._rows is None else self._rows[i]
        return ImageRows(self._source, rows)

    def __reduce__(self) -> Tuple[Any, ...]:
        return ImageRows, (self[:],)

    def __deepcopy__(self, memo: Any) -> ImageRows:
        return self

    def __repr__(self) -> str:
        return f"<images of shape {self.shape}, {self.dtype}>"


#: what holds a data set's images
Images = Union[np.ndarray, ImageRows]


def mapped(path: Path) -> ImageRows:
    """Return the images in a file of numpy's own format; raises ValueError or OSError."""
    with open(str(path), "rb") as stream:
        return ImageRows(MappedFile(stream))


def blocks(images: Images, values: int = 1 << 22) -> Iterator[np.ndarray]:
    """Yield all images in order, some at a time: so many that they have about ``values`` numbers."""
    step = max(1, values // max(1, int(np.prod(images.shape[1:]))))
    for start in range(0, len(images), step):
        yield images[start : start + step]

"""The registry of readers: each recognises its own publisher's files and reads them.

A reader is a subclass of :class:`Reader` in a module of its own that calls :func:`register`. Nothing else
names it: :func:`skinfl.data.load`, ``skinfl data check`` and ``skinfl data list`` go over the registry.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple, TypeVar

from skinfl.data.dataset import LesionDataset
from skinfl.data.index import Complain, Index, refuse
from skinfl.data.preparation import Preparation
from skinfl.data.sources import Progress, Source
from skinfl.errors import DataError
from skinfl.paths import PathLike

#: imported when the registry is first asked, in this order; a reader elsewhere registers when it is imported
_BUILT_IN = ("isic2019", "ham10000", "isic2018", "pad_ufes", "synthetic", "hmnist", "medmnist")

#: first numbers of a rank, see :class:`Found`
PHOTOGRAPHS, PIXEL_TABLE, PIXELS_WITHOUT_LESIONS, TRACES = 3, 2, 1, 0


class Found(NamedTuple):
    """A data set that a reader recognised.

    ``path``: its folder or file. ``metadata``: the publisher's table that will be read, where the reader
    takes one that may lie elsewhere. ``rank`` decides where several are recognised at one place: the
    largest is read, of equals the one whose reader was registered first. Its first number is
    ``PHOTOGRAPHS``, ``PIXEL_TABLE`` (small images, lesions known), ``PIXELS_WITHOUT_LESIONS`` or
    ``TRACES``; the numbers after it order what is of one kind, more pixels first.

    ``TRACES`` say that what lies there seems to be this publisher's but a part is missing, or nothing but the
    content can tell: reading it ends in an error that names what is wrong, unless the content proves it.
    They count only where nothing better is found.
    """

    reader: Reader
    path: Path
    rank: Tuple[int, ...] = (PHOTOGRAPHS,)
    metadata: Optional[Path] = None


class Reader(ABC):
    """Reads one publisher's data set.

    ``source`` says what it is, where to get it and how its folder looks. ``looks_for`` names in a few words
    the files by which it is recognised, for the error about a folder that nobody recognises. ``word`` is
    what :func:`skinfl.data.load` takes in place of a path, for a set that is made and not found. A set of
    image files implements :meth:`index`, any other :meth:`read`.
    """

    source: Source
    looks_for: str = ""
    word: Optional[str] = None

    @abstractmethod
    def recognise(self, path: Path, metadata: Optional[Path] = None) -> Sequence[Found]:
        """Return what this reader can read at ``path``, a file or folder that exists; nothing if none.

        Files are looked for by name and header, so that this takes no time. ``metadata`` is a table that the
        user named; a reader that uses it puts it into :class:`Found`, and one that does not leaves it out.
        Must not raise for files of somebody else.
        """

    def index(self, found: Found, complain: Complain, progress: Progress = None) -> Optional[Index]:
        """Return what is there before any image is decoded; None where the set is not one of image files.

        Each problem that leaves something to be read is passed to ``complain``, which may raise; what leaves
        nothing raises :class:`~skinfl.errors.DataError`. Remarks go to ``progress``.
        """
        return None

    def read(
        self,
        found: Found,
        preparation: Optional[Preparation],
        cache_dir: Optional[PathLike] = None,
        progress: Progress = None,
    ) -> LesionDataset:
        """Read it: images uint8, shape (n, image_size, image_size, channels), labels int64, shape (n,).

        ``preparation`` says how photographs become pixels; None leaves the images of a set without
        :meth:`index` as they are, and a check asks for that. Raises :class:`~skinfl.errors.DataError` that
        names the file and says how to mend it.
        """
        index = self.index(found, refuse, progress)
        if index is None or preparation is None:
            raise NotImplementedError(f"{type(self).__name__} must implement index or read")
        return index.load(preparation, cache_dir, progress)

    def make(
        self,
        preparation: Preparation,
        cache_dir: Optional[PathLike] = None,
        progress: Progress = None,
    ) -> LesionDataset:
        """Return the data set that ``word`` stands for, made where it is not in ``cache_dir`` already.

        Images are prepared as ``preparation`` says. Raises :class:`~skinfl.errors.DataError`.
        """
        raise NotImplementedError(f"{type(self).__name__} has no word")


_READERS: Dict[str, Reader] = {}
_AnyReader = TypeVar("_AnyReader", bound=Reader)


def register(reader: _AnyReader) -> _AnyReader:
    """Make ``reader`` known, under its source's name."""
    name = reader.source.name
    other = _READERS.get(name)
    # A module that is loaded again, as in a notebook, replaces its own reader.
    if other is not None and type(other).__module__ != type(reader).__module__:
        raise DataError(
            f"two readers are called {name!r}: give the source of {type(reader).__name__} another name"
        )
    _READERS[name] = reader
    return reader


def all_readers() -> List[Reader]:
    """Return all readers, the package's own before others."""
    order = {importlib.import_module(f"skinfl.data.{name}").__name__: i for i, name in enumerate(_BUILT_IN)}
    return sorted(_READERS.values(), key=lambda reader: order.get(type(reader).__module__, len(order)))

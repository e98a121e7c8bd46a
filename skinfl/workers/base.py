"""The interface of workers: data stays at a worker, others hold pointers and ask for operations.

A worker applies only operations that its owner installed, to data that its owner loaded, and hands back
what the operation returns. There is no operation that returns the data; an attempt to fetch is refused
and logged at the worker.

Trust model: this keeps honest code from taking data by mistake and makes attempts visible. In a simulation
all workers are in one process, so it is no wall against code that wants to look; a deployment has machines
of its own for that.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Callable, Dict, List, Mapping, Sequence, Tuple

from skinfl.data.dataset import LesionDataset
from skinfl.protection.base import AggregatorSide

#: an operation takes the data set it is applied to, and what the caller sends along
Operation = Callable[..., Any]


class Pointer(ABC):
    """What others hold of a data set: where it is and what its owner says of it."""

    location: str
    tags: Tuple[str, ...]
    description: str

    @abstractmethod
    def ask(self, operation: str, *arguments: Any) -> Any:
        """Have an installed operation applied to the data, where the data is; return its result.

        ``arguments`` are what the operation takes after the data set. Raises
        :class:`~skinfl.errors.DataAccessError` for an operation the owner did not install, and whatever the
        operation raises.
        """

    @abstractmethod
    def get(self) -> LesionDataset:
        """Refuse: raises :class:`~skinfl.errors.DataAccessError`, and the worker logs the attempt."""


class Worker(ABC):
    """One hospital's machine."""

    id: str

    @abstractmethod
    def load(self, dataset: LesionDataset, *, tags: Sequence[str], description: str) -> Pointer:
        """Keep ``dataset`` under ``tags`` such as ``"#ham10000", "#train"``; return a pointer to it."""

    @abstractmethod
    def install(self, operations: Dict[str, Operation]) -> None:
        """Allow others to ask for these operations; each is called with the data set first.

        What an operation returns leaves the hospital. One of a name installed before is replaced.
        """

    @abstractmethod
    def search(self, *tags: str) -> List[Pointer]:
        """Return pointers to the data sets that carry all of ``tags``, in the order they were loaded."""

    @property
    @abstractmethod
    def refusals(self) -> Tuple[str, ...]:
        """What was refused so far, one line each, oldest first."""


class Network(ABC):
    """All workers of a federation."""

    #: for reports, e.g. ``"virtual"`` or ``"pysyft 0.2.9"``
    description: str

    @abstractmethod
    def worker(self, name: str) -> Worker:
        """Return the worker of that name, made if there is none yet."""

    @abstractmethod
    def search(self, *tags: str) -> Dict[str, List[Pointer]]:
        """Return pointers by worker name; workers that hold nothing with all of ``tags`` are left out."""

    def host(self, parties: Mapping[str, AggregatorSide]) -> Dict[str, AggregatorSide]:
        """Return the aggregating parties, those that this library can run moved to workers of their own."""
        return dict(parties)

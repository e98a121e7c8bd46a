"""The package's own virtual workers: PySyft 0.2.9's semantics in one process, without PySyft.

Trust model: a simulation. Everything is in one process, so what keeps the data at its worker is the
interface, not a wall; it shows what a deployment would send, it does not protect from its own process.
"""

from __future__ import annotations

import logging
from typing import Any, Dict, List, NamedTuple, Sequence, Tuple

from skinfl.data.dataset import LesionDataset
from skinfl.errors import DataAccessError, nearest
from skinfl.workers.base import Network, Operation, Pointer, Worker

_log = logging.getLogger(__name__)


class _Held(NamedTuple):
    dataset: LesionDataset
    tags: Tuple[str, ...]
    description: str


class VirtualPointer(Pointer):
    """A pointer to a data set at a :class:`VirtualWorker`."""

    def __init__(self, worker: VirtualWorker, key: int, tags: Tuple[str, ...], description: str):
        self._worker = worker
        self._key = key
        self.location = worker.id
        self.tags = tags
        self.description = description

    def ask(self, operation: str, *arguments: Any) -> Any:
        return self._worker._apply(self._key, operation, arguments)

    def get(self) -> LesionDataset:
        raise self._worker._refuse(f"fetch of {' '.join(self.tags)}", "data does not leave its hospital")

    def __repr__(self) -> str:
        return f"<pointer to {' '.join(self.tags)} at {self.location}: {self.description}>"


class VirtualWorker(Worker):
    """A hospital's machine, in this process."""

    def __init__(self, id: str):
        self.id = id
        self.__held: List[_Held] = []
        self.__operations: Dict[str, Operation] = {}
        self.__refusals: List[str] = []

    def load(self, dataset: LesionDataset, *, tags: Sequence[str], description: str) -> VirtualPointer:
        held = _Held(dataset, tuple(tags), description)
        self.__held.append(held)
        return VirtualPointer(self, len(self.__held) - 1, held.tags, description)

    def install(self, operations: Dict[str, Operation]) -> None:
        self.__operations.update(operations)

    def search(self, *tags: str) -> List[Pointer]:
        return [
            VirtualPointer(self, key, held.tags, held.description)
            for key, held in enumerate(self.__held)
            if set(tags) <= set(held.tags)
        ]

    @property
    def refusals(self) -> Tuple[str, ...]:
        return tuple(self.__refusals)

    def _apply(self, key: int, operation: str, arguments: Sequence[Any]) -> Any:
        if operation not in self.__operations:
            hint = nearest(operation, self.__operations) if self.__operations else "none is installed"
            raise self._refuse(f"operation {operation!r}", hint)
        return self.__operations[operation](self.__held[key].dataset, *arguments)

    def _refuse(self, what: str, why: str) -> DataAccessError:
        line = f"{self.id} refused {what}: {why}"
        self.__refusals.append(line)
        _log.warning(line)
        return DataAccessError(line)

    def __repr__(self) -> str:
        return f"<virtual worker {self.id}>"


class VirtualNetwork(Network):
    """Workers by name."""

    description = "virtual"

    def __init__(self) -> None:
        self._workers: Dict[str, VirtualWorker] = {}

    def worker(self, name: str) -> VirtualWorker:
        return self._workers.setdefault(name, VirtualWorker(name))

    def search(self, *tags: str) -> Dict[str, List[Pointer]]:
        found = {name: worker.search(*tags) for name, worker in self._workers.items()}
        return {name: pointers for name, pointers in found.items() if pointers}

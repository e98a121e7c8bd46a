"""Hospitals on PySyft 0.2.9: images and labels lie in the object store of a ``syft.VirtualWorker``.

Trust model: that of :mod:`skinfl.workers.virtual`, a simulation in one process. PySyft's own virtual
workers hand any tensor to whoever holds a pointer, directly (``get``, ``move``) or as the result of an
operation. A hospital's worker here therefore answers four of PySyft's messages only: a search, a
question for a shape or for existence, an incoming tensor, and the command to apply an installed operation.
"""

from __future__ import annotations

import itertools
import logging
import weakref
from typing import Any, Dict, List, Mapping, NamedTuple, Sequence, Tuple

import numpy as np
import torch

from skinfl.data.dataset import LesionDataset
from skinfl.errors import DataAccessError, nearest
from skinfl.openmined.hook import VERSION, add_worker, forget_worker, syft, torch_hook
from skinfl.protection.base import AggregatorSide
from skinfl.workers.base import Network, Operation, Pointer, Worker

messages = syft.messaging.message

_log = logging.getLogger(__name__)
_tickets = itertools.count()

#: tags that tell a data set's tensors apart, beside those its owner gives
IMAGES, VIEW, LABELS = "#images", "#view", "#labels"


class _Held(NamedTuple):
    """What a hospital knows of a data set beside its tensors; ``views``: of the images, but the first."""

    images: int
    labels: int
    views: Tuple[int, ...]
    tags: Tuple[str, ...]
    description: str
    captions: Dict[str, Any]


class HospitalWorker(syft.VirtualWorker):
    """A PySyft worker that lets out nothing but the results of installed operations."""

    def __init__(self, hook: syft.TorchHook, id: str):
        super().__init__(hook, id=id)
        self.name = id.rpartition("/")[0]
        self.message_handlers.insert(0, _Gate(self))
        self.held: Dict[int, _Held] = {}
        self.operations: Dict[str, Operation] = {}
        self.refusals: List[str] = []
        self._desk: Dict[int, Any] = {}

    def deposit(self, arguments: Tuple[Any, ...]) -> int:
        """Leave arguments for a command; return the ticket to name in it."""
        ticket = next(_tickets)
        self._desk[ticket] = arguments
        return ticket

    def collect(self, ticket: int) -> Any:
        """Fetch what a command left under its ticket."""
        return self._desk.pop(ticket)

    def ask(self, operation: str, key: int, ticket: int) -> None:
        """Apply an installed operation to the data set whose images have the id ``key``."""
        arguments = self._desk.pop(ticket)
        if operation not in self.operations:
            hint = nearest(operation, self.operations) if self.operations else "none is installed"
            raise self.refuse(f"operation {operation!r}", hint)
        held = self.held[key]
        labels, *views = (
            self.object_store.get_obj(i).numpy() for i in (held.labels, held.images, *held.views)
        )
        dataset = LesionDataset.of_views(views, labels, **held.captions)
        self._desk[ticket] = self.operations[operation](dataset, *arguments)

    def refuse(self, what: str, why: str) -> DataAccessError:
        """Log a refusal and return the error to raise."""
        line = f"{self.name} refused {what}: {why}"
        self.refusals.append(line)
        _log.warning(line)
        return DataAccessError(line)


class _Gate:
    """The first of a hospital's message handlers: takes, and refuses, all that could carry data away."""

    _HARMLESS = (
        messages.SearchMessage,
        messages.GetShapeMessage,
        messages.IsNoneMessage,
        messages.ObjectMessage,
    )

    def __init__(self, worker: HospitalWorker):
        self._worker = weakref.proxy(worker)

    def supports(self, message: Any) -> bool:
        """Say whether the message is refused here; otherwise PySyft's own handlers get it."""
        asks = isinstance(message, messages.WorkerCommandMessage) and message.command_name == "ask"
        return not asks and not isinstance(message, self._HARMLESS)

    def handle(self, message: Any) -> None:
        """Refuse."""
        fetch = isinstance(message, messages.ObjectRequestMessage)
        what = "fetch of a tensor" if fetch else f"a {type(message).__name__}"
        raise self._worker.refuse(what, "data does not leave its hospital")


class PySyftPointer(Pointer):
    """A pointer to a data set at a hospital; ``images`` and ``labels`` are PySyft's own pointers."""

    def __init__(self, owner: PySyftWorker, images: Any, labels: Any, held: _Held):
        self._owner = owner
        self.images = images
        self.labels = labels
        self.location = owner.id
        self.tags = held.tags
        self.description = held.description

    def ask(self, operation: str, *arguments: Any) -> Any:
        worker = self._owner.syft_worker
        # PySyft's serialiser knows tensors, not tasks: in one process they wait at the worker's desk.
        ticket = worker.deposit(arguments)
        command = worker.create_worker_command_message(
            "ask", None, operation, self.images.id_at_location, ticket
        )
        torch_hook().local_worker.send_msg(command, location=worker)
        return worker.collect(ticket)

    def get(self) -> LesionDataset:
        raise self._owner.syft_worker.refuse(
            f"fetch of {' '.join(self.tags)}", "data does not leave its hospital"
        )

    def __repr__(self) -> str:
        return f"<pointer to {' '.join(self.tags)} at {self.location}: {self.description}>"


class PySyftWorker(Worker):
    """A hospital's machine. ``syft_worker`` is PySyft's."""

    def __init__(self, id: str):
        self.id = id
        self.syft_worker = add_worker(id, HospitalWorker)
        weakref.finalize(self, forget_worker, self.syft_worker)

    def load(self, dataset: LesionDataset, *, tags: Sequence[str], description: str) -> PySyftPointer:
        # PySyft serialises what it sends, so that here a hospital's images must fit into memory.
        images = self._send(np.asarray(dataset.images), (*tags, IMAGES), description)
        labels = self._send(dataset.labels, (*tags, LABELS), description)
        views = tuple(
            self._send(np.asarray(view), (*tags, VIEW), description).id_at_location
            for view in dataset.views[1:]
        )
        held = _Held(
            images.id_at_location,
            labels.id_at_location,
            views,
            tuple(tags),
            description,
            dataset.captions(),
        )
        self.syft_worker.held[held.images] = held
        return PySyftPointer(self, images, labels, held)

    def install(self, operations: Dict[str, Operation]) -> None:
        self.syft_worker.operations.update(operations)

    def search(self, *tags: str) -> List[Pointer]:
        images, labels = (
            {pointer.id_at_location: pointer for pointer in self._find((*tags, kind))}
            for kind in (IMAGES, LABELS)
        )
        return [
            PySyftPointer(self, images[held.images], labels[held.labels], held)
            for held in self.syft_worker.held.values()
            if held.images in images
        ]

    @property
    def refusals(self) -> Tuple[str, ...]:
        return tuple(self.syft_worker.refusals)

    def _send(self, array: Any, tags: Sequence[str], description: str) -> Any:
        torch_hook()
        tensor: Any = torch.from_numpy(array)  # PySyft adds methods to tensors
        return tensor.tag(*tags).describe(description).send(self.syft_worker, garbage_collect_data=False)

    def _find(self, tags: Sequence[str]) -> List[Any]:
        """Return PySyft's pointers to the tensors that carry all of ``tags``."""
        found = torch_hook().local_worker.request_search(list(tags), location=self.syft_worker)
        # PySyft starts anew after a tag that nothing carries, so that it finds too much.
        return [pointer for pointer in found if set(tags) <= set(pointer.tags)]

    def __repr__(self) -> str:
        return f"<PySyft worker {self.id}>"


class PySyftNetwork(Network):
    """Hospitals, and where a protection has them aggregating parties, on PySyft's virtual workers."""

    description = f"pysyft {VERSION}"

    def __init__(self) -> None:
        self._workers: Dict[str, PySyftWorker] = {}

    def worker(self, name: str) -> PySyftWorker:
        if name not in self._workers:
            self._workers[name] = PySyftWorker(name)
        return self._workers[name]

    def search(self, *tags: str) -> Dict[str, List[Pointer]]:
        found = {name: worker.search(*tags) for name, worker in self._workers.items()}
        return {name: pointers for name, pointers in found.items() if pointers}

    def host(self, parties: Mapping[str, AggregatorSide]) -> Dict[str, AggregatorSide]:
        from skinfl.openmined.parties import hosted

        return {name: hosted(party) for name, party in parties.items()}

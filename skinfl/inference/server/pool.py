"""The server's workers: which process holds whose keys, and what happens when one is lost.

A client's keys live in one process, and its images go there. The pool holds at most so many clients' keys,
forgets those least recently used, and those not used for a while. A client whose keys are gone is told so
and sends them again.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import secrets
import subprocess
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Dict, List, NamedTuple, Sequence

import msgpack

from skinfl.errors import ProtectionError
from skinfl.inference.messages import Refused
from skinfl.inference.processes import python
from skinfl.inference.server.worker import Job, Reply

#: seconds that a new process may take to be ready
START_TIMEOUT = 120.0


class Limits(NamedTuple):
    """What the server grants: sizes of queues and caches, and times in seconds."""

    clients: int = 16
    key_lifetime: float = 3600.0
    compute_timeout: float = 30.0
    pending: int = 64


class _Lost(Exception):
    """The process died or did not answer in time."""


class Worker:
    """A process and the thread that talks to it, one request at a time."""

    def __init__(self, job: Job):
        self._job = job
        self._thread = ThreadPoolExecutor(1)
        self.pending = 0
        self.generation = 0
        self.rss = 0
        self._start()

    def _start(self) -> None:
        ours, theirs = multiprocessing.Pipe()
        self._process = subprocess.Popen(
            **python(f"from skinfl.inference.server.worker import main; main({theirs.fileno()})"),
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
        )
        theirs.close()
        self._connection = ours
        try:
            ours.send(self._job)
            ready = ours.poll(START_TIMEOUT) and ours.recv_bytes() == b"ready"
        except (EOFError, OSError):
            ready = False
        if not ready:
            self._stop()
            raise ProtectionError("a process to evaluate images did not start: see its output above")

    def _call(self, timeout: float, request: Sequence[Any]) -> Reply:
        try:
            self._connection.send(request)
            if not self._connection.poll(timeout):
                raise _Lost(f"no answer within {timeout:g} s")
            return Reply(*msgpack.unpackb(self._connection.recv_bytes(), raw=False))
        except (OSError, EOFError, _Lost) as error:
            self._stop()
            self.generation += 1
            self._start()
            raise _Lost(str(error) or "the worker process ended") from error

    async def call(self, timeout: float, *request: Any) -> Reply:
        """Send a request and return the reply; raises :class:`_Lost` after starting a new process."""
        self.pending += 1
        try:
            loop = asyncio.get_running_loop()
            reply = await loop.run_in_executor(self._thread, self._call, timeout, request)
        finally:
            self.pending -= 1
        self.rss = reply.rss
        return reply

    def _stop(self) -> None:
        self._connection.close()
        try:
            self._process.wait(1.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def close(self) -> None:
        """End the process."""
        self._thread.shutdown()
        self._stop()


class _Registered(NamedTuple):
    worker: Worker
    generation: int
    used: float


class Pool:
    """Workers of one kind behind one door."""

    def __init__(self, job: Job, workers: int, limits: Limits):
        self._limits = limits
        self.workers: List[Worker] = [Worker(job) for _ in range(workers)]
        self._registered: OrderedDict[str, _Registered] = OrderedDict()

    async def add_keys(self, galois: bytes, relin: bytes) -> str:
        """Give a client's keys to the worker with the fewest; return their id."""
        await self._forget_stale()
        while len(self._registered) >= self._limits.clients:
            await self._forget(next(iter(self._registered)))
        held = self._held()
        worker = min(self.workers, key=lambda w: (held[id(w)], w.pending))
        # Nobody else can name these keys, and so neither use them nor keep them alive.
        name = secrets.token_hex(16)
        # Counted before they are loaded, so that keys arriving at once do not exceed the limit.
        self._registered[name] = _Registered(worker, worker.generation, time.monotonic())
        try:
            await self._ask(worker, "add", name, galois, relin)
        except Refused:
            self._registered.pop(name, None)
            raise
        self._touch(name)
        return name

    async def infer(self, name: str, image: Sequence[bytes]) -> bytes:
        """Evaluate one image under the keys ``name``."""
        await self._forget_stale()
        registered = self._registered.get(name)
        if registered is None:
            raise Refused(
                "client", 404, "unknown-keys", "its keys are not held here, or no longer: send them again"
            )
        self._touch(name)
        return await self._ask(registered.worker, "image", name, image)

    async def infer_batch(self, pixels: Sequence[bytes]) -> List[bytes]:
        """Evaluate a batch."""
        return await self._ask(min(self.workers, key=lambda w: w.pending), "batch", pixels)

    @property
    def clients(self) -> int:
        """How many clients' keys are held."""
        return len(self._registered)

    def close(self) -> None:
        """End all processes."""
        for worker in self.workers:
            worker.close()

    def _touch(self, name: str) -> None:
        """Note that keys are in use, unless they went meanwhile."""
        if name in self._registered:
            self._registered[name] = self._registered[name]._replace(used=time.monotonic())
            self._registered.move_to_end(name)

    def _held(self) -> Dict[int, int]:
        held = {id(worker): 0 for worker in self.workers}
        for registered in self._registered.values():
            held[id(registered.worker)] += 1
        return held

    async def _ask(self, worker: Worker, *request: Any) -> Any:
        if worker.pending >= self._limits.pending:
            raise Refused("client", 503, "busy", "too many requests are waiting: try again in a second")
        try:
            reply = await worker.call(self._limits.compute_timeout, *request)
        except (_Lost, ProtectionError) as error:
            raise Refused("client", 504, "lost", f"its evaluation was given up: {error}") from error
        if reply.code:
            raise Refused("client", 404 if reply.code == "unknown-keys" else 400, reply.code, reply.value)
        return reply.value

    async def _forget_stale(self) -> None:
        oldest = time.monotonic() - self._limits.key_lifetime
        for name, registered in list(self._registered.items()):
            if registered.used < oldest or registered.generation != registered.worker.generation:
                await self._forget(name)

    async def _forget(self, name: str) -> None:
        registered = self._registered.pop(name, None)
        if registered is not None and registered.generation == registered.worker.generation:
            await registered.worker.call(self._limits.compute_timeout, "drop", name)

"""A process that evaluates encrypted images, and nothing else.

SEAL's binding holds Python's global lock, so each core gets a process of its own. What strangers sent is
read here and only here: a limit on memory bounds what a malicious message can take, and if SEAL should
crash, the server starts a new process.
"""

from __future__ import annotations

import os
import signal
import time
from multiprocessing.connection import Connection
from typing import Any, Dict, NamedTuple, Tuple

import msgpack

from skinfl.errors import ProtectionError
from skinfl.inference.circuit.network import Bounds, Collapsed
from skinfl.inference.ckks import Keys

#: bytes beyond clients' keys and what the process has at its start
SPARE_BYTES = {"latency": 512 << 20, "batch": 6 << 30}


class Job(NamedTuple):
    """What a worker is made of; ``kind`` is ``"latency"`` or ``"batch"``, ``keys`` how many it may hold."""

    kind: str
    network: Collapsed
    bounds: Bounds
    keys: int


class Reply(NamedTuple):
    """A result, or why there is none.

    ``code`` is empty for a result, else ``"invalid"`` or ``"unknown-keys"``, and ``value`` the reason;
    ``rss`` is the process's memory in bytes. It travels as msgpack: whoever takes over a worker by what it
    reads must not get further.
    """

    code: str
    value: Any
    seconds: float
    rss: int


def main(descriptor: int) -> None:
    """Run as a process of its own, whose job comes over the connection ``descriptor``."""
    connection = Connection(descriptor)
    run(connection, connection.recv())


def run(connection: Any, job: Job) -> None:
    """Say ``ready``, then answer requests ``(operation, *arguments)`` until ``connection`` closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the server's to handle
    keys: Dict[str, Keys] = {}
    circuit = make_circuit(job)
    _limit_memory(job, circuit.spec)
    connection.send_bytes(b"ready")
    while True:
        try:
            operation, *arguments = connection.recv()
        except EOFError:
            return
        start = time.perf_counter()
        try:
            code, value = "", _perform(circuit, keys, operation, *arguments)
        except _UnknownKeys:
            code, value = "unknown-keys", "its keys are not held here, or no longer: send them again"
        except (ProtectionError, MemoryError) as error:
            code, value = "invalid", str(error) or "it takes too much memory"
        reply = Reply(code, value, time.perf_counter() - start, _memory()[1])
        connection.send_bytes(msgpack.packb(reply, use_bin_type=True))


class _UnknownKeys(Exception):
    """A request named keys that were dropped, or lost with an earlier process."""


def make_circuit(job: Job) -> Any:
    """Return the circuit a worker evaluates; raises ModelError for a network that does not fit."""
    if job.kind == "batch":
        from skinfl.inference.circuit.batch import BatchCircuit

        return BatchCircuit(job.network, job.bounds)
    from skinfl.inference.circuit.latency import LatencyCircuit

    return LatencyCircuit(job.network, job.bounds)


def _perform(circuit: Any, keys: Dict[str, Keys], operation: str, *arguments: Any) -> Any:
    if operation == "add":
        name, galois, relin = arguments
        keys[name] = circuit.keys(galois, relin)
        return None
    if operation == "drop":
        keys.pop(arguments[0], None)
        return None
    if operation == "image":
        if arguments[0] not in keys:
            raise _UnknownKeys
        return circuit.infer(arguments[1], keys[arguments[0]])
    return circuit.infer(arguments[0])


def _memory() -> Tuple[int, int]:
    """Return the bytes of address space and of resident memory; zeros where the system does not say."""
    try:
        with open("/proc/self/statm") as file:
            pages = [int(field) for field in file.read().split()[:2]]
    except OSError:  # pragma: no cover
        return 0, 0
    size = os.sysconf("SC_PAGE_SIZE")
    return pages[0] * size, pages[1] * size


def _limit_memory(job: Job, spec: Any) -> None:
    try:
        import resource
    except ImportError:  # pragma: no cover
        return
    present = _memory()[0]
    if present:
        limit = present + job.keys * getattr(spec, "key_bytes", 0) + SPARE_BYTES[job.kind]
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

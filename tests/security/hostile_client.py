"""Clients that do what they like with a real server, ``skinfl serve`` in a process of its own.

What these tests need of the package's insides is imported here and taken from here: when modules move, this
is the place to adapt.
"""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, List, NamedTuple, Tuple

import numpy as np
import torch
import zstandard

from skinfl.errors import ProtectionError
from skinfl.inference.circuit.latency import LatencyCircuit
from skinfl.inference.circuit.prepare import prepare
from skinfl.inference.ckks import Keys, read
from skinfl.inference.clinic.client import LatencyClient
from skinfl.inference.info import from_json
from skinfl.inference.messages import pack, unpack
from skinfl.models import build_model, load_model, save_model
from skinfl.protection.he.seal import sealapi

__all__ = [
    "Keys",
    "LatencyCircuit",
    "LatencyClient",
    "ProtectionError",
    "Server",
    "Stranger",
    "compressed",
    "load_model",
    "pack",
    "prepare",
    "read",
    "sealapi",
    "small_model",
    "uncompressed",
    "with_parts",
]

ROOT = Path(__file__).resolve().parents[2]
#: seconds that an upload may take
BODY_TIMEOUT = 5.0
#: clients whose keys the server holds
CLIENTS = 2
_SEAL_HEADER = 16
_COMPRESSION, _ZSTANDARD = 5, 2


def small_model(path: Path) -> Path:
    """Write the smallest network that the server serves."""
    torch.manual_seed(5)
    description = {"in_channels": 1, "image_size": 8, "classes": 3, "doconv": True}
    model = build_model("skinnet", **description)
    names = ("akiec", "bcc", "mel")
    save_model(
        path,
        model,
        name="skinnet",
        class_names=names,
        normalisation_mean=[0.5],
        normalisation_std=[0.25],
        **description,
    )
    return path


class Server:
    """A running server with one worker."""

    def __init__(self, model: Path):
        import httpx

        self.http = httpx.Client(timeout=60)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        command = [sys.executable, "-c", "from skinfl.cli import main; main()", "serve", "--workers", "1"]
        options = {
            "--model": model,
            "--port": self.port,
            "--clients": CLIENTS,
            "--body-timeout": BODY_TIMEOUT,
        }
        self._process = subprocess.Popen(
            [*command, *(str(word) for pair in options.items() for word in pair)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 120
        while not self.is_well():
            assert self._process.poll() is None and time.monotonic() < deadline, "the server did not start"
            time.sleep(0.1)
        self.spec = from_json(self.http.get(self.url + "/v1/model").json()).latency

    def stop(self) -> None:
        """End the server."""
        self.http.close()
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def is_well(self) -> bool:
        """Return whether somebody else is served."""
        import httpx

        try:
            return httpx.get(self.url + "/health", timeout=5).status_code == 200
        except httpx.HTTPError:
            return False

    def post(self, path: str, message: bytes) -> Any:
        """Send one request and return the response."""
        return self.http.post(self.url + path, content=message)

    def connect(self) -> socket.socket:
        """Return a bare connection."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=2)

    def restarts(self) -> int:
        """Return how often the worker was replaced."""
        lines = self.http.get(self.url + "/metrics").text.splitlines()
        return sum(int(line.split()[-1]) for line in lines if line.startswith("skinfl_worker_restarts{"))

    def memory(self, peak: bool = False) -> int:
        """Return the server's resident bytes, now or at most since :meth:`forget_peak`."""
        field = "VmHWM:" if peak else "VmRSS:"
        with open(f"/proc/{self._process.pid}/status") as file:
            line = next(line for line in file if line.startswith(field))
        return int(line.split()[1]) << 10

    def forget_peak(self) -> None:
        """Let the peak begin at what is in use now."""
        Path(f"/proc/{self._process.pid}/clear_refs").write_text("5")


class Stranger(NamedTuple):
    """A client with keys of its own."""

    server: Server
    galois: bytes
    relin: bytes
    image: List[bytes]

    @classmethod
    def at(cls, server: Server) -> Stranger:
        """Make keys and encrypt an image for a server."""
        client = LatencyClient(server.spec)
        galois, relin = client.evaluation_keys()
        spec = server.spec
        return cls(
            server,
            galois,
            relin,
            client.encrypt(np.zeros((spec.channels, spec.image_size, spec.image_size))),
        )

    def register(self) -> Tuple[int, str]:
        """Send the keys; return the status, and their name where they were taken."""
        message = pack("keys", self.server.spec.fingerprint, galois=self.galois, relin=self.relin)
        answer = self.server.post("/v1/keys", message)
        if answer.status_code != 200:
            return answer.status_code, answer.json()["detail"]
        return 200, unpack(answer.content, "registered", self.server.spec.fingerprint, "server")["keys"]

    def use(self, name: str) -> int:
        """Have the image evaluated under keys; return the status."""
        message = pack("image", self.server.spec.fingerprint, keys=name, image=self.image)
        return self.server.post("/v1/images", message).status_code


def uncompressed(blob: bytes) -> bytes:
    """Return what follows a SEAL object's header."""
    assert blob[_COMPRESSION] == _ZSTANDARD
    return zstandard.ZstdDecompressor().decompressobj().decompress(blob[_SEAL_HEADER:])


def compressed(content: bytes, like: bytes) -> bytes:
    """Return a SEAL object with this content and a header as ``like`` has."""
    packed = zstandard.ZstdCompressor(level=1).compress(content)
    header = bytearray(like[:_SEAL_HEADER])
    header[8:] = struct.pack("<Q", _SEAL_HEADER + len(packed))
    return bytes(header) + packed


def with_parts(keys: bytes, number: int) -> bytes:
    """Return key-switching keys of which the first has ``number`` parts, fewer than are needed.

    SEAL writes the parameters' id (32 bytes), the number of keys, and for each key the number of its parts
    and then the parts, each with a header that has its size at byte 8.
    """
    content = uncompressed(keys)
    (count,) = struct.unpack_from("<Q", content, 32)
    position, found, cut = 40, [content[:40]], False
    for _ in range(count):
        (parts,) = struct.unpack_from("<Q", content, position)
        position += 8
        pieces = []
        for _ in range(parts):
            (size,) = struct.unpack_from("<Q", content, position + 8)
            pieces.append(content[position : position + size])
            position += size
        if pieces and not cut:
            assert number < len(pieces)
            pieces, cut = pieces[:number], True
        found += [struct.pack("<Q", len(pieces)), *pieces]
    assert position == len(content)
    return compressed(b"".join(found), keys)

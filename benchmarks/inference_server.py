"""Send requests of many clients at once to a server of its own, and see what is lost, mixed up or leaked.

    python benchmarks/inference_server.py --model FILE [--clients 8] [--requests 1000] [--json FILE]

The server is ``skinfl serve`` in a process of its own. Each client is a thread with keys of its own; each
image differs, and each decrypted answer is compared with the plain network's for that image: an answer is
mixed up when it is off by more than 1% of the largest logit. Memory is that of the worker processes after
a tenth of the requests and at the end.
"""

from __future__ import annotations

import argparse
import json
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Dict, List

import httpx
import numpy as np

from skinfl.console import fail
from skinfl.errors import SkinflError
from skinfl.files import write_json
from skinfl.inference.circuit.prepare import prepare
from skinfl.inference.clinic.remote import RemoteModel
from skinfl.models import load_model
from skinfl.seeds import numpy_rng


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_until_healthy(url: str, server: subprocess.Popen, seconds: float) -> None:
    deadline = time.time() + seconds
    while time.time() < deadline and server.poll() is None:
        try:
            if httpx.get(url + "/health").status_code == 200:
                return
        except httpx.HTTPError:
            time.sleep(0.2)
    raise SystemExit("the server did not start")


def worker_memory(url: str) -> int:
    lines = httpx.get(url + "/metrics").text.splitlines()
    return sum(int(line.rsplit(" ", 1)[1]) for line in lines if line.startswith("skinfl_worker_rss_bytes{"))


class Load:
    """Clients that share a list of images and note what became of each."""

    def __init__(self, url: str, images: np.ndarray, expected: np.ndarray):
        self.url, self.images, self.expected = url, images, expected
        self.seconds: List[float] = []
        self.errors: List[str] = []
        self.differences: List[float] = []
        self.memory_early = 0
        self._lock = threading.Lock()

    def run(self, client: int, clients: int) -> None:
        remote = RemoteModel(self.url)
        for i in range(client, len(self.images), clients):
            start = time.perf_counter()
            try:
                logits = remote.logits(self.images[i : i + 1])[0]
            except SkinflError as error:
                with self._lock:
                    self.errors.append(str(error))
                continue
            with self._lock:
                self.seconds.append(time.perf_counter() - start)
                self.differences.append(float(np.abs(logits - self.expected[i]).max()))
                if len(self.seconds) == len(self.images) // 10:
                    self.memory_early = worker_memory(self.url)
        remote.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="model file to serve")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    arguments = parser.parse_args()

    network = prepare(load_model(arguments.model)).network
    shape = (arguments.requests, network.channels, network.image_size, network.image_size)
    images = numpy_rng(0, "server benchmark").normal(size=shape)
    expected = network.logits(images)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-c", "from skinfl.cli import main; main()"]
    server = subprocess.Popen([*command, "serve", "--model", str(arguments.model), "--port", str(port)])
    try:
        wait_until_healthy(url, server, 300)
        load = Load(url, images, expected)
        start = time.perf_counter()
        with ThreadPoolExecutor(arguments.clients) as pool:
            list(pool.map(lambda client: load.run(client, arguments.clients), range(arguments.clients)))
        seconds = time.perf_counter() - start
        memory = worker_memory(url)
    finally:
        server.terminate()
        server.wait()
    tolerance = 0.01 * float(np.abs(expected).max())
    result: Dict[str, Any] = {
        "clients": arguments.clients,
        "requests": arguments.requests,
        "answered": len(load.seconds),
        "lost": arguments.requests - len(load.seconds),
        "mixed_up": sum(difference > tolerance for difference in load.differences),
        "errors": sorted(set(load.errors)),
        "seconds": seconds,
        "requests_per_second": len(load.seconds) / seconds,
        "latency_ms_median": 1e3 * float(np.median(load.seconds)),
        "latency_ms_99": 1e3 * float(np.percentile(load.seconds, 99)),
        "worker_rss_bytes_early": load.memory_early,
        "worker_rss_bytes_end": memory,
    }
    print(json.dumps(result, indent=2))
    if arguments.json:
        write_json(arguments.json, result)


if __name__ == "__main__":
    try:
        main()
    except SkinflError as error:
        fail(error)

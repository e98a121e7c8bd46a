"""A hospital's starter of processes: each message gets a process of its own, forked from a warm one.

Flower starts a new interpreter for each message, which loads Flower and torch anew: some five seconds of
computing. Here a process that has loaded them, and nothing of the app, waits; each message is handled by
a fork of it, which ends with the message. So nothing passes from one message to the next, as before.

Started by the SuperNode in place of ``flower-superexec``, with the same arguments.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import socket
import subprocess
import sys
from typing import Any, List

#: what the app needs and no app brings with it
PRELOADED = (
    "flwr.supernode.runtime.run_clientapp",
    "flwr.clientapp",
    "httpcore",
    "cryptography.hazmat.primitives.asymmetric.x25519",
    "msgpack",
    "sklearn.metrics",
    "torchvision.transforms",
)


def serve_forks(requests: socket.socket) -> None:
    """Load what is slow, then fork for each line that arrives; ends when the other side does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the forks
    for name in PRELOADED:
        importlib.import_module(name)
    with requests.makefile("r", encoding="utf-8") as lines:
        for line in lines:
            if os.fork() == 0:
                requests.close()
                _become_client_app(json.loads(line))


def _become_client_app(argv: List[str]) -> None:
    """Run Flower's client app process in this fork; does not return."""
    for number in (signal.SIGINT, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for name in [m for m in sys.modules if m == "skinfl" or m.startswith("skinfl.")]:
        del sys.modules[name]  # the app's code comes from its bundle
    from flwr.supernode.cli import flwr_clientapp

    status = 1
    try:
        sys.argv = argv
        flwr_clientapp()
        status = 0
    except SystemExit as leaving:
        status = leaving.code if isinstance(leaving.code, int) else 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def main() -> None:
    """Become the SuperExec; client apps are forked, all else is started as Flower does."""
    here, there = socket.socketpair()
    if os.fork() == 0:
        here.close()
        serve_forks(there)
        os._exit(0)
    there.close()
    from flwr.supercore.cli import flower_superexec
    from flwr.supercore.superexec.executor import subprocess_executor

    subprocess_executor.subprocess = _Forks(here)
    flower_superexec()


class _Forks:
    """Stands in for the module ``subprocess`` in Flower's executor, which uses these two names of it."""

    DEVNULL = subprocess.DEVNULL

    def __init__(self, requests: socket.socket):
        self._requests = requests

    def Popen(self, arguments: List[str], **options: Any) -> Any:
        """Ask for a fork where a client app is to start."""
        if arguments[0] != "flwr-clientapp":
            return subprocess.Popen(arguments, **options)
        self._requests.sendall(json.dumps(arguments).encode() + b"\n")
        return None


if __name__ == "__main__":
    main()

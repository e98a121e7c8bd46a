"""Start a coordinator's SuperLink: ``python -m skinfl.flower.superlink --folder DIR``.

This is ``flower-superlink`` with one addition. Flower serves three interfaces on one port: Fleet, for
hospitals, where each request is signed by the node's key; Control, through which runs are started and
nodes registered; and Runtime, for its own helpers. The last two ask for no credentials, so whoever
reaches the port could register a node or start code. Here they answer this machine only.
"""

from __future__ import annotations

import argparse
import ipaddress
import os
import sys
from pathlib import Path
from typing import Any, Callable, List, Optional

from skinfl.console import fail
from skinfl.errors import SkinflError
from skinfl.flower.environment import COORDINATOR_VARIABLE, prepare, stop_with
from skinfl.flower.provisioning.folders import CONNECTION, CoordinatorFolder, read_coordinator

#: what a hospital needs; everything else is for the coordinator's own machine
PUBLIC_PATHS = ("/v1/fleet/", "/health")


class Fence:
    """ASGI middleware: other machines reach the paths of ``PUBLIC_PATHS`` only."""

    def __init__(self, app: Callable):
        self._app = app

    async def __call__(self, scope: dict, receive: Callable, send: Callable) -> None:
        """Answer 403 to another machine's request for an inner path."""
        if scope["type"] == "lifespan" or scope["path"].startswith(PUBLIC_PATHS) or _is_local(scope):
            await self._app(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 403, "headers": []})
        await send({"type": "http.response.body", "body": b"only from the coordinator's machine\n"})


def _is_local(scope: dict) -> bool:
    """Whether the request comes from this machine: from loopback, or from the address it arrived at."""
    client, server = scope.get("client"), scope.get("server")
    if not client:
        return False
    try:
        address = ipaddress.ip_address(client[0])
    except ValueError:
        return False
    return address.is_loopback or bool(server and client[0] == server[0])


def arguments(folder: CoordinatorFolder, listen: str, port: int, simulation: bool = False) -> List[str]:
    """Return the command line of ``flower-superlink``."""
    return [
        "flower-superlink",
        *("--host", listen),
        *("--port", str(port)),
        *("--ssl-ca-certfile", str(folder.authority)),
        *("--ssl-certfile", str(folder.certificate)),
        *("--ssl-keyfile", str(folder.key)),
        *("--database", str(folder.database)),
        "--disable-runtime-dependency-installation",
        "--simulation" if simulation else "--enable-supernode-auth",
    ]


def write_connection(folder: CoordinatorFolder, port: int) -> None:
    """Tell ``flwr`` on this machine where the SuperLink is; it wants an absolute path to the authority."""
    authority = str(folder.authority).replace("\\", "\\\\").replace('"', '\\"')
    folder.flower_home.mkdir(parents=True, exist_ok=True)
    (folder.flower_home / "config.toml").write_text(
        f'[superlink]\ndefault = "{CONNECTION}"\n\n[superlink.{CONNECTION}]\n'
        f'address = "127.0.0.1:{port}"\nroot-certificates = "{authority}"\n',
        encoding="utf-8",
    )


def serve(
    folder: CoordinatorFolder, listen: str, port: int, parent: int = 0, simulation: bool = False
) -> None:
    """Become the SuperLink; does not return."""
    prepare(folder.flower_home)
    write_connection(folder, port)
    os.environ[COORDINATOR_VARIABLE] = str(folder.path)
    from flwr.superlink import main as superlink
    from flwr.superlink.cli.flower_superlink import flower_superlink

    create_app = superlink.create_app

    def create_fenced_app(*args: Any, **kwargs: Any) -> Any:
        app = create_app(*args, **kwargs)
        app.add_middleware(Fence)
        return app

    superlink.create_app = create_fenced_app
    stop_with(parent)
    sys.argv = arguments(folder, listen, port, simulation)
    flower_superlink()


def main(argv: Optional[List[str]] = None) -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(prog="python -m skinfl.flower.superlink", description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="the coordinator's folder")
    parser.add_argument("--listen", help="address to listen on, instead of coordinator.toml's")
    parser.add_argument("--port", type=int, help="port, instead of coordinator.toml's")
    parser.add_argument("--parent", type=int, default=0, help="end when this process does")
    parser.add_argument("--simulation", action="store_true", help="run all hospitals here, in one engine")
    given = parser.parse_args(argv)
    try:
        folder = read_coordinator(given.folder)
        listen, port = given.listen or folder.listen, given.port or folder.port
        serve(folder, listen, port, given.parent, given.simulation)
    except SkinflError as error:
        fail(error)


if __name__ == "__main__":
    main()

"""Start a coordinator's SuperLink: ``python -m skinfl.flower.superlink --folder DIR``.

This is ``flower-superlink`` with one addition. Flower serves three interfaces on one port: Fleet, for
hospitals, where each request is signed by the node's key; Control, through which runs are started and
nodes registered; and Runtime, for its own helpers. The last two ask for no credentials, so whoever
reaches the port could register a node or start code. Here they answer this machine only. Whatever server is
started in this process proves that before it listens, and is not started otherwise.
"""

from __future__ import annotations

import argparse
import ipaddress
import os
import sys
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Tuple

from skinfl.console import fail
from skinfl.errors import SettingsError, SkinflError
from skinfl.flower.environment import COORDINATOR_VARIABLE, prepare, quiet, stop_with
from skinfl.flower.provisioning.folders import CONNECTION, CoordinatorFolder, read_coordinator

#: what a hospital needs; everything else is for the coordinator's own machine
PUBLIC_PATHS = ("/v1/fleet/", "/health")
#: what the proof asks for as another machine: some of what must be refused, and what must be answered
INNER_PROBES = ("/v1/control/start-run", "/v1/control/register-node", "/v1/runtime/acquire-task", "/docs")
PUBLIC_PROBE = "/v1/fleet/pull-messages"
#: an address that is nobody's (RFC 5737)
_STRANGER = ("192.0.2.1", 50000)
_REFUSAL = b"only from the coordinator's machine\n"


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
        await send({"type": "http.response.body", "body": _REFUSAL})


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


async def prove_fence(app: Callable) -> None:
    """Ask a server's app, before it listens, as another machine would.

    Raises :class:`~skinfl.errors.SettingsError` unless the inner paths are refused and the hospitals' is not.
    """
    for path in INNER_PROBES:
        if await _asked(app, path) != (403, _REFUSAL):
            raise SettingsError(
                f"the SuperLink would let other machines reach {path}: nothing was started; this release of "
                "Flower cannot be fenced, install one that docs/deployment.md names"
            )
    status, body = await _asked(app, PUBLIC_PROBE)
    if status in (0, 404) or body == _REFUSAL:
        raise SettingsError(
            f"the SuperLink does not answer hospitals at {PUBLIC_PROBE}: nothing was started; install a "
            "release of Flower that docs/deployment.md names"
        )


async def _asked(app: Callable, path: str) -> Tuple[int, bytes]:
    """Return status and body of an app's answer to an empty request from another machine; 0 for none."""
    sent: List[Dict[str, Any]] = []

    async def receive() -> Dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "https",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [],
        "client": _STRANGER,
        "server": ("192.0.2.2", 8000),
    }
    with quiet():
        try:
            await app(scope, receive, send)
        except Exception:  # whatever it dies of, it has answered or not
            pass
    status = next((message["status"] for message in sent if "status" in message), 0)
    return status, b"".join(message.get("body", b"") for message in sent)


def fence(superlink: Any, uvicorn: Any) -> None:
    """Put a :class:`Fence` around the app that ``superlink`` makes, and let no other be served.

    ``superlink`` is Flower's module, ``uvicorn`` the server's. Raises
    :class:`~skinfl.errors.SettingsError` where they lack the places that this needs.
    """
    create_app = getattr(superlink, "create_app", None)
    serve = getattr(getattr(uvicorn, "Server", None), "serve", None)
    if create_app is None or serve is None:
        raise SettingsError("this Flower cannot be fenced: install a release that docs/deployment.md names")

    def create_fenced_app(*args: Any, **kwargs: Any) -> Any:
        app = create_app(*args, **kwargs)
        app.add_middleware(Fence)
        return app

    async def serve_proved(server: Any, *args: Any, **kwargs: Any) -> None:
        await prove_fence(server.config.app)
        await serve(server, *args, **kwargs)

    superlink.create_app = create_fenced_app
    uvicorn.Server.serve = serve_proved


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
    import uvicorn
    from flwr.superlink import main as superlink
    from flwr.superlink.cli.flower_superlink import flower_superlink

    fence(superlink, uvicorn)
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

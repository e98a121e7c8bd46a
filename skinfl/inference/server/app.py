"""The HTTP server: what a clinic's program talks to.

============================ ===================================================================
GET  /v1/model               names, preprocessing and encryption parameters, as JSON
POST /v1/keys                a client's evaluation keys; answers with their id
POST /v1/images              one encrypted image; answers with the encrypted logits
POST /v1/batches             many encrypted images, where the server takes batches
GET  /health, /metrics       for whoever runs it; /docs and /openapi.json describe the rest
============================ ===================================================================

Bodies are messages of :mod:`skinfl.inference.messages`. What is refused gets a 4xx status and JSON
``{"error": code, "detail": reason}``. For the trust model see :mod:`skinfl.inference.circuit.latency`; the
server does not know who its clients are: where that matters, put it behind a proxy that does.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
import time
from contextlib import asynccontextmanager
from typing import Any, AsyncIterator, Dict, List, Optional, Sequence, Tuple

from skinfl.errors import MissingExtra, SettingsError, is_missing
from skinfl.inference.circuit.prepare import Served
from skinfl.inference.info import to_json
from skinfl.inference.messages import MEDIA_TYPE, Refused, pack, unpack
from skinfl.inference.server.pool import Limits, Pool
from skinfl.inference.server.worker import Job
from skinfl.version import __version__

try:
    from fastapi import FastAPI, Request, Response
    from fastapi.responses import JSONResponse, PlainTextResponse
except ImportError as error:
    if not is_missing("fastapi", error):
        raise
    raise MissingExtra("fastapi", "serve", "serving encrypted diagnosis") from error

#: bytes of a message beside its ciphertexts
_ENVELOPE = 1 << 16


def create_app(
    served: Served, *, workers: int = 1, limits: Limits = Limits(), body_timeout: float = 60.0
) -> FastAPI:
    """Return the application; its worker processes start and end with it.

    ``workers`` processes evaluate single images, one more takes batches where ``served.info.batch`` is
    set. A request's body must arrive within ``body_timeout`` seconds and is no larger than its kind can be.
    """
    info = served.info
    metrics = _Metrics()
    pools: Dict[str, Pool] = {}

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        job = Job("latency", served.network, served.bounds, limits.clients)
        pools["latency"] = Pool(job, workers, limits)
        if info.batch:
            # A batch takes a minute on one slow core, and its upload is a hundred megabytes.
            patient = limits._replace(compute_timeout=20 * limits.compute_timeout, pending=2)
            pools["batch"] = Pool(job._replace(kind="batch", keys=0), 1, patient)
        yield
        for pool in pools.values():
            pool.close()

    app = FastAPI(
        title="skinfl encrypted diagnosis",
        version=__version__,
        description="Classifies encrypted images of skin lesions. Research software, no medical device.",
        lifespan=lifespan,
    )

    @app.exception_handler(Refused)
    async def refuse(_: Request, error: Refused) -> JSONResponse:
        headers = {"Retry-After": "1"} if error.status == 503 else None
        return JSONResponse({"error": error.code, "detail": error.reason}, error.status, headers)

    @app.middleware("http")
    async def measure(request: Request, call_next: Any) -> Response:
        start = time.perf_counter()
        response = await call_next(request)
        route = request.scope.get("route")
        metrics.count(getattr(route, "path", "other"), response.status_code, time.perf_counter() - start)
        return response

    @app.get("/v1/model", summary="The model's public description")
    async def model() -> Dict[str, Any]:
        return to_json(info)

    @app.get("/health", summary="Whether the server can answer")
    async def health() -> Dict[str, str]:
        return {"status": "ok", "version": __version__}

    @app.get("/metrics", summary="Counters for Prometheus", response_class=PlainTextResponse)
    async def show_metrics() -> str:
        return metrics.text(pools)

    async def body(request: Request, largest: int) -> bytes:
        return await _read_body(request, largest + _ENVELOPE, body_timeout)

    @app.post("/v1/keys", summary="Register evaluation keys", **_describe("keys", "registered"))
    async def keys(request: Request) -> Response:
        message = await body(request, info.latency.key_bytes)
        content = unpack(message, "keys", info.latency.fingerprint, "client")
        name = await pools["latency"].add_keys(content["galois"], content["relin"])
        return _answer(pack("registered", info.latency.fingerprint, keys=name))

    @app.post("/v1/images", summary="Classify one encrypted image", **_describe("image", "answer"))
    async def images(request: Request) -> Response:
        message = await body(request, info.latency.image_bytes)
        content = unpack(message, "image", info.latency.fingerprint, "client")
        answer = await pools["latency"].infer(content["keys"], content["image"])
        return _answer(pack("answer", info.latency.fingerprint, answer=answer))

    @app.post("/v1/batches", summary="Classify many encrypted images", **_describe("batch", "answers"))
    async def batches(request: Request) -> Response:
        if info.batch is None:
            raise Refused("client", 404, "no-batches", "this server takes single images only")
        message = await body(request, info.batch.batch_bytes)
        content = unpack(message, "batch", info.batch.fingerprint, "client")
        answers = await pools["batch"].infer_batch(content["pixels"])
        return _answer(pack("answers", info.batch.fingerprint, answers=answers))

    return app


def _answer(message: bytes) -> Response:
    return Response(message, media_type=MEDIA_TYPE)


def _describe(request: str, response: str) -> Dict[str, Any]:
    """Return what OpenAPI says of an endpoint that takes and gives messages."""
    binary = {"schema": {"type": "string", "format": "binary"}}
    return {
        "responses": {
            200: {"description": f"a message of kind {response!r}", "content": {MEDIA_TYPE: binary}},
            400: {"description": "malformed, or ciphertexts that cannot be evaluated"},
            404: {"description": "unknown keys: send them again"},
            409: {"description": "another version or other parameters"},
            413: {"description": "too large"},
            503: {"description": "busy: try again"},
        },
        "openapi_extra": {
            "requestBody": {
                "description": f"a message of kind {request!r}: msgpack, see skinfl.inference.messages",
                "required": True,
                "content": {MEDIA_TYPE: binary},
            }
        },
        "response_class": Response,
    }


async def _read_body(request: Request, largest: int, timeout: float) -> bytes:
    """Return a request's body, unless it is too large or too slow."""
    too_large = Refused(
        "client", 413, "too-large", f"it is larger than {largest} bytes, more than its kind can be"
    )
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > largest:
        raise too_large

    async def collect() -> bytes:
        parts: List[bytes] = []
        size = 0
        async for part in request.stream():
            size += len(part)
            if size > largest:
                raise too_large
            parts.append(part)
        return b"".join(parts)

    try:
        return await asyncio.wait_for(collect(), timeout)
    except asyncio.TimeoutError:
        raise Refused("client", 408, "slow", f"it did not arrive within {timeout:g} s") from None


class _Metrics:
    """Counters in Prometheus's text format."""

    def __init__(self) -> None:
        self._start = time.time()
        self._requests: Dict[Tuple[str, int], int] = {}
        self._seconds: Dict[str, float] = {}

    def count(self, path: str, status: int, seconds: float) -> None:
        """Count one request."""
        self._requests[path, status] = self._requests.get((path, status), 0) + 1
        self._seconds[path] = self._seconds.get(path, 0.0) + seconds

    def text(self, pools: Dict[str, Pool]) -> str:
        """Return all counters and gauges."""
        lines = ["# TYPE skinfl_requests_total counter"]
        for (path, status), count in sorted(self._requests.items()):
            lines.append(f'skinfl_requests_total{{path="{path}",status="{status}"}} {count}')
        lines.append("# TYPE skinfl_request_seconds_total counter")
        for path, seconds in sorted(self._seconds.items()):
            lines.append(f'skinfl_request_seconds_total{{path="{path}"}} {seconds:.6f}')
        lines.append("# TYPE skinfl_clients gauge")
        lines.append(f"skinfl_clients {pools['latency'].clients}")
        for gauge, attribute in (("rss_bytes", "rss"), ("pending", "pending"), ("restarts", "generation")):
            lines.append(f"# TYPE skinfl_worker_{gauge} gauge")
            for kind, pool in pools.items():
                for i, worker in enumerate(pool.workers):
                    value = getattr(worker, attribute)
                    lines.append(f'skinfl_worker_{gauge}{{kind="{kind}",worker="{i}"}} {value}')
        lines.append("# TYPE skinfl_start_time_seconds gauge")
        lines.append(f"skinfl_start_time_seconds {self._start:.0f}")
        return "\n".join(lines) + "\n"


def bind(host: str, port: int) -> List[socket.socket]:
    """Return sockets bound to the addresses of ``host``, which may be several: localhost has two.

    Raises :class:`~skinfl.errors.SettingsError` where the port is taken, or no address is this machine's.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise SettingsError(f"--host {host} is no address of this machine: {error}") from None
    listeners: List[socket.socket] = []
    missing: Optional[OSError] = None
    try:
        for family, kind, protocol, _, address in dict.fromkeys(found):
            try:
                listeners.append(_bound(socket.socket(family, kind, protocol), address))
            except OSError as error:  # a name may have an address of a kind that this machine lacks
                if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                    raise
                missing = error
        if not listeners and missing is not None:
            raise missing
    except OSError as error:
        for listener in listeners:
            listener.close()
        raise _cannot_listen(host, port, error) from None
    return listeners


def _bound(listener: socket.socket, address: Any) -> socket.socket:
    try:
        if os.name == "posix":  # elsewhere it lets two servers share a port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if listener.family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(address)
    except OSError:
        listener.close()
        raise
    return listener


def _cannot_listen(host: str, port: int, error: OSError) -> SettingsError:
    return SettingsError(
        f"cannot listen on {host} port {port}: {error.strerror}; give another --port or --host"
    )


def check_certificate(certificate: str, key: str) -> None:
    """Refuse a certificate and key that TLS cannot use; raises :class:`SettingsError`."""
    for file in (certificate, key):
        try:
            with open(file, "rb"):
                pass
        except OSError as error:
            raise SettingsError(f"cannot read {file}: {error.strerror}") from None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # with a password nobody is asked for one: a server is started by scripts
        context.load_cert_chain(certificate, key, password="")
    except (ssl.SSLError, ValueError) as error:
        reason = getattr(error, "reason", None) or str(error)
        if reason == "KEY_VALUES_MISMATCH":
            raise SettingsError(
                f"{key} is not the key of {certificate}: give the two that belong together"
            ) from None
        raise SettingsError(
            f"{certificate} and {key} are no certificate and unencrypted key in PEM format ({reason})"
        ) from None


def listen(
    app: FastAPI,
    listeners: Sequence[socket.socket],
    tls: Optional[Tuple[str, str]] = None,
    *,
    connections: int = 256,
) -> None:
    """Serve on bound sockets until interrupted; with ``tls``, a certificate and its key, over https."""
    try:
        import uvicorn
    except ImportError as error:
        if not is_missing("uvicorn", error):
            raise
        raise MissingExtra("uvicorn", "serve", "serving encrypted diagnosis") from error
    certificate, key = tls or (None, None)
    host, port = listeners[0].getsockname()[:2]
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            host=host,
            port=port,
            ssl_certfile=certificate,
            ssl_keyfile=key,
            limit_concurrency=connections,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=10,
            log_level="info",
            access_log=False,
        )
    )
    try:
        server.run(sockets=list(listeners))
    except KeyboardInterrupt:
        pass
    except OSError as error:
        if error.errno != errno.EADDRINUSE:  # bound by two at once, and the other one was first to listen
            raise
        raise _cannot_listen(host, port, error) from None

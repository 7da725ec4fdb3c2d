"""build_app(settings): the only place where parts are joined into a server."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import lru_cache
from typing import Any

import anyio.to_thread
import msgspec
from litestar import HttpMethod, Litestar, MediaType, route
from litestar.exceptions import HTTPException
from litestar.response import Response
from litestar.response.base import ASGIResponse

from touchmark import wire
from touchmark.domain.about import VERSION
from touchmark.domain.errors import BusyError, InvalidFieldError, RouteNotFoundError, TouchmarkError
from touchmark.ops.health import check_health
from touchmark.ops.leftovers import drop_leftovers
from touchmark.ops.setup import open_registry
from touchmark.ops.upstreams import Importer
from touchmark.protocols.mlflow.operations import PATHS as MLFLOW_PATHS
from touchmark.protocols.mlflow.operations import PREFIXES as MLFLOW_PREFIXES
from touchmark.protocols.mlflow.routes import build_app as build_mlflow_app
from touchmark.protocols.native.errors import MEDIA_TYPE, URN, problem_response
from touchmark.protocols.native.routes import build_door as build_native_door
from touchmark.protocols.native.routes import build_router as build_native_router
from touchmark.protocols.oci.errors import error_response, route_error_response
from touchmark.protocols.oci.routes import build_router as build_oci_router
from touchmark.registry import Registry
from touchmark.server.logging import log_failure, log_request, log_warning, seconds_since
from touchmark.server.settings import Settings, is_loopback

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
# A host with or without a port (RFC 3986, 3.2.2), and nothing that some other reader would cut at another place.
_AUTHORITY = re.compile(r"(\[[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*\]|[A-Za-z0-9._-]+)(?::[0-9]*)?")
SWEEP_SECONDS = 3600
"""How often what broken uploads left is looked for."""
_READS = [HttpMethod.GET, HttpMethod.HEAD]  # balancers ask with either (RFC 9110, 9.3.2)
_CHANGING = frozenset({"POST", "PUT", "PATCH", "DELETE"})


def build_app(
    settings: Settings, registry: Registry | None = None, ending: asyncio.Event | None = None
) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    """Return the ASGI application of a server. It closes the registry when it ends.

    `registry` is one that is open; without it, the one of the settings' home is opened when the application starts. Once
    `ending` is set, /health answers 503 and every other answer is the last on its connection.
    """
    ending = ending or asyncio.Event()

    @asynccontextmanager
    async def lifespan(app: Litestar) -> AsyncIterator[None]:
        app.state.registry = registry or open_registry(settings.home, settings.database, artifacts=settings.artifacts)
        app.state.lanes = wire.Lanes()
        app.state.answers = wire.Answers()
        app.state.log_look = wire.look_at_log(app.state.registry, app.state.lanes)
        app.state.ending = ending
        app.state.max_upload_bytes = settings.max_upload_bytes
        app.state.public_url = settings.public_url
        app.state.presign = settings.presign
        app.state.allow_unsealed = settings.unsealed == "allow"
        app.state.webhook_rules = settings.webhook_rules
        is_over = asyncio.Event()
        sweeping = asyncio.create_task(_drop_leftovers(app.state.registry, is_over))
        app.state.imports = settings.imports
        importer = Importer(
            app.state.registry,
            settings.upstreams,
            settings.imports,
            refuses=settings.unsealed == "refuse",
            log=log_warning,
        )
        is_importing = bool(settings.upstreams or settings.import_from)
        app.state.importer = importer if is_importing else None
        if is_importing:
            importer.start()
        try:
            yield
        finally:
            importer.stop()
            is_over.set()
            await sweeping
            app.state.registry.close()

    app = Litestar(
        route_handlers=[greet, get_health, build_native_router(), build_oci_router()],
        lifespan=[lifespan],
        openapi_config=None,
        logging_config=None,  # one log of our own (server/logging.py); libraries stay quiet
        exception_handlers={Exception: _answer_failure},
        request_max_body_size=None,  # bodies are read in wire.py, each door with its own limit
    )
    return guard(open_doors(app), settings, ending)


async def _drop_leftovers(registry: Registry, is_over: asyncio.Event) -> None:
    """Drop what broken uploads left, now and every SWEEP_SECONDS, until the server ends."""
    while not is_over.is_set():
        try:
            await anyio.to_thread.run_sync(drop_leftovers, registry)
        except BusyError:
            pass  # the next time will do
        except Exception as error:  # noqa: BLE001 - nobody waits for this, and the server serves without it
            log_failure(error, "leftovers")
        with suppress(TimeoutError):
            await asyncio.wait_for(is_over.wait(), SWEEP_SECONDS)


def open_doors(app: Litestar) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    """Return the application with two doors before it, each a table of its own: the native one and MLflow's.

    MLflow's clients send a GET before nearly every write, so what stands before their routes is kept short.
    """
    native, mlflow = build_native_door(app, _answer_failure), build_mlflow_app(log_failure)

    async def opened(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope["app"] = scope["litestar_app"] = app
            path: str = scope["path"]
            if path.startswith("/api/v1/"):
                await native(scope, receive, send)  # type: ignore[arg-type]
                return
            if (path.startswith(MLFLOW_PREFIXES) and not path.startswith("/api/v1")) or path in MLFLOW_PATHS:
                await mlflow(scope, receive, send)
                return
        await app(scope, receive, send)  # type: ignore[arg-type]

    return opened


_GREETING = f"""Touchmark {VERSION}, a model registry.

/api/v1   the registry's own API (GET /api/v1/openapi.json describes it)
/api/2.0  what MLflow's clients speak: set MLFLOW_TRACKING_URI to this address
/v2       files and manifests, as OCI registries have them
/health   whether it is well

On the command line: touchmark --url ADDRESS ls
"""


@route("/", http_method=_READS, media_type=MediaType.TEXT, sync_to_thread=False)
def greet() -> str:
    """Say what answers here, to whoever opens the address in a browser."""
    return _GREETING


@route("/health", http_method=_READS, media_type=MediaType.JSON)
async def get_health(request: wire.AnyRequest) -> ASGIResponse:
    """Answer 200 once the database and the blob store answer, else 503, and so when the server is about to end."""
    if request.app.state.ending.is_set():
        return ASGIResponse(body=b'{"status":"ending"}', status_code=503, media_type="application/json")
    try:
        registry = wire.registry_of(request)
        # In a thread: a database or a bucket that does not answer must not hold the loop, and every request with it.
        schema = await wire.run(request, wire.Lane.READ, lambda: check_health(registry))
    except TouchmarkError:  # check_health has logged what is wrong
        return ASGIResponse(body=b'{"status":"unavailable"}', status_code=503, media_type="application/json")
    body = msgspec.json.encode({"status": "ok", "version": VERSION, "schema": schema})
    return ASGIResponse(body=body, media_type="application/json")


def _answer_failure(request: wire.AnyRequest, error: Exception) -> Response[bytes]:
    if isinstance(error, HTTPException):
        return _answer_framework_error(request, error)
    if not isinstance(error, TouchmarkError):
        log_failure(error, wire.request_id_of(request))  # the trace goes to the log, never to the caller
        error = TouchmarkError("Something went wrong on the server; its log says what.")
    return error_response(request, error) if _is_oci(request) else problem_response(request, error)


def _answer_framework_error(request: wire.AnyRequest, error: HTTPException) -> Response[bytes]:
    if error.status_code not in {404, 405}:
        return _answer_failure(request, InvalidFieldError(field="body", reason="it broke off or is framed wrongly"))
    found = RouteNotFoundError(method=request.method, path=request.scope["path"][:300])
    allow = (error.headers or {}).get("allow") or (error.headers or {}).get("Allow")
    if _is_oci(request):
        return route_error_response(request, found, is_method=error.status_code == 405, allow=allow)
    return problem_response(request, found, status=error.status_code, headers={"allow": allow} if allow else None)


def _is_oci(request: wire.AnyRequest) -> bool:
    path: str = request.scope["path"]
    return path == "/v2" or path.startswith("/v2/")


def guard(
    app: Callable[[Scope, Receive, Send], Awaitable[None]], settings: Settings, ending: asyncio.Event
) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    """Wrap the application: refuse foreign Host and Origin headers, name each request, log it when it ends.

    A page in a browser must not reach an open server by DNS rebinding or a cross-site request, so Host, and the Origin
    of anything that changes something, must be this machine.
    """

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        start = time.perf_counter()
        headers = join_headers(scope["headers"])
        request_id = wire.choose_request_id(headers.get(b"x-request-id"))
        scope.setdefault("state", {})["request_id"] = request_id
        mark = (b"x-request-id", request_id.encode())
        status = 0

        def answer(message: Any) -> Awaitable[None]:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], mark]
                if ending.is_set():  # what is asked next goes to another server, or finds out that there is none
                    message["headers"].append((b"connection", b"close"))
            return send(message)

        refusal = find_refusal(scope["method"], headers, local=settings.uds is not None)
        try:
            if refusal is None:
                await app(scope, receive, answer)
            else:
                body = msgspec.json.encode(
                    {
                        "type": f"{URN}denied", "title": "Forbidden", "status": 403, "detail": refusal, "code": "denied",
                        "fields": {}, "request_id": request_id,
                    }
                )  # fmt: skip
                kind = (b"content-type", MEDIA_TYPE.encode())
                await answer({"type": "http.response.start", "status": 403, "headers": [kind]})
                await answer({"type": "http.response.body", "body": body})
        except Exception as error:
            # An answer had begun, so none can say what went wrong: raising makes granian cut the connection.
            log_failure(error, request_id)
            raise
        finally:
            if settings.log_requests:
                log_request(
                    settings.log_format,
                    method=scope["method"],
                    path=scope["path"][:300],
                    status=status,
                    seconds=seconds_since(start),
                    request=request_id,
                )

    return guarded


def join_headers(pairs: Sequence[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Return headers by name, those sent twice joined by a comma (RFC 9110, 5.3): none of two hosts is passed over."""
    headers = dict(pairs)
    if len(headers) != len(pairs):
        headers.clear()
        for name, value in pairs:
            headers[name] = headers[name] + b", " + value if name in headers else value
    return headers


def find_refusal(method: str, headers: dict[bytes, bytes], *, local: bool) -> str | None:
    """Say why a request may not come in, or None."""
    host = headers.get(b"host", b"").decode("latin-1")
    if not local and not _is_this_machine(host):
        return "This server answers only to this machine: use 127.0.0.1 or localhost as the host."
    origin = headers.get(b"origin")
    if origin is not None and method in _CHANGING:
        authority = origin.decode("latin-1").partition("://")[2]
        if authority != host or not _is_this_machine(authority):
            return "Cross-origin requests may not change anything here."
    return None


@lru_cache(64)  # clients say the same few again and again; a header is 64 KB at most
def _is_this_machine(host: str) -> bool:
    """Answer whether a host, with or without a port, means this machine."""
    found = _AUTHORITY.fullmatch(host)
    return found is not None and is_loopback(found[1].lower())

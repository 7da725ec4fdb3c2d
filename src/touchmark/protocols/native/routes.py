"""The native router: every operation of every noun, below /api/v1, and the document that describes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from litestar import Request, Router, get
from litestar.response import Response
from litestar.response.base import ASGIResponse
from litestar.types import ASGIApp, Receive, Scope, Send

from touchmark.domain.errors import TouchmarkError
from touchmark.protocols.native import openapi
from touchmark.protocols.native.errors import problem_response
from touchmark.protocols.native.operations import PREFIX, Operation, Table, build_handler
from touchmark.wire import AnyRequest


def build_router() -> Router:
    """Return the router of /api/v1."""
    paths: dict[str, list[Operation]] = {}
    for operation in openapi.OPERATIONS:
        paths.setdefault(operation.path, []).append(operation)
    return Router(
        PREFIX,
        route_handlers=[get_openapi, *(build_handler(path, operations) for path, operations in paths.items())],
        exception_handlers={TouchmarkError: problem_response},
        include_in_schema=False,
    )


def build_door(app: ASGIApp, answer_error: Callable[[AnyRequest, Any], Response[bytes]]) -> ASGIApp:
    """Return what answers the operations itself, and hands `app` what is none of them: 404, 405, OPTIONS, the document.

    `app` has the routes of `build_router`; what it does for a request takes 25 µs more, as much as reading a model.
    """
    table = Table(openapi.OPERATIONS)

    async def door(scope: Scope, receive: Receive, send: Send) -> None:
        found = table.find(scope["method"], scope["path"])  # type: ignore[typeddict-item]
        if found is None:
            await app(scope, receive, send)
            return
        endpoint, scope["path_params"] = found
        request: AnyRequest = Request(scope, receive, send)
        answer: ASGIResponse
        try:
            answer = await endpoint(request)
        except Exception as error:  # noqa: BLE001 - each gets its answer, our own mistakes too
            answer = answer_error(request, error).to_asgi_response(app=None, request=request)
        await answer(scope, receive, send)

    return door


@get("/openapi.json", name="native.get_openapi", sync_to_thread=False, include_in_schema=False)
def get_openapi() -> ASGIResponse:
    """Return the OpenAPI document, as it was generated and checked in."""
    return ASGIResponse(body=openapi.read_document())

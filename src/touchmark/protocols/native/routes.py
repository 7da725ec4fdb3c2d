"""The native router: every operation of every noun, below /api/v1, and the document that describes them."""

from __future__ import annotations

from litestar import Router, get
from litestar.response.base import ASGIResponse

from touchmark.domain.errors import TouchmarkError
from touchmark.protocols.native import openapi
from touchmark.protocols.native.errors import problem_response
from touchmark.protocols.native.operations import PREFIX, Operation, build_handler


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


@get("/openapi.json", name="native.get_openapi", sync_to_thread=False, include_in_schema=False)
def get_openapi() -> ASGIResponse:
    """Return the OpenAPI document, as it was generated and checked in."""
    return ASGIResponse(body=openapi.read_document())

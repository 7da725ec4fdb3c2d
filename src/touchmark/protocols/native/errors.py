"""From an error to a problem document (RFC 9457): one table from class to status, looked up along the MRO.

Every case of domain/errors.py gets its status from its kind or from a line of its own; a test walks the tree. Nothing
here decides anything else: the sentence, the code and the fields are the error's.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import msgspec
from litestar.response import Response

from touchmark.domain.errors import (
    BusyError,
    ConflictError,
    CorruptError,
    DeniedError,
    DigestMismatchError,
    InvalidError,
    LimitExceededError,
    NotFoundError,
    PreconditionError,
    StorageFullError,
    TouchmarkError,
    UnauthenticatedError,
    UnsupportedError,
)
from touchmark.wire import AnyRequest, request_id_of

MEDIA_TYPE = "application/problem+json"
URN = "urn:touchmark:error:"
"""What stands before the code in a problem's `type`."""

STATUS: Mapping[type[TouchmarkError], int] = {
    TouchmarkError: 500,
    InvalidError: 400,
    UnauthenticatedError: 401,
    DeniedError: 403,
    NotFoundError: 404,
    ConflictError: 409,
    PreconditionError: 412,
    CorruptError: 500,
    DigestMismatchError: 500,  # bytes are uploaded on /v2; here it can only be damage found while reading
    UnsupportedError: 501,
    BusyError: 503,
    StorageFullError: 507,
}
"""The status of each kind, and of the cases that differ from their kind."""

_HEADERS = {401: {"www-authenticate": "Bearer"}, 503: {"retry-after": "1"}}
_encode = msgspec.json.Encoder(enc_hook=str).encode


class Problem(msgspec.Struct, kw_only=True):
    """A problem document. `code` is stable and `fields` are the error's, so that a client can raise the same class."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    fields: dict[str, Any]
    request_id: str | None


def status_of(cls: type[TouchmarkError]) -> int:
    """Return the status of an error's class."""
    return next(STATUS[kind] for kind in cls.__mro__ if kind in STATUS)


def problem_response(
    request: AnyRequest, error: TouchmarkError, *, status: int | None = None, headers: Mapping[str, str] | None = None
) -> Response[bytes]:
    """Return an error as a problem document; `status` replaces that of the table, `headers` are added."""
    if status is None:
        status = status_of(type(error))
        if isinstance(error, LimitExceededError) and error.fields.get("what") == "The body":
            status = 413  # the one limit that is not about a value in the request but about its size
    problem = Problem(
        type=URN + error.code,
        title=HTTPStatus(status).phrase,
        status=status,
        detail=error.message,
        code=error.code,
        fields=error.fields,
        request_id=request_id_of(request),
    )
    return Response(
        _encode(problem),
        status_code=status,
        headers={**_HEADERS.get(status, {}), **(headers or {})},
        media_type=MEDIA_TYPE,
    )

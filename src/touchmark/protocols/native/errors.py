"""From an error to a problem document (RFC 9457): one table from class to status, looked up along the MRO.

Every case of domain/errors.py gets its status from its kind or from a line of its own; a test walks the tree. Nothing
here decides anything else: the sentence, the code and the fields are the error's.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import msgspec
from litestar.response.base import ASGIResponse

from touchmark.domain.errors import (
    BusyError,
    ConflictError,
    CorruptError,
    DeniedError,
    DigestMismatchError,
    InvalidError,
    NotFoundError,
    PreconditionError,
    StorageFullError,
    TouchmarkError,
    UnauthenticatedError,
    UnsupportedError,
)

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

_RETRY_AFTER_SECONDS = 1
_ENCODE = msgspec.json.Encoder().encode


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

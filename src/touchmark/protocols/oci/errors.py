"""From an error to OCI's form (distribution-spec v1.1, "Error codes"): one table from class to code and status."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from litestar.response import Response

from touchmark import wire
from touchmark.domain import errors as e

CODES: Mapping[type[e.TouchmarkError], tuple[str, int]] = {
    e.TouchmarkError: ("UNKNOWN", 500),
    e.InvalidError: ("UNSUPPORTED", 400),
    e.InvalidDigestError: ("DIGEST_INVALID", 400),
    e.InvalidManifestError: ("MANIFEST_INVALID", 400),
    e.InvalidNameError: ("NAME_INVALID", 400),
    e.InvalidReferenceError: ("MANIFEST_UNKNOWN", 404),  # no tag can be called that
    e.InvalidAliasError: ("MANIFEST_UNKNOWN", 404),
    e.InvalidFieldError: ("SIZE_INVALID", 400),
    e.LimitExceededError: ("SIZE_INVALID", 413),
    e.NotFoundError: ("NAME_UNKNOWN", 404),
    e.BlobNotFoundError: ("BLOB_UNKNOWN", 404),
    e.ManifestNotFoundError: ("MANIFEST_UNKNOWN", 404),
    e.UploadNotFoundError: ("BLOB_UPLOAD_UNKNOWN", 404),
    e.ConflictError: ("DENIED", 409),
    e.UploadOffsetError: ("BLOB_UPLOAD_INVALID", 416),
    e.SealedError: ("UNSUPPORTED", 405),
    e.PreconditionError: ("DENIED", 412),
    e.DeniedError: ("DENIED", 403),
    e.UnauthenticatedError: ("UNAUTHORIZED", 401),
    e.CorruptError: ("UNKNOWN", 500),
    e.DigestMismatchError: ("DIGEST_INVALID", 400),
    e.BusyError: ("TOOMANYREQUESTS", 503),
    e.StorageFullError: ("UNKNOWN", 507),
    e.UnsupportedError: ("UNSUPPORTED", 501),
}
"""What each kind is on /v2. `detail` carries our own stable code and fields."""


def range_headers(offset: int) -> dict[str, str]:
    """Return what says how far an upload is: the specification's Range cannot say nothing, so a header of ours says all."""
    return {"Range": f"0-{max(offset - 1, 0)}", "Touchmark-Upload-Offset": str(offset)}


def error_response(request: wire.AnyRequest, error: Any) -> Response[bytes]:
    """Return OCI's error body for an error."""
    code, status = wire.look_up(CODES, error)
    if isinstance(error, e.BlobNotFoundError) and request.method == "PUT":
        code = "MANIFEST_BLOB_UNKNOWN"  # a manifest was put that names it
    elif isinstance(error, e.InvalidAliasError) and request.method == "PUT":
        code, status = "UNSUPPORTED", 400  # to read it is to find nothing; to push by it is a mistake to be told
    elif isinstance(error, e.ManifestNotFoundError) and "/" in str(error.fields.get("reference")):
        code = "NAME_UNKNOWN"  # a manifest's reference has no slash, a repository's name always has one
    detail = {"code": error.code, "fields": error.fields, "request_id": wire.request_id_of(request)}
    body = msgspec.json.encode({"errors": [{"code": code, "message": error.message, "detail": detail}]}, enc_hook=str)
    headers = {"Retry-After": "1"} if status == 503 else {}
    if isinstance(error, e.UploadOffsetError):
        headers |= range_headers(int(str(error.fields["offset"])))
    return Response(body, status_code=status, media_type="application/json", headers=headers)


def route_error_response(
    request: wire.AnyRequest, error: Any, *, is_method: bool, allow: str | None
) -> Response[bytes]:
    """Return OCI's error body for an address, or a method of one, that is not there."""
    response = error_response(request, e.UnsupportedError(error.message) if is_method else error)
    if is_method:
        response.status_code = 405
    if allow is not None:
        response.headers["Allow"] = allow
    return response

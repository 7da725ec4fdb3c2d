"""Uploads straight to the bucket over HTTP: begin, how far, finish, give up. No byte of them passes here."""

from __future__ import annotations

import anyio

from touchmark.domain.digest import parse_digest
from touchmark.domain.errors import (
    BusyError,
    InvalidDigestError,
    LoggedModelNotFoundError,
    ManifestNotFoundError,
    RunDeletedError,
    RunNotFoundError,
    UnsupportedError,
    UploadNotFoundError,
)
from touchmark.domain.repositories import parse_repository
from touchmark.protocols.native import schemas
from touchmark.protocols.native.operations import Operation
from touchmark.services import direct_uploads
from touchmark.wire import AnyRequest, Lane, call

WAIT_SECONDS = 20
"""How long a request to finish waits for the one before it."""
_POLL_SECONDS = 0.2


async def begin_direct_upload(request: AnyRequest, body: schemas.NewDirectUpload) -> schemas.DirectUpload:
    """Begin an upload of a blob straight to the bucket, and return addresses to PUT its parts at."""
    upload = await call(
        request,
        Lane.WRITE,
        direct_uploads.begin_direct_upload,
        parse_repository(body.repository),
        parse_digest(body.digest),
        body.size_bytes,
        request.app.state.max_upload_bytes,
        presign=request.app.state.presign,
    )
    return _shown(upload)


async def get_direct_upload(request: AnyRequest, upload_id: str) -> schemas.DirectUpload:
    """Return how far an upload is, with fresh addresses for the parts that are missing."""
    return _shown(await call(request, Lane.BYTES, direct_uploads.get_direct_upload, upload_id))


async def finish_direct_upload(request: AnyRequest, upload_id: str) -> schemas.StoredBlob:
    """Read the parts, check the whole, and make it a blob of the repository; the upload ends."""
    end = anyio.current_time() + WAIT_SECONDS
    while (stored := await call(request, Lane.BYTES, direct_uploads.finish_direct_upload, upload_id)) is None:
        if anyio.current_time() >= end:
            raise BusyError("The parts are still being read: ask how far that is.")
        await anyio.sleep(_POLL_SECONDS)
    return schemas.StoredBlob(digest=stored.digest, size_bytes=stored.size_bytes)


async def abort_direct_upload(request: AnyRequest, upload_id: str) -> None:
    """Give an upload up, and drop its parts."""
    await call(request, Lane.BYTES, direct_uploads.abort_direct_upload, upload_id)


def _shown(upload: direct_uploads.DirectUpload) -> schemas.DirectUpload:
    missing = [
        schemas.MissingPart(number=part.number, offset=part.offset, size_bytes=part.size_bytes, url=part.address)
        for part in upload.missing
    ]
    return schemas.DirectUpload(
        upload_id=upload.upload_id,
        digest=upload.digest,
        size_bytes=upload.size_bytes,
        sent_bytes=upload.sent_bytes,
        read_bytes=upload.read_bytes,
        is_finishing=upload.is_finishing,
        missing=missing,
    )


_ONE = "/direct-uploads/{upload_id}"
_OWNER = (ManifestNotFoundError, RunNotFoundError, RunDeletedError, LoggedModelNotFoundError)

OPERATIONS = (
    Operation(
        method="POST",
        path="/direct-uploads",
        handler=begin_direct_upload,
        errors=(*_OWNER, InvalidDigestError, UnsupportedError),
        status=201,
    ),
    Operation(method="GET", path=_ONE, handler=get_direct_upload, errors=(UploadNotFoundError, UnsupportedError)),
    Operation(
        method="POST",
        path=_ONE + "/finish",
        handler=finish_direct_upload,
        errors=(*_OWNER, UploadNotFoundError),
    ),
    Operation(method="DELETE", path=_ONE, handler=abort_direct_upload, errors=(UploadNotFoundError,)),
)

"""The routes of /v2, as the OCI Distribution specification v1.1 has them: uploads, blobs, manifests, tags, referrers.

A repository is two segments (domain/repositories.py). The body of an upload goes chunk by chunk to disk: memory does not
grow with it. What is sealed is deleted by no route here. A manifest has one form, the one it was pushed in: Accept is
not asked (RFC 9110, 12.5.1 leaves that open), and Content-Type says what it is.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

import anyio
import msgspec
from litestar import Router
from litestar.handlers import route
from litestar.response.base import ASGIResponse

from touchmark import wire
from touchmark.artifacts.blobs import StoredBlob
from touchmark.artifacts.manifests import INDEX_MEDIA_TYPE, Document
from touchmark.domain.digest import digest_of, parse_digest
from touchmark.domain.errors import (
    BusyError,
    InvalidDigestError,
    InvalidFieldError,
    LimitExceededError,
    ManifestNotFoundError,
    SealedError,
    TouchmarkError,
    UploadOffsetError,
)
from touchmark.domain.repositories import Repository, parse_repository
from touchmark.protocols.oci.errors import error_response, range_headers
from touchmark.services.blobs import ReadableBlob, Upload, get_blob, open_upload
from touchmark.services.manifests import (
    StoredManifest,
    get_manifest,
    get_model_name,
    list_manifest_tags,
    list_referring,
    put_manifest,
)
from touchmark.services.pushes import check_tag, push_version
from touchmark.services.sessions import (
    Append,
    abort_session,
    begin_session,
    finish_session,
    get_session,
    mount_blob,
    open_append,
)
from touchmark.wire import AnyRequest, Lane

MANIFEST_LIMIT_BYTES = 4 << 20
TAGS_LIMIT = 1_000
"""Tags in one page."""
INDEX_LIMIT_BYTES = 4 << 20
"""What the descriptors in one page of referrers have together, about."""
LOOK_SECONDS = 5
"""How long a question how far an upload is waits for a request that sends to it."""
WAIT_SECONDS = 20
"""How long a request that sends to an upload waits for the one before it."""

T = TypeVar("T")

_POLL_SECONDS = 0.05
_CONTENT_RANGE = re.compile(r"(?:bytes )?([0-9]{1,18})-([0-9]{1,18})(?:/(?:[0-9]{1,18}|\*))?")


def build_router() -> Router:
    """Return every route of /v2."""
    return Router(
        "/v2",
        route_handlers=[
            ping,
            begin_upload,
            patch_upload,
            read_upload,
            finish_upload,
            cancel_upload,
            read_blob,
            refuse_blob_deletion,
            read_manifest,
            store_manifest,
            refuse_manifest_deletion,
            list_tags,
            list_referrers,
        ],
        exception_handlers={TouchmarkError: error_response},
    )


def _repository(request: AnyRequest) -> Repository:
    return parse_repository(f"{request.path_params['kind']}/{request.path_params['name']}")


def _address(repository: Repository) -> str:
    """Return a repository's path as a header holds it: a name may have any letter, and signs that mean something there."""
    return f"/v2/{quote(repository.path)}"


@route("/", http_method=["GET"])
async def ping() -> ASGIResponse:
    """Say that /v2 is spoken here, also in the words of the clients that were there before the specification."""
    headers = {"Docker-Distribution-API-Version": "registry/2.0"}
    return ASGIResponse(body=b"{}", headers=headers, media_type="application/json")


@route("/{kind:str}/{name:str}/blobs/uploads", http_method=["POST"])
async def begin_upload(request: AnyRequest) -> ASGIResponse:
    """Give an address to upload to; with ?digest= take the whole body at once, with ?mount= need none if it is here."""
    repository = _repository(request)
    digest = request.query_params.get("digest")
    if digest is not None:
        return _created(repository, await _receive(request, repository, digest))
    mount, source = request.query_params.get("mount"), request.query_params.get("from")
    if mount is not None and source is not None:
        with contextlib.suppress(ManifestNotFoundError):  # a source that cannot be: the client uploads
            found = parse_repository(source)
            stored = await wire.call(request, Lane.WRITE, mount_blob, repository, parse_digest(mount), found)
            if stored is not None:
                return _created(repository, stored)
    upload_id = await wire.call(request, Lane.WRITE, begin_session, repository)
    return _accepted(repository, upload_id, 0)


def _accepted(repository: Repository, upload_id: str, offset: int, status_code: int = 202) -> ASGIResponse:
    headers = {
        "Location": f"{_address(repository)}/blobs/uploads/{upload_id}",
        "Docker-Upload-UUID": upload_id,
        **range_headers(offset),
    }
    return ASGIResponse(status_code=status_code, headers=headers)


@route("/{kind:str}/{name:str}/blobs/uploads/{upload_id:str}", http_method=["PATCH"])
async def patch_upload(request: AnyRequest) -> ASGIResponse:
    """Take the next bytes of an upload; what came of them is kept, however the request ends."""
    repository, upload_id = _repository(request), request.path_params["upload_id"]
    return _accepted(repository, upload_id, await _append(request, repository, upload_id))


@route("/{kind:str}/{name:str}/blobs/uploads/{upload_id:str}", http_method=["GET"])
async def read_upload(request: AnyRequest) -> ASGIResponse:
    """Say how far an upload is, so that a client goes on there."""
    repository, upload_id = _repository(request), request.path_params["upload_id"]
    return _accepted(repository, upload_id, await _look(request, repository, upload_id), 204)


@route("/{kind:str}/{name:str}/blobs/uploads/{upload_id:str}", http_method=["PUT"])
async def finish_upload(request: AnyRequest) -> ASGIResponse:
    """Take the last bytes of an upload, or none, and make it a blob under the digest it must have."""
    repository, upload_id = _repository(request), request.path_params["upload_id"]
    digest = request.query_params.get("digest")
    if digest is None:
        raise InvalidDigestError(digest="")
    expected = parse_digest(digest)
    await _append(request, repository, upload_id)
    finish = partial(wire.call, request, Lane.BYTES, finish_session, repository, upload_id, expected)
    return _created(repository, await _wait_for_turn(finish))


@route("/{kind:str}/{name:str}/blobs/uploads/{upload_id:str}", http_method=["DELETE"], status_code=204)
async def cancel_upload(request: AnyRequest) -> None:
    """End an upload and drop what came of it."""
    await wire.call(request, Lane.WRITE, abort_session, _repository(request), request.path_params["upload_id"])


async def _append(request: AnyRequest, repository: Repository, upload_id: str) -> int:
    """Append a request's body to an upload, and return how far it is. Nothing is opened for an empty body."""
    begin = _parse_content_range(request.headers.get("content-range"), request.headers.get("content-length"))
    limit_bytes = request.app.state.max_upload_bytes
    append: Append | None = None
    try:
        pieces = wire.stream_pieces(request, limit_bytes)
        first = await anext(pieces, None)
        if first is not None:
            append = await _open_append(request, repository, upload_id, begin)
            await wire.write_pieces(request, _keep_within(append.left_bytes, limit_bytes, first, pieces), append.write)
        if append is None:
            offset = await _look(request, repository, upload_id)
            if begin is not None and begin != offset:
                raise UploadOffsetError(offset=offset)
            return offset
        return await wire.run(request, Lane.BYTES, append.commit)
    except BaseException:
        if append is not None:
            with anyio.CancelScope(shield=True), contextlib.suppress(TouchmarkError, ValueError):
                await wire.run(request, Lane.BYTES, append.commit)  # the client will go on from here
        raise
    finally:
        if append is not None:
            append.close()


async def _keep_within(
    left_bytes: int, limit_bytes: int, first: bytes, pieces: AsyncIterator[bytes]
) -> AsyncIterator[bytes]:
    """Yield pieces as long as the whole upload stays within its limit. Raises LimitExceededError."""
    piece: bytes | None = first
    while piece is not None:
        left_bytes -= len(piece)
        if left_bytes < 0:
            raise LimitExceededError(what="One upload", limit=limit_bytes, unit="bytes")
        yield piece
        piece = await anext(pieces, None)


async def _open_append(request: AnyRequest, repository: Repository, upload_id: str, begin: int | None) -> Append:
    limit_bytes = request.app.state.max_upload_bytes
    begin_append = partial(open_append, begin=begin, limit_bytes=limit_bytes)
    return await _wait_for_turn(partial(wire.call, request, Lane.BYTES, begin_append, repository, upload_id))


async def _look(request: AnyRequest, repository: Repository, upload_id: str) -> int:
    """Return how far an upload is, once nothing more is sent to it, or LOOK_SECONDS were waited for that."""
    end = anyio.current_time() + LOOK_SECONDS
    while True:
        state = await wire.call(request, Lane.READ, get_session, repository, upload_id)
        if not state.is_growing or anyio.current_time() >= end:
            return state.size_bytes
        await anyio.sleep(_POLL_SECONDS)


async def _wait_for_turn(ask: Callable[[], Awaitable[T | None]]) -> T:
    """Ask until the answer is not None. Here and not in a thread: the request that is waited for needs those."""
    end = anyio.current_time() + WAIT_SECONDS
    while (found := await ask()) is None:
        if anyio.current_time() >= end:
            raise BusyError("Another request is sending to this upload: ask how far it is, and go on there.")
        await anyio.sleep(_POLL_SECONDS)
    return found


def _parse_content_range(text: str | None, length: str | None) -> int | None:
    """Return where a piece begins (`0-99`, as the specification has it, and RFC 9110's `bytes 0-99/*`), None if untold."""
    if text is None:
        return None
    match = _CONTENT_RANGE.fullmatch(text.strip())
    if match is None or int(match[2]) < int(match[1]):
        raise InvalidFieldError(field="Content-Range", reason="write the first and the last byte of the piece: 0-99")
    first, last = int(match[1]), int(match[2])
    if length is not None and length != str(last - first + 1):
        raise InvalidFieldError(
            field="Content-Range", reason=f"{text.strip()} is not the Content-Length of {length[:20]}"
        )
    return first


async def _receive(request: AnyRequest, repository: Repository, digest: str) -> StoredBlob:
    expected = parse_digest(digest)
    upload: Upload = await wire.call(request, Lane.BYTES, open_upload, repository)
    try:
        pieces = wire.stream_pieces(request, request.app.state.max_upload_bytes)
        await wire.write_pieces(request, pieces, upload.write)
        return await wire.run(request, Lane.BYTES, lambda: upload.commit(expected))
    finally:
        upload.__exit__(None)


def _created(repository: Repository, blob: StoredBlob) -> ASGIResponse:
    headers = {"Location": f"{_address(repository)}/blobs/{blob.digest}", "Docker-Content-Digest": blob.digest}
    return ASGIResponse(status_code=201, headers=headers)


@route("/{kind:str}/{name:str}/blobs/{digest:str}", http_method=["GET", "HEAD"])
async def read_blob(request: AnyRequest) -> ASGIResponse:
    """Send a blob, or one range of it."""
    digest = parse_digest(request.path_params["digest"])
    blob: ReadableBlob = await wire.call_inline(request, get_blob, _repository(request), digest)
    return await wire.stream_blob(request, blob, {"docker-content-digest": digest})


@route("/{kind:str}/{name:str}/manifests/{reference:str}", http_method=["GET", "HEAD"])
async def read_manifest(request: AnyRequest) -> ASGIResponse:
    """Send a manifest by digest, version number or alias."""
    reference = request.path_params["reference"]
    manifest: StoredManifest = await wire.call_inline(request, get_manifest, _repository(request), reference)
    headers = {
        "Docker-Content-Digest": manifest.digest,
        "ETag": f'"{manifest.digest}"',
        "X-Content-Type-Options": "nosniff",
    }
    if request.method == "HEAD":
        headers |= {"Content-Length": str(len(manifest.content)), "Content-Type": manifest.media_type}
        return ASGIResponse(headers=headers, is_head_response=True)
    return ASGIResponse(body=manifest.content, headers=headers, media_type=manifest.media_type)


@route("/{kind:str}/{name:str}/manifests/{reference:str}", http_method=["PUT"])
async def store_manifest(request: AnyRequest) -> ASGIResponse:
    """Store a manifest under its digest, not yet registered; by a tag it becomes a version, and the alias moves to it."""
    content = await wire.read_body(request, MANIFEST_LIMIT_BYTES)
    repository, reference = _repository(request), request.path_params["reference"]
    is_digest = reference.startswith("sha256:")
    alias = None if is_digest else check_tag(reference)
    digest: str = reference if is_digest else digest_of(content)
    put = partial(put_manifest, for_version=not is_digest)
    stored: StoredManifest = await wire.call(request, Lane.WRITE, put, repository, digest, content)
    headers: dict[str, str] = {"Docker-Content-Digest": stored.digest}
    if stored.subject is not None:
        headers["OCI-Subject"] = stored.subject
    if not is_digest:
        name = await wire.call(request, Lane.READ, get_model_name, repository)
        number = await wire.call(request, Lane.WRITE, push_version, name, stored.digest, alias)
        headers["Touchmark-Version"] = str(number)
    headers["Location"] = f"{_address(repository)}/manifests/{stored.digest}"
    return ASGIResponse(status_code=201, headers=headers)


@route("/{kind:str}/{name:str}/manifests/{reference:str}", http_method=["DELETE"])
async def refuse_manifest_deletion(request: AnyRequest) -> None:
    """Refuse: a version is deleted in the catalogue, where its record stays."""
    message = "Nothing is deleted here: touchmark delete NAME/VERSION, or its alias."
    raise SealedError(message, path=request.path_params["reference"])


@route("/{kind:str}/{name:str}/blobs/{digest:str}", http_method=["DELETE"])
async def refuse_blob_deletion(request: AnyRequest) -> None:
    """Refuse: blobs go when nothing holds them any more."""
    message = "Blobs are not deleted by hand: they go when nothing holds them any more."
    raise SealedError(message, path=request.path_params["digest"])


@route("/{kind:str}/{name:str}/tags/list", http_method=["GET"])
async def list_tags(request: AnyRequest) -> ASGIResponse:
    """Return a page of tags: aliases and version numbers, in the order of their bytes."""
    repository = _repository(request)
    count, last = request.query_params.get("n", str(TAGS_LIMIT)), request.query_params.get("last", "")
    if not count.isdigit() or len(count) > 9:
        raise InvalidFieldError(field="n", reason="write how many tags you want")
    limit = min(int(count), TAGS_LIMIT)
    tags = await wire.call(request, Lane.READ, list_manifest_tags, repository, last, limit + 1) if limit else []
    headers = {}
    if len(tags) > limit:
        tags = tags[:limit]
        query = urlencode({"n": limit, "last": tags[-1]})
        headers["Link"] = f'<{_address(repository)}/tags/list?{query}>; rel="next"'
    body = msgspec.json.encode({"name": repository.path, "tags": tags})
    return ASGIResponse(body=body, headers=headers, media_type="application/json")


@route("/{kind:str}/{name:str}/referrers/{digest:str}", http_method=["GET"])
async def list_referrers(request: AnyRequest) -> ASGIResponse:
    """Return an image index of the manifests that speak of one (distribution-spec v1.1, "Listing Referrers"), in pages."""
    repository, digest = _repository(request), parse_digest(request.path_params["digest"])
    wanted, last = request.query_params.get("artifactType"), request.query_params.get("last")
    after = "" if last is None else parse_digest(last)
    found, has_more = await wire.call(request, Lane.READ, list_referring, repository, digest, after)
    listed: list[dict[str, Any]] = []
    left_bytes = INDEX_LIMIT_BYTES
    for number, document in enumerate(found):
        described = _describe(document)
        left_bytes -= len(msgspec.json.encode(described))
        if left_bytes < 0 and number > 0:
            found, has_more = found[:number], True
            break
        if wanted is None or wanted == document.artifact_type:
            listed.append(described)
    headers = {} if wanted is None else {"OCI-Filters-Applied": "artifactType"}
    if has_more:
        query = urlencode({"last": found[-1].digest} | ({} if wanted is None else {"artifactType": wanted}))
        headers["Link"] = f'<{_address(repository)}/referrers/{digest}?{query}>; rel="next"'
    body = msgspec.json.encode({"schemaVersion": 2, "mediaType": INDEX_MEDIA_TYPE, "manifests": listed})
    return ASGIResponse(body=body, headers=headers, media_type=INDEX_MEDIA_TYPE)


def _describe(document: Document) -> dict[str, Any]:
    """Return a manifest's descriptor, with its artifactType (or its config's type) and its annotations."""
    found: dict[str, Any] = {
        "mediaType": document.media_type, "digest": document.digest, "size": len(document.bytes),
    }  # fmt: skip
    if document.artifact_type is not None:
        found["artifactType"] = document.artifact_type
    if document.annotations:
        found["annotations"] = document.annotations
    return found

"""The routes of /v2, as the OCI Distribution specification v1.1 has them: uploads, blobs, manifests, tags, referrers.

A repository is two segments (domain/repositories.py). The body of an upload goes chunk by chunk to disk: memory does not
grow with it. What is sealed is deleted by no route here.
"""

from __future__ import annotations

import contextlib
import re
from functools import partial
from typing import Any
from urllib.parse import quote, urlencode

import anyio
import msgspec
from litestar import Router
from litestar.handlers import route
from litestar.response.base import ASGIResponse

from touchmark import wire
from touchmark.artifacts.blobs import StoredBlob
from touchmark.artifacts.manifests import MANIFEST_MEDIA_TYPE
from touchmark.domain.digest import digest_of, parse_digest
from touchmark.domain.errors import (
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
INDEX_MEDIA_TYPE = "application/vnd.oci.image.index.v1+json"
TAGS_LIMIT = 1_000
"""Tags in one page."""

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
    """Say that /v2 is spoken here."""
    return ASGIResponse(body=b"{}", media_type="application/json")


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
    offset = await wire.call(request, Lane.READ, get_session, repository, upload_id)
    return _accepted(repository, upload_id, offset, 204)


@route("/{kind:str}/{name:str}/blobs/uploads/{upload_id:str}", http_method=["PUT"])
async def finish_upload(request: AnyRequest) -> ASGIResponse:
    """Take the last bytes of an upload, or none, and make it a blob under the digest it must have."""
    repository, upload_id = _repository(request), request.path_params["upload_id"]
    digest = request.query_params.get("digest")
    if digest is None:
        raise InvalidDigestError(digest="")
    expected = parse_digest(digest)
    await _append(request, repository, upload_id)
    return _created(repository, await wire.call(request, Lane.BYTES, finish_session, repository, upload_id, expected))


@route("/{kind:str}/{name:str}/blobs/uploads/{upload_id:str}", http_method=["DELETE"], status_code=204)
async def cancel_upload(request: AnyRequest) -> None:
    """End an upload and drop what came of it."""
    await wire.call(request, Lane.WRITE, abort_session, _repository(request), request.path_params["upload_id"])


async def _append(request: AnyRequest, repository: Repository, upload_id: str) -> int:
    """Append a request's body to an upload, and return how far it is. Nothing is opened for an empty body."""
    begin = _parse_content_range(request.headers.get("content-range"))
    append: Append | None = None
    try:
        async for piece in wire.stream_pieces(request, request.app.state.max_upload_bytes):
            if append is None:
                append = await _open_append(request, repository, upload_id, begin)
            if len(piece) > append.left_bytes:
                raise LimitExceededError(what="One upload", limit=request.app.state.max_upload_bytes, unit="bytes")
            append.left_bytes -= len(piece)
            await wire.run(request, Lane.BYTES, partial(append.write, piece))
        if append is None:
            offset = await wire.call(request, Lane.READ, get_session, repository, upload_id)
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


async def _open_append(request: AnyRequest, repository: Repository, upload_id: str, begin: int | None) -> Append:
    limit_bytes = request.app.state.max_upload_bytes
    return await wire.call(
        request, Lane.BYTES, open_append, repository, upload_id, begin=begin, limit_bytes=limit_bytes
    )


def _parse_content_range(text: str | None) -> int | None:
    """Return where a piece begins (`0-99`, as the specification has it, and RFC 9110's `bytes 0-99/*`), None if untold."""
    if text is None:
        return None
    match = _CONTENT_RANGE.fullmatch(text.strip())
    if match is None or int(match[2]) < int(match[1]):
        raise InvalidFieldError(field="Content-Range", reason="write the first and the last byte of the piece: 0-99")
    return int(match[1])


async def _receive(request: AnyRequest, repository: Repository, digest: str) -> StoredBlob:
    expected = parse_digest(digest)
    upload: Upload = await wire.call(request, Lane.BYTES, open_upload, repository)
    try:
        async for piece in wire.stream_pieces(request, request.app.state.max_upload_bytes):
            await wire.run(request, Lane.BYTES, lambda piece=piece: upload.write(piece))  # type: ignore[misc]
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
    stored: StoredManifest = await wire.call(request, Lane.WRITE, put_manifest, repository, digest, content)
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
    """Return an image index of the manifests that speak of one (distribution-spec v1.1, "Listing Referrers")."""
    digest = parse_digest(request.path_params["digest"])
    wanted = request.query_params.get("artifactType")
    found = await wire.call(request, Lane.READ, list_referring, _repository(request), digest)
    listed = [_describe(name, content) for name, content in found]
    if wanted is not None:
        listed = [each for each in listed if each["artifactType"] == wanted]
    index = {"schemaVersion": 2, "mediaType": INDEX_MEDIA_TYPE, "manifests": listed}
    headers = {"OCI-Filters-Applied": "artifactType"} if wanted is not None else {}
    return ASGIResponse(body=msgspec.json.encode(index), headers=headers, media_type=INDEX_MEDIA_TYPE)


def _describe(digest: str, content: bytes) -> dict[str, Any]:
    """Return a manifest's descriptor, with its artifactType (or its config's type, as the specification says)."""
    document = msgspec.json.decode(content)
    kind = document.get("artifactType") or document["config"]["mediaType"]
    found = {"mediaType": MANIFEST_MEDIA_TYPE, "digest": digest, "size": len(content), "artifactType": kind}
    return {**found, "annotations": document["annotations"]} if document.get("annotations") else found

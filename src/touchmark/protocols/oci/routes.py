"""The routes of /v2: the plain part of the OCI Distribution specification v1.1 (upload in one piece, read, ranges).

A repository is two segments (domain/repositories.py). The body of an upload goes chunk by chunk to disk: memory does not
grow with it. PATCH, mounts and listings are not here yet and answer UNSUPPORTED.
"""

from __future__ import annotations

import uuid
from urllib.parse import quote

from litestar import Router
from litestar.handlers import route
from litestar.response.base import ASGIResponse

from touchmark import wire
from touchmark.artifacts.blobs import StoredBlob
from touchmark.domain.access import Principal
from touchmark.domain.digest import parse_digest
from touchmark.domain.errors import InvalidDigestError, TouchmarkError, UnsupportedError
from touchmark.domain.repositories import Repository, parse_repository
from touchmark.protocols.oci.errors import error_response
from touchmark.registry import Registry
from touchmark.services.blobs import ReadableBlob, Upload, get_blob, open_upload
from touchmark.services.manifests import StoredManifest, get_manifest, put_manifest
from touchmark.wire import AnyRequest, Lane

MANIFEST_LIMIT_BYTES = 4 << 20


def build_router() -> Router:
    """Return every route of /v2."""
    return Router(
        "/v2",
        route_handlers=[ping, begin_upload, finish_upload, patch_upload, read_blob, read_manifest, store_manifest],
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
    """Give an address to upload to; with ?digest= take the whole body at once."""
    repository = _repository(request)
    digest = request.query_params.get("digest")
    if digest is not None:
        return _created(repository, await _receive(request, repository, digest))
    await wire.call(request, Lane.READ, _check_can_upload, repository)
    location = f"{_address(repository)}/blobs/uploads/{uuid.uuid4()}"
    headers = {"Location": location, "Range": "0-0", "Docker-Upload-UUID": location.rpartition("/")[2]}
    return ASGIResponse(status_code=202, headers=headers)


def _check_can_upload(registry: Registry, who: Principal, repository: Repository) -> None:
    with open_upload(registry, who, repository):
        pass


@route("/{kind:str}/{name:str}/blobs/uploads/{upload_id:uuid}", http_method=["PUT"])
async def finish_upload(request: AnyRequest) -> ASGIResponse:
    """Take the whole body of an upload, under the digest it must have."""
    repository = _repository(request)
    return _created(repository, await _receive(request, repository, request.query_params.get("digest")))


@route("/{kind:str}/{name:str}/blobs/uploads/{upload_id:uuid}", http_method=["PATCH"])
async def patch_upload() -> ASGIResponse:
    """Refuse an upload in pieces."""
    raise UnsupportedError("Uploads in pieces are not understood: send the whole body with PUT.")


async def _receive(request: AnyRequest, repository: Repository, digest: str | None) -> StoredBlob:
    if digest is None:
        raise InvalidDigestError(digest="")
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
    """Store an unregistered manifest under its digest."""
    content = await wire.read_body(request, MANIFEST_LIMIT_BYTES)
    repository = _repository(request)
    reference = request.path_params["reference"]
    stored: StoredManifest = await wire.call(request, Lane.WRITE, put_manifest, repository, reference, content)
    headers = {
        "Location": f"{_address(repository)}/manifests/{stored.digest}",
        "Docker-Content-Digest": stored.digest,
    }
    return ASGIResponse(status_code=201, headers=headers)

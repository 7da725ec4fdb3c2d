"""Artifacts: the proxy through which MLflow's clients write and read files, and the lists of them.

A place below `mlflow-artifacts/artifacts/` is one of

    EXPERIMENT/RUN/artifacts/PATH              a file of a run
    EXPERIMENT/models/m-…/artifacts/PATH       a file of a logged model
    sealed/64 HEX DIGITS/PATH                  a file of a sealed version, by its digest; read only

and nothing else. What is sent back is always an attachment of no particular type. Uploads in parts are in multipart.py.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from posixpath import basename
from typing import NoReturn
from urllib.parse import quote, unquote

import msgspec
from litestar.response.base import ASGIResponse

from touchmark import wire
from touchmark.domain.digest import Digest
from touchmark.domain.errors import (
    ArtifactNotFoundError,
    InvalidFieldError,
    InvalidPathError,
    LimitExceededError,
    LoggedModelNotFoundError,
    ManifestNotFoundError,
    NotFoundError,
    RunNotFoundError,
    SealedError,
    TouchmarkError,
)
from touchmark.domain.names import is_logged_model_id
from touchmark.domain.tracking import ArtifactEntry, ArtifactOwner, check_logged_model_id, check_run_id
from touchmark.protocols.mlflow.messages import Message, read_version_number
from touchmark.protocols.mlflow.operations import Encoded, Fields, Operation, missing
from touchmark.services import artifacts, logged_models, runs
from touchmark.services.blobs import ReadableBlob
from touchmark.wire import AnyRequest, Lane, call, call_inline

DECODINGS = 10
"""How often a path is percent-decoded before it counts as hostile; MLflow does the same."""
POSTED_LIMIT_BYTES = 10 << 20
"""What MLflow's pages may upload in one request."""

ADDRESS_LIMIT = 8_000
"""Characters in an address: more than the longest path (domain/paths.py) has when it is percent-encoded. Decoding takes time."""
_EXPERIMENT_ID = re.compile(r"0|[1-9][0-9]{0,17}")
_HEX = re.compile(r"[0-9a-f]{64}")
_RUN_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_DRIVE = re.compile(r"[A-Za-z]:[/\\]")


# ── places ───────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Place:
    """What an address below the proxy names: an owner in its experiment, or the digest of sealed files; and a path there.

    `text` is the address as it was understood, `path` is empty for the root.
    """

    text: str
    path: str
    owner: ArtifactOwner | None = None
    experiment_id: int | None = None
    sealed: Digest | None = None


def check_safe(text: str) -> str:
    """Return a path in its plain form: decoded, without empty and `.` parts. Raises InvalidPathError, as MLflow does.

    MLflow 3.17's `validate_path_is_safe`: decoded again and again until nothing changes; no `#`, no `..`, not absolute.
    Also refused here, on every system: backslashes, drive letters and NUL. What else a path may not hold is the domain's.
    """
    if len(text) > ADDRESS_LIMIT:
        _refuse(text, "it is too long")
    seen = text
    for _ in range(DECODINGS):
        decoded = unquote(seen)
        if decoded == seen:
            break
        seen = decoded
    else:
        _refuse(text, "it is percent-encoded too often")
    if "#" in seen:
        _refuse(text, "it holds a #")
    if "\\" in seen or "\0" in seen:
        _refuse(text, "it holds a backslash or a NUL")
    if seen.startswith("/") or _DRIVE.match(seen):
        _refuse(text, "it is absolute")
    parts = seen.split("/")
    if ".." in parts:
        _refuse(text, "it holds a .. segment")
    return "/".join(part for part in parts if part not in {"", "."})


def _refuse(text: str, reason: str) -> NoReturn:
    shown = text[:200].encode("utf-8", "backslashreplace").decode()
    raise InvalidPathError(path=shown, reason=reason)


def find_place(text: str) -> Place | None:
    """Return what an address names, or None if there can be nothing. Raises InvalidPathError."""
    text = check_safe(text)
    parts = text.split("/")
    if parts[0] == "sealed":
        if len(parts) > 1 and _HEX.fullmatch(parts[1]):
            return Place(text, "/".join(parts[2:]), sealed=Digest(f"sha256:{parts[1]}"))
        return None
    if not _EXPERIMENT_ID.fullmatch(parts[0]):
        return None
    if len(parts) > 3 and parts[1] == "models" and parts[3] == "artifacts" and is_logged_model_id(parts[2]):
        owner, rest = ArtifactOwner("logged_model", parts[2]), parts[4:]
    elif len(parts) > 2 and parts[2] == "artifacts" and _RUN_ID.fullmatch(parts[1]):
        owner, rest = ArtifactOwner("run", parts[1]), parts[3:]
    else:
        return None
    return Place(text, "/".join(rest), owner, int(parts[0]))


def get_writable_place(text: str) -> tuple[Place, ArtifactOwner]:
    """Return a place that may be written, and whose it is. Raises InvalidPathError, SealedError."""
    place = find_place(text)
    if place is None and check_safe(text).partition("/")[0] != "sealed":
        reason = "write EXPERIMENT/RUN/artifacts/PATH or EXPERIMENT/models/MODEL/artifacts/PATH"
        raise InvalidPathError(path=text[:200], reason=reason)
    if place is None or place.owner is None:
        raise SealedError(path=text[:200])
    return place, place.owner


def artifact_root(owner: ArtifactOwner, experiment_id: int) -> str:
    """Return the address of an owner's files, as runs and logged models carry it."""
    folder = owner.id if owner.kind == "run" else f"models/{owner.id}"
    return f"mlflow-artifacts:/{experiment_id}/{folder}/artifacts"


def public_address(request: AnyRequest) -> str:
    """Return the address clients reach this server at, without a slash at its end."""
    public_url: str | None = request.app.state.public_url
    return public_url.rstrip("/") if public_url else f"{request.scope['scheme']}://{request.headers.get('host', '')}"


# ── bytes in ─────────────────────────────────────────────────────────────────────────────────────────────────────


class Stored(Encoded):
    """What an upload is answered with: nothing, not even a type, as MLflow does."""

    __slots__ = ()

    def __init__(self) -> None:
        """Make an empty answer."""
        super().__init__(b"")
        self._headers = [(b"content-length", b"0")]


class PlaceFields(Fields):
    """What follows `artifacts/` in the address."""

    path: str = ""


async def put_artifact(request: AnyRequest, fields: PlaceFields) -> ASGIResponse:
    """Store the body as a file of a run or a logged model."""
    async with drained(request):
        place, owner = get_writable_place(fields.path)
        pieces = wire.stream_pieces(request, request.app.state.max_upload_bytes)
        first = await anext(pieces, b"")
        if len(first) < wire.PIECE_BYTES:  # that was all: one hop to a thread
            await call(
                request, Lane.BYTES, artifacts.put_artifact, owner, place.path, first, experiment_id=place.experiment_id
            )
            return Stored()
        upload = await call(
            request, Lane.BYTES, artifacts.open_artifact_upload, owner, place.path, experiment_id=place.experiment_id
        )
        try:
            await wire.run(request, Lane.BYTES, lambda: upload.write(first))
            await wire.write_pieces(request, pieces, upload.write)
            await wire.run(request, Lane.BYTES, upload.commit)
        finally:
            upload.close()
    return Stored()


@asynccontextmanager
async def drained(request: AnyRequest) -> AsyncIterator[None]:
    """Read the rest of a body that is refused half-way, so that the client reads why instead of sending it again."""
    try:
        yield
    except TouchmarkError:
        await wire.drain_body(request)
        raise


async def delete_artifact(request: AnyRequest, fields: PlaceFields) -> None:
    """Take a file, or a folder with all below it, out of its owner's list; one that is not there is no error."""
    place = find_place(fields.path)
    if place is None and check_safe(fields.path).partition("/")[0] != "sealed":
        return
    place, owner = get_writable_place(fields.path)
    if not place.path:
        reason = "all files of a run or a logged model are not deleted at once; name a file or a folder"
        raise InvalidPathError(path=place.text, reason=reason)
    await call(
        request,
        Lane.WRITE,
        artifacts.delete_artifacts,
        owner,
        place.path,
        missing_ok=True,
        experiment_id=place.experiment_id,
    )


class PostedFields(Fields):
    """What MLflow's pages say of a file they upload."""

    run_uuid: str = ""
    path: str = ""


async def post_artifact(request: AnyRequest, fields: PostedFields) -> ASGIResponse:
    """Store the body, at most 10 MiB, as a file of a run."""
    if not fields.run_uuid:
        raise InvalidFieldError("Request must specify run_uuid.", field="run_uuid")
    if not fields.path:
        raise InvalidFieldError("Request must specify path.", field="path")
    path = check_safe(fields.path)
    try:
        data = await wire.read_body(request, POSTED_LIMIT_BYTES)
    except LimitExceededError:
        raise InvalidFieldError("Artifact size is too large. Max size is 10MB.", field="data") from None
    if not data:
        raise InvalidFieldError("Request must specify data.", field="data")
    await call(request, Lane.BYTES, artifacts.put_artifact, _get_run_owner(fields.run_uuid), path, data)
    return Stored()


# ── bytes out ────────────────────────────────────────────────────────────────────────────────────────────────────


async def read_artifact(request: AnyRequest, fields: PlaceFields) -> ASGIResponse:
    """Send a file, or a range of it."""
    place, blob = await open_place(request, fields.path)
    return await _send(request, blob, place.path, is_fixed=place.sealed is not None)


async def open_place(request: AnyRequest, text: str) -> tuple[Place, ReadableBlob]:
    """Return the file an address names. Raises ArtifactNotFoundError, InvalidPathError, VersionPurgedError."""
    place = find_place(text)
    if place is None or not place.path:
        raise _no_such(check_safe(text))
    try:
        if place.owner is not None:
            blob = await call_inline(
                request, artifacts.open_artifact, place.owner, place.path, experiment_id=place.experiment_id
            )
        else:
            assert place.sealed is not None  # noqa: S101 - a place is one or the other
            blob = await call(request, Lane.READ, artifacts.get_sealed_file, place.sealed, place.path)
    except (ArtifactNotFoundError, RunNotFoundError, LoggedModelNotFoundError, ManifestNotFoundError):
        raise _no_such(place.text) from None
    return place, blob


def _no_such(text: str) -> ArtifactNotFoundError:
    return ArtifactNotFoundError(f"No such artifact: '{text[:300]}'", path=text[:300])


async def _send(request: AnyRequest, blob: ReadableBlob, path: str, *, is_fixed: bool = False) -> ASGIResponse:
    headers = {"content-disposition": f"attachment; filename*=UTF-8''{quote(basename(path), safe='')}"}
    if not is_fixed:
        headers["cache-control"] = "private, no-cache"  # the path may point at other bytes tomorrow
    return await wire.stream_blob(request, blob, headers)


class RunFileFields(Fields):
    """`/get-artifact`."""

    run_id: str = ""
    run_uuid: str = ""
    path: str = ""


async def read_run_artifact(request: AnyRequest, fields: RunFileFields) -> ASGIResponse:
    """Send a file of a run."""
    owner = _get_run_owner(fields.run_id or fields.run_uuid)
    path = check_safe(fields.path)
    return await _send(request, await call_inline(request, artifacts.open_artifact, owner, path), path)


class VersionFileFields(Fields):
    """`/model-versions/get-artifact`."""

    name: str = ""
    version: str = ""
    path: str = ""


async def read_version_artifact(request: AnyRequest, fields: VersionFileFields) -> ASGIResponse:
    """Send a file of a sealed version."""
    path, number = check_safe(fields.path), read_version_number(fields.version)
    blob = await call(request, Lane.READ, artifacts.get_version_file, fields.name, number, path)
    return await _send(request, blob, path, is_fixed=True)


class ModelFileFields(Fields):
    """A file of a logged model."""

    model_id: str = ""
    artifact_file_path: str = ""


async def read_logged_model_artifact(request: AnyRequest, fields: ModelFileFields) -> ASGIResponse:
    """Send a file of a logged model."""
    if not fields.artifact_file_path:
        message = 'Request must include the "artifact_file_path" query parameter.'
        raise InvalidFieldError(message, field="artifact_file_path")
    path = check_safe(fields.artifact_file_path)
    owner = _get_model_owner(fields.model_id)
    return await _send(request, await call_inline(request, artifacts.open_artifact, owner, path), path)


# ── lists ────────────────────────────────────────────────────────────────────────────────────────────────────────


class FileInfo(Message, kw_only=True):
    """FileInfo; a folder has no size."""

    path: str
    is_dir: bool
    file_size: int | None = None


class FileList(Message, kw_only=True):
    """ListArtifacts.Response. Never in pages."""

    root_uri: str | None = None
    files: Sequence[FileInfo] = ()


class FolderFields(Fields):
    """`?path=` of a listing."""

    path: str = ""


async def list_place(request: AnyRequest, fields: FolderFields) -> FileList:
    """Return what lies in a folder, by base name; nothing for a file and for what is not there."""
    place = find_place(fields.path)
    if place is None:
        return FileList()
    try:
        if place.owner is not None:
            found = await call(
                request,
                Lane.READ,
                artifacts.list_artifacts,
                place.owner,
                place.path,
                experiment_id=place.experiment_id,
            )
        else:
            assert place.sealed is not None  # noqa: S101 - a place is one or the other
            found = await call(request, Lane.READ, artifacts.list_sealed_files, place.sealed, place.path)
    except NotFoundError:
        return FileList()
    return FileList(files=tuple(_to_info(entry, basename(entry.path)) for entry in found))


def _to_info(entry: ArtifactEntry, path: str) -> FileInfo:
    return FileInfo(path=path, is_dir=entry.is_dir, file_size=None if entry.is_dir else entry.size_bytes)


class RunFolderFields(Fields):
    """ListArtifacts."""

    run_id: str = ""
    run_uuid: str = ""
    path: str = ""
    page_token: str = ""


async def list_run_artifacts(request: AnyRequest, fields: RunFolderFields) -> FileList:
    """Return what lies in a folder of a run, by path from its root."""
    run_id = fields.run_id or fields.run_uuid
    if not run_id:
        raise missing("run_id")
    path, owner = check_safe(fields.path), _get_run_owner(run_id)
    run = await call_inline(request, runs.get_run, owner.id)
    return await _list(request, owner, run.experiment_id, path)


class ModelFolderFields(Fields):
    """ListLoggedModelArtifacts."""

    model_id: str = ""
    artifact_directory_path: str = ""
    page_token: str = ""


async def list_logged_model_artifacts(request: AnyRequest, fields: ModelFolderFields) -> FileList:
    """Return what lies in a folder of a logged model, by path from its root."""
    path, owner = check_safe(fields.artifact_directory_path), _get_model_owner(fields.model_id)
    model = await call_inline(request, logged_models.get_logged_model, owner.id)
    return await _list(request, owner, model.experiment_id, path)


async def _list(request: AnyRequest, owner: ArtifactOwner, experiment_id: int, path: str) -> FileList:
    found = await call(request, Lane.READ, artifacts.list_artifacts, owner, path)
    files = tuple(_to_info(entry, entry.path) for entry in found)
    return FileList(root_uri=artifact_root(owner, experiment_id), files=files)


def _get_run_owner(run_id: str) -> ArtifactOwner:
    try:
        return ArtifactOwner("run", check_run_id(run_id))
    except InvalidFieldError:
        raise RunNotFoundError(run_id=run_id[:100]) from None


def _get_model_owner(model_id: str) -> ArtifactOwner:
    try:
        return ArtifactOwner("logged_model", check_logged_model_id(model_id))
    except InvalidFieldError:
        raise LoggedModelNotFoundError(model_id=model_id[:100]) from None


# ── addresses for other stores ───────────────────────────────────────────────────────────────────────────────────


class PresignFields(Fields):
    """CreatePresignedUploadUrl, CreatePresignedDownloadUrl."""

    run_id: str = ""
    model_id: str = ""
    path: str = ""
    expiration: int | None = None


async def refuse_presigned_upload(request: AnyRequest, fields: PresignFields) -> NoReturn:
    """Say that files go through this server, as MLflow does for a root like ours."""
    if bool(fields.run_id) == bool(fields.model_id):
        raise InvalidFieldError("Exactly one of run_id and model_id must be provided.", field="run_id")
    check_safe(fields.path)
    if fields.run_id:
        await call_inline(request, runs.get_run, _get_run_owner(fields.run_id).id)
    else:
        await call_inline(request, logged_models.get_logged_model, _get_model_owner(fields.model_id).id)
    message = (
        "Presigned upload is not supported for proxied artifact storage (artifact URI scheme: mlflow-artifacts). "
        "This endpoint requires a direct cloud storage artifact URI."
    )
    raise InvalidFieldError(message, field="path")


async def refuse_presigned_download(request: AnyRequest, fields: PresignFields) -> NoReturn:
    """Say that files go through this server, as MLflow does for a root like ours."""
    check_safe(fields.path)
    seconds = 300 if fields.expiration is None else fields.expiration
    if not 1 <= seconds <= 604_800:
        message = f"expiration must be between 1 and 604800 seconds (got {seconds})."
        raise InvalidFieldError(message, field="expiration")
    await call_inline(request, runs.get_run, _get_run_owner(fields.run_id).id)
    message = (
        "Presigned download is not supported for runs with proxied artifact storage (artifact URI scheme: "
        "mlflow-artifacts). This endpoint requires a run with a direct cloud storage artifact URI."
    )
    raise InvalidFieldError(message, field="path")


class PresignedAddress(msgspec.Struct, kw_only=True):
    """Where a file can be read in ranges."""

    url: str
    headers: dict[str, str]
    file_size: int


async def presign_artifact(request: AnyRequest, fields: PlaceFields) -> PresignedAddress:
    """Return an address of this server's from which the file can be read in ranges, several at once.

    It names the bytes and not the path, so that ranges read while the path is written again still fit together.
    """
    place, blob = await open_place(request, fields.path)
    if place.owner is not None:
        path = f"/v2/{place.owner.repository}/blobs/{blob.digest}"
    else:
        path = f"/api/2.0/mlflow-artifacts/artifacts/{quote(place.text)}"
    return PresignedAddress(url=public_address(request) + path, headers={}, file_size=blob.size_bytes)


_PROXY = "2.0/mlflow-artifacts/artifacts"
_ONE = _PROXY + "/{path*}"
_MODEL = "2.0/mlflow/logged-models/{model_id}/artifacts/"
_PRESIGN = "2.0/mlflow/artifacts/presigned-"
OPERATIONS = (
    Operation(method="GET", path=_PROXY, handler=list_place, fields=FolderFields),
    Operation(method="GET", path=_ONE, handler=read_artifact, fields=PlaceFields),
    Operation(method="PUT", path=_ONE, handler=put_artifact, fields=PlaceFields, is_json=False),
    Operation(method="DELETE", path=_ONE, handler=delete_artifact, fields=PlaceFields, is_json=False),
    Operation(
        method="GET", path="2.0/mlflow-artifacts/presigned/{path*}", handler=presign_artifact, fields=PlaceFields
    ),
    Operation(method="GET", path="2.0/mlflow/artifacts/list", handler=list_run_artifacts, fields=RunFolderFields),
    Operation(method="GET", path=_MODEL + "directories", handler=list_logged_model_artifacts, fields=ModelFolderFields),
    Operation(method="GET", path=_MODEL + "files", handler=read_logged_model_artifact, fields=ModelFileFields),
    Operation(
        method="POST", path="2.0/mlflow/upload-artifact", handler=post_artifact, fields=PostedFields, is_json=False
    ),
    Operation(method="GET", path="/get-artifact", handler=read_run_artifact, fields=RunFileFields, required=("path",)),
    Operation(
        method="GET",
        path="/model-versions/get-artifact",
        handler=read_version_artifact,
        fields=VersionFileFields,
        required=("name", "version", "path"),
    ),
    Operation(
        method="POST",
        path=_PRESIGN + "upload-url",
        handler=refuse_presigned_upload,
        fields=PresignFields,
        required=("path",),
    ),
    Operation(
        method="POST",
        path=_PRESIGN + "download-url",
        handler=refuse_presigned_download,
        fields=PresignFields,
        required=("run_id", "path"),
    ),
)

"""Artifacts over HTTP: the list of files of a run or a logged model. Their bytes move on /v2."""

from __future__ import annotations

from touchmark.domain.errors import (
    ArtifactNotFoundError,
    BlobNotFoundError,
    InvalidDigestError,
    InvalidPathError,
    LoggedModelNotFoundError,
    RunDeletedError,
    RunNotFoundError,
)
from touchmark.domain.tracking import ArtifactOwner
from touchmark.protocols.native import schemas
from touchmark.protocols.native.operations import Operation
from touchmark.services import artifacts
from touchmark.wire import AnyRequest, Lane, call


async def set_run_artifacts(request: AnyRequest, run_id: str, body: schemas.NewFiles) -> None:
    """Let paths of a run point at blobs uploaded into its repository: all of them or none."""
    await call(request, Lane.WRITE, artifacts.set_artifacts, ArtifactOwner("run", run_id), body.files)


async def list_run_artifacts(request: AnyRequest, run_id: str, query: schemas.ArtifactsQuery) -> schemas.Artifacts:
    """Return what lies in a folder of a run."""
    return await _list_artifacts(request, ArtifactOwner("run", run_id), query)


async def delete_run_artifacts(request: AnyRequest, run_id: str, query: schemas.ArtifactQuery) -> None:
    """Take a file, or a folder with all below it, out of a run's list; registered versions keep it."""
    await call(request, Lane.WRITE, artifacts.delete_artifacts, ArtifactOwner("run", run_id), query.path)


async def set_logged_model_artifacts(request: AnyRequest, model_id: str, body: schemas.NewFiles) -> None:
    """Let paths of a logged model point at blobs uploaded into its repository: all of them or none."""
    await call(request, Lane.WRITE, artifacts.set_artifacts, ArtifactOwner("logged_model", model_id), body.files)


async def list_logged_model_artifacts(
    request: AnyRequest, model_id: str, query: schemas.ArtifactsQuery
) -> schemas.Artifacts:
    """Return what lies in a folder of a logged model."""
    return await _list_artifacts(request, ArtifactOwner("logged_model", model_id), query)


async def delete_logged_model_artifacts(request: AnyRequest, model_id: str, query: schemas.ArtifactQuery) -> None:
    """Take a file, or a folder with all below it, out of a logged model's list; registered versions keep it."""
    await call(request, Lane.WRITE, artifacts.delete_artifacts, ArtifactOwner("logged_model", model_id), query.path)


async def _list_artifacts(
    request: AnyRequest, owner: ArtifactOwner, query: schemas.ArtifactsQuery
) -> schemas.Artifacts:
    if query.recursive:
        items = [
            schemas.ArtifactAnswer(
                path=file.path,
                is_dir=False,
                size_bytes=file.size_bytes,
                digest=file.digest,
                updated_at=file.updated_at,
            )
            for file in await call(request, Lane.READ, artifacts.list_artifact_files, owner, query.path)
        ]
    else:
        items = [
            schemas.ArtifactAnswer(
                path=entry.path,
                is_dir=entry.is_dir,
                size_bytes=entry.size_bytes,
                digest=entry.digest,
                updated_at=None,
            )
            for entry in await call(request, Lane.READ, artifacts.list_artifacts, owner, query.path)
        ]
    return schemas.Artifacts(items=items)


_RUN = "/runs/{run_id}/artifacts"
_MODEL = "/logged-models/{model_id}/artifacts"
_SET = (InvalidPathError, InvalidDigestError, BlobNotFoundError)
_DELETE = (InvalidPathError, ArtifactNotFoundError)

OPERATIONS = (
    Operation(method="PUT", path=_RUN, handler=set_run_artifacts, errors=(*_SET, RunNotFoundError, RunDeletedError)),
    Operation(method="GET", path=_RUN, handler=list_run_artifacts, errors=(InvalidPathError, RunNotFoundError)),
    Operation(
        method="DELETE",
        path=_RUN,
        handler=delete_run_artifacts,
        errors=(*_DELETE, RunNotFoundError, RunDeletedError),
    ),
    Operation(method="PUT", path=_MODEL, handler=set_logged_model_artifacts, errors=(*_SET, LoggedModelNotFoundError)),
    Operation(
        method="GET",
        path=_MODEL,
        handler=list_logged_model_artifacts,
        errors=(InvalidPathError, LoggedModelNotFoundError),
    ),
    Operation(
        method="DELETE",
        path=_MODEL,
        handler=delete_logged_model_artifacts,
        errors=(*_DELETE, LoggedModelNotFoundError),
    ),
)

"""Model versions over HTTP: register, read, resolve, compare, describe, tag, evaluate, deprecate, delete, restore."""

from __future__ import annotations

from typing import Any

import msgspec

from touchmark.domain.errors import (
    AliasNotFoundError,
    BlobMissingError,
    IdempotencyMismatchError,
    InvalidDigestError,
    InvalidManifestError,
    InvalidNameError,
    InvalidReferenceError,
    InvalidSourceError,
    InvalidTagError,
    LoggedModelNotFoundError,
    LoggedModelNotReadyError,
    ModelNotFoundError,
    NameTakenError,
    NothingToRegisterError,
    RunNotFoundError,
    TagNotFoundError,
    VersionDeletedError,
    VersionNotDeletedError,
    VersionNotFoundError,
    VersionPurgedError,
    VersionUnsealedError,
)
from touchmark.domain.references import parse_version_number
from touchmark.domain.versions import ModelVersion, VersionState
from touchmark.protocols.native import schemas
from touchmark.protocols.native.numbers import from_number, to_number, to_numbers
from touchmark.protocols.native.operations import Operation, do_not_keep, read_key
from touchmark.services import registration, versions
from touchmark.wire import AnyRequest, Lane, call, call_inline


def to_version(version: ModelVersion) -> schemas.Version:
    """Return a version as it goes over the wire."""
    deprecation, progress = version.deprecation, version.importing
    return schemas.Version(
        name=version.name,
        model_id=version.model_id,
        version=version.version,
        version_id=version.version_id,
        state=version.state.value,
        sealed=version.sealed,
        digest=version.digest,
        content_digest=version.content_digest,
        size_bytes=version.size_bytes,
        file_count=version.file_count,
        source=version.source,
        run_id=version.run_id,
        logged_model_id=version.logged_model_id,
        parent=version.parent,
        same_bytes_as=version.same_bytes_as,
        description=version.description,
        stage=version.stage.value,
        status_message=version.status_message,
        run_link=version.run_link,
        created_at=version.created_at,
        created_by=version.created_by,
        updated_at=version.updated_at,
        deleted_at=version.deleted_at,
        deprecation=None
        if deprecation is None
        else schemas.Deprecation(reason=deprecation.reason, replaced_by=deprecation.replaced_by, at=deprecation.at),
        tags=dict(version.tags),
        aliases=list(version.aliases),
        origin=dict(version.origin),
        metrics=to_numbers(version.metrics),
        contents=None if version.contents is None else dict(version.contents),
        importing=None
        if progress is None
        else schemas.ImportProgress(
            done_bytes=progress.done_bytes,
            total_bytes=progress.total_bytes,
            done_files=progress.done_files,
            total_files=progress.total_files,
        ),
    )


async def register_version(request: AnyRequest, name: str, body: schemas.NewVersion) -> schemas.Version:
    """Register what a source names as the model's next version; the model comes into being if it is not there."""
    made = await call(
        request,
        Lane.WRITE,
        registration.register_version,
        name,
        body.source,
        description=body.description,
        tags=body.tags,
        parents=body.parents,
        run_link=body.run_link,
        key=read_key(request, body),
        imports=request.app.state.imports,
    )
    if made.state is VersionState.PENDING and request.app.state.importer is not None:
        request.app.state.importer.wake()
    return to_version(made)


async def get_version(request: AnyRequest, name: str, version: str, query: schemas.VersionQuery) -> schemas.Version:
    """Return a version with what the headers of its files say, or how far the import of its files is."""
    number = parse_version_number(version)
    found = await call_inline(request, versions.get_version, name, number, deleted=query.include_deleted)
    if found.state is VersionState.PENDING:
        do_not_keep(request)
    return to_version(found)


async def update_version(request: AnyRequest, name: str, version: str, body: schemas.VersionChanges) -> schemas.Version:
    """Change a version's description."""
    number = parse_version_number(version)
    return to_version(
        await call(request, Lane.WRITE, versions.update_version, name, number, description=body.description)
    )


async def delete_version(request: AnyRequest, name: str, version: str) -> None:
    """Delete a version and the aliases that point at it; its number stays taken, its bytes stay."""
    await call(request, Lane.WRITE, versions.delete_version, name, parse_version_number(version))


async def restore_version(request: AnyRequest, name: str, version: str) -> schemas.Version:
    """Bring a deleted version back; its aliases do not come back by themselves."""
    return to_version(await call(request, Lane.WRITE, versions.restore_version, name, parse_version_number(version)))


async def deprecate_version(
    request: AnyRequest, name: str, version: str, body: schemas.NewDeprecation
) -> schemas.Version:
    """Say that a version should not be used any more: it loads with a warning, `latest` passes over it."""
    number = parse_version_number(version)
    reason, instead = body.reason, body.replaced_by
    made = await call(request, Lane.WRITE, versions.deprecate_version, name, number, reason=reason, replaced_by=instead)
    return to_version(made)


async def set_version_tags(request: AnyRequest, name: str, version: str, body: schemas.TagChanges) -> None:
    """Set tags of a version; the others stay."""
    await call(request, Lane.WRITE, versions.set_version_tags, name, parse_version_number(version), body.tags)


async def delete_version_tag(request: AnyRequest, name: str, version: str, query: schemas.TagQuery) -> None:
    """Delete a tag of a version."""
    await call(request, Lane.WRITE, versions.delete_version_tag, name, parse_version_number(version), query.key)


async def record_evaluation(
    request: AnyRequest, name: str, version: str, body: schemas.NewEvaluation
) -> schemas.Evaluation:
    """Add later results to a version; its origin stays as it was frozen."""
    metrics = {key: from_number(f"metrics.{key}", value) for key, value in body.metrics.items()}
    key = read_key(request, body)
    number = parse_version_number(version)
    made = await call(
        request, Lane.WRITE, versions.record_evaluation, name, number, metrics, dataset=body.dataset, key=key
    )
    return _to_evaluation(made)


async def list_evaluations(request: AnyRequest, name: str, version: str) -> schemas.Evaluations:
    """Return a version's evaluations, oldest first."""
    found = await call(request, Lane.READ, versions.list_evaluations, name, parse_version_number(version))
    return schemas.Evaluations(items=[_to_evaluation(item) for item in found])


def _to_evaluation(item: versions.Evaluation) -> schemas.Evaluation:
    return schemas.Evaluation(
        metrics=to_numbers(item.metrics), dataset=item.dataset, at=item.at, by=item.by, log_index=item.log_index
    )


async def list_version_files(request: AnyRequest, name: str, version: str) -> schemas.Files:
    """Return the files of a sealed version."""
    found = await call(request, Lane.READ, versions.list_files, name, parse_version_number(version))
    return schemas.Files(
        digest=found.digest,
        content_digest=found.content_digest,
        items=[schemas.File(path=file.path, size_bytes=file.size_bytes, digest=file.digest) for file in found.files],
    )


async def resolve(request: AnyRequest, query: schemas.ReferenceQuery) -> schemas.Resolved:
    """Return what a reference means now: enough to pin it, and to fetch it."""
    found = await call_inline(request, versions.resolve, query.ref)
    return schemas.Resolved(
        reference=found.reference,
        name=found.name,
        model_id=found.model_id,
        version=found.version,
        digest=found.digest,
        state=found.state.value,
        sealed=found.sealed,
        size_bytes=found.size_bytes,
        file_count=found.file_count,
        source=found.source,
        run_id=found.run_id,
        moved_to=found.moved_to,
        warning=found.warning,
        status_message=found.status_message,
    )


async def diff_versions(request: AnyRequest, query: schemas.DiffQuery) -> schemas.Diff:
    """Compare two versions: files, tags, params, metrics and contents."""
    found = await call(request, Lane.READ, versions.diff_versions, query.left, query.right)
    return msgspec.convert({**found, "metrics": _to_number_changes(found["metrics"])}, schemas.Diff)


def _to_number_changes(changes: dict[str, Any]) -> dict[str, Any]:
    return {
        "added": {key: to_number(float(text)) for key, text in changes["added"].items()},
        "removed": {key: to_number(float(text)) for key, text in changes["removed"].items()},
        "changed": {
            key: {side: to_number(float(text)) for side, text in pair.items()}
            for key, pair in changes["changed"].items()
        },
    }


_ABSENT = (InvalidNameError, InvalidReferenceError, ModelNotFoundError, VersionNotFoundError)
_UNREAD = (
    InvalidReferenceError, ModelNotFoundError, VersionNotFoundError, AliasNotFoundError, VersionDeletedError,
)  # fmt: skip
_PATH = "/models/{name}/versions/{version}"

OPERATIONS = (
    Operation(
        method="POST",
        path="/models/{name}/versions",
        handler=register_version,
        status=201,
        keyed=True,
        errors=(
            *_ABSENT, InvalidSourceError, InvalidTagError, InvalidDigestError, InvalidManifestError, NothingToRegisterError,
            RunNotFoundError, LoggedModelNotFoundError, AliasNotFoundError, LoggedModelNotReadyError, VersionDeletedError,
            VersionUnsealedError, NameTakenError, IdempotencyMismatchError, BlobMissingError,
        ),
    ),
    Operation(method="GET", path=_PATH, handler=get_version, is_catalogue=True, errors=_ABSENT),
    Operation(method="PATCH", path=_PATH, handler=update_version, errors=_ABSENT),
    Operation(method="DELETE", path=_PATH, handler=delete_version, errors=_ABSENT),
    Operation(
        method="POST", path=f"{_PATH}/restore", handler=restore_version, errors=(*_ABSENT, VersionNotDeletedError)
    ),
    Operation(
        method="POST",
        path=f"{_PATH}/deprecate",
        handler=deprecate_version,
        errors=(*_ABSENT, AliasNotFoundError, VersionDeletedError),
    ),
    Operation(method="PUT", path=f"{_PATH}/tags", handler=set_version_tags, errors=(*_ABSENT, InvalidTagError)),
    Operation(
        method="DELETE",
        path=f"{_PATH}/tags",
        handler=delete_version_tag,
        errors=(*_ABSENT, InvalidTagError, TagNotFoundError),
    ),
    Operation(
        method="POST",
        path=f"{_PATH}/evaluations",
        handler=record_evaluation,
        status=201,
        keyed=True,
        errors=(*_ABSENT, IdempotencyMismatchError),
    ),
    Operation(method="GET", path=f"{_PATH}/evaluations", handler=list_evaluations, errors=_ABSENT),
    Operation(
        method="GET",
        path=f"{_PATH}/files",
        handler=list_version_files,
        errors=(*_ABSENT, VersionUnsealedError, VersionPurgedError),
    ),
    Operation(method="GET", path="/resolve", handler=resolve, is_catalogue=True, errors=_UNREAD),
    Operation(method="GET", path="/diff", handler=diff_versions, errors=(*_UNREAD, VersionUnsealedError)),
)  # fmt: skip

"""Model versions: read, resolve, compare, describe, tag, evaluate, deprecate, delete, restore."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from touchmark import permissions
from touchmark.artifacts.manifests import parse_manifest
from touchmark.contents import compare_contents
from touchmark.domain.access import Action, Principal, Resource
from touchmark.domain.aliases import parse_alias
from touchmark.domain.digest import Digest
from touchmark.domain.errors import (
    InvalidFieldError,
    LimitExceededError,
    ModelNotFoundError,
    TagNotFoundError,
    VersionDeletedError,
    VersionNotDeletedError,
    VersionNotFoundError,
    VersionUnsealedError,
)
from touchmark.domain.events import Effect, EventKind, SubjectKind
from touchmark.domain.idempotency import IdempotencyKey
from touchmark.domain.names import ModelName, parse_model_name
from touchmark.domain.references import AliasReference, LatestReference, ModelReference, parse_model_reference
from touchmark.domain.tags import check_tag_key, check_tags
from touchmark.domain.text import SHORT_TEXT_LIMIT, check_optional_text, check_text, end_sentence
from touchmark.domain.tracking import BATCH_LIMIT, Metric, Run, RunStatus, check_metric, format_number
from touchmark.domain.versions import ModelVersion, ResolvedVersion, VersionFile, VersionState
from touchmark.registry import Registry
from touchmark.services.models import plan_tags
from touchmark.storage import aliases, idempotency, import_progress, leases, ledger, manifests
from touchmark.storage import versions as rows
from touchmark.storage.engine import Tx

COMPLETED_LIMIT = 100
"""Versions of a run, the newest ones, that are looked at when it ends."""


def get_version(
    registry: Registry,
    who: Principal,
    name: str,
    version: int,
    *,
    deleted: bool = False,
    follow: bool = True,
    contents: bool = True,
) -> ModelVersion:
    """Return a version with its tags, aliases and, if `contents`, what the headers of its files say.

    Of one that waits for its files, how far their import is, and in `status_message` what that waits for.

    A deleted one only if `deleted`. A name the model had once is followed if `follow`.

    Raises InvalidNameError, ModelNotFoundError, VersionNotFoundError.
    """
    name = parse_model_name(name)
    with registry.read() as tx:
        permissions.require(tx, who, Action.READ_MODEL, Resource("model", name))
        row = rows.get_row(tx, name, version, deleted=deleted, follow=follow)
        found = rows.to_versions(tx, [row], contents=contents)[0]
        if found.state is not VersionState.PENDING or not contents:
            return found
        trouble = leases.find_trouble(tx, found.version_id)
        return replace(
            found,
            importing=import_progress.find_progress(tx, found.version_id),
            status_message=trouble or found.status_message,
        )


def get_version_by_alias(registry: Registry, who: Principal, name: str, alias: str) -> ModelVersion:
    """Return the version an alias points at, or the newest for `latest` in any case, by its model's present name.

    Raises InvalidNameError, InvalidAliasError, ModelNotFoundError, AliasNotFoundError, VersionNotFoundError.
    """
    name = parse_model_name(name)
    pointer: ModelReference = (
        LatestReference(name) if alias.lower() == "latest" else AliasReference(name, parse_alias(alias))
    )
    with registry.read() as tx:
        permissions.require(tx, who, Action.READ_MODEL, Resource("model", name))
        row = rows.find_target(tx, pointer)
        if row.name != name:
            raise ModelNotFoundError(name=name)
        return rows.to_versions(tx, [row])[0]


def resolve(registry: Registry, who: Principal, reference: str) -> ResolvedVersion:
    """Return what a reference means now, in one statement. Old names of a model are followed and said in `moved_to`.

    Raises InvalidReferenceError, ModelNotFoundError, VersionNotFoundError, AliasNotFoundError, VersionDeletedError.
    """
    parsed = parse_model_reference(reference)
    with registry.read() as tx:
        permissions.require(tx, who, Action.READ_MODEL, Resource("model", parsed.name))
        row = _get_undeleted(tx, parsed)
        warning = None
        if row.deprecated_at is not None:
            instead = f" Use {row.replaced_by} instead." if row.replaced_by else ""
            warning = f"{row.name}/{row.number} is deprecated: {end_sentence(row.deprecation_reason)}{instead}"
        return ResolvedVersion(
            reference=reference,
            model_id=row.owner_id,
            name=ModelName(row.name),
            version=row.number,
            digest=Digest(row.digest) if row.digest else None,
            state=VersionState(row.state),
            size_bytes=row.size_bytes,
            file_count=row.file_count,
            source=row.source,
            run_id=row.run_id,
            moved_to=row.name if row.name != parsed.name else None,
            warning=warning,
            status_message=row.status_message,
        )


def _get_undeleted(tx: Tx, reference: ModelReference) -> Any:
    row = rows.find_target(tx, reference)
    if row.deleted_at is not None:
        raise VersionDeletedError(name=row.name, version=row.number)
    return row


@dataclass(frozen=True, slots=True)
class VersionFiles:
    """The files of a sealed version, by path, and the digests that name them together."""

    digest: Digest
    content_digest: Digest
    files: Sequence[VersionFile]


def list_files(registry: Registry, who: Principal, name: str, version: int) -> VersionFiles:
    """Return a sealed version's files. Raises ModelNotFoundError, VersionNotFoundError, VersionUnsealedError."""
    name = parse_model_name(name)
    with registry.read() as tx:
        permissions.require(tx, who, Action.READ_MODEL, Resource("model", name))
        return _read_files(tx, rows.get_row(tx, name, version, follow=True))


def _read_files(tx: Tx, row: Any) -> VersionFiles:
    stored = manifests.find_manifest(tx, row.digest) if row.digest else None
    if stored is None:
        reason = row.status_message or "it has no manifest."
        raise VersionUnsealedError(name=row.name, version=row.number, reason=reason)
    manifest = parse_manifest(stored.content)
    return VersionFiles(manifest.digest, manifest.content_digest, manifest.files)


def update_version(
    registry: Registry, who: Principal, name: str, version: int, *, description: str | None
) -> ModelVersion:
    """Change a version's description; None empties it. Raises ModelNotFoundError, VersionNotFoundError, InvalidFieldError."""
    name, description = parse_model_name(name), check_optional_text("description", description)
    with registry.write() as tx:
        permissions.require(tx, who, Action.EDIT_VERSION, Resource("model", name))
        row = rows.get_row(tx, name, version)
        if row.description != description:
            record_change(
                tx, who, EventKind.VERSION_UPDATED, row, {"description": row.description}, {"description": description}
            )
        return get_again(tx, row)


def record_change(
    tx: Tx,
    who: Principal,
    kind: EventKind,
    row: Any,
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    *more: Effect,
) -> None:
    """Append the event that changes fields of a version's row; `more` effects stand before that one."""
    effect = Effect(SubjectKind.VERSION, {"version_id": row.version_id}, before, after)
    ledger.append(tx, who, kind, [*more, effect], model_id=row.model_id, name=row.name, version=row.number)


def get_again(tx: Tx, row: Any) -> ModelVersion:
    """Return the version of a row as it stands now. Raises VersionNotFoundError."""
    fresh = rows.find_row_by_id(tx, row.version_id)
    if fresh is None:
        raise VersionNotFoundError(name=row.name, version=row.number)
    return rows.to_versions(tx, [fresh])[0]


def delete_version(registry: Registry, who: Principal, name: str, version: int) -> None:
    """Delete a version and the aliases that point at it. Its number stays taken, its record and bytes stay.

    Raises ModelNotFoundError, VersionNotFoundError.
    """
    name = parse_model_name(name)
    with registry.write() as tx:
        permissions.require(tx, who, Action.DELETE_VERSION, Resource("model", name))
        row = rows.get_row(tx, name, version)
        moved = [
            Effect(SubjectKind.ALIAS, {"model_id": row.model_id, "alias": alias.alias}, {"number": alias.version}, None)
            for alias in aliases.list_aliases(tx, row.model_id, ModelName(row.name), version)
        ]
        record_change(tx, who, EventKind.VERSION_DELETED, row, {"deleted": False}, {"deleted": True}, *moved)


def restore_version(registry: Registry, who: Principal, name: str, version: int) -> ModelVersion:
    """Bring a deleted version back; its aliases do not come back by themselves.

    Raises ModelNotFoundError, VersionNotFoundError, VersionNotDeletedError.
    """
    name = parse_model_name(name)
    with registry.write() as tx:
        permissions.require(tx, who, Action.RESTORE_VERSION, Resource("model", name))
        row = rows.get_row(tx, name, version, deleted=True)
        if row.deleted_at is None:
            raise VersionNotDeletedError(name=name, version=version)
        record_change(tx, who, EventKind.VERSION_RESTORED, row, {"deleted": True}, {"deleted": False})
        return get_again(tx, row)


def deprecate_version(
    registry: Registry, who: Principal, name: str, version: int, *, reason: str, replaced_by: str | None = None
) -> ModelVersion:
    """Say that a version should not be used any more: it loads with a warning, and `latest` passes over it.

    Raises InvalidFieldError, InvalidReferenceError, ModelNotFoundError, VersionNotFoundError, AliasNotFoundError.
    """
    name, reason = parse_model_name(name), check_text("reason", reason)
    if not reason.strip():
        raise InvalidFieldError(field="reason", reason="say why, in a sentence")
    instead = parse_model_reference(replaced_by) if replaced_by is not None else None
    with registry.write() as tx:
        permissions.require(tx, who, Action.DEPRECATE_VERSION, Resource("model", name))
        row = rows.get_row(tx, name, version)
        if instead is not None and _get_undeleted(tx, instead).version_id == row.version_id:
            raise InvalidFieldError(field="replaced_by", reason="a version cannot replace itself")
        after = {"deprecated": True, "deprecation_reason": reason, "replaced_by": replaced_by}
        before = {
            "deprecated": row.deprecated_at is not None, "deprecation_reason": row.deprecation_reason,
            "replaced_by": row.replaced_by,
        }  # fmt: skip
        if before != after:
            record_change(tx, who, EventKind.VERSION_DEPRECATED, row, before, after)
        return get_again(tx, row)


def set_version_tags(registry: Registry, who: Principal, name: str, version: int, tags: Mapping[str, str]) -> None:
    """Set tags of a version; the others stay. Raises InvalidTagError, ModelNotFoundError, VersionNotFoundError."""
    name, tags = parse_model_name(name), check_tags(tags)
    with registry.write() as tx:
        permissions.require(tx, who, Action.SET_TAG, Resource("model", name))
        row = rows.get_row(tx, name, version)
        before = rows.find_tags(tx, row.version_id, list(tags))
        effects = plan_tags(SubjectKind.VERSION_TAG, {"version_id": row.version_id}, before, tags)
        if effects:
            about = {"model_id": row.model_id, "name": row.name, "version": row.number}
            ledger.append(tx, who, EventKind.VERSION_TAG_SET, effects, **about)


def delete_version_tag(
    registry: Registry, who: Principal, name: str, version: int, tag: str, *, missing_ok: bool = False
) -> None:
    """Delete a tag of a version. Raises ModelNotFoundError, VersionNotFoundError, TagNotFoundError unless `missing_ok`."""
    name, tag = parse_model_name(name), check_tag_key(tag)
    with registry.write() as tx:
        permissions.require(tx, who, Action.SET_TAG, Resource("model", name))
        row = rows.get_row(tx, name, version)
        before = rows.find_tags(tx, row.version_id, [tag])
        if not before:
            if missing_ok:
                return
            raise TagNotFoundError(key=tag)
        effect = Effect(
            SubjectKind.VERSION_TAG, {"version_id": row.version_id, "key": tag}, {"value": before[tag]}, None
        )
        about = {"model_id": row.model_id, "name": row.name, "version": row.number}
        ledger.append(tx, who, EventKind.VERSION_TAG_DELETED, [effect], **about)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Results recorded after registration. `at` is microseconds UTC, `by` the author, `log_index` its log entry."""

    metrics: Mapping[str, float]
    dataset: str | None
    at: int
    by: str
    log_index: int


def record_evaluation(
    registry: Registry,
    who: Principal,
    name: str,
    version: int,
    metrics: Mapping[str, float],
    *,
    dataset: str | None = None,
    key: IdempotencyKey | None = None,
) -> Evaluation:
    """Add later results to a version; its origin stays as it was frozen, search and comparison see the newest value.

    Raises InvalidNameError, InvalidFieldError, LimitExceededError, ModelNotFoundError, VersionNotFoundError,
    IdempotencyMismatchError.
    """
    name = parse_model_name(name)
    dataset = check_optional_text("dataset", dataset, SHORT_TEXT_LIMIT)
    if not metrics:
        raise InvalidFieldError(field="metrics", reason="name at least one metric and its value")
    if len(metrics) > BATCH_LIMIT:
        raise LimitExceededError(what="One evaluation", limit=BATCH_LIMIT, unit="metrics")
    checked = [check_metric(Metric(key, value, at=0)) for key, value in sorted(metrics.items())]
    values = {metric.key: format_number(metric.value) for metric in checked}
    with registry.write() as tx:
        permissions.require(tx, who, Action.RECORD_EVALUATION, Resource("model", name))
        row = rows.get_row(tx, name, version)
        known = idempotency.find_outcome(tx, who, key)
        if known is None:
            after = {"dataset": dataset, "metrics": json.dumps(values, sort_keys=True, ensure_ascii=False)}
            effect = Effect(SubjectKind.EVALUATION, {"version_id": row.version_id, "index": tx.index}, None, after)
            known = str(tx.index)
            about = {"model_id": row.model_id, "name": row.name, "version": row.number}
            ledger.append(tx, who, EventKind.EVALUATION_RECORDED, [effect], **about)
            idempotency.keep_outcome(tx, who, key, known)
        return next(found for found in _list_evaluations(tx, row.version_id) if found.log_index == int(known))


def complete_versions(registry: Registry, who: Principal, run: Run) -> None:
    """Add to the last version of each model registered from a run, while it ran, the metrics that it was measured by since.

    Training code often measures a model after it has logged and registered it. The origin stays as it was frozen, and so
    does every metric a version has: those logged since under new names are added, as an evaluation. Doing it again adds
    nothing. Versions before the last are checkpoints, which a later measurement does not speak of.
    """
    with registry.read() as tx:
        permissions.require(tx, who, Action.RECORD_EVALUATION, Resource("run", run.run_id))
        last: dict[int, Any] = {}
        for row in rows.list_of_run(tx, run.run_id, COMPLETED_LIMIT) if run.metrics else ():
            last.setdefault(row.model_id, row)
        found = rows.to_versions(tx, list(last.values()))
    for version in found:
        origin = version.origin.get("run") or {}
        new = sorted(run.metrics.keys() - version.metrics.keys())[:BATCH_LIMIT]
        if new and origin.get("status") == RunStatus.RUNNING.value:
            metrics = {key: run.metrics[key].value for key in new}
            record_evaluation(registry, who, version.name, version.version, metrics)


def list_evaluations(registry: Registry, who: Principal, name: str, version: int) -> list[Evaluation]:
    """Return a version's evaluations, oldest first. Raises ModelNotFoundError, VersionNotFoundError."""
    name = parse_model_name(name)
    with registry.read() as tx:
        permissions.require(tx, who, Action.READ_MODEL, Resource("model", name))
        return _list_evaluations(tx, rows.get_row(tx, name, version, follow=True).version_id)


def _list_evaluations(tx: Tx, version_id: int) -> list[Evaluation]:
    return [
        Evaluation(
            {key: float(value) for key, value in json.loads(row.metrics).items()} if row.metrics[:1] == "{" else {},
            row.dataset,
            row.at,
            row.by,
            row.log_index,
        )
        for row in rows.list_evaluations(tx, version_id)
    ]


def diff_versions(registry: Registry, who: Principal, left: str, right: str) -> dict[str, Any]:
    """Compare two versions: files, tags, params, metrics, contents (schema, flavours, requirements).

    Returns a plain dictionary: `files` {added, removed, changed, same_count}; `tags`, `params`, `metrics`
    {added, removed, changed}; `contents` from contents.compare_contents; `same_bytes`.
    Raises InvalidReferenceError, ModelNotFoundError, VersionNotFoundError, AliasNotFoundError, VersionDeletedError.
    """
    references = [parse_model_reference(left), parse_model_reference(right)]
    with registry.read() as tx:
        for reference in references:
            permissions.require(tx, who, Action.READ_MODEL, Resource("model", reference.name))
        targets = [_get_undeleted(tx, reference) for reference in references]
        one, two = (rows.to_versions(tx, [target], contents=True)[0] for target in targets)
        files_one, files_two = (
            {file.path: (file.digest, file.size_bytes) for file in _read_files(tx, target).files}
            if target.digest
            else {}
            for target in targets
        )
    common = files_one.keys() & files_two.keys()
    changed = sorted(path for path in common if files_one[path] != files_two[path])
    return {
        "left": f"{one.name}/{one.version}",
        "right": f"{two.name}/{two.version}",
        "same_bytes": one.content_digest is not None and one.content_digest == two.content_digest,
        "files": {
            "added": _describe(files_two, files_two.keys() - files_one.keys()),
            "removed": _describe(files_one, files_one.keys() - files_two.keys()),
            "changed": [
                {"path": path, "left": _one_file(files_one[path]), "right": _one_file(files_two[path])}
                for path in changed
            ],
            "same_count": len(common) - len(changed),
        },
        "tags": _compare(one.tags, two.tags),
        "params": _compare(one.origin.get("params", {}), two.origin.get("params", {})),
        "metrics": _compare(
            {key: format_number(value) for key, value in one.metrics.items()},
            {key: format_number(value) for key, value in two.metrics.items()},
        ),
        "contents": compare_contents(dict(one.contents or {}), dict(two.contents or {})),
    }


def _one_file(file: tuple[str, int]) -> dict[str, Any]:
    return {"digest": file[0], "size_bytes": file[1]}


def _describe(files: Mapping[str, tuple[str, int]], paths: set[str]) -> list[dict[str, Any]]:
    return [{"path": path, **_one_file(files[path])} for path in sorted(paths)]


def _compare(left: Mapping[str, str], right: Mapping[str, str]) -> dict[str, Any]:
    """Return what was added, removed and changed between two mappings."""
    return {
        "added": {key: right[key] for key in sorted(right.keys() - left.keys())},
        "removed": {key: left[key] for key in sorted(left.keys() - right.keys())},
        "changed": {
            key: {"left": left[key], "right": right[key]}
            for key in sorted(left.keys() & right.keys())
            if left[key] != right[key]
        },
    }

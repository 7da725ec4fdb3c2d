"""Registration: from a source to a sealed version. Bytes before rows: everything is stored before the number is taken.

The list of files is taken as it stands, becomes a manifest, and one transaction over names and digests takes the next
number and appends the event. No byte of the model is copied, so the time does not depend on its size.

A version whose files are not here can be registered too, as *unsealed*: it has no digest, and says why. It may be sealed
later, once (`seal_version`), when its files were imported.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import msgspec

from touchmark import permissions
from touchmark.artifacts.manifests import (
    CONFIG_BYTES,
    Manifest,
    build_manifest,
    parse_manifest,
)
from touchmark.domain.access import Action, Principal, Resource
from touchmark.domain.addresses import ImportRules, find_address
from touchmark.domain.digest import Digest
from touchmark.domain.errors import (
    BlobMissingError,
    InvalidError,
    InvalidFieldError,
    InvalidSourceError,
    LimitExceededError,
    LoggedModelNotFoundError,
    LoggedModelNotReadyError,
    NothingToRegisterError,
    RunNotFoundError,
    VersionDeletedError,
    VersionUnsealedError,
)
from touchmark.domain.events import Effect, EventKind, SubjectKind
from touchmark.domain.idempotency import IdempotencyKey
from touchmark.domain.lineage import Edge, NodeKind, Relation, build_origin, encode_origin, list_edges
from touchmark.domain.names import ModelName, parse_model_name
from touchmark.domain.references import (
    MAX_VERSION,
    DigestReference,
    LoggedModelReference,
    ModelReference,
    RunReference,
    parse_model_reference,
    parse_reference,
)
from touchmark.domain.tags import check_tags
from touchmark.domain.text import SOURCE_LIMIT, check_optional_text, check_text
from touchmark.domain.tracking import KEY_LIMIT, ArtifactOwner, LoggedModel, LoggedModelStatus, Run
from touchmark.domain.versions import ModelVersion, Stage, VersionFile, VersionState
from touchmark.registry import Registry
from touchmark.services.manifests import read_headers, record
from touchmark.services.models import plan_creation
from touchmark.storage import (
    artifacts,
    blobs,
    experiments,
    idempotency,
    ledger,
    logged_models,
    manifests,
    models,
    runs,
    versions,
)
from touchmark.storage.engine import Tx

NOTED_LIMIT = 100
"""Versions the tag of a logged model lists, the last ones: it is read and written whole by each registration."""
NO_IMPORTS = ImportRules()
"""No address is on the list."""
WAITING = "Its files are being imported."
"""What a version says while it waits for them."""
PARENTS_LIMIT = 100
"""Parents one version may name."""


@dataclass(frozen=True, slots=True)
class _Candidate:
    """What a source turned out to be: a manifest, or the reason why there is none, and where it comes from."""

    manifest: Manifest | None
    is_recorded: bool  # False: the manifest is new, and the headers of its files are still to be read
    reason: str | None = None
    run: Run | None = None
    experiment: str | None = None
    logged_model: LoggedModel | None = None
    copy_of: int | None = None  # a version_id
    copy_label: str | None = None
    inherited: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Said:
    """What another protocol's client says of a version's files (see `register_address`)."""

    source: str
    reference: ModelReference | RunReference | LoggedModelReference | None
    reason: str | None
    run_id: str | None
    logged_model_id: str | None
    allow_unsealed: bool


@dataclass(frozen=True, slots=True)
class _Words:
    """What people say of a new version; it decides nothing."""

    source: str
    description: str | None
    run_link: str | None
    tags: Mapping[str, str]
    parents: Sequence[ModelReference] = ()
    state: VersionState = VersionState.READY
    noted_in: str | None = None  # a tag of the logged model that lists the versions made from it
    names_copied: bool = False  # a copy's source is recorded as `models:/NAME/3`, however it was spelled
    is_once: bool = False  # an undeleted version with the same manifest is the answer, and none is made


def register_version(
    registry: Registry,
    who: Principal,
    name: str,
    source: str,
    *,
    description: str | None = None,
    tags: Mapping[str, str] | None = None,
    parents: Sequence[str] = (),
    run_link: str | None = None,
    key: IdempotencyKey | None = None,
    imports: ImportRules = NO_IMPORTS,
) -> ModelVersion:
    """Register what `source` names as the next version of `name`; the model comes into being if it is not there.

    Args:
        registry: where.
        who: who asks; becomes the version's author.
        name: the registered model.
        source: `runs:/RUN/PATH`, `models:/m-…`, `models:/other/3`, `models:/other@alias` or `models:/name@sha256:…`;
            or an address (domain/addresses.py): the version then waits for its files if `imports` has it, else it is unsealed.
        description: free text.
        tags: tags of the new version.
        parents: references to versions this one was derived from (a fine-tune's base).
        run_link: where to look at the training run, for people.
        key: makes a re-sent request answer with the version it made the first time.
        imports: from where files may be imported, and whether a version may stay without.

    Raises InvalidNameError, InvalidSourceError, InvalidTagError, NothingToRegisterError, the NotFound case of the source,
    LoggedModelNotReadyError, VersionDeletedError, VersionUnsealedError, BlobMissingError, NameTakenError.

    """
    name = parse_model_name(name)
    source = check_text("source", source, SOURCE_LIMIT)
    if len(parents) > PARENTS_LIMIT:
        raise LimitExceededError(what="A version's parents", limit=PARENTS_LIMIT, unit="references")
    words = _Words(
        source,
        check_optional_text("description", description),
        check_optional_text("run_link", run_link, SOURCE_LIMIT),
        check_tags(tags),
        [parse_model_reference(parent) for parent in parents],
    )
    address = find_address(source)
    if address is None:
        find = partial(_find_candidate, reference=_parse_source(source), source=source)
    else:
        reason = imports.find_refusal(address)
        words = replace(words, state=VersionState.PENDING if reason is None else VersionState.READY)
        find = partial(_find_or_explain, reference=None, source=source, reason=reason)
    return _register(registry, who, name, find, words, key)


def register_address(
    registry: Registry,
    who: Principal,
    name: str,
    source: str,
    *,
    reference: str | None,
    reason: str | None = None,
    run_id: str | None = None,
    logged_model_id: str | None = None,
    description: str | None = None,
    tags: Mapping[str, str] | None = None,
    run_link: str | None = None,
    allow_unsealed: bool = True,
    pending: bool = False,
    noted_in: str | None = None,
) -> ModelVersion:
    """Register what another protocol's client names: sealed if its files are here, else unsealed with the reason.

    Args:
        registry: where.
        who: who asks; becomes the version's author.
        name: the registered model; unlike in `register_version`, it must be there.
        source: the address as the client spells it; kept, never opened.
        reference: what that is in our own words (as `register_version` takes), None if it lies elsewhere.
        reason: why it cannot be read, where `reference` is None.
        run_id: the run it is said to come from, known here or not.
        logged_model_id: the logged model it is said to be, known here or not.
        description: free text.
        tags: tags of the new version; unlike `register_version`, a copy takes over no tags and no description.
        run_link: where to look at the training run, for people.
        allow_unsealed: keep a version whose files are not here; otherwise it is refused.
        pending: a version whose files are not here is to be imported: it stands as PENDING_REGISTRATION until then.
        noted_in: a tag of the logged model, where there is one, to list the version in.

    Raises InvalidNameError, InvalidSourceError (also where the source contradicts `run_id` or `logged_model_id`, and for
    an unsealed one that is not allowed), InvalidTagError, ModelNotFoundError, VersionNotFoundError, AliasNotFoundError of
    a version that is copied, VersionDeletedError, BlobMissingError, NameTakenError.

    """
    name = parse_model_name(name)
    source = check_text("source", source, SOURCE_LIMIT)
    run_id = check_optional_text("run_id", run_id, KEY_LIMIT) or None
    logged_model_id = check_optional_text("model_id", logged_model_id, KEY_LIMIT) or None
    parsed = None if reference is None else _parse_source(reference)
    words = _Words(
        source,
        check_optional_text("description", description),
        check_optional_text("run_link", run_link, SOURCE_LIMIT),
        check_tags(tags),
        state=VersionState.PENDING if pending else VersionState.READY,
        noted_in=noted_in,
        names_copied=True,
    )

    said = _Said(source, parsed, reason, run_id, logged_model_id, allow_unsealed=allow_unsealed)
    return _register(registry, who, name, lambda tx: _find_said(tx, name, said), words, None)


def register_manifest(registry: Registry, who: Principal, name: ModelName, digest: Digest) -> ModelVersion:
    """Return the undeleted version of a model that has a manifest; without one, register the manifest as the next.

    Two that ask at once are given one version. Raises what `register_version` does.
    """
    reference = DigestReference(name, digest)
    words = _Words(f"models:/{name}@{digest}", None, None, {}, is_once=True)
    find = partial(_find_candidate, reference=reference, source=words.source)
    return _register(registry, who, name, find, words, None)


def _register(
    registry: Registry,
    who: Principal,
    name: ModelName,
    find: Callable[[Tx], _Candidate],
    words: _Words,
    key: IdempotencyKey | None,
) -> ModelVersion:
    with registry.read() as tx:
        permissions.require(tx, who, Action.REGISTER_VERSION, Resource("model", name))
        known = idempotency.find_outcome(tx, who, key)
        if known is not None:
            return versions.get_by_id(tx, int(known))
        candidate = find(tx)
    contents = None
    if candidate.manifest is not None and not candidate.is_recorded:
        contents = read_headers(registry.blobs, candidate.manifest)  # before any lock is taken
        registry.blobs.put(CONFIG_BYTES)
    with registry.write() as tx, tx.send_together():
        permissions.require(tx, who, Action.REGISTER_VERSION, Resource("model", name))  # it may have been taken away
        known = idempotency.find_outcome(tx, who, key)
        if known is not None:
            return versions.get_by_id(tx, int(known))
        if words.is_once and candidate.manifest is not None:
            held = versions.find_id_by_digest(tx, name, candidate.manifest.digest)
            if held is not None:
                return versions.get_by_id(tx, held)
        version_id = _record(tx, who, name, candidate, contents, words)
        idempotency.keep_outcome(tx, who, key, str(version_id))
        return versions.get_by_id(tx, version_id)


def _parse_source(source: str) -> ModelReference | RunReference | LoggedModelReference:
    if not source.startswith(("models:/", "runs:/")):
        reason = (
            "write runs:/RUN/PATH, models:/m-ID, models:/NAME/VERSION or an address (s3://, gs://, az://, https://, hf://); the "
            "server opens no file and no address of its own"
        )
        raise InvalidSourceError(source=source[:300], reason=reason)
    reference = parse_reference(source)
    if not isinstance(reference, RunReference) and reference.path is not None:
        raise InvalidSourceError(
            source=source[:300], reason="a version is registered whole, leave out the path after it"
        )
    return reference


# ── what the source holds ────────────────────────────────────────────────────────────────────────────────────────


def _find_candidate(tx: Tx, reference: ModelReference | RunReference | LoggedModelReference, source: str) -> _Candidate:
    if isinstance(reference, RunReference):
        return _from_run(tx, reference, source)
    if isinstance(reference, LoggedModelReference):
        model = logged_models.find_logged_model(tx, reference.model_id)
        if model is None or model.deleted_at is not None:
            raise LoggedModelNotFoundError(model_id=reference.model_id)
        return _from_logged_model(tx, model, source)
    return _from_version(tx, reference)


def _find_or_explain(
    tx: Tx, reference: ModelReference | RunReference | LoggedModelReference | None, source: str, reason: str | None
) -> _Candidate:
    """Return what a source holds; where nothing can be had, a candidate that says why."""
    if reference is None:
        return _Candidate(None, is_recorded=True, reason=reason)
    try:
        return _find_candidate(tx, reference, source)
    except VersionUnsealedError as error:
        return replace(_copy_of(tx, reference), reason=str(error.fields["reason"]))  # type: ignore[arg-type]
    except (RunNotFoundError, LoggedModelNotFoundError, LoggedModelNotReadyError, NothingToRegisterError) as error:
        run = runs.find_run(tx, reference.run_id) if isinstance(reference, RunReference) else None
        return _Candidate(None, is_recorded=True, reason=error.message, run=run)


def _find_said(tx: Tx, name: ModelName, said: _Said) -> _Candidate:
    """Return the candidate of a source as another protocol's client describes it."""
    models.get_row(tx, name)
    candidate = _agree(tx, _find_or_explain(tx, said.reference, said.source, said.reason), said)
    if candidate.manifest is None and not said.allow_unsealed:
        reason = (candidate.reason or "it is not here").rstrip(".")
        raise InvalidSourceError(source=said.source[:300], reason=reason)
    return candidate


def _agree(tx: Tx, candidate: _Candidate, said: _Said) -> _Candidate:
    """Fill in what the caller says of the origin, and refuse what contradicts it."""
    source, run_id, logged_model_id = said.source, said.run_id, said.logged_model_id
    inherited = dict(candidate.inherited)
    found_model = inherited.get("logged_model_id") or (candidate.logged_model and candidate.logged_model.model_id)
    if found_model and logged_model_id and found_model != logged_model_id:
        reason = f"it is logged model {found_model}, and model_id says {logged_model_id}: they must match"
        raise InvalidSourceError(source=source[:300], reason=reason)
    found_run = inherited.get("run_id") or (candidate.run and candidate.run.run_id)
    if found_run and run_id and found_run != run_id:
        if candidate.manifest is None or candidate.copy_of is not None or candidate.logged_model is not None:
            reason = f"it comes from run {found_run}, and run_id says {run_id}: they must match"
            raise InvalidSourceError(source=source[:300], reason=reason)
        reason = f"The source lies in run {found_run!r}, and run_id says {run_id!r}."
        candidate, found_run = _Candidate(None, is_recorded=True, reason=reason), None
    if found_run is None and run_id is not None and candidate.manifest is None:
        candidate = replace(candidate, run=runs.find_run(tx, run_id))
    # Tags, description and link are what the client sends: it copies those itself where it means to.
    kept = {key: inherited[key] for key in ("origin",) if key in inherited}
    kept |= {"run_id": found_run or run_id, "logged_model_id": found_model or logged_model_id}
    return replace(candidate, inherited=kept)


def _from_run(tx: Tx, reference: RunReference, source: str) -> _Candidate:
    run = runs.find_run(tx, reference.run_id)
    if run is None or run.deleted_at is not None:
        raise RunNotFoundError(run_id=reference.run_id)
    files = artifacts.list_files(tx, ArtifactOwner("run", run.run_id), reference.path)
    if files:
        return _from_files(tx, files, run=run)
    model = logged_models.find_in_run(tx, run.run_id, reference.path)
    if model is None:
        raise NothingToRegisterError(source=source)
    return _from_logged_model(tx, model, source, run=run)


def _from_logged_model(tx: Tx, model: LoggedModel, source: str, *, run: Run | None = None) -> _Candidate:
    if model.status is not LoggedModelStatus.READY:
        raise LoggedModelNotReadyError(model_id=model.model_id, status=model.status.value)
    if run is None and model.run_id is not None:
        run = runs.find_run(tx, model.run_id)
    files = artifacts.list_files(tx, ArtifactOwner("logged_model", model.model_id), "")
    if not files:
        raise NothingToRegisterError(source=source)
    return _from_files(tx, files, run=run, logged_model=model)


def _from_files(
    tx: Tx, files: Sequence[VersionFile], *, run: Run | None, logged_model: LoggedModel | None = None
) -> _Candidate:
    manifest = build_manifest(files)
    experiment = experiments.find_name(tx, run.experiment_id) if run is not None else None
    return _Candidate(manifest, manifests.is_recorded(tx, manifest.digest), None, run, experiment, logged_model)


def _from_version(tx: Tx, reference: ModelReference) -> _Candidate:
    if isinstance(reference, DigestReference):
        row = manifests.find_in_repository(
            tx, f"m/{models.get_row(tx, reference.name, follow=True).model_id}", None, reference.digest
        )
        if row is not None:
            return _Candidate(parse_manifest(row.content), is_recorded=True)
    candidate = _copy_of(tx, reference)
    if candidate.manifest is None:
        target = versions.find_target(tx, reference)
        raise VersionUnsealedError(name=target.name, version=target.number, reason=candidate.reason)
    return candidate


def _copy_of(tx: Tx, reference: ModelReference) -> _Candidate:
    """Return the candidate that copies a version, unsealed if that one is. Raises VersionDeletedError, BlobMissingError."""
    target = versions.find_target(tx, reference)
    if target.deleted_at is not None:
        raise VersionDeletedError(name=target.name, version=target.number)
    manifest, reason = None, target.status_message or "only a sealed version can be copied."
    if target.digest is not None and target.state == VersionState.READY:
        row = manifests.find_manifest(tx, target.digest)
        if row is None:
            raise BlobMissingError(digest=target.digest, path="manifest")
        manifest, reason = parse_manifest(row.content), None
    inherited = {
        "origin": target.origin, "run_id": target.run_id, "logged_model_id": target.logged_model_id,
        "description": target.description, "run_link": target.run_link,
        "tags": {r.key: r.value for r in versions.list_tags(tx, target.version_id)},
    }  # fmt: skip
    return _Candidate(
        manifest,
        is_recorded=True,
        reason=reason,
        copy_of=target.version_id,
        copy_label=f"{target.name}/{target.number}",
        inherited=inherited,
    )


def _note(tx: Tx, model_id: str, tag: str, before: str | None, name: ModelName, number: int) -> None:
    """Append to a tag of a logged model, a JSON list, which version was made from it."""
    try:
        listed = msgspec.json.decode(before or "[]")
    except (ValueError, RecursionError):
        return  # somebody wrote something else there
    if isinstance(listed, list):
        listed.append({"name": name, "version": number})
        logged_models.set_tags(tx, model_id, {tag: json.dumps(listed[-NOTED_LIMIT:])})


def prepare_manifest(registry: Registry, who: Principal, owner: ArtifactOwner, folder: str = "") -> None:
    """Record the manifest of an owner's files as they stand, unregistered, so that registering them is about names alone.

    All of them, or those below one folder.

    Reading the headers of a thousand files takes longer than registering them: it is done when the upload ends, not when
    somebody waits for a number. Files that no manifest may hold are left for the registration to refuse.
    """
    with registry.read() as tx:
        permissions.require(tx, who, Action.WRITE_TRACKING, Resource(owner.kind, owner.id))
        files = artifacts.list_files(tx, owner, folder)
        try:
            manifest = build_manifest(files)
        except InvalidError:
            return
        if manifests.is_recorded(tx, manifest.digest):
            return
    contents = read_headers(registry.blobs, manifest)
    registry.blobs.put(CONFIG_BYTES)
    with registry.track() as tx:
        record_manifest(tx, owner.repository, manifest, contents)


# ── the one transaction ──────────────────────────────────────────────────────────────────────────────────────────


def _record(
    tx: Tx,
    who: Principal,
    name: ModelName,
    candidate: _Candidate,
    contents: Mapping[str, Any] | None,
    words: _Words,
) -> int:
    manifest = candidate.manifest
    # What decides something is asked at once: while this waits for answers, every other writer waits for this.
    asked = models.ask_row(tx, name, None if manifest is None else manifest.content_digest)
    missing = None if manifest is None or contents is not None else manifests.ask_missing_blob(tx, manifest.digest)
    run, logged_model, noted_in = candidate.run, candidate.logged_model, words.noted_in
    notes = None
    if logged_model is not None and noted_in is not None:
        notes = logged_models.ask_tag(tx, logged_model.model_id, noted_in)
    fields: dict[str, str | None] = {"description": None, "owner": None, "contact": None}
    found = asked.first()
    _created, effects = plan_creation(tx, name, found, fields, {})
    model_id, number, same_bytes_as = tx.index, 1, None
    if found is not None:  # it was there, or comes back to life: the counter goes on
        model_id, number = found.model_id, found.version_count + 1
        same_bytes_as = found.same_bytes_as
    if number > MAX_VERSION:
        raise InvalidFieldError(field="version", reason="this model has used every number there is")
    if manifest is not None:
        _check_present(manifest, None if missing is None else missing.scalar())
        if contents is not None:
            record_manifest(tx, f"m/{model_id}", manifest, contents)
    inherited = candidate.inherited
    extra = None if manifest is not None else {"location": words.source}
    origin = inherited.get("origin") or encode_origin(
        build_origin(run=run, experiment=candidate.experiment, logged_model=logged_model, extra=extra)
    )
    run_id = inherited.get("run_id") or (run.run_id if run else logged_model.run_id if logged_model else None)
    logged_model_id = inherited.get("logged_model_id") or (logged_model.model_id if logged_model else None)
    version_id = tx.index
    is_awaited = manifest is None and words.state is VersionState.PENDING
    source = f"models:/{candidate.copy_label}" if words.names_copied and candidate.copy_label else words.source
    after = {
        "model_id": model_id, "number": number, "source": source, "run_id": run_id,
        "logged_model_id": logged_model_id, "parent": candidate.copy_label,
        "description": words.description if words.description is not None else inherited.get("description"),
        "stage": Stage.NONE.value, "status_message": WAITING if is_awaited else candidate.reason,
        "run_link": words.run_link if words.run_link is not None else inherited.get("run_link"), "origin": origin,
        **seal_columns(manifest, same_bytes_as, words.state),
    }  # fmt: skip
    effects.append(Effect(SubjectKind.VERSION, {"version_id": version_id}, None, after))
    all_tags = {**inherited.get("tags", {}), **words.tags}
    effects += [
        Effect(SubjectKind.VERSION_TAG, {"version_id": version_id, "key": k}, None, {"value": v})
        for k, v in sorted(all_tags.items())
    ]
    edges = list_edges(
        run_id=run_id,
        logged_model_id=logged_model_id,
        copy_of=str(candidate.copy_of) if candidate.copy_of is not None else None,
        parents=[str(versions.find_target(tx, parent).version_id) for parent in words.parents],
        datasets=run.datasets if run else (),
    )
    if candidate.copy_of is not None and run is None:
        edges += _inherited_edges(tx, candidate.copy_of, edges)
    effects += [edge_effect(version_id, edge) for edge in edges]
    ledger.append(tx, who, EventKind.VERSION_REGISTERED, effects, model_id=model_id, name=name, version=number)
    if logged_model is not None and noted_in is not None and notes is not None:
        present = name if found is None else ModelName(found.name)
        _note(tx, logged_model.model_id, noted_in, notes.scalar(), present, number)
    return version_id


def seal_columns(manifest: Manifest | None, same_bytes_as: int | None, state: VersionState) -> dict[str, Any]:
    """Return the columns that say whether, and as what, a version is sealed."""
    if manifest is None:
        empty = dict.fromkeys(("digest", "content_digest", "size_bytes", "file_count", "same_bytes_as"))
        return {**empty, "state": state.value}
    return {
        "state": VersionState.READY.value, "digest": manifest.digest, "content_digest": manifest.content_digest,
        "size_bytes": manifest.size_bytes, "file_count": len(manifest.files), "same_bytes_as": same_bytes_as,
    }  # fmt: skip


def record_manifest(tx: Tx, repository: str, manifest: Manifest, contents: Mapping[str, Any] | None) -> None:
    """Write a new manifest (`contents` is what its files' headers say), or see that a recorded one's blobs are there."""
    if contents is None:
        _check_present(manifest, manifests.ask_missing_blob(tx, manifest.digest).scalar())
        return
    blobs.record_blob(tx, repository, manifest.config.digest, manifest.config.size_bytes)
    _check_present(manifest, next(iter(blobs.list_missing(tx, [file.digest for file in manifest.files])), None))
    record(tx, manifest, contents)


def _check_present(manifest: Manifest, missing: str | None) -> None:
    """Raise BlobMissingError if a blob of the manifest is missing."""
    if missing is not None:
        path = next((file.path for file in manifest.files if file.digest == missing), "manifest")
        raise BlobMissingError(digest=missing, path=path)


def _inherited_edges(tx: Tx, copy_of: int, drawn: Sequence[Edge]) -> list[Edge]:
    known = {(edge.relation, edge.target) for edge in drawn}
    datasets = versions.list_edges(tx, copy_of, Relation.TRAINED_ON)
    return [
        Edge(Relation.TRAINED_ON, NodeKind.DATASET, row.target, row.detail)
        for row in datasets
        if (Relation.TRAINED_ON, row.target) not in known
    ]


def edge_effect(version_id: int, edge: Edge) -> Effect:
    """Return the effect that draws an edge from a version."""
    key = {
        "version_id": version_id, "relation": edge.relation.value, "target_kind": edge.target_kind.value,
        "target": edge.target,
    }  # fmt: skip
    return Effect(SubjectKind.EDGE, key, None, {"detail": edge.detail})

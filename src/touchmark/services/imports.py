"""Bringing in what another registry holds, under its own ids, numbers and times; what is here already is not changed.

Each function is one transaction (a long history takes several, its newest value last), so an import may be cut anywhere
and begun again. What may come is decided in domain/imports.py, what is read and fetched in ops/import_mlflow.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from touchmark import permissions
from touchmark.artifacts.blobs import StoredBlob
from touchmark.artifacts.manifests import CONFIG_BYTES, Manifest, build_manifest
from touchmark.domain.access import REGISTRY, Action, Principal
from touchmark.domain.errors import ConflictError, InvalidError, InvalidPathError, ModelNotFoundError, NotFoundError
from touchmark.domain.events import Effect, EventKind, SubjectKind
from touchmark.domain.imports import CleanLoggedModel, CleanRun, CleanVersion
from touchmark.domain.lineage import build_origin, encode_origin, list_edges
from touchmark.domain.names import ModelName, parse_model_name
from touchmark.domain.tracking import ArtifactOwner, Experiment
from touchmark.domain.versions import ModelVersion, VersionFile, VersionState
from touchmark.registry import Registry
from touchmark.services.manifests import read_headers
from touchmark.services.registration import edge_effect, record_manifest, seal_columns
from touchmark.services.versions import get_again, record_change
from touchmark.storage import artifacts, experiments, ledger, logged_models, manifests, models, runs, schema, versions
from touchmark.storage import imports as rows
from touchmark.storage.engine import Tx
from touchmark.storage.imports import PresentRun

_POINTS = 20_000  # measurements in one transaction: a long history must not keep other writers waiting


# ── tracking ─────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class PresentExperiment:
    """An experiment here: its id, and whether it came just now (or would)."""

    experiment_id: int
    is_new: bool


def find_experiment_id(registry: Registry, who: Principal, name: str) -> int | None:
    """Return the id of the experiment called `name`, deleted or not, or None."""
    with registry.read() as tx:
        permissions.require(tx, who, Action.ADMINISTER, REGISTRY)
        row = experiments.find_row(tx, name)
        return None if row is None else row.experiment_id


def import_experiment(registry: Registry, who: Principal, experiment: Experiment) -> PresentExperiment:
    """Bring in an experiment under its own id, or a new one if that is taken; one of that name gets what tags it lacks."""
    with registry.track() as tx:
        permissions.require(tx, who, Action.ADMINISTER, REGISTRY)
        made = rows.create_experiment(tx, experiment)
        experiment_id = experiments.get_row(tx, experiment.name).experiment_id if made is None else made
        rows.add_tags(tx, schema.experiment_tags, "experiment_id", experiment_id, experiment.tags)
        return PresentExperiment(experiment_id, made is not None)


def find_runs(registry: Registry, who: Principal, run_ids: Sequence[str]) -> dict[str, PresentRun]:
    """Return what is here of these runs, by id."""
    with registry.read() as tx:
        permissions.require(tx, who, Action.ADMINISTER, REGISTRY)
        return rows.find_runs(tx, run_ids)


def import_run(registry: Registry, who: Principal, clean: CleanRun) -> None:
    """Bring in a run, or what is new of it. The experiment must be here."""
    run, history = clean.run, clean.history
    for start in range(0, max(len(history), 1), _POINTS):
        with registry.track() as tx:
            permissions.require(tx, who, Action.ADMINISTER, REGISTRY)
            if start == 0:
                rows.add_run(tx, run)
                rows.add_run_side(tx, run)
            rows.add_history(tx, run.run_id, history[start : start + _POINTS])
            if start + _POINTS >= len(history):
                rows.set_latest(tx, run.run_id, run.metrics.values())


def find_logged_models(registry: Registry, who: Principal, model_ids: Sequence[str]) -> dict[str, int]:
    """Return when those of these logged models that are here were last changed (microseconds UTC)."""
    with registry.read() as tx:
        permissions.require(tx, who, Action.ADMINISTER, REGISTRY)
        return rows.find_logged_models(tx, model_ids)


def import_logged_model(registry: Registry, who: Principal, clean: CleanLoggedModel) -> bool:
    """Bring in a logged model, or what is new of it; answers whether it was not here. Its experiment and run must be."""
    with registry.track() as tx:
        permissions.require(tx, who, Action.ADMINISTER, REGISTRY)
        return rows.add_logged_model(tx, clean.model, clean.measurements)


def list_file_sizes(registry: Registry, who: Principal, owner: ArtifactOwner) -> dict[str, int]:
    """Return the size of every file of a run or logged model here, by path; none if there is no such owner."""
    with registry.read() as tx:
        permissions.require(tx, who, Action.ADMINISTER, REGISTRY)
        return rows.list_artifact_sizes(tx, owner.kind, owner.id)


def list_files(registry: Registry, who: Principal, owner: ArtifactOwner, prefix: str) -> list[VersionFile]:
    """Return the files of an owner below a folder, relative to it; a file alone under its base name."""
    with registry.read() as tx:
        permissions.require(tx, who, Action.ADMINISTER, REGISTRY)
        return artifacts.list_files(tx, owner, prefix)


def import_files(registry: Registry, who: Principal, owner: ArtifactOwner, files: Mapping[str, StoredBlob]) -> None:
    """Let paths of a run or logged model, deleted or not, point at bytes that are stored. The paths are checked.

    Raises InvalidPathError if a path here is a file and a folder, RunNotFoundError, LoggedModelNotFoundError.
    """
    folders = {path[:end] for path in files for end in _list_ends(path)}
    with registry.track() as tx:
        permissions.require(tx, who, Action.ADMINISTER, REGISTRY)
        if owner.kind == "run":
            runs.lock_row(tx, owner.id, deleted=True)
        else:
            logged_models.lock_row(tx, owner.id, deleted=True)
        blobs = [(blob.digest, blob.size_bytes) for blob in files.values()]
        rows.record_blobs(tx, owner.repository, blobs)
        artifacts.set_artifacts(tx, owner, {path: blob.digest for path, blob in files.items()}, dict(blobs))
        clash = artifacts.find_clash(tx, owner, [*files, *folders])
        if clash is not None:
            raise InvalidPathError(path=clash[1], reason=f"{clash[0]!r} is a file here, so it cannot hold files")


def _list_ends(path: str) -> list[int]:
    return [at for at, char in enumerate(path) if char == "/"]


# ── the registry ─────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class PresentModel:
    """A registered model here that holds a name now or held it once, with every version it ever had, by number."""

    name: ModelName
    is_deleted: bool
    description: str | None
    tags: Mapping[str, str]
    versions: Sequence[ModelVersion]


def find_model(registry: Registry, who: Principal, name: str) -> PresentModel | None:
    """Return the model that holds `name` now or held it once, or None. Raises InvalidNameError."""
    name = parse_model_name(name)
    with registry.read() as tx:
        permissions.require(tx, who, Action.ADMINISTER, REGISTRY)
        row = models.find_row(tx, name)
        if row is None:
            return None
        listed = versions.to_versions(tx, rows.list_version_rows(tx, row.model_id))
        model = models.get_model(tx, row.name) if row.deleted_at is None else None
        tags = model.tags if model is not None else {}
        return PresentModel(ModelName(row.name), row.deleted_at is not None, row.description, tags, listed)


@dataclass(frozen=True, slots=True)
class _Bytes:
    """Files as a manifest, and what is to be written of it; or why there is none."""

    manifest: Manifest | None
    contents: Mapping[str, Any] | None
    reason: str | None
    sizes: Sequence[tuple[str, int]] = ()


def import_version(
    registry: Registry,
    who: Principal,
    name: str,
    clean: CleanVersion,
    files: Sequence[VersionFile] | None,
    *,
    reason: str | None = None,
) -> ModelVersion:
    """Bring in a version under its own number, the next of its model: sealed, or unsealed with the reason.

    Its author and creation time elsewhere stand in its origin under `imported`, where its run's params, metrics and tags
    are frozen too, if that run is here. A number that is only known to be taken becomes a deleted version.

    Args:
        registry: where.
        who: who imports.
        name: the model, which must be here.
        clean: what is known of the version.
        files: its files, whose bytes are stored; None if they could not be had.
        reason: why not.

    Raises InvalidNameError, ModelNotFoundError, ConflictError if its number is not the next, BlobMissingError.

    """
    name = parse_model_name(name)
    found = _prepare(registry, who, files, reason)
    with registry.write() as tx:
        permissions.require(tx, who, Action.ADMINISTER, REGISTRY)
        row = models.find_row(tx, name)
        if row is None or row.deleted_at is not None:
            raise ModelNotFoundError(name=name)
        if clean.number != row.version_count + 1:
            message = f"The next version of {name!r} here is {row.version_count + 1}, not {clean.number}."
            raise ConflictError(message, name=name, version=clean.number)
        version_id, model_id = tx.index, row.model_id
        same = None
        if found.manifest is not None:
            rows.record_blobs(tx, f"m/{model_id}", found.sizes)
            record_manifest(tx, f"m/{model_id}", found.manifest, found.contents)
            same = versions.find_same_bytes(tx, model_id, found.manifest.content_digest)
        said = clean.status_message if clean.state is not VersionState.READY else found.reason
        origin, edges = _trace(tx, clean)
        after: dict[str, Any] = {
            "model_id": model_id, "number": clean.number, "source": clean.source, "run_id": clean.run_id,
            "logged_model_id": clean.logged_model_id,
            "parent": f"{clean.copied_from[0]}/{clean.copied_from[1]}" if clean.copied_from else None,
            "description": clean.description, "stage": clean.stage.value, "status_message": said,
            "run_link": clean.run_link, "origin": origin, **seal_columns(found.manifest, same, clean.state),
        }  # fmt: skip
        if clean.is_deleted:
            after["deleted"] = True
        effects = [Effect(SubjectKind.VERSION, {"version_id": version_id}, None, after)]
        effects += [
            Effect(SubjectKind.VERSION_TAG, {"version_id": version_id, "key": key}, None, {"value": value})
            for key, value in clean.tags.items()
        ]
        effects += [edge_effect(version_id, edge) for edge in edges]
        about = {"model_id": model_id, "name": row.name, "version": clean.number}
        ledger.append(tx, who, EventKind.VERSION_REGISTERED, effects, **about)
        made = versions.find_row_by_id(tx, version_id)
        return versions.to_versions(tx, [made] if made is not None else [])[0]


def _prepare(registry: Registry, who: Principal, files: Sequence[VersionFile] | None, reason: str | None) -> _Bytes:
    """Make the manifest and read the files' headers before any lock is taken."""
    if files is None:
        return _Bytes(None, None, reason)
    try:
        manifest = build_manifest(files)
    except InvalidError as error:
        return _Bytes(None, None, error.message)
    with registry.read() as tx:
        permissions.require(tx, who, Action.ADMINISTER, REGISTRY)
        is_recorded = manifests.is_recorded(tx, manifest.digest)
    contents = None if is_recorded else read_headers(registry.blobs, manifest)
    registry.blobs.put(CONFIG_BYTES)
    return _Bytes(manifest, contents, None, [(file.digest, file.size_bytes) for file in manifest.files])


def _trace(tx: Tx, clean: CleanVersion) -> tuple[str, list[Any]]:
    """Return a version's origin, as text, and its edges, from what is here of its run and logged model."""
    run = runs.find_run(tx, clean.run_id) if clean.run_id is not None else None
    logged = logged_models.find_logged_model(tx, clean.logged_model_id) if clean.logged_model_id is not None else None
    experiment = experiments.find_name(tx, run.experiment_id) if run is not None else None
    origin = build_origin(run=run, experiment=experiment, logged_model=logged, extra={"imported": dict(clean.imported)})
    copied = None
    if clean.copied_from is not None:
        with suppress(NotFoundError):
            copied = str(versions.get_row(tx, *clean.copied_from, deleted=True).version_id)
    edges = list_edges(
        run_id=clean.run_id,
        logged_model_id=clean.logged_model_id,
        copy_of=copied,
        parents=(),
        datasets=run.datasets if run is not None else (),
    )
    return encode_origin(origin), edges


def seal_imported_version(
    registry: Registry, who: Principal, version: ModelVersion, files: Sequence[VersionFile]
) -> ModelVersion:
    """Seal an imported version that stayed unsealed, now that its files could be had; it is sealed once.

    Raises InvalidError and its cases for files no manifest may hold, BlobMissingError, VersionNotFoundError.
    """
    build_manifest(files)
    found = _prepare(registry, who, files, None)
    with registry.write() as tx:
        permissions.require(tx, who, Action.ADMINISTER, REGISTRY)
        row = versions.get_row(tx, version.name, version.version)
        if row.digest is not None or row.state != VersionState.READY or found.manifest is None:
            return get_again(tx, row)
        rows.record_blobs(tx, f"m/{row.model_id}", found.sizes)
        record_manifest(tx, f"m/{row.model_id}", found.manifest, found.contents)
        same = versions.find_same_bytes(tx, row.model_id, found.manifest.content_digest)
        columns = {**seal_columns(found.manifest, same, VersionState.READY), "status_message": None}
        after = {name: value for name, value in columns.items() if getattr(row, name) != value}
        record_change(tx, who, EventKind.VERSION_SEALED, row, {name: getattr(row, name) for name in after}, after)
        return get_again(tx, row)

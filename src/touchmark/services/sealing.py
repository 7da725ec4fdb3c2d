"""Versions that wait for their files: which ones do, who fetches them, and how the wait ends.

A version may be registered before its files are here (registration.register_address with `pending`). It is sealed once,
when its files were imported, or stays unsealed with the reason; both are one event. What fetches bytes is
ops/upstreams.py: several processes may, and a lease keeps two from fetching the same version.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from touchmark import permissions
from touchmark.artifacts.manifests import CONFIG_BYTES, Manifest, build_manifest
from touchmark.domain.access import REGISTRY, Action, Principal
from touchmark.domain.errors import VersionNotFoundError
from touchmark.domain.events import Effect, EventKind
from touchmark.domain.lineage import build_origin, encode_origin, list_edges
from touchmark.domain.tracking import LoggedModel, Run
from touchmark.domain.versions import ImportProgress, ModelVersion, VersionFile, VersionState
from touchmark.registry import Registry
from touchmark.services.manifests import read_headers
from touchmark.services.registration import edge_effect, record_manifest, seal_columns
from touchmark.services.versions import get_again, record_change
from touchmark.storage import blobs, import_progress, leases, versions
from touchmark.storage.engine import Tx

LEASE_SECONDS = 20
"""How long a version is fetched by one process before another may try; renewed all the while it works."""


def claim_pending(registry: Registry, who: Principal, holder: str) -> ModelVersion | None:
    """Return the oldest version that waits for its files and that nobody fetches, leased to `holder`; or None."""
    with registry.track() as tx:
        permissions.require(tx, who, Action.ADMINISTER, REGISTRY)
        row = leases.find_unleased(tx)
        if row is None or not leases.take(tx, row.version_id, holder, tx.now + LEASE_SECONDS * 1_000_000):
            return None
        return versions.to_versions(tx, [row])[0]


def renew_lease(registry: Registry, who: Principal, version_id: int, holder: str) -> bool:
    """Keep a lease for another while; answers False if somebody else has it now."""
    with registry.track() as tx:
        permissions.require(tx, who, Action.ADMINISTER, REGISTRY)
        return leases.take(tx, version_id, holder, tx.now + LEASE_SECONDS * 1_000_000)


def note_progress(
    registry: Registry,
    who: Principal,
    version_id: int,
    holder: str,
    progress: ImportProgress,
    files: Sequence[tuple[VersionFile, str | None]] = (),
) -> bool:
    """Keep a lease, and note how far the import is and which files came, each with its mark; False if another has the lease.

    From the first note on something of the version was readable, so that it can fail, and not be left unsealed.
    """
    with registry.track() as tx:
        permissions.require(tx, who, Action.ADMINISTER, REGISTRY)
        if not leases.take(tx, version_id, holder, tx.now + LEASE_SECONDS * 1_000_000):
            return False
        import_progress.set_progress(tx, version_id, progress)
        import_progress.record_files(tx, version_id, files)
        return True


def note_trouble(registry: Registry, who: Principal, version_id: int, holder: str, trouble: str | None) -> None:
    """Note what the import of a version waits for, for whoever looks at the version meanwhile; None: it goes on."""
    with registry.track() as tx:
        permissions.require(tx, who, Action.ADMINISTER, REGISTRY)
        leases.set_trouble(tx, version_id, holder, trouble)


def list_fetched(registry: Registry, who: Principal, version_id: int) -> dict[str, tuple[VersionFile, str | None]]:
    """Return the files of a waiting version that are here already, by path, each with the mark it had."""
    with registry.read() as tx:
        permissions.require(tx, who, Action.ADMINISTER, REGISTRY)
        return import_progress.list_files(tx, version_id)


def release(registry: Registry, who: Principal, version_id: int, holder: str) -> None:
    """Give a lease back before its time, so that another process may go on at once."""
    with registry.track() as tx:
        permissions.require(tx, who, Action.ADMINISTER, REGISTRY)
        if leases.take(tx, version_id, holder, tx.now - 1):
            leases.drop(tx, version_id)


def seal_version(
    registry: Registry,
    who: Principal,
    version_id: int,
    files: Sequence[VersionFile],
    *,
    run: Run | None,
    logged_model: LoggedModel | None,
    experiment: str | None,
    imported: Mapping[str, Any],
) -> ModelVersion:
    """Seal a waiting version with files whose bytes are stored here, and freeze where they came from.

    One that waits no longer (deleted, or sealed by somebody else) is left as it is. `imported` says which server told it.
    Raises InvalidManifestError, InvalidPathError, LimitExceededError, NothingToRegisterError for files no manifest may
    hold, BlobMissingError, VersionNotFoundError.
    """
    manifest: Manifest = build_manifest(files)
    contents = read_headers(registry.blobs, manifest)
    registry.blobs.put(CONFIG_BYTES)
    origin = encode_origin(
        build_origin(run=run, experiment=experiment, logged_model=logged_model, extra={"imported": dict(imported)})
    )
    with registry.write() as tx:
        permissions.require(tx, who, Action.ADMINISTER, REGISTRY)
        row = _get_row(tx, version_id)
        _forget(tx, version_id)
        if row.state != VersionState.PENDING or row.deleted_at is not None:
            return get_again(tx, row)
        blobs.record_blobs(tx, f"m/{row.model_id}", {file.digest: file.size_bytes for file in manifest.files})
        record_manifest(tx, f"m/{row.model_id}", manifest, contents)
        same = versions.find_same_bytes(tx, row.model_id, manifest.content_digest)
        found_run = run.run_id if run is not None else logged_model.run_id if logged_model is not None else None
        after = {
            **seal_columns(manifest, same, VersionState.READY), "status_message": None, "origin": origin,
            "run_id": row.run_id or found_run,
        }  # fmt: skip
        edges = list_edges(
            run_id=found_run if row.run_id is None else None,
            logged_model_id=None,
            copy_of=None,
            parents=(),
            datasets=run.datasets if run is not None else (),
        )
        _change(tx, who, EventKind.VERSION_SEALED, row, after, *(edge_effect(version_id, edge) for edge in edges))
        return get_again(tx, row)


def give_up(registry: Registry, who: Principal, version_id: int, reason: str, *, failed: bool) -> ModelVersion:
    """End a wait without files: the version stays unsealed and says why; with `failed` it cannot be used at all.

    One of which something was readable fails in any case: nobody can say of it that it is out of reach.
    """
    with registry.write() as tx:
        permissions.require(tx, who, Action.ADMINISTER, REGISTRY)
        row = _get_row(tx, version_id)
        failed = failed or import_progress.find_progress(tx, version_id) is not None
        state = VersionState.FAILED if failed else VersionState.READY
        _forget(tx, version_id)
        if row.state == VersionState.PENDING:
            _change(tx, who, EventKind.VERSION_UNSEALED, row, {"state": state.value, "status_message": reason})
        return get_again(tx, row)


def _forget(tx: Tx, version_id: int) -> None:
    leases.drop(tx, version_id)
    import_progress.drop(tx, version_id)


def _get_row(tx: Tx, version_id: int) -> Any:
    row = versions.find_row_by_id(tx, version_id)
    if row is None:
        raise VersionNotFoundError(name=f"#{version_id}", version="")
    return row


def _change(tx: Tx, who: Principal, kind: EventKind, row: Any, after: Mapping[str, Any], *more: Effect) -> None:
    changed = {field: value for field, value in after.items() if getattr(row, field) != value}
    record_change(tx, who, kind, row, {field: getattr(row, field) for field in changed}, changed, *more)

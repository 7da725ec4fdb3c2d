"""Rows of artifacts: the list of files of a run or a logged model, each a path that points at a blob.

A folder is no row: it is the paths below it, the range of keys from `FOLDER/` up to `FOLDER0` (`0` is the character
after `/`, and paths are ordered by their bytes). No LIKE, so no path is ever a pattern.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

from sqlalchemy import ColumnElement, Row, and_, bindparam, delete, func, or_, select

from touchmark.domain.digest import Digest
from touchmark.domain.errors import LoggedModelNotFoundError, NotFoundError, RunDeletedError, RunNotFoundError
from touchmark.domain.tracking import Artifact, ArtifactOwner
from touchmark.domain.versions import VersionFile
from touchmark.storage import dialect, logged_models, runs
from touchmark.storage import schema as s
from touchmark.storage.engine import Prepared, Tx

A, B, RB = s.artifacts.c, s.blobs.c, s.repository_blobs.c

CHUNK = 10_000
"""Values in one IN list; SQLite takes 32,766 parameters in a statement."""

_OWNED = and_(A.owner_kind == bindparam("p_kind"), A.owner_id == bindparam("p_id"))
_BELOW = and_(A.path >= bindparam("p_low"), A.path < bindparam("p_high"))
_COLUMNS = select(A.path, A.digest, A.size_bytes, A.updated_at).where(_OWNED)
_EVERY_FILE = Prepared(_COLUMNS.order_by(A.path))
_FILES_BELOW = _COLUMNS.where(_BELOW).order_by(A.path)
_FILES_AT = Prepared(_COLUMNS.where(or_(A.path == bindparam("p_path"), _BELOW)).order_by(A.path))
_HAS_BELOW = Prepared(select(A.path).where(_OWNED, _BELOW).limit(1))
_ONE_FILE = Prepared(_COLUMNS.where(A.path == bindparam("p_path")))
_SIZES = (
    select(B.digest, B.size_bytes)
    .join(s.repository_blobs, RB.digest == B.digest)
    .where(
        RB.repository == bindparam("p_repository"),
        B.state == "stored",
        B.digest.in_(bindparam("p_digests", expanding=True)),
    )
)
# The first file below each path, looked up in the index path by path. As a join of two ranges PostgreSQL compared every
# pair: 76 s for 10,000 files.
_inner = s.artifacts.alias("inner_file")
_first_below = (
    select(func.min(_inner.c.path))
    .where(
        _inner.c.owner_kind == bindparam("p_kind"),
        _inner.c.owner_id == bindparam("p_id"),
        _inner.c.path >= A.path + "/",
        _inner.c.path < A.path + "0",
    )
    .scalar_subquery()
)
_named = (
    select(A.path, _first_below.label("below"))
    .where(_OWNED, A.path.in_(bindparam("p_paths", expanding=True)))
    .subquery()
)
_CLASH = select(_named).where(_named.c.below.is_not(None)).order_by(_named.c.path).limit(1)


def check_owner(tx: Tx, owner: ArtifactOwner, *, deleted: bool = False, experiment_id: int | None = None) -> None:
    """Refuse an owner that does not exist, or lies in another experiment, or is deleted unless `deleted`.

    Raises RunNotFoundError, RunDeletedError, LoggedModelNotFoundError.
    """
    row = runs.find_row(tx, owner.id) if owner.kind == "run" else logged_models.find_row(tx, owner.id)
    if row is None:
        raise _not_found(owner)
    _check_experiment(row, owner, experiment_id)
    if row.deleted_at is not None and not deleted:
        raise RunDeletedError(run_id=owner.id) if owner.kind == "run" else _not_found(owner)


def lock_owner(tx: Tx, owner: ArtifactOwner, *, experiment_id: int | None = None) -> None:
    """Hold the undeleted owner's row alone, so that its list of files has one writer. Raises as `check_owner` does."""
    row = runs.lock_row(tx, owner.id) if owner.kind == "run" else logged_models.lock_row(tx, owner.id)
    _check_experiment(row, owner, experiment_id)


def _check_experiment(row: Row[Any], owner: ArtifactOwner, experiment_id: int | None) -> None:
    if experiment_id is not None and row.experiment_id != experiment_id:
        raise _not_found(owner)


def _not_found(owner: ArtifactOwner) -> NotFoundError:
    return RunNotFoundError(run_id=owner.id) if owner.kind == "run" else LoggedModelNotFoundError(model_id=owner.id)


def list_files(tx: Tx, owner: ArtifactOwner, prefix: str) -> list[VersionFile]:
    """Return the files below the folder `prefix` (all, if it is empty) by path, relative to it, in one statement.

    A `prefix` that names one file gives that file under its base name.
    """
    start = len(prefix) + 1 if prefix else 0
    rows = (
        tx.all(_FILES_AT, **_names(owner, prefix), p_path=prefix)
        if prefix
        else tx.all(_EVERY_FILE, p_kind=owner.kind, p_id=owner.id)
    )
    alone = prefix.rpartition("/")[2]
    # Unpacked, not read by name: a thousand files are listed on every registration of a thousand files.
    return [VersionFile(path[start:] or alone, size_bytes, digest) for path, digest, size_bytes, _at in rows]


def list_artifacts(tx: Tx, owner: ArtifactOwner, prefix: str) -> list[Artifact]:
    """Return the file at `prefix` or those below it (all, if it is empty), by path, in one statement."""
    if not prefix:
        return [_to_artifact(row) for row in tx.all(_EVERY_FILE, p_kind=owner.kind, p_id=owner.id)]
    return [_to_artifact(row) for row in tx.all(_FILES_AT, **_names(owner, prefix), p_path=prefix)]


def list_below(tx: Tx, owner: ArtifactOwner, folder: str) -> list[Artifact]:
    """Return the files below a folder (all, if it is empty), by path; none if `folder` is a file."""
    if not folder:
        return list_artifacts(tx, owner, "")
    return [_to_artifact(row) for row in tx.all(_FILES_BELOW, **_names(owner, folder))]


def find_artifact(tx: Tx, owner: ArtifactOwner, path: str) -> Artifact | None:
    """Return one file or None."""
    row = tx.first(_ONE_FILE, p_kind=owner.kind, p_id=owner.id, p_path=path)
    return None if row is None else _to_artifact(row)


def is_folder(tx: Tx, owner: ArtifactOwner, path: str) -> bool:
    """Answer whether there is a file below `path`."""
    return tx.first(_HAS_BELOW, **_names(owner, path)) is not None


def find_sizes(tx: Tx, owner: ArtifactOwner, digests: Iterable[Digest]) -> dict[str, int]:
    """Return the sizes of those blobs that are stored and were uploaded into the owner's repository.

    One statement for every 10,000.
    """
    wanted = sorted(set(digests))
    return {
        row.digest: row.size_bytes
        for start in range(0, len(wanted), CHUNK)
        for row in tx.all(_SIZES, p_repository=owner.repository, p_digests=wanted[start : start + CHUNK])
    }


def set_artifacts(
    tx: Tx, owner: ArtifactOwner, files: Mapping[str, Digest], sizes: Mapping[str, int]
) -> list[Artifact]:
    """Write files of an owner whose row is held; a path that is there points at the new bytes afterwards."""
    made = [Artifact(path, digest, sizes[digest], tx.now) for path, digest in sorted(files.items())]
    rows = [
        {
            "owner_kind": owner.kind, "owner_id": owner.id, "path": file.path, "digest": file.digest,
            "size_bytes": file.size_bytes, "updated_at": tx.now,
        }
        for file in made
    ]  # fmt: skip
    if rows:
        tx.run(dialect.upsert(tx.engine, s.artifacts, ["owner_kind", "owner_id", "path"]), rows)
    return made


def find_clash(tx: Tx, owner: ArtifactOwner, paths: Iterable[str]) -> tuple[str, str] | None:
    """Return a file among `paths` and a file below it, as if it were a folder; None if there is no such pair.

    One statement for every 10,000 paths, each a look into the index.
    """
    rest = iter(paths)
    while chunk := list(islice(rest, CHUNK)):
        row = tx.first(_CLASH, p_kind=owner.kind, p_id=owner.id, p_paths=chunk)
        if row is not None:
            return row.path, row.below
    return None


def delete_artifacts(tx: Tx, owner: ArtifactOwner, path: str) -> int:
    """Delete the file at `path` or all files below it; answers how many."""
    low, high = _range(path)
    condition: ColumnElement[bool] = or_(A.path == path, and_(A.path >= low, A.path < high))
    return tx.run(delete(s.artifacts).where(A.owner_kind == owner.kind, A.owner_id == owner.id, condition))


def _range(folder: str) -> tuple[str, str]:
    return folder + "/", folder + "0"


def _names(owner: ArtifactOwner, folder: str) -> dict[str, str]:
    low, high = _range(folder)
    return {"p_kind": owner.kind, "p_id": owner.id, "p_low": low, "p_high": high}


def _to_artifact(row: Row[Any]) -> Artifact:
    return Artifact(row.path, Digest(row.digest), row.size_bytes, row.updated_at)

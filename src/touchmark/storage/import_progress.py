"""Rows of imports under way: how far each is, and which files of a waiting version are here already. Not in the log."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import bindparam, delete, select

from touchmark.domain.digest import Digest
from touchmark.domain.versions import ImportProgress, VersionFile
from touchmark.storage import dialect
from touchmark.storage import schema as s
from touchmark.storage.engine import Prepared, Tx

P, F = s.import_progress.c, s.import_files.c

_FIND = Prepared(
    select(P.done_bytes, P.total_bytes, P.done_files, P.total_files).where(P.version_id == bindparam("p_id"))
)


def find_progress(tx: Tx, version_id: int) -> ImportProgress | None:
    """Return how far the import of a version is, or None if its files were not listed yet."""
    row = tx.first(_FIND, p_id=version_id)
    return None if row is None else ImportProgress(row.done_bytes, row.total_bytes, row.done_files, row.total_files)


def set_progress(tx: Tx, version_id: int, progress: ImportProgress) -> None:
    """Note how far an import is."""
    row = {
        "version_id": version_id, "listed_at": tx.now, "total_bytes": progress.total_bytes,
        "total_files": progress.total_files, "done_bytes": progress.done_bytes, "done_files": progress.done_files,
    }  # fmt: skip
    tx.run(dialect.upsert(tx.engine, s.import_progress, ["version_id"]), row)


def record_files(tx: Tx, version_id: int, files: Sequence[tuple[VersionFile, str | None]]) -> None:
    """Note files that are here now, each with its mark; one noted before is replaced."""
    rows = [
        {
            "version_id": version_id, "path": file.path, "digest": file.digest, "size_bytes": file.size_bytes,
            "mark": mark,
        }
        for file, mark in files
    ]  # fmt: skip
    if rows:
        tx.run(dialect.upsert(tx.engine, s.import_files, ["version_id", "path"]), rows)


def list_files(tx: Tx, version_id: int) -> dict[str, tuple[VersionFile, str | None]]:
    """Return the files noted for a version, by path, each with its mark."""
    rows = tx.all(select(s.import_files).where(F.version_id == version_id))
    return {row.path: (VersionFile(row.path, row.size_bytes, Digest(row.digest)), row.mark) for row in rows}


def drop(tx: Tx, version_id: int) -> None:
    """Forget an import."""
    tx.run(delete(s.import_progress).where(P.version_id == version_id))
    tx.run(delete(s.import_files).where(F.version_id == version_id))

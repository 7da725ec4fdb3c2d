"""Rows of leases: which process fetches the files of which waiting version, and until when."""

from __future__ import annotations

from typing import Any

from sqlalchemy import delete, or_, select, update

from touchmark.domain.versions import VersionState
from touchmark.storage import dialect
from touchmark.storage import schema as s
from touchmark.storage.engine import Tx
from touchmark.storage.versions import by_model, version_columns

V, L = s.versions.c, s.import_leases.c


def find_unleased(tx: Tx) -> Any:
    """Return the row of the oldest undeleted PENDING version without a lease that still runs, or None."""
    statement = by_model(select(*version_columns)).outerjoin(s.import_leases, L.version_id == V.version_id)
    # `!= 'READY'` says nothing new, but only with it does the index of what is not READY serve (schema.py).
    waiting = (V.state != "READY", V.state == VersionState.PENDING.value, V.deleted_at.is_(None))
    free = or_(L.version_id.is_(None), L.until < tx.now)
    return tx.first(statement.where(*waiting, free).order_by(V.version_id).limit(1))


def take(tx: Tx, version_id: int, holder: str, until: int) -> bool:
    """Lease a version to `holder` until an instant; answers False if somebody else's lease still runs."""
    row = tx.first(dialect.lock_rows(select(s.import_leases).where(L.version_id == version_id), tx.engine))
    if row is not None and row.holder != holder and row.until >= tx.now:
        return False
    lease = {"version_id": version_id, "holder": holder, "until": until}
    if row is None:
        added = dialect.insert_if_absent(tx.engine, s.import_leases).values(lease).returning(L.version_id)
        return tx.scalar(added) is not None
    tx.run(dialect.upsert(tx.engine, s.import_leases, ["version_id"]), lease)
    return True


def set_trouble(tx: Tx, version_id: int, holder: str, trouble: str | None) -> None:
    """Note on one's own lease what the import waits for, None if nothing."""
    tx.run(update(s.import_leases).where(L.version_id == version_id, L.holder == holder).values(trouble=trouble))


def find_trouble(tx: Tx, version_id: int) -> str | None:
    """Return what the import of a version waits for, None if nothing, or nobody imports it."""
    trouble: str | None = tx.scalar(select(L.trouble).where(L.version_id == version_id, L.until >= tx.now))
    return trouble


def drop(tx: Tx, version_id: int) -> None:
    """End a lease, if there is one."""
    tx.run(delete(s.import_leases).where(L.version_id == version_id))

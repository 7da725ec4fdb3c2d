"""Rows of uploads: of those that come in parts, one an upload, and one for each part that is stored.

An upload session, whose bytes come in order, is one row that says how far it is.

An upload whose parts a client puts into the bucket itself has a row with an empty path, which no file has, and one part, number
-1: what the whole must become. Which parts are there the bucket knows. While somebody reads them the row says how many bytes were
read, at least 1, and is written again every few seconds: whoever does not is dead, and another may begin.

Part 0 is no part that a client sends: it is the whole file, written when the upload was completed, so that a request to
complete it that is sent again finds what it asked for. The parts themselves are gone then.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, bindparam, delete, func, insert, or_, select, update

from touchmark.domain.digest import Digest
from touchmark.domain.errors import UploadNotFoundError
from touchmark.storage import dialect
from touchmark.storage import schema as s
from touchmark.storage.engine import Prepared, Tx

U, P = s.uploads.c, s.upload_parts.c

WHOLE = 0
"""The number under which a completed upload is noted."""

DIRECT_PATH = ""
"""The path of an upload that goes straight to the bucket."""
_TARGET = -1

CLAIM_SECONDS = 10
"""How long nothing is heard of who reads the parts of an upload before another may. Two at once do no harm but to the time."""

_INSERT = insert(s.uploads)
_BY_ID = select(s.uploads).where(U.upload_id == bindparam("p_id"))
_PARTS = select(s.upload_parts).where(P.upload_id == bindparam("p_id")).order_by(P.part_number)
_SIZE = select(func.coalesce(func.sum(P.size_bytes), 0)).where(
    P.upload_id == bindparam("p_id"), P.part_number != bindparam("p_number")
)
_WHOLE_OF = select(P.digest).where(P.upload_id == bindparam("p_id"), P.part_number == WHOLE)
_TARGET_OF = (
    select(U.repository, P.digest, P.size_bytes, U.size_bytes.label("read_bytes"), U.updated_at)
    .join_from(s.uploads, s.upload_parts, P.upload_id == U.upload_id)
    .where(U.upload_id == bindparam("p_id"), P.part_number == _TARGET)
)
_ADVANCE = Prepared(
    update(s.uploads)
    .where(U.upload_id == bindparam("b_id"), U.size_bytes == bindparam("b_before"))
    .values(size_bytes=bindparam("b_after"), updated_at=bindparam("b_now"))
)
_CLAIM = Prepared(
    update(s.uploads)
    .where(U.upload_id == bindparam("b_id"), or_(U.size_bytes == 0, U.updated_at < bindparam("b_stale")))
    .values(size_bytes=1, updated_at=bindparam("b_now"))
)
_STALE = (
    select(U.upload_id)
    .where(U.updated_at < bindparam("p_before"))
    .order_by(U.updated_at, U.upload_id)
    .limit(bindparam("p_limit"))
)


@dataclass(frozen=True, slots=True)
class Part:
    """A stored part of an upload."""

    number: int
    digest: Digest
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Direct:
    """What an upload straight to the bucket must become; `read_bytes` is 0 unless somebody reads its parts now."""

    repository: str
    digest: Digest
    size_bytes: int
    read_bytes: int


def create_upload(tx: Tx, upload_id: str, repository: str, path: str | None) -> None:
    """Write a new upload into a repository, for a path among its owner's artifacts if it is for one."""
    row = {"upload_id": upload_id, "repository": repository, "path": path, "created_at": tx.now, "updated_at": tx.now}
    tx.run(_INSERT, row)


def create_direct(tx: Tx, upload_id: str, repository: str, digest: Digest, size_bytes: int) -> None:
    """Write a new upload into a repository that goes straight to the bucket, and what it must become."""
    create_upload(tx, upload_id, repository, DIRECT_PATH)
    set_part(tx, upload_id, _TARGET, digest, size_bytes)


def get_direct(tx: Tx, upload_id: str) -> Direct:
    """Return what such an upload must become, and how far its parts are read. Raises UploadNotFoundError."""
    row = tx.first(_TARGET_OF, p_id=upload_id)
    if row is None:
        raise UploadNotFoundError(upload_id=upload_id)
    read_bytes = row.read_bytes if row.updated_at >= tx.now - CLAIM_SECONDS * 1_000_000 else 0
    return Direct(row.repository, Digest(row.digest), row.size_bytes, read_bytes)


def claim(tx: Tx, upload_id: str) -> bool:
    """Note that somebody begins to read the parts, at 1 byte; False if another is at it, or the upload ended."""
    return tx.run(_CLAIM, {"b_id": upload_id, "b_stale": tx.now - CLAIM_SECONDS * 1_000_000, "b_now": tx.now}) > 0


def get_upload(tx: Tx, upload_id: str, *, lock: bool = False) -> Row[Any]:
    """Return an upload's row, held alone with `lock`. Raises UploadNotFoundError."""
    row: Row[Any] | None = tx.first(dialect.lock_rows(_BY_ID, tx.engine) if lock else _BY_ID, p_id=upload_id)
    if row is None:
        raise UploadNotFoundError(upload_id=upload_id)
    return row


def advance(tx: Tx, upload_id: str, before: int, after: int) -> bool:
    """Note how many bytes of a session are durable, or of sent parts are read; False if another request went on, or it ended."""
    return tx.run(_ADVANCE, {"b_id": upload_id, "b_before": before, "b_after": after, "b_now": tx.now}) > 0


def list_parts(tx: Tx, upload_id: str) -> list[Part]:
    """Return the parts stored so far, by number."""
    return [Part(row.part_number, Digest(row.digest), row.size_bytes) for row in tx.all(_PARTS, p_id=upload_id)]


def is_finished(tx: Tx, upload_id: str) -> bool:
    """Answer whether an upload became a blob."""
    return tx.scalar(_WHOLE_OF, p_id=upload_id) is not None


def sum_other_parts(tx: Tx, upload_id: str, number: int) -> int:
    """Return how many bytes the parts have but for part `number`."""
    return int(tx.scalar(_SIZE, p_id=upload_id, p_number=number))


def set_part(tx: Tx, upload_id: str, number: int, digest: Digest, size_bytes: int) -> None:
    """Note a part of an upload whose row is held; one with the same number is replaced."""
    row = {"upload_id": upload_id, "part_number": number, "digest": digest, "size_bytes": size_bytes}
    tx.run(dialect.upsert(tx.engine, s.upload_parts, ["upload_id", "part_number"]), row)
    tx.run(update(s.uploads).where(U.upload_id == upload_id).values(updated_at=tx.now))


def finish_upload(tx: Tx, upload_id: str, digest: Digest, size_bytes: int) -> None:
    """Note that an upload whose row is held became a blob."""
    tx.run(delete(s.upload_parts).where(P.upload_id == upload_id))
    set_part(tx, upload_id, WHOLE, digest, size_bytes)


def delete_upload(tx: Tx, upload_id: str) -> None:
    """Delete an upload and its parts; one that is not there is no error."""
    tx.run(delete(s.upload_parts).where(P.upload_id == upload_id))
    tx.run(delete(s.uploads).where(U.upload_id == upload_id))


def list_stale(tx: Tx, before: int, limit: int) -> list[str]:
    """Return ids of uploads that nothing was sent for since `before` (microseconds UTC), the oldest first."""
    return [row.upload_id for row in tx.all(_STALE, p_before=before, p_limit=limit)]

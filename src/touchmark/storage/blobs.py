"""Rows of blobs, and which repository each was uploaded into."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import bindparam, exists, or_, select

from touchmark.domain.digest import Digest
from touchmark.storage import dialect
from touchmark.storage import schema as s
from touchmark.storage.dialect import insert_if_absent
from touchmark.storage.engine import Prepared, Tx

B, R, MB, V = s.blobs.c, s.repository_blobs.c, s.manifest_blobs.c, s.versions.c

_IN_REPOSITORY = select(B.size_bytes).where(
    B.digest == bindparam("p_digest"),
    B.state == "stored",
    or_(
        exists().where(R.repository == bindparam("p_repository"), R.digest == B.digest),
        exists().where(
            MB.blob_digest == B.digest, V.digest == MB.manifest_digest, V.model_id == bindparam("p_model_id")
        ),
    ),
)


def record_blob(tx: Tx, repository: str, digest: str, size_bytes: int) -> None:
    """Note that a blob's bytes are stored, and that they came through this repository."""
    record_blobs(tx, repository, {digest: size_bytes})


def record_blobs(tx: Tx, repository: str, sizes: Mapping[str, int]) -> None:
    """Note that the bytes of many blobs (size by digest) are stored, and came through this repository; two statements."""
    rows = [
        {"digest": digest, "size_bytes": size, "state": "stored", "layout": "whole", "created_at": tx.now}
        for digest, size in sorted(sizes.items())
    ]
    tx.run(insert_if_absent(tx.engine, s.blobs), rows)
    tx.run(
        insert_if_absent(tx.engine, s.repository_blobs),
        [{"repository": repository, "digest": digest} for digest in sorted(sizes)],
    )


def find_size(tx: Tx, repository: str, model_id: int | None, digest: str) -> int | None:
    """Return a blob's size if it can be read in this repository: uploaded into it, or held by a version of its model."""
    size: int | None = tx.scalar(
        _IN_REPOSITORY, p_digest=digest, p_repository=repository, p_model_id=-1 if model_id is None else model_id
    )
    return size


_STORED = Prepared(
    lambda engine: select(B.digest).where(dialect.is_one_of(engine, B.digest, "p_digests"), B.state == "stored")
)


def list_missing(tx: Tx, digests: Sequence[Digest]) -> list[Digest]:
    """Return those digests that no stored blob has, in one statement."""
    wanted = sorted(set(digests))
    found = {row.digest for row in tx.all(_STORED, p_digests=dialect.pack_texts(tx.engine, wanted))}
    return [digest for digest in wanted if digest not in found]


def find_sizes(tx: Tx, repository: str, model_id: int, digests: Sequence[str]) -> dict[str, int]:
    """Return the sizes of those digests that can be read in this repository, in one statement for every 10,000."""
    sizes: dict[str, int] = {}
    readable = or_(
        exists().where(R.repository == repository, R.digest == B.digest),
        exists().where(MB.blob_digest == B.digest, V.digest == MB.manifest_digest, V.model_id == model_id),
    )
    for start in range(0, len(digests), 10_000):
        chunk = digests[start : start + 10_000]
        statement = select(B.digest, B.size_bytes).where(B.digest.in_(chunk), B.state == "stored", readable)
        sizes |= {row.digest: row.size_bytes for row in tx.all(statement)}
    return sizes

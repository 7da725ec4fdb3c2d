"""Rows of manifests: their exact bytes, the blobs they hold, and the facts read from their files' headers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Row, and_, bindparam, cast, exists, func, or_, select, union

from touchmark.domain.versions import VersionState
from touchmark.storage import dialect
from touchmark.storage import schema as s
from touchmark.storage.dialect import insert_if_absent
from touchmark.storage.engine import Asked, Prepared, Tx

A, F, R, V = s.aliases.c, s.manifests.c, s.repository_manifests.c, s.versions.c

_BY_DIGEST = select(s.manifests).where(F.digest == bindparam("p_digest"))
_RECORDED = Prepared(select(F.file_count).where(F.digest == bindparam("p_digest")))
_MISSING = Prepared(
    select(s.manifest_blobs.c.blob_digest)
    .join(s.blobs, s.blobs.c.digest == s.manifest_blobs.c.blob_digest)
    .where(s.manifest_blobs.c.manifest_digest == bindparam("p_digest"), s.blobs.c.state != "stored")
    .limit(1)
)
# Of several versions with one digest, one that is not purged answers, whichever it is.
_VERSION_STATE = (
    select(V.state)
    .where(V.digest == F.digest)
    .order_by(V.state == VersionState.PURGED.value)
    .limit(1)
    .scalar_subquery()
    .label("version_state")
)
_SEALED = select(F.content, _VERSION_STATE).where(F.digest == bindparam("p_digest"))
_IN_REPOSITORY = select(s.manifests).where(
    or_(
        exists().where(R.repository == bindparam("p_repository"), R.digest == F.digest),
        exists().where(V.digest == F.digest, V.model_id == bindparam("p_model_id")),
    )
)


_CONTENTS = Prepared(
    lambda engine: (
        select(F.digest, F.content).where(dialect.is_one_of(engine, F.digest, "p_digests")).order_by(F.digest)
    )
)
_ADD_BLOB, _ADD_FACT = Prepared(s.manifest_blobs.insert()), Prepared(s.manifest_facts.insert())


_ONE_IN_REPOSITORY = _IN_REPOSITORY.where(F.digest == bindparam("p_digest"))


def find_manifest(tx: Tx, digest: str) -> Row[Any] | None:
    """Return a manifest's row or None."""
    row: Row[Any] | None = tx.first(_BY_DIGEST, p_digest=digest)
    return row


def is_recorded(tx: Tx, digest: str) -> bool:
    """Answer whether a manifest is recorded, without reading its bytes."""
    return tx.scalar(_RECORDED, p_digest=digest) is not None


def ask_missing_blob(tx: Tx, digest: str) -> Asked:
    """Ask for a blob of a recorded manifest whose bytes are no longer stored, a scalar or None."""
    return tx.ask(_MISSING, p_digest=digest)


def find_in_repository(tx: Tx, repository: str, model_id: int | None, digest: str) -> Row[Any] | None:
    """Return a manifest's row if it can be read in this repository, or None."""
    row: Row[Any] | None = tx.first(
        _ONE_IN_REPOSITORY, p_digest=digest, p_repository=repository, p_model_id=-1 if model_id is None else model_id
    )
    return row


def find_sealed(tx: Tx, digest: str) -> Row[Any] | None:
    """Return a manifest's bytes and the state of a version that was sealed with it (None: no version was), or None."""
    row: Row[Any] | None = tx.first(_SEALED, p_digest=digest)
    return row


def list_referring_sizes(
    tx: Tx, repository: str, model_id: int | None, subject: str, after: str, limit: int
) -> list[tuple[str, int]]:
    """Return the digests of a repository's manifests that speak of one, those above `after`, each with its size in bytes."""
    statement = _IN_REPOSITORY.with_only_columns(F.digest, func.length(F.content).label("size_bytes"))
    statement = statement.where(F.subject == subject, F.digest > after).order_by(F.digest).limit(limit)
    found = tx.all(statement, p_repository=repository, p_model_id=-1 if model_id is None else model_id)
    return [(row.digest, row.size_bytes) for row in found]


def list_contents(tx: Tx, digests: Sequence[str]) -> Sequence[Row[Any]]:
    """Return the bytes of recorded manifests, as rows of digest and content, by digest; one statement."""
    return tx.all(_CONTENTS, p_digests=dialect.pack_texts(tx.engine, digests)) if digests else []


def list_tags(tx: Tx, model_id: int, after: str, limit: int) -> list[str]:
    """Return what a model's sealed, undeleted versions are called on /v2, aliases and numbers, by their bytes."""
    sealed = (V.model_id == model_id, V.digest.is_not(None), V.deleted_at.is_(None))
    number = cast(V.number, s.Key)
    named = select(A.alias.label("tag")).join(s.versions, and_(A.model_id == V.model_id, A.number == V.number))
    tags = union(named.where(*sealed), select(number).where(*sealed)).subquery()
    rows = tx.all(select(tags.c.tag).where(tags.c.tag > after).order_by(tags.c.tag).limit(limit))
    return [row.tag for row in rows]


def record_manifest(
    tx: Tx,
    *,
    digest: str,
    content: bytes,
    media_type: str,
    content_digest: str,
    size_bytes: int,
    file_count: int,
    contents: Mapping[str, Any],
    blobs: Sequence[str],
    subject: str | None = None,
) -> None:
    """Write a manifest, the set of its blobs and its searchable facts; nothing if it is there already.

    A constant number of statements, however many files; the digests in `blobs` must be stored (a foreign key).
    """
    row = {
        "digest": digest, "content": content, "media_type": media_type, "content_digest": content_digest,
        "size_bytes": size_bytes, "file_count": file_count, "contents": encode_contents(contents), "subject": subject,
        "created_at": tx.now,
    }  # fmt: skip
    statement = insert_if_absent(tx.engine, s.manifests).values(row).returning(s.manifests.c.digest)
    if tx.first(statement) is None:
        return
    tx.run(_ADD_BLOB, [{"manifest_digest": digest, "blob_digest": blob} for blob in sorted(set(blobs))])
    facts = [
        {"manifest_digest": digest, "kind": kind, "key": key, "value": value}
        for (kind, key), value in sorted(list_facts(contents).items())
    ]
    tx.run(_ADD_FACT, facts)


def link_manifest(tx: Tx, repository: str, digest: str) -> None:
    """Note that an unregistered manifest may be read in this repository."""
    tx.run(insert_if_absent(tx.engine, s.repository_manifests), {"repository": repository, "digest": digest})


def encode_contents(contents: Mapping[str, Any]) -> str:
    """Return contents as canonical JSON text, the form that is stored."""
    return json.dumps(contents, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def list_facts(contents: Mapping[str, Any]) -> dict[tuple[str, str], str]:
    """Return what can be searched of contents: (kind, key) to value, for inputs, outputs, flavours and the framework."""
    facts: dict[tuple[str, str], str] = {}
    schema = contents.get("schema") or {}
    for kind, columns in (("input", schema.get("inputs")), ("output", schema.get("outputs"))):
        for column in (columns or [])[:1000]:
            if column.get("name"):
                facts[kind, str(column["name"])[:250]] = str(column.get("type") or "")[:250]
    for flavor in sorted(contents.get("flavors") or {})[:100]:
        facts["flavor", flavor[:250]] = flavor[:250]
    if contents.get("framework"):
        facts["framework", ""] = str(contents["framework"])[:250]
    return facts

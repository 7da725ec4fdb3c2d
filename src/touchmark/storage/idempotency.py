"""Rows of Idempotency-Keys. A catalogue write reads and keeps them under the head lock, so none is ever half-way."""

from __future__ import annotations

from sqlalchemy import delete, insert, select

from touchmark.domain.access import Principal
from touchmark.domain.errors import IdempotencyMismatchError
from touchmark.domain.idempotency import LIFETIME_SECONDS, IdempotencyKey
from touchmark.storage import schema as s
from touchmark.storage.engine import Tx

K = s.idempotency_keys.c


def find_outcome(tx: Tx, who: Principal, key: IdempotencyKey | None) -> str | None:
    """Return what the first request with this key made, or None. Raises IdempotencyMismatchError."""
    if key is None:
        return None
    oldest = tx.now - LIFETIME_SECONDS * 1_000_000
    statement = select(K.request_hash, K.outcome).where(K.principal == who.id, K.key == key.key, K.created_at > oldest)
    row = tx.first(statement)
    if row is None:
        return None
    if row.request_hash != key.request_hash:
        raise IdempotencyMismatchError(key=key.key)
    outcome: str = row.outcome
    return outcome


def keep_outcome(tx: Tx, who: Principal, key: IdempotencyKey | None, outcome: str) -> None:
    """Keep what this request made; forget those whose time is over."""
    if key is None:
        return
    tx.run(delete(s.idempotency_keys).where(K.created_at <= tx.now - LIFETIME_SECONDS * 1_000_000))
    row = {
        "principal": who.id,
        "key": key.key,
        "request_hash": key.request_hash,
        "outcome": outcome,
        "created_at": tx.now,
    }
    tx.run(insert(s.idempotency_keys), row)

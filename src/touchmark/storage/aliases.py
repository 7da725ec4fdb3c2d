"""Rows of aliases and of every move they made."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select

from touchmark.domain.aliases import Alias, AliasMove, AliasName
from touchmark.domain.errors import AliasNotFoundError
from touchmark.domain.names import ModelName
from touchmark.storage import schema as s
from touchmark.storage.engine import Tx

A, H = s.aliases.c, s.alias_moves.c


def find_alias(tx: Tx, model_id: int, name: ModelName, alias: str) -> Alias | None:
    """Return an alias or None."""
    row = tx.first(select(s.aliases).where(A.model_id == model_id, A.alias == alias))
    return (
        None
        if row is None
        else Alias(name, AliasName(row.alias), row.number, row.log_index, row.moved_at, row.moved_by)
    )


def get_alias(tx: Tx, model_id: int, name: ModelName, alias: str) -> Alias:
    """Return an alias. Raises AliasNotFoundError."""
    found = find_alias(tx, model_id, name, alias)
    if found is None:
        raise AliasNotFoundError(name=name, alias=alias)
    return found


def list_aliases(tx: Tx, model_id: int, name: ModelName, number: int | None = None) -> list[Alias]:
    """Return the aliases of a model, or of one of its versions, by name."""
    statement = select(s.aliases).where(A.model_id == model_id)
    if number is not None:
        statement = statement.where(A.number == number)
    rows = tx.all(statement.order_by(A.alias))
    return [Alias(name, AliasName(r.alias), r.number, r.log_index, r.moved_at, r.moved_by) for r in rows]


def list_moves(
    tx: Tx,
    model_id: int,
    name: ModelName,
    alias: str | None,
    *,
    before_index: int | None,
    limit: int,
    until: int | None = None,
) -> Sequence[AliasMove]:
    """Return moves of an alias (or of all of a model's), newest first.

    Only those with a log index below `before_index`, and those made at or before `until` (microseconds UTC), if given.
    """
    statement = select(s.alias_moves).where(H.model_id == model_id)
    if alias is not None:
        statement = statement.where(H.alias == alias)
    if before_index is not None:
        statement = statement.where(H.log_index < before_index)
    if until is not None:
        statement = statement.where(H.at <= until)
    rows = tx.all(statement.order_by(H.log_index.desc(), H.alias).limit(limit))
    return [AliasMove(name, AliasName(r.alias), r.before, r.after, r.log_index, r.at, r.by) for r in rows]

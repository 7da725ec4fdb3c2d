"""Rows of edges, and of what they join: one statement for all nodes of a level, whatever their number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import BindParameter, Row, bindparam, or_, select

from touchmark.storage import schema as s
from touchmark.storage.engine import Tx
from touchmark.storage.versions import by_model

_E, _V, _M, _R, _L = s.edges.c, s.versions.c, s.models.c, s.runs.c, s.logged_models.c

_IDS: BindParameter[Any] = bindparam("p_ids", expanding=True)
_FROM = select(s.edges).where(_E.version_id.in_(_IDS))
_TO = select(s.edges).where(_E.target_kind == "version", _E.target.in_(_IDS))
_ORDER = (_E.version_id, _E.relation, _E.target_kind, _E.target)
_VERSIONS = by_model(
    select(
        _V.version_id,
        _M.name,
        _V.number,
        _V.state,
        or_(_V.deleted_at.is_not(None), _M.deleted_at.is_not(None)).label("is_deleted"),
    )
).where(_V.version_id.in_(_IDS))
_RUNS = select(_R.run_id, _R.name, _R.status, _R.deleted_at.is_not(None).label("is_deleted")).where(_R.run_id.in_(_IDS))
_LOGGED_MODELS = select(_L.model_id, _L.name, _L.status, _L.deleted_at.is_not(None).label("is_deleted")).where(
    _L.model_id.in_(_IDS)
)


def list_edges_from(tx: Tx, version_ids: Sequence[int], limit: int) -> Sequence[Row[Any]]:
    """Return at most `limit` edges that begin at these versions: what they came from."""
    return tx.all(_FROM.order_by(*_ORDER).limit(limit), p_ids=list(version_ids)) if version_ids else []


def list_edges_to(tx: Tx, version_ids: Sequence[int], limit: int) -> Sequence[Row[Any]]:
    """Return at most `limit` edges that end at these versions: what came from them."""
    if not version_ids:
        return []
    return tx.all(_TO.order_by(*_ORDER).limit(limit), p_ids=[str(version_id) for version_id in version_ids])


def list_versions(tx: Tx, version_ids: Sequence[int]) -> Sequence[Row[Any]]:
    """Return version_id, name (the model's present one), number, state and is_deleted of those that are there."""
    return tx.all(_VERSIONS, p_ids=list(version_ids)) if version_ids else []


def list_runs(tx: Tx, run_ids: Sequence[str]) -> Sequence[Row[Any]]:
    """Return run_id, name, status and is_deleted of those that are there."""
    return tx.all(_RUNS, p_ids=list(run_ids)) if run_ids else []


def list_logged_models(tx: Tx, model_ids: Sequence[str]) -> Sequence[Row[Any]]:
    """Return model_id, name, status and is_deleted of those that are there."""
    return tx.all(_LOGGED_MODELS, p_ids=list(model_ids)) if model_ids else []

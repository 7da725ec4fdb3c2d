"""Stages: which version is the highest in each stage of a model. MLflow's clients ask before nearly every write."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import bindparam, literal, select, true, union_all

from touchmark.domain.versions import Stage
from touchmark.storage import schema as s
from touchmark.storage.engine import Prepared, Tx
from touchmark.storage.versions import version_columns

V, M = s.versions.c, s.models.c

MODELS_LIMIT = 1_000
"""Models in one question: an IN list that both databases take."""

_STAGES = union_all(*(select(literal(stage.value).label("stage")) for stage in Stage)).subquery("stages")
_other = s.versions.alias("highest")
# One look into the index (model, stage, number) for each model and stage: a window over all versions of a model would
# read all of them, and a model may have a hundred thousand.
_highest = (
    select(_other.c.version_id)
    .where(_other.c.model_id == M.model_id, _other.c.stage == _STAGES.c.stage, _other.c.deleted_at.is_(None))
    .order_by(_other.c.number.desc())
    .limit(1)
    .correlate(s.models, _STAGES)
    .scalar_subquery()
)
_JOINED = select(*version_columns).select_from(
    s.models.join(_STAGES, true()).join(s.versions, V.version_id == _highest)
)
_LATEST_OF_ONE = Prepared(_JOINED.where(M.model_id == bindparam("p_id")))
_LATEST = _JOINED.where(M.model_id.in_(bindparam("p_ids", expanding=True)))


def list_latest(tx: Tx, model_ids: Sequence[int]) -> Sequence[Any]:
    """Return the rows of the highest undeleted version of each stage of each model, in one statement; in no order."""
    if len(model_ids) == 1:
        return tx.all(_LATEST_OF_ONE, p_id=model_ids[0])
    return tx.all(_LATEST, p_ids=list(model_ids)) if model_ids else []


def list_in_stage(tx: Tx, model_id: int, stage: str) -> list[int]:
    """Return the version_ids of a model's undeleted versions in a stage, by number."""
    statement = select(V.version_id).where(V.model_id == model_id, V.stage == stage, V.deleted_at.is_(None))
    return [row.version_id for row in tx.all(statement.order_by(V.number))]

"""Rows of registered models, their names, tags and aliases."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import ColumnElement, CompoundSelect, Select, bindparam, func, literal, select, union_all

from touchmark.domain.errors import ModelNotFoundError
from touchmark.domain.models import RegisteredModel
from touchmark.domain.names import ModelName
from touchmark.storage import schema as s
from touchmark.storage.engine import Asked, Prepared, Tx

M, N, V = s.models.c, s.model_names.c, s.versions.c

latest_number = (
    select(V.number)
    .where(V.model_id == M.model_id, V.state == "READY", V.deleted_at.is_(None), V.deprecated_at.is_(None))
    .order_by(V.number.desc())
    .limit(1)
    .correlate(s.models)
    .scalar_subquery()
)
"""The highest READY, undeleted, undeprecated number of the model of the outer row."""

_MODEL = select(s.models, latest_number.label("latest_version"))


_same_bytes = (
    select(V.number)
    .where(V.model_id == M.model_id, V.content_digest == bindparam("p_content_digest"))
    .order_by(V.number)
    .limit(1)
    .correlate(s.models)
    .scalar_subquery()
)


def _by_name(rows: Select[Any]) -> Prepared:
    return Prepared(rows.where(M.name == bindparam("p_name")))


def _by_held_name(rows: Select[Any]) -> Prepared:
    held = rows.join(s.model_names, N.model_id == M.model_id)
    return Prepared(held.where(N.name == bindparam("p_name")))


# Most want the row alone, and a registration asks for it while all others wait: its highest number is then not looked for.
_BY_NAME, _BY_HELD_NAME = _by_name(select(s.models)), _by_held_name(select(s.models))
_WHOLE_BY_NAME, _WHOLE_BY_HELD_NAME = _by_name(_MODEL), _by_held_name(_MODEL)
_WITH_SAME_BYTES = _by_held_name(select(s.models, _same_bytes.label("same_bytes_as")))
_OTHER = s.models.alias("other")


def _side(of: Callable[[ColumnElement[int]], ColumnElement[bool]]) -> CompoundSelect[Any]:
    """Return the statement of what stands beside the rows of models; `of` says which, by a column of model ids."""
    tags, aliases = s.model_tags.c, s.aliases.c
    return union_all(
        select(tags.model_id, literal("tag").label("what"), tags.key, tags.value).where(of(tags.model_id)),
        select(
            aliases.model_id,
            literal("alias").label("what"),
            aliases.alias,
            func.cast(aliases.number, s.Key).label("value"),
        ).where(of(aliases.model_id)),
        select(M.model_id, literal("similar").label("what"), _OTHER.c.name, literal("")).where(
            of(M.model_id),
            _OTHER.c.look_alike_key == M.look_alike_key,
            _OTHER.c.model_id != M.model_id,
            _OTHER.c.deleted_at.is_(None),
        ),
    )


_SIDE_OF_ONE = Prepared(_side(lambda column: column == bindparam("p_id")))
_SIDE = _side(lambda column: column.in_(bindparam("p_ids", expanding=True)))


def find_row(tx: Tx, name: str) -> Any:
    """Return the row of the model that holds `name` now or held it once, deleted ones included, or None."""
    return tx.first(_BY_HELD_NAME, p_name=name)


def ask_row(tx: Tx, name: str, content_digest: str | None) -> Asked:
    """Ask for what `find_row` returns, and with it `same_bytes_as`: the lowest number with these bytes, or None."""
    return tx.ask(_WITH_SAME_BYTES, p_name=name, p_content_digest=content_digest)


def get_row(tx: Tx, name: str, *, follow: bool = False) -> Any:
    """Return the row of the undeleted model called `name`; with `follow`, of the one that was. Raises ModelNotFoundError."""
    return _present(tx.first(_BY_HELD_NAME if follow else _BY_NAME, p_name=name), name)


def _present(row: Any, name: str) -> Any:
    if row is None or row.deleted_at is not None:
        raise ModelNotFoundError(name=name)
    return row


def get_model(tx: Tx, name: str, *, follow: bool = False) -> RegisteredModel:
    """Return a model with its tags and aliases, in two statements. Raises ModelNotFoundError."""
    row = tx.first(_WHOLE_BY_HELD_NAME if follow else _WHOLE_BY_NAME, p_name=name)
    return to_models(tx, [_present(row, name)])[0]


def to_models(tx: Tx, rows: Sequence[Any]) -> list[RegisteredModel]:
    """Return domain values for rows of `_MODEL`, tags, aliases and look-alikes filled in with one statement for all."""
    if not rows:
        return []
    side: dict[int, tuple[dict[str, str], dict[str, int], list[str]]] = {row.model_id: ({}, {}, []) for row in rows}
    found = tx.all(_SIDE_OF_ONE, p_id=rows[0].model_id) if len(side) == 1 else tx.all(_SIDE, p_ids=list(side))
    for model_id, what, key, value in found:
        if what == "tag":
            side[model_id][0][key] = value
        elif what == "alias":
            side[model_id][1][key] = int(value)
        else:
            side[model_id][2].append(key)
    return [
        RegisteredModel(
            row.model_id,
            ModelName(row.name),
            row.description,
            row.owner,
            row.contact,
            row.created_at,
            row.created_by,
            row.updated_at,
            row.version_count,
            row.latest_version,
            dict(sorted(side[row.model_id][0].items())),
            dict(sorted(side[row.model_id][1].items())),
            tuple(sorted(side[row.model_id][2])),
        )
        for row in rows
    ]


def is_present(tx: Tx, model_id: int) -> bool:
    """Answer whether an undeleted model has this id."""
    return tx.scalar(select(M.model_id).where(M.model_id == model_id, M.deleted_at.is_(None))) is not None


def find_tags(tx: Tx, model_id: int, keys: Sequence[str]) -> dict[str, str]:
    """Return the values of those keys that are set."""
    tags = s.model_tags.c
    rows = tx.all(select(tags.key, tags.value).where(tags.model_id == model_id, tags.key.in_(keys)))
    return {row.key: row.value for row in rows}


def get_name(tx: Tx, model_id: int) -> str:
    """Return the present name of an undeleted model. Raises ModelNotFoundError."""
    name: str | None = tx.scalar(select(M.name).where(M.model_id == model_id, M.deleted_at.is_(None)))
    if name is None:
        raise ModelNotFoundError(name=f"#{model_id}")
    return name

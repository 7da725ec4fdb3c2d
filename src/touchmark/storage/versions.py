"""Rows of model versions, their tags, metrics and contents."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    Double,
    Integer,
    Row,
    Select,
    bindparam,
    cast,
    literal,
    null,
    select,
    union_all,
)

from touchmark.domain.digest import Digest
from touchmark.domain.errors import AliasNotFoundError, ModelNotFoundError, VersionNotFoundError
from touchmark.domain.names import ModelName
from touchmark.domain.references import (
    MAX_VERSION,
    AliasReference,
    DigestReference,
    LatestReference,
    ModelReference,
    VersionReference,
)
from touchmark.domain.versions import Deprecation, ModelVersion, Stage, VersionState
from touchmark.storage import schema as s
from touchmark.storage.engine import Prepared, Tx
from touchmark.storage.models import latest_number

V, M, N, A = s.versions.c, s.models.c, s.model_names.c, s.aliases.c

_STATES: dict[str, VersionState] = {
    state.value: state for state in VersionState
}  # a call of the class takes ten times as long
_STAGES: dict[str, Stage] = {stage.value: stage for stage in Stage}
_decode = msgspec.json.Decoder().decode

version_columns = (s.versions, M.name.label("name"))
"""What a row needs to become a ModelVersion."""

# Every way to point at a version is one statement: name to model, model to version. A row comes back if the model
# exists; its version columns are NULL if the version does not, so that the two errors can be told apart.
_TARGET = (
    select(s.versions, M.name.label("name"), M.model_id.label("owner_id"), M.deleted_at.label("model_deleted_at"))
    .select_from(s.model_names)
    .join(s.models, M.model_id == N.model_id)
)
_WHERE = N.name == bindparam("p_name")
_BY_NUMBER = Prepared(
    _TARGET.outerjoin(s.versions, (V.model_id == M.model_id) & (V.number == bindparam("p_number"))).where(_WHERE)
)
_BY_ALIAS = Prepared(
    _TARGET.outerjoin(s.aliases, (A.model_id == M.model_id) & (A.alias == bindparam("p_alias")))
    .outerjoin(s.versions, (V.model_id == M.model_id) & (V.number == A.number))
    .where(_WHERE)
)
_BY_LATEST = Prepared(
    _TARGET.outerjoin(s.versions, (V.model_id == M.model_id) & (V.number == latest_number)).where(_WHERE)
)
# The same bytes may be registered twice: the lowest undeleted number answers.
_BY_DIGEST = Prepared(
    _TARGET.outerjoin(s.versions, (V.model_id == M.model_id) & (V.digest == bindparam("p_digest")))
    .where(_WHERE)
    .order_by(V.deleted_at.is_not(None), V.number)
    .limit(1)
)
_BY_STAGE = Prepared(
    _TARGET.outerjoin(
        s.versions, (V.model_id == M.model_id) & (V.stage == bindparam("p_stage")) & V.deleted_at.is_(None)
    )
    .where(_WHERE)
    .order_by(V.number.desc())
    .limit(1)
)
# A metric's number travels as a number: SQLite writes a double as text with 15 digits only.
_NO_NUMBER = cast(null(), Double).label("number")


def _side(of: Callable[[ColumnElement[int]], ColumnElement[bool]], *, contents: bool) -> CompoundSelect[Any]:
    """Return the statement of what stands beside the rows of versions; `of` says which, by a column of version ids."""
    tags, metrics, held = s.version_tags.c, s.version_metrics.c, s.manifests.c
    parts = [
        select(tags.version_id, literal("tag").label("what"), tags.key, tags.value, _NO_NUMBER).where(
            of(tags.version_id)
        ),
        select(V.version_id, literal("alias").label("what"), A.alias, literal("").label("value"), _NO_NUMBER)
        .join(s.aliases, (A.model_id == V.model_id) & (A.number == V.number))
        .where(of(V.version_id)),
        select(
            metrics.version_id,
            literal("metric").label("what"),
            metrics.key,
            literal("").label("value"),
            metrics.value.label("number"),
        ).where(of(metrics.version_id)),
    ]
    if contents:
        what, key = literal("contents").label("what"), literal("").label("key")
        parts.append(
            select(V.version_id, what, key, held.contents, _NO_NUMBER)
            .join(s.manifests, held.digest == V.digest)
            .where(of(V.version_id))
        )
    return union_all(*parts)


_SIDE_OF_ONE = {
    contents: Prepared(_side(lambda column: column == bindparam("p_id"), contents=contents))
    for contents in (False, True)
}
_SIDE = {
    contents: _side(lambda column: column.in_(bindparam("p_ids", expanding=True)), contents=contents)
    for contents in (False, True)
}


def find_target(tx: Tx, reference: ModelReference) -> Any:
    """Return the row a reference points at, deleted ones included, in one statement.

    The row has the columns of `versions`, `name` (the model's present name) and `owner_id`. Old names are followed.
    Raises ModelNotFoundError, AliasNotFoundError, VersionNotFoundError.
    """
    name = reference.name
    if isinstance(reference, VersionReference):
        row = tx.first(_BY_NUMBER, p_name=name, p_number=reference.version)
        what: object = reference.version
    elif isinstance(reference, AliasReference):
        row = tx.first(_BY_ALIAS, p_name=name, p_alias=reference.alias)
        what = reference.alias
    elif isinstance(reference, LatestReference):
        row = tx.first(_BY_LATEST, p_name=name)
        what = "latest"
    elif isinstance(reference, DigestReference):
        row = tx.first(_BY_DIGEST, p_name=name, p_digest=reference.digest)
        what = reference.digest
    else:
        row = tx.first(_BY_STAGE, p_name=name, p_stage=reference.stage.value)
        what = reference.stage.value
    if row is None or row.model_deleted_at is not None:
        raise ModelNotFoundError(name=name)
    if row.version_id is None:
        if isinstance(reference, AliasReference):
            raise AliasNotFoundError(name=name, alias=reference.alias)
        if isinstance(reference, LatestReference):
            sentence = f"Model {name!r} has no latest version: none is ready, undeleted and undeprecated."
            raise VersionNotFoundError(sentence, name=name, version=what)
        raise VersionNotFoundError(name=name, version=what)
    return row


def find_id_by_digest(tx: Tx, name: str, digest: str) -> int | None:
    """Return the id of the model's lowest undeleted version with a digest, or None."""
    row = tx.first(_BY_DIGEST, p_name=name, p_digest=digest)
    return None if row is None or row.deleted_at is not None else row.version_id


def get_row(tx: Tx, name: str, number: int, *, deleted: bool = False, follow: bool = False) -> Any:
    """Return the row of a version by its model's name, with `follow` by a former one too.

    With `deleted`, a deleted version is returned too. Raises ModelNotFoundError, VersionNotFoundError.
    """
    if not 1 <= number <= MAX_VERSION:  # more than the column holds: there is no such version
        raise VersionNotFoundError(name=name, version=number)
    row = find_target(tx, VersionReference(ModelName(name), number))
    if row.name != name and not follow:
        raise ModelNotFoundError(name=name)
    if row.deleted_at is not None and not deleted:
        raise VersionNotFoundError(name=name, version=number)
    return row


def by_model(statement: Select[Any]) -> Select[Any]:
    """Join versions to the model they belong to."""
    return statement.select_from(s.versions).join(s.models, M.model_id == V.model_id)


_BY_ID = Prepared(by_model(select(*version_columns)).where(V.version_id == bindparam("p_id")))


def find_row_by_id(tx: Tx, version_id: int) -> Any:
    """Return the row of a version by its id, or None."""
    return tx.first(_BY_ID, p_id=version_id)


def get_by_id(tx: Tx, version_id: int) -> ModelVersion:
    """Return a version that is there, with its contents. Both statements are sent before an answer is waited for."""
    row, side = tx.ask(_BY_ID, p_id=version_id), tx.ask(_SIDE_OF_ONE[True], p_id=version_id)
    return _gather([row.first()], side.all())[0]


_OF_RUN = Prepared(
    by_model(select(*version_columns))
    .where(V.run_id == bindparam("p_run_id"), V.state == VersionState.READY.value, V.deleted_at.is_(None))
    .order_by(V.version_id.desc())
    .limit(bindparam("p_limit", type_=Integer))
)


def list_of_run(tx: Tx, run_id: str, limit: int) -> Sequence[Any]:
    """Return the rows of the READY, undeleted versions registered from a run, newest first."""
    return tx.all(_OF_RUN, p_run_id=run_id, p_limit=limit)


def to_versions(tx: Tx, rows: Sequence[Any], *, contents: bool = False) -> list[ModelVersion]:
    """Return domain values for rows with `version_columns`; tags, aliases and metrics in one statement for all of them."""
    if not rows:
        return []
    ids = list(dict.fromkeys(row.version_id for row in rows))
    if len(ids) == 1:
        return _gather(rows, tx.all(_SIDE_OF_ONE[contents], p_id=ids[0]))
    return _gather(rows, tx.all(_SIDE[contents], p_ids=ids))


def _gather(rows: Sequence[Any], found: Sequence[Any]) -> list[ModelVersion]:
    """Join rows of versions with what stands beside them."""
    side: dict[int, tuple[dict[str, str], list[str], dict[str, float]]] = {r.version_id: ({}, [], {}) for r in rows}
    known: dict[int, dict[str, Any]] = {}
    for version_id, what, key, value, number in found:
        if what == "tag":
            side[version_id][0][key] = value
        elif what == "alias":
            side[version_id][1].append(key)
        elif what == "metric":
            side[version_id][2][key] = float("nan") if number is None else number
        else:
            known[version_id] = _decode(value)
    return [_to_version(row, side[row.version_id], known.get(row.version_id)) for row in rows]


def _to_version(
    row: Any, side: tuple[dict[str, str], list[str], dict[str, float]], contents: dict[str, Any] | None
) -> ModelVersion:
    deprecation = None
    if row.deprecated_at is not None:
        deprecation = Deprecation(row.deprecation_reason or "", row.replaced_by, row.deprecated_at)
    return ModelVersion(
        version_id=row.version_id,
        model_id=row.model_id,
        name=ModelName(row.name),
        version=row.number,
        state=_STATES[row.state],
        digest=Digest(row.digest) if row.digest else None,
        content_digest=Digest(row.content_digest) if row.content_digest else None,
        size_bytes=row.size_bytes,
        file_count=row.file_count,
        source=row.source,
        run_id=row.run_id,
        logged_model_id=row.logged_model_id,
        parent=row.parent,
        same_bytes_as=row.same_bytes_as,
        description=row.description,
        stage=_STAGES[row.stage],
        status_message=row.status_message,
        run_link=row.run_link,
        created_at=row.created_at,
        created_by=row.created_by,
        updated_at=row.updated_at,
        deleted_at=row.deleted_at,
        deprecation=deprecation,
        tags=dict(sorted(side[0].items())),
        aliases=sorted(side[1]),
        origin=_decode(row.origin) if row.origin.startswith("{") else {"erased": True},
        metrics=dict(sorted(side[2].items())),
        contents=contents,
    )


def find_tags(tx: Tx, version_id: int, keys: Sequence[str]) -> dict[str, str]:
    """Return the values of those keys that are set."""
    tags = s.version_tags.c
    rows = tx.all(select(tags.key, tags.value).where(tags.version_id == version_id, tags.key.in_(keys)))
    return {row.key: row.value for row in rows}


_SAME_BYTES = Prepared(
    select(V.number)
    .where(V.model_id == bindparam("p_model_id"), V.content_digest == bindparam("p_content_digest"))
    .order_by(V.number)
    .limit(1)
)


def find_same_bytes(tx: Tx, model_id: int, content_digest: str) -> int | None:
    """Return the lowest number of the model with the same bytes, or None."""
    number: int | None = tx.scalar(_SAME_BYTES, p_model_id=model_id, p_content_digest=content_digest)
    return number


def list_tags(tx: Tx, version_id: int) -> Sequence[Row[Any]]:
    """Return the tags of a version as rows of key and value, by key."""
    tags = s.version_tags.c
    return tx.all(select(tags.key, tags.value).where(tags.version_id == version_id).order_by(tags.key))


def list_edges(tx: Tx, version_id: int, relation: str) -> Sequence[Row[Any]]:
    """Return a version's edges of one relation as rows of target and detail."""
    edges = s.edges.c
    statement = select(edges.target, edges.detail).where(edges.version_id == version_id, edges.relation == relation)
    return tx.all(statement.order_by(edges.target))


def list_evaluations(tx: Tx, version_id: int) -> Sequence[Row[Any]]:
    """Return a version's evaluations, oldest first."""
    found = s.evaluations.c
    return tx.all(select(s.evaluations).where(found.version_id == version_id).order_by(found.log_index))

"""Rows of runs, their params, metrics, tags, data sets and links to logged models.

The `write_` functions take the table, because logged models have the same three beside their own rows
(`logged_models.py`). Every writer holds the owner's row first (`lock_row`): what is checked here stays true until
the commit, and two batches for one owner never meet in a deadlock.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Row,
    Select,
    Table,
    Text,
    bindparam,
    cast,
    delete,
    insert,
    literal,
    null,
    select,
    tuple_,
    union_all,
    update,
)

from touchmark.domain.errors import ParamChangedError, RunDeletedError, RunNotFoundError
from touchmark.domain.tracking import (
    DatasetInput,
    Metric,
    ModelLink,
    ModelRole,
    Run,
    RunStatus,
    format_number,
    pick_latest,
    rank_metric,
)
from touchmark.storage import dialect
from touchmark.storage import schema as s
from touchmark.storage.engine import Prepared, Tx

R, H, D, RM = s.runs.c, s.run_metrics.c, s.run_datasets.c, s.run_models.c

SIDE_ROWS = 4_000
"""Owners in one statement about what stands beside them: it names each five times, and SQLite takes 32,766 parameters."""
TEXTS = 6
"""Texts of a data set beside its name and digest."""

_BY_ID = select(s.runs).where(R.run_id == bindparam("p_id"))
_FOUND_BY_ID = Prepared(_BY_ID)
_INSERT, _INSERT_PARAM = insert(s.runs), insert(s.run_params)


class Side(NamedTuple):
    """What stands beside a row, by key."""

    params: dict[str, str]
    metrics: dict[str, Metric]
    tags: dict[str, str]
    datasets: list[DatasetInput]
    models: list[ModelLink]


Of = Callable[[ColumnElement[Any]], ColumnElement[bool]]
"""What says of a column of owners' ids which of them are meant."""


class SideStatements:
    """What reads the side of one owner (`p_id`), prepared, and of many (`p_ids`)."""

    def __init__(self, branches: Callable[[Of], Sequence[Select[Any]]]) -> None:
        """Make both of the branches of one UNION ALL."""
        self.of_one = Prepared(union_all(*branches(lambda column: column == bindparam("p_id"))))
        self.of_many = union_all(*branches(lambda column: column.in_(bindparam("p_ids", expanding=True))))


def select_side(of: Of, owner: str, params: Table, metrics: Table, tags: Table) -> list[Select[Any]]:
    """Return the branches that read params, latest metrics and tags of the owners that `of` means.

    Columns: owner, what, key, value, step, at, and six more texts, used by data sets.
    """
    no_number, no_text = cast(null(), BigInteger), cast(null(), Text)
    empty = [no_text] * TEXTS

    def branch(table: Table, what: str, value: ColumnElement[Any], *numbers: ColumnElement[Any]) -> Select[Any]:
        columns = [
            table.c[owner],
            literal(what).label("what"),
            table.c["key"],
            value,
            *(numbers or (no_number, no_number)),
        ]
        return select(*columns, *empty).where(of(table.c[owner]))

    return [
        branch(params, "param", params.c["value"]),
        branch(tags, "tag", tags.c["value"]),
        branch(metrics, "metric", metrics.c["text"], metrics.c["step"], metrics.c["at"]),
    ]


def _select_datasets(of: Of, *, texts: bool) -> Select[Any]:
    no_number, no_text = cast(null(), BigInteger), cast(null(), Text)
    long = [D["schema"], D["profile"], D["tags"]] if texts else [no_text, no_text, D["tags"]]
    columns = [D["run_id"], literal("dataset"), D["name"], D["digest"], no_number, no_number, D["context"], D["source"]]
    return select(*columns, D["source_type"], *long).where(of(D["run_id"]))


def _select_models(of: Of) -> Select[Any]:
    no_number, empty = cast(null(), BigInteger), [cast(null(), Text)] * TEXTS
    columns = [RM.run_id, literal("model"), RM.model_id, RM.role, RM.step, no_number]
    return select(*columns, *empty).where(of(RM.run_id))


def _whole(*, texts: bool) -> SideStatements:
    tables = (s.run_params, s.run_latest_metrics, s.run_tags)
    return SideStatements(
        lambda of: [*select_side(of, "run_id", *tables), _select_datasets(of, texts=texts), _select_models(of)]
    )


# A schema may have a million characters and a profile sixteen: pages leave both out.
_SIDE, _SIDE_OF_PAGE = _whole(texts=True), _whole(texts=False)


def find_row(tx: Tx, run_id: str) -> Any:
    """Return a run's row, deleted or not, or None."""
    return tx.first(_FOUND_BY_ID, p_id=run_id)


def lock_row(tx: Tx, run_id: str, *, deleted: bool = False) -> Any:
    """Return a run's row and hold it alone. Raises RunNotFoundError, and RunDeletedError unless `deleted`."""
    row = tx.first(dialect.lock_rows(_BY_ID, tx.engine), p_id=run_id)
    if row is None:
        raise RunNotFoundError(run_id=run_id)
    if row.deleted_at is not None and not deleted:
        raise RunDeletedError(run_id=run_id)
    return row


def find_run(tx: Tx, run_id: str) -> Run | None:
    """Return a run, deleted or not, with its params, latest metrics, tags and data sets, in two statements; or None."""
    row = find_row(tx, run_id)
    return None if row is None else _to_run(row, read_side(tx, _SIDE, [run_id])[run_id])


def get_run(tx: Tx, run_id: str) -> Run:
    """Return a run as `find_run` does. Raises RunNotFoundError."""
    run = find_run(tx, run_id)
    if run is None:
        raise RunNotFoundError(run_id=run_id)
    return run


def list_runs(
    tx: Tx, experiment_id: int, *, deleted: bool | None, after: tuple[int, str] | None, limit: int
) -> list[Run]:
    """Return runs, newest first, in two statements; those after the key (started_at, run_id).

    `deleted` None means all. Schemas and profiles of data sets are left out.
    """
    statement = select(s.runs).where(R.experiment_id == experiment_id)
    if deleted is not None:
        statement = statement.where(R.deleted_at.is_not(None) if deleted else R.deleted_at.is_(None))
    if after is not None:
        statement = statement.where(tuple_(R.started_at, R.run_id) < after)
    rows = tx.all(statement.order_by(R.started_at.desc(), R.run_id.desc()).limit(limit))
    return to_runs(tx, rows)


def to_runs(tx: Tx, rows: Sequence[Any]) -> list[Run]:
    """Return domain values for rows, schemas and profiles of data sets left out; a statement for every SIDE_ROWS rows."""
    found: list[Run] = []
    for start in range(0, len(rows), SIDE_ROWS):
        chunk = rows[start : start + SIDE_ROWS]
        side = read_side(tx, _SIDE_OF_PAGE, [row.run_id for row in chunk])
        found += [_to_run(row, side[row.run_id]) for row in chunk]
    return found


def read_side(tx: Tx, statements: SideStatements, ids: Sequence[str]) -> dict[str, Side]:
    """Return what stands beside each of these owners, by key; one statement, none for no owner."""
    side = {owner: Side({}, {}, {}, [], []) for owner in ids}
    if not ids:
        return side
    found = tx.all(statements.of_one, p_id=ids[0]) if len(ids) == 1 else tx.all(statements.of_many, p_ids=ids)
    for owner, what, key, value, step, at, context, source, source_type, schema, profile, said in found:
        beside = side[owner]
        if what == "param":
            beside.params[key] = value
        elif what == "tag":
            beside.tags[key] = value
        elif what == "metric":
            beside.metrics[key] = Metric(key, float(value), at, step)
        elif what == "model":
            beside.models.append(ModelLink(ModelRole(value), key, step))
        else:
            tags = json.loads(said) if said else {}
            beside.datasets.append(DatasetInput(key, value, context, source, source_type, schema, profile, tags))
    return {
        owner: Side(
            dict(sorted(beside.params.items())),
            dict(sorted(beside.metrics.items())),
            dict(sorted(beside.tags.items())),
            sorted(beside.datasets, key=lambda dataset: (dataset.name, dataset.digest)),
            sorted(beside.models, key=lambda link: (link.role, link.step, link.model_id)),
        )
        for owner, beside in side.items()
    }


def _to_run(row: Row[Any], side: Side) -> Run:
    return Run(
        row.run_id,
        row.experiment_id,
        row.name,
        row.user,
        RunStatus(row.status),
        row.started_at,
        row.ended_at,
        row.created_at,
        row.deleted_at,
        side.params,
        side.metrics,
        side.tags,
        tuple(side.datasets),
        tuple(side.models),
    )


# ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────────


def create_run(tx: Tx, run: Run) -> None:
    """Write a new run with its params and tags; at most three statements."""
    row = {
        "run_id": run.run_id, "experiment_id": run.experiment_id, "name": run.name, "user": run.user,
        "status": run.status.value, "started_at": run.started_at, "ended_at": run.ended_at, "created_at": run.created_at,
    }  # fmt: skip
    tx.run(_INSERT, row)
    tx.run(_INSERT_PARAM, [{"run_id": run.run_id, "key": key, "value": value} for key, value in run.params.items()])
    write_tags(tx, s.run_tags, run.run_id, run.tags)


def update_run(tx: Tx, run_id: str, values: Mapping[str, Any]) -> None:
    """Write columns of a run."""
    tx.run(update(s.runs).where(R.run_id == run_id).values(dict(values)))


def record_batch(
    tx: Tx, run_id: str, params: Mapping[str, str], metrics: Sequence[Metric], tags: Mapping[str, str]
) -> None:
    """Write params, metrics and tags of a run whose row is held; at most six statements. Raises ParamChangedError.

    Each measurement is appended to the history once.
    """
    write_params(tx, s.run_params, run_id, params)
    if metrics:
        rows = [metric_row("run_id", run_id, metric) for metric in metrics]
        tx.run(dialect.insert_if_absent(tx.engine, s.run_metrics), rows)
        write_metrics(tx, s.run_latest_metrics, run_id, metrics)
    write_tags(tx, s.run_tags, run_id, tags)


def delete_tag(tx: Tx, run_id: str, key: str) -> bool:
    """Delete a tag of a run; answers whether it was there."""
    return drop_tag(tx, s.run_tags, run_id, key)


def write_params(tx: Tx, table: Table, owner_id: str, params: Mapping[str, str]) -> None:
    """Write params of an owner whose row is held; two statements. Raises ParamChangedError before anything is written."""
    if not params:
        return
    owner = _owner(table)
    statement = select(table.c["key"], table.c["value"]).where(
        table.c[owner] == owner_id, table.c["key"].in_(list(params))
    )
    known = {row.key: row.value for row in tx.all(statement)}
    for key, value in params.items():
        if known.get(key, value) != value:
            raise ParamChangedError(key=key, old=known[key], new=value)
    new = [{owner: owner_id, "key": key, "value": value} for key, value in params.items() if key not in known]
    tx.run(insert(table), new)


def write_metrics(tx: Tx, table: Table, owner_id: str, metrics: Sequence[Metric]) -> None:
    """Keep the latest value a key of an owner whose row is held; two statements."""
    if not metrics:
        return
    owner = _owner(table)
    latest = pick_latest(metrics)
    statement = select(table).where(table.c[owner] == owner_id, table.c["key"].in_(list(latest)))
    known = {row.key: Metric(row.key, float(row.text), row.at, row.step) for row in tx.all(statement)}
    newer = [
        metric for metric in latest.values()
        if metric.key not in known or rank_metric(metric) > rank_metric(known[metric.key])
    ]  # fmt: skip
    if newer:
        tx.run(
            dialect.upsert(tx.engine, table, [owner, "key"]), [metric_row(owner, owner_id, metric) for metric in newer]
        )


def metric_row(owner: str, owner_id: str, metric: Metric) -> dict[str, Any]:
    """Return a row of a measurement. NaN has no value, only its text: databases disagree on where it stands."""
    value = None if math.isnan(metric.value) else metric.value
    text = format_number(metric.value)
    return {owner: owner_id, "key": metric.key, "step": metric.step, "at": metric.at, "text": text, "value": value}


def write_tags(tx: Tx, table: Table, owner_id: str, tags: Mapping[str, str]) -> None:
    """Write tags of an owner; the others stay. One statement."""
    owner = _owner(table)
    tx.run(_set_tags(table), [{owner: owner_id, "key": key, "value": value} for key, value in tags.items()])


@cache
def _set_tags(table: Table) -> Prepared:
    return Prepared(lambda engine: dialect.upsert(engine, table, [_owner(table), "key"]))


def drop_tag(tx: Tx, table: Table, owner_id: str, key: str) -> bool:
    """Delete a tag of an owner; answers whether it was there."""
    return tx.run(delete(table).where(table.c[_owner(table)] == owner_id, table.c["key"] == key)) > 0


def _owner(table: Table) -> str:
    return table.primary_key.columns[0].name


def set_datasets(tx: Tx, run_id: str, datasets: Iterable[DatasetInput]) -> None:
    """Write data sets of a run; one with the same name and digest is replaced, but keeps tags it had. Two statements."""
    datasets = list(datasets)
    known = select(D.name, D.digest, D.tags).where(D.run_id == run_id, D.tags.is_not(None))
    tags = {(row.name, row.digest): json.loads(row.tags) for row in tx.all(known)} if datasets else {}
    datasets = [
        replace(item, tags={**tags[item.name, item.digest], **item.tags}) if (item.name, item.digest) in tags else item
        for item in datasets
    ]
    rows = [dataset_row(run_id, item) for item in datasets]
    if rows:
        tx.run(dialect.upsert(tx.engine, s.run_datasets, ["run_id", "name", "digest"]), rows)


def dataset_row(run_id: str, dataset: DatasetInput) -> dict[str, Any]:
    """Return the row of a data set a run read."""
    return {
        "run_id": run_id, "name": dataset.name, "digest": dataset.digest, "context": dataset.context,
        "source": dataset.source, "source_type": dataset.source_type, "schema": dataset.schema,
        "profile": dataset.profile, "tags": json.dumps(dict(dataset.tags), ensure_ascii=False) if dataset.tags else None,
    }  # fmt: skip


def set_models(tx: Tx, run_id: str, links: Sequence[ModelLink]) -> None:
    """Write which logged models a run read or made; one that is noted already gets the new step."""
    rows = [link_row(run_id, link) for link in links]
    if rows:
        tx.run(dialect.upsert(tx.engine, s.run_models, ["run_id", "role", "model_id"]), rows)


def link_row(run_id: str, link: ModelLink) -> dict[str, Any]:
    """Return the row of a logged model that a run read or made."""
    return {"run_id": run_id, "role": link.role.value, "model_id": link.model_id, "step": link.step}


def list_history(
    tx: Tx, run_id: str, key: str, *, after: tuple[int, int, str] | None, limit: int
) -> list[tuple[Metric, str]]:
    """Return measurements of one key with their exact text, by (step, at, text), those after that key."""
    statement = select(H.step, H.at, H.text).where(H.run_id == run_id, H.key == key)
    if after is not None:
        statement = statement.where(tuple_(H.step, H.at, H.text) > after)
    rows = tx.all(statement.order_by(H.step, H.at, H.text).limit(limit))
    return [(Metric(key, float(row.text), row.at, row.step), row.text) for row in rows]

"""Rows of logged models. Their params, metrics and tags are written by the functions of `runs.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Row, bindparam, insert, select, tuple_, update

from touchmark.domain.errors import LoggedModelNotFoundError
from touchmark.domain.tracking import LoggedModel, LoggedModelStatus, Measurement, Metric
from touchmark.storage import dialect, runs
from touchmark.storage import schema as s
from touchmark.storage.engine import Asked, Prepared, Tx

L, ME = s.logged_models.c, s.logged_model_measurements.c

_BY_ID = select(s.logged_models).where(L.model_id == bindparam("p_id"))
_FOUND_BY_ID = Prepared(_BY_ID)
_IN_RUN = (
    select(s.logged_models)
    .where(
        L.run_id == bindparam("p_run_id"),
        L.name == bindparam("p_name"),
        L.status == LoggedModelStatus.READY.value,
        L.deleted_at.is_(None),
    )
    .order_by(L.created_at.desc(), L.model_id.desc())
    .limit(1)
)
_SIDE = runs.SideStatements(
    lambda of: runs.select_side(of, "model_id", s.logged_model_params, s.logged_model_metrics, s.logged_model_tags)
)
_INSERT = insert(s.logged_models)


def find_row(tx: Tx, model_id: str) -> Any:
    """Return a logged model's row, deleted or not, or None."""
    return tx.first(_FOUND_BY_ID, p_id=model_id)


def lock_row(tx: Tx, model_id: str, *, deleted: bool = False) -> Any:
    """Return a logged model's row and hold it alone. Raises LoggedModelNotFoundError, also for a deleted one unless `deleted`."""
    row = tx.first(dialect.lock_rows(_BY_ID, tx.engine), p_id=model_id)
    if row is None or (row.deleted_at is not None and not deleted):
        raise LoggedModelNotFoundError(model_id=model_id)
    return row


def find_logged_model(tx: Tx, model_id: str) -> LoggedModel | None:
    """Return a logged model, deleted or not, with params, metrics and tags, in two statements; or None."""
    return _to_one(tx, find_row(tx, model_id))


def get_logged_model(tx: Tx, model_id: str) -> LoggedModel:
    """Return a logged model as `find_logged_model` does. Raises LoggedModelNotFoundError."""
    model = find_logged_model(tx, model_id)
    if model is None:
        raise LoggedModelNotFoundError(model_id=model_id)
    return model


def find_in_run(tx: Tx, run_id: str, name: str) -> LoggedModel | None:
    """Return the newest READY, undeleted model logged under `name` in a run, in two statements; or None."""
    return _to_one(tx, tx.first(_IN_RUN, p_run_id=run_id, p_name=name))


def list_logged_models(
    tx: Tx,
    *,
    experiment_id: int | None,
    run_id: str | None,
    name: str | None,
    deleted: bool | None,
    after: tuple[int, str] | None,
    limit: int,
) -> list[LoggedModel]:
    """Return logged models, newest first, in two statements; those after the key (created_at, model_id).

    What is None does not select.
    """
    statement = select(s.logged_models)
    if experiment_id is not None:
        statement = statement.where(L.experiment_id == experiment_id)
    if run_id is not None:
        statement = statement.where(L.run_id == run_id)
    if name is not None:
        statement = statement.where(L.name == name)
    if deleted is not None:
        statement = statement.where(L.deleted_at.is_not(None) if deleted else L.deleted_at.is_(None))
    if after is not None:
        statement = statement.where(tuple_(L.created_at, L.model_id) < after)
    return to_models(tx, tx.all(statement.order_by(L.created_at.desc(), L.model_id.desc()).limit(limit)))


def _to_one(tx: Tx, row: Row[Any] | None) -> LoggedModel | None:
    return None if row is None else to_models(tx, [row])[0]


def to_models(tx: Tx, rows: Sequence[Any]) -> list[LoggedModel]:
    """Return domain values for rows; params, metrics and tags in one statement for every runs.SIDE_ROWS rows."""
    found: list[LoggedModel] = []
    for start in range(0, len(rows), runs.SIDE_ROWS):
        chunk = rows[start : start + runs.SIDE_ROWS]
        side = runs.read_side(tx, _SIDE, [row.model_id for row in chunk])
        found += [_to_model(row, side[row.model_id]) for row in chunk]
    return found


def _to_model(row: Any, side: runs.Side) -> LoggedModel:
    return LoggedModel(
        row.model_id,
        row.experiment_id,
        row.name,
        LoggedModelStatus(row.status),
        row.run_id,
        row.model_type,
        row.status_message,
        row.created_at,
        row.updated_at,
        row.deleted_at,
        side.params,
        side.metrics,
        side.tags,
    )


def create_logged_model(tx: Tx, model: LoggedModel) -> None:
    """Write a new logged model with its params and tags; at most three statements."""
    row = {
        "model_id": model.model_id, "experiment_id": model.experiment_id, "name": model.name,
        "status": model.status.value, "run_id": model.run_id, "model_type": model.model_type,
        "status_message": model.status_message, "created_at": model.created_at, "updated_at": model.updated_at,
    }  # fmt: skip
    tx.run(_INSERT, row)
    params = [{"model_id": model.model_id, "key": key, "value": value} for key, value in model.params.items()]
    tx.run(insert(s.logged_model_params), params)
    runs.write_tags(tx, s.logged_model_tags, model.model_id, model.tags)


def update_logged_model(tx: Tx, model_id: str, values: Mapping[str, Any]) -> None:
    """Write columns of a logged model, and that it was changed now."""
    tx.run(update(s.logged_models).where(L.model_id == model_id).values({**values, "updated_at": tx.now}))


def record_params(tx: Tx, model_id: str, params: Mapping[str, str]) -> None:
    """Write params of a logged model whose row is held. Raises ParamChangedError."""
    runs.write_params(tx, s.logged_model_params, model_id, params)


def set_tags(tx: Tx, model_id: str, tags: Mapping[str, str]) -> None:
    """Write tags of a logged model; the others stay."""
    runs.write_tags(tx, s.logged_model_tags, model_id, tags)


_TAG = Prepared(
    select(s.logged_model_tags.c.value).where(
        s.logged_model_tags.c.model_id == bindparam("p_id"), s.logged_model_tags.c.key == bindparam("p_key")
    )
)


def ask_tag(tx: Tx, model_id: str, key: str) -> Asked:
    """Ask for a tag's value, a scalar or None."""
    return tx.ask(_TAG, p_id=model_id, p_key=key)


def delete_tag(tx: Tx, model_id: str, key: str) -> bool:
    """Delete a tag of a logged model; answers whether it was there."""
    return runs.drop_tag(tx, s.logged_model_tags, model_id, key)


def record_measurements(tx: Tx, model_id: str, measurements: Sequence[Measurement]) -> None:
    """Append measurements of a logged model whose row is held, and keep the latest value a key."""
    rows = [
        {
            **runs.metric_row("model_id", model_id, each.metric), "run_id": each.run_id or "",
            "dataset_name": each.dataset_name or "", "dataset_digest": each.dataset_digest or "",
        }
        for each in measurements
    ]  # fmt: skip
    if rows:
        tx.run(dialect.insert_if_absent(tx.engine, s.logged_model_measurements), rows)
        runs.write_metrics(tx, s.logged_model_metrics, model_id, [each.metric for each in measurements])


def list_measurements(tx: Tx, model_ids: Sequence[str], limit: int) -> dict[str, list[Measurement]]:
    """Return the measurements of logged models by id, at most `limit` in all, by key, step and time; one statement."""
    found: dict[str, list[Measurement]] = {model_id: [] for model_id in model_ids}
    statement = select(s.logged_model_measurements).where(ME.model_id.in_(list(model_ids)))
    for row in tx.all(statement.order_by(ME.model_id, ME.key, ME.step, ME.at).limit(limit)) if model_ids else []:
        metric = Metric(row.key, float(row.text), row.at, row.step)
        found[row.model_id].append(
            Measurement(metric, row.run_id or None, row.dataset_name or None, row.dataset_digest or None)
        )
    return found

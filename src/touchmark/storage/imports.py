"""Rows of what is imported: under the ids and times they had elsewhere, deleted ones too, and only what is not there yet.

Every statement leaves alone what is there, so that an import may be cut anywhere and begun again. Experiments, runs and
logged models of our own are written by the files named after them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, Table, bindparam, select, update

from touchmark.domain.tracking import Experiment, LoggedModel, Measurement, Metric, Run
from touchmark.storage import blobs as blob_rows
from touchmark.storage import dialect, logged_models, runs, versions
from touchmark.storage import schema as s
from touchmark.storage.engine import Tx

_CHUNK = 5_000
_RUNS = select(s.runs).where(s.runs.c.run_id.in_(bindparam("p_ids", expanding=True)))
_RUN_SIDE = runs.SideStatements(
    lambda of: runs.select_side(of, "run_id", s.run_params, s.run_latest_metrics, s.run_tags)
)
_LOGGED_MODELS = select(s.logged_models).where(s.logged_models.c.model_id.in_(bindparam("p_ids", expanding=True)))
_ARTIFACTS = select(s.artifacts.c.path, s.artifacts.c.size_bytes).where(
    s.artifacts.c.owner_kind == bindparam("p_kind"), s.artifacts.c.owner_id == bindparam("p_id")
)
_VERSIONS = (
    versions.by_model(select(*versions.version_columns))
    .where(s.versions.c.model_id == bindparam("p_model_id"))
    .order_by(s.versions.c.number)
)


@dataclass(frozen=True, slots=True)
class PresentRun:
    """What is here of a run: enough to see what is missing."""

    status: str
    params: frozenset[str]
    tags: frozenset[str]
    latest: Mapping[str, Metric]


# ── tracking ─────────────────────────────────────────────────────────────────────────────────────────────────────


def create_experiment(tx: Tx, experiment: Experiment) -> int | None:
    """Write an experiment under its own id if that is free (and not negative), else under a new one; return the id.

    None if the name is taken.
    """
    row: dict[str, Any] = {
        "name": experiment.name, "created_at": experiment.created_at, "updated_at": experiment.updated_at,
        "deleted_at": experiment.deleted_at,
    }  # fmt: skip
    statement = dialect.insert_if_absent(tx.engine, s.experiments)
    made: int | None = None
    if experiment.experiment_id >= 0:
        wanted = statement.values({**row, "experiment_id": experiment.experiment_id})
        made = tx.scalar(wanted.returning(s.experiments.c.experiment_id))
        if made is not None:
            dialect.pass_over_ids(tx.connection, s.experiments, "experiment_id")
    if made is None:
        made = tx.scalar(statement.values(row).returning(s.experiments.c.experiment_id))
    return made


def add_tags(tx: Tx, table: Table, owner: str, owner_id: Any, tags: Mapping[str, str]) -> int:
    """Write those tags (or params) that are not there; answers how many rows the database says it wrote."""
    rows = [{owner: owner_id, "key": key, "value": value} for key, value in tags.items()]
    return tx.run(dialect.insert_if_absent(tx.engine, table), rows)


def find_runs(tx: Tx, run_ids: Sequence[str]) -> dict[str, PresentRun]:
    """Return those of these runs that are here, in two statements."""
    rows = tx.all(_RUNS, p_ids=list(run_ids)) if run_ids else []
    side = runs.read_side(tx, _RUN_SIDE, [row.run_id for row in rows])
    return {
        row.run_id: PresentRun(
            row.status,
            frozenset(side[row.run_id].params),
            frozenset(side[row.run_id].tags),
            side[row.run_id].metrics,
        )
        for row in rows
    }


def add_run(tx: Tx, run: Run) -> bool:
    """Write a run's row; one that is there stays, but if it had not ended it ends now. Answers whether it is new."""
    row = {
        "run_id": run.run_id, "experiment_id": run.experiment_id, "name": run.name, "user": run.user,
        "status": run.status.value, "started_at": run.started_at, "ended_at": run.ended_at,
        "created_at": run.created_at, "deleted_at": run.deleted_at,
    }  # fmt: skip
    is_new = tx.first(dialect.insert_if_absent(tx.engine, s.runs).values(row).returning(s.runs.c.run_id)) is not None
    if not is_new and run.ended_at is not None:
        r = s.runs.c
        ended = update(s.runs).where(r.run_id == run.run_id, r.ended_at.is_(None))
        tx.run(ended.values(status=run.status.value, ended_at=run.ended_at))
    return is_new


def add_run_side(tx: Tx, run: Run) -> None:
    """Write those params, tags, data sets and links to logged models of a run that are not there."""
    add_tags(tx, s.run_params, "run_id", run.run_id, run.params)
    add_tags(tx, s.run_tags, "run_id", run.run_id, run.tags)
    datasets = [runs.dataset_row(run.run_id, each) for each in run.datasets]
    tx.run(dialect.insert_if_absent(tx.engine, s.run_datasets), datasets)
    links = [runs.link_row(run.run_id, each) for each in run.models]
    tx.run(dialect.insert_if_absent(tx.engine, s.run_models), links)


def add_history(tx: Tx, run_id: str, metrics: Sequence[Metric]) -> None:
    """Write those measurements of a run that are not there."""
    rows = [runs.metric_row("run_id", run_id, metric) for metric in metrics]
    statement = dialect.insert_if_absent(tx.engine, s.run_metrics)
    for start in range(0, len(rows), _CHUNK):
        tx.run(statement, rows[start : start + _CHUNK])


def set_latest(tx: Tx, run_id: str, latest: Iterable[Metric]) -> None:
    """Keep the latest value a key of a run: the sign that its history is whole."""
    runs.write_metrics(tx, s.run_latest_metrics, run_id, list(latest))


def find_logged_models(tx: Tx, model_ids: Sequence[str]) -> dict[str, int]:
    """Return when those of these logged models that are here were last changed (microseconds UTC)."""
    rows = tx.all(_LOGGED_MODELS, p_ids=list(model_ids)) if model_ids else []
    return {row.model_id: row.updated_at for row in rows}


def add_logged_model(tx: Tx, model: LoggedModel, measurements: Sequence[Measurement]) -> bool:
    """Write a logged model with what stands beside it; what is there stays, but a pending one ends. Whether it is new."""
    row = {
        "model_id": model.model_id, "experiment_id": model.experiment_id, "name": model.name,
        "status": model.status.value, "run_id": model.run_id, "model_type": model.model_type,
        "status_message": model.status_message, "created_at": model.created_at, "updated_at": model.updated_at,
        "deleted_at": model.deleted_at,
    }  # fmt: skip
    statement = dialect.insert_if_absent(tx.engine, s.logged_models).values(row)
    is_new = tx.first(statement.returning(s.logged_models.c.model_id)) is not None
    if not is_new:
        found = s.logged_models.c
        older = update(s.logged_models).where(found.model_id == model.model_id, found.updated_at < model.updated_at)
        tx.run(older.values(updated_at=model.updated_at))
        tx.run(_end_pending(model))
    add_tags(tx, s.logged_model_params, "model_id", model.model_id, model.params)
    add_tags(tx, s.logged_model_tags, "model_id", model.model_id, model.tags)
    logged_models.record_measurements(tx, model.model_id, measurements)
    return is_new


def _end_pending(model: LoggedModel) -> Any:
    """Return the statement that ends a logged model which was PENDING when it came."""
    found = s.logged_models.c
    return (
        update(s.logged_models)
        .where(found.model_id == model.model_id, found.status == "PENDING")
        .values(status=model.status.value, status_message=model.status_message)
    )


def list_artifact_sizes(tx: Tx, kind: str, owner_id: str) -> dict[str, int]:
    """Return the size of every file of a run or logged model, by path."""
    return {row.path: row.size_bytes for row in tx.all(_ARTIFACTS, p_kind=kind, p_id=owner_id)}


# ── bytes and versions ───────────────────────────────────────────────────────────────────────────────────────────


def record_blobs(tx: Tx, repository: str, blobs: Iterable[tuple[str, int]]) -> None:
    """Note that bytes are stored (digest and size) and that they came through this repository; two statements."""
    blob_rows.record_blobs(tx, repository, dict(blobs))


def list_version_rows(tx: Tx, model_id: int) -> Sequence[Row[Any]]:
    """Return every version of a model, deleted ones too, by number; rows for `versions.to_versions`."""
    return tx.all(_VERSIONS, p_model_id=model_id)

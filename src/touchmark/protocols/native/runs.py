"""Runs over HTTP: begin, read, log, end, delete and restore."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from touchmark.domain import tracking
from touchmark.domain.errors import (
    ConflictError,
    ExperimentNotFoundError,
    InvalidCursorError,
    InvalidTagError,
    ParamChangedError,
    RunDeletedError,
    RunNotFoundError,
)
from touchmark.domain.tracking import DatasetInput, Metric
from touchmark.protocols.native import schemas
from touchmark.protocols.native.numbers import from_number, to_number
from touchmark.protocols.native.operations import Operation, read_whole
from touchmark.services import runs
from touchmark.wire import AnyRequest, Lane, call, registry_of


def to_run(run: tracking.Run) -> schemas.Run:
    """Return a run as it goes over the wire."""
    return schemas.Run(
        run_id=run.run_id,
        experiment_id=run.experiment_id,
        name=run.name,
        user=run.user,
        status=run.status.value,
        started_at=run.started_at,
        ended_at=run.ended_at,
        created_at=run.created_at,
        deleted_at=run.deleted_at,
        params=dict(run.params),
        metrics=to_latest(run.metrics),
        tags=dict(run.tags),
        datasets=[
            schemas.DatasetAnswer(
                name=item.name,
                digest=item.digest,
                context=item.context,
                source=item.source,
                source_type=item.source_type,
                schema=item.schema,
                profile=item.profile,
            )
            for item in run.datasets
        ],
    )


def to_latest(metrics: Mapping[str, Metric]) -> dict[str, schemas.Latest]:
    """Return the latest value of each metric as it goes over the wire."""
    return {
        key: schemas.Latest(value=to_number(metric.value), at=metric.at, step=metric.step)
        for key, metric in metrics.items()
    }


async def create_run(request: AnyRequest, body: schemas.NewRun) -> schemas.Run:
    """Begin a run; a new experiment name creates the experiment."""
    made = await call(
        request,
        Lane.WRITE,
        runs.create_run,
        body.experiment,
        name=body.name,
        user=body.user,
        params=body.params,
        tags=body.tags,
    )
    return to_run(made)


async def get_run(request: AnyRequest, run_id: str) -> schemas.Run:
    """Return a run, deleted or not."""
    return to_run(await call(request, Lane.READ, runs.get_run, run_id))


async def list_runs(request: AnyRequest, query: schemas.RunsQuery) -> schemas.RunPage:
    """Return an experiment's runs, newest first."""
    key = query.experiment
    experiment = read_whole("experiment", key) if key.isascii() and key.isdigit() else key
    page = await call(request, Lane.READ, runs.list_runs, experiment, limit=query.limit, cursor=query.cursor)
    return schemas.RunPage(items=[to_run(item) for item in page.items], next_cursor=page.next_cursor)


async def update_run(request: AnyRequest, run_id: str, body: schemas.RunChanges) -> schemas.Run:
    """Change a run's status, end or name."""
    return to_run(
        await call(
            request, Lane.WRITE, runs.update_run, run_id, status=body.status, ended_at=body.ended_at, name=body.name
        )
    )


async def delete_run(request: AnyRequest, run_id: str) -> None:
    """Delete a run until it is restored; versions made from it are untouched."""
    await call(request, Lane.WRITE, runs.delete_run, run_id)


async def restore_run(request: AnyRequest, run_id: str) -> None:
    """Bring back a deleted run."""
    await call(request, Lane.WRITE, runs.restore_run, run_id)


async def log_batch(request: AnyRequest, run_id: str, body: schemas.Batch) -> None:
    """Write params, measurements and tags of a run: all of them or none."""
    now = registry_of(request).clock()
    metrics = [
        Metric(item.key, from_number(f"metrics.{item.key}", item.value), now if item.at is None else item.at, item.step)
        for item in body.metrics
    ]
    await call(request, Lane.WRITE, runs.log_batch, run_id, params=body.params, metrics=metrics, tags=body.tags)


async def log_datasets(request: AnyRequest, run_id: str, body: schemas.NewDatasets) -> None:
    """Note which data sets a run read."""
    datasets = [DatasetInput(**msgspec.structs.asdict(item)) for item in body.datasets]
    await call(request, Lane.WRITE, runs.log_datasets, run_id, datasets)


async def list_metric(request: AnyRequest, run_id: str, query: schemas.MetricQuery) -> schemas.MeasurementPage:
    """Return every measurement of one metric of a run, by step and time."""
    page = await call(
        request, Lane.READ, runs.get_metric_history, run_id, query.key, limit=query.limit, cursor=query.cursor
    )
    items = [
        schemas.Measurement(key=item.key, value=to_number(item.value), at=item.at, step=item.step)
        for item in page.items
    ]
    return schemas.MeasurementPage(items=items, next_cursor=page.next_cursor)


_ABSENT = (RunNotFoundError,)

OPERATIONS = (
    Operation(
        method="POST",
        path="/runs",
        handler=create_run,
        status=201,
        errors=(InvalidTagError, ExperimentNotFoundError, ConflictError),
    ),
    Operation(method="GET", path="/runs", handler=list_runs, errors=(InvalidCursorError, ExperimentNotFoundError)),
    Operation(method="GET", path="/runs/{run_id}", handler=get_run, errors=_ABSENT),
    Operation(method="PATCH", path="/runs/{run_id}", handler=update_run, errors=(*_ABSENT, RunDeletedError)),
    Operation(method="DELETE", path="/runs/{run_id}", handler=delete_run, errors=_ABSENT),
    Operation(
        method="POST",
        path="/runs/{run_id}/restore",
        handler=restore_run,
        errors=(*_ABSENT, ExperimentNotFoundError, ConflictError),
    ),
    Operation(
        method="POST",
        path="/runs/{run_id}/log",
        handler=log_batch,
        errors=(*_ABSENT, InvalidTagError, RunDeletedError, ParamChangedError),
    ),
    Operation(method="POST", path="/runs/{run_id}/datasets", handler=log_datasets, errors=(*_ABSENT, RunDeletedError)),
    Operation(method="GET", path="/runs/{run_id}/metrics", handler=list_metric, errors=(*_ABSENT, InvalidCursorError)),
)

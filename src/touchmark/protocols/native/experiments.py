"""Experiments over HTTP: create, read, list."""

from __future__ import annotations

from touchmark.domain import tracking
from touchmark.domain.errors import (
    ExperimentExistsError,
    ExperimentNotFoundError,
    InvalidCursorError,
    InvalidTagError,
)
from touchmark.protocols.native import schemas
from touchmark.protocols.native.operations import Operation, read_whole
from touchmark.services import experiments
from touchmark.wire import AnyRequest, Lane, call


def to_experiment(experiment: tracking.Experiment) -> schemas.Experiment:
    """Return an experiment as it goes over the wire."""
    return schemas.Experiment(
        experiment_id=experiment.experiment_id,
        name=experiment.name,
        created_at=experiment.created_at,
        updated_at=experiment.updated_at,
        deleted_at=experiment.deleted_at,
        tags=dict(experiment.tags),
    )


async def create_experiment(request: AnyRequest, body: schemas.NewExperiment) -> schemas.Experiment:
    """Create an experiment."""
    return to_experiment(await call(request, Lane.WRITE, experiments.create_experiment, body.name, tags=body.tags))


async def list_experiments(request: AnyRequest, query: schemas.PageQuery) -> schemas.ExperimentPage:
    """Return experiments, newest first."""
    page = await call(request, Lane.READ, experiments.list_experiments, limit=query.limit, cursor=query.cursor)
    return schemas.ExperimentPage(items=[to_experiment(item) for item in page.items], next_cursor=page.next_cursor)


async def get_experiment(request: AnyRequest, experiment_id: str) -> schemas.Experiment:
    """Return an experiment, deleted or not."""
    number = read_whole("experiment_id", experiment_id)
    return to_experiment(await call(request, Lane.READ, experiments.get_experiment, number))


OPERATIONS = (
    Operation(
        method="POST",
        path="/experiments",
        handler=create_experiment,
        status=201,
        errors=(InvalidTagError, ExperimentExistsError),
    ),
    Operation(method="GET", path="/experiments", handler=list_experiments, errors=(InvalidCursorError,)),
    Operation(
        method="GET",
        path="/experiments/{experiment_id}",
        handler=get_experiment,
        errors=(ExperimentNotFoundError,),
    ),
)

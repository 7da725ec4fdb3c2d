"""Logged models over HTTP: begin, read, finish."""

from __future__ import annotations

from touchmark.domain import tracking
from touchmark.domain.errors import (
    ConflictError,
    ExperimentNotFoundError,
    InvalidTagError,
    LoggedModelNotFoundError,
    RunDeletedError,
    RunNotFoundError,
)
from touchmark.protocols.native import schemas
from touchmark.protocols.native.operations import Operation
from touchmark.protocols.native.runs import to_latest
from touchmark.services import logged_models
from touchmark.wire import AnyRequest, Lane, call


def to_logged_model(model: tracking.LoggedModel) -> schemas.LoggedModel:
    """Return a logged model as it goes over the wire."""
    return schemas.LoggedModel(
        model_id=model.model_id,
        experiment_id=model.experiment_id,
        name=model.name,
        status=model.status.value,
        run_id=model.run_id,
        model_type=model.model_type,
        status_message=model.status_message,
        created_at=model.created_at,
        updated_at=model.updated_at,
        deleted_at=model.deleted_at,
        params=dict(model.params),
        metrics=to_latest(model.metrics),
        tags=dict(model.tags),
    )


async def create_logged_model(request: AnyRequest, body: schemas.NewLoggedModel) -> schemas.LoggedModel:
    """Begin to log a model; it is PENDING until it is finished."""
    made = await call(
        request,
        Lane.WRITE,
        logged_models.create_logged_model,
        body.name,
        experiment=body.experiment,
        run_id=body.run_id,
        model_type=body.model_type,
        params=body.params,
        tags=body.tags,
    )
    return to_logged_model(made)


async def get_logged_model(request: AnyRequest, model_id: str) -> schemas.LoggedModel:
    """Return a logged model."""
    return to_logged_model(await call(request, Lane.READ, logged_models.get_logged_model, model_id))


async def finish_logged_model(request: AnyRequest, model_id: str, body: schemas.LoggingEnd) -> schemas.LoggedModel:
    """Say how the logging of a model ended."""
    message = body.status_message
    return to_logged_model(
        await call(
            request, Lane.WRITE, logged_models.finish_logged_model, model_id, body.status, status_message=message
        )
    )


OPERATIONS = (
    Operation(
        method="POST",
        path="/logged-models",
        handler=create_logged_model,
        status=201,
        errors=(InvalidTagError, ExperimentNotFoundError, RunNotFoundError, RunDeletedError, ConflictError),
    ),
    Operation(
        method="GET", path="/logged-models/{model_id}", handler=get_logged_model, errors=(LoggedModelNotFoundError,)
    ),
    Operation(
        method="POST",
        path="/logged-models/{model_id}/finish",
        handler=finish_logged_model,
        errors=(LoggedModelNotFoundError, ConflictError),
    ),
)

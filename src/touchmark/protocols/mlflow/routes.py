"""Every operation of MLflow's door, gathered from the nouns, as one ASGI application."""

from __future__ import annotations

from collections.abc import Callable

from touchmark.domain.errors import TouchmarkError
from touchmark.protocols.mlflow import (
    aliases,
    artifacts,
    experiments,
    logged_models,
    metrics,
    model_versions,
    multipart,
    registered_models,
    runs,
    server_info,
    stages,
    webhooks,
)
from touchmark.protocols.mlflow.errors import error_response
from touchmark.protocols.mlflow.operations import Asgi, Encoded, Operation, build_door
from touchmark.wire import AnyRequest, request_id_of

OPERATIONS: tuple[Operation, ...] = (
    *registered_models.OPERATIONS,
    *model_versions.OPERATIONS,
    *aliases.OPERATIONS,
    *stages.OPERATIONS,
    *experiments.OPERATIONS,
    *runs.OPERATIONS,
    *metrics.OPERATIONS,
    *logged_models.OPERATIONS,
    *artifacts.OPERATIONS,
    *multipart.OPERATIONS,
    *server_info.OPERATIONS,
    *webhooks.OPERATIONS,
)


def build_app(report: Callable[[Exception, str | None], None]) -> Asgi:
    """Return the ASGI application; `report` is told of what goes wrong in our own code, with the request's id."""

    def answer_bug(request: AnyRequest, error: Exception) -> Encoded:
        report(error, request_id_of(request))
        return error_response(request, TouchmarkError("Something went wrong on the server; its log says what."))

    return build_door(OPERATIONS, error_response, answer_bug)

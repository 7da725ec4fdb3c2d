"""From an error to MLflow's: one table from class to error code and status, looked up along the MRO.

MLflow's clients send every request again on 408, 429, 500, 502, 503 and 504, for about four minutes. So only what may
succeed by itself answers 503; nothing that a caller did answers 5xx, and damage, which no retry mends, answers 409.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from touchmark.domain.errors import (
    AliasNotFoundError,
    BlobMissingError,
    BusyError,
    ConflictError,
    CorruptError,
    DeniedError,
    ExperimentExistsError,
    ExperimentNotFoundError,
    InvalidAliasError,
    InvalidError,
    LimitExceededError,
    LoggedModelNotFoundError,
    LoggedModelNotReadyError,
    ModelExistsError,
    ModelNotFoundError,
    NameTakenError,
    NotFoundError,
    ParamChangedError,
    PreconditionError,
    RouteNotFoundError,
    RunDeletedError,
    RunNotFoundError,
    StorageFullError,
    TouchmarkError,
    UnauthenticatedError,
    UnsupportedError,
    VersionNotFoundError,
    WebhookNotFoundError,
)
from touchmark.protocols.mlflow.operations import Encoded
from touchmark.wire import AnyRequest, look_up

CODES: Mapping[type[TouchmarkError], tuple[str, int]] = {
    TouchmarkError: ("INTERNAL_ERROR", 500),
    InvalidError: ("INVALID_PARAMETER_VALUE", 400),
    UnauthenticatedError: ("UNAUTHENTICATED", 401),
    DeniedError: ("PERMISSION_DENIED", 403),
    NotFoundError: ("RESOURCE_DOES_NOT_EXIST", 404),
    AliasNotFoundError: ("INVALID_PARAMETER_VALUE", 400),  # MLflow's clients and tests read exactly this
    RouteNotFoundError: ("ENDPOINT_NOT_FOUND", 404),
    ConflictError: ("RESOURCE_CONFLICT", 409),
    ModelExistsError: ("RESOURCE_ALREADY_EXISTS", 400),  # 400, not 409: `register_model` passes over exactly this code
    NameTakenError: ("RESOURCE_ALREADY_EXISTS", 400),
    ExperimentExistsError: ("RESOURCE_ALREADY_EXISTS", 400),
    RunDeletedError: ("INVALID_PARAMETER_VALUE", 400),
    ParamChangedError: ("INVALID_PARAMETER_VALUE", 400),
    LoggedModelNotReadyError: ("INVALID_PARAMETER_VALUE", 400),
    PreconditionError: ("ABORTED", 409),
    CorruptError: ("DATA_LOSS", 409),
    UnsupportedError: ("NOT_IMPLEMENTED", 501),
    BusyError: ("TEMPORARILY_UNAVAILABLE", 503),
    BlobMissingError: ("RESOURCE_CONFLICT", 409),  # sending the same request again brings no bytes
    StorageFullError: ("RESOURCE_EXHAUSTED", 507),
}
"""The error code and status of each kind, and of the cases that differ from their kind."""


def _say_experiment(experiment: Any = "", **_: Any) -> str:
    if isinstance(experiment, int):
        return f"No Experiment with id={experiment} exists"
    return f"Could not find experiment with name '{experiment}'"


def _say_alias(alias: str = "", reason: str = "") -> str:
    if alias.lower() == "latest":
        return "'latest' alias name (case insensitive) is reserved."
    if alias[:1] in "vV" and alias[1:].isdigit():
        return f"Version alias name '{alias}' is reserved."
    return f"Invalid alias name: '{alias}': {reason}."


_SENTENCES: Mapping[type[TouchmarkError], str | Callable[..., str]] = {
    ModelNotFoundError: "Registered Model with name={name} not found",
    VersionNotFoundError: "Model Version (name={name}, version={version}) not found",
    InvalidAliasError: _say_alias,
    AliasNotFoundError: "Registered model alias {alias} not found.",
    ModelExistsError: "Registered Model (name={name}) already exists.",
    ExperimentNotFoundError: _say_experiment,
    ExperimentExistsError: "Experiment(name={experiment}) already exists.",
    RunNotFoundError: "Run with id={run_id} not found",
    RunDeletedError: "The run {run_id} must be in the 'active' state. Current state is deleted.",
    WebhookNotFoundError: "Webhook with ID {webhook_id} not found.",
    LoggedModelNotFoundError: "Logged model with ID '{model_id}' not found.",
}
"""Sentences that MLflow's clients, or scripts written against it, read. All others are our own."""


def error_response(_request: AnyRequest, error: TouchmarkError) -> Encoded:
    """Return an error as MLflow's clients read it."""
    code, status = look_up(CODES, error)
    if isinstance(error, LimitExceededError) and error.fields.get("what") in {"The body", "One upload"}:
        status = 413
    return Encoded(msgspec.json.encode({"error_code": code, "message": _say(error)}), status)


def _say(error: TouchmarkError) -> str:
    sentence = _SENTENCES.get(type(error))
    if sentence is None or error.message != type(error)(**error.fields).message:  # the raise had words of its own
        return error.message
    return sentence.format(**error.fields) if isinstance(sentence, str) else sentence(**error.fields)

"""Logged models: create, finish, read, search, params, tags, delete. MLflow 3 saves every model as one."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from touchmark.domain.errors import InvalidFieldError, LoggedModelNotFoundError
from touchmark.domain.names import is_logged_model_id
from touchmark.domain.tracking import PARAM_VALUE_LIMIT, LoggedModel, LoggedModelStatus, Measurement
from touchmark.protocols.mlflow.experiments import read_experiment_id
from touchmark.protocols.mlflow.filters import LoggedModelOrder, parse_logged_model_filter, parse_logged_model_order
from touchmark.protocols.mlflow.messages import (
    KeyValue,
    Message,
    MetricMessage,
    check_max_results,
    to_key_values,
    to_mapping,
    to_metric,
    to_ms,
)
from touchmark.protocols.mlflow.operations import Fields, Operation, invalid_value, missing
from touchmark.services import logged_models, search
from touchmark.wire import AnyRequest, Lane, call, call_inline

MAX_RESULTS = 1_000
_STATUSES = {
    LoggedModelStatus.PENDING: "LOGGED_MODEL_PENDING",
    LoggedModelStatus.READY: "LOGGED_MODEL_READY",
    LoggedModelStatus.UPLOAD_FAILED: "LOGGED_MODEL_UPLOAD_FAILED",
}
_STATUS_OF = {name: status for status, name in _STATUSES.items()}
_NUMBERED = {1: LoggedModelStatus.PENDING, 2: LoggedModelStatus.READY, 3: LoggedModelStatus.UPLOAD_FAILED}


class NewModel(Fields):
    """CreateLoggedModel."""

    experiment_id: str = ""
    name: str | None = None
    model_type: str | None = None
    source_run_id: str | None = None
    params: Sequence[KeyValue] = ()
    tags: Sequence[KeyValue] = ()


class ModelId(Fields):
    """GetLoggedModel, DeleteLoggedModel."""

    model_id: str = ""
    allow_deleted: bool = False


class End(Fields):
    """FinalizeLoggedModel."""

    model_id: str = ""
    status: str | int | None = None


class NewParams(Fields):
    """LogLoggedModelParamsRequest."""

    model_id: str = ""
    params: Sequence[KeyValue] = ()


class NewTags(Fields):
    """SetLoggedModelTags."""

    model_id: str = ""
    tags: Sequence[KeyValue] = ()


class TagKey(Fields):
    """DeleteLoggedModelTag."""

    model_id: str = ""
    tag_key: str = ""


class DatasetFilter(msgspec.Struct, kw_only=True):
    """A data set metrics are narrowed to."""

    dataset_name: str = ""
    dataset_digest: str | None = None


class ModelSearch(Fields):
    """SearchLoggedModels."""

    experiment_ids: Sequence[str] = ()
    filter: str | None = None
    datasets: Sequence[DatasetFilter] = ()
    max_results: int | None = None
    order_by: Sequence[LoggedModelOrder] = ()
    page_token: str | None = None


class ModelInfo(Message, kw_only=True):
    """LoggedModelInfo."""

    model_id: str
    experiment_id: str
    name: str
    creation_timestamp_ms: int
    last_updated_timestamp_ms: int
    artifact_uri: str
    status: str
    model_type: str | None = None
    source_run_id: str | None = None
    status_message: str | None = None
    tags: Sequence[KeyValue] = ()


class ModelData(Message):
    """LoggedModelData."""

    params: Sequence[KeyValue] = ()
    metrics: Sequence[MetricMessage] = ()


class ModelMessage(Message):
    """LoggedModel."""

    info: ModelInfo
    data: ModelData


class OneModel(Message):
    """What answers with one logged model."""

    model: ModelMessage


class ModelPage(Message):
    """SearchLoggedModels.Response."""

    models: Sequence[ModelMessage] = ()
    next_page_token: str | None = None


def to_logged_model(model: LoggedModel, measurements: Sequence[Measurement]) -> ModelMessage:
    """Return a logged model as MLflow writes one."""
    info = ModelInfo(
        model_id=model.model_id,
        experiment_id=str(model.experiment_id),
        name=model.name,
        creation_timestamp_ms=to_ms(model.created_at),
        last_updated_timestamp_ms=to_ms(model.updated_at),
        artifact_uri=f"mlflow-artifacts:/{model.experiment_id}/models/{model.model_id}/artifacts",
        status=_STATUSES[model.status],
        model_type=model.model_type or "",
        source_run_id=model.run_id or "",
        status_message=model.status_message,
        tags=to_key_values(model.tags),
    )
    metrics = tuple(
        to_metric(
            each.metric,
            run_id=each.run_id,
            model_id=model.model_id,
            dataset_name=each.dataset_name,
            dataset_digest=each.dataset_digest,
        )
        for each in measurements
    )
    return ModelMessage(info=info, data=ModelData(params=to_key_values(model.params), metrics=metrics))


def _check_id(model_id: str) -> str:
    if not is_logged_model_id(model_id):  # there can be none
        raise LoggedModelNotFoundError(model_id=model_id[:100])
    return model_id


def _to_params(params: Sequence[KeyValue]) -> dict[str, str]:
    return {key: value[:PARAM_VALUE_LIMIT] for key, value in to_mapping(params).items()}


async def create_logged_model(request: AnyRequest, fields: NewModel) -> OneModel:
    """Begin to log a model."""
    model = await call(
        request,
        Lane.WRITE,
        logged_models.create_logged_model,
        fields.name or None,
        experiment=read_experiment_id(fields.experiment_id),
        run_id=fields.source_run_id or None,
        model_type=fields.model_type or None,
        params=_to_params(fields.params),
        tags=to_mapping(fields.tags),
    )
    return OneModel(model=to_logged_model(model, ()))


async def get_logged_model(request: AnyRequest, fields: ModelId) -> OneModel:
    """Return a logged model."""
    model_id = _check_id(fields.model_id)
    model = await call_inline(request, logged_models.get_logged_model, model_id, deleted=fields.allow_deleted)
    return OneModel(model=to_logged_model(model, await _measure(request, model)))


async def _measure(request: AnyRequest, model: LoggedModel) -> Sequence[Measurement]:
    if not model.metrics:
        return ()
    found = await call_inline(request, logged_models.get_measurements, [model.model_id])
    return found[model.model_id]


async def finish_logged_model(request: AnyRequest, fields: End) -> OneModel:
    """Say how the logging ended."""
    model_id = _check_id(fields.model_id)
    status = _NUMBERED.get(fields.status) if isinstance(fields.status, int) else _STATUS_OF.get(fields.status or "")
    if status is None:
        raise missing("status") if not fields.status else invalid_value("status", fields.status)
    if status is LoggedModelStatus.PENDING:
        raise InvalidFieldError("A logged model is finished as READY or UPLOAD_FAILED.", field="status")
    model = await call(request, Lane.BYTES, logged_models.finish_logged_model, model_id, status)
    return OneModel(model=to_logged_model(model, await _measure(request, model)))


async def delete_logged_model(request: AnyRequest, fields: ModelId) -> None:
    """Delete a logged model; versions made from it are untouched."""
    await call(request, Lane.WRITE, logged_models.delete_logged_model, _check_id(fields.model_id))


async def log_params(request: AnyRequest, fields: NewParams) -> None:
    """Write params, each once."""
    params = _to_params(fields.params)
    await call(request, Lane.WRITE, logged_models.log_logged_model_params, _check_id(fields.model_id), params)


async def set_tags(request: AnyRequest, fields: NewTags) -> None:
    """Set tags; the others stay."""
    model_id = _check_id(fields.model_id)
    await call(request, Lane.WRITE, logged_models.set_logged_model_tags, model_id, to_mapping(fields.tags))


async def delete_tag(request: AnyRequest, fields: TagKey) -> None:
    """Delete one tag."""
    await call(request, Lane.WRITE, logged_models.delete_logged_model_tag, _check_id(fields.model_id), fields.tag_key)


async def search_logged_models(request: AnyRequest, fields: ModelSearch) -> ModelPage:
    """Return a page of logged models of some experiments."""
    if not fields.experiment_ids:
        raise missing("experiment_ids")
    for dataset in fields.datasets:
        if not dataset.dataset_name:
            raise InvalidFieldError("`dataset_name` in the `datasets` clause must be specified.", field="datasets")
    page = await call(
        request,
        Lane.READ,
        search.search_logged_models,
        experiments=tuple(
            int(text) for text in fields.experiment_ids if text.isascii() and text.isdigit() and len(text) <= 18
        ),
        datasets=[(dataset.dataset_name, dataset.dataset_digest or None) for dataset in fields.datasets],
        condition=parse_logged_model_filter(fields.filter),
        order=parse_logged_model_order(fields.order_by),
        limit=check_max_results(fields.max_results or None, default=100, maximum=MAX_RESULTS),
        cursor=fields.page_token,
    )
    measured = [model.model_id for model in page.items if model.metrics]
    found = await call(request, Lane.READ, logged_models.get_measurements, measured)
    return ModelPage(
        models=tuple(to_logged_model(model, found.get(model.model_id, ())) for model in page.items),
        next_page_token=page.next_cursor,
    )


_PATH = "2.0/mlflow/logged-models"
OPERATIONS = (
    Operation(method="POST", path=_PATH, handler=create_logged_model, fields=NewModel, required=("experiment_id",)),
    Operation(method="POST", path=_PATH + "/search", handler=search_logged_models, fields=ModelSearch),
    Operation(method="GET", path=_PATH + "/{model_id}", handler=get_logged_model, fields=ModelId),
    Operation(method="PATCH", path=_PATH + "/{model_id}", handler=finish_logged_model, fields=End),
    Operation(method="DELETE", path=_PATH + "/{model_id}", handler=delete_logged_model, fields=ModelId),
    Operation(method="POST", path=_PATH + "/{model_id}/params", handler=log_params, fields=NewParams),
    Operation(method="PATCH", path=_PATH + "/{model_id}/tags", handler=set_tags, fields=NewTags),
    Operation(method="DELETE", path=_PATH + "/{model_id}/tags/{tag_key}", handler=delete_tag, fields=TagKey),
)

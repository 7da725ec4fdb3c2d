"""Runs: create, read, search, end, log params, tags, data sets and models, delete, restore.

A run's name is also its tag `mlflow.runName`: whoever sets one sets the other.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from touchmark.domain.errors import InvalidFieldError, ParamChangedError, RunNotFoundError, TagNotFoundError
from touchmark.domain.tracking import (
    PARAM_VALUE_LIMIT,
    DatasetInput,
    Measurement,
    Metric,
    ModelLink,
    ModelRole,
    Run,
    RunStatus,
)
from touchmark.protocols.mlflow.experiments import read_experiment_id
from touchmark.protocols.mlflow.filters import parse_run_filter, parse_run_order
from touchmark.protocols.mlflow.messages import (
    KeyValue,
    Message,
    MetricMessage,
    check_max_results,
    from_ms,
    read_view,
    to_key_values,
    to_mapping,
    to_metric,
    to_ms,
)
from touchmark.protocols.mlflow.operations import Fields, Operation, invalid_value, missing
from touchmark.services import runs, search
from touchmark.wire import AnyRequest, Lane, call, call_inline

MAX_RESULTS = 50_000
NAME_TAG = "mlflow.runName"
CONTEXT_TAG = "mlflow.data.context"
HISTORY_TAG = "mlflow.log-model.history"
"""Where MLflow 2 notes the models a run logged."""
INPUTS_LIMIT_BYTES = 64 << 20
"""The body of log-inputs: profiles of data sets may have 16 million characters."""
_SHOWN_CHARACTERS = 500
_STATUSES = {1: "RUNNING", 2: "SCHEDULED", 3: "FINISHED", 4: "FAILED", 5: "KILLED"}


class NewRun(Fields):
    """CreateRun."""

    experiment_id: str = "0"
    user_id: str | None = None
    run_name: str | None = None
    start_time: int | None = None
    tags: Sequence[KeyValue] = ()


class RunId(Fields):
    """GetRun, DeleteRun, RestoreRun."""

    run_id: str = ""
    run_uuid: str = ""


class RunChange(Fields):
    """UpdateRun."""

    run_id: str = ""
    run_uuid: str = ""
    status: str | int | None = None
    end_time: int | None = None
    run_name: str | None = None


class RunSearch(Fields):
    """SearchRuns."""

    experiment_ids: Sequence[str] = ()
    filter: str | None = None
    run_view_type: str | int | None = None
    max_results: int | None = None
    order_by: Sequence[str] = ()
    page_token: str | None = None


class NewMetric(Fields):
    """LogMetric."""

    run_id: str = ""
    run_uuid: str = ""
    key: str = ""
    value: float | None = None
    timestamp: int | None = None
    step: int = 0
    model_id: str | None = None
    dataset_name: str | None = None
    dataset_digest: str | None = None


class NewParam(Fields):
    """LogParam, SetTag, DeleteTag."""

    run_id: str = ""
    run_uuid: str = ""
    key: str = ""
    value: str = ""


class BatchMetric(msgspec.Struct, kw_only=True):
    """One metric of a batch."""

    key: str | None = None
    value: float | None = None
    timestamp: int | None = None
    step: int | None = None
    model_id: str | None = None
    dataset_name: str | None = None
    dataset_digest: str | None = None


class Batch(Fields):
    """LogBatch."""

    run_id: str = ""
    metrics: Sequence[BatchMetric] = ()
    params: Sequence[KeyValue] = ()
    tags: Sequence[KeyValue] = ()


class DatasetMessage(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Dataset."""

    name: str | None = None
    digest: str | None = None
    source_type: str | None = None
    source: str | None = None
    schema: str | None = None
    profile: str | None = None


class DatasetInputMessage(msgspec.Struct, kw_only=True, omit_defaults=True):
    """DatasetInput."""

    tags: Sequence[KeyValue] = ()
    dataset: DatasetMessage | None = None


class ModelMessage(msgspec.Struct, kw_only=True, omit_defaults=True):
    """ModelInput, ModelOutput."""

    model_id: str | None = None
    step: int | None = None


class Inputs(Fields):
    """LogInputs."""

    run_id: str = ""
    datasets: Sequence[DatasetInputMessage] = ()
    models: Sequence[ModelMessage] = ()


class Outputs(Fields):
    """LogOutputs."""

    run_id: str = ""
    models: Sequence[ModelMessage] = ()


class LoggedModelNote(Fields):
    """LogModel, as MLflow 2 sends it."""

    run_id: str = ""
    model_json: str = ""


class RunInfo(Message, kw_only=True):
    """RunInfo."""

    run_uuid: str
    experiment_id: str
    run_name: str
    user_id: str
    status: str
    start_time: int
    end_time: int | None = None
    artifact_uri: str
    lifecycle_stage: str
    run_id: str


class RunData(Message):
    """RunData."""

    metrics: Sequence[MetricMessage] = ()
    params: Sequence[KeyValue] = ()
    tags: Sequence[KeyValue] = ()


class RunInputs(Message):
    """RunInputs."""

    dataset_inputs: Sequence[DatasetInputMessage] = ()
    model_inputs: Sequence[ModelMessage] = ()


class RunOutputs(Message):
    """RunOutputs."""

    model_outputs: Sequence[ModelMessage] = ()


class RunMessage(Message):
    """Run."""

    info: RunInfo
    data: RunData
    inputs: RunInputs
    outputs: RunOutputs | None = None


class OneRun(Message):
    """What answers with one run."""

    run: RunMessage


class ChangedRun(Message):
    """UpdateRun.Response."""

    run_info: RunInfo


class RunPage(Message):
    """SearchRuns.Response."""

    runs: Sequence[RunMessage] = ()
    next_page_token: str | None = None


# ── answers ──────────────────────────────────────────────────────────────────────────────────────────────────────


def to_run_info(run: Run) -> RunInfo:
    """Return the head of a run as MLflow writes it."""
    return RunInfo(
        run_uuid=run.run_id,
        experiment_id=str(run.experiment_id),
        run_name=run.name,
        user_id=run.user,
        status=run.status.value,
        start_time=to_ms(run.started_at),
        end_time=None if run.ended_at is None else to_ms(run.ended_at),
        artifact_uri=f"mlflow-artifacts:/{run.experiment_id}/{run.run_id}/artifacts",
        lifecycle_stage="active" if run.deleted_at is None else "deleted",
        run_id=run.run_id,
    )


def to_run(run: Run) -> RunMessage:
    """Return a run as MLflow writes one."""
    outputs = tuple(
        ModelMessage(model_id=link.model_id, step=link.step) for link in run.models if link.role is ModelRole.OUTPUT
    )
    return RunMessage(
        info=to_run_info(run),
        data=RunData(
            metrics=tuple(to_metric(metric) for metric in run.metrics.values()),
            params=to_key_values(run.params),
            tags=to_key_values({**run.tags, NAME_TAG: run.name}),
        ),
        inputs=RunInputs(
            dataset_inputs=tuple(_to_dataset(dataset) for dataset in run.datasets),
            model_inputs=tuple(
                ModelMessage(model_id=link.model_id) for link in run.models if link.role is ModelRole.INPUT
            ),
        ),
        outputs=RunOutputs(model_outputs=outputs) if outputs else None,
    )


def _to_dataset(dataset: DatasetInput) -> DatasetInputMessage:
    tags = dict(dataset.tags)
    if dataset.context is not None:
        tags = {CONTEXT_TAG: dataset.context, **tags}
    return DatasetInputMessage(
        tags=to_key_values(tags),
        dataset=DatasetMessage(
            name=dataset.name,
            digest=dataset.digest,
            source_type=dataset.source_type,
            source=dataset.source,
            schema=dataset.schema,
            profile=dataset.profile,
        ),
    )


# ── one run ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def create_run(request: AnyRequest, fields: NewRun) -> OneRun:
    """Begin a run."""
    tags = to_mapping(fields.tags)
    name, tagged = fields.run_name or None, tags.get(NAME_TAG)
    if name and tagged and name != tagged:
        sentence = (
            f"Both 'run_name' argument and '{NAME_TAG}' tag are specified, but with different values "
            f"(run_name='{name[:100]}', {NAME_TAG}='{tagged[:100]}')."
        )
        raise InvalidFieldError(sentence, field="run_name")
    run = await call(
        request,
        Lane.WRITE,
        runs.create_run,
        read_experiment_id(fields.experiment_id or "0"),
        name=name or tagged or None,
        user=fields.user_id,
        started_at=from_ms(fields.start_time) if fields.start_time else None,
        tags=tags,
    )
    return OneRun(run=to_run(run))


async def get_run(request: AnyRequest, fields: RunId) -> OneRun:
    """Return a run, deleted or not."""
    return OneRun(run=to_run(await call_inline(request, runs.get_run, _id_of(fields))))


def _id_of(fields: RunId | RunChange | NewMetric | NewParam) -> str:
    run_id = fields.run_id or fields.run_uuid
    if not run_id:
        raise missing("run_id")
    if not run_id.replace("_", "a").replace("-", "a").isalnum() or len(run_id) > 64 or not run_id.isascii():
        raise RunNotFoundError(run_id=run_id[:100])  # no run has such an id
    return run_id


async def update_run(request: AnyRequest, fields: RunChange) -> ChangedRun:
    """Change a run's status, end or name."""
    status = _STATUSES.get(fields.status) if isinstance(fields.status, int) else fields.status
    if fields.status is not None and status not in RunStatus.__members__:
        raise invalid_value("status", fields.status, f" Value must be one of {list(RunStatus)}.")
    run = await call(
        request,
        Lane.WRITE,
        runs.update_run,
        _id_of(fields),
        status=status,
        ended_at=from_ms(fields.end_time) if fields.end_time else None,
        name=fields.run_name or None,
        tags={NAME_TAG: fields.run_name} if fields.run_name else None,
    )
    return ChangedRun(run_info=to_run_info(run))


async def delete_run(request: AnyRequest, fields: RunId) -> None:
    """Delete a run until it is restored."""
    await call(request, Lane.WRITE, runs.delete_run, _id_of(fields))


async def restore_run(request: AnyRequest, fields: RunId) -> None:
    """Bring a deleted run back."""
    await call(request, Lane.WRITE, runs.restore_run, _id_of(fields))


async def search_runs(request: AnyRequest, fields: RunSearch) -> RunPage:
    """Return a page of runs of some experiments."""
    wanted = [int(text) for text in fields.experiment_ids if text.isascii() and text.isdigit() and len(text) <= 18]
    page = await call(
        request,
        Lane.READ,
        search.search_runs,
        experiments=wanted,
        condition=parse_run_filter(fields.filter),
        order=parse_run_order(fields.order_by),
        deleted=read_view(fields.run_view_type),
        limit=check_max_results(fields.max_results, default=1_000, maximum=MAX_RESULTS),
        cursor=fields.page_token,
    )
    return RunPage(runs=tuple(to_run(run) for run in page.items), next_page_token=page.next_cursor)


# ── what a run logs ──────────────────────────────────────────────────────────────────────────────────────────────


async def log_metric(request: AnyRequest, fields: NewMetric) -> None:
    """Append one measurement."""
    if fields.value is None:
        raise missing("value")
    if fields.timestamp is None:
        raise missing("timestamp")
    metric = BatchMetric(
        key=fields.key,
        value=fields.value,
        timestamp=fields.timestamp,
        step=fields.step,
        model_id=fields.model_id,
        dataset_name=fields.dataset_name,
        dataset_digest=fields.dataset_digest,
    )
    run_id = _id_of(fields)
    metrics, measured = _read_metrics(run_id, [metric])
    await call(request, Lane.WRITE, runs.log_batch, run_id, metrics=metrics, measured=measured)


def _read_metrics(
    run_id: str, given: Sequence[BatchMetric]
) -> tuple[list[Metric], Mapping[str, Sequence[Measurement]]]:
    metrics: list[Metric] = []
    measured: dict[str, list[Measurement]] = defaultdict(list)
    for each in given:
        # An infinite number is kept as the greatest finite one, as MLflow's own store does.
        value = each.value if each.value is not None else math.nan
        if math.isinf(value):
            value = math.copysign(1.7976931348623157e308, value)
        metric = Metric(each.key or "", value, from_ms(each.timestamp or 0), each.step or 0)
        metrics.append(metric)
        if each.model_id:
            measured[each.model_id].append(
                Measurement(metric, run_id, each.dataset_name or None, each.dataset_digest or None)
            )
    return metrics, measured


async def log_param(request: AnyRequest, fields: NewParam) -> None:
    """Write one param, once."""
    run_id = _id_of(fields)
    await _log(request, run_id, params={fields.key: fields.value[:PARAM_VALUE_LIMIT]})


async def set_tag(request: AnyRequest, fields: NewParam) -> None:
    """Set one tag."""
    await _log(request, _id_of(fields), tags={fields.key: fields.value})


async def delete_tag(request: AnyRequest, fields: NewParam) -> None:
    """Delete one tag; one that is not there is an error here."""
    run_id = _id_of(fields)
    try:
        await call(request, Lane.WRITE, runs.delete_tag, run_id, fields.key)
    except TagNotFoundError as error:
        sentence = f"No tag with name: {fields.key[:250]} in run with id {run_id}"
        raise TagNotFoundError(sentence, **error.fields) from None


async def log_batch(request: AnyRequest, fields: Batch) -> None:
    """Write params, metrics and tags: all of them or none."""
    parts: tuple[tuple[str, Sequence[BatchMetric | KeyValue], int], ...] = (
        ("metrics", fields.metrics, 1_000),
        ("params", fields.params, 100),
        ("tags", fields.tags, 100),
    )
    for what, given, limit in parts:
        if len(given) > limit:
            sentence = f"A batch logging request can contain at most {limit} {what}. Got {len(given)} {what}. Please split up {what} across multiple requests and try again."
            raise InvalidFieldError(sentence, field=what)
        for index, each in enumerate(given):
            if not each.key:
                raise missing(f"{what}[{index}].key")
    for index, metric in enumerate(fields.metrics):
        if metric.value is None:
            raise missing(f"metrics[{index}].value")
        if metric.timestamp is None:
            raise missing(f"metrics[{index}].timestamp")
    params: dict[str, str] = {}
    for param in fields.params:
        value = (param.value or "")[:PARAM_VALUE_LIMIT]
        if params.setdefault(param.key or "", value) != value:
            sentence = f"Duplicate parameter keys have been submitted: {[param.key]}. Please ensure the request contains only one param value per param key."
            raise InvalidFieldError(sentence, field="params")
    metrics, measured = _read_metrics(fields.run_id, fields.metrics)
    await _log(request, fields.run_id, params=params, metrics=metrics, measured=measured, tags=to_mapping(fields.tags))


async def _log(request: AnyRequest, run_id: str, *, tags: Mapping[str, str] | None = None, **more: Any) -> None:
    name = (tags or {}).get(NAME_TAG) or None
    try:
        await call(request, Lane.WRITE, runs.log_batch, run_id, tags=tags, name=name, **more)
    except ParamChangedError as error:
        key, old, new = (str(error.fields[name])[:_SHOWN_CHARACTERS] for name in ("key", "old", "new"))
        sentence = (
            f"Changing param values is not allowed. Params were already logged='{[{'key': key, 'old_value': old, 'new_value': new}]}' "
            f"for run ID='{run_id}'."
        )
        raise ParamChangedError(sentence, **error.fields) from None


async def log_inputs(request: AnyRequest, fields: Inputs) -> None:
    """Note which data sets and models a run read."""
    datasets = []
    for index, given in enumerate(fields.datasets):
        dataset = given.dataset
        if dataset is None or not dataset.name or not dataset.digest:
            raise missing(f"datasets[{index}].dataset.{'digest' if dataset and dataset.name else 'name'}")
        tags = to_mapping(given.tags)
        context = tags.pop(CONTEXT_TAG, None)
        datasets.append(
            DatasetInput(
                dataset.name,
                dataset.digest,
                context,
                dataset.source,
                dataset.source_type,
                dataset.schema,
                dataset.profile,
                tags,
            )
        )
    links = [ModelLink(ModelRole.INPUT, model.model_id or "") for model in fields.models]
    if datasets or not links:
        await call(request, Lane.WRITE, runs.log_datasets, fields.run_id, datasets)
    if links:
        await call(request, Lane.WRITE, runs.link_models, fields.run_id, links)


async def log_outputs(request: AnyRequest, fields: Outputs) -> None:
    """Note which models a run made."""
    links = [ModelLink(ModelRole.OUTPUT, model.model_id or "", model.step or 0) for model in fields.models]
    if not links:
        raise missing("models")
    await call(request, Lane.WRITE, runs.link_models, fields.run_id, links)


async def log_model(request: AnyRequest, fields: LoggedModelNote) -> None:
    """Note a model as MLflow 2 does: in a tag of its run."""
    try:
        model = json.loads(fields.model_json)
    except (ValueError, RecursionError):
        raise InvalidFieldError("Malformed model info. It is not a valid JSON.", field="model_json") from None
    absent = {"artifact_path", "flavors", "utc_time_created", "run_id"} - set(model if isinstance(model, dict) else ())
    if absent:
        raise InvalidFieldError(f"Model json is missing mandatory fields: {sorted(absent)}", field="model_json")
    run = await call(request, Lane.READ, runs.get_run, fields.run_id)
    try:
        noted = json.loads(run.tags.get(HISTORY_TAG, "[]"))
    except (ValueError, RecursionError):  # anybody may write the tag
        noted = []
    text = json.dumps([*(noted if isinstance(noted, list) else []), model])
    await call(request, Lane.WRITE, runs.log_batch, fields.run_id, tags={HISTORY_TAG: text})


_PATH = "2.0/mlflow/runs/"
OPERATIONS = (
    Operation(method="POST", path=_PATH + "create", handler=create_run, fields=NewRun),
    Operation(method="GET", path=_PATH + "get", handler=get_run, fields=RunId),
    Operation(method="POST", path=_PATH + "update", handler=update_run, fields=RunChange),
    Operation(method="POST", path=_PATH + "delete", handler=delete_run, fields=RunId),
    Operation(method="POST", path=_PATH + "restore", handler=restore_run, fields=RunId),
    Operation(method="POST", path=_PATH + "search", handler=search_runs, fields=RunSearch),
    Operation(method="POST", path=_PATH + "log-metric", handler=log_metric, fields=NewMetric, required=("key",)),
    Operation(method="POST", path=_PATH + "log-parameter", handler=log_param, fields=NewParam, required=("key",)),
    Operation(method="POST", path=_PATH + "set-tag", handler=set_tag, fields=NewParam, required=("key",)),
    Operation(method="POST", path=_PATH + "delete-tag", handler=delete_tag, fields=NewParam, required=("key",)),
    Operation(method="POST", path=_PATH + "log-batch", handler=log_batch, fields=Batch, required=("run_id",)),
    Operation(
        method="POST",
        path=_PATH + "log-inputs",
        handler=log_inputs,
        fields=Inputs,
        required=("run_id",),
        limit_bytes=INPUTS_LIMIT_BYTES,
    ),
    Operation(method="POST", path=_PATH + "outputs", handler=log_outputs, fields=Outputs, required=("run_id",)),
    Operation(
        method="POST",
        path=_PATH + "log-model",
        handler=log_model,
        fields=LoggedModelNote,
        required=("run_id", "model_json"),
    ),
)

"""Experiments: create, read, search, rename, tag, delete, restore.

An experiment's artifacts always come through this server, so that what is registered can be sealed: an `artifact_location`
elsewhere is passed over, and clients are told ours.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from touchmark.domain.errors import ExperimentNotFoundError, InvalidFieldError
from touchmark.domain.tracking import Experiment
from touchmark.protocols.mlflow.filters import parse_experiment_filter, parse_experiment_order
from touchmark.protocols.mlflow.messages import (
    KeyValue,
    Message,
    check_max_results,
    read_view,
    to_key_values,
    to_mapping,
    to_ms,
)
from touchmark.protocols.mlflow.operations import Fields, Operation
from touchmark.services import experiments, search
from touchmark.wire import AnyRequest, Lane, call, call_inline

MAX_RESULTS = 50_000


class NewExperiment(Fields):
    """CreateExperiment."""

    name: str = ""
    artifact_location: str | None = None
    tags: Sequence[KeyValue] = ()


class ExperimentId(Fields):
    """GetExperiment, DeleteExperiment, RestoreExperiment."""

    experiment_id: str = ""


class ExperimentName(Fields):
    """GetExperimentByName."""

    experiment_name: str = ""


class NewName(Fields):
    """UpdateExperiment."""

    experiment_id: str = ""
    new_name: str = ""


class ExperimentTag(Fields):
    """SetExperimentTag, DeleteExperimentTag."""

    experiment_id: str = ""
    key: str = ""
    value: str = ""


class ExperimentSearch(Fields):
    """SearchExperiments."""

    max_results: int | None = None
    page_token: str | None = None
    filter: str | None = None
    order_by: Sequence[str] = ()
    view_type: str | int | None = None


class ExperimentMessage(Message):
    """Experiment."""

    experiment_id: str
    name: str
    artifact_location: str
    lifecycle_stage: str
    last_update_time: int
    creation_time: int
    tags: Sequence[KeyValue] = ()
    workspace: str | None = None


class OneExperiment(Message):
    """What answers with one experiment."""

    experiment: ExperimentMessage


class CreatedExperiment(Message):
    """CreateExperiment.Response."""

    experiment_id: str


class ExperimentPage(Message):
    """SearchExperiments.Response."""

    experiments: Sequence[ExperimentMessage] = ()
    next_page_token: str | None = None


def to_experiment(experiment: Experiment) -> ExperimentMessage:
    """Return an experiment as MLflow writes one."""
    return ExperimentMessage(
        experiment_id=str(experiment.experiment_id),
        name=experiment.name,
        artifact_location=f"mlflow-artifacts:/{experiment.experiment_id}",
        lifecycle_stage="active" if experiment.deleted_at is None else "deleted",
        last_update_time=to_ms(experiment.updated_at),
        creation_time=to_ms(experiment.created_at),
        tags=to_key_values(experiment.tags),
        workspace="default",  # what a server without workspaces says
    )


def read_experiment_id(text: str) -> int:
    """Return an experiment's id. Raises InvalidFieldError, ExperimentNotFoundError (a number that none can have)."""
    if not re.fullmatch(r"-?[0-9]+", text):
        sentence = f"Invalid experiment ID '{text[:100]}'. Experiment ID must be a valid integer."
        raise InvalidFieldError(sentence, field="experiment_id")
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise ExperimentNotFoundError(f"No Experiment with id={text[:100]} exists", experiment=text[:100])
    return int(text)


async def create_experiment(request: AnyRequest, fields: NewExperiment) -> CreatedExperiment:
    """Create an experiment."""
    if fields.artifact_location:
        _check_location(fields.artifact_location)
    made = await call(request, Lane.WRITE, experiments.create_experiment, fields.name, tags=to_mapping(fields.tags))
    return CreatedExperiment(experiment_id=str(made.experiment_id))


def _check_location(location: str) -> None:
    if len(location) > 2048:
        raise InvalidFieldError(
            "Invalid artifact path length. The length of the artifact path cannot be greater than 2048.",
            field="artifact_location",
        )
    if "#" in location or ";" in location:
        raise InvalidFieldError("'artifact_location' URL can't include fragments or params.", field="artifact_location")
    if ".." in location.split("/") or location.startswith("runs:"):
        raise InvalidFieldError("Invalid artifact location.", field="artifact_location")


async def get_experiment(request: AnyRequest, fields: ExperimentId) -> OneExperiment:
    """Return an experiment, deleted or not."""
    experiment_id = read_experiment_id(fields.experiment_id)
    return OneExperiment(
        experiment=to_experiment(await call_inline(request, experiments.get_experiment, experiment_id))
    )


async def get_experiment_by_name(request: AnyRequest, fields: ExperimentName) -> OneExperiment:
    """Return the experiment of a name, deleted or not."""
    found = await call_inline(request, experiments.find_experiment_by_name, fields.experiment_name)
    if found is None:
        raise ExperimentNotFoundError(experiment=fields.experiment_name[:500])
    return OneExperiment(experiment=to_experiment(found))


async def search_experiments(request: AnyRequest, fields: ExperimentSearch) -> ExperimentPage:
    """Return a page of experiments."""
    page = await call(
        request,
        Lane.READ,
        search.search_experiments,
        condition=parse_experiment_filter(fields.filter),
        order=parse_experiment_order(fields.order_by),
        deleted=read_view(fields.view_type),
        limit=check_max_results(fields.max_results, default=1_000, maximum=MAX_RESULTS),
        cursor=fields.page_token,
    )
    return ExperimentPage(
        experiments=tuple(to_experiment(item) for item in page.items), next_page_token=page.next_cursor
    )


async def update_experiment(request: AnyRequest, fields: NewName) -> None:
    """Rename an experiment."""
    experiment_id = read_experiment_id(fields.experiment_id)
    await call(request, Lane.WRITE, experiments.rename_experiment, experiment_id, fields.new_name)


async def delete_experiment(request: AnyRequest, fields: ExperimentId) -> None:
    """Delete an experiment and its runs until it is restored."""
    await call(request, Lane.WRITE, experiments.delete_experiment, read_experiment_id(fields.experiment_id))


async def restore_experiment(request: AnyRequest, fields: ExperimentId) -> None:
    """Bring a deleted experiment back."""
    await call(request, Lane.WRITE, experiments.restore_experiment, read_experiment_id(fields.experiment_id))


async def set_experiment_tag(request: AnyRequest, fields: ExperimentTag) -> None:
    """Set one tag."""
    experiment_id = read_experiment_id(fields.experiment_id)
    await call(request, Lane.WRITE, experiments.set_experiment_tags, experiment_id, {fields.key: fields.value})


async def delete_experiment_tag(request: AnyRequest, fields: ExperimentTag) -> None:
    """Delete one tag."""
    experiment_id = read_experiment_id(fields.experiment_id)
    await call(request, Lane.WRITE, experiments.delete_experiment_tag, experiment_id, fields.key)


_PATH = "2.0/mlflow/experiments/"
_ID = ("experiment_id",)
OPERATIONS = (
    Operation(
        method="POST", path=_PATH + "create", handler=create_experiment, fields=NewExperiment, required=("name",)
    ),
    Operation(method="GET", path=_PATH + "get", handler=get_experiment, fields=ExperimentId, required=_ID),
    Operation(
        method="GET",
        path=_PATH + "get-by-name",
        handler=get_experiment_by_name,
        fields=ExperimentName,
        required=("experiment_name",),
    ),
    Operation(method="POST", path=_PATH + "search", handler=search_experiments, fields=ExperimentSearch),
    Operation(method="GET", path=_PATH + "search", handler=search_experiments, fields=ExperimentSearch),
    Operation(
        method="POST", path=_PATH + "update", handler=update_experiment, fields=NewName, required=(*_ID, "new_name")
    ),
    Operation(method="POST", path=_PATH + "delete", handler=delete_experiment, fields=ExperimentId, required=_ID),
    Operation(method="POST", path=_PATH + "restore", handler=restore_experiment, fields=ExperimentId, required=_ID),
    Operation(
        method="POST",
        path=_PATH + "set-experiment-tag",
        handler=set_experiment_tag,
        fields=ExperimentTag,
        required=(*_ID, "key"),
    ),
    Operation(
        method="POST",
        path=_PATH + "delete-experiment-tag",
        handler=delete_experiment_tag,
        fields=ExperimentTag,
        required=(*_ID, "key"),
    ),
)

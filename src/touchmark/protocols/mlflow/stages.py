"""Stages: deprecated since MLflow 2.9, and still called: set one, and ask for the highest version of each."""

from __future__ import annotations

from collections.abc import Sequence

from touchmark.domain.errors import InvalidFieldError
from touchmark.domain.versions import Stage, find_stage
from touchmark.protocols.mlflow.messages import (
    Message,
    ModelVersionMessage,
    OneVersion,
    about_version,
    read_version_number,
    to_model_version,
)
from touchmark.protocols.mlflow.operations import Fields, Operation
from touchmark.services import stages
from touchmark.wire import AnyRequest, Lane, call, call_inline


class LatestQuestion(Fields):
    """GetLatestVersions."""

    name: str = ""
    stages: Sequence[str] = ()


class NewStage(Fields):
    """TransitionModelVersionStage."""

    name: str = ""
    version: str = ""
    stage: str = ""
    archive_existing_versions: bool = False


class Versions(Message):
    """GetLatestVersions.Response."""

    model_versions: Sequence[ModelVersionMessage] = ()


async def get_latest_versions(request: AnyRequest, fields: LatestQuestion) -> Versions:
    """Return the highest version of each stage asked for, or of every stage."""
    wanted = {_read_stage(stage) for stage in fields.stages} or set(Stage)
    _, latest = await call_inline(request, stages.get_model_with_latest, fields.name)
    return Versions(model_versions=tuple(to_model_version(version) for version in latest if version.stage in wanted))


@about_version
async def transition_stage(request: AnyRequest, fields: NewStage) -> OneVersion:
    """Set a version's stage."""
    stage = _read_stage(fields.stage)
    number = read_version_number(fields.version)
    version = await call(
        request,
        Lane.WRITE,
        stages.set_stage,
        fields.name,
        number,
        stage,
        archive_others=fields.archive_existing_versions,
    )
    return OneVersion(model_version=to_model_version(version))


def _read_stage(text: str) -> Stage:
    stage = find_stage(text)
    if stage is None:
        names = ", ".join(stage.value for stage in Stage)
        raise InvalidFieldError(
            f"Invalid Model Version stage: {text[:100]}. Value must be one of {names}.", field="stage"
        )
    return stage


_PATH = "2.0/mlflow/"
OPERATIONS = (
    *(
        Operation(
            method=method,
            path=_PATH + "registered-models/get-latest-versions",
            handler=get_latest_versions,
            fields=LatestQuestion,
            required=("name",),
        )
        for method in ("POST", "GET")
    ),
    Operation(
        method="POST",
        path=_PATH + "model-versions/transition-stage",
        handler=transition_stage,
        fields=NewStage,
        required=("name", "version", "stage"),
    ),
)

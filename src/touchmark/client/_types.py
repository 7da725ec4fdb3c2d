"""From the JSON of /api/v1 to what the SDK hands out: the domain's own values wherever there is one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass
from typing import TYPE_CHECKING, Any, SupportsFloat

from touchmark.domain.errors import InvalidFieldError
from touchmark.domain.versions import (
    Deprecation,
    ImportProgress,
    ModelVersion,
    ResolvedVersion,
    Stage,
    VersionFile,
    VersionState,
)

if TYPE_CHECKING:
    from touchmark.domain.aliases import Alias, AliasMove
    from touchmark.domain.models import RegisteredModel
    from touchmark.domain.tracking import ArtifactEntry, Experiment, LoggedModel, Metric, Run

Json = Mapping[str, Any]


class DeprecatedVersionWarning(UserWarning):
    """A version that is being used is deprecated; the warning says why and what to use instead."""


@dataclass(frozen=True, slots=True)
class Resolved(ResolvedVersion):
    """What a reference means now, with the reference that will always mean the same."""

    @property
    def pinned(self) -> str:
        """Return `models:/NAME@sha256:…`, or `models:/NAME/N` for an unsealed version."""
        return f"models:/{self.name}@{self.digest}" if self.digest else f"models:/{self.name}/{self.version}"


@dataclass(frozen=True, slots=True)
class Files:
    """The files of a sealed version, and the digests that name them together."""

    digest: str
    content_digest: str
    files: tuple[VersionFile, ...]


def to_number(value: Any) -> float:
    """Return a metric: JSON has no NaN and no infinities, so those travel as text."""
    return float(value)


def from_number(value: SupportsFloat) -> float | str:
    """Return a metric as JSON can carry it. Raises InvalidFieldError for what is no number."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidFieldError(field="value", reason=f"a metric is a number ({error})") from None
    return number if number - number == 0 else repr(number)


def to_model(data: Json) -> RegisteredModel:
    """Return a registered model."""
    from touchmark.domain.models import RegisteredModel

    return RegisteredModel(**{**_known(RegisteredModel, data), "similar_names": tuple(data.get("similar_names", ()))})


def to_version(data: Json) -> ModelVersion:
    """Return a model version."""
    fields = _known(ModelVersion, data)
    deprecation, importing = data.get("deprecation"), data.get("importing")
    fields |= {
        "state": VersionState(data["state"]),
        "stage": Stage(data["stage"]),
        "deprecation": Deprecation(**_known(Deprecation, deprecation)) if deprecation else None,
        "metrics": {key: to_number(value) for key, value in (data.get("metrics") or {}).items()},
        "importing": ImportProgress(**_known(ImportProgress, importing)) if importing else None,
    }
    return ModelVersion(**fields)


def to_resolved(data: Json) -> Resolved:
    """Return what a reference means."""
    return Resolved(**{**_known(ResolvedVersion, data), "state": VersionState(data["state"])})


def to_alias(data: Json) -> Alias:
    """Return an alias."""
    from touchmark.domain.aliases import Alias

    return Alias(**_known(Alias, data))


def to_move(data: Json) -> AliasMove:
    """Return one move of an alias."""
    from touchmark.domain.aliases import AliasMove

    return AliasMove(**_known(AliasMove, data))


def to_experiment(data: Json) -> Experiment:
    """Return an experiment."""
    from touchmark.domain.tracking import Experiment

    return Experiment(**_known(Experiment, data))


def to_run(data: Json) -> Run:
    """Return a run."""
    from touchmark.domain.tracking import DatasetInput, Run, RunStatus

    fields = _known(Run, data)
    fields |= {
        "status": RunStatus(data["status"]),
        "metrics": _to_latest(data["metrics"]),
        "datasets": tuple(DatasetInput(**_known(DatasetInput, item)) for item in data["datasets"]),
    }
    return Run(**fields)


def to_metric(data: Json) -> Metric:
    """Return one measurement."""
    from touchmark.domain.tracking import Metric

    return Metric(data["key"], to_number(data["value"]), data["at"], data["step"])


def to_artifact(data: Json) -> ArtifactEntry:
    """Return a file or folder of a run."""
    from touchmark.domain.tracking import ArtifactEntry

    return ArtifactEntry(**_known(ArtifactEntry, data))


def to_logged_model(data: Json) -> LoggedModel:
    """Return a logged model."""
    from touchmark.domain.tracking import LoggedModel, LoggedModelStatus

    fields = _known(LoggedModel, data)
    fields |= {"status": LoggedModelStatus(data["status"]), "metrics": _to_latest(data["metrics"])}
    return LoggedModel(**fields)


def _to_latest(metrics: Json) -> dict[str, Metric]:
    return {key: to_metric({"key": key, **latest}) for key, latest in metrics.items()}


def _known(cls: Any, data: Json) -> dict[str, Any]:
    # A newer server may say more than this client knows. What must be there is asked for, which the session watches.
    return {
        name: data[name]
        for name, field in cls.__dataclass_fields__.items()
        if name in data or (field.default is MISSING and field.default_factory is MISSING)
    }

"""From the JSON of /api/v1 to what the SDK hands out: the domain's own values wherever there is one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from touchmark.domain.aliases import Alias, AliasMove
from touchmark.domain.models import RegisteredModel
from touchmark.domain.versions import Deprecation, ModelVersion, ResolvedVersion, Stage, VersionFile, VersionState

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


def from_number(value: float) -> float | str:
    """Return a metric as JSON can carry it."""
    number = float(value)
    return number if number - number == 0 else repr(number)


def to_model(data: Json) -> RegisteredModel:
    """Return a registered model."""
    return RegisteredModel(**{**_known(RegisteredModel, data), "similar_names": tuple(data.get("similar_names", ()))})


def to_version(data: Json) -> ModelVersion:
    """Return a model version."""
    fields = _known(ModelVersion, data)
    deprecation = data.get("deprecation")
    fields |= {
        "state": VersionState(data["state"]),
        "stage": Stage(data["stage"]),
        "deprecation": Deprecation(**_known(Deprecation, deprecation)) if deprecation else None,
        "metrics": {key: to_number(value) for key, value in (data.get("metrics") or {}).items()},
    }
    return ModelVersion(**fields)


def to_resolved(data: Json) -> Resolved:
    """Return what a reference means."""
    return Resolved(**{**_known(ResolvedVersion, data), "state": VersionState(data["state"])})


def to_alias(data: Json) -> Alias:
    """Return an alias."""
    return Alias(**_known(Alias, data))


def to_move(data: Json) -> AliasMove:
    """Return one move of an alias."""
    return AliasMove(**_known(AliasMove, data))


def to_files(data: Json) -> Files:
    """Return a version's files."""
    files = tuple(VersionFile(item["path"], item["size_bytes"], item["digest"]) for item in data["items"])
    return Files(data["digest"], data["content_digest"], files)


def _known(cls: Any, data: Json) -> dict[str, Any]:
    # A newer server may say more than this client knows.
    return {name: data[name] for name in cls.__dataclass_fields__ if name in data}

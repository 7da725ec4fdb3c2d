"""Model versions: number N of a registered model. Its number, bytes, origin and author never change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from touchmark.domain.digest import Digest
from touchmark.domain.names import ModelName


class VersionState(StrEnum):
    """Where a version stands. Only a READY one can be loaded or get an alias."""

    PENDING = "PENDING_REGISTRATION"
    READY = "READY"
    FAILED = "FAILED_REGISTRATION"
    PURGED = "PURGED"


class Stage(StrEnum):
    """MLflow's four stages: set on a version, not an alias, and only for MLflow's clients."""

    NONE = "None"
    STAGING = "Staging"
    PRODUCTION = "Production"
    ARCHIVED = "Archived"


def find_stage(text: str) -> Stage | None:
    """Return the stage a text names in any case, or None."""
    return _STAGES.get(text.lower())


_STAGES = {stage.value.lower(): stage for stage in Stage}


@dataclass(frozen=True, slots=True)
class Deprecation:
    """Why a version should not be used any more. It still loads, with a warning. `at` is microseconds UTC."""

    reason: str
    replaced_by: str | None
    at: int


@dataclass(frozen=True, slots=True)
class VersionFile:
    """One file of a version: its path, its size and the digest of its bytes."""

    path: str
    size_bytes: int
    digest: Digest


@dataclass(frozen=True, slots=True)
class ImportProgress:
    """How far the import of a waiting version's files is. `total_bytes` is None if their place does not say."""

    done_bytes: int
    total_bytes: int | None
    done_files: int
    total_files: int


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """A model version as it stands.

    `version_id` is the log index of the event that registered it. `digest` is the digest of the manifest and None if the
    version is unsealed; `content_digest` answers "same bytes?"; `same_bytes_as` is the lowest earlier number of the model
    with the same bytes. `origin` is the frozen copy taken at registration (see lineage.py). Times are microseconds UTC.
    `contents` is what the headers of the files say (schema, flavours, requirements), where it was asked for; `importing`
    how far the import of its files is, while it waits for them and they are known.
    """

    version_id: int
    model_id: int
    name: ModelName
    version: int
    state: VersionState
    digest: Digest | None
    content_digest: Digest | None
    size_bytes: int | None
    file_count: int | None
    source: str
    run_id: str | None
    logged_model_id: str | None
    parent: str | None
    same_bytes_as: int | None
    description: str | None
    stage: Stage
    status_message: str | None
    run_link: str | None
    created_at: int
    created_by: str
    updated_at: int
    deleted_at: int | None
    deprecation: Deprecation | None
    tags: Mapping[str, str] = field(default_factory=dict)
    aliases: Sequence[str] = ()
    origin: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    contents: Mapping[str, Any] | None = None
    importing: ImportProgress | None = None

    @property
    def sealed(self) -> bool:
        """Whether the registry holds this version's bytes under its digest."""
        return self.digest is not None and self.state is VersionState.READY


@dataclass(frozen=True, slots=True)
class ResolvedVersion:
    """What a reference means now: enough to pin, and to fetch.

    `moved_to` is the model's present name if the reference used an older one. `warning` says that the version is
    deprecated, and why. `size_bytes` and `file_count` are None for an unsealed version.
    """

    reference: str
    model_id: int
    name: ModelName
    version: int
    digest: Digest | None
    state: VersionState
    size_bytes: int | None
    file_count: int | None
    source: str
    run_id: str | None
    moved_to: str | None
    warning: str | None
    status_message: str | None

    @property
    def sealed(self) -> bool:
        """Whether the registry holds this version's bytes under its digest."""
        return self.digest is not None and self.state is VersionState.READY

"""Registered models: a name in the catalogue, with a description, an owner, tags, aliases and versions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from touchmark.domain.names import ModelName

PROMPT_TAG = "mlflow.prompt.is_prompt"
"""MLflow's clients keep prompts among models; this tag, with the value `true`, tells them apart (MLflow 3.17)."""


def is_prompt(tags: Mapping[str, str]) -> bool:
    """Answer whether tags are those of one of MLflow's prompts: a text in tags, without files."""
    return tags.get(PROMPT_TAG, "").lower() == "true"


@dataclass(frozen=True, slots=True)
class RegisteredModel:
    """A registered model as it stands.

    `model_id` is the log index of the event that first created it. Times are microseconds UTC. `version_count` counts
    the numbers ever given out, deleted ones included. `latest_version` is the highest READY, undeleted, undeprecated
    number. `similar_names` lists other models whose name differs only by case or look-alike characters.
    """

    model_id: int
    name: ModelName
    description: str | None
    owner: str | None
    contact: str | None
    created_at: int
    created_by: str
    updated_at: int
    version_count: int
    latest_version: int | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    aliases: Mapping[str, int] = field(default_factory=dict)
    similar_names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Unchanged:
    """The mark for "leave this field as it is" in partial updates, where None means "empty it"."""


UNCHANGED = Unchanged()

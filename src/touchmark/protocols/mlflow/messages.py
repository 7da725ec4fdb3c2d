"""The messages that several nouns of MLflow's API share, and how our values become theirs.

Names are those of MLflow's protocol buffers in snake_case. A field at its default (None, an empty list) is left out, as
MLflow's own server does. A message of one noun alone stands in that noun's module.
"""

from __future__ import annotations

import math
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import wraps
from typing import Any

import msgspec

from touchmark.domain.errors import InvalidFieldError, ModelNotFoundError, VersionNotFoundError
from touchmark.domain.models import RegisteredModel
from touchmark.domain.tracking import Metric
from touchmark.domain.versions import ModelVersion
from touchmark.wire import AnyRequest

_WHOLE = re.compile(r"[+-]?[0-9]{1,18}")


class Message(msgspec.Struct, omit_defaults=True, kw_only=True):
    """What is answered; a field at its default is left out."""


class KeyValue(msgspec.Struct, kw_only=True):
    """A tag or a param, asked for or answered."""

    key: str | None = None
    value: str | None = None


class AliasMessage(msgspec.Struct, kw_only=True):
    """RegisteredModelAlias."""

    alias: str
    version: str


class ModelVersionMessage(Message, kw_only=True):
    """ModelVersion. Description, run and link are empty text where there is none, as on MLflow's wire."""

    name: str
    version: str
    creation_timestamp: int
    last_updated_timestamp: int
    user_id: str | None = None
    current_stage: str
    description: str
    source: str
    run_id: str
    status: str
    status_message: str | None = None
    tags: Sequence[KeyValue] = ()
    run_link: str
    aliases: Sequence[str] = ()
    model_id: str | None = None


class RegisteredModelMessage(Message, kw_only=True):
    """RegisteredModel."""

    name: str
    creation_timestamp: int
    last_updated_timestamp: int
    user_id: str | None = None
    description: str | None = None
    latest_versions: Sequence[ModelVersionMessage] = ()
    tags: Sequence[KeyValue] = ()
    aliases: Sequence[AliasMessage] = ()


class MetricMessage(Message, kw_only=True):
    """Metric. A number that JSON cannot hold is a text, as in the JSON of protocol buffers."""

    key: str
    value: float | str
    timestamp: int
    step: int
    model_id: str | None = None
    dataset_name: str | None = None
    dataset_digest: str | None = None
    run_id: str | None = None


class OneVersion(Message):
    """What answers with one version."""

    model_version: ModelVersionMessage


def to_model_version(version: ModelVersion) -> ModelVersionMessage:
    """Return a version as MLflow writes one."""
    return ModelVersionMessage(
        name=version.name,
        version=str(version.version),
        creation_timestamp=to_ms(version.created_at),
        last_updated_timestamp=to_ms(version.updated_at),
        user_id=version.created_by,
        current_stage=version.stage.value,
        description=version.description or "",
        source=version.source,
        run_id=version.run_id or "",
        status=version.state.value,
        status_message=version.status_message,
        tags=to_key_values(version.tags),
        run_link=version.run_link or "",
        aliases=tuple(version.aliases),
        model_id=version.logged_model_id,
    )


def to_registered_model(model: RegisteredModel, latest: Sequence[ModelVersion]) -> RegisteredModelMessage:
    """Return a registered model as MLflow writes one, with the highest version of each stage."""
    return RegisteredModelMessage(
        name=model.name,
        creation_timestamp=to_ms(model.created_at),
        last_updated_timestamp=to_ms(model.updated_at),
        user_id=model.created_by,
        description=model.description or None,
        latest_versions=tuple(to_model_version(version) for version in latest),
        tags=to_key_values(model.tags),
        aliases=tuple(AliasMessage(alias=alias, version=str(number)) for alias, number in model.aliases.items()),
    )


def to_ms(at: int) -> int:
    """Return microseconds as the milliseconds MLflow speaks of, floored."""
    return at // 1000


def from_ms(at: int) -> int:
    """Return milliseconds as microseconds."""
    return at * 1000


def to_key_values(values: Mapping[str, str]) -> tuple[KeyValue, ...]:
    """Return a mapping as MLflow's list of keys and values."""
    return tuple(KeyValue(key=key, value=value) for key, value in values.items())


def to_mapping(values: Sequence[KeyValue]) -> dict[str, str]:
    """Return MLflow's list of keys and values as a mapping; of equal keys the last counts, as on its own server."""
    return {item.key or "": item.value or "" for item in values}


def to_number(value: float) -> float | str:
    """Return a double as JSON of protocol buffers has it: NaN and the infinities are texts."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def read_version_number(text: str) -> int:
    """Return the number of a version, which MLflow's clients send as text. Raises InvalidFieldError."""
    found = _WHOLE.fullmatch(text.strip())
    if found is None:
        raise InvalidFieldError(f"Parameter 'version' must be an integer, got '{text[:100]}'.", field="version")
    return int(found[0])


def about_version(handler: Callable[[AnyRequest, Any], Awaitable[Any]]) -> Callable[[AnyRequest, Any], Awaitable[Any]]:
    """Make a handler say of a version of an unknown model what MLflow says: that the version is missing."""

    @wraps(handler)
    async def handle(request: AnyRequest, fields: Any) -> Any:
        try:
            return await handler(request, fields)
        except ModelNotFoundError:
            raise VersionNotFoundError(name=fields.name, version=read_version_number(fields.version)) from None

    return handle


def check_max_results(number: int | None, *, default: int, maximum: int) -> int:
    """Return how many rows a page may hold. Raises InvalidFieldError beyond what MLflow allows."""
    if number is None:
        return default
    if not 1 <= number <= maximum:
        sentence = (
            f"Invalid value {number} for parameter 'max_results' supplied: It must be at least 1 and at most {maximum}."
        )
        raise InvalidFieldError(sentence, field="max_results")
    return number


def to_metric(metric: Metric, **more: str | None) -> MetricMessage:
    """Return a measurement as MLflow writes one; `more` are its model, data set and run."""
    return MetricMessage(
        key=metric.key, value=to_number(metric.value), timestamp=to_ms(metric.at), step=metric.step, **more
    )


_VIEWS: Mapping[str | int, bool | None] = {
    "ACTIVE_ONLY": False, "DELETED_ONLY": True, "ALL": None, 1: False, 2: True, 3: None,
    "1": False, "2": True, "3": None,
}  # fmt: skip


def read_view(view: str | int | None) -> bool | None:
    """Return which lifecycle is asked for: False the active, True the deleted, None both. Raises InvalidFieldError."""
    if view is None:
        return False
    if view not in _VIEWS:
        raise InvalidFieldError(f"Invalid ViewType '{str(view)[:100]}'", field="view_type")
    return _VIEWS[view]

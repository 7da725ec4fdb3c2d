"""Tracking: experiments, runs, params, metrics, logged models. Durable and authorised, not in the log.

What a version needs of a run is copied into its registration.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from touchmark.domain.digest import Digest
from touchmark.domain.errors import InvalidFieldError, LimitExceededError
from touchmark.domain.names import is_logged_model_id
from touchmark.domain.tags import check_tags
from touchmark.domain.text import check_optional_text, check_text, find_invisible

DEFAULT_EXPERIMENT_ID = 0
"""The experiment called `Default`, which is there from the start."""
EXPERIMENT_NAME_LIMIT = 500
"""Characters in the name of an experiment."""
RUN_NAME_LIMIT = 500
"""Characters in the name of a run."""
PARAM_VALUE_LIMIT = 6_000
"""Characters in the value of a param."""
KEY_LIMIT = 250
"""Characters in the key of a param or metric, and in other short names."""
BATCH_LIMIT = 1_000
"""Params, metrics and tags together in one batch."""
DATASETS_LIMIT = 1_000
"""Data sets in one request."""

# Characters. Name and digest stand together in index rows, of which PostgreSQL takes 2,704 bytes: 4 * (500 + 100) fit.
_DATASET_LIMITS = {
    "name": 500, "digest": 100, "context": KEY_LIMIT, "source": 64_000, "source_type": KEY_LIMIT,
    "schema": 1_000_000, "profile": 16_000_000,
}  # fmt: skip
_INT64 = range(-(2**63), 2**63)

_LOGGED_MODEL_NAME_FAULTS = frozenset("/:.%\"'")
_RUN_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


class RunStatus(StrEnum):
    """Where a run stands."""

    RUNNING = "RUNNING"
    SCHEDULED = "SCHEDULED"
    FINISHED = "FINISHED"
    FAILED = "FAILED"
    KILLED = "KILLED"


class LoggedModelStatus(StrEnum):
    """Where a logged model stands; only a READY one can be registered."""

    PENDING = "PENDING"
    READY = "READY"
    UPLOAD_FAILED = "UPLOAD_FAILED"


@dataclass(frozen=True, slots=True)
class Experiment:
    """A named group of runs. Times are microseconds UTC."""

    experiment_id: int
    name: str
    created_at: int
    updated_at: int
    deleted_at: int | None
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Metric:
    """One measurement. `at` is microseconds UTC; `value` may be NaN or infinite."""

    key: str
    value: float
    at: int
    step: int = 0


@dataclass(frozen=True, slots=True)
class DatasetInput:
    """A data set a run read: a name, the digest of its content, where it came from, and how it was used."""

    name: str
    digest: str
    context: str | None = None
    source: str | None = None
    source_type: str | None = None
    schema: str | None = None
    profile: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)


class ModelRole(StrEnum):
    """What a logged model was to a run."""

    INPUT = "input"
    OUTPUT = "output"


@dataclass(frozen=True, slots=True)
class ModelLink:
    """A logged model that a run read or made, and at which step."""

    role: ModelRole
    model_id: str
    step: int = 0


@dataclass(frozen=True, slots=True)
class Measurement:
    """One measurement of a logged model: by which run, and on which data set, if any."""

    metric: Metric
    run_id: str | None = None
    dataset_name: str | None = None
    dataset_digest: str | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """One training run. `metrics` holds the latest value a key; times are microseconds UTC."""

    run_id: str
    experiment_id: int
    name: str
    user: str
    status: RunStatus
    started_at: int
    ended_at: int | None
    created_at: int
    deleted_at: int | None
    params: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    datasets: Sequence[DatasetInput] = ()
    models: Sequence[ModelLink] = ()


@dataclass(frozen=True, slots=True)
class LoggedModel:
    """A model saved in a run (or by itself) and not yet registered. Times are microseconds UTC."""

    model_id: str
    experiment_id: int
    name: str
    status: LoggedModelStatus
    run_id: str | None
    model_type: str | None
    status_message: str | None
    created_at: int
    updated_at: int
    deleted_at: int | None
    params: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Artifact:
    """One file under a run or a logged model: a path that points at a blob. `updated_at` is microseconds UTC."""

    path: str
    digest: Digest
    size_bytes: int
    updated_at: int


@dataclass(frozen=True, slots=True)
class ArtifactEntry:
    """One line of a folder's listing. `path` is whole, from the owner's root.

    Of a folder, `size_bytes` is that of all files below it and `digest` is None.
    """

    path: str
    is_dir: bool
    size_bytes: int
    digest: Digest | None


@dataclass(frozen=True, slots=True)
class ArtifactOwner:
    """Whose list of files is meant. `kind` is `run` or `logged_model`."""

    kind: str
    id: str

    @property
    def repository(self) -> str:
        """The `/v2` repository into which this owner's files are uploaded."""
        return f"{'runs' if self.kind == 'run' else 'logged-models'}/{self.id}"


def is_run_id(text: str) -> bool:
    """Answer whether a text may be the id of a run: 1 to 64 letters, digits, _ or -."""
    return _RUN_ID.fullmatch(text) is not None


def check_run_id(text: object) -> str:
    """Return a run id. Raises InvalidFieldError."""
    if not isinstance(text, str) or not is_run_id(text):
        raise InvalidFieldError(field="run_id", reason="write 1 to 64 letters, digits, _ or -")
    return text


def check_logged_model_id(text: object) -> str:
    """Return the id of a logged model: `m-` and 32 hexadecimal digits. Raises InvalidFieldError."""
    if not isinstance(text, str) or not is_logged_model_id(text):
        raise InvalidFieldError(field="model_id", reason="write m- and 32 lower-case hexadecimal digits")
    return text


def check_owner(owner: ArtifactOwner) -> ArtifactOwner:
    """Return an owner of artifacts with a well-formed id. Raises InvalidFieldError."""
    if owner.kind == "run":
        check_run_id(owner.id)
    elif owner.kind == "logged_model":
        check_logged_model_id(owner.id)
    else:
        raise InvalidFieldError(field="owner", reason="artifacts belong to a run or to a logged_model")
    return owner


def check_experiment_id(number: object) -> int:
    """Return the id of an experiment, a whole number from 0. Raises InvalidFieldError."""
    if type(number) is not int or number < 0 or number not in _INT64:
        raise InvalidFieldError(field="experiment_id", reason="write a whole number from 0")
    return number


def check_int64(field_name: str, number: object) -> int:
    """Return a whole number (a time, a step) that every database can store. Raises InvalidFieldError."""
    if type(number) is not int or number not in _INT64:
        raise InvalidFieldError(field=field_name, reason="write a whole number that fits 64 bits")
    return number


def parse_run_status(text: object) -> RunStatus:
    """Return the status a text names. Raises InvalidFieldError."""
    try:
        return RunStatus(str(text))
    except ValueError:
        raise InvalidFieldError(field="status", reason=f"write one of {', '.join(RunStatus)}") from None


def parse_end_status(text: object) -> LoggedModelStatus:
    """Return how the logging of a model ended: READY or UPLOAD_FAILED. Raises InvalidFieldError."""
    if text not in (LoggedModelStatus.READY, LoggedModelStatus.UPLOAD_FAILED):
        raise InvalidFieldError(field="status", reason="write READY or UPLOAD_FAILED")
    return LoggedModelStatus(str(text))


def check_run_name(text: object) -> str:
    """Return the name of a run. Raises InvalidFieldError, LimitExceededError."""
    name = check_text("name", text, RUN_NAME_LIMIT)
    if not name.strip():
        raise InvalidFieldError(field="name", reason="it is blank")
    return name


def check_experiment_name(text: object) -> str:
    """Return an experiment name. Raises InvalidFieldError, LimitExceededError."""
    name = check_text("experiment", text, EXPERIMENT_NAME_LIMIT)
    if not name.strip() or find_invisible(name):
        raise InvalidFieldError(field="experiment", reason="it is blank or holds control characters")
    return name


def check_logged_model_name(text: object) -> str:
    """Return the name of a logged model. Raises InvalidFieldError, LimitExceededError."""
    name = check_text("name", text, KEY_LIMIT)
    if not name.strip() or find_invisible(name):
        raise InvalidFieldError(field="name", reason="it is blank or holds control characters")
    if any(char in _LOGGED_MODEL_NAME_FAULTS for char in name):
        raise InvalidFieldError(field="name", reason="none of / : . % \" ' is allowed")
    return name


def check_key(field_name: str, key: object) -> str:
    """Return a param or metric key. Raises InvalidFieldError, LimitExceededError."""
    text = check_text(field_name, key, KEY_LIMIT)
    if not text.strip() or find_invisible(text):
        raise InvalidFieldError(field=field_name, reason="a key is not blank and holds no control characters")
    return text


def check_params(params: Mapping[str, str]) -> dict[str, str]:
    """Return checked params. Raises InvalidFieldError, LimitExceededError."""
    return {
        check_key("param", key): check_text(f"param {key}", value, PARAM_VALUE_LIMIT) for key, value in params.items()
    }


def check_metric(metric: Metric) -> Metric:
    """Return a checked metric whose value is a float. Raises InvalidFieldError, LimitExceededError."""
    key = check_key("metric", metric.key)
    check_int64("step", metric.step)
    check_int64("at", metric.at)
    if type(metric.value) is float:
        return metric
    try:
        if isinstance(metric.value, (bool, str, bytes)):
            raise TypeError
        value = float(metric.value)
    except (TypeError, ValueError, OverflowError):
        raise InvalidFieldError(field=f"metric {key}", reason="its value is no number that fits a double") from None
    return Metric(key, value, metric.at, metric.step)


def rank_metric(metric: Metric) -> tuple[int, int, bool, float, float]:
    """Return the key by which the latest of several measurements is the greatest: (step, at, value).

    A total order, so that the latest does not depend on the order of arrival: NaN stands below every number, and
    -0.0 below 0.0.
    """
    if math.isnan(metric.value):
        return metric.step, metric.at, False, 0.0, 0.0
    return metric.step, metric.at, True, metric.value, math.copysign(1.0, metric.value)


def pick_latest(metrics: Sequence[Metric]) -> dict[str, Metric]:
    """Return the latest measurement of each key, by key."""
    latest: dict[str, Metric] = {}
    for metric in metrics:
        known = latest.get(metric.key)
        if known is None or rank_metric(metric) > rank_metric(known):
            latest[metric.key] = metric
    return dict(sorted(latest.items()))


def check_dataset(dataset: DatasetInput) -> DatasetInput:
    """Return a checked data set. Raises InvalidFieldError, LimitExceededError."""
    for name in ("name", "digest"):
        if not check_text(f"dataset {name}", getattr(dataset, name), _DATASET_LIMITS[name]).strip():
            raise InvalidFieldError(field=f"dataset {name}", reason="it is blank")
    for name in ("context", "source", "source_type", "schema", "profile"):
        check_optional_text(f"dataset {name}", getattr(dataset, name), _DATASET_LIMITS[name])
    check_tags(dataset.tags)
    return dataset


def check_measurement(measurement: Measurement) -> Measurement:
    """Return a checked measurement of a logged model. Raises InvalidFieldError, LimitExceededError."""
    if measurement.run_id is not None:
        check_run_id(measurement.run_id)
    for name in ("name", "digest"):
        check_optional_text(f"dataset {name}", getattr(measurement, f"dataset_{name}"), _DATASET_LIMITS[name])
    return replace(measurement, metric=check_metric(measurement.metric))


def check_batch(count: int) -> None:
    """Refuse a batch that is too large. Raises LimitExceededError."""
    if count > BATCH_LIMIT:
        raise LimitExceededError(what="One batch", limit=BATCH_LIMIT, unit="params, metrics and tags")


def format_number(value: float) -> str:
    """Return a float as the log and the origin write it: its shortest exact text (`0.93`, `nan`, `inf`)."""
    return repr(float(value))

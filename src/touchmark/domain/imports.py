"""What another registry holds, as it says it, and what of it may come here.

What lives here: the shapes in which a reader hands over an MLflow server's objects (`Source…`: raw texts, nothing
checked, times in microseconds UTC), and the rules by which they become ours (`clean_…`). What must not: reading them.

One bad tag does not keep a run out: what our rules refuse is left out by itself and becomes a Problem that says why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from touchmark.domain.errors import InvalidError
from touchmark.domain.models import is_prompt
from touchmark.domain.names import is_logged_model_id
from touchmark.domain.tags import check_tag_key, check_tag_value
from touchmark.domain.text import DESCRIPTION_LIMIT, SHORT_TEXT_LIMIT, SOURCE_LIMIT, check_text
from touchmark.domain.tracking import (
    KEY_LIMIT,
    PARAM_VALUE_LIMIT,
    DatasetInput,
    Experiment,
    LoggedModel,
    LoggedModelStatus,
    Measurement,
    Metric,
    ModelLink,
    Run,
    RunStatus,
    check_dataset,
    check_experiment_name,
    check_int64,
    check_key,
    check_logged_model_id,
    check_logged_model_name,
    check_measurement,
    check_metric,
    check_run_id,
    check_run_name,
    pick_latest,
)
from touchmark.domain.versions import Stage, VersionState, find_stage

CONTEXT_TAG = "mlflow.data.context"
"""MLflow says how a data set was used in this tag of the input."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that did not come, or not as it was. `what` is the noun, `subject` its name, `reason` why."""

    what: str
    subject: str
    reason: str


# ── what the other one holds ─────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class SourceExperiment:
    """An experiment there. Its id is text: MLflow's are digits, but not always numbers that fit."""

    experiment_id: str
    name: str
    created_at: int | None
    updated_at: int | None
    is_deleted: bool
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SourceRun:
    """A run there. `latest` is one measurement a key; the history is read apart. `deleted_at` may be unknown."""

    run_id: str
    experiment_id: str
    name: str | None
    user: str | None
    status: str
    started_at: int | None
    ended_at: int | None
    is_deleted: bool
    deleted_at: int | None
    artifact_uri: str
    params: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    latest: Mapping[str, Metric] = field(default_factory=dict)
    datasets: Sequence[DatasetInput] = ()
    models: Sequence[ModelLink] = ()


@dataclass(frozen=True, slots=True)
class SourceLoggedModel:
    """A logged model there. `status` is PENDING, READY or FAILED."""

    model_id: str
    experiment_id: str
    name: str
    status: str
    run_id: str | None
    model_type: str | None
    status_message: str | None
    created_at: int
    updated_at: int
    is_deleted: bool
    artifact_uri: str
    params: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    measurements: Sequence[Measurement] = ()


@dataclass(frozen=True, slots=True)
class SourceModel:
    """A registered model there; `aliases` say a number each. `highest` is a number it surely has reached, or 0."""

    name: str
    description: str | None
    created_at: int | None
    updated_at: int | None
    tags: Mapping[str, str] = field(default_factory=dict)
    aliases: Mapping[str, int] = field(default_factory=dict)
    highest: int = 0

    @property
    def is_prompt(self) -> bool:
        """Whether it is one of MLflow's prompts: a text in tags, without files."""
        return is_prompt(self.tags)


@dataclass(frozen=True, slots=True)
class SourceVersion:
    """A model version there. `download_uri` is where its files lie; None if it was not asked for yet."""

    name: str
    number: int
    created_at: int | None
    updated_at: int | None
    description: str | None
    user: str | None
    stage: str
    source: str
    download_uri: str | None
    run_id: str | None
    run_link: str | None
    status: str
    status_message: str | None
    is_deleted: bool
    tags: Mapping[str, str] = field(default_factory=dict)


# ── what of it may come ──────────────────────────────────────────────────────────────────────────────────────────


class Cleaner:
    """Checks the parts of one object and keeps what was wrong with them."""

    def __init__(self, what: str, subject: str) -> None:
        """Name the object."""
        self._what, self._subject = what, subject
        self.problems: list[Problem] = []

    def note(self, reason: str) -> None:
        """Keep a reason."""
        self.problems.append(Problem(self._what, self._subject, reason))

    def keep(self, part: str, check: Callable[[], Any], otherwise: Any = None) -> Any:
        """Return what `check` returns; if it refuses, note that the part was left out and return `otherwise`."""
        try:
            return check()
        except InvalidError as error:
            self.note(f"{part} left out: {error.message}")
            return otherwise

    def time(self, part: str, at: int | None) -> int | None:
        """Return an optional time, None if it does not fit."""
        found: int | None = None if at is None else self.keep(part, partial(check_int64, part, at))
        return found

    def tags(self, tags: Mapping[str, str]) -> dict[str, str]:
        """Return the tags that may be stored, by key."""
        kept = {key: self.keep(f"tag {key[:100]!r}", partial(_check_tag, key, tags[key])) for key in sorted(tags)}
        return {key: value for key, value in kept.items() if value is not None}

    def params(self, params: Mapping[str, str]) -> dict[str, str]:
        """Return the params that may be stored, by key."""
        kept = {
            key: self.keep(f"param {key[:100]!r}", partial(_check_param, key, params[key])) for key in sorted(params)
        }
        return {key: value for key, value in kept.items() if value is not None}

    def metrics(self, metrics: Iterable[Metric]) -> list[Metric]:
        """Return the measurements that may be stored; a refused key is noted once."""
        refused: set[str] = set()
        kept = []
        for metric in metrics:
            if metric.key in refused:
                continue
            found = self.keep(f"metric {metric.key[:100]!r}", partial(check_metric, metric))
            if found is None:
                refused.add(metric.key)
            else:
                kept.append(found)
        return kept

    def datasets(self, datasets: Iterable[DatasetInput]) -> tuple[DatasetInput, ...]:
        """Return the data sets that may be stored, with those of their tags that may."""
        named = [replace(each, tags=self.tags(each.tags)) for each in datasets]
        kept = [self.keep(f"data set {each.name[:100]!r}", partial(check_dataset, each)) for each in named]
        return tuple(each for each in kept if each is not None)

    def links(self, links: Iterable[ModelLink]) -> tuple[ModelLink, ...]:
        """Return the links to logged models that may be stored; what names none is no link."""
        named = [link for link in links if is_logged_model_id(link.model_id)]
        kept = [self.keep(f"link to {each.model_id}", partial(_check_link, each)) for each in named]
        return tuple(each for each in kept if each is not None)

    def text(self, part: str, text: str | None, limit: int = DESCRIPTION_LIMIT) -> str | None:
        """Return an optional text of at most `limit` characters, None if it may not be stored."""
        found: str | None = None if text is None else self.keep(part, partial(check_text, part, text, limit))
        return found


def _check_link(link: ModelLink) -> ModelLink:
    check_int64("step", link.step)
    return link


def _check_tag(key: str, value: str) -> str:
    return check_tag_value(check_tag_key(key), value)


def _check_param(key: str, value: str) -> str:
    return check_text(f"param {check_key('param', key)}", value, PARAM_VALUE_LIMIT)


def clean_experiment(source: SourceExperiment, now: int) -> tuple[Experiment, list[Problem]]:
    """Return an experiment that may be stored, under the id it wishes to have (-1: any), and what was changed."""
    cleaner = Cleaner("experiment", source.name[:200])
    text = source.experiment_id
    # The length comes first: int() raises on thousands of digits.
    wanted = int(text) if len(text) <= 19 and text.isascii() and text.isdigit() else -1
    if wanted >= 2**63:
        wanted = -1
    try:
        name = check_experiment_name(source.name)
    except InvalidError as error:
        name = f"experiment {source.experiment_id[:100]}"
        cleaner.note(f"it is called {name!r} here: {error.message}")
    created_at = cleaner.time("creation time", source.created_at)
    created_at = now if created_at is None else created_at
    updated_at = cleaner.time("time of the last change", source.updated_at)
    updated_at = created_at if updated_at is None else updated_at
    deleted_at = updated_at if source.is_deleted else None
    made = Experiment(wanted, name, created_at, updated_at, deleted_at, cleaner.tags(source.tags))
    return made, cleaner.problems


@dataclass(frozen=True, slots=True)
class CleanRun:
    """A run that may be stored, with its whole history."""

    run: Run
    history: Sequence[Metric]
    problems: Sequence[Problem]


def clean_run(source: SourceRun, experiment_id: int, history: Iterable[Metric], deleted_at: int) -> CleanRun:
    """Return a run that may be stored. `deleted_at` is taken if it is deleted and nobody knows since when.

    Raises InvalidError if the run itself has no place here.
    """
    cleaner = Cleaner("run", source.run_id[:200])
    run_id = check_run_id(source.run_id)
    name = source.name or source.tags.get("mlflow.runName") or run_id
    user = source.user or source.tags.get("mlflow.user") or ""
    known = RunStatus.__members__.get(source.status)
    if known is None:
        cleaner.note(f"status {source.status[:100]!r} is unknown here: it counts as FAILED")
    started_at = check_int64("started_at", source.started_at if source.started_at is not None else source.ended_at or 0)
    metrics = cleaner.metrics(history)
    known_deleted_at = cleaner.time("time of deletion", source.deleted_at)
    run = Run(
        run_id=run_id,
        experiment_id=experiment_id,
        name=cleaner.keep("name", lambda: check_run_name(name), run_id),
        user=cleaner.text("user", user, SHORT_TEXT_LIMIT) or "",
        status=known or RunStatus.FAILED,
        started_at=started_at,
        ended_at=None if source.ended_at is None else check_int64("ended_at", source.ended_at),
        created_at=started_at,
        deleted_at=(deleted_at if known_deleted_at is None else known_deleted_at) if source.is_deleted else None,
        params=cleaner.params(source.params),
        metrics=pick_latest(metrics),
        tags=cleaner.tags(source.tags),
        datasets=cleaner.datasets(source.datasets),
        models=cleaner.links(source.models),
    )
    return CleanRun(run, metrics, cleaner.problems)


@dataclass(frozen=True, slots=True)
class CleanLoggedModel:
    """A logged model that may be stored, with every measurement of it."""

    model: LoggedModel
    measurements: Sequence[Measurement]
    problems: Sequence[Problem]


_LOGGED_MODEL_STATUS = {"READY": LoggedModelStatus.READY, "PENDING": LoggedModelStatus.PENDING}


def clean_logged_model(source: SourceLoggedModel, experiment_id: int, *, has_run: bool) -> CleanLoggedModel:
    """Return a logged model that may be stored; without its run if that is not here.

    Raises InvalidError if the model itself has no place here.
    """
    cleaner = Cleaner("logged model", source.model_id[:200])
    if source.run_id and not has_run:
        cleaner.note(f"its run {source.run_id[:100]} is not here")
    kept = [
        cleaner.keep(f"metric {each.metric.key[:100]!r}", partial(check_measurement, each))
        for each in source.measurements
    ]
    metrics = [each for each in kept if each is not None]
    model = LoggedModel(
        model_id=check_logged_model_id(source.model_id),
        experiment_id=experiment_id,
        name=cleaner.keep("name", lambda: check_logged_model_name(source.name), source.model_id),
        status=_LOGGED_MODEL_STATUS.get(source.status, LoggedModelStatus.UPLOAD_FAILED),
        run_id=source.run_id if source.run_id and has_run else None,
        model_type=cleaner.text("model type", source.model_type or None, KEY_LIMIT),
        status_message=cleaner.text("status message", source.status_message or None),
        created_at=check_int64("created_at", source.created_at),
        updated_at=check_int64("updated_at", source.updated_at),
        deleted_at=source.updated_at if source.is_deleted else None,
        params=cleaner.params(source.params),
        metrics=pick_latest([each.metric for each in metrics]),
        tags=cleaner.tags(source.tags),
    )
    return CleanLoggedModel(model, metrics, cleaner.problems)


@dataclass(frozen=True, slots=True)
class CleanVersion:
    """What is written of a version beside its bytes. `created_at`, `user` and the like go into its origin."""

    number: int
    state: VersionState
    status_message: str | None
    source: str
    run_id: str | None
    logged_model_id: str | None
    copied_from: tuple[str, int] | None
    run_link: str | None
    description: str | None
    stage: Stage
    tags: Mapping[str, str]
    is_deleted: bool
    imported: Mapping[str, Any]
    problems: Sequence[Problem]


def clean_version(source: SourceVersion, label: str) -> CleanVersion:
    """Return what may be written of a version. `label` says where it comes from, without credentials."""
    cleaner = Cleaner("version", f"{source.name[:200]}/{source.number}")
    imported = {
        "from": label, "name": source.name, "version": source.number, "created_at": source.created_at,
        "updated_at": source.updated_at, "user": source.user, "address": source.download_uri,
    }  # fmt: skip
    state, message = VersionState.READY, None
    if source.is_deleted:
        state, message = VersionState.FAILED, "It was deleted before the import; only its number came."
    elif source.status not in {"READY", ""}:
        state = VersionState.FAILED
        message = (
            f"It was {source.status[:100]} where it came from: {(source.status_message or 'no reason given')[:1000]}"
        )
        cleaner.note(message)
    text = "" if source.is_deleted else source.source
    stage = Stage.NONE if source.is_deleted else find_stage(source.stage or "None")
    if stage is None:
        cleaner.note(f"stage {source.stage[:100]!r} is unknown here: it counts as None")
        stage = Stage.NONE
    logged_model = text.removeprefix("models:/").partition("/")[0]
    return CleanVersion(
        number=source.number,
        state=state,
        status_message=cleaner.text("status message", message),
        source=cleaner.text("source", text, SOURCE_LIMIT) or "",
        run_id=None if source.is_deleted else cleaner.keep("run", lambda: check_run_id(source.run_id) if source.run_id else None),
        logged_model_id=logged_model if text.startswith("models:/") and is_logged_model_id(logged_model) else None,
        copied_from=find_copied(text),
        run_link=None if source.is_deleted else cleaner.text("run link", source.run_link or None, SOURCE_LIMIT),
        description=cleaner.text("description", source.description or None),
        stage=stage,
        tags=cleaner.tags(source.tags),
        is_deleted=source.is_deleted,
        imported={key: value for key, value in imported.items() if value is not None},
        problems=cleaner.problems,
    )  # fmt: skip


def find_copied(source: str) -> tuple[str, int] | None:
    """Return the name and number of the version a source `models:/NAME/N` copies, or None."""
    if not source.startswith("models:/"):
        return None
    name, _, number = source.removeprefix("models:/").rpartition("/")
    # No version has a longer number, and int() raises on thousands of digits.
    is_number = len(number) <= 10 and number.isascii() and number.isdigit()
    return (name, int(number)) if name and "/" not in name and is_number else None


def is_same_version(origin: Mapping[str, Any], source: SourceVersion) -> bool:
    """Answer whether a version here, by its origin, is this one: same name and number there, and not created elsewhen.

    The address it came from does not count: a server and its database are the same registry. A number that is only
    known to be taken (a gap) has no creation time.
    """
    imported = origin.get("imported")
    if not isinstance(imported, Mapping):
        return False
    if (imported.get("name"), imported.get("version")) != (source.name, source.number):
        return False
    known = imported.get("created_at")
    return known is None or source.created_at is None or known == source.created_at

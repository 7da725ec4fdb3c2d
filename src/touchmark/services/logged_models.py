"""Logged models: models saved in a run, or by themselves, and not yet registered. Tracking: not in the log."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import cast

from touchmark import permissions
from touchmark.domain.access import TRACKING, Action, Principal, Resource
from touchmark.domain.errors import (
    ConflictError,
    InvalidFieldError,
    LoggedModelNotFoundError,
    RunDeletedError,
    RunNotFoundError,
    TagNotFoundError,
)
from touchmark.domain.paging import Page, check_limit, make_cursor, parse_cursor, query_text
from touchmark.domain.tags import check_tag_key, check_tags
from touchmark.domain.text import check_optional_text
from touchmark.domain.tracking import (
    DEFAULT_EXPERIMENT_ID,
    KEY_LIMIT,
    ArtifactOwner,
    LoggedModel,
    LoggedModelStatus,
    Measurement,
    Metric,
    check_batch,
    check_logged_model_id,
    check_logged_model_name,
    check_metric,
    check_params,
    check_run_id,
    parse_end_status,
)
from touchmark.registry import Registry
from touchmark.services.registration import prepare_manifest
from touchmark.services.runs import check_experiment, choose_experiment, make_name
from touchmark.storage import experiments, runs
from touchmark.storage import logged_models as rows
from touchmark.storage.engine import Tx

MEASUREMENTS_LIMIT = 25_000
"""Measurements one answer may hold."""


def create_logged_model(
    registry: Registry,
    who: Principal,
    name: str | None = None,
    *,
    experiment: int | str | None = None,
    run_id: str | None = None,
    model_type: str | None = None,
    params: Mapping[str, str] | None = None,
    tags: Mapping[str, str] | None = None,
) -> LoggedModel:
    """Begin to log a model; it is PENDING until `finish_logged_model`.

    Args:
        registry: where.
        who: who asks.
        name: what people call it, not unique; by default a readable random name.
        experiment: an id, or a name (a new one creates the experiment); by default the run's, or `Default`.
        run_id: the run that made it.
        model_type: what sort of model it is, free text.
        params: params, written once.
        tags: tags.

    Raises InvalidFieldError, InvalidTagError, LimitExceededError, RunNotFoundError, RunDeletedError,
    ExperimentNotFoundError, ConflictError if the experiment is deleted.

    """
    name = make_name() if name is None else check_logged_model_name(name)
    experiment = None if experiment is None else check_experiment(experiment)
    run_id = None if run_id is None else check_run_id(run_id)
    model_type = check_optional_text("model_type", model_type, KEY_LIMIT)
    params, tags = check_params(params or {}), check_tags(tags)
    check_batch(len(params) + len(tags))
    with registry.track() as tx:
        permissions.require(tx, who, Action.WRITE_TRACKING, TRACKING if run_id is None else Resource("run", run_id))
        model = LoggedModel(
            model_id=f"m-{secrets.token_hex(16)}",
            experiment_id=_choose_experiment(tx, experiment, run_id),
            name=name,
            status=LoggedModelStatus.PENDING,
            run_id=run_id,
            model_type=model_type,
            status_message=None,
            created_at=tx.now,
            updated_at=tx.now,
            deleted_at=None,
            params=dict(sorted(params.items())),
            tags=tags,
        )
        rows.create_logged_model(tx, model)
        return model


def _choose_experiment(tx: Tx, experiment: int | str | None, run_id: str | None) -> int:
    if run_id is None:
        return choose_experiment(tx, DEFAULT_EXPERIMENT_ID if experiment is None else experiment)
    run = runs.find_row(tx, run_id)
    if run is None:
        raise RunNotFoundError(run_id=run_id)
    if run.deleted_at is not None:
        raise RunDeletedError(run_id=run_id)
    found: int = run.experiment_id
    if experiment is not None and choose_experiment(tx, experiment) != found:
        raise InvalidFieldError(field="experiment", reason=f"run {run_id} belongs to another one; leave it out")
    return choose_experiment(tx, found) if experiment is None else found


def finish_logged_model(
    registry: Registry,
    who: Principal,
    model_id: str,
    status: LoggedModelStatus | str = LoggedModelStatus.READY,
    *,
    status_message: str | None = None,
) -> LoggedModel:
    """Say how the logging ended: READY or UPLOAD_FAILED. A failed one may still become READY, not the other way.

    A READY one's files are read at once, so that registering it takes no longer for a thousand files than for one.
    Raises InvalidFieldError, LimitExceededError, LoggedModelNotFoundError, ConflictError, BlobMissingError.
    """
    model_id, status = check_logged_model_id(model_id), parse_end_status(status)
    status_message = check_optional_text("status_message", status_message)
    if status is LoggedModelStatus.READY:
        prepare_manifest(registry, who, ArtifactOwner("logged_model", model_id))
    with registry.track() as tx:
        before = _begin_change(tx, who, model_id)
        if before is LoggedModelStatus.READY and status is not LoggedModelStatus.READY:
            raise ConflictError(f"Logged model {model_id!r} is READY and stays so.", model_id=model_id)
        rows.update_logged_model(tx, model_id, {"status": status.value, "status_message": status_message})
        return rows.get_logged_model(tx, model_id)


def get_logged_model(registry: Registry, who: Principal, model_id: str, *, deleted: bool = False) -> LoggedModel:
    """Return a logged model; with `deleted`, a deleted one too. Raises InvalidFieldError, LoggedModelNotFoundError."""
    model_id = check_logged_model_id(model_id)
    with registry.read() as tx:
        permissions.require(tx, who, Action.READ_TRACKING, Resource("logged_model", model_id))
        model = rows.get_logged_model(tx, model_id)
    if model.deleted_at is not None and not deleted:
        raise LoggedModelNotFoundError(model_id=model_id)
    return model


def find_logged_model_in_run(registry: Registry, who: Principal, run_id: str, name: str) -> LoggedModel | None:
    """Return the newest READY model logged under `name` in a run, or None. Raises InvalidFieldError."""
    run_id, name = check_run_id(run_id), check_logged_model_name(name)
    with registry.read() as tx:
        permissions.require(tx, who, Action.READ_TRACKING, Resource("run", run_id))
        return rows.find_in_run(tx, run_id, name)


def list_logged_models(
    registry: Registry,
    who: Principal,
    *,
    experiment: int | str | None = None,
    run_id: str | None = None,
    name: str | None = None,
    deleted: bool | None = False,
    cursor: str | None = None,
    limit: int | None = None,
) -> Page[LoggedModel]:
    """Return logged models, newest first, of an experiment, a run and a name; what is None does not select.

    `deleted` None means both sorts. Raises InvalidFieldError, InvalidCursorError, ExperimentNotFoundError.
    """
    experiment = None if experiment is None else check_experiment(experiment)
    run_id = None if run_id is None else check_run_id(run_id)
    name = None if name is None else check_logged_model_name(name)
    limit = check_limit(limit)
    query = query_text("logged models", experiment, run_id, name, str(deleted))
    after = cast("tuple[int, str] | None", parse_cursor(cursor, query, (int, str)))
    with registry.read() as tx:
        permissions.require(tx, who, Action.READ_TRACKING, TRACKING)
        experiment_id = None if experiment is None else experiments.get_row(tx, experiment).experiment_id
        found = rows.list_logged_models(
            tx, experiment_id=experiment_id, run_id=run_id, name=name, deleted=deleted, after=after, limit=limit + 1
        )
    items, more = found[:limit], len(found) > limit
    return Page(tuple(items), make_cursor(query, [items[-1].created_at, items[-1].model_id]) if more else None)


def log_logged_model_params(registry: Registry, who: Principal, model_id: str, params: Mapping[str, str]) -> None:
    """Write params of a logged model, each once; the same value again is no change.

    Raises InvalidFieldError, LimitExceededError, LoggedModelNotFoundError, ParamChangedError.
    """
    model_id, params = check_logged_model_id(model_id), check_params(params)
    check_batch(len(params))
    with registry.track() as tx:
        _begin_change(tx, who, model_id)
        rows.record_params(tx, model_id, params)
        rows.update_logged_model(tx, model_id, {})


def log_logged_model_metrics(registry: Registry, who: Principal, model_id: str, metrics: Sequence[Metric]) -> None:
    """Write metrics of a logged model; of each key the latest by (step, at, value) is kept.

    Raises InvalidFieldError, LimitExceededError, LoggedModelNotFoundError.
    """
    model_id, metrics = check_logged_model_id(model_id), [check_metric(metric) for metric in metrics]
    check_batch(len(metrics))
    with registry.track() as tx:
        _begin_change(tx, who, model_id)
        rows.record_measurements(tx, model_id, [Measurement(metric) for metric in metrics])
        rows.update_logged_model(tx, model_id, {})


def get_measurements(registry: Registry, who: Principal, model_ids: Sequence[str]) -> dict[str, list[Measurement]]:
    """Return what was measured of logged models, by id, by key and step; at most MEASUREMENTS_LIMIT in all.

    An id that is not there has no measurements. Raises InvalidFieldError.
    """
    checked = [check_logged_model_id(model_id) for model_id in model_ids]
    with registry.read() as tx:
        permissions.require(tx, who, Action.READ_TRACKING, TRACKING)
        return rows.list_measurements(tx, checked, MEASUREMENTS_LIMIT)


def set_logged_model_tags(registry: Registry, who: Principal, model_id: str, tags: Mapping[str, str]) -> None:
    """Set tags of a logged model; the others stay. Raises InvalidFieldError, InvalidTagError, LoggedModelNotFoundError."""
    model_id, tags = check_logged_model_id(model_id), check_tags(tags)
    with registry.track() as tx:
        _begin_change(tx, who, model_id)
        rows.set_tags(tx, model_id, tags)
        rows.update_logged_model(tx, model_id, {})


def delete_logged_model_tag(registry: Registry, who: Principal, model_id: str, key: str) -> None:
    """Delete a tag of a logged model.

    Raises InvalidFieldError, InvalidTagError, LoggedModelNotFoundError, TagNotFoundError.
    """
    model_id, key = check_logged_model_id(model_id), check_tag_key(key)
    with registry.track() as tx:
        _begin_change(tx, who, model_id)
        if not rows.delete_tag(tx, model_id, key):
            raise TagNotFoundError(key=key)
        rows.update_logged_model(tx, model_id, {})


def delete_logged_model(registry: Registry, who: Principal, model_id: str) -> None:
    """Delete a logged model; versions made from it are untouched. Raises InvalidFieldError, LoggedModelNotFoundError."""
    model_id = check_logged_model_id(model_id)
    with registry.track() as tx:
        _begin_change(tx, who, model_id)
        rows.update_logged_model(tx, model_id, {"deleted_at": tx.now})


def _begin_change(tx: Tx, who: Principal, model_id: str) -> LoggedModelStatus:
    """Check permission and hold the undeleted row; answers its status."""
    permissions.require(tx, who, Action.WRITE_TRACKING, Resource("logged_model", model_id))
    return LoggedModelStatus(rows.lock_row(tx, model_id).status)

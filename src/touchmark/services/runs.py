"""Runs: create, read, log params, metrics, tags and data sets, delete and restore. Tracking: not in the log."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any, cast

from touchmark import permissions
from touchmark.domain.access import SYSTEM, TRACKING, Action, Principal, Resource
from touchmark.domain.errors import LimitExceededError, RunNotFoundError, TagNotFoundError
from touchmark.domain.paging import Page, check_limit, make_cursor, parse_cursor, query_text
from touchmark.domain.tags import check_tag_key, check_tags
from touchmark.domain.text import SHORT_TEXT_LIMIT, check_text
from touchmark.domain.tracking import (
    DATASETS_LIMIT,
    DatasetInput,
    Measurement,
    Metric,
    ModelLink,
    Run,
    RunStatus,
    check_batch,
    check_dataset,
    check_experiment_id,
    check_experiment_name,
    check_int64,
    check_key,
    check_logged_model_id,
    check_measurement,
    check_metric,
    check_params,
    check_run_id,
    check_run_name,
    parse_run_status,
)
from touchmark.registry import Registry
from touchmark.services.versions import complete_versions
from touchmark.storage import experiments, logged_models
from touchmark.storage import runs as rows
from touchmark.storage.engine import Tx

HISTORY_LIMIT = 25_000
"""Measurements a page of history may hold; what MLflow's client asks for at once."""

_ENDS = frozenset({RunStatus.FINISHED, RunStatus.FAILED, RunStatus.KILLED})
_ADJECTIVES = (
    "amber", "ample", "bold", "brisk", "bright", "calm", "candid", "clear", "coral", "crisp", "deft", "eager", "early",
    "even", "fair", "firm", "fleet", "frank", "fresh", "gentle", "gilded", "glad", "grand", "hardy", "honest", "keen",
    "kind", "light", "lively", "lucid", "mellow", "merry", "mild", "neat", "nimble", "noble", "patient", "plain",
    "polished", "proud", "quick", "quiet", "rapid", "ready", "rosy", "serene", "sharp", "silver", "smooth", "sober",
    "solid", "spry", "steady", "still", "sturdy", "sunny", "supple", "swift", "tidy", "true", "vivid", "warm", "wise",
    "witty",
)  # fmt: skip
_NOUNS = (
    "alder", "anvil", "aspen", "badger", "beacon", "beech", "bell", "birch", "brook", "canyon", "cedar", "chisel",
    "cliff", "clover", "cove", "crane", "crucible", "delta", "dune", "elm", "ember", "falcon", "fern", "finch", "fjord",
    "forge", "furnace", "garnet", "glacier", "grove", "harbor", "hazel", "hearth", "heron", "ingot", "ivy", "jasper",
    "kestrel", "lantern", "larch", "linden", "lynx", "maple", "marble", "meadow", "mill", "moss", "onyx", "opal",
    "otter", "pebble", "pine", "quarry", "quartz", "raven", "reef", "ridge", "rowan", "sparrow", "stamp", "tern",
    "thistle", "willow", "wren",
)  # fmt: skip


def make_name() -> str:
    """Return a readable random name: `adjective-noun-number`. Not unique: the run's id is."""
    return f"{secrets.choice(_ADJECTIVES)}-{secrets.choice(_NOUNS)}-{secrets.randbelow(1000)}"


def check_experiment(experiment: int | str) -> int | str:
    """Return an experiment's id (a number) or name (a text). Raises InvalidFieldError, LimitExceededError."""
    return check_experiment_name(experiment) if isinstance(experiment, str) else check_experiment_id(experiment)


def create_run(
    registry: Registry,
    who: Principal,
    experiment: int | str,
    *,
    name: str | None = None,
    user: str | None = None,
    started_at: int | None = None,
    params: Mapping[str, str] | None = None,
    tags: Mapping[str, str] | None = None,
) -> Run:
    """Begin a run.

    Args:
        registry: where.
        who: who asks.
        experiment: an id, or a name; a new name creates the experiment.
        name: what people call the run; by default a readable random name.
        user: whose run it is, as the client says; by default the id of who asks.
        started_at: microseconds UTC, by default now.
        params: params, written once.
        tags: tags.

    Raises InvalidFieldError, InvalidTagError, LimitExceededError, ExperimentNotFoundError, ConflictError if the
    experiment is deleted.

    """
    experiment = check_experiment(experiment)
    name = make_name() if name is None else check_run_name(name)
    user = who.id if user is None else check_text("user", user, SHORT_TEXT_LIMIT)
    started_at = None if started_at is None else check_int64("started_at", started_at)
    params, tags = check_params(params or {}), check_tags(tags)
    check_batch(len(params) + len(tags))
    with registry.track() as tx:
        permissions.require(tx, who, Action.WRITE_TRACKING, TRACKING)
        run = Run(
            run_id=secrets.token_hex(16),
            experiment_id=choose_experiment(tx, experiment),
            name=name,
            user=user,
            status=RunStatus.RUNNING,
            started_at=tx.now if started_at is None else started_at,
            ended_at=None,
            created_at=tx.now,
            deleted_at=None,
            params=dict(sorted(params.items())),
            tags=tags,
        )
        rows.create_run(tx, run)
        return run


def choose_experiment(tx: Tx, experiment: int | str) -> int:
    """Return the id of a present experiment, created if it is a new name; it is not deleted before the commit.

    Raises ExperimentNotFoundError, ConflictError if it is deleted.
    """
    if isinstance(experiment, str):
        return experiments.ensure_id(tx, experiment)
    experiments.check_present(experiments.get_row(tx, experiment, share=True))
    return experiment


def get_run(registry: Registry, who: Principal, run_id: str) -> Run:
    """Return a run, deleted or not. Raises InvalidFieldError, RunNotFoundError."""
    found = find_run(registry, who, run_id)
    if found is None:
        raise RunNotFoundError(run_id=run_id)
    return found


def find_run(registry: Registry, who: Principal, run_id: str) -> Run | None:
    """Return a run, deleted or not, or None. Raises InvalidFieldError."""
    run_id = check_run_id(run_id)
    with registry.read() as tx:
        permissions.require(tx, who, Action.READ_TRACKING, Resource("run", run_id))
        return rows.find_run(tx, run_id)


def list_runs(
    registry: Registry,
    who: Principal,
    experiment: int | str,
    *,
    deleted: bool | None = False,
    cursor: str | None = None,
    limit: int | None = None,
) -> Page[Run]:
    """Return an experiment's runs, newest first (by start, then id); `deleted` None means both sorts.

    Schemas and profiles of their data sets are left out. Raises InvalidFieldError, InvalidCursorError,
    ExperimentNotFoundError.
    """
    experiment, limit = check_experiment(experiment), check_limit(limit)
    query = query_text("runs", experiment, str(deleted))
    after = cast("tuple[int, str] | None", parse_cursor(cursor, query, (int, str)))
    with registry.read() as tx:
        permissions.require(tx, who, Action.READ_TRACKING, Resource("experiment", str(experiment)))
        experiment_id = experiments.get_row(tx, experiment).experiment_id
        found = rows.list_runs(tx, experiment_id, deleted=deleted, after=after, limit=limit + 1)
    items = found[:limit]
    more = len(found) > limit
    return Page(tuple(items), make_cursor(query, [items[-1].started_at, items[-1].run_id]) if more else None)


def update_run(
    registry: Registry,
    who: Principal,
    run_id: str,
    *,
    status: RunStatus | str | None = None,
    ended_at: int | None = None,
    name: str | None = None,
    tags: Mapping[str, str] | None = None,
) -> Run:
    """Change a run's status, end or name; what is None stays. A run that ends without a time ends now.

    `tags` are set in the same transaction. With its end the versions registered from it are completed
    (`versions.complete_versions`).

    Raises InvalidFieldError, InvalidTagError, LimitExceededError, RunNotFoundError, RunDeletedError.
    """
    run_id = check_run_id(run_id)
    values: dict[str, Any] = {}
    if status is not None:
        values["status"] = parse_run_status(status).value
    if ended_at is not None:
        values["ended_at"] = check_int64("ended_at", ended_at)
    if name is not None:
        values["name"] = check_run_name(name)
    tags = check_tags(tags)
    with registry.track() as tx:
        permissions.require(tx, who, Action.WRITE_TRACKING, Resource("run", run_id))
        row = rows.lock_row(tx, run_id)
        if values.get("status") in _ENDS and row.ended_at is None:
            values.setdefault("ended_at", tx.now)
        if values:
            rows.update_run(tx, run_id, values)
        rows.record_batch(tx, run_id, {}, (), tags)
        run = rows.get_run(tx, run_id)
    if values.get("status") in _ENDS:
        complete_versions(registry, SYSTEM, run)
    return run


def log_batch(
    registry: Registry,
    who: Principal,
    run_id: str,
    *,
    params: Mapping[str, str] | None = None,
    metrics: Sequence[Metric] = (),
    tags: Mapping[str, str] | None = None,
    name: str | None = None,
    measured: Mapping[str, Sequence[Measurement]] | None = None,
) -> None:
    """Write params, metrics and tags of a run, at most 1,000 together: all of them or none.

    `name` renames the run, and `measured` are measurements of logged models by their id, in the same transaction.
    At most seven statements, whatever the size (and five for each logged model). A param is written once: the same value
    again is no change. A measurement that is there already is no change; of each key the latest by (step, at, value) is
    what the run shows.

    Raises InvalidFieldError, InvalidTagError, LimitExceededError, RunNotFoundError, RunDeletedError, ParamChangedError,
    LoggedModelNotFoundError.
    """
    run_id, params, tags = check_run_id(run_id), check_params(params or {}), check_tags(tags)
    metrics = [check_metric(metric) for metric in metrics]
    check_batch(len(params) + len(metrics) + len(tags))
    values = {} if name is None else {"name": check_run_name(name)}
    checked = {
        check_logged_model_id(model_id): [check_measurement(each) for each in measurements]
        for model_id, measurements in (measured or {}).items()
    }
    check_batch(sum(map(len, checked.values())))
    with registry.track() as tx:
        permissions.require(tx, who, Action.WRITE_TRACKING, Resource("run", run_id))
        rows.lock_row(tx, run_id)
        if values:
            rows.update_run(tx, run_id, values)
        rows.record_batch(tx, run_id, params, metrics, tags)
        for model_id, measurements in sorted(checked.items()):
            logged_models.lock_row(tx, model_id)
            logged_models.record_measurements(tx, model_id, measurements)


def log_params(registry: Registry, who: Principal, run_id: str, params: Mapping[str, str]) -> None:
    """Write params of a run, each once. Raises as `log_batch` does."""
    log_batch(registry, who, run_id, params=params)


def log_metrics(registry: Registry, who: Principal, run_id: str, metrics: Sequence[Metric]) -> None:
    """Append measurements to a run. Raises as `log_batch` does."""
    log_batch(registry, who, run_id, metrics=metrics)


def set_tags(registry: Registry, who: Principal, run_id: str, tags: Mapping[str, str]) -> None:
    """Set tags of a run; the others stay. Raises as `log_batch` does."""
    log_batch(registry, who, run_id, tags=tags)


def delete_tag(registry: Registry, who: Principal, run_id: str, key: str) -> None:
    """Delete a tag of a run.

    Raises InvalidFieldError, InvalidTagError, RunNotFoundError, RunDeletedError, TagNotFoundError.
    """
    run_id, key = check_run_id(run_id), check_tag_key(key)
    with registry.track() as tx:
        permissions.require(tx, who, Action.WRITE_TRACKING, Resource("run", run_id))
        rows.lock_row(tx, run_id)
        if not rows.delete_tag(tx, run_id, key):
            raise TagNotFoundError(key=key)


def log_datasets(registry: Registry, who: Principal, run_id: str, datasets: Sequence[DatasetInput]) -> None:
    """Note which data sets a run read; one with the same name and digest is replaced.

    Raises InvalidFieldError, LimitExceededError, RunNotFoundError, RunDeletedError.
    """
    run_id = check_run_id(run_id)
    if len(datasets) > DATASETS_LIMIT:
        raise LimitExceededError(what="One request", limit=DATASETS_LIMIT, unit="data sets")
    datasets = [check_dataset(dataset) for dataset in datasets]
    with registry.track() as tx:
        permissions.require(tx, who, Action.WRITE_TRACKING, Resource("run", run_id))
        rows.lock_row(tx, run_id)
        rows.set_datasets(tx, run_id, datasets)


def link_models(registry: Registry, who: Principal, run_id: str, links: Sequence[ModelLink]) -> None:
    """Note which logged models a run read or made.

    Raises InvalidFieldError, LimitExceededError, RunNotFoundError, RunDeletedError.
    """
    run_id = check_run_id(run_id)
    check_batch(len(links))
    for link in links:
        check_logged_model_id(link.model_id)
        check_int64("step", link.step)
    with registry.track() as tx:
        permissions.require(tx, who, Action.WRITE_TRACKING, Resource("run", run_id))
        rows.lock_row(tx, run_id)
        rows.set_models(tx, run_id, links)


def get_metric_history(
    registry: Registry, who: Principal, run_id: str, key: str, *, cursor: str | None = None, limit: int | None = None
) -> Page[Metric]:
    """Return every measurement of one metric of a run, by (step, at); up to 25,000 a page, 1,000 unless asked.

    A key that was never logged has none. Raises InvalidFieldError, InvalidCursorError, RunNotFoundError.
    """
    run_id, key = check_run_id(run_id), check_key("metric", key)
    limit = check_limit(limit, default=1_000, maximum=HISTORY_LIMIT)
    query = query_text("metric history", run_id, key)
    after = cast("tuple[int, int, str] | None", parse_cursor(cursor, query, (int, int, str)))
    with registry.read() as tx:
        permissions.require(tx, who, Action.READ_TRACKING, Resource("run", run_id))
        if rows.find_row(tx, run_id) is None:
            raise RunNotFoundError(run_id=run_id)
        found = rows.list_history(tx, run_id, key, after=after, limit=limit + 1)
    items, more = found[:limit], len(found) > limit
    last, text = items[-1] if more else (None, "")
    return Page(
        tuple(metric for metric, _ in items),
        make_cursor(query, [last.step, last.at, text]) if last is not None else None,
    )


def delete_run(registry: Registry, who: Principal, run_id: str) -> None:
    """Delete a run until it is restored; one that is deleted stays so. Versions made from it are untouched.

    Raises InvalidFieldError, RunNotFoundError.
    """
    run_id = check_run_id(run_id)
    with registry.track() as tx:
        permissions.require(tx, who, Action.WRITE_TRACKING, Resource("run", run_id))
        if rows.lock_row(tx, run_id, deleted=True).deleted_at is None:
            rows.update_run(tx, run_id, {"deleted_at": tx.now})


def restore_run(registry: Registry, who: Principal, run_id: str) -> None:
    """Bring back a deleted run; one that is not deleted stays so.

    Raises InvalidFieldError, RunNotFoundError, ConflictError if its experiment is deleted.
    """
    run_id = check_run_id(run_id)
    with registry.track() as tx:
        permissions.require(tx, who, Action.WRITE_TRACKING, Resource("run", run_id))
        found = rows.find_row(tx, run_id)
        if found is None:
            raise RunNotFoundError(run_id=run_id)
        # Before the run's row: a deletion of the experiment takes the two in this order too.
        choose_experiment(tx, found.experiment_id)
        rows.lock_row(tx, run_id, deleted=True)
        rows.update_run(tx, run_id, {"deleted_at": None})

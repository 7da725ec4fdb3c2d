"""Experiments: create, read, tag, rename, delete and restore. Tracking: authorised and durable, not in the log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from touchmark import permissions
from touchmark.domain.access import TRACKING, Action, Principal, Resource
from touchmark.domain.errors import ExperimentExistsError, TagNotFoundError
from touchmark.domain.paging import Page, check_limit, make_cursor, parse_cursor, query_text
from touchmark.domain.tags import check_tag_key, check_tags
from touchmark.domain.tracking import Experiment, check_experiment_id, check_experiment_name
from touchmark.registry import Registry
from touchmark.storage import experiments as rows
from touchmark.storage.engine import Tx


def create_experiment(
    registry: Registry, who: Principal, name: str, *, tags: Mapping[str, str] | None = None
) -> Experiment:
    """Create an experiment. A deleted one keeps its name.

    Raises InvalidFieldError, InvalidTagError, ExperimentExistsError.
    """
    name, tags = check_experiment_name(name), check_tags(tags)
    with registry.track() as tx:
        permissions.require(tx, who, Action.WRITE_TRACKING, TRACKING)
        experiment_id = rows.create_experiment(tx, name)
        if experiment_id is None:
            raise ExperimentExistsError(experiment=name)
        rows.set_tags(tx, experiment_id, tags)
        return Experiment(experiment_id, name, tx.now, tx.now, None, tags)


def ensure_experiment(registry: Registry, who: Principal, name: str) -> Experiment:
    """Return the experiment called `name`, created if it is not there, by however many writers at once.

    One that is there costs a read and no lock. Raises InvalidFieldError, ConflictError if it is deleted.
    """
    name = check_experiment_name(name)
    with registry.read() as tx:
        permissions.require(tx, who, Action.READ_TRACKING, TRACKING)
        row = rows.find_row(tx, name)
        if row is not None:
            rows.check_present(row)
            return rows.to_experiments(tx, [row])[0]
    with registry.track() as tx:
        permissions.require(tx, who, Action.WRITE_TRACKING, TRACKING)
        return _get(tx, rows.ensure_id(tx, name))


def get_experiment(registry: Registry, who: Principal, experiment_id: int) -> Experiment:
    """Return an experiment, deleted or not. Raises InvalidFieldError, ExperimentNotFoundError."""
    experiment_id = check_experiment_id(experiment_id)
    with registry.read() as tx:
        permissions.require(tx, who, Action.READ_TRACKING, Resource("experiment", str(experiment_id)))
        return _get(tx, experiment_id)


def find_experiment_by_name(registry: Registry, who: Principal, name: str) -> Experiment | None:
    """Return the experiment called `name`, deleted or not, or None. Raises InvalidFieldError."""
    name = check_experiment_name(name)
    with registry.read() as tx:
        permissions.require(tx, who, Action.READ_TRACKING, TRACKING)
        row = rows.find_row(tx, name)
        return None if row is None else rows.to_experiments(tx, [row])[0]


def list_experiments(
    registry: Registry,
    who: Principal,
    *,
    deleted: bool | None = False,
    cursor: str | None = None,
    limit: int | None = None,
) -> Page[Experiment]:
    """Return experiments, newest first; `deleted` None means both sorts. Raises InvalidFieldError, InvalidCursorError."""
    limit = check_limit(limit)
    query = query_text("experiments", str(deleted))
    after = cast("tuple[int] | None", parse_cursor(cursor, query, (int,)))
    with registry.read() as tx:
        permissions.require(tx, who, Action.READ_TRACKING, TRACKING)
        found = rows.list_rows(tx, deleted=deleted, after=after[0] if after else None, limit=limit + 1)
        items = rows.to_experiments(tx, found[:limit])
    return Page(tuple(items), make_cursor(query, [items[-1].experiment_id]) if len(found) > limit else None)


def set_experiment_tags(registry: Registry, who: Principal, experiment_id: int, tags: Mapping[str, str]) -> None:
    """Set tags of an experiment; the others stay.

    Raises InvalidFieldError, InvalidTagError, ExperimentNotFoundError, ConflictError if it is deleted.
    """
    experiment_id, tags = check_experiment_id(experiment_id), check_tags(tags)
    with registry.track() as tx:
        _begin_change(tx, who, experiment_id)
        rows.set_tags(tx, experiment_id, tags)
        rows.touch(tx, experiment_id)


def delete_experiment_tag(registry: Registry, who: Principal, experiment_id: int, key: str) -> None:
    """Delete a tag of an experiment.

    Raises InvalidFieldError, InvalidTagError, ExperimentNotFoundError, TagNotFoundError, ConflictError if it is deleted.
    """
    experiment_id, key = check_experiment_id(experiment_id), check_tag_key(key)
    with registry.track() as tx:
        _begin_change(tx, who, experiment_id)
        if not rows.delete_tag(tx, experiment_id, key):
            raise TagNotFoundError(key=key)
        rows.touch(tx, experiment_id)


def rename_experiment(registry: Registry, who: Principal, experiment_id: int, name: str) -> Experiment:
    """Give an experiment another name.

    Raises InvalidFieldError, ExperimentNotFoundError, ExperimentExistsError, ConflictError if it is deleted.
    """
    experiment_id, name = check_experiment_id(experiment_id), check_experiment_name(name)
    with registry.track() as tx:
        present = _begin_change(tx, who, experiment_id)
        if present != name and not rows.rename(tx, experiment_id, name):
            raise ExperimentExistsError(experiment=name)
        return _get(tx, experiment_id)


def delete_experiment(registry: Registry, who: Principal, experiment_id: int) -> None:
    """Delete an experiment and its runs until it is restored; one that is deleted stays so.

    Raises InvalidFieldError, ExperimentNotFoundError.
    """
    _set_deleted(registry, who, experiment_id, deleted=True)


def restore_experiment(registry: Registry, who: Principal, experiment_id: int) -> None:
    """Bring back a deleted experiment with the runs that were deleted with it; one that is not deleted stays so.

    Raises InvalidFieldError, ExperimentNotFoundError.
    """
    _set_deleted(registry, who, experiment_id, deleted=False)


def _set_deleted(registry: Registry, who: Principal, experiment_id: int, *, deleted: bool) -> None:
    experiment_id = check_experiment_id(experiment_id)
    with registry.track() as tx:
        permissions.require(tx, who, Action.WRITE_TRACKING, Resource("experiment", str(experiment_id)))
        row = rows.lock_row(tx, experiment_id)
        if (row.deleted_at is not None) != deleted:
            rows.set_deleted(tx, experiment_id, before=row.deleted_at, after=tx.now if deleted else None)


def _begin_change(tx: Tx, who: Principal, experiment_id: int) -> str:
    """Check permission, hold the row, refuse a deleted experiment; answers its name."""
    permissions.require(tx, who, Action.WRITE_TRACKING, Resource("experiment", str(experiment_id)))
    row = rows.lock_row(tx, experiment_id)
    rows.check_present(row)
    name: str = row.name
    return name


def _get(tx: Tx, experiment_id: int) -> Experiment:
    return rows.to_experiments(tx, [rows.get_row(tx, experiment_id)])[0]

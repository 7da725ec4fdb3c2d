"""Rows of experiments and their tags. What must not live here: whether a change is allowed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Row, bindparam, delete, select, update

from touchmark.domain.errors import ConflictError, ExperimentNotFoundError
from touchmark.domain.tracking import DEFAULT_EXPERIMENT_ID, Experiment
from touchmark.storage import dialect
from touchmark.storage import schema as s
from touchmark.storage.engine import Tx

E, T, R = s.experiments.c, s.experiment_tags.c, s.runs.c

TAGGED_ROWS = 30_000
"""Experiments whose tags are read in one statement: SQLite takes 32,766 parameters."""

_ALL = select(s.experiments)
_BY_ID = _ALL.where(E.experiment_id == bindparam("p_id"))
_BY_NAME = _ALL.where(E.name == bindparam("p_name"))
# Writers of runs share the row, so that they do not wait for each other but a deletion waits for them. SQLite, whose
# writer holds the only lock, leaves the clause out.
_SHARED_BY_ID, _SHARED_BY_NAME = _BY_ID.with_for_update(read=True), _BY_NAME.with_for_update(read=True)
_NAME = select(E.name).where(E.experiment_id == bindparam("p_id"))
_TAGS = (
    select(T.experiment_id, T.key, T.value)
    .where(T.experiment_id.in_(bindparam("p_ids", expanding=True)))
    .order_by(T.experiment_id, T.key)
)


def create_default(tx: Tx) -> None:
    """Write experiment 0, `Default`, which is there from the start; nothing if it is there already.

    PostgreSQL's sequence begins at 1 and SQLite continues after the greatest id, so neither gives out 0 again.
    """
    row = {"experiment_id": DEFAULT_EXPERIMENT_ID, "name": "Default", "created_at": tx.now, "updated_at": tx.now}
    tx.run(dialect.insert_if_absent(tx.engine, s.experiments), row)


def create_experiment(tx: Tx, name: str) -> int | None:
    """Write an experiment and return its id; None if the name is taken, by a deleted one too."""
    row = {"name": name, "created_at": tx.now, "updated_at": tx.now}
    statement = dialect.insert_if_absent(tx.engine, s.experiments).values(row).returning(E.experiment_id)
    experiment_id: int | None = tx.scalar(statement)
    return experiment_id


def find_row(tx: Tx, experiment: int | str, *, share: bool = False) -> Any:
    """Return an experiment's row by id or name, deleted or not, or None. With `share`, nobody deletes it meanwhile."""
    if isinstance(experiment, int):
        return tx.first(_SHARED_BY_ID if share else _BY_ID, p_id=experiment)
    return tx.first(_SHARED_BY_NAME if share else _BY_NAME, p_name=experiment)


def get_row(tx: Tx, experiment: int | str, *, share: bool = False) -> Any:
    """Return an experiment's row by id or name, deleted or not. Raises ExperimentNotFoundError."""
    row = find_row(tx, experiment, share=share)
    if row is None:
        raise ExperimentNotFoundError(experiment=experiment)
    return row


def lock_row(tx: Tx, experiment_id: int) -> Any:
    """Return an experiment's row, deleted or not, and hold it alone. Raises ExperimentNotFoundError."""
    row = tx.first(dialect.lock_rows(_BY_ID, tx.engine), p_id=experiment_id)
    if row is None:
        raise ExperimentNotFoundError(experiment=experiment_id)
    return row


def ensure_id(tx: Tx, name: str) -> int:
    """Return the id of the experiment called `name`, created if it is not there. Raises ConflictError if it is deleted.

    Safe under any number of writers: who loses the insert waits for the winner's commit and then finds its row.
    """
    row = find_row(tx, name, share=True)
    if row is None:
        experiment_id = create_experiment(tx, name)
        if experiment_id is not None:
            return experiment_id
        row = get_row(tx, name, share=True)
    check_present(row)
    found: int = row.experiment_id
    return found


def check_present(row: Row[Any]) -> None:
    """Refuse a deleted experiment. Raises ConflictError."""
    if row.deleted_at is not None:
        raise ConflictError(f"Experiment {row.name!r} is deleted. Restore it first.", experiment=row.name)


def find_name(tx: Tx, experiment_id: int) -> str | None:
    """Return an experiment's name, deleted or not, or None."""
    name: str | None = tx.scalar(_NAME, p_id=experiment_id)
    return name


def list_rows(tx: Tx, *, deleted: bool | None, after: int | None, limit: int) -> Sequence[Row[Any]]:
    """Return rows by id from the highest, those with an id below `after`; `deleted` None means all."""
    statement = _ALL
    if deleted is not None:
        statement = statement.where(E.deleted_at.is_not(None) if deleted else E.deleted_at.is_(None))
    if after is not None:
        statement = statement.where(E.experiment_id < after)
    return tx.all(statement.order_by(E.experiment_id.desc()).limit(limit))


def to_experiments(tx: Tx, rows: Sequence[Row[Any]]) -> list[Experiment]:
    """Return domain values for rows, tags filled in with one statement for every TAGGED_ROWS of them."""
    tags: dict[int, dict[str, str]] = {row.experiment_id: {} for row in rows}
    ids = list(tags)
    for start in range(0, len(ids), TAGGED_ROWS):
        for experiment_id, key, value in tx.all(_TAGS, p_ids=ids[start : start + TAGGED_ROWS]):
            tags[experiment_id][key] = value
    return [
        Experiment(r.experiment_id, r.name, r.created_at, r.updated_at, r.deleted_at, tags[r.experiment_id])
        for r in rows
    ]


def set_tags(tx: Tx, experiment_id: int, tags: Mapping[str, str]) -> None:
    """Write tags; the others stay."""
    rows = [{"experiment_id": experiment_id, "key": key, "value": value} for key, value in sorted(tags.items())]
    if rows:
        tx.run(dialect.upsert(tx.engine, s.experiment_tags, ["experiment_id", "key"]), rows)


def delete_tag(tx: Tx, experiment_id: int, key: str) -> bool:
    """Delete a tag; answers whether it was there."""
    return tx.run(delete(s.experiment_tags).where(T.experiment_id == experiment_id, T.key == key)) > 0


def touch(tx: Tx, experiment_id: int) -> None:
    """Note that an experiment was changed now."""
    tx.run(update(s.experiments).where(E.experiment_id == experiment_id).values(updated_at=tx.now))


def rename(tx: Tx, experiment_id: int, name: str) -> bool:
    """Give an experiment another name; answers False if that is taken.

    The name is reserved by a row which is deleted again in the same transaction: a rename and a creation that want the
    same name at once wait for each other, and neither meets the unique index unprepared.
    """
    reserved = create_experiment(tx, name)
    if reserved is None:
        return False
    tx.run(delete(s.experiments).where(E.experiment_id == reserved))
    tx.run(update(s.experiments).where(E.experiment_id == experiment_id).values(name=name, updated_at=tx.now))
    return True


def set_deleted(tx: Tx, experiment_id: int, *, before: int | None, after: int | None) -> None:
    """Delete or restore an experiment with those of its runs that stand as it does.

    A run that was deleted by itself keeps its own time of deletion, so it stays deleted when the experiment comes back.
    """
    values = {"deleted_at": after, "updated_at": tx.now}
    tx.run(update(s.experiments).where(E.experiment_id == experiment_id).values(values))
    same = R.deleted_at.is_(None) if before is None else R.deleted_at == before
    tx.run(update(s.runs).where(R.experiment_id == experiment_id, same).values(deleted_at=after))

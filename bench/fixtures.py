"""Equal data for both servers, written past their doors: many versions, with their events on our side.

Ours are made by repeating the event that registered version 1, in one transaction for each BATCH, through the log and the
projection that every service uses: `touchmark fsck` passes on them. MLflow's are copies of the row of version 1.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sqlalchemy import MetaData, create_engine, func, insert, select

from touchmark.domain.events import Effect, SubjectKind
from touchmark.registry import Registry
from touchmark.storage import ledger
from touchmark.storage import schema as s

BATCH = 2_000
TEAMS = 5
"""Every fifth version carries team = risk, as the versions that came through the door."""


def add_versions(registry: Registry, name: str, count: int) -> None:
    """Give a model that has a version so many more, each with its event. Nothing else may write meanwhile."""
    with registry.read() as tx:
        first = next(
            event
            for event, _leaf in ledger.list_events(tx, after=-1, limit=10_000)
            if event.model_name == name and event.version == 1
        )
        number = tx.scalar(select(func.max(s.versions.c.number)).where(s.versions.c.model_id == first.model_id))
    done = 0
    while done < count:
        size = min(BATCH, count - done)
        with registry.write() as tx:
            for _ in range(size):
                number += 1
                tx.recorded = False
                assert tx.head is not None
                tx.index = tx.head.size
                effects = [_again(each, tx.index, number) for each in first.effects if _is_of_version(each)]
                effects.append(_tag(tx.index, "n", str(number)))
                ledger.append(tx, first.actor, first.kind, effects, model_id=first.model_id, name=name, version=number)
        done += size


def _is_of_version(effect: Effect) -> bool:
    """Leave out the model's own row (version 1 made the model) and its tags."""
    is_tag = effect.subject is SubjectKind.VERSION_TAG
    return ("version_id" in effect.key and not is_tag) or (is_tag and effect.key["key"] == "team")


def _again(effect: Effect, version_id: int, number: int) -> Effect:
    key = {**effect.key, "version_id": version_id}
    after: dict[str, Any] = dict(effect.after or {})
    if effect.subject is SubjectKind.VERSION:
        after |= {"number": number, "same_bytes_as": 1}
    if effect.subject is SubjectKind.VERSION_TAG:
        after["value"] = "risk" if number % TEAMS == 0 else "other"
    return replace(effect, key=key, after=after)


def _tag(version_id: int, key: str, value: str) -> Effect:
    return Effect(SubjectKind.VERSION_TAG, {"version_id": version_id, "key": key}, None, {"value": value})


def add_peer_versions(url: str, name: str, count: int) -> None:
    """Give a model in MLflow's own database so many more versions, copied from version 1."""
    engine = create_engine(url)
    known = MetaData()
    known.reflect(engine, only=["model_versions", "model_version_tags"])
    rows, tags = known.tables["model_versions"], known.tables["model_version_tags"]
    with engine.begin() as connection:
        one = select(rows).where(rows.c.name == name, rows.c.version == 1)
        first = dict(connection.execute(one).mappings().one())
        last = connection.execute(select(func.max(rows.c.version)).where(rows.c.name == name)).scalar_one()
        numbers = range(last + 1, last + 1 + count)
        for start in range(0, count, BATCH):
            batch = numbers[start : start + BATCH]
            connection.execute(insert(rows), [{**first, "version": number} for number in batch])
            more = {column.name: first[column.name] for column in tags.c if column.name in ("name", "workspace")}
            connection.execute(
                insert(tags),
                [
                    {**more, "version": number, "key": key, "value": value}
                    for number in batch
                    for key, value in (("team", "risk" if number % TEAMS == 0 else "other"), ("n", str(number)))
                ],
            )
    engine.dispose()

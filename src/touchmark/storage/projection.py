"""Effects to rows: what an event does to the catalogue. The only writer of the catalogue's tables.

Services decide effects; `storage.ledger.append` hashes them and calls `apply` here, in the same transaction; `fsck` calls
`apply` again in an empty database and compares. One path, so a row cannot say what the log does not.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from itertools import groupby
from typing import Any

from sqlalchemy import and_, bindparam, delete, func, insert, literal, select, union_all, update

from touchmark.domain.events import Effect, Event, SubjectKind
from touchmark.domain.names import look_alike_key
from touchmark.domain.search import words_of
from touchmark.storage import schema as s
from touchmark.storage.dialect import insert_if_absent, upsert
from touchmark.storage.engine import Prepared, Tx


def apply(tx: Tx, event: Event) -> None:
    """Write the rows of an event's effects, in their order; neighbours that only add rows of one kind go in together."""
    for (subject, adds), group in groupby(event.effects, key=lambda effect: (effect.subject, effect.before is None)):
        many = _APPLY_MANY.get(subject) if adds else None
        if many is not None:
            many(tx, list(group))
        else:
            for effect in group:
                _APPLY[subject](tx, event, effect)
    _index_words(tx, event)


def _apply_nothing(_tx: Tx, _event: Event, _effect: Effect) -> None:
    """The registry's own subject has no row in the catalogue; its id stands in the log's head."""


def _apply_model(tx: Tx, event: Event, effect: Effect) -> None:
    model_id = effect.key["model_id"]
    after = dict(effect.after or {})
    deleted = after.pop("deleted", None)
    if effect.before is None:
        row = {
            "model_id": model_id, "name": after["name"], "look_alike_key": look_alike_key(after["name"]),
            "description": after.get("description"), "owner": after.get("owner"), "contact": after.get("contact"),
            "version_count": 0, "created_at": event.at, "created_by": event.actor.id, "updated_at": event.at,
        }  # fmt: skip
        tx.run(insert(s.models), row)
    else:
        changes: dict[str, Any] = {**after, "updated_at": event.at}
        if "name" in after:
            changes["look_alike_key"] = look_alike_key(after["name"])
        if deleted is not None:
            changes["deleted_at"] = event.at if deleted else None
            if deleted:  # its versions go with it; its aliases and tags are effects of their own
                tx.run(
                    update(s.versions)
                    .where(s.versions.c.model_id == model_id, s.versions.c.deleted_at.is_(None))
                    .values(deleted_at=event.at, updated_at=event.at)
                )
            else:  # a deleted name created again: the counter goes on, the creation is new
                changes |= {"created_at": event.at, "created_by": event.actor.id}
        tx.run(update(s.models).where(s.models.c.model_id == model_id).values(changes))


def _apply_name(tx: Tx, _event: Event, effect: Effect) -> None:
    name = effect.key["name"]
    if effect.after is None:
        tx.run(delete(s.model_names).where(s.model_names.c.name == name))
    else:
        tx.run(insert(s.model_names), {"name": name, "model_id": effect.after["model_id"]})


_INSERT_VERSION = Prepared(insert(s.versions))
_BUMP_MODEL = Prepared(
    update(s.models)
    .where(s.models.c.model_id == bindparam("b_model_id"))
    .values(version_count=bindparam("b_number"), updated_at=bindparam("b_at"))
)


def _apply_version(tx: Tx, event: Event, effect: Effect) -> None:
    version_id = effect.key["version_id"]
    after = dict(effect.after or {})
    deleted = after.pop("deleted", None)
    deprecated = after.pop("deprecated", None)
    if effect.before is None:
        row = {
            **after, "version_id": version_id, "created_at": event.at, "created_by": event.actor.id,
            "updated_at": event.at, "deleted_at": event.at if deleted else None,  # a number imported as deleted
        }  # fmt: skip
        tx.run(_INSERT_VERSION, row)
        tx.run(_BUMP_MODEL, {"b_model_id": after["model_id"], "b_number": after["number"], "b_at": event.at})
        _add_origin(tx, version_id, after["origin"], event.index)
        return
    if "origin" in after:  # sealed later: its origin is known now
        _add_origin(tx, version_id, after["origin"], event.index)
    changes: dict[str, Any] = {**after, "updated_at": event.at}
    if deleted is not None:
        changes["deleted_at"] = event.at if deleted else None
    if deprecated is not None:
        changes["deprecated_at"] = event.at if deprecated else None
    tx.run(update(s.versions).where(s.versions.c.version_id == version_id).values(changes))
    # As MLflow's clients expect: the model changes with its versions' stages, and when one of them is deleted.
    if "stage" in after or deleted is not None:
        tx.run(update(s.models).where(s.models.c.model_id == event.model_id).values(updated_at=event.at))


_ADD_PARAMS = Prepared(lambda engine: insert_if_absent(engine, s.version_params))
_ADD_METRICS = Prepared(lambda engine: insert_if_absent(engine, s.version_metrics))


def _add_origin(tx: Tx, version_id: int, text: str, log_index: int) -> None:
    """Write the params and metrics of an origin; what a version has already (of an evaluation) stays."""
    origin = json.loads(text) if text.startswith("{") else {}  # erased: nothing to copy
    params = [{"version_id": version_id, "key": k, "value": v} for k, v in origin.get("params", {}).items()]
    tx.run(_ADD_PARAMS, params)
    metrics = {key: float(metric["value"]) for key, metric in origin.get("metrics", {}).items()}
    tx.run(_ADD_METRICS, _metric_rows(version_id, metrics, log_index))


def _metric_rows(version_id: int, metrics: Mapping[str, float], log_index: int) -> list[dict[str, Any]]:
    return [
        {
            "version_id": version_id, "key": key, "value": None if math.isnan(value) else value,
            "is_nan": math.isnan(value), "log_index": log_index,
        }
        for key, value in sorted(metrics.items())
    ]  # fmt: skip


def _change_tag(table: Any, owner: str) -> Callable[[Tx, Event, Effect], None]:
    one = and_(table.c[owner] == bindparam("b_owner"), table.c.key == bindparam("b_key"))
    drop = Prepared(delete(table).where(one))
    change = Prepared(update(table).where(one).values(value=bindparam("b_value")))

    def change_tag(tx: Tx, _event: Event, effect: Effect) -> None:
        named = {"b_owner": effect.key[owner], "b_key": effect.key["key"]}
        if effect.after is None:
            tx.run(drop, named)
        else:
            tx.run(change, {**named, "b_value": effect.after["value"]})

    return change_tag


def _add_tags(table: Any) -> Callable[[Tx, list[Effect]], None]:
    add = Prepared(insert(table))

    def add_tags(tx: Tx, effects: list[Effect]) -> None:
        tx.run(add, [{**effect.key, "value": (effect.after or {})["value"]} for effect in effects])

    return add_tags


_SET_ALIAS = Prepared(lambda engine: upsert(engine, s.aliases, ["model_id", "alias"]))
_ADD_MOVE = Prepared(insert(s.alias_moves))


def _apply_alias(tx: Tx, event: Event, effect: Effect) -> None:
    model_id, alias = effect.key["model_id"], effect.key["alias"]
    before = effect.before["number"] if effect.before else None
    after = effect.after["number"] if effect.after else None
    if after is None:
        tx.run(delete(s.aliases).where(s.aliases.c.model_id == model_id, s.aliases.c.alias == alias))
    else:
        row = {
            "model_id": model_id, "alias": alias, "number": after, "log_index": event.index, "moved_at": event.at,
            "moved_by": event.actor.id,
        }  # fmt: skip
        tx.run(_SET_ALIAS, row)
    move = {
        "model_id": model_id, "alias": alias, "log_index": event.index, "before": before, "after": after,
        "at": event.at, "by": event.actor.id,
    }  # fmt: skip
    tx.run(_ADD_MOVE, move)


def _apply_evaluation(tx: Tx, event: Event, effect: Effect) -> None:
    after = effect.after or {}
    version_id = effect.key["version_id"]
    row = {
        "version_id": version_id, "log_index": event.index, "dataset": after.get("dataset"), "metrics": after["metrics"],
        "at": event.at, "by": event.actor.id,
    }  # fmt: skip
    tx.run(insert(s.evaluations), row)
    metrics = (
        {key: float(value) for key, value in json.loads(after["metrics"]).items()}
        if after["metrics"][:1] == "{"
        else {}
    )
    tx.run(upsert(tx.engine, s.version_metrics, ["version_id", "key"]), _metric_rows(version_id, metrics, event.index))


def _apply_webhook(tx: Tx, event: Event, effect: Effect) -> None:
    one = s.webhooks.c.webhook_id == effect.key["webhook_id"]
    if effect.after is None:
        tx.run(delete(s.webhooks).where(one))
    elif effect.before is None:
        row = {
            **effect.key, **effect.after, "created_at": event.at, "created_by": event.actor.id, "updated_at": event.at,
        }  # fmt: skip
        tx.run(insert(s.webhooks), row)
    else:
        tx.run(update(s.webhooks).where(one).values({**effect.after, "updated_at": event.at}))


_ADD_EDGES = Prepared(insert(s.edges))


def _add_edges(tx: Tx, effects: list[Effect]) -> None:
    tx.run(_ADD_EDGES, [{**effect.key, "detail": (effect.after or {}).get("detail")} for effect in effects])


_DROP_TERMS = Prepared(
    delete(s.search_terms).where(
        s.search_terms.c.subject == bindparam("b_subject"), s.search_terms.c.subject_id == bindparam("b_id")
    )
)
_ADD_TERMS = Prepared(insert(s.search_terms))


_WORDY = {
    SubjectKind.MODEL: frozenset({"name", "description", "owner", "deleted"}),
    SubjectKind.VERSION: frozenset({"description"}),
    SubjectKind.MODEL_TAG: frozenset({"value"}),
    SubjectKind.VERSION_TAG: frozenset({"value"}),
}
"""The fields whose words plain-words search finds; a tag's key counts as words too."""


def _index_words(tx: Tx, event: Event) -> None:
    """Write anew the words of every model and version whose prose or tags the event touched."""
    touched: dict[tuple[str, int], bool] = {}  # whether it is new, so that there is nothing to drop
    for effect in event.effects:
        fields = (effect.after if effect.after is not None else effect.before) or {}
        if wordy := _WORDY.get(effect.subject, frozenset()) & fields.keys():
            kind = "version" if "version_id" in effect.key else "model"
            is_new = effect.before is None and effect.subject in {SubjectKind.MODEL, SubjectKind.VERSION}
            if is_new and all(fields[field] is None for field in wordy):
                continue  # nothing was said of it yet
            key = (kind, effect.key[f"{kind}_id"])
            touched[key] = touched.get(key, False) or is_new
    terms: list[dict[str, Any]] = []
    for (kind, subject_id), is_new in touched.items():
        if not is_new:
            tx.run(_DROP_TERMS, {"b_subject": kind, "b_id": subject_id})
        rows = sorted(
            tx.all(_VERSION_TEXTS if kind == "version" else _MODEL_TEXTS, p_id=subject_id),
            key=lambda row: (row[0], row[1] or ""),
        )
        words = words_of(" ".join(text for row in rows for text in row[1:] if text))
        terms += [{"term": word, "subject": kind, "subject_id": subject_id} for word in words]
    tx.run(_ADD_TERMS, terms)


_VERSION_TEXTS = Prepared(
    union_all(
        select(literal(0).label("rank"), s.versions.c.description, literal("")).where(
            s.versions.c.version_id == bindparam("p_id")
        ),
        select(literal(1).label("rank"), s.version_tags.c.key, s.version_tags.c.value).where(
            s.version_tags.c.version_id == bindparam("p_id")
        ),
    )
)
_MODEL_TEXTS = Prepared(
    union_all(
        select(
            literal(0).label("rank"),
            s.models.c.name + " " + func.coalesce(s.models.c.owner, ""),
            s.models.c.description,
        ).where(s.models.c.model_id == bindparam("p_id"), s.models.c.deleted_at.is_(None)),
        select(literal(1).label("rank"), s.model_tags.c.key, s.model_tags.c.value).where(
            s.model_tags.c.model_id == bindparam("p_id")
        ),
    )
)


_APPLY: Mapping[SubjectKind, Callable[[Tx, Event, Effect], None]] = {
    SubjectKind.REGISTRY: _apply_nothing,
    SubjectKind.MODEL: _apply_model,
    SubjectKind.NAME: _apply_name,
    SubjectKind.MODEL_TAG: _change_tag(s.model_tags, "model_id"),
    SubjectKind.VERSION: _apply_version,
    SubjectKind.VERSION_TAG: _change_tag(s.version_tags, "version_id"),
    SubjectKind.ALIAS: _apply_alias,
    SubjectKind.EVALUATION: _apply_evaluation,
    SubjectKind.WEBHOOK: _apply_webhook,
}
_APPLY_MANY: Mapping[SubjectKind, Callable[[Tx, list[Effect]], None]] = {
    SubjectKind.MODEL_TAG: _add_tags(s.model_tags),
    SubjectKind.VERSION_TAG: _add_tags(s.version_tags),
    SubjectKind.EDGE: _add_edges,
}

"""Registered models: create, read, describe, tag, rename, delete."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from touchmark import permissions
from touchmark.domain.access import Action, Principal, Resource
from touchmark.domain.errors import ModelExistsError, NameTakenError, TagNotFoundError
from touchmark.domain.events import Effect, EventKind, SubjectKind
from touchmark.domain.idempotency import IdempotencyKey
from touchmark.domain.models import UNCHANGED, RegisteredModel, Unchanged
from touchmark.domain.names import ModelName, parse_model_name
from touchmark.domain.tags import check_tag_key, check_tags
from touchmark.domain.text import SHORT_TEXT_LIMIT, check_optional_text
from touchmark.registry import Registry
from touchmark.storage import idempotency, ledger
from touchmark.storage import models as rows
from touchmark.storage.engine import Tx


def create_model(
    registry: Registry,
    who: Principal,
    name: str,
    *,
    description: str | None = None,
    owner: str | None = None,
    contact: str | None = None,
    tags: Mapping[str, str] | None = None,
    key: IdempotencyKey | None = None,
) -> RegisteredModel:
    """Create a registered model without versions; a deleted name comes back to life and its counter goes on.

    Raises InvalidNameError, InvalidFieldError, InvalidTagError, LimitExceededError, ModelExistsError, NameTakenError,
    IdempotencyMismatchError.
    """
    name = parse_model_name(name)
    fields = _check_fields(description=description, owner=owner, contact=contact)
    tags = check_tags(tags)
    with registry.write() as tx:
        permissions.require(tx, who, Action.CREATE_MODEL, Resource("model", name))
        if idempotency.find_outcome(tx, who, key) is None:
            model_id, effects = plan_creation(tx, name, rows.find_row(tx, name), fields, tags)
            if model_id is None:
                raise ModelExistsError(name=name)
            ledger.append(tx, who, EventKind.MODEL_CREATED, effects, model_id=model_id, name=name)
            idempotency.keep_outcome(tx, who, key, name)
        return rows.get_model(tx, name)


def plan_creation(
    tx: Tx, name: ModelName, found: Any, fields: Mapping[str, str | None], tags: Mapping[str, str]
) -> tuple[int | None, list[Effect]]:
    """Decide the effects that bring a model called `name` into being; (None, []) if it is there. Raises NameTakenError.

    `found` is the row of the model that holds the name or held it once, if there is one (`models.find_row`).
    """
    if found is not None and found.deleted_at is None:
        if found.name != name:
            raise NameTakenError(name=name, moved_to=found.name)
        return None, []
    if found is not None:
        model_id: int = found.model_id
        before = {"deleted": True, **{field: getattr(found, field) for field in fields}}
        effects = [Effect(SubjectKind.MODEL, {"model_id": model_id}, before, {"deleted": False, **fields})]
        if found.name != name:  # the model was renamed and then deleted: it comes back under the name asked for
            effects[0] = Effect(
                SubjectKind.MODEL,
                {"model_id": model_id},
                {"name": found.name, **before},
                {"name": name, "deleted": False, **fields},
            )
    else:
        model_id = tx.index
        effects = [
            Effect(SubjectKind.MODEL, {"model_id": model_id}, None, {"name": name, **fields}),
            Effect(SubjectKind.NAME, {"name": name}, None, {"model_id": model_id}),
        ]
    effects += [
        Effect(SubjectKind.MODEL_TAG, {"model_id": model_id, "key": k}, None, {"value": v}) for k, v in tags.items()
    ]
    return model_id, effects


def get_model(registry: Registry, who: Principal, name: str) -> RegisteredModel:
    """Return a registered model by its present name or one it held before. Raises InvalidNameError, ModelNotFoundError."""
    name = parse_model_name(name)
    with registry.read() as tx:
        permissions.require(tx, who, Action.READ_MODEL, Resource("model", name))
        return rows.get_model(tx, name, follow=True)


def update_model(
    registry: Registry,
    who: Principal,
    name: str,
    *,
    description: str | Unchanged | None = UNCHANGED,
    owner: str | Unchanged | None = UNCHANGED,
    contact: str | Unchanged | None = UNCHANGED,
) -> RegisteredModel:
    """Change description, owner or contact; None empties a field.

    Raises InvalidNameError, InvalidFieldError, LimitExceededError, ModelNotFoundError.
    """
    name = parse_model_name(name)
    given = {"description": description, "owner": owner, "contact": contact}
    fields = _check_fields(**{field: value for field, value in given.items() if not isinstance(value, Unchanged)})
    with registry.write() as tx:
        permissions.require(tx, who, Action.EDIT_MODEL, Resource("model", name))
        row = rows.get_row(tx, name)
        after = {field: value for field, value in fields.items() if getattr(row, field) != value}
        if after:
            before = {field: getattr(row, field) for field in after}
            effect = Effect(SubjectKind.MODEL, {"model_id": row.model_id}, before, after)
            ledger.append(tx, who, EventKind.MODEL_UPDATED, [effect], model_id=row.model_id, name=name)
        return rows.get_model(tx, name)


def _check_fields(**fields: Any) -> dict[str, str | None]:
    limits = {"owner": SHORT_TEXT_LIMIT, "contact": SHORT_TEXT_LIMIT}
    return {
        field: check_optional_text(field, value, limits[field])
        if field in limits
        else check_optional_text(field, value)
        for field, value in fields.items()
    }


def rename_model(registry: Registry, who: Principal, name: str, new_name: str) -> RegisteredModel:
    """Give a model a new name. A name that ever had a version stays the model's, and references by it are followed.

    Raises InvalidNameError, ModelNotFoundError, ModelExistsError, NameTakenError.
    """
    name, new_name = parse_model_name(name), parse_model_name(new_name)
    with registry.write() as tx:
        permissions.require(tx, who, Action.RENAME_MODEL, Resource("model", name))
        row = rows.get_row(tx, name)
        if new_name == name:
            return rows.get_model(tx, name)
        holder = rows.find_row(tx, new_name)
        if holder is not None and holder.model_id != row.model_id:
            if holder.name == new_name and holder.deleted_at is None:
                raise ModelExistsError(name=new_name)
            raise NameTakenError(name=new_name, moved_to=holder.name)
        key = {"model_id": row.model_id}
        effects = [Effect(SubjectKind.MODEL, key, {"name": name}, {"name": new_name})]
        if holder is None:
            effects.append(Effect(SubjectKind.NAME, {"name": new_name}, None, key))
        if row.version_count == 0:
            effects.append(Effect(SubjectKind.NAME, {"name": name}, key, None))
        ledger.append(tx, who, EventKind.MODEL_RENAMED, effects, model_id=row.model_id, name=new_name)
        return rows.get_model(tx, new_name)


def delete_model(registry: Registry, who: Principal, name: str) -> None:
    """Delete a model with its versions, aliases and tags. The record stays, the numbers stay taken.

    Raises InvalidNameError, ModelNotFoundError.
    """
    name = parse_model_name(name)
    with registry.write() as tx:
        permissions.require(tx, who, Action.DELETE_MODEL, Resource("model", name))
        model = rows.get_model(tx, name)
        key = {"model_id": model.model_id}
        effects = [
            Effect(SubjectKind.ALIAS, {**key, "alias": alias}, {"number": number}, None)
            for alias, number in model.aliases.items()
        ]
        effects += [Effect(SubjectKind.MODEL_TAG, {**key, "key": k}, {"value": v}, None) for k, v in model.tags.items()]
        effects.append(Effect(SubjectKind.MODEL, key, {"deleted": False}, {"deleted": True}))
        ledger.append(tx, who, EventKind.MODEL_DELETED, effects, model_id=model.model_id, name=name)


def set_model_tags(registry: Registry, who: Principal, name: str, tags: Mapping[str, str]) -> None:
    """Set tags of a model; the others stay.

    Raises InvalidNameError, InvalidTagError, LimitExceededError, ModelNotFoundError.
    """
    name, tags = parse_model_name(name), check_tags(tags)
    with registry.write() as tx:
        permissions.require(tx, who, Action.SET_TAG, Resource("model", name))
        row = rows.get_row(tx, name)
        before = rows.find_tags(tx, row.model_id, list(tags))
        effects = plan_tags(SubjectKind.MODEL_TAG, {"model_id": row.model_id}, before, tags)
        if effects:
            ledger.append(tx, who, EventKind.MODEL_TAG_SET, effects, model_id=row.model_id, name=name)


def plan_tags(
    subject: SubjectKind, owner: Mapping[str, int], before: Mapping[str, str], after: Mapping[str, str]
) -> list[Effect]:
    """Decide the effects that set tags: none for those that hold the value already; new ones first, then changed ones."""
    new = [Effect(subject, {**owner, "key": k}, None, {"value": v}) for k, v in after.items() if k not in before]
    return new + [
        Effect(subject, {**owner, "key": k}, {"value": before[k]}, {"value": v})
        for k, v in after.items()
        if k in before and before[k] != v
    ]


def delete_model_tag(registry: Registry, who: Principal, name: str, tag: str, *, missing_ok: bool = False) -> None:
    """Delete a tag of a model.

    Raises InvalidNameError, InvalidTagError, ModelNotFoundError, TagNotFoundError unless `missing_ok`.
    """
    name, tag = parse_model_name(name), check_tag_key(tag)
    with registry.write() as tx:
        permissions.require(tx, who, Action.SET_TAG, Resource("model", name))
        row = rows.get_row(tx, name)
        before = rows.find_tags(tx, row.model_id, [tag])
        if not before:
            if missing_ok:
                return
            raise TagNotFoundError(key=tag)
        effect = Effect(SubjectKind.MODEL_TAG, {"model_id": row.model_id, "key": tag}, {"value": before[tag]}, None)
        ledger.append(tx, who, EventKind.MODEL_TAG_DELETED, [effect], model_id=row.model_id, name=name)

"""Registered models over HTTP: create, read, describe, rename, tag, delete."""

from __future__ import annotations

from touchmark.domain.errors import (
    IdempotencyMismatchError,
    InvalidNameError,
    InvalidTagError,
    ModelExistsError,
    ModelNotFoundError,
    NameTakenError,
    TagNotFoundError,
)
from touchmark.domain.models import UNCHANGED, RegisteredModel, Unchanged
from touchmark.protocols.native import schemas
from touchmark.protocols.native.operations import Operation, read_key
from touchmark.services import models
from touchmark.wire import AnyRequest, Lane, call, call_inline


def to_model(model: RegisteredModel) -> schemas.Model:
    """Return a registered model as it goes over the wire."""
    return schemas.Model(
        name=model.name,
        model_id=model.model_id,
        description=model.description,
        owner=model.owner,
        contact=model.contact,
        created_at=model.created_at,
        created_by=model.created_by,
        updated_at=model.updated_at,
        version_count=model.version_count,
        latest_version=model.latest_version,
        tags=dict(model.tags),
        aliases=dict(model.aliases),
        similar_names=list(model.similar_names),
    )


async def create_model(request: AnyRequest, body: schemas.NewModel) -> schemas.Model:
    """Create a registered model without versions."""
    key = read_key(request, body)
    fields = {"description": body.description, "owner": body.owner, "contact": body.contact}
    return to_model(await call(request, Lane.WRITE, models.create_model, body.name, **fields, tags=body.tags, key=key))


async def get_model(request: AnyRequest, name: str) -> schemas.Model:
    """Return a registered model by its present name or one it held before."""
    return to_model(await call_inline(request, models.get_model, name))


async def update_model(request: AnyRequest, name: str, body: schemas.ModelChanges) -> schemas.Model:
    """Change a model's description, owner or contact."""
    fields = {"description": body.description, "owner": body.owner, "contact": body.contact}
    given: dict[str, str | Unchanged | None] = {
        field: value if isinstance(value, str | None) else UNCHANGED for field, value in fields.items()
    }
    return to_model(await call(request, Lane.WRITE, models.update_model, name, **given))


async def rename_model(request: AnyRequest, name: str, body: schemas.NewName) -> schemas.Model:
    """Give a model another name; references by the old one are followed."""
    return to_model(await call(request, Lane.WRITE, models.rename_model, name, body.new_name))


async def delete_model(request: AnyRequest, name: str) -> None:
    """Delete a model with its versions, aliases and tags; the record stays and its numbers stay taken."""
    await call(request, Lane.WRITE, models.delete_model, name)


async def set_model_tags(request: AnyRequest, name: str, body: schemas.TagChanges) -> None:
    """Set tags of a model; the others stay."""
    await call(request, Lane.WRITE, models.set_model_tags, name, body.tags)


async def delete_model_tag(request: AnyRequest, name: str, query: schemas.TagQuery) -> None:
    """Delete a tag of a model."""
    await call(request, Lane.WRITE, models.delete_model_tag, name, query.key)


_ABSENT = (InvalidNameError, ModelNotFoundError)

OPERATIONS = (
    Operation(
        method="POST",
        path="/models",
        handler=create_model,
        status=201,
        keyed=True,
        errors=(InvalidNameError, InvalidTagError, ModelExistsError, NameTakenError, IdempotencyMismatchError),
    ),
    Operation(method="GET", path="/models/{name}", handler=get_model, is_catalogue=True, errors=_ABSENT),
    Operation(method="PATCH", path="/models/{name}", handler=update_model, errors=_ABSENT),
    Operation(method="DELETE", path="/models/{name}", handler=delete_model, errors=_ABSENT),
    Operation(
        method="POST",
        path="/models/{name}/rename",
        handler=rename_model,
        errors=(*_ABSENT, ModelExistsError, NameTakenError),
    ),
    Operation(method="PUT", path="/models/{name}/tags", handler=set_model_tags, errors=(*_ABSENT, InvalidTagError)),
    Operation(
        method="DELETE",
        path="/models/{name}/tags",
        handler=delete_model_tag,
        errors=(*_ABSENT, InvalidTagError, TagNotFoundError),
    ),
)

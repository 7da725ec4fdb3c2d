"""Registered models: create, read, search, rename, describe, tag, delete."""

from __future__ import annotations

from collections.abc import Sequence

from touchmark.protocols.mlflow.filters import parse_model_filter, parse_model_order
from touchmark.protocols.mlflow.messages import (
    KeyValue,
    Message,
    RegisteredModelMessage,
    check_max_results,
    to_mapping,
    to_registered_model,
)
from touchmark.protocols.mlflow.operations import Fields, Operation
from touchmark.services import models, search, stages
from touchmark.wire import AnyRequest, Lane, call, call_inline

MAX_RESULTS = 1_000


class NewModel(Fields):
    """CreateRegisteredModel."""

    name: str = ""
    description: str | None = None
    tags: Sequence[KeyValue] = ()


class ModelName(Fields):
    """GetRegisteredModel, DeleteRegisteredModel."""

    name: str = ""


class NewName(Fields):
    """RenameRegisteredModel."""

    name: str = ""
    new_name: str = ""


class ModelChange(Fields):
    """UpdateRegisteredModel."""

    name: str = ""
    description: str = ""


class ModelSearch(Fields):
    """SearchRegisteredModels."""

    filter: str | None = None
    max_results: int | None = None
    order_by: Sequence[str] = ()
    page_token: str | None = None


class ModelTag(Fields):
    """SetRegisteredModelTag, DeleteRegisteredModelTag."""

    name: str = ""
    key: str = ""
    value: str = ""


class OneModel(Message):
    """What answers with one model."""

    registered_model: RegisteredModelMessage


class ModelPage(Message):
    """SearchRegisteredModels.Response."""

    registered_models: Sequence[RegisteredModelMessage] = ()
    next_page_token: str | None = None


async def create_registered_model(request: AnyRequest, fields: NewModel) -> OneModel:
    """Create a model without versions."""
    model = await call(
        request,
        Lane.WRITE,
        models.create_model,
        fields.name,
        description=fields.description,
        tags=to_mapping(fields.tags),
    )
    return OneModel(registered_model=to_registered_model(model, ()))


async def get_registered_model(request: AnyRequest, fields: ModelName) -> OneModel:
    """Return a model with the highest version of each stage. Clients ask this before nearly every write."""
    model, latest = await call_inline(request, stages.get_model_with_latest, fields.name)
    return OneModel(registered_model=to_registered_model(model, latest))


async def search_registered_models(request: AnyRequest, fields: ModelSearch) -> ModelPage:
    """Return a page of models, prompts left out unless the filter asks for them."""
    page = await call(
        request,
        Lane.READ,
        search.search_models,
        condition=parse_model_filter(fields.filter),
        order=parse_model_order(fields.order_by),
        limit=check_max_results(fields.max_results, default=100, maximum=MAX_RESULTS),
        cursor=fields.page_token,
    )
    latest = await call(request, Lane.READ, stages.list_latest, [model.model_id for model in page.items])
    found = [to_registered_model(model, latest[model.model_id]) for model in page.items]
    for model in found:
        for version in model.latest_versions:
            version.aliases = ()  # as the peer: those of the model stand beside it
    return ModelPage(registered_models=tuple(found), next_page_token=page.next_cursor)


async def rename_registered_model(request: AnyRequest, fields: NewName) -> OneModel:
    """Give a model another name; the old one stays its own."""
    model = await call(request, Lane.WRITE, models.rename_model, fields.name, fields.new_name)
    latest = await call(request, Lane.READ, stages.list_latest, [model.model_id])
    return OneModel(registered_model=to_registered_model(model, latest[model.model_id]))


async def update_registered_model(request: AnyRequest, fields: ModelChange) -> OneModel:
    """Set a model's description; none in the request empties it."""
    model = await call(request, Lane.WRITE, models.update_model, fields.name, description=fields.description)
    latest = await call(request, Lane.READ, stages.list_latest, [model.model_id])
    return OneModel(registered_model=to_registered_model(model, latest[model.model_id]))


async def delete_registered_model(request: AnyRequest, fields: ModelName) -> None:
    """Delete a model with its versions, tags and aliases; the record stays."""
    await call(request, Lane.WRITE, models.delete_model, fields.name)


async def set_registered_model_tag(request: AnyRequest, fields: ModelTag) -> None:
    """Set one tag of a model."""
    await call(request, Lane.WRITE, models.set_model_tags, fields.name, {fields.key: fields.value})


async def delete_registered_model_tag(request: AnyRequest, fields: ModelTag) -> None:
    """Delete one tag of a model; one that is not there is no error."""
    await call(request, Lane.WRITE, models.delete_model_tag, fields.name, fields.key, missing_ok=True)


_PATH = "2.0/mlflow/registered-models/"
OPERATIONS = (
    Operation(
        method="POST", path=_PATH + "create", handler=create_registered_model, fields=NewModel, required=("name",)
    ),
    Operation(
        method="GET",
        path=_PATH + "get",
        handler=get_registered_model,
        is_catalogue=True,
        fields=ModelName,
        required=("name",),
    ),
    Operation(
        method="GET", path=_PATH + "search", handler=search_registered_models, is_catalogue=True, fields=ModelSearch
    ),
    Operation(
        method="POST",
        path=_PATH + "rename",
        handler=rename_registered_model,
        fields=NewName,
        required=("name", "new_name"),
    ),
    Operation(
        method="PATCH", path=_PATH + "update", handler=update_registered_model, fields=ModelChange, required=("name",)
    ),
    Operation(
        method="DELETE", path=_PATH + "delete", handler=delete_registered_model, fields=ModelName, required=("name",)
    ),
    Operation(
        method="POST",
        path=_PATH + "set-tag",
        handler=set_registered_model_tag,
        fields=ModelTag,
        required=("name", "key"),
    ),
    Operation(
        method="DELETE",
        path=_PATH + "delete-tag",
        handler=delete_registered_model_tag,
        fields=ModelTag,
        required=("name", "key"),
    ),
)

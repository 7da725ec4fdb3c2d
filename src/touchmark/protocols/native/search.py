"""Lists over HTTP: registered models, versions of one model, versions of all; filters, words, orders, pages."""

from __future__ import annotations

from touchmark.domain.errors import InvalidCursorError, InvalidFilterError, InvalidNameError, ModelNotFoundError
from touchmark.domain.models import RegisteredModel
from touchmark.domain.paging import Page
from touchmark.domain.versions import ModelVersion
from touchmark.protocols.native import schemas
from touchmark.protocols.native.models import to_model
from touchmark.protocols.native.operations import Operation
from touchmark.protocols.native.versions import to_version
from touchmark.services import search as services
from touchmark.wire import AnyRequest, Lane, call


async def list_models(request: AnyRequest, query: schemas.ModelsQuery) -> schemas.ModelPage:
    """Search registered models; by name if no order is given."""
    page: Page[RegisteredModel] = await call(
        request,
        Lane.READ,
        services.search_models,
        filter=query.filter,
        order_by=query.order_by,
        words=query.words,
        prefix=query.prefix,
        limit=query.limit,
        cursor=query.cursor,
    )
    return schemas.ModelPage(items=[to_model(item) for item in page.items], next_cursor=page.next_cursor)


async def list_model_versions(request: AnyRequest, name: str, query: schemas.ModelVersionsQuery) -> schemas.VersionPage:
    """Search the versions of one model; newest first if no order is given."""
    return await _search_versions(request, query, model=name)


async def list_versions(request: AnyRequest, query: schemas.VersionsQuery) -> schemas.VersionPage:
    """Search the versions of all models; newest first if no order is given."""
    return await _search_versions(request, query, words=query.words)


async def _search_versions(
    request: AnyRequest, query: schemas.ModelVersionsQuery, *, model: str | None = None, words: str | None = None
) -> schemas.VersionPage:
    page: Page[ModelVersion] = await call(
        request,
        Lane.READ,
        services.search_versions,
        filter=query.filter,
        order_by=query.order_by,
        words=words,
        model=model,
        limit=query.limit,
        cursor=query.cursor,
        include_deleted=query.include_deleted,
    )
    return schemas.VersionPage(items=[to_version(item) for item in page.items], next_cursor=page.next_cursor)


_ERRORS = (InvalidFilterError, InvalidCursorError)

OPERATIONS = (
    Operation(method="GET", path="/models", handler=list_models, errors=_ERRORS),
    Operation(
        method="GET",
        path="/models/{name}/versions",
        handler=list_model_versions,
        errors=(*_ERRORS, InvalidNameError, ModelNotFoundError),
    ),
    Operation(method="GET", path="/versions", handler=list_versions, errors=_ERRORS),
)

"""Model versions: create from a source, read, search, describe, tag, delete, and where to download from."""

from __future__ import annotations

from collections.abc import Sequence

import anyio

from touchmark.domain.digest import Digest
from touchmark.domain.errors import InvalidSourceError
from touchmark.domain.models import is_prompt
from touchmark.domain.versions import ModelVersion, VersionState
from touchmark.protocols.mlflow.artifacts import public_address
from touchmark.protocols.mlflow.filters import parse_version_filter, parse_version_order
from touchmark.protocols.mlflow.messages import (
    KeyValue,
    Message,
    ModelVersionMessage,
    OneVersion,
    about_version,
    check_max_results,
    read_version_number,
    to_mapping,
    to_model_version,
)
from touchmark.protocols.mlflow.operations import Fields, Operation
from touchmark.protocols.mlflow.sources import parse_source
from touchmark.services import models, registration, search, versions
from touchmark.wire import AnyRequest, Lane, call, call_inline

MAX_RESULTS = 200_000
"""The most a client may ask for; PAGE_ROWS is what it gets at once, with a token for the rest."""
PAGE_ROWS = 10_000
HOLD_SECONDS = 1.0
"""How long the answer to a registration whose files are to be imported is held back."""
_LOOK_SECONDS = 0.05
REGISTERED_TAG = "mlflow.modelVersions"
"""The tag of a logged model that lists the versions made from it; MLflow's pages read it."""


class NewVersion(Fields):
    """CreateModelVersion."""

    name: str = ""
    source: str = ""
    run_id: str | None = None
    tags: Sequence[KeyValue] = ()
    run_link: str | None = None
    description: str | None = None
    model_id: str | None = None


class VersionName(Fields):
    """GetModelVersion, DeleteModelVersion, GetModelVersionDownloadUri."""

    name: str = ""
    version: str = ""


class VersionChange(Fields):
    """UpdateModelVersion."""

    name: str = ""
    version: str = ""
    description: str | None = None


class VersionSearch(Fields):
    """SearchModelVersions."""

    filter: str | None = None
    max_results: int | None = None
    order_by: Sequence[str] = ()
    page_token: str | None = None


class VersionTag(Fields):
    """SetModelVersionTag, DeleteModelVersionTag."""

    name: str = ""
    version: str = ""
    key: str = ""
    value: str = ""


class VersionPage(Message):
    """SearchModelVersions.Response."""

    model_versions: Sequence[ModelVersionMessage] = ()
    next_page_token: str | None = None


class DownloadAddress(Message):
    """GetModelVersionDownloadUri.Response."""

    artifact_uri: str


async def create_model_version(request: AnyRequest, fields: NewVersion) -> OneVersion:
    """Register the next version: sealed if its files are here, else unsealed with the reason in `status_message`."""
    tags = to_mapping(fields.tags)
    source = parse_source(
        fields.source,
        run_id=fields.run_id,
        model_id=fields.model_id,
        is_prompt=is_prompt(tags),
        is_listed=request.app.state.imports.lists,
    )
    if source.copies is not None:
        copied = await call_inline(request, models.get_model, source.copies)
        if is_prompt(copied.tags):
            sentence = f"Invalid model version source: '{fields.source[:300]}'. Prompt versions cannot be used as model version sources."
            raise InvalidSourceError(sentence, source=fields.source[:300], reason="it is a prompt")
    importer = request.app.state.importer
    is_awaited = source.is_listed or (source.can_be_imported and importer is not None and importer.has_upstreams)
    version = await call(
        request,
        Lane.WRITE,
        registration.register_address,
        fields.name,
        fields.source,
        reference=source.reference,
        reason=source.reason,
        run_id=fields.run_id,
        logged_model_id=fields.model_id,
        description=fields.description,
        tags=tags,
        run_link=fields.run_link,
        allow_unsealed=request.app.state.allow_unsealed or is_awaited,
        pending=is_awaited,
        noted_in=REGISTERED_TAG,
    )
    if version.state is VersionState.PENDING:
        importer.wake()
        version = await _wait_a_little(request, version)
    return OneVersion(model_version=to_model_version(version))


async def _wait_a_little(request: AnyRequest, version: ModelVersion) -> ModelVersion:
    """Return a waiting version as it is when its import ends, or after HOLD_SECONDS; no thread is held meanwhile.

    A client that is told of a waiting version asks again only after three seconds (MLflow 3.17): most imports are over then.
    """
    end = anyio.current_time() + HOLD_SECONDS
    while version.state is VersionState.PENDING and anyio.current_time() < end:
        await anyio.sleep(_LOOK_SECONDS)
        version = await call_inline(
            request, versions.get_version, version.name, version.version, deleted=True, follow=True, contents=False
        )
    return version


@about_version
async def get_model_version(request: AnyRequest, fields: VersionName) -> OneVersion:
    """Return a version."""
    return OneVersion(model_version=to_model_version(await _get(request, fields)))


async def _get(request: AnyRequest, fields: VersionName) -> ModelVersion:
    number = read_version_number(fields.version)
    return await call_inline(request, versions.get_version, fields.name, number, follow=False, contents=False)


async def search_model_versions(request: AnyRequest, fields: VersionSearch) -> VersionPage:
    """Return a page of versions, prompts left out unless the filter asks for them."""
    limit = check_max_results(fields.max_results, default=MAX_RESULTS, maximum=MAX_RESULTS)
    page = await call(
        request,
        Lane.READ,
        search.search_versions,
        condition=parse_version_filter(fields.filter),
        order=parse_version_order(fields.order_by),
        limit=min(limit, PAGE_ROWS),
        largest=PAGE_ROWS,
        cursor=fields.page_token,
    )
    found = [to_model_version(version) for version in page.items]
    return VersionPage(model_versions=tuple(found), next_page_token=page.next_cursor)


@about_version
async def update_model_version(request: AnyRequest, fields: VersionChange) -> OneVersion:
    """Set a version's description; none in the request empties it."""
    number = read_version_number(fields.version)
    version = await call(
        request, Lane.WRITE, versions.update_version, fields.name, number, description=fields.description
    )
    return OneVersion(model_version=to_model_version(version))


@about_version
async def delete_model_version(request: AnyRequest, fields: VersionName) -> None:
    """Delete a version and the aliases that point at it; its number stays taken and its record stays."""
    await call(request, Lane.WRITE, versions.delete_version, fields.name, read_version_number(fields.version))


@about_version
async def set_model_version_tag(request: AnyRequest, fields: VersionTag) -> None:
    """Set one tag of a version."""
    number = read_version_number(fields.version)
    await call(request, Lane.WRITE, versions.set_version_tags, fields.name, number, {fields.key: fields.value})


@about_version
async def delete_model_version_tag(request: AnyRequest, fields: VersionTag) -> None:
    """Delete one tag of a version; one that is not there is no error."""
    number = read_version_number(fields.version)
    await call(request, Lane.WRITE, versions.delete_version_tag, fields.name, number, fields.key, missing_ok=True)


@about_version
async def get_download_address(request: AnyRequest, fields: VersionName) -> DownloadAddress:
    """Return where a version's files are: here, under the digest it was sealed with; or where it said they were."""
    version = await _get(request, fields)
    if version.sealed and version.digest is not None:
        return DownloadAddress(artifact_uri=sealed_address(request, version.digest))
    return DownloadAddress(artifact_uri=version.origin.get("location") or version.source)


def sealed_address(request: AnyRequest, digest: Digest) -> str:
    """Return the address of a sealed version's files: absolute, so that it loads whatever tracking server a client has."""
    return f"{public_address(request)}/api/2.0/mlflow-artifacts/artifacts/sealed/{digest.removeprefix('sha256:')}"


_PATH = "2.0/mlflow/model-versions/"
_BOTH = ("name", "version")
OPERATIONS = (
    Operation(
        method="POST",
        path=_PATH + "create",
        handler=create_model_version,
        fields=NewVersion,
        required=("name", "source"),
    ),
    Operation(
        method="GET",
        path=_PATH + "get",
        handler=get_model_version,
        is_catalogue=True,
        fields=VersionName,
        required=_BOTH,
    ),
    Operation(
        method="GET", path=_PATH + "search", handler=search_model_versions, is_catalogue=True, fields=VersionSearch
    ),
    Operation(
        method="PATCH", path=_PATH + "update", handler=update_model_version, fields=VersionChange, required=_BOTH
    ),
    Operation(method="DELETE", path=_PATH + "delete", handler=delete_model_version, fields=VersionName, required=_BOTH),
    Operation(
        method="GET",
        path=_PATH + "get-download-uri",
        handler=get_download_address,
        fields=VersionName,
        required=("name",),
    ),
    Operation(
        method="POST",
        path=_PATH + "set-tag",
        handler=set_model_version_tag,
        fields=VersionTag,
        required=(*_BOTH, "key"),
    ),
    Operation(
        method="DELETE",
        path=_PATH + "delete-tag",
        handler=delete_model_version_tag,
        fields=VersionTag,
        required=(*_BOTH, "key"),
    ),
)

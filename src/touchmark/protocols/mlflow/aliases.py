"""Aliases: point one at a version, take it away, read what it points at."""

from __future__ import annotations

from touchmark.protocols.mlflow.messages import OneVersion, about_version, read_version_number, to_model_version
from touchmark.protocols.mlflow.operations import Fields, Operation
from touchmark.services import aliases, versions
from touchmark.wire import AnyRequest, Lane, call, call_inline


class Alias(Fields):
    """SetRegisteredModelAlias, DeleteRegisteredModelAlias, GetModelVersionByAlias."""

    name: str = ""
    alias: str = ""
    version: str = ""


@about_version
async def set_alias(request: AnyRequest, fields: Alias) -> None:
    """Point an alias at a version."""
    number = read_version_number(fields.version)
    await call(request, Lane.WRITE, aliases.set_alias, fields.name, fields.alias, number)


async def delete_alias(request: AnyRequest, fields: Alias) -> None:
    """Take an alias away; one that is not there is no error."""
    await call(request, Lane.WRITE, aliases.delete_alias, fields.name, fields.alias, missing_ok=True)


async def get_version_by_alias(request: AnyRequest, fields: Alias) -> OneVersion:
    """Return the version an alias points at; `latest`, in any case, means the newest one."""
    version = await call_inline(request, versions.get_version_by_alias, fields.name, fields.alias)
    return OneVersion(model_version=to_model_version(version))


_PATH = "2.0/mlflow/registered-models/alias"
_BOTH = ("name", "alias")
OPERATIONS = (
    Operation(method="POST", path=_PATH, handler=set_alias, fields=Alias, required=(*_BOTH, "version")),
    Operation(method="DELETE", path=_PATH, handler=delete_alias, fields=Alias, required=_BOTH),
    Operation(method="GET", path=_PATH, handler=get_version_by_alias, is_catalogue=True, fields=Alias, required=_BOTH),
)

"""Health over HTTP: whether this server answers, with its database and its bytes."""

from __future__ import annotations

from importlib.metadata import version

from touchmark.domain.errors import BusyError
from touchmark.ops.health import check_health
from touchmark.protocols.native import schemas
from touchmark.protocols.native.operations import Operation
from touchmark.wire import AnyRequest, Lane, registry_of, run

_VERSION = version("touchmark")


async def get_health(request: AnyRequest) -> schemas.Health:
    """Answer if the database and the blob store do."""
    registry = registry_of(request)
    try:
        revision = await run(request, Lane.READ, lambda: check_health(registry))
    except Exception as error:  # whatever is wrong with either, this server cannot serve now
        raise BusyError(f"Not healthy: {error}") from error
    return schemas.Health(status="ok", version=_VERSION, schema=revision)


OPERATIONS = (Operation(method="GET", path="/health", handler=get_health),)

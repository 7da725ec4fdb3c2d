"""Health over HTTP: whether this server answers, with its database and its bytes."""

from __future__ import annotations

from importlib.metadata import version

from touchmark.ops.health import check_health
from touchmark.protocols.native import schemas
from touchmark.protocols.native.operations import Operation
from touchmark.wire import AnyRequest, Lane, registry_of, run

_VERSION = version("touchmark")


async def get_health(request: AnyRequest) -> schemas.Health:
    """Answer if the database and the blob store do. Raises BusyError."""
    registry = registry_of(request)
    revision = await run(request, Lane.READ, lambda: check_health(registry))
    return schemas.Health(status="ok", version=_VERSION, schema=revision)


OPERATIONS = (Operation(method="GET", path="/health", handler=get_health),)

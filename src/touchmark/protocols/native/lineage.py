"""Lineage over HTTP: what a version came from, and what came from it."""

from __future__ import annotations

from touchmark.domain.errors import (
    AliasNotFoundError,
    InvalidNameError,
    InvalidReferenceError,
    ModelNotFoundError,
    VersionNotFoundError,
)
from touchmark.domain.names import parse_model_name
from touchmark.domain.references import parse_version_number
from touchmark.protocols.native import schemas
from touchmark.protocols.native.operations import Operation
from touchmark.services import lineage
from touchmark.wire import AnyRequest, Lane, call


def to_lineage(graph: lineage.LineageGraph) -> schemas.Lineage:
    """Return a lineage as it goes over the wire."""
    return schemas.Lineage(
        root=f"{graph.root.kind.value}:{graph.root.id}",
        nodes=[
            schemas.Node(
                id=f"{node.kind.value}:{node.id}",
                kind=node.kind.value,
                key=node.id,
                label=node.label,
                state=node.state,
                is_deleted=node.is_deleted,
                distance=node.distance,
            )
            for node in graph.nodes
        ],
        edges=[
            schemas.Edge(
                from_=f"version:{edge.source_id}",
                to=f"{edge.target_kind.value}:{edge.target_id}",
                relation=edge.relation.value,
                detail=edge.detail,
            )
            for edge in graph.edges
        ],
        truncated=graph.truncated,
    )


async def get_lineage(request: AnyRequest, query: schemas.LineageQuery) -> schemas.Lineage:
    """Return what the version a reference names came from, and what came from it."""
    return to_lineage(await call(request, Lane.READ, lineage.get_lineage, query.ref, query.depth))


async def get_version_lineage(
    request: AnyRequest, name: str, version: str, query: schemas.DepthQuery
) -> schemas.Lineage:
    """Return what a version came from, and what came from it."""
    reference = f"models:/{parse_model_name(name)}/{parse_version_number(version)}"
    return to_lineage(await call(request, Lane.READ, lineage.get_lineage, reference, query.depth))


_ABSENT = (InvalidReferenceError, ModelNotFoundError, VersionNotFoundError)

OPERATIONS = (
    Operation(method="GET", path="/lineage", handler=get_lineage, errors=(*_ABSENT, AliasNotFoundError)),
    Operation(
        method="GET",
        path="/models/{name}/versions/{version}/lineage",
        handler=get_version_lineage,
        errors=(*_ABSENT, InvalidNameError),
    ),
)

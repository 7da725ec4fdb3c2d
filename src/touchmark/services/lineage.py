"""Lineage of a model version: what it came from, and what came from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from touchmark import permissions
from touchmark.domain.access import Action, Principal, Resource
from touchmark.domain.errors import InvalidFieldError, LimitExceededError
from touchmark.domain.lineage import MAX_DEPTH, NodeKind, Relation
from touchmark.domain.references import parse_model_reference
from touchmark.registry import Registry
from touchmark.storage import lineage as rows
from touchmark.storage import versions
from touchmark.storage.engine import Tx

NODES_LIMIT = 1_000
"""Nodes of a graph; what is nearest to its root is kept."""
EDGES_LIMIT = 5_000
"""Edges read for one level."""


@dataclass(frozen=True, slots=True)
class LineageNode:
    """One thing in a graph, named by `kind` and `id`.

    `id` is the version_id in digits, the run's or logged model's id, or `NAME@DIGEST` of a data set. `label` is for
    people: `NAME/N` with the model's present name, the run's or logged model's name, the data set's name. `distance` is
    0 for the root, positive for what it came from, negative for what came from it. `state` is a version's state or the
    status of a run or logged model; None for a data set, and for what is no longer there, which counts as deleted.
    """

    kind: NodeKind
    id: str
    label: str
    state: str | None
    is_deleted: bool
    distance: int


@dataclass(frozen=True, slots=True)
class LineageEdge:
    """One edge, from a version to what it came from: `source_id` is a version's id, the target a node's kind and id."""

    source_id: str
    relation: Relation
    target_kind: NodeKind
    target_id: str
    detail: str | None


@dataclass(frozen=True, slots=True)
class LineageGraph:
    """Nodes by distance from the root, which is the first, and the edges between them.

    `truncated` says that there was more within the depth asked for than the limits allow.
    """

    root: LineageNode
    nodes: tuple[LineageNode, ...]
    edges: tuple[LineageEdge, ...]
    truncated: bool


def get_lineage(registry: Registry, who: Principal, reference: str, depth: int = 3) -> LineageGraph:
    """Return what the version came from, within `depth` steps, and what came from it.

    Breadth-first from the version: outward along edges to versions, runs, logged models and data sets; inward against
    edges to versions that are copies of it or derived from it. The two are not mixed: other versions of the same run or
    data set are no kin of this one. One statement a level and direction, and four more, however large the graph.

    Raises InvalidReferenceError, InvalidFieldError or LimitExceededError for a depth outside 0 to MAX_DEPTH,
    ModelNotFoundError, VersionNotFoundError, AliasNotFoundError.
    """
    parsed = parse_model_reference(reference)
    if type(depth) is not int or depth < 0:  # a bool is an int to isinstance
        raise InvalidFieldError(field="depth", reason=f"must be a whole number from 0 to {MAX_DEPTH}")
    if depth > MAX_DEPTH:
        raise LimitExceededError(what="The depth of a lineage", limit=MAX_DEPTH, unit="steps")
    with registry.read() as tx:
        permissions.require(tx, who, Action.READ_MODEL, Resource("model", parsed.name))
        walk = _Walk(versions.find_target(tx, parsed).version_id)
        outward = inward = [walk.root_id]
        for step in range(1, depth + 1):
            outward = walk.take(rows.list_edges_from(tx, outward, EDGES_LIMIT + 1), step)
            inward = walk.take(rows.list_edges_to(tx, inward, EDGES_LIMIT + 1), -step)
        return walk.build(tx)


class _Walk:
    """What a walk has seen so far."""

    def __init__(self, root_id: int) -> None:
        self.root_id = root_id
        self._distances: dict[tuple[NodeKind, str], int] = {(NodeKind.VERSION, str(root_id)): 0}
        self._edges: dict[tuple[str, Relation, NodeKind, str], LineageEdge] = {}
        self._truncated = False

    def take(self, found: Sequence[Any], distance: int) -> list[int]:
        """Add the edges of one level, and return the version_ids that were new."""
        if len(found) > EDGES_LIMIT:
            self._truncated = True
        new: list[int] = []
        for row in found[:EDGES_LIMIT]:
            edge = LineageEdge(
                str(row.version_id), Relation(row.relation), NodeKind(row.target_kind), row.target, row.detail
            )
            node = (edge.target_kind, edge.target_id) if distance > 0 else (NodeKind.VERSION, edge.source_id)
            if node not in self._distances:
                if len(self._distances) == NODES_LIMIT:
                    self._truncated = True
                    continue
                self._distances[node] = distance
                if node[0] is NodeKind.VERSION:
                    new.append(int(node[1]))
            self._edges[edge.source_id, edge.relation, edge.target_kind, edge.target_id] = edge
        return new

    def build(self, tx: Tx) -> LineageGraph:
        """Return the graph, with labels and states as they are now."""
        known: dict[tuple[NodeKind, str], tuple[str, str, bool]] = {}
        for row in rows.list_versions(tx, [int(one) for one in self._ids(NodeKind.VERSION)]):
            known[NodeKind.VERSION, str(row.version_id)] = (f"{row.name}/{row.number}", row.state, row.is_deleted)
        for row in rows.list_runs(tx, self._ids(NodeKind.RUN)):
            known[NodeKind.RUN, row.run_id] = (row.name, row.status, row.is_deleted)
        for row in rows.list_logged_models(tx, self._ids(NodeKind.LOGGED_MODEL)):
            known[NodeKind.LOGGED_MODEL, row.model_id] = (row.name, row.status, row.is_deleted)
        nodes = []
        for (kind, node_id), distance in self._distances.items():
            if kind is NodeKind.DATASET:
                node = LineageNode(kind, node_id, node_id.rpartition("@")[0] or node_id, None, False, distance)  # noqa: FBT003
            else:
                label, state, is_deleted = known.get((kind, node_id), (node_id, None, True))
                node = LineageNode(kind, node_id, label or node_id, state, bool(is_deleted), distance)
            nodes.append(node)
        ordered = tuple(sorted(nodes, key=lambda one: abs(one.distance)))  # stable: as found within a distance
        return LineageGraph(ordered[0], ordered, tuple(self._edges.values()), self._truncated)

    def _ids(self, kind: NodeKind) -> list[str]:
        return [node_id for node_kind, node_id in self._distances if node_kind is kind]

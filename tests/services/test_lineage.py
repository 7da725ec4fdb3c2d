"""Lineage: what a version came from and what came from it, on both databases."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import pytest

from touchmark.domain.access import Principal
from touchmark.domain.errors import (
    InvalidFieldError,
    InvalidReferenceError,
    LimitExceededError,
    ModelNotFoundError,
    VersionNotFoundError,
)
from touchmark.domain.events import Effect, EventKind, SubjectKind
from touchmark.domain.lineage import MAX_DEPTH, NodeKind, Relation
from touchmark.registry import Registry
from touchmark.services.lineage import EDGES_LIMIT, NODES_LIMIT, LineageGraph, get_lineage
from touchmark.storage import ledger, schema

Edge = tuple[str, str, str]
"""Relation, kind and target of an edge."""


def copy_of(version_id: int) -> Edge:
    return ("copy_of", "version", str(version_id))


def derived_from(version_id: int) -> Edge:
    return ("derived_from", "version", str(version_id))


class Family:
    """Models and versions with edges, written through the log."""

    def __init__(self, registry: Registry, who: Principal) -> None:
        self._registry = registry
        self._who = who
        self._models: dict[str, int] = {}
        self._numbers: dict[str, int] = {}

    def add(self, name: str, *edges: Edge) -> int:
        """Register the next version of a model, which comes into being, and return its version_id."""
        if name not in self._models:
            with self._registry.write() as tx:
                self._models[name] = tx.index
                effects = [
                    Effect(SubjectKind.MODEL, {"model_id": tx.index}, None, {"name": name}),
                    Effect(SubjectKind.NAME, {"name": name}, None, {"model_id": tx.index}),
                ]
                ledger.append(tx, self._who, EventKind.MODEL_CREATED, effects)
        self._numbers[name] = self._numbers.get(name, 0) + 1
        with self._registry.write() as tx:
            version_id = tx.index
            after = {
                "model_id": self._models[name], "number": self._numbers[name], "state": "READY", "source": "",
                "stage": "None", "origin": json.dumps({"params": {}, "metrics": {}}),
            }  # fmt: skip
            effects = [Effect(SubjectKind.VERSION, {"version_id": version_id}, None, after)]
            for relation, kind, target in edges:
                key = {"version_id": version_id, "relation": relation, "target_kind": kind, "target": target}
                effects.append(Effect(SubjectKind.EDGE, key, None, {"detail": "train" if kind == "dataset" else None}))
            ledger.append(tx, self._who, EventKind.VERSION_REGISTERED, effects)
        return version_id

    def delete_version(self, version_id: int) -> None:
        with self._registry.write() as tx:
            effect = Effect(SubjectKind.VERSION, {"version_id": version_id}, {"deleted": False}, {"deleted": True})
            ledger.append(tx, self._who, EventKind.VERSION_DELETED, [effect])

    def change_model(self, present: str, **after: object) -> None:
        with self._registry.write() as tx:
            key = {"model_id": self._models[present]}
            effects = [Effect(SubjectKind.MODEL, key, dict.fromkeys(after), after)]
            if "name" in after:
                effects.append(Effect(SubjectKind.NAME, {"name": after["name"]}, None, key))
            ledger.append(tx, self._who, EventKind.MODEL_UPDATED, effects)


@pytest.fixture
def family(registry: Registry, who: Principal) -> Family:
    return Family(registry, who)


def shown(graph: LineageGraph) -> list[tuple[int, str]]:
    return sorted((node.distance, node.label) for node in graph.nodes)


def labels_of_edges(graph: LineageGraph) -> set[tuple[str, Relation, str]]:
    labels = {(node.kind, node.id): node.label for node in graph.nodes}
    return {
        (labels[NodeKind.VERSION, edge.source_id], edge.relation, labels[edge.target_kind, edge.target_id])
        for edge in graph.edges
    }


def test_a_version_alone_is_its_whole_lineage(registry: Registry, who: Principal, family: Family) -> None:
    version_id = family.add("m")

    graph = get_lineage(registry, who, "models:/m/1")

    assert graph.nodes == (graph.root,)
    assert (graph.root.kind, graph.root.id, graph.root.label, graph.root.state) == (
        NodeKind.VERSION, str(version_id), "m/1", "READY",
    )  # fmt: skip
    assert graph.edges == ()
    assert not graph.truncated


def test_both_directions_are_walked_and_siblings_are_not_kin(
    registry: Registry, who: Principal, family: Family
) -> None:
    base = family.add("base", ("trained_on", "dataset", "books@abc"))
    tuned = family.add("tuned", derived_from(base), ("produced_by", "run", "r1"), ("trained_on", "dataset", "a@b@d1"))
    family.add("sibling", derived_from(base), ("produced_by", "run", "r1"))
    copy = family.add("production", copy_of(tuned))
    family.add("production", derived_from(copy), ("produced_by", "run", "r2"))

    graph = get_lineage(registry, who, "tuned/1")

    assert shown(graph) == [
        (-2, "production/2"), (-1, "production/1"), (0, "tuned/1"), (1, "a@b"), (1, "base/1"), (1, "r1"), (2, "books"),
    ]  # fmt: skip
    assert labels_of_edges(graph) == {
        ("production/2", Relation.DERIVED_FROM, "production/1"),
        ("production/1", Relation.COPY_OF, "tuned/1"),
        ("tuned/1", Relation.DERIVED_FROM, "base/1"),
        ("tuned/1", Relation.PRODUCED_BY, "r1"),
        ("tuned/1", Relation.TRAINED_ON, "a@b"),
        ("base/1", Relation.TRAINED_ON, "books"),
    }
    assert {edge.detail for edge in graph.edges} == {None, "train"}
    assert graph.nodes[0] == graph.root


def test_depth_bounds_the_walk_in_each_direction(registry: Registry, who: Principal, family: Family) -> None:
    last = family.add("m")
    for _ in range(8):
        last = family.add("m", derived_from(last))

    def numbers(depth: int) -> list[int]:
        graph = get_lineage(registry, who, "m/5", depth)
        return sorted(int(node.label[2:]) for node in graph.nodes)

    assert numbers(0) == [5]
    assert numbers(1) == [4, 5, 6]
    assert numbers(3) == [2, 3, 4, 5, 6, 7, 8]
    assert numbers(MAX_DEPTH) == list(range(1, 10))


def test_a_diamond_has_each_node_once_and_all_its_edges(registry: Registry, who: Principal, family: Family) -> None:
    top = family.add("top")
    left, right = family.add("left", derived_from(top)), family.add("right", derived_from(top))
    family.add("merged", derived_from(left), derived_from(right), copy_of(left))

    graph = get_lineage(registry, who, "merged/1")

    assert shown(graph) == [(0, "merged/1"), (1, "left/1"), (1, "right/1"), (2, "top/1")]
    assert len(graph.edges) == 5


def test_edges_in_a_circle_end_the_walk(registry: Registry, who: Principal, family: Family) -> None:
    first = family.add("m")
    second = family.add("m", derived_from(first))
    with registry.track() as tx:  # no service can draw this edge, a damaged or foreign database may hold it
        edge = {"version_id": first, "relation": "derived_from", "target_kind": "version", "target": str(second)}
        tx.run(schema.edges.insert(), edge)

    graph = get_lineage(registry, who, "m/1", MAX_DEPTH)

    assert {node.label for node in graph.nodes} == {"m/1", "m/2"}
    assert len(graph.edges) == 2


def test_labels_and_states_are_those_of_now(registry: Registry, who: Principal, family: Family) -> None:
    with registry.track() as tx:
        run = {
            "run_id": "r1",
            "experiment_id": 0,
            "name": "bold-fox",
            "user": "",
            "status": "FINISHED",
            "started_at": 1,
        }
        tx.run(schema.runs.insert(), {**run, "created_at": 1, "deleted_at": 5})
        logged = {"model_id": "m-1", "experiment_id": 0, "name": "model", "status": "READY", "created_at": 1}
        tx.run(schema.logged_models.insert(), {**logged, "updated_at": 1})
    base = family.add("base")
    family.add("gone")
    other = family.add("gone")
    edges: Sequence[Edge] = [
        ("produced_by", "run", "r1"),
        ("produced_by", "run", "lost"),
        ("logged_as", "logged_model", "m-1"),
    ]
    family.add("m", derived_from(base), derived_from(other), derived_from(10**12), *edges)
    family.delete_version(base)
    family.change_model("gone", deleted=True)
    family.change_model("base", name="renamed")

    graph = get_lineage(registry, who, "m/1")

    assert {(node.kind, node.label, node.state, node.is_deleted) for node in graph.nodes} == {
        (NodeKind.VERSION, "m/1", "READY", False),
        (NodeKind.VERSION, "renamed/1", "READY", True),
        (NodeKind.VERSION, "gone/2", "READY", True),
        (NodeKind.VERSION, str(10**12), None, True),
        (NodeKind.RUN, "bold-fox", "FINISHED", True),
        (NodeKind.RUN, "lost", None, True),
        (NodeKind.LOGGED_MODEL, "model", "READY", False),
    }


def test_a_large_family_is_cut_at_what_is_nearest(registry: Registry, who: Principal, family: Family) -> None:
    datasets: list[Edge] = [("trained_on", "dataset", f"d{n:04d}@x") for n in range(NODES_LIMIT)]
    base = family.add("base", *datasets)
    family.add("m", derived_from(base))

    graph = get_lineage(registry, who, "m/1")

    assert graph.truncated
    assert len(graph.nodes) == NODES_LIMIT
    assert [node.label for node in graph.nodes[:3]] == ["m/1", "base/1", "d0000"]
    assert len(graph.edges) == NODES_LIMIT - 1
    assert not get_lineage(registry, who, "m/1", 1).truncated


def test_more_edges_than_one_level_may_have_are_cut_too(registry: Registry, who: Principal, family: Family) -> None:
    family.add("m", *(("trained_on", "dataset", f"d{n}@x") for n in range(EDGES_LIMIT + 1)))

    graph = get_lineage(registry, who, "m/1")

    assert graph.truncated
    assert len(graph.nodes) == NODES_LIMIT


def test_statements_do_not_grow_with_the_family(
    registry: Registry, who: Principal, family: Family, statements: Callable[[], AbstractContextManager[list[str]]]
) -> None:
    base = family.add("base")
    root = family.add("m", derived_from(base), ("produced_by", "run", "r"), ("logged_as", "logged_model", "l"))
    for _ in range(30):
        child = family.add("child", copy_of(root))
        family.add("grandchild", copy_of(child))

    with statements() as sent:
        graph = get_lineage(registry, who, "m/1", 2)

    assert len(graph.nodes) == 64
    assert len(sent) == 1 + 2 * 2 + 3


def test_bad_questions_say_what_is_wrong(registry: Registry, who: Principal, family: Family) -> None:
    family.add("m")
    with pytest.raises(ModelNotFoundError):
        get_lineage(registry, who, "nobody/1")
    with pytest.raises(VersionNotFoundError):
        get_lineage(registry, who, "m/2")
    with pytest.raises(InvalidReferenceError):
        get_lineage(registry, who, "runs:/r/model")
    with pytest.raises(LimitExceededError):
        get_lineage(registry, who, "m/1", MAX_DEPTH + 1)
    for depth in (-1, True, "3"):
        with pytest.raises(InvalidFieldError):
            get_lineage(registry, who, "m/1", depth)  # type: ignore[arg-type]

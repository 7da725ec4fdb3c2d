"""Lineage: where a version came from, as a frozen copy (origin) and as typed edges to runs, data sets and versions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from touchmark.domain.tracking import DatasetInput, LoggedModel, Metric, Run, format_number

MAX_DEPTH = 20
"""Steps a lineage walk takes at most."""


class Relation(StrEnum):
    """What an edge from a version means."""

    COPY_OF = "copy_of"
    DERIVED_FROM = "derived_from"
    PRODUCED_BY = "produced_by"
    TRAINED_ON = "trained_on"
    LOGGED_AS = "logged_as"


class NodeKind(StrEnum):
    """What an edge can point at."""

    VERSION = "version"
    RUN = "run"
    DATASET = "dataset"
    LOGGED_MODEL = "logged_model"


@dataclass(frozen=True, slots=True)
class Edge:
    """One edge from a version. `target` is `NAME/N` for a version, an id for a run, `NAME@DIGEST` for a data set."""

    relation: Relation
    target_kind: NodeKind
    target: str
    detail: str | None = None


def build_origin(
    *, run: Run | None, experiment: str | None, logged_model: LoggedModel | None, extra: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return the frozen copy of a run's params, metrics and tags at registration; floats are exact text.

    A logged model's own params and metrics stand over those of its run where both have the key.
    """
    origin: dict[str, Any] = {"params": {}, "metrics": {}, "tags": {}, **(extra or {})}
    metrics: dict[str, Metric] = {}
    if run is not None:
        origin["run"] = {
            "id": run.run_id, "name": run.name, "user": run.user, "status": run.status.value, "experiment": experiment,
            "started_at": run.started_at, "ended_at": run.ended_at,
        }  # fmt: skip
        origin["params"] |= run.params
        origin["tags"] |= run.tags
        metrics |= run.metrics
        if run.datasets:
            origin["datasets"] = [
                {"name": item.name, "digest": item.digest, "context": item.context} for item in run.datasets
            ]
    if logged_model is not None:
        origin["logged_model"] = {
            "id": logged_model.model_id,
            "name": logged_model.name,
            "type": logged_model.model_type,
        }
        origin["params"] |= logged_model.params
        origin["tags"] |= logged_model.tags
        metrics |= logged_model.metrics
    origin["metrics"] = {
        key: {"value": format_number(metric.value), "step": metric.step, "at": metric.at}
        for key, metric in metrics.items()
    }
    return origin


def encode_origin(origin: Mapping[str, Any]) -> str:
    """Return an origin as canonical JSON text, the form that is stored and hashed."""
    return json.dumps(origin, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)


def list_edges(
    *,
    run_id: str | None,
    logged_model_id: str | None,
    copy_of: str | None,
    parents: Sequence[str],
    datasets: Sequence[DatasetInput],
) -> list[Edge]:
    """Return the edges a registration draws, without duplicates, in a stable order."""
    edges: dict[tuple[str, str, str], Edge] = {}

    def draw(relation: Relation, kind: NodeKind, target: str, detail: str | None = None) -> None:
        edges.setdefault((relation, kind, target), Edge(relation, kind, target, detail))

    if copy_of is not None:
        draw(Relation.COPY_OF, NodeKind.VERSION, copy_of)
    for parent in parents:
        draw(Relation.DERIVED_FROM, NodeKind.VERSION, parent)
    if run_id is not None:
        draw(Relation.PRODUCED_BY, NodeKind.RUN, run_id)
    if logged_model_id is not None:
        draw(Relation.LOGGED_AS, NodeKind.LOGGED_MODEL, logged_model_id)
    for dataset in datasets:
        draw(Relation.TRAINED_ON, NodeKind.DATASET, f"{dataset.name}@{dataset.digest}", dataset.context)
    return list(edges.values())

"""Stages: MLflow's four, set on versions, for its clients only; and the highest version of each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from touchmark import permissions
from touchmark.domain.access import REGISTRY, Action, Principal, Resource
from touchmark.domain.errors import InvalidFieldError
from touchmark.domain.events import Effect, EventKind, SubjectKind
from touchmark.domain.models import RegisteredModel
from touchmark.domain.names import parse_model_name
from touchmark.domain.versions import ModelVersion, Stage
from touchmark.registry import Registry
from touchmark.services.versions import get_again, record_change
from touchmark.storage import models, versions
from touchmark.storage import stages as rows
from touchmark.storage.engine import Tx


def set_stage(
    registry: Registry, who: Principal, name: str, version: int, stage: Stage, *, archive_others: bool
) -> ModelVersion:
    """Set MLflow's stage of a version, and move the others in that stage to Archived if asked.

    Raises InvalidFieldError, ModelNotFoundError, VersionNotFoundError.
    """
    name = parse_model_name(name)
    if archive_others and stage not in {Stage.STAGING, Stage.PRODUCTION}:
        raise InvalidFieldError(field="archive_existing_versions", reason="only Staging and Production can be emptied")
    with registry.write() as tx:
        permissions.require(tx, who, Action.SET_STAGE, Resource("model", name))
        row = versions.get_row(tx, name, version)
        others = rows.list_in_stage(tx, row.model_id, stage) if archive_others else []
        archived = [
            Effect(SubjectKind.VERSION, {"version_id": other}, {"stage": stage.value}, {"stage": Stage.ARCHIVED.value})
            for other in others
            if other != row.version_id
        ]
        if row.stage != stage or archived:
            record_change(
                tx, who, EventKind.VERSION_STAGE_SET, row, {"stage": row.stage}, {"stage": stage.value}, *archived
            )
        return get_again(tx, row)


def get_model_with_latest(
    registry: Registry, who: Principal, name: str
) -> tuple[RegisteredModel, Sequence[ModelVersion]]:
    """Return a model by its present name and the highest version of each of its stages, in four statements.

    However many versions there are. Raises InvalidNameError, ModelNotFoundError.
    """
    name = parse_model_name(name)
    with registry.read() as tx:
        permissions.require(tx, who, Action.READ_MODEL, Resource("model", name))
        model = models.get_model(tx, name)
        return model, _list_latest(tx, [model.model_id])[model.model_id]


def list_latest(registry: Registry, who: Principal, model_ids: Sequence[int]) -> dict[int, list[ModelVersion]]:
    """Return the highest version of each stage of some models, by model id; two statements for every thousand models."""
    found: dict[int, list[ModelVersion]] = defaultdict(list)
    with registry.read() as tx:
        permissions.require(tx, who, Action.LIST_MODELS, REGISTRY)
        for start in range(0, len(model_ids), rows.MODELS_LIMIT):
            found |= _list_latest(tx, model_ids[start : start + rows.MODELS_LIMIT])
    return found


def _list_latest(tx: Tx, model_ids: Sequence[int]) -> dict[int, list[ModelVersion]]:
    found: dict[int, list[ModelVersion]] = {model_id: [] for model_id in model_ids}
    for version in versions.to_versions(tx, rows.list_latest(tx, model_ids)):
        found[version.model_id].append(version)
    for latest in found.values():
        latest.sort(key=lambda version: version.version)
    return found

"""Reading the database behind an MLflow server (2.x or 3.x, SQLite or PostgreSQL), as values of domain/imports.py.

It tells more than the server does: versions that were deleted, logged models that were, and when runs were. Columns are
taken as they are there, because they differ from version to version of MLflow. Nothing is written.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import Row, TableClause, column, func, inspect, select, table
from sqlalchemy.exc import DBAPIError, SAWarning

from touchmark.domain.errors import BusyError, InvalidFieldError, NotFoundError
from touchmark.domain.imports import (
    CONTEXT_TAG,
    Problem,
    SourceExperiment,
    SourceLoggedModel,
    SourceModel,
    SourceRun,
    SourceVersion,
)
from touchmark.domain.tracking import DatasetInput, Measurement, Metric, ModelLink, ModelRole
from touchmark.storage import dialect

_TABLES = (
    "experiments", "experiment_tags", "runs", "params", "tags", "metrics", "latest_metrics", "datasets", "inputs",
    "input_tags", "logged_models", "logged_model_params", "logged_model_tags", "logged_model_metrics",
    "registered_models", "registered_model_tags", "registered_model_aliases", "model_versions", "model_version_tags",
)  # fmt: skip
_DELETED = "Deleted_Internal"  # the stage of a version that MLflow deleted; its source is overwritten
_WORKSPACE = "default"
_BATCH = 200
_ROWS = 5_000
_LOGGED_MODEL_STATUS = {1: "PENDING", 2: "READY"}


class MlflowDatabase:
    """An MLflow database, read. Each method reads by itself, from any thread. Raises BusyError if it does not answer."""

    def __init__(self, url: str) -> None:
        """Open it. Raises InvalidFieldError if there is none, or it is not MLflow's; MissingExtraError; BusyError."""
        self._engine = dialect.open_foreign_engine(url)
        self.label = _hide_password(url)
        self._tables: dict[str, TableClause] = {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SAWarning)  # types we do not know are read as they come
            try:
                found = inspect(self._engine)
                for name in set(_TABLES) & set(found.get_table_names()):
                    self._tables[name] = table(name, *(column(each["name"]) for each in found.get_columns(name)))
            except DBAPIError as error:
                raise BusyError(f"{self.label} cannot be read: {error.orig}.", address=self.label) from None
        if not {"experiments", "runs", "registered_models", "model_versions"} <= self._tables.keys():
            raise InvalidFieldError(field="from", reason=f"{self.label} is not the database of an MLflow server")
        self.problems: Sequence[Problem] = list(self._list_other_workspaces())

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    # ── tracking ─────────────────────────────────────────────────────────────────────────────────────────────────

    def list_experiments(self) -> Iterator[SourceExperiment]:
        """Yield every experiment, deleted ones too, by id."""
        tags = self._group(self._all("experiment_tags"), "experiment_id")
        for row in self._all("experiments", order="experiment_id"):
            yield SourceExperiment(
                experiment_id=str(row.experiment_id),
                name=row.name,
                created_at=_time(_get(row, "creation_time")),
                updated_at=_time(_get(row, "last_update_time")),
                is_deleted=row.lifecycle_stage == "deleted",
                tags=_pairs(tags.get(row.experiment_id, ())),
            )

    def list_runs(self, experiment_id: str) -> Iterator[SourceRun]:
        """Yield every run of an experiment, deleted ones too, oldest first."""
        runs = self._tables["runs"].c
        wanted = select(runs.run_uuid).where(runs.experiment_id == int(experiment_id))
        ids = [row.run_uuid for row in self._rows(wanted.order_by(runs.start_time, runs.run_uuid))]
        for start in range(0, len(ids), _BATCH):
            yield from self._read_runs(ids[start : start + _BATCH])

    def find_run(self, run_id: str) -> SourceRun | None:
        """Return a run with everything but its metrics' history, deleted or not, or None."""
        return next(iter(self._read_runs([run_id])), None)

    def _read_runs(self, ids: Sequence[str]) -> Iterator[SourceRun]:
        rows = {row.run_uuid: row for row in self._in("runs", "run_uuid", ids)}
        params, tags, latest = (
            self._group(self._in(name, "run_uuid", ids), "run_uuid") for name in ("params", "tags", "latest_metrics")
        )
        datasets, links = self._read_datasets(ids), self._read_links(ids)
        for run_id in ids:
            row = rows.get(run_id)
            if row is None:
                continue
            found = [_to_metric(each, "key", "value", "timestamp", "step") for each in latest.get(run_id, ())]
            yield SourceRun(
                run_id=run_id,
                experiment_id=str(row.experiment_id),
                name=_get(row, "name") or None,
                user=row.user_id or None,
                status=str(row.status),
                started_at=_time(row.start_time),
                ended_at=_time(row.end_time) or None,
                is_deleted=row.lifecycle_stage == "deleted",
                deleted_at=_time(_get(row, "deleted_time")),
                artifact_uri=row.artifact_uri or "",
                params=_pairs(params.get(run_id, ())),
                tags=_pairs(tags.get(run_id, ())),
                latest={metric.key: metric for metric in found},
                datasets=datasets.get(run_id, []),
                models=links.get(run_id, []),
            )

    def _read_datasets(self, ids: Sequence[str]) -> dict[str, list[DatasetInput]]:
        if not {"inputs", "datasets", "input_tags"} <= self._tables.keys():
            return {}
        inputs = self._tables["inputs"].c
        wanted = select(self._tables["inputs"]).where(inputs.destination_type == "RUN", inputs.destination_id.in_(ids))
        rows = self._rows(wanted)
        sources = {row.dataset_uuid: row for row in self._in("datasets", "dataset_uuid", [r.source_id for r in rows])}
        tags = self._group(self._in("input_tags", "input_uuid", [row.input_uuid for row in rows]), "input_uuid")
        found: dict[str, list[DatasetInput]] = {}
        for row in rows:
            source = sources.get(row.source_id)
            if source is None:
                continue
            said = {each.name: each.value for each in tags.get(row.input_uuid, ())}
            dataset = DatasetInput(
                name=source.name,
                digest=source.digest,
                context=said.pop(CONTEXT_TAG, None) or None,
                source=source.dataset_source or None,
                source_type=source.dataset_source_type or None,
                schema=source.dataset_schema or None,
                profile=source.dataset_profile or None,
                tags=said,
            )
            found.setdefault(row.destination_id, []).append(dataset)
        return found

    def _read_links(self, ids: Sequence[str]) -> dict[str, list[ModelLink]]:
        if "inputs" not in self._tables:
            return {}
        inputs = self._tables["inputs"].c
        kinds = {"RUN_INPUT": ModelRole.INPUT, "RUN_OUTPUT": ModelRole.OUTPUT}
        wanted = select(self._tables["inputs"]).where(inputs.source_type.in_(list(kinds)), inputs.source_id.in_(ids))
        found: dict[str, list[ModelLink]] = {}
        for row in self._rows(wanted.order_by(inputs.source_id, inputs.destination_id)):
            link = ModelLink(kinds[row.source_type], row.destination_id, int(_get(row, "step") or 0))
            found.setdefault(row.source_id, []).append(link)
        return found

    def list_model_links(self, run: SourceRun) -> Sequence[ModelLink]:
        """Return the logged models a run read and made."""
        return run.models

    def list_history(self, run_id: str, keys: Sequence[str]) -> Iterator[Metric]:
        """Yield every measurement of these metrics of a run."""
        metrics = self._tables["metrics"].c
        for start in range(0, len(keys), _BATCH):
            wanted = select(self._tables["metrics"]).where(
                metrics.run_uuid == run_id, metrics.key.in_(keys[start : start + _BATCH])
            )
            for row in self._stream(wanted):
                yield _to_metric(row, "key", "value", "timestamp", "step")

    def list_logged_models(self, experiment_id: str) -> Iterator[SourceLoggedModel]:
        """Yield the logged models of an experiment, deleted ones too; none from a database before MLflow 3."""
        if "logged_models" not in self._tables:
            return
        models = self._tables["logged_models"].c
        wanted = select(models.model_id).where(models.experiment_id == int(experiment_id))
        ids = [row.model_id for row in self._rows(wanted.order_by(models.creation_timestamp_ms, models.model_id))]
        for start in range(0, len(ids), _BATCH):
            yield from self._read_logged_models(ids[start : start + _BATCH])

    def find_logged_model(self, model_id: str) -> SourceLoggedModel | None:
        """Return a logged model, deleted or not, or None."""
        if "logged_models" not in self._tables:
            return None
        return next(iter(self._read_logged_models([model_id])), None)

    def _read_logged_models(self, ids: Sequence[str]) -> Iterator[SourceLoggedModel]:
        rows = {row.model_id: row for row in self._in("logged_models", "model_id", ids)}
        params, tags, metrics = (
            self._group(self._in(f"logged_model_{name}", "model_id", ids), "model_id")
            for name in ("params", "tags", "metrics")
        )
        for model_id in ids:
            row = rows.get(model_id)
            if row is None:
                continue
            yield SourceLoggedModel(
                model_id=model_id,
                experiment_id=str(row.experiment_id),
                name=row.name,
                status=_LOGGED_MODEL_STATUS.get(row.status, "FAILED"),
                run_id=row.source_run_id or None,
                model_type=row.model_type or None,
                status_message=row.status_message or None,
                created_at=_time(row.creation_timestamp_ms) or 0,
                updated_at=_time(row.last_updated_timestamp_ms) or 0,
                is_deleted=row.lifecycle_stage == "deleted",
                artifact_uri=row.artifact_location or "",
                params={each.param_key: each.param_value or "" for each in params.get(model_id, ())},
                tags={each.tag_key: each.tag_value or "" for each in tags.get(model_id, ())},
                measurements=[
                    Measurement(
                        _to_metric(each, "metric_name", "metric_value", "metric_timestamp_ms", "metric_step"),
                        each.run_id or None,
                        each.dataset_name or None,
                        each.dataset_digest or None,
                    )
                    for each in metrics.get(model_id, ())
                ],
            )

    # ── the registry ─────────────────────────────────────────────────────────────────────────────────────────────

    def list_models(self) -> Iterator[SourceModel]:
        """Yield every registered model, prompts too, by name."""
        tags = self._group(self._all("registered_model_tags"), "name")
        aliases = self._group(self._all("registered_model_aliases"), "name")
        for row in self._all("registered_models", order="name"):
            yield SourceModel(
                name=row.name,
                description=row.description or None,
                created_at=_time(row.creation_time),
                updated_at=_time(row.last_updated_time),
                tags=_pairs(tags.get(row.name, ())),
                aliases={each.alias: int(each.version) for each in aliases.get(row.name, ())},
            )

    def list_versions(self, models: Sequence[SourceModel]) -> Mapping[str, Sequence[SourceVersion]]:
        """Return every version of these models by name and number, those that MLflow deleted too."""
        found: dict[str, list[SourceVersion]] = {model.name: [] for model in models}
        tags: dict[tuple[str, int], list[Row[Any]]] = {}
        for row in self._all("model_version_tags"):
            tags.setdefault((row.name, row.version), []).append(row)
        for row in self._all("model_versions", order="version"):
            if row.name in found:
                found[row.name].append(_to_version(row, tags.get((row.name, row.version), ())))
        return found

    def get_download_uri(self, version: SourceVersion) -> str:
        """Return where MLflow finds a version's files. Raises NotFoundError."""
        if not version.download_uri:
            raise NotFoundError(f"Nobody knows where the files of {version.name[:200]}/{version.number} lie.")
        return version.download_uri

    # ── rows ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _all(self, name: str, order: str | None = None) -> Iterable[Row[Any]]:
        """Return every row of a table of the default workspace; none if there is no such table."""
        found = self._tables.get(name)
        if found is None:
            return []
        statement = select(found)
        if "workspace" in found.c:
            statement = statement.where(found.c.workspace == _WORKSPACE)
        return self._rows(statement.order_by(found.c[order]) if order else statement)

    def _in(self, name: str, key: str, values: Sequence[Any]) -> Sequence[Row[Any]]:
        found = self._tables.get(name)
        wanted = sorted(set(values))
        if found is None or not wanted:
            return []
        rows: list[Row[Any]] = []
        for start in range(0, len(wanted), _ROWS):
            rows += self._rows(select(found).where(found.c[key].in_(wanted[start : start + _ROWS])))
        return rows

    def _rows(self, statement: Any) -> list[Row[Any]]:
        return list(self._stream(statement))

    def _stream(self, statement: Any) -> Iterator[Row[Any]]:
        try:
            with self._engine.connect() as connection:
                for rows in connection.execution_options(yield_per=_ROWS).execute(statement).partitions():
                    yield from rows
        except DBAPIError as error:
            raise BusyError(f"{self.label} cannot be read: {error.orig}.", address=self.label) from None

    @staticmethod
    def _group(rows: Iterable[Row[Any]], key: str) -> dict[Any, list[Row[Any]]]:
        groups: dict[Any, list[Row[Any]]] = {}
        for row in rows:
            groups.setdefault(getattr(row, key), []).append(row)
        return groups

    def _list_other_workspaces(self) -> Iterator[Problem]:
        for name, what in (("experiments", "experiment"), ("registered_models", "model")):
            found = self._tables[name]
            if "workspace" not in found.c:
                continue
            place = found.c.workspace
            counted = select(place, func.count().label("found")).where(place != _WORKSPACE).group_by(place)
            for row in self._rows(counted.order_by(place)):
                reason = f"{row.found} of the workspace {row.workspace!r}: only {_WORKSPACE!r} is read"
                yield Problem(what, row.workspace, reason)


def _to_version(row: Row[Any], tags: Iterable[Row[Any]]) -> SourceVersion:
    is_deleted = row.current_stage == _DELETED
    return SourceVersion(
        name=row.name,
        number=int(row.version),
        created_at=_time(row.creation_time),
        updated_at=_time(row.last_updated_time),
        description=row.description or None,
        user=row.user_id or None,
        stage="None" if is_deleted else row.current_stage or "None",
        source=row.source or "",
        download_uri=None if is_deleted else _get(row, "storage_location") or row.source or None,
        run_id=row.run_id or None,
        run_link=row.run_link or None,
        status=row.status or "READY",
        status_message=row.status_message or None,
        is_deleted=is_deleted,
        tags=_pairs(tags),
    )


def _to_metric(row: Row[Any], key: str, value: str, at: str, step: str) -> Metric:
    found = getattr(row, value)
    number = math.nan if found is None or _get(row, "is_nan") else float(found)
    return Metric(str(getattr(row, key)), number, _time(getattr(row, at)) or 0, int(getattr(row, step) or 0))


def _pairs(rows: Iterable[Row[Any]]) -> dict[str, str]:
    return {row.key: row.value or "" for row in rows}


def _get(row: Row[Any], name: str) -> Any:
    return getattr(row, name, None)


def _time(milliseconds: Any) -> int | None:
    return None if milliseconds is None else int(milliseconds) * 1000


def _hide_password(url: str) -> str:
    """Return an address that may be shown and recorded: without a password, and without the query, which may hold one."""
    scheme, _, rest = url.partition("?")[0].partition("://")
    before, at, after = rest.rpartition("@")
    return f"{scheme}://{before.partition(':')[0]}{at}{after}"

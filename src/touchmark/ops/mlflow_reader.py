"""Reading an MLflow server over its REST API (MLflow 2.x and 3.x), as values of domain/imports.py.

What lives here: which routes tell what, and how their JSON reads. What must not: what of it may come here
(domain/imports.py), where files lie (mlflow_files.py), or a write. Nothing an answer says is trusted: a field of a wrong
type reads as absent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from touchmark.domain.errors import NotFoundError
from touchmark.domain.imports import (
    CONTEXT_TAG,
    Problem,
    SourceExperiment,
    SourceLoggedModel,
    SourceModel,
    SourceRun,
    SourceVersion,
)
from touchmark.domain.models import PROMPT_TAG
from touchmark.domain.tracking import DatasetInput, Measurement, Metric, ModelLink, ModelRole
from touchmark.ops.mlflow_http import API, MlflowHttp, quote_path

_HISTORY_PAGE = 25_000  # what MLflow's own client asks for
_RUN_PAGE = 100  # a run may have thousands of params and tags
_PAGE = 1_000
_INT64 = range(-(2**63), 2**63)
_PROMPTS = f"tag.`{PROMPT_TAG}` = 'true'"


class MlflowServer:
    """An MLflow server, read. From any thread. Every method raises as `MlflowHttp.ask` does."""

    def __init__(self, http: MlflowHttp) -> None:
        """Read through an open connection, which stays the caller's."""
        self.http = http
        self.label = http.url
        self.problems: Sequence[Problem] = ()

    # ── tracking ─────────────────────────────────────────────────────────────────────────────────────────────────

    def list_experiments(self) -> Iterator[SourceExperiment]:
        """Yield every experiment, deleted ones too, by creation."""
        order = ["creation_time ASC"]
        body = {"view_type": "ALL", "max_results": _PAGE, "order_by": order}
        for found in self._search("experiments/search", body, "experiments"):
            yield SourceExperiment(
                experiment_id=_text(found, "experiment_id"),
                name=_text(found, "name"),
                created_at=_time(found, "creation_time"),
                updated_at=_time(found, "last_update_time"),
                is_deleted=found.get("lifecycle_stage") == "deleted",
                tags=_pairs(found.get("tags")),
            )

    def list_runs(self, experiment_id: str) -> Iterator[SourceRun]:
        """Yield every run of an experiment, deleted ones too, oldest first."""
        body = {
            "experiment_ids": [experiment_id], "run_view_type": "ALL", "max_results": _RUN_PAGE,
            "order_by": ["attributes.start_time ASC"],
        }  # fmt: skip
        for found in self._search("runs/search", body, "runs"):
            yield _to_run(found)

    def find_run(self, run_id: str) -> SourceRun | None:
        """Return a run with everything but its metrics' history, deleted or not, or None."""
        try:
            found = self.http.get(f"{API}/runs/get", {"run_id": run_id})
        except NotFoundError:
            return None
        return _to_run(_object(found.get("run")))

    def list_model_links(self, run: SourceRun) -> Sequence[ModelLink]:
        """Return the logged models a run read and made; a page of runs leaves out those it read (MLflow 3.17)."""
        whole = self.find_run(run.run_id)
        return run.models if whole is None else whole.models

    def list_history(self, run_id: str, keys: Sequence[str]) -> Iterator[Metric]:
        """Yield every measurement of these metrics of a run."""
        for key in keys:
            params: dict[str, str | None] = {"run_id": run_id, "metric_key": key, "max_results": str(_HISTORY_PAGE)}
            while True:
                page = self.http.get(f"{API}/metrics/get-history", params)
                yield from _metrics(page.get("metrics"))
                before, params["page_token"] = params.get("page_token"), _token(page)
                if params["page_token"] in {None, before}:
                    break

    def list_logged_models(self, experiment_id: str) -> Iterator[SourceLoggedModel]:
        """Yield the logged models of an experiment; none from a server that has no such thing (before MLflow 3)."""
        order = [{"field_name": "creation_timestamp", "ascending": True}]
        body = {"experiment_ids": [experiment_id], "max_results": 50, "order_by": order}
        try:
            for found in self._search("logged-models/search", body, "models"):
                yield _to_logged_model(found, is_deleted=False)
        except NotFoundError:
            return

    def find_logged_model(self, model_id: str) -> SourceLoggedModel | None:
        """Return a logged model, deleted or not, or None."""
        for is_deleted in (False, True):
            params = {"allow_deleted": "true"} if is_deleted else None
            try:
                found = self.http.get(f"{API}/logged-models/{quote_path(model_id)}", params)
            except NotFoundError:
                continue
            return _to_logged_model(_object(found.get("model")), is_deleted=is_deleted)
        return None

    # ── the registry ─────────────────────────────────────────────────────────────────────────────────────────────

    def list_models(self) -> Iterator[SourceModel]:
        """Yield every registered model, then the prompts, which the first search leaves out (MLflow 2.21 and newer)."""
        seen: set[str] = set()
        for text in (None, _PROMPTS):
            for found in self._page("registered-models/search", "registered_models", 100, text):
                model = _to_model(found)
                if model.name not in seen:
                    seen.add(model.name)
                    yield model

    def list_versions(self, models: Sequence[SourceModel]) -> Mapping[str, Sequence[SourceVersion]]:
        """Return every version of these models by name and number; MLflow does not tell of those that were deleted.

        A gap may be a deleted version, or one that MLflow's search hides because another version of the model is marked
        as a prompt: each number in a gap is asked for by itself.
        """
        found: dict[str, dict[int, SourceVersion]] = {model.name: {} for model in models}
        order = ["name ASC", "version_number ASC"]
        for text in (None, _PROMPTS):
            for each in self._page("model-versions/search", "model_versions", _PAGE, text, order):
                version = _to_version(each)
                if version.name in found:
                    found[version.name][version.number] = version
        for model in models:
            known = found[model.name]
            for number in range(1, max([*known, model.highest], default=0) + 1):
                hidden = None if number in known else self.find_version(model.name, number)
                if hidden is not None:
                    known[number] = hidden
        return {name: [versions[number] for number in sorted(versions)] for name, versions in found.items()}

    def find_model(self, name: str) -> SourceModel | None:
        """Return a registered model, or None."""
        try:
            found = self.http.get(f"{API}/registered-models/get", {"name": name})
        except NotFoundError:
            return None
        return _to_model(_object(found.get("registered_model")))

    def find_version(self, name: str, number: int) -> SourceVersion | None:
        """Return a version, or None if it is not there or was deleted."""
        try:
            found = self.http.get(f"{API}/model-versions/get", {"name": name, "version": str(number)})
        except NotFoundError:
            return None
        return _to_version(_object(found.get("model_version")))

    def get_download_uri(self, version: SourceVersion) -> str:
        """Return where MLflow finds a version's files. Raises NotFoundError."""
        if version.download_uri is not None:
            return version.download_uri
        params = {"name": version.name, "version": str(version.number)}
        return _text(self.http.get(f"{API}/model-versions/get-download-uri", params), "artifact_uri")

    # ── pages ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _search(self, path: str, body: Mapping[str, Any], key: str) -> Iterator[Mapping[str, Any]]:
        token: str | None = None
        while True:
            page = self.http.post(f"{API}/{path}", {**body, "page_token": token} if token else body, again=True)
            yield from _objects(page.get(key))
            before, token = token, _token(page)
            if token is None or token == before:
                return

    def _page(
        self, path: str, key: str, limit: int, text: str | None, order: Sequence[str] = ()
    ) -> Iterator[Mapping[str, Any]]:
        token: str | None = None
        while True:
            pairs = [("max_results", str(limit)), *(("order_by", term) for term in order)]
            pairs += [(name, value) for name, value in (("filter", text), ("page_token", token)) if value]
            page = self.http.get(f"{API}/{path}", pairs)
            yield from _objects(page.get(key))
            before, token = token, _token(page)
            if token is None or token == before:
                return


# ── JSON to values ───────────────────────────────────────────────────────────────────────────────────────────────


def _to_version(found: Mapping[str, Any]) -> SourceVersion:
    """Return the version a ModelVersion message tells of."""
    return SourceVersion(
        name=_text(found, "name"),
        number=_number(found, "version"),
        created_at=_time(found, "creation_timestamp"),
        updated_at=_time(found, "last_updated_timestamp"),
        description=_text(found, "description") or None,
        user=_text(found, "user_id") or None,
        stage=_text(found, "current_stage") or "None",
        source=_text(found, "source"),
        download_uri=None,
        run_id=_text(found, "run_id") or None,
        run_link=_text(found, "run_link") or None,
        status=_text(found, "status"),
        status_message=_text(found, "status_message") or None,
        is_deleted=False,
        tags=_pairs(found.get("tags")),
    )


def _to_model(found: Mapping[str, Any]) -> SourceModel:
    aliases = {_text(each, "alias"): _number(each, "version") for each in _objects(found.get("aliases"))}
    return SourceModel(
        name=_text(found, "name"),
        description=_text(found, "description") or None,
        created_at=_time(found, "creation_timestamp"),
        updated_at=_time(found, "last_updated_timestamp"),
        tags=_pairs(found.get("tags")),
        aliases=aliases,
        highest=max([_number(each, "version") for each in _objects(found.get("latest_versions"))], default=0),
    )


def _to_run(found: Mapping[str, Any]) -> SourceRun:
    info, data, inputs = (_object(found.get(key)) for key in ("info", "data", "inputs"))
    outputs = _object(found.get("outputs"))
    datasets = [
        _to_dataset(_object(each.get("dataset")), tags.pop(CONTEXT_TAG, None), tags)
        for each in _objects(inputs.get("dataset_inputs"))
        for tags in [_pairs(each.get("tags"))]
    ]
    links = [
        ModelLink(role, _text(each, "model_id"), _number(each, "step"))
        for role, listed in (
            (ModelRole.INPUT, inputs.get("model_inputs")),
            (ModelRole.OUTPUT, outputs.get("model_outputs")),
        )
        for each in _objects(listed)
    ]
    return SourceRun(
        run_id=_text(info, "run_id") or _text(info, "run_uuid"),
        experiment_id=_text(info, "experiment_id"),
        name=_text(info, "run_name") or None,
        user=_text(info, "user_id") or None,
        status=_text(info, "status"),
        started_at=_time(info, "start_time"),
        ended_at=_time(info, "end_time") or None,
        is_deleted=info.get("lifecycle_stage") == "deleted",
        deleted_at=None,
        artifact_uri=_text(info, "artifact_uri"),
        params=_pairs(data.get("params")),
        tags=_pairs(data.get("tags")),
        latest={metric.key: metric for metric in _metrics(data.get("metrics"))},
        datasets=datasets,
        models=links,
    )


def _to_dataset(found: Mapping[str, Any], context: str | None, tags: Mapping[str, str]) -> DatasetInput:
    return DatasetInput(
        name=_text(found, "name"),
        digest=_text(found, "digest"),
        context=context or None,
        source=_text(found, "source") or None,
        source_type=_text(found, "source_type") or None,
        schema=_text(found, "schema") or None,
        profile=_text(found, "profile") or None,
        tags=tags,
    )


def _to_logged_model(found: Mapping[str, Any], *, is_deleted: bool) -> SourceLoggedModel:
    info, data = _object(found.get("info")), _object(found.get("data"))
    measurements = [
        Measurement(
            metric,
            _text(each, "run_id") or None,
            _text(each, "dataset_name") or None,
            _text(each, "dataset_digest") or None,
        )
        for each in _objects(data.get("metrics"))
        for metric in _metrics([each])
    ]
    return SourceLoggedModel(
        model_id=_text(info, "model_id"),
        experiment_id=_text(info, "experiment_id"),
        name=_text(info, "name"),
        status=_text(info, "status").removeprefix("LOGGED_MODEL_").replace("UPLOAD_FAILED", "FAILED"),
        run_id=_text(info, "source_run_id") or None,
        model_type=_text(info, "model_type") or None,
        status_message=_text(info, "status_message") or None,
        created_at=_time(info, "creation_timestamp_ms") or 0,
        updated_at=_time(info, "last_updated_timestamp_ms") or 0,
        is_deleted=is_deleted,
        artifact_uri=_text(info, "artifact_uri"),
        params=_pairs(data.get("params")),
        tags=_pairs(info.get("tags")),
        measurements=measurements,
    )


def _metrics(found: Any) -> list[Metric]:
    metrics = []
    for each in _objects(found):
        try:
            value = float(each.get("value", 0.0))  # proto3 leaves a zero out; NaN and the infinities are texts
        except (TypeError, ValueError, OverflowError):
            continue
        metrics.append(Metric(_text(each, "key"), value, _time(each, "timestamp") or 0, _number(each, "step")))
    return metrics


def _pairs(found: Any) -> dict[str, str]:
    return {_text(each, "key"): _text(each, "value") for each in _objects(found)}


def _object(found: Any) -> Mapping[str, Any]:
    return found if isinstance(found, dict) else {}


def _objects(found: Any) -> list[Mapping[str, Any]]:
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def _text(found: Mapping[str, Any], key: str) -> str:
    value = found.get(key)
    return value if isinstance(value, str) else str(value) if isinstance(value, int) else ""


def _token(page: Mapping[str, Any]) -> str | None:
    """Return the token of the page after this one, None if there is none."""
    token = page.get("next_page_token")
    return token if isinstance(token, str) and token else None


def _number(found: Mapping[str, Any], key: str) -> int:
    """Return a whole number of 64 bits, which JSON may hold as text (protobuf's int64); 0 if there is none."""
    value = found.get(key)
    if isinstance(value, str) and len(value) <= 20:
        digits = value.removeprefix("-")
        value = int(value) if digits.isascii() and digits.isdigit() else 0
    return value if type(value) is int and value in _INT64 else 0


def _time(found: Mapping[str, Any], key: str) -> int | None:
    """Return milliseconds as microseconds UTC, None if there are none."""
    return _number(found, key) * 1000 if found.get(key) is not None else None

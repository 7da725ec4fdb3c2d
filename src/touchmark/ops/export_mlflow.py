"""Moving out: registered models, versions, aliases and bytes, written to a stock MLflow server.

MLflow numbers versions itself, so they are created in the order of their numbers; a number that is deleted here is used up
there by creating a version and deleting it. The files of each version go into a run of its own in the experiment
`touchmark-export`, which also carries the params, metrics and tags of the version's origin. A tag of that run says which
version it is of (`touchmark.key`), so an export may be cut anywhere and begun again. A model that is there with other
versions is not touched.

What lives here: which requests, in which order, and the report. What must not: an answer's shape (mlflow_reader.py).
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from touchmark.artifacts.blobs import stream_checked
from touchmark.domain.access import Principal, PrincipalKind
from touchmark.domain.errors import (
    ConflictError,
    CorruptError,
    InvalidError,
    ModelNotFoundError,
    NotFoundError,
    UnsupportedError,
)
from touchmark.domain.imports import Problem, SourceRun
from touchmark.domain.models import is_prompt
from touchmark.domain.versions import ModelVersion, Stage, VersionFile
from touchmark.ops import Progress
from touchmark.ops.mlflow_files import FETCHERS, ProxyPlace, find_proxied, run_ahead
from touchmark.ops.mlflow_http import API, ARTIFACTS, MlflowHttp, quote_path
from touchmark.ops.mlflow_reader import MlflowServer
from touchmark.registry import Registry
from touchmark.services import imports, search, versions

EXPORTER = Principal(PrincipalKind.SERVICE, "export", verified=True)
"""Who reads what goes out."""
EXPERIMENT = "touchmark-export"
KEY_TAG = "touchmark.key"
_FOLDER = "model"
# What MLflow 3.17 takes as the key of a tag, param or metric (mlflow/utils/validation.py).
_KEY = re.compile(r"[/\w.\- :]{1,250}")


@dataclass(slots=True)
class ExportReport:
    """What an export did, or with `dry_run` would do: objects that `went`, were `present` there, and `failed`.

    They are counted by what they are: models, versions, aliases, files. `problems` say what did not go, or not as it is.
    """

    target: str
    dry_run: bool
    went: Counter[str] = field(default_factory=Counter)
    present: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    sent_bytes: int = 0
    problems: list[Problem] = field(default_factory=list)


NOUNS = ("models", "versions", "aliases", "files")
"""What a report counts, in its order."""


def export_mlflow(
    registry: Registry,
    http: MlflowHttp,
    names: Sequence[str] = (),
    *,
    who: Principal = EXPORTER,
    dry_run: bool = False,
    on_progress: Progress | None = None,
) -> ExportReport:
    """Write registered models (all of them, or those named) to an MLflow server; with `dry_run`, only say what would go.

    Raises ModelNotFoundError for a name that is not here, UnsupportedError if the server keeps artifacts where only it can
    write, ConflictError if the experiment there is deleted, and what `MlflowHttp.ask` raises: what went stays, and the
    same export goes on from there.
    """
    work = _Export(registry, who, http, ExportReport(http.url, dry_run), on_progress)
    work.run(names)
    return work.report


@dataclass(slots=True)
class _Export:
    """One export under way."""

    registry: Registry
    who: Principal
    http: MlflowHttp
    report: ExportReport
    on_progress: Progress | None
    experiment_id: str = ""
    runs: dict[str, SourceRun] = field(default_factory=dict)  # by their key

    def run(self, names: Sequence[str]) -> None:
        listed = list(names) or list(self._list_names())
        for name in names:
            if imports.find_model(self.registry, self.who, name) is None:
                raise ModelNotFoundError(name=name)
        self._open_experiment()
        for done, name in enumerate(listed):
            if self.on_progress is not None:
                self.on_progress("models", done, len(listed))
            try:
                self._write_model(name)
            except (InvalidError, ConflictError, NotFoundError, CorruptError) as error:
                self._fail("models", name, error.message)

    def _fail(self, what: str, subject: str, reason: str) -> None:
        self.report.failed[what] += 1
        self._note(what, subject, reason)

    def _note(self, what: str, subject: str, reason: str) -> None:
        singular = {"aliases": "alias"}.get(what, what.removesuffix("s"))
        self.report.problems.append(Problem(singular, subject, reason))

    def _list_names(self) -> Iterator[str]:
        cursor: str | None = None
        while True:
            page = search.search_models(self.registry, self.who, cursor=cursor)
            yield from (model.name for model in page.items)
            cursor = page.next_cursor
            if cursor is None:
                return

    # ── the experiment that holds the files ──────────────────────────────────────────────────────────────────────

    def _open_experiment(self) -> None:
        try:
            found = self.http.get(f"{API}/experiments/get-by-name", {"experiment_name": EXPERIMENT})["experiment"]
        except NotFoundError:
            if self.report.dry_run:
                return
            made = self.http.post(f"{API}/experiments/create", {"name": EXPERIMENT})
            found = self.http.get(f"{API}/experiments/get", {"experiment_id": made["experiment_id"]})["experiment"]
        if found.get("lifecycle_stage") == "deleted":
            message = f"The experiment {EXPERIMENT!r} at {self.http.url} is deleted. Restore it there first."
            raise ConflictError(message, experiment=EXPERIMENT)
        location = str(found.get("artifact_location"))
        if find_proxied(location) is None:
            reason = f"{self.http.url} keeps artifacts at {location[:200]!r}, where only it can write: let it serve them (--serve-artifacts)."
            raise UnsupportedError(reason)
        self.experiment_id = str(found["experiment_id"])
        for run in MlflowServer(self.http).list_runs(self.experiment_id):
            if KEY_TAG in run.tags and not run.is_deleted:
                self.runs[run.tags[KEY_TAG]] = run

    # ── one model ────────────────────────────────────────────────────────────────────────────────────────────────

    def _write_model(self, name: str) -> None:
        here = imports.find_model(self.registry, self.who, name)
        if here is None or here.is_deleted:
            raise ModelNotFoundError(name=name)
        listed = {version.version: version for version in here.versions}
        present = self._find_present(here.name, listed)
        if present is not None:
            self.report.present["models"] += 1
        else:
            self.report.went["models"] += 1
            if not self.report.dry_run:
                tags = self._filter_tags("models", here.name, here.tags)
                body = {"name": here.name, "tags": _pairs(tags), "description": here.description or ""}
                self.http.post(f"{API}/registered-models/create", body)
        for version in here.versions:
            if version.version in (present or ()):
                self.report.present["versions"] += 1
            elif version.deleted_at is None and not self._write_version(here.name, version):
                self._note(
                    "models", here.name, f"its versions from {version.version} on did not go: numbers must not shift"
                )
                return
        self._use_up(here.name, listed)
        for version in here.versions:
            if version.deleted_at is None:
                for alias in version.aliases:
                    self._write_alias(here.name, alias, version.version)

    def _find_present(self, name: str, listed: Mapping[int, ModelVersion]) -> set[int] | None:
        """Return the numbers that are there already, None if the model is not. Raises ConflictError if it is another one."""
        server = MlflowServer(self.http)
        model = server.find_model(name)
        if model is None:
            return None
        present: set[int] = set()
        keys = {run.run_id: key for key, run in self.runs.items()}
        for number in range(1, max(model.highest, 0) + 1):
            there = server.find_version(name, number)
            if there is None:
                continue
            here = listed.get(number)
            is_ours = there.run_id in keys and bool(there.run_id)
            if here is not None and here.deleted_at is not None and is_ours:
                self._delete_version(name, number)  # a number to be used up, where the export was cut
            elif here is not None and (
                (is_ours and keys[str(there.run_id)] == _make_key(here))
                or (is_prompt(here.tags) and _has_tags(there.tags, here.tags))
            ):
                present.add(number)
            else:
                raise ConflictError(f"It is there with another version {number}. Nothing of it was written.", name=name)
        return present

    def _delete_version(self, name: str, number: int) -> None:
        if not self.report.dry_run:
            self.http.ask("DELETE", f"{API}/model-versions/delete", body={"name": name, "version": str(number)})

    def _use_up(self, name: str, listed: Mapping[int, ModelVersion]) -> None:
        """Let the server go past the numbers that are deleted here above the last version, once."""
        highest = max((number for number, version in listed.items() if version.deleted_at is None), default=0)
        last = max(listed, default=0)
        if last == highest or self.report.dry_run:
            return
        key = _hash(name, str(last), "deleted")
        marker = self.runs.get(key) or self._create_run(key, f"{name} up to {last}", {"touchmark.model": name})
        self.runs[key] = marker
        if marker.status == "FINISHED":
            return
        body = {"name": name, "source": f"{marker.artifact_uri}/{_FOLDER}", "run_id": marker.run_id}
        while self._create_version(body) < last:
            pass
        self._finish_run(marker.run_id)

    def _create_version(self, body: Mapping[str, Any], wanted: int | None = None) -> int:
        """Create a version and return its number; it is deleted again if it has not the one that is wanted."""
        made = self.http.post(f"{API}/model-versions/create", body)["model_version"]
        number = int(made["version"])
        if number != wanted:
            self._delete_version(str(body["name"]), number)
        return number

    # ── one version ──────────────────────────────────────────────────────────────────────────────────────────────

    def _write_version(self, name: str, version: ModelVersion) -> bool:
        """Write a version under its number; answers False if that cannot be, so that no later one may follow."""
        subject, report = f"{name}/{version.version}", self.report
        holds_prompt = is_prompt(version.tags)
        if not version.sealed and not holds_prompt:
            self._note("versions", subject, f"unsealed here, so without files there: {version.status_message}")
        try:
            files = versions.list_files(self.registry, self.who, name, version.version).files if version.sealed else ()
            if report.dry_run:
                report.went["versions"] += 1
                report.went["files"] += len(files)
                report.sent_bytes += version.size_bytes or 0
                return True
            body: dict[str, Any] = {
                "name": name, "description": version.description or "", "run_link": version.run_link or "",
                "tags": _pairs(self._filter_tags("versions", subject, version.tags)),
            }  # fmt: skip
            if holds_prompt:
                body["source"] = "prompt-template"
            else:
                run = self._ensure_run(version, files)
                body |= {"source": f"{run.artifact_uri}/{_FOLDER}", "run_id": run.run_id}
            while True:
                number = self._create_version(body, version.version)
                if number == version.version:
                    break
                if number > version.version:
                    raise ConflictError(f"The server there is at number {number} already: versions were deleted there.")
            if version.stage is not Stage.NONE:
                stage = {"stage": version.stage.value, "archive_existing_versions": False}
                self.http.post(
                    f"{API}/model-versions/transition-stage", {"name": name, "version": str(number), **stage}
                )
        except (InvalidError, ConflictError, NotFoundError, CorruptError) as error:
            self._fail("versions", subject, error.message)
            return False
        report.went["versions"] += 1
        return True

    def _ensure_run(self, version: ModelVersion, files: Sequence[VersionFile]) -> SourceRun:
        """Return the run that holds a version's files, all of them sent."""
        key = _make_key(version)
        run = self.runs.get(key)
        if run is None:
            tags = {
                "touchmark.model": version.name, "touchmark.version": str(version.version),
                "touchmark.digest": version.digest or "unsealed", "touchmark.source": version.source,
            }  # fmt: skip
            run = self._create_run(key, f"{version.name}/{version.version}", tags)
            self.runs[key] = run
            self._write_origin(run.run_id, version)
        if run.status != "FINISHED":
            self._send_files(run, files)
            self._finish_run(run.run_id)
        return run

    def _create_run(self, key: str, name: str, tags: Mapping[str, str]) -> SourceRun:
        now = self.registry.clock() // 1000
        body = {"experiment_id": self.experiment_id, "run_name": name[:250], "start_time": now}
        made = self.http.post(f"{API}/runs/create", {**body, "tags": _pairs({KEY_TAG: key, **tags})})
        found = MlflowServer(self.http).find_run(str(made["run"]["info"]["run_id"]))
        if found is None:
            raise NotFoundError(f"A run that was just created is not there at {self.http.url}.")
        return found

    def _finish_run(self, run_id: str) -> None:
        now = self.registry.clock() // 1000
        self.http.post(f"{API}/runs/update", {"run_id": run_id, "status": "FINISHED", "end_time": now}, again=True)

    def _write_origin(self, run_id: str, version: ModelVersion) -> None:
        """Write what the origin froze of the version's run; what MLflow refuses is left out and said."""
        subject, origin = f"{version.name}/{version.version}", version.origin
        params = {key: str(value) for key, value in dict(origin.get("params", {})).items() if _KEY.fullmatch(key)}
        tags = self._filter_tags("versions", subject, dict(origin.get("tags", {})))
        metrics = [
            {"key": key, "value": _spell(metric["value"]), "timestamp": metric["at"] // 1000, "step": metric["step"]}
            for key, metric in dict(origin.get("metrics", {})).items()
            if _KEY.fullmatch(key)
        ]
        batches: list[dict[str, Any]] = [
            *({"params": chunk} for chunk in _chunks(_pairs(params))),
            *(
                {"tags": chunk}
                for chunk in _chunks(_pairs({key: tags[key] for key in tags if key != "mlflow.runName"}))
            ),
            *({"metrics": chunk} for chunk in _chunks(metrics)),
        ]
        for batch in batches:
            try:
                self.http.post(f"{API}/runs/log-batch", {"run_id": run_id, **batch}, again=True)
            except InvalidError as error:
                self._note("versions", subject, f"{next(iter(batch))} of its origin were refused: {error.message}")

    def _send_files(self, run: SourceRun, files: Sequence[VersionFile]) -> None:
        proxied = find_proxied(run.artifact_uri)
        if proxied is None:
            raise UnsupportedError(
                f"The files of run {run.run_id} lie at {run.artifact_uri[:200]!r}, where only {self.http.url} can write."
            )
        root = f"{proxied[1]}/{_FOLDER}"
        place = ProxyPlace(self.http, root)
        there = _list_sizes(place)

        def send(file: VersionFile) -> int:
            chunks = stream_checked(self.registry.blobs, file.digest, file.size_bytes)
            self.http.put(f"{ARTIFACTS}/{quote_path(f'{root}/{file.path}')}", chunks, file.size_bytes)
            return file.size_bytes

        missing = [file for file in files if there.get(file.path) != file.size_bytes]
        with ThreadPoolExecutor(FETCHERS, thread_name_prefix="send") as pool:
            try:
                for size_bytes in run_ahead(pool, send, missing, FETCHERS * 2):
                    self.report.went["files"] += 1
                    self.report.sent_bytes += size_bytes
            finally:
                pool.shutdown(wait=True, cancel_futures=True)
        there = _list_sizes(place)
        for file in files:
            if there.get(file.path) != file.size_bytes:
                raise InvalidError(
                    f"{file.path!r} was sent and is not there as it was: MLflow stores such a name otherwise."
                )

    # ── aliases and tags ─────────────────────────────────────────────────────────────────────────────────────────

    def _write_alias(self, name: str, alias: str, number: int) -> None:
        report = self.report
        try:
            with suppress(InvalidError, NotFoundError):  # MLflow answers 400 for an alias that is not there
                params = {"name": name, "alias": alias}
                found = self.http.get(f"{API}/registered-models/alias", params)["model_version"]
                if int(found["version"]) == number:
                    report.present["aliases"] += 1
                    return
            if not report.dry_run:
                body = {"name": name, "alias": alias, "version": str(number)}
                self.http.post(f"{API}/registered-models/alias", body, again=True)
            report.went["aliases"] += 1
        except (InvalidError, NotFoundError) as error:
            self._fail("aliases", f"{name}@{alias}", error.message)

    def _filter_tags(self, what: str, subject: str, tags: Mapping[str, str]) -> dict[str, str]:
        for key in tags:
            if _KEY.fullmatch(key) is None:
                self._note(what, subject, f"tag {key!r} left out: MLflow takes no such key")
        return {key: value for key, value in tags.items() if _KEY.fullmatch(key) is not None}


def _list_sizes(place: ProxyPlace) -> dict[str, int]:
    """Return the sizes of the files that are there; MLflow leaves out the size of an empty one."""
    return {file.path: file.size_bytes or 0 for file in place.list_files()}


def _make_key(version: ModelVersion) -> str:
    """Return what tells a version from every other: its name, number and bytes."""
    return _hash(version.name, str(version.version), version.digest or f"unsealed {version.source}")


def _hash(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:40]


def _has_tags(there: Mapping[str, str], here: Mapping[str, str]) -> bool:
    return all(there.get(key) == value for key, value in here.items() if _KEY.fullmatch(key))


def _pairs(tags: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in tags.items()]


def _chunks(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """Yield parts of 100, as many params or tags as MLflow takes in one batch."""
    for start in range(0, len(items), 100):
        yield items[start : start + 100]


def _spell(value: object) -> float | str:
    """Return a metric's text as JSON takes it: protobuf spells what is no number as a text."""
    number = float(str(value))
    if number != number:  # noqa: PLR0124 - NaN
        return "NaN"
    return ("Infinity" if number > 0 else "-Infinity") if abs(number) == float("inf") else number

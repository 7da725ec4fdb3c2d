"""Moving in: everything an MLflow server or its database holds, brought into this registry.

Order: experiments, each with its runs, their files, its logged models and theirs; then registered models and their
versions in the order in which they were created there, so that a copy finds its original; then aliases. Each object is
one transaction, a version is sealed before its number is taken, and what is here already is not changed: an import may be
cut anywhere and begun again, and a later one brings what is new.

What lives here: what to read, fetch and bring, and the report. What must not: a rule about what may come
(domain/imports.py), a row (services/imports.py), the shape of an answer (mlflow_reader.py, storage/mlflow_database.py).
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Protocol

from touchmark.artifacts.blobs import StoredBlob
from touchmark.domain.access import Principal, PrincipalKind
from touchmark.domain.aliases import Alias, parse_alias
from touchmark.domain.errors import (
    BusyError,
    ConflictError,
    InvalidError,
    InvalidFieldError,
    LimitExceededError,
    NotFoundError,
    StorageFullError,
    UnsupportedError,
)
from touchmark.domain.imports import (
    Cleaner,
    CleanRun,
    CleanVersion,
    Problem,
    SourceExperiment,
    SourceLoggedModel,
    SourceModel,
    SourceRun,
    SourceVersion,
    clean_experiment,
    clean_logged_model,
    clean_run,
    clean_version,
    is_same_version,
)
from touchmark.domain.models import is_prompt
from touchmark.domain.names import parse_model_name
from touchmark.domain.paths import check_path
from touchmark.domain.tracking import ArtifactOwner, Metric, ModelLink, rank_metric
from touchmark.domain.versions import ModelVersion, Stage, VersionFile, VersionState
from touchmark.ops import Progress
from touchmark.ops.mlflow_files import Place, PlacedFile, Places, fetch_files, parse_folder, run_ahead
from touchmark.ops.mlflow_http import Credentials, MlflowHttp
from touchmark.ops.mlflow_reader import MlflowServer
from touchmark.registry import Registry
from touchmark.services import aliases, imports, models, stages, versions
from touchmark.storage.imports import PresentRun
from touchmark.storage.mlflow_database import MlflowDatabase

IMPORTER = Principal(PrincipalKind.SERVICE, "import", verified=True)
"""Who brings things in: the author of imported versions here. Their authors there stand in their origins."""
PROMPT_REASON = "It is a prompt of MLflow: its text is in its tags, it has no files."
_SINGULAR = {
    "experiments": "experiment", "runs": "run", "logged models": "logged model", "files": "file", "models": "model",
    "versions": "version", "aliases": "alias",
}  # fmt: skip
NOUNS = tuple(_SINGULAR)
"""What a report counts, in its order."""
_REMEMBERED = 1_000  # addresses whose files are known, for copies and for one model registered many times
_READERS = 4
_BATCH = 100
_FILES_AT_ONCE = 200  # rows of files written together while a run's files are fetched


class MlflowSource(Protocol):
    """What is read: a server (ops/mlflow_reader.py) or a database (storage/mlflow_database.py)."""

    @property
    def label(self) -> str:
        """Where it is, without credentials."""

    @property
    def problems(self) -> Sequence[Problem]:
        """What of it is not read at all."""

    def list_experiments(self) -> Iterator[SourceExperiment]:
        """Yield every experiment."""

    def list_runs(self, experiment_id: str) -> Iterator[SourceRun]:
        """Yield every run of an experiment."""

    def list_model_links(self, run: SourceRun) -> Sequence[ModelLink]:
        """Return the logged models a run read and made."""

    def list_history(self, run_id: str, keys: Sequence[str]) -> Iterator[Metric]:
        """Yield every measurement of these metrics of a run."""

    def list_logged_models(self, experiment_id: str) -> Iterator[SourceLoggedModel]:
        """Yield the logged models of an experiment."""

    def find_logged_model(self, model_id: str) -> SourceLoggedModel | None:
        """Return a logged model, deleted or not, or None."""

    def list_models(self) -> Iterator[SourceModel]:
        """Yield every registered model."""

    def list_versions(self, models: Sequence[SourceModel]) -> Mapping[str, Sequence[SourceVersion]]:
        """Return every version of these models, by name and number."""

    def get_download_uri(self, version: SourceVersion) -> str:
        """Return where a version's files lie. Raises NotFoundError."""


@dataclass(slots=True)
class ImportReport:
    """What an import did, or with `dry_run` would do.

    `came`, `added` (new parts of what was here), `present` (here already, nothing new) and `failed` count objects by what
    they are: experiments, runs, logged models, files, models, versions, aliases. `unsealed` versions are counted in
    `came`, too. `problems` say what did not come, or not as it was; `notes` what else should be known.
    """

    source: str
    dry_run: bool
    came: Counter[str] = field(default_factory=Counter)
    added: Counter[str] = field(default_factory=Counter)
    present: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    unsealed: int = 0
    deleted: int = 0
    fetched_bytes: int = 0
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def fail(self, what: str, subject: str, reason: str, count: int = 1) -> None:
        """Count what did not come, and say why."""
        self.failed[what] += count
        self.problems.append(Problem(_SINGULAR[what], subject[:300], reason))


@contextmanager
def open_source(
    address: str, places: Sequence[str] = (), credentials: Credentials | None = None
) -> Iterator[tuple[MlflowSource, Places]]:
    """Open what `touchmark import mlflow --from` names, and the places its files may be read from.

    Args:
        address: `http(s)://…`, `sqlite:///FILE` or `postgresql://…`.
        places: folders, `file:` addresses or artifact proxies (`http(s)://…`) to look for files in, in this order.
        credentials: for the server and the proxies.

    Raises InvalidFieldError, MissingExtraError, BusyError.

    """
    given = [(text, parse_folder(text)) for text in places]
    folders = [folder for _, folder in given if folder is not None]
    with ExitStack() as opened:
        proxies = [
            opened.enter_context(MlflowHttp(text, credentials, field="artifacts"))
            for text, folder in given
            if folder is None
        ]
        if address.startswith(("http://", "https://")):
            server = opened.enter_context(MlflowHttp(address, credentials, field="from"))
            yield MlflowServer(server), Places(server, folders, proxies)
        elif address.startswith(("sqlite:", "postgresql:", "postgresql+psycopg:")):
            database = opened.enter_context(closing(MlflowDatabase(address)))
            yield database, Places(None, folders, proxies)
        else:
            raise InvalidFieldError(
                field="from", reason="write http(s)://HOST, sqlite:///FILE or postgresql://HOST/NAME"
            )


def import_mlflow(
    registry: Registry,
    source: MlflowSource,
    places: Places,
    *,
    who: Principal = IMPORTER,
    dry_run: bool = False,
    on_progress: Progress | None = None,
) -> ImportReport:
    """Bring in everything that `source` holds and that is not here; with `dry_run`, only say what would come.

    What cannot come is in the report, and stops nothing else. Versions whose files cannot be had come unsealed; a later
    import seals them once their files can be had. A server may use this registry meanwhile.

    Raises BusyError and its cases (StorageFullError; MLflow does not answer), UnauthenticatedError, DeniedError: what came
    stays, and the same import goes on from there.
    """
    work = _Import(registry, who, source, places, ImportReport(source.label, dry_run), on_progress)
    work.report.problems += source.problems
    work.run()
    return work.report


@dataclass(frozen=True, slots=True)
class _ReadRun:
    """A run as it was read: what of it is new here, and the files it has there."""

    run: SourceRun
    clean: CleanRun | None
    is_new: bool
    reason: str | None
    listed: Sequence[PlacedFile]
    place: Place | None
    place_reason: str | None


@dataclass(slots=True)
class _Import:
    """One import under way."""

    registry: Registry
    who: Principal
    source: MlflowSource
    places: Places
    report: ImportReport
    on_progress: Progress | None
    experiment_ids: dict[str, int] = field(default_factory=dict)
    complete: set[ArtifactOwner] = field(default_factory=set)  # whose files all came just now: they need no second look
    logged_models: dict[str, bool] = field(default_factory=dict)  # by id, whether it is here
    named: dict[tuple[str, str], str] = field(default_factory=dict)  # (run, name) to the logged model of that name
    sealed: dict[str, Sequence[VersionFile]] = field(default_factory=dict)  # files by address, for copies
    pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(_READERS, thread_name_prefix="read"))

    def run(self) -> None:
        try:
            for experiment in self.source.list_experiments():
                self._bring_experiment(experiment)
            self._bring_models()
        finally:
            self.pool.shutdown(wait=True, cancel_futures=True)

    def _tell(self, what: str, total: int | None = None) -> None:
        if self.on_progress is not None:
            counted = (self.report.came, self.report.added, self.report.present, self.report.failed)
            self.on_progress(what, sum(counter[what] for counter in counted), total)

    # ── experiments ──────────────────────────────────────────────────────────────────────────────────────────────

    def _bring_experiment(self, source: SourceExperiment) -> None:
        experiment, problems = clean_experiment(source, self.registry.clock())
        self.report.problems += problems
        if self.report.dry_run:
            known = imports.find_experiment_id(self.registry, self.who, experiment.name)
            experiment_id, is_new = (-1, True) if known is None else (known, False)
        else:
            made = imports.import_experiment(self.registry, self.who, experiment)
            experiment_id, is_new = made.experiment_id, made.is_new
            if str(experiment_id) != source.experiment_id:
                self.report.notes.append(
                    f"Experiment {experiment.name!r} has the id {experiment_id} here, {source.experiment_id} there."
                )
        self.experiment_ids[source.experiment_id] = experiment_id
        (self.report.came if is_new else self.report.present)["experiments"] += 1
        self._tell("experiments")
        runs = self.source.list_runs(source.experiment_id)
        while batch := list(islice(runs, _BATCH)):
            self._bring_runs(batch, experiment_id, experiment.deleted_at)
        logged = self.source.list_logged_models(source.experiment_id)
        while models_batch := list(islice(logged, _BATCH)):
            here = imports.find_logged_models(self.registry, self.who, [each.model_id for each in models_batch])
            for each in models_batch:
                self._bring_logged_model(each, experiment_id, here)

    # ── runs ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _bring_runs(self, batch: Sequence[SourceRun], experiment_id: int, experiment_deleted_at: int | None) -> None:
        here = imports.find_runs(self.registry, self.who, [run.run_id for run in batch])
        for run in batch:
            self.places.add_owner("run", run.run_id, run.artifact_uri)
        # MLflow restores an experiment with all its runs; here those come back that share its time (storage/experiments.py).
        if experiment_deleted_at is not None:
            batch = [replace(run, deleted_at=experiment_deleted_at) for run in batch]
        deleted_at = self.registry.clock()

        def read(run: SourceRun) -> _ReadRun:
            return self._read_run(run, here.get(run.run_id), experiment_id, deleted_at)

        for found in run_ahead(self.pool, read, batch, _READERS * 2):
            self._bring_run(found)
            self._tell("runs")

    def _read_run(self, run: SourceRun, here: PresentRun | None, experiment_id: int, deleted_at: int) -> _ReadRun:
        """Read what is new of a run, in a thread of its own. Raises BusyError."""
        listed, place, place_reason = self._list_files(run.artifact_uri)
        try:
            clean = clean_run(run, experiment_id, run.latest.values(), deleted_at)
        except InvalidError as error:
            return _ReadRun(run, None, here is None, error.message, listed, place, place_reason)
        behind = [
            key
            for key, metric in clean.run.metrics.items()
            if here is None or key not in here.latest or rank_metric(metric) > rank_metric(here.latest[key])
        ]
        has_ended = here is not None and here.status in {"RUNNING", "SCHEDULED"} and run.ended_at is not None
        has_more = here is None or (clean.run.params.keys() - here.params) or (clean.run.tags.keys() - here.tags)
        if not (behind or has_more or has_ended):
            return _ReadRun(run, None, here is None, None, listed, place, place_reason)
        if not self.report.dry_run:
            links = self.source.list_model_links(run)
            history = self.source.list_history(run.run_id, behind)
            clean = clean_run(replace(run, models=links), experiment_id, history, deleted_at)
        return _ReadRun(run, clean, here is None, None, listed, place, place_reason)

    def _bring_run(self, found: _ReadRun) -> None:
        run, report = found.run, self.report
        if found.reason is not None:
            report.fail("runs", run.run_id, found.reason)
            return
        if found.clean is None:
            report.present["runs"] += 1
        else:
            report.problems += found.clean.problems
            (report.came if found.is_new else report.added)["runs"] += 1
            if not report.dry_run:
                imports.import_run(self.registry, self.who, found.clean)
        owner = ArtifactOwner("run", run.run_id)
        self._bring_files(owner, found.listed, found.place, found.place_reason)

    # ── files of runs and logged models ──────────────────────────────────────────────────────────────────────────

    def _list_files(self, uri: str) -> tuple[Sequence[PlacedFile], Place | None, str | None]:
        """Return what lies at an address, or why that cannot be said."""
        if not uri:
            return [], None, None
        try:
            place = self.places.get_place(uri)
            return place.list_files(), place, None
        except (UnsupportedError, NotFoundError, InvalidError) as error:
            return [], None, error.message
        except BusyError as error:
            return [], None, _forgive(error)

    def _bring_files(
        self, owner: ArtifactOwner, listed: Sequence[PlacedFile], place: Place | None, reason: str | None
    ) -> None:
        subject, report = f"{owner.kind.replace('_', ' ')} {owner.id}", self.report
        if place is None:
            if reason is not None:
                report.fail("files", subject, reason)
            return
        here = imports.list_file_sizes(self.registry, self.who, owner)
        wanted: list[PlacedFile] = []
        is_whole = not here
        for file in listed:
            if file.path in here:
                report.present["files"] += 1
                if file.size_bytes is not None and file.size_bytes != here[file.path]:
                    report.notes.append(f"{file.path!r} of {subject} differs there; it stays as it is here.")
                continue
            try:
                check_path(file.path)
            except InvalidError as error:
                report.fail("files", f"{subject}: {file.path}", error.message)
                is_whole = False
                continue
            wanted.append(file)
        if report.dry_run:
            report.came["files"] += len(wanted)
            report.fetched_bytes += sum(file.size_bytes or 0 for file in wanted)
            return
        ready: dict[str, StoredBlob] = {}
        for fetched in fetch_files(self.registry.blobs, place, wanted):
            if fetched.blob is None:
                report.fail("files", f"{subject}: {fetched.path}", str(fetched.reason))
                is_whole = False
                continue
            ready[fetched.path] = fetched.blob
            report.fetched_bytes += fetched.blob.size_bytes
            if len(ready) >= _FILES_AT_ONCE:
                is_whole &= self._write_files(owner, ready)
                ready = {}
        is_whole &= self._write_files(owner, ready)
        if is_whole:
            self.complete.add(owner)

    def _write_files(self, owner: ArtifactOwner, ready: Mapping[str, StoredBlob]) -> bool:
        if not ready:
            return True
        try:
            imports.import_files(self.registry, self.who, owner, ready)
        except (InvalidError, NotFoundError) as error:
            self.report.fail("files", f"{owner.kind} {owner.id}", error.message, len(ready))
            return False
        self.report.came["files"] += len(ready)
        self._tell("files")
        return True

    # ── logged models ────────────────────────────────────────────────────────────────────────────────────────────

    def _bring_logged_model(self, model: SourceLoggedModel, experiment_id: int, here: Mapping[str, int]) -> None:
        report = self.report
        self.places.add_owner("logged_model", model.model_id, model.artifact_uri)
        if model.run_id is not None and not model.is_deleted:
            self.named[model.run_id, model.name] = model.model_id
        owner = ArtifactOwner("logged_model", model.model_id)
        try:
            has_run = bool(
                model.run_id and (report.dry_run or imports.find_runs(self.registry, self.who, [model.run_id]))
            )
            clean = clean_logged_model(model, experiment_id, has_run=has_run)
        except InvalidError as error:
            report.fail("logged models", model.model_id, error.message)
            return
        report.problems += clean.problems
        known = here.get(model.model_id)
        if known is not None and known >= model.updated_at:
            report.present["logged models"] += 1
        else:
            (report.came if known is None else report.added)["logged models"] += 1
            if not report.dry_run:
                imports.import_logged_model(self.registry, self.who, clean)
        self.logged_models[model.model_id] = True
        self._bring_files(owner, *self._list_files(model.artifact_uri))
        self._tell("logged models")

    def _bring_hidden(self, model_id: str) -> None:
        """Bring a logged model that no list named: MLflow's server tells of deleted ones only if asked by id."""
        if model_id in self.logged_models:
            return
        self.logged_models[model_id] = False
        found = self.source.find_logged_model(model_id)
        experiment_id = self.experiment_ids.get(found.experiment_id) if found is not None else None
        if found is not None and experiment_id is not None:
            here = imports.find_logged_models(self.registry, self.who, [model_id])
            self._bring_logged_model(found, experiment_id, here)

    # ── models and versions ──────────────────────────────────────────────────────────────────────────────────────

    def _bring_models(self) -> None:
        listed = list(self.source.list_models())
        found = self.source.list_versions(listed)
        for name, of_model in found.items():
            for version in of_model:
                self.places.versions[name, version.number] = version.download_uri or version.source
        plans: list[_Plan] = []
        for model in listed:
            plan = self._plan_model(model, found.get(model.name, ()))
            if plan is not None:
                plans.append(plan)
        total = (
            sum(len(plan.queue) for plan in plans) + self.report.present["versions"] + self.report.failed["versions"]
        )
        for plan, version in _merge(plans):
            self._bring_version(plan, version)
            self._tell("versions", total)
        for plan in plans:
            for alias, number in sorted(plan.model.aliases.items()):
                self._bring_alias(plan, alias, number)

    def _plan_model(self, model: SourceModel, found: Sequence[SourceVersion]) -> _Plan | None:
        """Bring the model itself, and return which of its versions are to come."""
        report = self.report
        try:
            name = parse_model_name(model.name)
            here = imports.find_model(self.registry, self.who, name)
            if here is None:
                self._create_model(model)
            elif not here.is_deleted:
                self._add_to_model(model, here)
        except (InvalidError, ConflictError) as error:
            report.fail("models", model.name, error.message)
            if found:
                report.fail("versions", model.name, "its model did not come", len(found))
            return None
        every = _fill_gaps(model.name, found)
        if here is None:
            return _Plan(model, name, [], every)
        if here.is_deleted:
            report.present["models"] += 1
            report.present["versions"] += len(every)
            report.notes.append(f"Model {name!r} was deleted here: it stays so, with its versions.")
            return None
        known = {version.version: version for version in here.versions}
        others = [
            each.number
            for each in every
            if each.number in known and not is_same_version(known[each.number].origin, each)
        ]
        if others:
            reason = "number " + ", ".join(map(str, others[:20])) + " is another version here"
            missing = [each for each in every if each.number not in known]
            if missing:
                reason += ", and numbers are not changed: none of its newer ones came"
            report.fail("versions", name, reason, len(others) + len(missing))
            every = [each for each in every if each.number in known and each.number not in others]
        for each in every:
            if each.number in known:
                self._add_to_version(model, each, known[each.number])
        return _Plan(model, here.name, list(here.versions), [each for each in every if each.number not in known])

    def _create_model(self, model: SourceModel) -> None:
        report = self.report
        clean, problems = _clean_model(model)
        report.problems += problems
        if not report.dry_run:
            tags, description = clean
            models.create_model(self.registry, self.who, model.name, description=description, tags=tags)
        report.came["models"] += 1
        self._tell("models")

    def _add_to_model(self, model: SourceModel, here: imports.PresentModel) -> None:
        report = self.report
        (tags, description), problems = _clean_model(model)
        report.problems += problems
        missing = {key: value for key, value in tags.items() if key not in here.tags}
        lacks_text = description is not None and not here.description
        if not missing and not lacks_text:
            report.present["models"] += 1
            return
        report.added["models"] += 1
        if not report.dry_run:
            models.set_model_tags(self.registry, self.who, here.name, missing)
            if lacks_text:
                models.update_model(self.registry, self.who, here.name, description=description)

    def _bring_version(self, plan: _Plan, version: SourceVersion) -> None:
        report, subject = self.report, f"{version.name}/{version.number}"
        clean = clean_version(version, self.source.label)
        if clean.logged_model_id is not None and not version.is_deleted:
            self._bring_hidden(clean.logged_model_id)
        files, reason = None, None
        if not version.is_deleted and clean.state is VersionState.READY:
            files, reason = self._find_files(plan.model, version)
        try:
            is_sealed = files is not None
            if not report.dry_run:
                made = imports.import_version(self.registry, self.who, plan.name, clean, files, reason=reason)
                is_sealed, reason = made.sealed, made.status_message
                plan.here.append(made)
        except (InvalidError, ConflictError, NotFoundError) as error:
            report.fail("versions", subject, error.message)
            return
        report.problems += clean.problems
        report.came["versions"] += 1
        report.deleted += clean.is_deleted
        if not is_sealed and not clean.is_deleted:
            report.unsealed += 1
            if reason != PROMPT_REASON and clean.state is VersionState.READY:
                report.problems.append(Problem("version", subject, f"unsealed: {reason}"))

    def _add_to_version(self, model: SourceModel, there: SourceVersion, here: ModelVersion) -> None:
        """Bring what is new of a version that is here: tags it lacks, a stage, and its files if they could not be had."""
        report = self.report
        if here.deleted_at is not None or there.is_deleted:
            report.present["versions"] += 1
            return
        clean = clean_version(there, self.source.label)
        missing = {key: value for key, value in clean.tags.items() if key not in here.tags}
        stage = clean.stage if here.stage is Stage.NONE else here.stage
        is_added = bool(missing) or stage is not here.stage
        if not report.dry_run:
            if missing:
                versions.set_version_tags(self.registry, self.who, here.name, here.version, missing)
            if stage is not here.stage:
                stages.set_stage(self.registry, self.who, here.name, here.version, stage, archive_others=False)
        if not here.sealed and here.state is VersionState.READY:
            is_added |= self._seal(model, there, here, clean)
        (report.added if is_added else report.present)["versions"] += 1

    def _seal(self, model: SourceModel, there: SourceVersion, here: ModelVersion, clean: CleanVersion) -> bool:
        report = self.report
        if clean.logged_model_id is not None:
            self._bring_hidden(clean.logged_model_id)
        files, reason = self._find_files(model, there)
        if files is not None and not report.dry_run:
            try:
                imports.seal_imported_version(self.registry, self.who, here, files)
            except InvalidError as error:
                files, reason = None, error.message
        if files is None and reason != PROMPT_REASON:
            report.unsealed += 1
            report.problems.append(Problem("version", f"{there.name}/{there.number}", f"unsealed: {reason}"))
        return files is not None

    def _bring_alias(self, plan: _Plan, alias: str, number: int) -> None:
        report, subject = self.report, f"{plan.model.name}@{alias}"
        target = next((version for version in plan.here if version.version == number), None)
        try:
            parse_alias(alias)
            here = None if not plan.is_here else self._find_alias(plan, alias)
            if here is not None and here.version == number:
                report.present["aliases"] += 1
                return
            if here is not None and here.moved_by != self.who.id:
                report.present["aliases"] += 1
                report.notes.append(f"{subject} is at {number} there; it was moved here and stays at {here.version}.")
                return
            if target is None and not report.dry_run:
                report.fail("aliases", subject, f"version {number} is not here")
                return
            if not report.dry_run:
                aliases.set_alias(self.registry, self.who, plan.name, alias, number)
            (report.came if here is None else report.added)["aliases"] += 1
        except (InvalidError, ConflictError, NotFoundError) as error:
            report.fail("aliases", subject, error.message)

    def _find_alias(self, plan: _Plan, alias: str) -> Alias | None:
        listed = aliases.list_aliases(self.registry, self.who, plan.name)
        return next((each for each in listed if each.alias == alias), None)

    # ── a version's files ────────────────────────────────────────────────────────────────────────────────────────

    def _find_files(
        self, model: SourceModel, version: SourceVersion
    ) -> tuple[Sequence[VersionFile] | None, str | None]:
        """Fetch a version's files (with `dry_run`, see that they are there), or say why they cannot be had."""
        if model.is_prompt or is_prompt(version.tags):
            return None, PROMPT_REASON
        try:
            address = self.places.follow(self.source.get_download_uri(version))
            if address not in self.sealed:
                if len(self.sealed) >= _REMEMBERED:
                    self.sealed.pop(next(iter(self.sealed)))
                self.sealed[address] = self._fetch_address(address)
            return self.sealed[address], None
        except (NotFoundError, UnsupportedError, InvalidError, LimitExceededError) as error:
            return None, error.message
        except BusyError as error:
            return None, _forgive(error)

    def _fetch_address(self, address: str) -> Sequence[VersionFile]:
        owned = self.places.find_owner(address)
        if owned is not None and ArtifactOwner(*owned[0]) in self.complete:
            files = imports.list_files(self.registry, self.who, ArtifactOwner(*owned[0]), owned[1])
            if files:
                return files
        place = self.places.get_place(address)
        listed = place.list_files()
        if not listed and owned is not None and (owned[0][1], owned[1]) in self.named:
            # MLflow 3 keeps a model logged in a run beside the run's files, under its name.
            model_id = self.named[owned[0][1], owned[1]]
            return self._fetch_address(self.places.roots["logged_model", model_id])
        if not listed:
            raise NotFoundError(f"There is no file at {address[:300]!r}.")
        if self.report.dry_run:
            if owned is None:  # else its owner's files are counted
                self.report.fetched_bytes += sum(file.size_bytes or 0 for file in listed)
            return []
        files = []
        for fetched in fetch_files(self.registry.blobs, place, listed):
            if fetched.blob is None:
                raise NotFoundError(f"{fetched.path!r} at {address[:300]!r}: {fetched.reason}.")
            self.report.fetched_bytes += fetched.blob.size_bytes
            files.append(VersionFile(fetched.path, fetched.blob.size_bytes, fetched.blob.digest))
        return files


@dataclass(slots=True)
class _Plan:
    """A model that is here (or would be), its versions here, and those that are to come, by number."""

    model: SourceModel
    name: str
    here: list[ModelVersion]
    queue: Sequence[SourceVersion]

    @property
    def is_here(self) -> bool:
        """Whether it can be asked for its aliases."""
        return bool(self.here)


def _fill_gaps(name: str, found: Sequence[SourceVersion]) -> list[SourceVersion]:
    """Return the versions from 1 on; a number that is not there was taken by a version that MLflow deleted."""
    known = {version.number: version for version in found if version.number >= 1}
    return [known.get(number) or _deleted(name, number) for number in range(1, max(known, default=0) + 1)]


def _deleted(name: str, number: int) -> SourceVersion:
    return SourceVersion(
        name=name, number=number, created_at=None, updated_at=None, description=None, user=None, stage="None", source="",
        download_uri=None, run_id=None, run_link=None, status="READY", status_message=None, is_deleted=True,
    )  # fmt: skip


def _merge(plans: Iterable[_Plan]) -> Iterator[tuple[_Plan, SourceVersion]]:
    """Yield the versions to come in the order of their creation, but those of one model by number."""
    heads: list[tuple[int, int, int, _Plan]] = []
    for order, plan in enumerate(plans):
        if plan.queue:
            heads.append((plan.queue[0].created_at or 0, order, 0, plan))
    heapq.heapify(heads)
    while heads:
        at, order, place, plan = heapq.heappop(heads)
        yield plan, plan.queue[place]
        if place + 1 < len(plan.queue):
            after = max(at, plan.queue[place + 1].created_at or 0)
            heapq.heappush(heads, (after, order, place + 1, plan))


def _clean_model(model: SourceModel) -> tuple[tuple[dict[str, str], str | None], list[Problem]]:
    cleaner = Cleaner("model", model.name)
    return (cleaner.tags(model.tags), cleaner.text("description", model.description)), cleaner.problems


def _forgive(error: BusyError) -> str:
    """Return what an answer of 500 says of one file; what says that nothing can be had now is raised again."""
    if isinstance(error, StorageFullError) or error.fields.get("status") != 500:
        raise error
    return error.message

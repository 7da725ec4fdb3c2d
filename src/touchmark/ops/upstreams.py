"""Importing from upstream: MLflow tracking servers beside which this registry stands, and the files of waiting versions.

A team may send only its registry calls here (MLFLOW_REGISTRY_URI) and keep its tracking server. What is registered then
lies there. With that server in the settings, the version waits (PENDING_REGISTRATION), one thread here fetches its files
and what its run and logged model say, and it is sealed. MLflow's clients wait for that by themselves.

Only the servers of the settings are asked: a source never says where to connect. Several processes may do this at once.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from touchmark.domain.access import SYSTEM
from touchmark.domain.errors import (
    BusyError,
    DeniedError,
    InvalidError,
    NotFoundError,
    StorageFullError,
    TouchmarkError,
    UnauthenticatedError,
    UnsupportedError,
)
from touchmark.domain.imports import SourceLoggedModel, SourceRun, clean_logged_model, clean_run
from touchmark.domain.names import is_logged_model_id
from touchmark.domain.tracking import LoggedModel, Run
from touchmark.domain.versions import ModelVersion, VersionFile
from touchmark.ops.mlflow_files import Place, PlacedFile, Places, fetch_files
from touchmark.ops.mlflow_http import Credentials, MlflowHttp
from touchmark.ops.mlflow_reader import MlflowServer
from touchmark.registry import Registry
from touchmark.services import sealing

POLL_SECONDS = 5.0
"""How often waiting versions are looked for that another process registered, or left behind."""
ATTEMPTS = 3
"""How often a version's import is tried while an upstream does not answer. Each file is tried five times by itself."""
PAUSE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Upstream:
    """A tracking server to import from, and what to say who we are."""

    url: str
    credentials: Credentials


@dataclass(frozen=True, slots=True)
class _Found:
    """Where a version's files lie upstream, and what is told of them there."""

    server: MlflowServer
    place: Place
    files: Sequence[PlacedFile]
    run: SourceRun | None
    logged_model: SourceLoggedModel | None


class Importer:
    """The thread that ends the waiting of versions. `refuses` says that one without files fails, rather than being unsealed."""

    def __init__(self, registry: Registry, upstreams: Sequence[Upstream], *, refuses: bool) -> None:
        """Get ready to ask these servers, in this order. Raises InvalidFieldError for a wrong address."""
        self._registry, self._refuses = registry, refuses
        self._servers = [MlflowServer(MlflowHttp(upstream.url, upstream.credentials)) for upstream in upstreams]
        self._holder = secrets.token_hex(8)
        self._wake, self._stopping = threading.Event(), False
        self._thread = threading.Thread(target=self._run, name="importer", daemon=True)

    def start(self) -> None:
        """Begin; at once with whatever was left waiting."""
        self._thread.start()

    def wake(self) -> None:
        """Say that a version waits."""
        self._wake.set()

    def stop(self) -> None:
        """End after the file under way; a version half fetched is taken up again by whoever comes next."""
        self._stopping = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(5)
        for server in self._servers:
            server.http.close()

    def _run(self) -> None:
        while not self._stopping:
            self._wake.clear()
            try:
                while not self._stopping and self.import_one():
                    pass
            except TouchmarkError:  # the database does not answer, or the disk is full: later
                self._wake.wait(PAUSE_SECONDS)
            self._wake.wait(POLL_SECONDS)

    def import_one(self) -> bool:
        """Import one waiting version, if there is one; answers whether there was."""
        version = sealing.claim_pending(self._registry, SYSTEM, self._holder)
        if version is None:
            return False
        reason = ""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                self._import(version)
                return True
            except StorageFullError:
                raise
            except BusyError as error:
                reason = f"It could not be imported: {error.message}"
                if attempt < ATTEMPTS and not self._stopping:
                    time.sleep(PAUSE_SECONDS * attempt)
            except (NotFoundError, InvalidError, UnsupportedError, DeniedError, UnauthenticatedError) as error:
                reason = error.message
                break
            except Exception as error:  # noqa: BLE001 - one version's address or files must not stop the others' imports
                reason = f"It could not be imported ({type(error).__name__})."
                break
            if self._stopping:
                return False
        sealing.give_up(self._registry, SYSTEM, version.version_id, reason[:2000], failed=self._refuses)
        return True

    def _import(self, version: ModelVersion) -> None:
        found = self._find(version)
        files: list[VersionFile] = []
        renewed = time.monotonic()
        for fetched in fetch_files(self._registry.blobs, found.place, found.files):
            if self._stopping:
                raise BusyError
            if fetched.blob is None:
                raise InvalidError(f"{fetched.path!r} of {version.source!r} could not be imported: {fetched.reason}.")
            files.append(VersionFile(fetched.path, fetched.blob.size_bytes, fetched.blob.digest))
            if time.monotonic() - renewed > sealing.LEASE_SECONDS / 4:
                renewed = time.monotonic()
                if not sealing.renew_lease(self._registry, SYSTEM, version.version_id, self._holder):
                    return  # somebody else fetches it now
        run, logged_model = _clean(found)
        sealing.seal_version(
            self._registry,
            SYSTEM,
            version.version_id,
            files,
            run=run,
            logged_model=logged_model,
            experiment=None,
            imported={"from": found.server.label, "source": version.source},
        )

    def _find(self, version: ModelVersion) -> _Found:
        """Return where the files are, at the first server that has them. Raises NotFoundError with what each one said."""
        said = []
        for server in self._servers:
            try:
                return _find_at(server, version)
            except (NotFoundError, UnsupportedError) as error:
                said.append(f"{server.label}: {error.message}")
        raise NotFoundError(f"No upstream server has its files. {' '.join(said)}")


def _find_at(server: MlflowServer, version: ModelVersion) -> _Found:
    places = Places(server=server.http)
    source, model_id, run_id = version.source, version.logged_model_id, version.run_id
    if source.startswith("models:/") and is_logged_model_id(source.removeprefix("models:/").partition("/")[0]):
        model_id = source.removeprefix("models:/").partition("/")[0]
    if source.startswith("runs:/"):
        run_id = source.removeprefix("runs:/").partition("/")[0]
    model = server.find_logged_model(model_id) if model_id else None
    run_id = run_id or (model.run_id if model is not None else None)
    run = server.find_run(run_id) if run_id else None
    if run is not None:
        places.add_owner("run", run.run_id, run.artifact_uri)
    if model is not None:
        places.add_owner("logged_model", model.model_id, model.artifact_uri)
    if run is None and model is None:
        raise NotFoundError("it knows neither the run nor the logged model.")
    files: list[PlacedFile] = []
    place = places.get_place(source)
    if places.find_owner(places.follow(source)) is None:
        raise NotFoundError("the source lies neither in the run nor in the logged model.")
    files = place.list_files()
    if not files and run is not None and source.startswith("runs:/"):
        # MLflow 3 keeps a model logged in a run beside the run's files, under its name.
        name = source.removeprefix("runs:/").partition("/")[2].strip("/")
        for link in server.list_model_links(run):
            other = server.find_logged_model(link.model_id)
            if link.role == "output" and other is not None and other.name == name and not other.is_deleted:
                model = other
                places.add_owner("logged_model", other.model_id, other.artifact_uri)
                place = places.get_place(f"models:/{other.model_id}")
                files = place.list_files()
                break
    if not files:
        raise NotFoundError("there is no file at the source.")
    return _Found(server, place, files, run, model)


def _clean(found: _Found) -> tuple[Run | None, LoggedModel | None]:
    run = model = None
    if found.run is not None:
        run = clean_run(found.run, 0, found.run.latest.values(), 0).run
    if found.logged_model is not None:
        model = clean_logged_model(found.logged_model, 0, has_run=True).model
    return run, model

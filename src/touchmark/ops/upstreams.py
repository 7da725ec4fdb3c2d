"""Importing the files of waiting versions: from MLflow tracking servers beside this registry, and from allowed addresses.

A team may send only its registry calls here (MLFLOW_REGISTRY_URI) and keep its tracking server. What is registered then
lies there. With that server in the settings, the version waits (PENDING_REGISTRATION), a thread here fetches its files
and what its run and logged model say, and it is sealed. MLflow's clients wait for that by themselves. A version whose
source is an address on the allow-list (domain/addresses.py) waits and is fetched likewise.

Only the servers of the settings are asked: a source never says where to connect. Several processes may do this at once.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Self

from touchmark.domain.access import SYSTEM
from touchmark.domain.addresses import Address, ImportRules, find_address
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
from touchmark.domain.versions import ImportProgress, ModelVersion, VersionFile
from touchmark.ops.addresses import Meter, fetch_listing, open_place
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
IMPORTS = 2
"""Versions imported at once, so that a large one does not keep the others waiting."""
NO_IMPORTS = ImportRules()


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
    """The threads that end the waiting of versions. `refuses` says that one without files fails, rather than being unsealed."""

    def __init__(
        self,
        registry: Registry,
        upstreams: Sequence[Upstream],
        rules: ImportRules = NO_IMPORTS,
        *,
        refuses: bool,
        log: Callable[[str], None] = lambda _line: None,
    ) -> None:
        """Get ready to ask these servers, in this order, and these addresses. Raises InvalidFieldError for a wrong one.

        `log` is told, a line each, when a server of the settings stops to answer, and when it answers again.
        """
        self._registry, self._rules, self._refuses, self._log = registry, rules, refuses, log
        self._servers = [MlflowServer(MlflowHttp(upstream.url, upstream.credentials)) for upstream in upstreams]
        self._silent_since: dict[str, datetime] = {}
        self._working = threading.local()
        for server in self._servers:
            server.http.watch = partial(self._hear, server.http.url)
        self._wake, self._stopping = threading.Event(), threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(secrets.token_hex(8),), name="importer", daemon=True)
            for _ in range(IMPORTS)
        ]

    @property
    def has_upstreams(self) -> bool:
        """Whether versions of runs that are not known here can be imported."""
        return bool(self._servers)

    def start(self) -> None:
        """Begin; at once with whatever was left waiting."""
        for thread in self._threads:
            thread.start()

    def wake(self) -> None:
        """Say that a version waits."""
        self._wake.set()

    def stop(self) -> None:
        """End with the bytes under way; a version half fetched is taken up again by whoever comes next."""
        self._stopping.set()
        self._wake.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(5)
        for server in self._servers:
            server.http.close()

    def _run(self, holder: str) -> None:
        while not self._stopping.is_set():
            self._wake.clear()
            try:
                while not self._stopping.is_set() and self.import_one(holder):
                    pass
            except TouchmarkError:  # the database does not answer, or the disk is full: later
                self._stopping.wait(PAUSE_SECONDS)
            self._wake.wait(POLL_SECONDS)

    def _hear(self, url: str, reason: str | None) -> None:
        """Tell the log and the version under way that a server does not answer, or (None) that it does again."""
        keeper: _Keeper | None = getattr(self._working, "keeper", None)
        if reason is None:
            since = self._silent_since.pop(url, None)
            if since is not None:
                self._log(f"The upstream server {url} answers again; it was silent since {since:%H:%M:%S} UTC.")
            trouble = None
        else:
            now = datetime.now(UTC)
            since = self._silent_since.setdefault(url, now)  # in one step: two versions may wait for it
            if since is now:
                self._log(f"The upstream server {url} does not answer ({reason}); versions wait for it.")
            trouble = (
                f"Its files are to be imported from {url}, which has not answered since {since:%H:%M:%S} UTC "
                f"({reason}). It is asked again for about a minute, then the version stays unsealed."
            )
        if keeper is not None:
            keeper.tell_trouble(trouble)

    def import_one(self, holder: str) -> bool:
        """Import one waiting version, if there is one; answers whether there was."""
        version = sealing.claim_pending(self._registry, SYSTEM, holder)
        if version is None:
            return False
        keeper = _Keeper(self._registry, version.version_id, holder, self._stopping)
        self._working.keeper = keeper
        try:
            with keeper:
                reason = self._try(version, keeper)
        finally:
            self._working.keeper = None
            if self._stopping.is_set():
                with suppress(TouchmarkError):
                    sealing.release(self._registry, SYSTEM, version.version_id, holder)
        if reason is not None and not keeper.must_stop:
            sealing.give_up(self._registry, SYSTEM, version.version_id, reason[:2000], failed=self._refuses)
        return True

    def _try(self, version: ModelVersion, keeper: _Keeper) -> str | None:
        """Import a version; answers why it could not be, None if it was."""
        reason = ""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                self._import(version, keeper)
                return None
            except StorageFullError:
                raise
            except BusyError as error:
                reason = f"It could not be imported: {error.message}"
            except (NotFoundError, InvalidError, UnsupportedError, DeniedError, UnauthenticatedError) as error:
                return error.message
            if attempt < ATTEMPTS and self._stopping.wait(PAUSE_SECONDS * attempt):
                break
            if keeper.must_stop:
                break
        return reason

    def _import(self, version: ModelVersion, keeper: _Keeper) -> None:
        """Import a version from the upstream that has it, else from its address.

        Raises NotFoundError and what the place raises.
        """
        address = find_address(version.source) if self._rules.lists(version.source) else None
        if address is None or (self._servers and (version.run_id or version.logged_model_id)):
            try:
                return self._import_upstream(version, keeper)
            except NotFoundError:
                if address is None or keeper.is_listed:
                    raise
        return self._import_address(version, address, keeper)

    def _import_upstream(self, version: ModelVersion, keeper: _Keeper) -> None:
        found = self._find(version)
        sizes = [file.size_bytes for file in found.files]
        keeper.begin(len(found.files), None if None in sizes else sum(size or 0 for size in sizes))
        files: list[VersionFile] = []
        meter = Meter(self._rules.max_bytes, lambda: keeper.must_stop)
        keeper.watch(meter)
        for fetched in fetch_files(self._registry.blobs, found.place, found.files, meter.add):
            if fetched.blob is None:
                raise InvalidError(f"{fetched.path!r} of {version.source!r} could not be imported: {fetched.reason}.")
            file = VersionFile(fetched.path, fetched.blob.size_bytes, fetched.blob.digest)
            files.append(file)
            keeper.note(file, None)
        run, logged_model = _clean(found)
        self._seal(version, keeper, files, {"from": found.server.label}, run, logged_model)

    def _import_address(self, version: ModelVersion, address: Address, keeper: _Keeper) -> None:
        place = open_place(self._rules, address)
        try:
            meter = Meter(self._rules.max_bytes, lambda: keeper.must_stop)
            try:
                listing = place.list_files()
            except (NotFoundError, InvalidError):  # it was reached, and has nothing, or nothing that can be taken
                keeper.begin(0, None)
                raise
            keeper.begin(len(listing.files), listing.size_bytes)
            meter.check_listing(listing, version.source)
            keeper.watch(meter)
            have = sealing.list_fetched(self._registry, SYSTEM, version.version_id)
            files = list(fetch_listing(self._registry.blobs, place, listing, have, meter, keeper.note))
        finally:
            place.close()
        entry = self._rules.find(address)
        found = {"from": entry.prefix if entry is not None else address.scheme, "revision": listing.revision}
        self._seal(version, keeper, files, {key: value for key, value in found.items() if value is not None})

    def _seal(
        self,
        version: ModelVersion,
        keeper: _Keeper,
        files: Sequence[VersionFile],
        imported: Mapping[str, str],
        run: Run | None = None,
        logged_model: LoggedModel | None = None,
    ) -> None:
        if keeper.must_stop:
            raise BusyError("The import was stopped.")
        sealing.seal_version(
            self._registry,
            SYSTEM,
            version.version_id,
            files,
            run=run,
            logged_model=logged_model,
            experiment=None,
            imported={**imported, "source": version.source},
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


class _Keeper:
    """Keeps the lease of one import, and tells how far it is; a thread, for a file may take an hour."""

    def __init__(self, registry: Registry, version_id: int, holder: str, stopping: threading.Event) -> None:
        self._registry, self._version_id, self._holder, self._stopping = registry, version_id, holder, stopping
        self._lock, self._is_over, self._is_lost = threading.Lock(), threading.Event(), False
        self._total: tuple[int, int | None] | None = None
        self._done, self._new = 0, list[tuple[VersionFile, str | None]]()
        self._meter: Meter | None = None
        self._told: ImportProgress | None = None
        self._told_at = time.monotonic()
        self._thread = threading.Thread(target=self._keep, name="import-lease", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._is_over.set()
        self._thread.join()
        with suppress(TouchmarkError):  # what was fetched since is noted, for whoever goes on
            if not self._is_lost:
                self._tell()

    @property
    def must_stop(self) -> bool:
        """Whether the server ends, or somebody else fetches the version now."""
        return self._stopping.is_set() or self._is_lost

    @property
    def is_listed(self) -> bool:
        """Whether something of it was readable."""
        return self._total is not None

    def begin(self, files: int, size_bytes: int | None) -> None:
        """Say what there is. Raises BusyError if that cannot be noted: from here on the version cannot be unsealed."""
        with self._lock:
            self._total, self._done, self._meter = (files, size_bytes), 0, None
        self._tell()

    def watch(self, meter: Meter) -> None:
        """Tell of what a meter counts."""
        with self._lock:
            self._meter = meter

    def note(self, file: VersionFile, mark: str | None) -> None:
        """Say that a file is here."""
        with self._lock:
            self._done += 1
            self._new.append((file, mark))

    def tell_trouble(self, trouble: str | None) -> None:
        """Let whoever looks at the version read what it waits for."""
        with suppress(TouchmarkError):  # it is for people, and the next try tells it again
            sealing.note_trouble(self._registry, SYSTEM, self._version_id, self._holder, trouble)

    def _keep(self) -> None:
        while not self._is_over.wait(1.0):
            with suppress(TouchmarkError):  # the database does not answer: the lease may still be ours when it does
                self._tell()

    def _tell(self) -> None:
        with self._lock:
            files, self._new = self._new, []
            meter, total = self._meter, self._total
            done_bytes = meter.done_bytes if meter is not None else 0
            progress = None if total is None else ImportProgress(done_bytes, total[1], self._done, total[0])
        is_due = time.monotonic() - self._told_at > sealing.LEASE_SECONDS / 4
        if not files and progress == self._told and not is_due:
            return
        try:
            if progress is None:
                is_ours = sealing.renew_lease(self._registry, SYSTEM, self._version_id, self._holder)
            else:
                is_ours = sealing.note_progress(self._registry, SYSTEM, self._version_id, self._holder, progress, files)
        except TouchmarkError:
            with self._lock:
                self._new = files + self._new
            raise
        self._told, self._told_at = progress, time.monotonic()
        self._is_lost = self._is_lost or not is_ours


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

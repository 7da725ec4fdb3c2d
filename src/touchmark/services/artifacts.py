"""Artifacts: the list of files of a run or a logged model, each a path that points at a blob. Tracking: not in the log.

The list may change until its owner is deleted, also after a run has ended and when a logged model is READY; a version
registered from it keeps the manifest it was sealed with. Beside it, read only: the files of sealed versions by digest.

`experiment_id`, where a caller gives one, must be that of the owner: an address that names another one names nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Protocol, Self

from touchmark import permissions
from touchmark.artifacts.blobs import BlobWriter, StoredBlob
from touchmark.artifacts.manifests import parse_manifest
from touchmark.domain.access import Action, Principal, Resource
from touchmark.domain.digest import Digest, parse_digest
from touchmark.domain.errors import (
    ArtifactNotFoundError,
    BlobNotFoundError,
    InvalidPathError,
    LimitExceededError,
    ManifestNotFoundError,
    VersionPurgedError,
    VersionUnsealedError,
)
from touchmark.domain.names import parse_model_name
from touchmark.domain.paths import check_path
from touchmark.domain.tracking import Artifact, ArtifactEntry, ArtifactOwner, check_owner
from touchmark.domain.versions import VersionFile, VersionState
from touchmark.registry import Registry
from touchmark.services.blobs import ReadableBlob
from touchmark.services.registration import prepare_manifest
from touchmark.storage import artifacts as rows
from touchmark.storage import blobs, manifests, versions
from touchmark.storage.engine import Tx

FILES_LIMIT = 10_000
"""Files in one request."""
PREPARED_FILES = 64
"""Files set at once in one folder of a run, from which on their headers are read then: somebody will register them."""
NAMES_LIMIT = 20_000
"""Files and the folders above them in one request: deep paths are looked up folder by folder."""


def set_artifacts(registry: Registry, who: Principal, owner: ArtifactOwner, files: Mapping[str, str]) -> list[Artifact]:
    """Let paths of a run or a logged model point at blobs, all of them or none; a path that is there is replaced.

    Each blob must have been uploaded into `owner.repository`: to know a digest is not to have access. Four statements,
    whatever the number of files (one more beyond 10,000 files and folders). PREPARED_FILES and more in one folder of a
    run are described besides (`prepare_manifest`), so that their registration is about names alone.

    Raises InvalidFieldError, InvalidPathError (also where a path would be a file and a folder), InvalidDigestError,
    LimitExceededError, RunNotFoundError, RunDeletedError, LoggedModelNotFoundError, BlobNotFoundError.
    """
    owner = check_owner(owner)
    if len(files) > FILES_LIMIT:
        raise LimitExceededError(what="One request", limit=FILES_LIMIT, unit="files")
    checked = {check_path(path): parse_digest(digest) for path, digest in files.items()}
    names = _list_names(checked)
    with registry.track() as tx:
        permissions.require(tx, who, Action.WRITE_TRACKING, Resource(owner.kind, owner.id))
        rows.lock_owner(tx, owner)
        sizes = rows.find_sizes(tx, owner, checked.values())
        for path, digest in checked.items():
            if digest not in sizes:
                message = f"The bytes of {path!r} ({digest}) were not uploaded here: upload them first."
                raise BlobNotFoundError(message, digest=digest)
        made = _set(tx, owner, checked, sizes, names)
    tops = {path.partition("/")[0] for path in checked}
    if owner.kind == "run" and len(checked) >= PREPARED_FILES and len(tops) == 1:
        prepare_manifest(registry, who, owner, tops.pop())
    return made


def _set(
    tx: Tx, owner: ArtifactOwner, files: Mapping[str, Digest], sizes: Mapping[str, int], names: Iterable[str]
) -> list[Artifact]:
    made = rows.set_artifacts(tx, owner, files, sizes)
    clash = rows.find_clash(tx, owner, names)
    if clash is not None:
        file, below = clash
        if below in files:
            raise InvalidPathError(path=below, reason=f"{file!r} is a file, so it cannot hold files")
        raise InvalidPathError(path=file, reason=f"it is a folder, {below!r} lies in it")
    return made


def _list_names(files: Mapping[str, Digest]) -> list[str]:
    """Return the paths and every folder above them: whatever could be a file and a folder at once."""
    names = dict.fromkeys(files)
    for path in files:
        end = path.rfind("/")
        while end != -1 and path[:end] not in names:
            names[path[:end]] = None
            end = path.rfind("/", 0, end)
        if len(names) > NAMES_LIMIT:
            raise LimitExceededError(what="One request", limit=NAMES_LIMIT, unit="files and folders")
    return list(names)


# ── bytes on their way in ────────────────────────────────────────────────────────────────────────────────────────


def put_artifact(
    registry: Registry,
    who: Principal,
    owner: ArtifactOwner,
    path: str,
    data: bytes,
    *,
    experiment_id: int | None = None,
) -> Artifact:
    """Store a small file held in memory and let `path` point at it. Raises as `open_artifact_upload` and its `commit`."""
    upload = open_artifact_upload(registry, who, owner, path, experiment_id=experiment_id)
    with upload:
        upload.write(data)
        return upload.commit()


def open_artifact_upload(
    registry: Registry, who: Principal, owner: ArtifactOwner, path: str, *, experiment_id: int | None = None
) -> ArtifactUpload:
    """Begin to store a file, a context manager: write its bytes, then commit.

    Raises InvalidFieldError, InvalidPathError, RunNotFoundError, RunDeletedError, LoggedModelNotFoundError,
    StorageFullError, BusyError.
    """
    owner, path = check_owner(owner), check_path(path)
    with registry.read() as tx:
        permissions.require(tx, who, Action.WRITE_TRACKING, Resource(owner.kind, owner.id))
        rows.check_owner(tx, owner, experiment_id=experiment_id)
    return ArtifactUpload(registry, owner, path, registry.blobs.open_writer())


class ArtifactUpload:
    """A file on its way into an owner's list. Leaving without commit drops it."""

    def __init__(self, registry: Registry, owner: ArtifactOwner, path: str, writer: BlobWriter) -> None:
        """Take over an open writer."""
        self._registry, self._owner, self._path, self._writer = registry, owner, path, writer

    def write(self, chunk: bytes) -> None:
        """Hash and store one chunk. Raises StorageFullError, BusyError."""
        self._writer.write(chunk)

    def commit(self) -> Artifact:
        """Make the bytes durable, then let the path point at them; a path that is there is replaced.

        Raises InvalidPathError where the path is a folder or lies below a file, StorageFullError, BusyError, and what
        `open_artifact_upload` raises if the owner went meanwhile.
        """
        stored = self._writer.commit()
        with self._registry.track() as tx:
            return record_artifact(tx, self._owner, self._path, stored)

    def close(self) -> None:
        """Drop the bytes unless they were committed. May be called twice."""
        self._writer.close()

    def __enter__(self) -> Self:
        """Enter the upload."""
        return self

    def __exit__(self, *_error: object) -> None:
        """Drop what was not committed."""
        self.close()


def record_artifact(tx: Tx, owner: ArtifactOwner, path: str, stored: StoredBlob) -> Artifact:
    """Note that a stored blob came into an owner's repository, and let a checked path point at it."""
    rows.lock_owner(tx, owner)
    blobs.record_blob(tx, owner.repository, stored.digest, stored.size_bytes)
    files = {path: stored.digest}
    return _set(tx, owner, files, {stored.digest: stored.size_bytes}, _list_names(files))[0]


# ── lists ────────────────────────────────────────────────────────────────────────────────────────────────────────


def list_artifacts(
    registry: Registry,
    who: Principal,
    owner: ArtifactOwner,
    folder: str | None = None,
    *,
    experiment_id: int | None = None,
) -> list[ArtifactEntry]:
    """Return what lies directly in a folder (None or empty: the root), by path; nothing for a file or no such folder.

    A deleted owner's files can still be read. Raises InvalidFieldError, InvalidPathError, RunNotFoundError,
    LoggedModelNotFoundError.
    """
    return _list_folder(_read(registry, who, owner, folder, below=True, experiment_id=experiment_id), folder)


class _Listed(Protocol):
    """A file with a path, a size and a digest."""

    @property
    def path(self) -> str: ...
    @property
    def size_bytes(self) -> int: ...
    @property
    def digest(self) -> Digest: ...


def _list_folder(files: Iterable[_Listed], folder: str | None) -> list[ArtifactEntry]:
    """Return the entries of a folder, by path, from the files below it."""
    start = len(folder) + 1 if folder else 0
    entries: dict[str, ArtifactEntry] = {}
    for file in files:
        end = file.path.find("/", start)
        if end == -1:
            entries[file.path] = ArtifactEntry(file.path, is_dir=False, size_bytes=file.size_bytes, digest=file.digest)
            continue
        path = file.path[:end]
        size_bytes = file.size_bytes + (entries[path].size_bytes if path in entries else 0)
        entries[path] = ArtifactEntry(path, is_dir=True, size_bytes=size_bytes, digest=None)
    return sorted(entries.values(), key=lambda entry: entry.path)


def list_artifact_files(
    registry: Registry, who: Principal, owner: ArtifactOwner, prefix: str | None = None
) -> list[Artifact]:
    """Return the file at `prefix`, or every file below it at any depth (None or empty: all), by path.

    Raises InvalidFieldError, InvalidPathError, RunNotFoundError, LoggedModelNotFoundError.
    """
    return _read(registry, who, owner, prefix, below=False)


def _read(
    registry: Registry,
    who: Principal,
    owner: ArtifactOwner,
    prefix: str | None,
    *,
    below: bool,
    experiment_id: int | None = None,
) -> list[Artifact]:
    owner = check_owner(owner)
    path = check_path(prefix) if prefix else ""
    with registry.read() as tx:
        permissions.require(tx, who, Action.READ_TRACKING, Resource(owner.kind, owner.id))
        found = rows.list_below(tx, owner, path) if below else rows.list_artifacts(tx, owner, path)
        if not found or experiment_id is not None:
            rows.check_owner(tx, owner, deleted=True, experiment_id=experiment_id)
        return found


def get_artifact(registry: Registry, who: Principal, owner: ArtifactOwner, path: str) -> Artifact:
    """Return one file.

    Raises InvalidFieldError, InvalidPathError, ArtifactNotFoundError, RunNotFoundError, LoggedModelNotFoundError.
    """
    owner, path = check_owner(owner), check_path(path)
    with registry.read() as tx:
        permissions.require(tx, who, Action.READ_TRACKING, Resource(owner.kind, owner.id))
        found = rows.find_artifact(tx, owner, path)
        if found is None:
            rows.check_owner(tx, owner, deleted=True)
            raise ArtifactNotFoundError(path=path)
        return found


def open_artifact(
    registry: Registry, who: Principal, owner: ArtifactOwner, path: str, *, experiment_id: int | None = None
) -> ReadableBlob:
    """Return the bytes a path points at now; they stay what they are when it is written again.

    Raises InvalidFieldError, InvalidPathError (also for a folder), ArtifactNotFoundError, RunNotFoundError,
    LoggedModelNotFoundError.
    """
    owner, path = check_owner(owner), check_path(path)
    with registry.read() as tx:
        permissions.require(tx, who, Action.READ_TRACKING, Resource(owner.kind, owner.id))
        found = rows.find_artifact(tx, owner, path)
        if found is None or experiment_id is not None:
            rows.check_owner(tx, owner, deleted=True, experiment_id=experiment_id)
        if found is None and rows.is_folder(tx, owner, path):
            raise _is_folder(path)
    if found is None:
        raise ArtifactNotFoundError(path=path)
    return ReadableBlob(registry, found.digest, found.size_bytes)


def _is_folder(path: str) -> InvalidPathError:
    return InvalidPathError(path=path, reason="it is a folder, and only files can be downloaded")


def delete_artifacts(
    registry: Registry,
    who: Principal,
    owner: ArtifactOwner,
    path: str,
    *,
    missing_ok: bool = False,
    experiment_id: int | None = None,
) -> int:
    """Take a file, or a folder with all below it, out of the list; answers how many files. The blobs stay.

    The root has no path, so the whole list is never deleted at once. Raises InvalidFieldError, InvalidPathError,
    RunNotFoundError, RunDeletedError, LoggedModelNotFoundError, ArtifactNotFoundError unless `missing_ok`.
    """
    owner, path = check_owner(owner), check_path(path)
    with registry.track() as tx:
        permissions.require(tx, who, Action.WRITE_TRACKING, Resource(owner.kind, owner.id))
        rows.lock_owner(tx, owner, experiment_id=experiment_id)
        count = rows.delete_artifacts(tx, owner, path)
        if not count and not missing_ok:
            raise ArtifactNotFoundError(path=path)
        return count


# ── sealed versions, by digest ───────────────────────────────────────────────────────────────────────────────────


def list_sealed_files(
    registry: Registry, who: Principal, digest: Digest, folder: str | None = None
) -> list[ArtifactEntry]:
    """Return what lies directly in a folder of the files that were sealed under a digest, as `list_artifacts` does.

    A deleted version is sealed as before and can be restored, so its address goes on working for whoever pinned it.
    Raises InvalidPathError, ManifestNotFoundError if no version was sealed with it, VersionPurgedError.
    """
    folder = check_path(folder) if folder else ""
    files = _read_sealed(registry, who, digest)
    start = folder + "/" if folder else ""
    return _list_folder((file for path, file in files.items() if path.startswith(start)), folder)


def get_sealed_file(registry: Registry, who: Principal, digest: Digest, path: str) -> ReadableBlob:
    """Return a file of those that were sealed under a digest; readable by whoever may read a version with it.

    Raises InvalidPathError (also for a folder), ArtifactNotFoundError, ManifestNotFoundError, VersionPurgedError.
    """
    return _find_sealed(registry, _read_sealed(registry, who, digest), check_path(path))


def get_version_file(registry: Registry, who: Principal, name: str, version: int, path: str) -> ReadableBlob:
    """Return a file of a sealed version.

    Raises InvalidNameError, InvalidPathError, ModelNotFoundError, VersionNotFoundError (also if it is deleted),
    VersionUnsealedError, VersionPurgedError, ArtifactNotFoundError.
    """
    name, path = parse_model_name(name), check_path(path)
    with registry.read() as tx:
        permissions.require(tx, who, Action.READ_MODEL, Resource("model", name))
        row = versions.get_row(tx, name, version, follow=True)
        if row.state == VersionState.PURGED:
            raise VersionPurgedError(name=name, version=version)
        stored = manifests.find_manifest(tx, row.digest) if row.digest else None
        if stored is None:
            reason = row.status_message or "it has no manifest."
            raise VersionUnsealedError(name=name, version=version, reason=reason)
    return _find_sealed(registry, _list_files(stored.content), path)


def _read_sealed(registry: Registry, who: Principal, digest: Digest) -> Mapping[str, VersionFile]:
    with registry.read() as tx:
        permissions.require(tx, who, Action.READ_BLOB, Resource("manifest", digest))
        row = manifests.find_sealed(tx, digest)
    if row is None or row.version_state is None:
        raise ManifestNotFoundError(reference=digest)
    if row.version_state == VersionState.PURGED:
        message = f"The bytes of every version with the digest {digest} were purged."
        raise VersionPurgedError(message, name=None, version=None)
    return _list_files(row.content)


def _find_sealed(registry: Registry, files: Mapping[str, VersionFile], path: str) -> ReadableBlob:
    file = files.get(path)
    if file is not None:
        return ReadableBlob(registry, file.digest, file.size_bytes)
    if any(other.startswith(path + "/") for other in files):
        raise _is_folder(path)
    raise ArtifactNotFoundError(path=path)


@lru_cache(maxsize=8)
def _list_files(manifest: bytes) -> Mapping[str, VersionFile]:
    """Return a manifest's files by path. Kept, since a model of a thousand files is read file by file."""
    return {file.path: file for file in parse_manifest(manifest).files}

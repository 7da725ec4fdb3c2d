"""Artifacts: the list of files of a run or a logged model, each a path that points at a blob. Tracking: not in the log.

The list may change at any time; a version registered from it keeps the manifest it was sealed with.
"""

from __future__ import annotations

from collections.abc import Mapping

from touchmark import permissions
from touchmark.domain.access import Action, Principal, Resource
from touchmark.domain.digest import Digest, parse_digest
from touchmark.domain.errors import ArtifactNotFoundError, BlobMissingError, InvalidPathError, LimitExceededError
from touchmark.domain.paths import check_path
from touchmark.domain.tracking import Artifact, ArtifactEntry, ArtifactOwner, check_owner
from touchmark.registry import Registry
from touchmark.storage import artifacts as rows

FILES_LIMIT = 10_000
"""Files in one request."""
NAMES_LIMIT = 20_000
"""Files and the folders above them in one request: deep paths are looked up folder by folder."""


def set_artifacts(registry: Registry, who: Principal, owner: ArtifactOwner, files: Mapping[str, str]) -> list[Artifact]:
    """Let paths of a run or a logged model point at blobs, all of them or none; a path that is there is replaced.

    Each blob must have been uploaded into `owner.repository`: to know a digest is not to have access. Four statements,
    whatever the number of files (one more beyond 10,000 files and folders).

    Raises InvalidFieldError, InvalidPathError (also where a path would be a file and a folder), InvalidDigestError,
    LimitExceededError, RunNotFoundError, RunDeletedError, LoggedModelNotFoundError, BlobMissingError.
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
                raise BlobMissingError(digest=digest, path=path)
        made = rows.set_artifacts(tx, owner, checked, sizes)
        clash = rows.find_clash(tx, owner, names)
        if clash is not None:
            file, below = clash
            if below in checked:
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


def list_artifacts(
    registry: Registry, who: Principal, owner: ArtifactOwner, folder: str | None = None
) -> list[ArtifactEntry]:
    """Return what lies directly in a folder (None or empty: the root), by path; nothing for a file or no such folder.

    A deleted owner's files can still be read. Raises InvalidFieldError, InvalidPathError, RunNotFoundError,
    LoggedModelNotFoundError.
    """
    files = _read(registry, who, owner, folder, below=True)
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
    registry: Registry, who: Principal, owner: ArtifactOwner, prefix: str | None, *, below: bool
) -> list[Artifact]:
    owner = check_owner(owner)
    path = check_path(prefix) if prefix else ""
    with registry.read() as tx:
        permissions.require(tx, who, Action.READ_TRACKING, Resource(owner.kind, owner.id))
        found = rows.list_below(tx, owner, path) if below else rows.list_artifacts(tx, owner, path)
        if not found:
            rows.check_owner(tx, owner, deleted=True)
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


def delete_artifacts(
    registry: Registry, who: Principal, owner: ArtifactOwner, path: str, *, missing_ok: bool = False
) -> int:
    """Take a file, or a folder with all below it, out of the list; answers how many files. The blobs stay.

    The root has no path, so the whole list is never deleted at once. Raises InvalidFieldError, InvalidPathError,
    RunNotFoundError, RunDeletedError, LoggedModelNotFoundError, ArtifactNotFoundError unless `missing_ok`.
    """
    owner, path = check_owner(owner), check_path(path)
    with registry.track() as tx:
        permissions.require(tx, who, Action.WRITE_TRACKING, Resource(owner.kind, owner.id))
        rows.lock_owner(tx, owner)
        count = rows.delete_artifacts(tx, owner, path)
        if not count and not missing_ok:
            raise ArtifactNotFoundError(path=path)
        return count

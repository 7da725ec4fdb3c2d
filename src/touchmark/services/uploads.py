"""Uploads that come in parts, in any order and at once; the file counts once it was completed.

A part is durable when it is acknowledged. Completing reads the parts in order, hashing each and the whole, writes the
whole as a blob, and lets the path point at it. Whoever knows an upload's id may send parts to it: clients send them
without credentials, so the id cannot be guessed. Uploads that nobody goes on with are dropped by `drop_stale_uploads`.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self
from weakref import WeakValueDictionary

from touchmark import permissions
from touchmark.artifacts.blobs import BlobWriter, StoredBlob, check_hash
from touchmark.domain.access import REGISTRY, Action, Principal, Resource
from touchmark.domain.errors import (
    BlobNotFoundError,
    BusyError,
    InvalidFieldError,
    LimitExceededError,
    UploadNotFoundError,
)
from touchmark.domain.paths import check_path
from touchmark.domain.tracking import ArtifactOwner, check_owner
from touchmark.registry import Registry
from touchmark.services.artifacts import record_artifact
from touchmark.storage import artifacts
from touchmark.storage import uploads as rows

PARTS_LIMIT = 10_000
"""Parts of one upload, as in Amazon S3."""
STALE_SECONDS = 7 * 24 * 3600
"""How long an upload to which nothing is sent is kept."""
WAIT_SECONDS = 110
"""How long a second request to complete an upload waits for the first: MLflow's client gives up after 120 seconds."""

_UPLOAD_ID = re.compile(r"[0-9a-f]{64}")
_STALE_BATCH = 100

# Each is held by the one request of this process that joins an upload's parts, or appends to it. A client whose request to
# complete timed out sends it again while the first is at work. Joining twice would be right and slow; between processes
# nothing else prevents it.
_turns: WeakValueDictionary[str, threading.Lock] = WeakValueDictionary()
_turns_guard = threading.Lock()


@dataclass(frozen=True, slots=True)
class NamedPart:
    """A part as the client names it to complete an upload: its number, and the ETag it was given (None: it did not say)."""

    number: int
    etag: str | None


def create_upload(
    registry: Registry, who: Principal, owner: ArtifactOwner, path: str, *, experiment_id: int | None = None
) -> str:
    """Begin an upload in parts of a file of a run or a logged model, and return its id.

    Raises InvalidFieldError, InvalidPathError, RunNotFoundError, RunDeletedError, LoggedModelNotFoundError,
    StorageFullError, BusyError.
    """
    owner, path = check_owner(owner), check_path(path)
    upload_id = secrets.token_hex(32)
    registry.blobs.check_writable()
    with registry.track() as tx:
        permissions.require(tx, who, Action.WRITE_TRACKING, Resource(owner.kind, owner.id))
        artifacts.check_owner(tx, owner, experiment_id=experiment_id)
        rows.create_upload(tx, upload_id, owner.repository, path)
    return upload_id


def open_part(registry: Registry, who: Principal, upload_id: str, number: int, limit_bytes: int) -> PartUpload:
    """Begin part `number` (from 1) of an upload that may have `limit_bytes` in all; a context manager.

    Raises UploadNotFoundError, InvalidFieldError, LimitExceededError, StorageFullError, BusyError.
    """
    upload_id = check_upload_id(upload_id)
    if not 1 <= number <= PARTS_LIMIT:
        raise InvalidFieldError(field="part_number", reason=f"write 1 to {PARTS_LIMIT}")
    with registry.read() as tx:
        permissions.require(tx, who, Action.WRITE_BLOB, Resource("upload", upload_id))
        if not rows.get_upload(tx, upload_id).path:  # a session's id, or that of an upload straight to the bucket
            raise UploadNotFoundError(upload_id=upload_id)
        left_bytes = limit_bytes - rows.sum_other_parts(tx, upload_id, number)
    if left_bytes <= 0:
        raise LimitExceededError(what="One upload", limit=limit_bytes, unit="bytes")
    return PartUpload(registry, upload_id, number, left_bytes, registry.blobs.open_part_writer(upload_id))


class PartUpload:
    """A part on its way in; `left_bytes` is how large it may be. Leaving without commit drops it."""

    def __init__(self, registry: Registry, upload_id: str, number: int, left_bytes: int, writer: BlobWriter) -> None:
        """Take over an open writer."""
        self.left_bytes = left_bytes
        self._registry, self._upload_id, self._number, self._writer = registry, upload_id, number, writer

    def write(self, chunk: bytes) -> None:
        """Hash and store one chunk. Raises StorageFullError, BusyError."""
        self._writer.write(chunk)

    def commit(self) -> StoredBlob:
        """Make the part durable, then note it; one with the same number is replaced. A completed upload stays as it is.

        Raises UploadNotFoundError if the upload ended meanwhile, StorageFullError, BusyError.
        """
        stored = self._writer.commit()
        try:
            with self._registry.track() as tx:
                rows.get_upload(tx, self._upload_id, lock=True)
                if rows.is_finished(tx, self._upload_id):
                    raise UploadNotFoundError(upload_id=self._upload_id)
                rows.set_part(tx, self._upload_id, self._number, stored.digest, stored.size_bytes)
        except UploadNotFoundError:
            self._registry.blobs.drop_parts(self._upload_id)  # it ended while this part came
            raise
        return stored

    def close(self) -> None:
        """Drop the bytes unless they were committed. May be called twice."""
        self._writer.close()

    def __enter__(self) -> Self:
        """Enter the part."""
        return self

    def __exit__(self, *_error: object) -> None:
        """Drop what was not committed."""
        self.close()


def complete_upload(
    registry: Registry,
    who: Principal,
    owner: ArtifactOwner,
    path: str,
    upload_id: str,
    parts: Sequence[NamedPart],
    limit_bytes: int,
    *,
    experiment_id: int | None = None,
) -> None:
    """Join the named parts into a file, in their order, and let the path point at it; the same request again is no error.

    `owner` and `path` must be those the upload was begun for. Raises UploadNotFoundError, InvalidFieldError for parts that
    are not in order, not there or not what the client was told, LimitExceededError, InvalidPathError where the path became a
    folder or lies below a file, DigestMismatchError, StorageFullError, BusyError, and what `create_upload` raises of owners.
    """
    upload_id, owner, path = check_upload_id(upload_id), check_owner(owner), check_path(path)
    with registry.read() as tx:
        permissions.require(tx, who, Action.WRITE_TRACKING, Resource(owner.kind, owner.id))
        _check_row(rows.get_upload(tx, upload_id), owner, path)
    turn = find_turn(upload_id)
    if not turn.acquire(timeout=WAIT_SECONDS):
        raise BusyError("The parts of this upload are still being joined: ask again.")
    try:
        with registry.read() as tx:
            if rows.is_finished(tx, upload_id):
                return
            artifacts.check_owner(tx, owner, experiment_id=experiment_id)
            chosen = _choose(rows.list_parts(tx, upload_id), parts)
        if sum(part.size_bytes for part in chosen) > limit_bytes:
            raise LimitExceededError(what="One upload", limit=limit_bytes, unit="bytes")
        stored = _join(registry, upload_id, chosen)
        if stored is None:  # swept or aborted, or completed by another process
            with registry.read() as tx:
                if rows.is_finished(tx, upload_id):
                    return
            raise UploadNotFoundError(upload_id=upload_id)
        with registry.track() as tx:
            record_artifact(tx, owner, path, stored)
            rows.get_upload(tx, upload_id, lock=True)
            rows.finish_upload(tx, upload_id, stored.digest, stored.size_bytes)
        registry.blobs.drop_parts(upload_id)
    finally:
        turn.release()


def abort_upload(registry: Registry, who: Principal, owner: ArtifactOwner, path: str, upload_id: str) -> None:
    """Drop an upload and its parts; one that ended already, either way, is left as it is.

    Raises UploadNotFoundError if it was begun for something else, InvalidFieldError, InvalidPathError, BusyError.
    """
    upload_id, owner, path = check_upload_id(upload_id), check_owner(owner), check_path(path)
    with registry.track() as tx:
        permissions.require(tx, who, Action.WRITE_TRACKING, Resource(owner.kind, owner.id))
        try:
            row = rows.get_upload(tx, upload_id, lock=True)
        except UploadNotFoundError:
            return
        _check_row(row, owner, path)
        if rows.is_finished(tx, upload_id):
            return
        rows.delete_upload(tx, upload_id)
    registry.blobs.drop_parts(upload_id)


def drop_stale_uploads(registry: Registry, who: Principal, before: int) -> int:
    """Drop uploads to which nothing was sent since `before` (microseconds UTC), with their parts; answers how many.

    Completed ones go too: of them only the note is left by which a repeated request is recognised. Raises BusyError.
    """
    count = dropped = _drop_some(registry, who, before)
    while dropped == _STALE_BATCH:
        dropped = _drop_some(registry, who, before)
        count += dropped
    return count


def _drop_some(registry: Registry, who: Principal, before: int) -> int:
    with registry.track() as tx:
        permissions.require(tx, who, Action.ADMINISTER, REGISTRY)
        stale = rows.list_stale(tx, before, _STALE_BATCH)
        for upload_id in stale:
            rows.delete_upload(tx, upload_id)
    for upload_id in stale:
        registry.blobs.drop_parts(upload_id)
        registry.blobs.drop_session(upload_id)
    return len(stale)


def find_turn(upload_id: str) -> threading.Lock:
    """Return what the requests of this process about one upload wait for; whoever takes it gives it back."""
    with _turns_guard:
        return _turns.setdefault(upload_id, threading.Lock())


def check_upload_id(text: str) -> str:
    """Return an upload's id. Raises UploadNotFoundError for what can be none."""
    if _UPLOAD_ID.fullmatch(text) is None:
        raise UploadNotFoundError(upload_id=text[:100])
    return text


def _check_row(row: Any, owner: ArtifactOwner, path: str) -> None:
    if (row.repository, row.path) != (owner.repository, path):
        raise UploadNotFoundError(upload_id=row.upload_id)


def _choose(found: Sequence[rows.Part], named: Sequence[NamedPart]) -> list[rows.Part]:
    """Return the named parts. Raises InvalidFieldError."""
    if not named:
        raise InvalidFieldError(field="parts", reason="name at least one part")
    by_number = {part.number: part for part in found}
    chosen: list[rows.Part] = []
    before = 0
    for part in named:
        if part.number <= before:
            raise InvalidFieldError(field="parts", reason="name each part once, in the order of their numbers")
        before = part.number
        stored = by_number.get(part.number)
        if stored is None:
            raise InvalidFieldError(field="parts", reason=f"part {part.number} was not uploaded")
        if part.etag and part.etag.strip('"') != stored.digest:
            raise InvalidFieldError(field="parts", reason=f"part {part.number} was uploaded again with other bytes")
        chosen.append(stored)
    return chosen


def _join(registry: Registry, upload_id: str, parts: Sequence[rows.Part]) -> StoredBlob | None:
    """Store the parts as one blob; None if one of them is gone. Raises DigestMismatchError if one is damaged."""
    with registry.blobs.open_writer(sum(part.size_bytes for part in parts)) as writer:
        for part in parts:
            hashing = hashlib.sha256()
            try:
                for chunk in registry.blobs.stream_part(upload_id, part.digest):
                    hashing.update(chunk)
                    writer.write(chunk)
            except BlobNotFoundError:
                return None
            check_hash(hashing.digest(), part.digest)
        return writer.commit()

"""Upload sessions: a blob whose bytes come in order, in as many requests as it takes, and go on after a cut.

What a session has is durable at least every CHECKPOINT_BYTES, and when a request ends, however it ends. Bytes first, then
the row that says how far they go: what lies beyond is dropped by the request that goes on. Sessions nobody goes on with
are dropped as other uploads are (`uploads.drop_stale_uploads`).
"""

from __future__ import annotations

import secrets
import threading
from dataclasses import dataclass
from typing import Any, Self

from touchmark import permissions
from touchmark.artifacts.blobs import BlobAppender, StoredBlob
from touchmark.domain.access import Action, Principal, Resource
from touchmark.domain.digest import Digest
from touchmark.domain.errors import (
    BlobNotFoundError,
    LimitExceededError,
    NotFoundError,
    UploadNotFoundError,
    UploadOffsetError,
)
from touchmark.domain.repositories import Repository
from touchmark.registry import Registry
from touchmark.services.blobs import canonical_path, find_model_id
from touchmark.services.uploads import check_upload_id, find_turn
from touchmark.storage import blobs, uploads
from touchmark.storage.engine import Tx

CHECKPOINT_BYTES = 64 << 20
"""What a server that is killed loses of a request at most; each checkpoint costs an fsync and a row."""


@dataclass(frozen=True, slots=True)
class SessionState:
    """How many bytes of a session are durable, and whether a request of this process is sending more."""

    size_bytes: int
    is_growing: bool


def begin_session(registry: Registry, who: Principal, repository: Repository) -> str:
    """Begin a session and return its id. Raises ManifestNotFoundError, StorageFullError, BusyError."""
    registry.blobs.check_writable()
    upload_id = secrets.token_hex(32)
    with registry.track() as tx:
        permissions.require(tx, who, Action.WRITE_BLOB, Resource("repository", repository.path))
        uploads.create_upload(tx, upload_id, canonical_path(repository, find_model_id(tx, repository)), None)
    return upload_id


def get_session(registry: Registry, who: Principal, repository: Repository, upload_id: str) -> SessionState:
    """Return how far a session is. Raises UploadNotFoundError, ManifestNotFoundError.

    A client that lost its connection asks before this side has noticed: while it `is_growing`, more may come to stay.
    """
    is_growing = find_turn(upload_id).locked()  # before the row: what ended meanwhile is in it
    with registry.read() as tx:
        permissions.require(tx, who, Action.WRITE_BLOB, Resource("repository", repository.path))
        return SessionState(_get(tx, repository, upload_id).size_bytes, is_growing)


def open_append(
    registry: Registry,
    who: Principal,
    repository: Repository,
    upload_id: str,
    *,
    begin: int | None,
    limit_bytes: int,
) -> Append | None:
    """Go on with a session that may have `limit_bytes` in all; `begin` is where the client says that its bytes begin.

    None while another request of this process sends to it: waiting in here would hold a thread that that one needs.
    Raises UploadNotFoundError, UploadOffsetError, LimitExceededError, BusyError while another process does, StorageFullError.
    """
    turn = find_turn(upload_id)
    with registry.read() as tx:
        permissions.require(tx, who, Action.WRITE_BLOB, Resource("repository", repository.path))
        _get(tx, repository, upload_id)
    if not turn.acquire(blocking=False):
        return None
    try:
        with registry.read() as tx:
            size_bytes = _get(tx, repository, upload_id).size_bytes
        if begin is not None and begin != size_bytes:
            raise UploadOffsetError(offset=size_bytes)
        if size_bytes >= limit_bytes:
            raise LimitExceededError(what="One upload", limit=limit_bytes, unit="bytes")
        try:
            appender = registry.blobs.open_appender(upload_id, size_bytes)
        except BlobNotFoundError:
            raise UploadNotFoundError(upload_id=upload_id) from None
    except BaseException:
        turn.release()
        raise
    return Append(registry, upload_id, size_bytes, limit_bytes - size_bytes, appender, turn)


class Append:
    """The bytes of one request; `left_bytes` is how many the session may still take."""

    def __init__(
        self,
        registry: Registry,
        upload_id: str,
        size_bytes: int,
        left_bytes: int,
        appender: BlobAppender,
        turn: threading.Lock,
    ) -> None:
        """Take over an open appender, and the turn that is held for it."""
        self.left_bytes = left_bytes
        self._turn: threading.Lock | None = turn
        self._registry, self._upload_id, self._appender = registry, upload_id, appender
        self._durable_bytes = size_bytes

    def write(self, chunk: bytes) -> None:
        """Hash and store one chunk. Raises StorageFullError, BusyError, UploadOffsetError as `commit` does."""
        self._appender.write(chunk)
        if self._appender.size_bytes - self._durable_bytes >= CHECKPOINT_BYTES:
            self.commit()

    def commit(self) -> int:
        """Make what came durable, and return how many bytes the session has.

        Raises UploadOffsetError if another process went on with it meanwhile, UploadNotFoundError if it ended.
        """
        size_bytes = self._appender.commit()
        if size_bytes != self._durable_bytes:
            with self._registry.track() as tx:
                if not uploads.advance(tx, self._upload_id, self._durable_bytes, size_bytes):
                    raise UploadOffsetError(offset=uploads.get_upload(tx, self._upload_id).size_bytes)
            self._durable_bytes = size_bytes
        return size_bytes

    def close(self) -> None:
        """End the request. May be called twice."""
        self._appender.close()
        turn, self._turn = self._turn, None
        if turn is not None:
            turn.release()

    def __enter__(self) -> Self:
        """Enter the request."""
        return self

    def __exit__(self, *_error: object) -> None:
        """End the request."""
        self.close()


def finish_session(
    registry: Registry, who: Principal, repository: Repository, upload_id: str, expected: Digest
) -> StoredBlob | None:
    """Make a session's bytes a blob of the repository; the session ends. None while another request sends to it.

    Raises DigestMismatchError (the session stays, so that it can be looked at or dropped), UploadNotFoundError, BusyError,
    StorageFullError.
    """
    turn = find_turn(upload_id)
    with registry.read() as tx:
        permissions.require(tx, who, Action.WRITE_BLOB, Resource("repository", repository.path))
        _get(tx, repository, upload_id)
    if not turn.acquire(blocking=False):
        return None
    try:
        with registry.read() as tx:
            row = _get(tx, repository, upload_id)
        stored = _publish(registry, upload_id, row.size_bytes, expected)
        with registry.track() as tx:
            permissions.require(tx, who, Action.WRITE_BLOB, Resource("repository", repository.path))
            _get(tx, repository, upload_id)  # one that was ended meanwhile had its bytes dropped, and proves nothing
            blobs.record_blob(tx, row.repository, stored.digest, stored.size_bytes)
            uploads.delete_upload(tx, upload_id)
    finally:
        turn.release()
    return stored


def _publish(registry: Registry, upload_id: str, size_bytes: int, expected: Digest) -> StoredBlob:
    try:
        return registry.blobs.finish_session(upload_id, size_bytes, expected)
    except BlobNotFoundError:
        # A request that was cut after the bytes got their name, or bytes that were swept: the blob tells which.
        if registry.blobs.find_size(expected) != size_bytes:
            raise UploadNotFoundError(upload_id=upload_id) from None
        return StoredBlob(expected, size_bytes)


def abort_session(registry: Registry, who: Principal, repository: Repository, upload_id: str) -> None:
    """End a session and drop its bytes. Raises UploadNotFoundError, ManifestNotFoundError, BusyError."""
    with registry.track() as tx:
        permissions.require(tx, who, Action.WRITE_BLOB, Resource("repository", repository.path))
        _get(tx, repository, upload_id)
        uploads.delete_upload(tx, upload_id)
    registry.blobs.drop_session(upload_id)


def mount_blob(
    registry: Registry, who: Principal, repository: Repository, digest: Digest, source: Repository
) -> StoredBlob | None:
    """Let a repository hold a blob of another one, which moves no byte; None if it cannot be read there.

    Raises ManifestNotFoundError if the repository's owner does not exist.
    """
    with registry.track() as tx:
        permissions.require(tx, who, Action.WRITE_BLOB, Resource("repository", repository.path))
        permissions.require(tx, who, Action.READ_BLOB, Resource("repository", source.path))
        path = canonical_path(repository, find_model_id(tx, repository))
        try:
            model_id = find_model_id(tx, source)
        except NotFoundError:
            return None
        size_bytes = blobs.find_size(tx, canonical_path(source, model_id), model_id, digest)
        if size_bytes is None:
            return None
        blobs.record_blob(tx, path, digest, size_bytes)
    return StoredBlob(digest, size_bytes)


def _get(tx: Tx, repository: Repository, upload_id: str) -> Any:
    """Return the row of a session of this repository. Raises UploadNotFoundError, ManifestNotFoundError."""
    row = uploads.get_upload(tx, check_upload_id(upload_id))
    if row.path is not None or row.repository != canonical_path(repository, find_model_id(tx, repository)):
        raise UploadNotFoundError(upload_id=upload_id)
    return row

"""Blobs: upload into a repository, read from one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from touchmark import permissions
from touchmark.artifacts.blobs import BlobWriter, StoredBlob, stream_checked
from touchmark.domain.access import Action, Principal, Resource
from touchmark.domain.digest import Digest
from touchmark.domain.errors import BlobNotFoundError, ManifestNotFoundError, ModelNotFoundError
from touchmark.domain.repositories import Repository
from touchmark.registry import Registry
from touchmark.storage import blobs as rows
from touchmark.storage import models
from touchmark.storage.artifacts import check_owner
from touchmark.storage.engine import Tx

SIGNED_SECONDS = 600
"""How long a signed address is good: a transfer that has begun goes on after that."""

SENT_BYTES = 256 << 10
"""How much of a blob is sent at once. The server below queues ten such chunks for a client that does not read."""


class Upload:
    """Bytes on their way into a repository: write chunks, then commit. Leaving without commit drops them."""

    def __init__(self, registry: Registry, path: str, writer: BlobWriter) -> None:
        """Take over an open writer."""
        self._registry, self._path, self._writer = registry, path, writer

    def write(self, chunk: bytes) -> None:
        """Hash and store one chunk. Raises StorageFullError."""
        self._writer.write(chunk)

    def commit(self, expected: Digest) -> StoredBlob:
        """Make the bytes durable under their digest, then note the row. Raises DigestMismatchError, StorageFullError."""
        stored = self._writer.commit(expected)
        with self._registry.track() as tx:
            rows.record_blob(tx, self._path, stored.digest, stored.size_bytes)
        return stored

    def __enter__(self) -> Self:
        """Enter the upload."""
        return self

    def __exit__(self, *_error: object) -> None:
        """Drop what was not committed."""
        self._writer.close()


def open_upload(registry: Registry, who: Principal, repository: Repository) -> Upload:
    """Begin an upload. Raises ManifestNotFoundError if the repository's owner does not exist, StorageFullError."""
    with registry.read() as tx:
        permissions.require(tx, who, Action.WRITE_BLOB, Resource("repository", repository.path))
        path = canonical_path(repository, find_model_id(tx, repository))
    registry.blobs.check_writable()
    return Upload(registry, path, registry.blobs.open_writer())


def find_model_id(tx: Tx, repository: Repository) -> int | None:
    """Return the id of the model a repository belongs to, None if it is a run's. Raises ManifestNotFoundError."""
    if repository.owner is not None:
        check_owner(tx, repository.owner)
        return None
    if repository.model_name is not None:
        try:
            model_id: int = models.get_row(tx, repository.model_name, follow=True).model_id
        except ModelNotFoundError:
            raise ManifestNotFoundError(reference=repository.path) from None
        return model_id
    if repository.model_id is None or not models.is_present(tx, repository.model_id):
        raise ManifestNotFoundError(reference=repository.path)
    return repository.model_id


@dataclass(frozen=True, slots=True)
class ReadableBlob:
    """A blob somebody may read: its size, and the ways to its bytes."""

    registry: Registry
    digest: Digest
    size_bytes: int

    def stream(self) -> Iterator[bytes]:
        """Yield the whole blob, hashed while it streams; cut short with DigestMismatchError before its end if it rotted."""
        return stream_checked(self.registry.blobs, self.digest, self.size_bytes, SENT_BYTES)

    def sign(self) -> str | None:
        """Return an address that whoever has it reads the blob from, for SIGNED_SECONDS; None where there is none."""
        return self.registry.blobs.sign(self.digest, SIGNED_SECONDS)

    def stream_range(self, offset: int, length: int) -> Iterator[bytes]:
        """Yield a range, unchecked: the client checks the whole."""
        return self.registry.blobs.stream(self.digest, offset, length, SENT_BYTES)


def get_blob(registry: Registry, who: Principal, repository: Repository, digest: Digest) -> ReadableBlob:
    """Return a blob of a repository. Raises BlobNotFoundError, ManifestNotFoundError.

    Rows alone are looked at, so that asking whether a blob is there costs the same for a byte and for 100 GB. Bytes that
    were lost or rotted are found when they are read whole, or by fsck; sending them again heals them.
    """
    with registry.read() as tx:
        permissions.require(tx, who, Action.READ_BLOB, Resource("repository", repository.path))
        model_id = find_model_id(tx, repository)
        size = rows.find_size(tx, canonical_path(repository, model_id), model_id, digest)
    if size is None:
        raise BlobNotFoundError(digest=digest)
    return ReadableBlob(registry, digest, size)


def canonical_path(repository: Repository, model_id: int | None) -> str:
    """Return the path under which a repository's blobs are noted: a model's two paths are one repository."""
    return repository.path if model_id is None else f"m/{model_id}"

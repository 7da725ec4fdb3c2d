"""The contract of a blob store, and the reading rules every store shares.

A part is a piece of an upload that comes in several requests, in any order: bytes with a digest, kept among the uploads
in progress under the upload's id until they are joined into a blob. A session is an upload whose bytes come in order,
each request going on where the one before ended. A sent part is one that a client puts into a bucket itself, by a signed
address: nothing is known of it before it is read.

What lives here: `BlobStore` and `BlobWriter` (kept by `local.py` and `bucket.py`, tried by one contract suite), and
`stream_checked`. What must not: a path, a bucket, a row.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from touchmark.domain.digest import Digest, digest_from_hash
from touchmark.domain.errors import DigestMismatchError

CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class StoredBlob:
    """Bytes that are stored: their name and how many they are."""

    digest: Digest
    size_bytes: int


class BlobWriter(Protocol):
    """An upload in progress. One thread at a time; leaving the `with` block without `commit` drops the bytes."""

    @property
    def size_bytes(self) -> int:
        """How many bytes were written so far."""

    def write(self, chunk: bytes | bytearray | memoryview) -> None:
        """Take the next bytes. `chunk` may be reused by the caller once this returns.

        Raises StorageFullError, BusyError, LimitExceededError for more than the store can take; the upload is then over.
        """

    def commit(self, expected: Digest | None = None, expected_size_bytes: int | None = None) -> StoredBlob:
        """Make the bytes durable under their digest, then visible, and return it. Ends the upload.

        Raises DigestMismatchError if they are not what was expected, StorageFullError, BusyError: nothing is stored.
        """

    def close(self) -> None:
        """Drop the upload if it was not committed. May be called twice."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...


class BlobAppender(Protocol):
    """One request's bytes on their way to the end of a session. One thread at a time."""

    @property
    def size_bytes(self) -> int:
        """How many bytes the session has with those written so far."""

    def write(self, chunk: bytes | bytearray | memoryview) -> None:
        """Take the next bytes. Raises StorageFullError and BusyError; what was committed stays."""

    def commit(self) -> int:
        """Make what was written durable, and return the session's size in bytes. More may be written afterwards."""

    def close(self) -> None:
        """End the request; bytes that were not committed may be lost. May be called twice."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...


class BlobStore(Protocol):
    """Bytes named by their SHA-256.

    - A blob is visible whole or not at all, and never changes. `commit` returns only once it would survive a power cut.
    - Storing a blob again is not an error and costs no second copy; if what is there are not its bytes (a damaged
      disk, a bucket edited by hand), the new bytes replace it. A local store reads the copy that is there to know: a
      third of a second a GiB, less than writing it anew. Readers that have the old copy open keep it.
    - Threads and processes may store, read and delete the same digest at once: readers see the whole blob or none. A
      commit that meets a delete either stores the blob, or raises BusyError, or is undone by the delete: leases, which
      are rows, keep such a delete from happening.

    `offset` and `length` are bytes, zero or more; a range past the end is short, like reading a file.
    """

    def open_writer(self, size_bytes: int | None = None) -> BlobWriter:
        """Begin an upload of at most so many bytes, if that is known; a context manager. Raises StorageFullError, BusyError.

        A bucket takes only so many parts, so whoever sends more than it would take of the usual ones must say so here. Say only
        what is proven, not what a client announces: parts as large as that needs are held in memory.
        """

    def put(self, data: bytes) -> StoredBlob:
        """Store a small blob held in memory. Raises as `BlobWriter.commit` does."""

    def open_part_writer(self, upload_id: str) -> BlobWriter:
        """Begin a part; its `commit` keeps it, durably, under the upload's id. Raises StorageFullError, BusyError.

        The same bytes twice in one upload are one part. `upload_id` is plain hexadecimal text.
        """

    def stream_part(self, upload_id: str, digest: Digest) -> Generator[bytes, None, None]:
        """Return a part in chunks, unverified. Raises BlobNotFoundError from the call itself."""

    def drop_parts(self, upload_id: str) -> None:
        """Remove every part of an upload; one that has none is no error."""

    def sign_part(self, upload_id: str, number: int, seconds: int) -> str | None:
        """Return an address to PUT part `number` of an upload to without us, good for so long; None if there is none."""

    def list_sent_parts(self, upload_id: str) -> dict[int, int]:
        """Return what lies at such addresses: the size in bytes of each part, by its number. Raises BusyError."""

    def stream_sent_part(self, upload_id: str, number: int) -> Generator[bytes, None, None]:
        """Return a sent part in chunks, unverified. Raises BlobNotFoundError from the call itself, BusyError at any time."""

    def open_appender(self, upload_id: str, offset: int) -> BlobAppender:
        """Go on with a session (begin one at 0) after its first `offset` bytes; what lies beyond them is dropped.

        Raises BlobNotFoundError if there are fewer, BusyError also while another request appends to it, StorageFullError.
        """

    def finish_session(self, upload_id: str, size_bytes: int, expected: Digest) -> StoredBlob:
        """Make the first `size_bytes` of a session a blob, and end the session.

        Raises DigestMismatchError (the session stays), BlobNotFoundError if there are fewer bytes, BusyError,
        StorageFullError.
        """

    def drop_session(self, upload_id: str) -> None:
        """Remove what a session holds; one that holds nothing is no error."""

    def find_size(self, digest: Digest) -> int | None:
        """Return the size in bytes of a stored blob, or None. Looks at no content."""

    def read(self, digest: Digest, offset: int = 0, length: int | None = None) -> bytes:
        """Return a range of a blob as it lies there, unverified. Raises BlobNotFoundError."""

    def stream(
        self, digest: Digest, offset: int = 0, length: int | None = None, chunk_bytes: int = CHUNK_BYTES
    ) -> Generator[bytes, None, None]:
        """Return a range of a blob in chunks of about `chunk_bytes`, none empty, unverified.

        Raises BlobNotFoundError from the call itself, so that an answer can still be a 404. Close it to stop early.
        """

    def find_path(self, digest: Digest) -> Path | None:
        """Return the blob's local file, for sendfile; None if it is not there or this store has no files."""

    def sign(self, digest: Digest, seconds: int) -> str | None:
        """Return an address to read a blob from without us, good for so long; None if this store has none. For GET only."""

    def list_blobs(self) -> Iterator[StoredBlob]:
        """Yield every blob, in order of digest; what lies among them and is no blob is left out."""

    def check(self, digest: Digest) -> int:
        """Read the whole blob and return its size in bytes. Raises BlobNotFoundError, DigestMismatchError."""

    def delete(self, digest: Digest) -> bool:
        """Drop a blob; answers whether it was there. The caller has proved that nothing needs it any more."""

    def sweep_staging(self, older_than_seconds: float) -> int:
        """Remove uploads and parts that took no bytes for so long, and return how many. A live one swept fails later."""

    def check_writable(self) -> None:
        """Store and remove one byte. Raises StorageFullError, BusyError."""

    def close(self) -> None:
        """Give back what the store holds open. The store is not used afterwards."""


def stream_checked(
    store: BlobStore, digest: Digest, size_bytes: int | None = None, chunk_bytes: int = CHUNK_BYTES
) -> Generator[bytes, None, None]:
    """Yield a whole blob, hashed on the way; the last chunk is kept back until the hash is known to be right.

    A damaged blob therefore always ends short: a client that was promised `Content-Length` sees a broken transfer,
    never a complete file (a blob of one chunk yields nothing at all). `size_bytes`, if known, cuts a blob that has
    grown before a byte too many is sent. Costs one more chunk of memory than `stream`.

    Raises BlobNotFoundError from the call itself, DigestMismatchError while iterating.
    """
    return _held_back(store.stream(digest, chunk_bytes=chunk_bytes), digest, size_bytes)


def _held_back(chunks: Iterable[bytes], digest: Digest, size_bytes: int | None) -> Generator[bytes, None, None]:
    hashing = hashlib.sha256()
    seen_bytes = 0
    held: bytes | None = None
    for chunk in chunks:
        hashing.update(chunk)
        seen_bytes += len(chunk)
        if size_bytes is not None and seen_bytes > size_bytes:
            break  # grown: the hash of what it should have been will not match
        if held is not None:
            yield held
        held = chunk
    check_hash(hashing.digest(), digest)
    check_size(seen_bytes, size_bytes)
    if held is not None:
        yield held


def check_chunks(chunks: Iterable[bytes], digest: Digest) -> int:
    """Consume a whole blob and return its size in bytes. Raises DigestMismatchError."""
    hashing = hashlib.sha256()
    size_bytes = 0
    for chunk in chunks:
        hashing.update(chunk)
        size_bytes += len(chunk)
    check_hash(hashing.digest(), digest)
    return size_bytes


def check_hash(raw: bytes, expected: Digest | None) -> Digest:
    """Return the digest of a finished 32-byte SHA-256. Raises DigestMismatchError if another was expected."""
    found = digest_from_hash(raw)
    if expected is not None and found != expected:
        raise DigestMismatchError(expected=expected, found=found, path=None)
    return found


def check_size(found_bytes: int, expected_bytes: int | None) -> None:
    """Raise DigestMismatchError if another number of bytes was expected (an upload cut short, most of the time)."""
    if expected_bytes is not None and found_bytes != expected_bytes:
        message = f"There are {found_bytes} bytes where {expected_bytes} were expected."
        raise DigestMismatchError(message, expected=expected_bytes, found=found_bytes, path=None)

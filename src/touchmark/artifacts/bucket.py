"""Blobs in a bucket, through obstore: S3, Google Cloud Storage, Azure, and the memory store of the tests.

How a blob becomes visible: a multipart upload to a staging key, hashed on the way; a copy by the bucket itself to the
digest's key; the staging key deleted. A bucket's copy is atomic, and what it acknowledged it keeps, so there is no
fsync to order. Two writers of one digest copy the same bytes over each other, and so does one who finds the blob there:
a copy inside the bucket is cheaper than reading the blob to see whether its bytes are still right.

What obstore retries, and for how long, is set where the store is opened (`open_store.py`). A download that breaks off is
gone on with here: obstore counts its time from the first byte, which a large blob or a slow reader outlasts.

Left to the operator: a lifecycle rule that aborts incomplete multipart uploads (a killed process leaves its parts in a
hidden place that `sweep_staging` cannot list). What must not live here: the credentials' source, a path on a disk.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import time
import urllib.request
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self

import obstore
from obstore.exceptions import AlreadyExistsError
from obstore.exceptions import BaseError as ObstoreError
from obstore.store import AzureStore, GCSStore, ObjectStore, S3Store

from touchmark.artifacts import layout
from touchmark.artifacts.blobs import CHUNK_BYTES, StoredBlob, check_chunks, check_hash, check_size
from touchmark.domain.digest import Digest, digest_of
from touchmark.domain.errors import BlobNotFoundError, BusyError, LimitExceededError, StorageFullError

if TYPE_CHECKING:
    from obstore import GetOptions, GetResult, WritableFile  # exist in obstore's stubs only

# Memory of one upload: (in flight + 1) parts, 64 MiB; of one above 156 GiB two parts, which are as large as it needs.
_PART_BYTES = 16 << 20
_PARTS_IN_FLIGHT = 3
_PARTS_LIMIT = 10_000
"""Parts of one object in S3 (Amazon S3 API, multipart upload limits); 156 GiB of ours."""

MAX_COPY_BYTES = 5 << 30
"""S3's CopyObject refuses larger sources (Amazon S3 API, CopyObject); those are copied through this process."""


_RESUMES = 4
"""How often in a row a download that broke off is gone on with before a byte more came."""
_RESUME_SECONDS = 0.5
_PROBE_SECONDS = 10
_STATUS = re.compile(r"status code: ([0-9]{3})")
_CODE = re.compile(r"<Code>([A-Za-z]{1,60})</Code>")
_ADDRESS = re.compile(r"\b[a-z][a-z0-9+.-]*://\S+")
_KEY = re.compile(r"\S*\b(?:staging|blobs)/\S+")
# Amazon S3 has no quotas; Ceph and MinIO say so, MinIO also that its disks are full.
_FULL = frozenset({"QuotaExceeded", "XMinioAdminBucketQuotaExceeded", "XMinioStorageFull"})


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketTraits:
    """What a bucket was seen to do, whatever its maker says.

    Nothing here relies on `conditional_put` (a key that is there is not written again where that is asked for). Without
    `multipart` and `copy` nothing can be stored. With `versioning` deleted bytes stay until a lifecycle rule of the
    bucket removes old versions. `presign`: an address signed for a key gives its bytes.
    """

    conditional_put: bool
    multipart: bool
    copy: bool
    versioning: bool
    presign: bool


class BucketBlobStore:
    """A `BlobStore` in a bucket, or below a prefix of one. Safe for threads and processes."""

    def __init__(self, bucket: ObjectStore, *, max_copy_bytes: int = MAX_COPY_BYTES) -> None:
        """Use an opened obstore store; a prefix, retries and time limits are set on it. Nothing is sent yet."""
        self._bucket = bucket
        self._max_copy_bytes = max_copy_bytes

    # ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────

    def open_writer(self, size_bytes: int | None = None) -> BucketBlobWriter:
        """Begin an upload. Raises BusyError."""
        return BucketBlobWriter(self, size_bytes=size_bytes)

    def put(self, data: bytes) -> StoredBlob:
        """Store a blob held in memory, straight to its key: its digest is known beforehand."""
        blob = StoredBlob(digest_of(data), len(data))
        try:
            if self.read(blob.digest) == data:
                return blob
        except BlobNotFoundError:
            pass
        with _bucket_errors():
            obstore.put(self._bucket, layout.blob_key(blob.digest), data)
        return blob

    def open_part_writer(self, upload_id: str) -> BucketBlobWriter:
        """Begin a part of an upload. Raises BusyError."""
        return BucketBlobWriter(self, upload_id=upload_id)

    def stream_part(self, upload_id: str, digest: Digest) -> Generator[bytes, None, None]:
        """Return a part in chunks. Raises BlobNotFoundError from the call itself, BusyError at any time."""
        chunks = self._stream(layout.part_key(upload_id, digest), digest, 0, None, CHUNK_BYTES)
        next(chunks)
        return chunks

    def drop_parts(self, upload_id: str) -> None:
        """Delete an upload's parts. Raises BusyError."""
        keys = list(self._list_staged(layout.parts_prefix(upload_id)))
        if keys:
            with _bucket_errors():
                obstore.delete(self._bucket, keys)

    def sign_part(self, upload_id: str, number: int, seconds: int) -> str | None:
        """Return an address signed for PUT of a staging key, None for a store that signs nothing."""
        if isinstance(self._bucket, AzureStore):  # wants a header with each PUT, which was never tried
            return None
        return self._sign("PUT", layout.sent_part_key(upload_id, number), seconds)

    def list_sent_parts(self, upload_id: str) -> dict[int, int]:
        """Return the sizes of what was put at the addresses of an upload's parts. Raises BusyError."""
        found = self._list_staged(f"{layout.parts_prefix(upload_id)}p")
        numbers = {layout.find_part_number(upload_id, key): size_bytes for key, size_bytes in found.items()}
        return {number: size_bytes for number, size_bytes in numbers.items() if number is not None}

    def stream_sent_part(self, upload_id: str, number: int) -> Generator[bytes, None, None]:
        """Return a sent part in chunks. Raises BlobNotFoundError from the call itself, BusyError at any time."""
        chunks = self._stream(layout.sent_part_key(upload_id, number), upload_id, 0, None, CHUNK_BYTES)
        next(chunks)
        return chunks

    def open_appender(self, upload_id: str, offset: int) -> BucketAppender:
        """Go on with a session in an object of its own. Raises BlobNotFoundError if it has fewer bytes, BusyError."""
        found = self._find_pieces(upload_id)
        if sum(size_bytes for _key, size_bytes in _choose_pieces(found, offset)) < offset:
            raise BlobNotFoundError(digest=upload_id)
        beyond = [key for start, (key, _size) in found.items() if start >= offset]
        if beyond:
            with _bucket_errors():
                obstore.delete(self._bucket, beyond)
        return BucketAppender(self, upload_id, offset)

    def finish_session(self, upload_id: str, size_bytes: int, expected: Digest) -> StoredBlob:
        """Join a session's objects through this process: a bucket joins none by itself. They stay if the hash is wrong."""
        with self.open_writer(size_bytes) as writer:
            for key, length in _choose_pieces(self._find_pieces(upload_id), size_bytes):
                chunks = self._stream(key, expected, 0, length, CHUNK_BYTES)
                for chunk in chunks:
                    writer.write(chunk)
            if writer.size_bytes < size_bytes:
                raise BlobNotFoundError(digest=upload_id)
            stored = writer.commit(expected)
        self.drop_session(upload_id)
        return stored

    def drop_session(self, upload_id: str) -> None:
        """Delete a session's objects. Raises BusyError."""
        self.drop_parts(upload_id)

    def _find_pieces(self, upload_id: str) -> dict[int, tuple[str, int]]:
        """Return the key and the size of each of a session's objects, by where it begins."""
        wanted = layout.parts_prefix(upload_id)
        return {
            int(key.removeprefix(wanted), 16): (key, size_bytes)
            for key, size_bytes in self._list_staged(wanted).items()
        }

    def _list_staged(self, wanted: str) -> dict[str, int]:
        """Return the sizes of the staging keys that begin with `wanted`."""
        # A prefix is whole names between slashes, in obstore at least; but a list may begin after any key, and is in order.
        found: dict[str, int] = {}
        with _bucket_errors():
            for page in obstore.list(self._bucket, prefix=layout.STAGING_PREFIX, offset=wanted):
                for item in page:
                    if not item["path"].startswith(wanted):
                        return found
                    found[item["path"]] = item["size"]
        return found

    def delete(self, digest: Digest) -> bool:
        """Delete a blob. Two deleting at once may both be told it was there: a bucket does not say."""
        if self.find_size(digest) is None:
            return False
        with _bucket_errors():
            obstore.delete(self._bucket, layout.blob_key(digest))
        return True

    def sweep_staging(self, older_than_seconds: float) -> int:
        """Delete staging objects older than so many seconds by the bucket's clock and ours; return how many."""
        limit = datetime.now(UTC) - timedelta(seconds=older_than_seconds)
        with _bucket_errors():
            old = [
                item["path"]
                for page in obstore.list(self._bucket, prefix=layout.STAGING_PREFIX)
                for item in page
                if item["last_modified"] < limit
            ]
            if old:
                obstore.delete(self._bucket, old)
        return len(old)

    def check_writable(self) -> None:
        """Store one byte below staging and delete it. Raises BusyError."""
        key = layout.new_staging_key()
        with _bucket_errors():
            obstore.put(self._bucket, key, b"\0")
            obstore.delete(self._bucket, key)

    def close(self) -> None:
        """Nothing to give back: obstore's connections go with the object."""

    # ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────

    def find_size(self, digest: Digest) -> int | None:
        """Return the size in bytes of a stored blob, or None. Raises BusyError."""
        with _bucket_errors():
            return self._find_size(layout.blob_key(digest))

    def find_path(self, digest: Digest) -> Path | None:  # noqa: ARG002 - the contract's signature
        """Return None: a bucket has no local files."""
        return None

    def read(self, digest: Digest, offset: int = 0, length: int | None = None) -> bytes:
        """Return a range of a blob. Raises BlobNotFoundError, BusyError."""
        return b"".join(self.stream(digest, offset, length))

    def stream(
        self, digest: Digest, offset: int = 0, length: int | None = None, chunk_bytes: int = CHUNK_BYTES
    ) -> Generator[bytes, None, None]:
        """Return a range of a blob in chunks. Raises BlobNotFoundError from the call itself, BusyError at any time."""
        if offset < 0 or chunk_bytes < 1 or (length is not None and length < 0):
            message = f"offset {offset}, length {length} and chunk_bytes {chunk_bytes} must not be negative"
            raise ValueError(message)
        chunks = self._stream(layout.blob_key(digest), digest, offset, length, chunk_bytes)
        next(chunks)  # sends the request now
        return chunks

    def sign(self, digest: Digest, seconds: int) -> str | None:
        """Return an address signed for GET of a blob's key, None for a store that signs nothing (the memory store)."""
        return self._sign("GET", layout.blob_key(digest), seconds)

    def probe(self) -> BucketTraits:
        """Try on staging keys what the bucket really does, and return it. Raises BusyError."""
        key, more = layout.new_staging_key(), layout.new_staging_key()
        with _bucket_errors():
            try:
                written = obstore.put(self._bucket, key, b"1")
                conditional = False
                with contextlib.suppress(NotImplementedError):
                    try:
                        obstore.put(self._bucket, key, b"2", mode="create")
                    except AlreadyExistsError:
                        conditional = True
                    else:
                        obstore.put(self._bucket, key, b"1")
                obstore.put(self._bucket, more, b"12", use_multipart=True)
                multipart = bytes(obstore.get(self._bucket, more).bytes()) == b"12"
                obstore.copy(self._bucket, key, more)
                copied = bytes(obstore.get(self._bucket, more).bytes()) == b"1"
                presign = self._try_signed(key, b"1")
            finally:
                obstore.delete(self._bucket, [key, more])
        versioning = written["version"] is not None
        return BucketTraits(
            conditional_put=conditional, multipart=multipart, copy=copied, versioning=versioning, presign=presign
        )

    def claim(self, registry_id: str) -> str:
        """Write into the bucket whose it is, if nobody's yet, and return the registry that it belongs to.

        Two registries in one place would delete each other's blobs: neither knows what the other needs. Raises BusyError.
        """
        with _bucket_errors():
            found = self._find_owner()
            if found is None:
                # Who comes first stays where the bucket knows conditions; elsewhere both see who came last.
                with contextlib.suppress(AlreadyExistsError):
                    try:
                        obstore.put(self._bucket, layout.OWNER_KEY, registry_id.encode(), mode="create")
                    except NotImplementedError:
                        obstore.put(self._bucket, layout.OWNER_KEY, registry_id.encode())
                found = self._find_owner()
        return found or ""

    def _find_owner(self) -> str | None:
        try:
            return bytes(obstore.get(self._bucket, layout.OWNER_KEY).bytes()).decode(errors="replace")
        except FileNotFoundError:
            return None

    def _sign(self, method: Literal["GET", "PUT"], key: str, seconds: int) -> str | None:
        if not isinstance(self._bucket, S3Store | GCSStore | AzureStore):
            return None
        with _bucket_errors():
            signed: str = obstore.sign(self._bucket, method, key, timedelta(seconds=seconds))
        return signed

    def _try_signed(self, key: str, expected: bytes) -> bool:
        try:
            address = self._sign("GET", key, 60)
            if address is None:
                return False
            with urllib.request.urlopen(address, timeout=_PROBE_SECONDS) as answer:  # noqa: S310 - the store's own
                return bool(answer.read(len(expected) + 1) == expected)
        except (BusyError, OSError):  # credentials that can sign nothing; URLError is an OSError
            return False

    def list_blobs(self) -> Iterator[StoredBlob]:
        """Yield every blob, in order of digest (a bucket lists by key). Raises BusyError."""
        with _bucket_errors():
            for page in obstore.list(self._bucket, prefix=layout.BLOBS_PREFIX):
                for item in page:
                    digest = layout.find_digest(item["path"])
                    if digest is not None:
                        yield StoredBlob(digest, item["size"])

    def check(self, digest: Digest) -> int:
        """Hash the whole blob and return its size in bytes. Raises BlobNotFoundError, DigestMismatchError."""
        return check_chunks(self.stream(digest), digest)

    def _stream(
        self, key: str, digest: str, offset: int, length: int | None, chunk_bytes: int
    ) -> Generator[bytes, None, None]:
        with _bucket_errors():
            found = self._get(key, digest, offset, length)
            yield b""  # consumed by the caller, who thereby sends the request
            if found is None:
                return
            start, end = found.range
            tag = found.meta["e_tag"]
            broken = 0
            while True:
                try:
                    for part in found.stream(min_chunk_size=chunk_bytes):
                        # Some stores hand over far more than asked for (the memory store: the whole object at once).
                        for at in range(0, len(part), chunk_bytes):
                            chunk = bytes(part[at : at + chunk_bytes])
                            start += len(chunk)
                            broken = 0
                            yield chunk
                except ObstoreError:
                    if broken == _RESUMES:
                        raise
                if start >= end:
                    return
                if broken == _RESUMES:
                    raise BusyError("The bucket sends less than it says it will.")
                broken += 1
                time.sleep(_RESUME_SECONDS * broken)
                found = self._get(key, digest, start, end - start, tag)
                if found is None:
                    raise BusyError("The bucket has fewer bytes than it said a moment ago.")

    def _get(self, key: str, digest: str, offset: int, length: int | None, tag: str | None = None) -> GetResult | None:
        """Ask for a range; None if it is empty."""
        options: GetOptions = {}
        if length is not None:
            options = {"range": (offset, offset + length)}
        elif offset:
            options = {"range": {"offset": offset}}
        if tag is not None:
            options["if_match"] = tag
        try:
            return obstore.get(self._bucket, key, options=options)
        except FileNotFoundError:
            raise BlobNotFoundError(digest=digest) from None
        except (ObstoreError, ValueError):
            # An empty range is a ValueError of obstore's; one that begins at the end of the blob or past it is an
            # error (416) that every bucket words differently. The size decides whether that is what happened.
            size_bytes = self._find_size(key)
            if size_bytes is None:
                raise BlobNotFoundError(digest=digest) from None
            if length != 0 and offset < size_bytes:
                raise
            return None

    # ── for the writer ───────────────────────────────────────────────────────────────────────────────────────────

    def _find_size(self, key: str) -> int | None:
        try:
            return obstore.head(self._bucket, key)["size"]
        except FileNotFoundError:
            return None

    def _publish(self, staged: str, key: str, blob: StoredBlob) -> None:
        if blob.size_bytes <= self._max_copy_bytes:
            obstore.copy(self._bucket, staged, key)
        else:
            self._copy_through(staged, key, blob)
        if self._find_size(key) != blob.size_bytes:
            message = "The bucket does not hold the bytes it took (deleted meanwhile, or cut short): send them again."
            raise BusyError(message)

    def _copy_through(self, staged: str, key: str, blob: StoredBlob) -> None:
        # A multipart upload shows nothing until it is completed, and it is completed only after the hash was right
        # again. If anything fails the writer is let go unclosed, which completes nothing.
        target = _open_upload(self._bucket, key, blob.size_bytes)
        sha256 = hashlib.sha256()
        for part in obstore.get(self._bucket, staged).stream(min_chunk_size=CHUNK_BYTES):
            sha256.update(part)
            target.write(part)
        check_hash(sha256.digest(), blob.digest)
        target.close()


class BucketBlobWriter:
    """An upload into a `BucketBlobStore`: a multipart upload to a staging key, and a hash."""

    def __init__(self, store: BucketBlobStore, *, size_bytes: int | None = None, upload_id: str | None = None) -> None:
        """Begin a blob of at most `size_bytes`, or a part of an upload; nothing is sent before the first 16 MiB are full."""
        self._store = store
        self._upload_id = upload_id
        self._bucket = store._bucket  # noqa: SLF001 - the writer is the store's other half
        self._key = layout.new_staging_key()
        self._sha256 = hashlib.sha256()
        self._size_bytes = 0
        self._is_over = False
        self._limit_bytes = max(_PART_BYTES * _PARTS_LIMIT, size_bytes or 0)
        self._upload = _open_upload(self._bucket, self._key, size_bytes)

    @property
    def size_bytes(self) -> int:
        """How many bytes were written so far."""
        return self._size_bytes

    def write(self, chunk: bytes | bytearray | memoryview) -> None:
        """Take the next bytes. Raises BusyError, LimitExceededError where the bucket would take no further part."""
        self._check_open()
        if self._size_bytes + len(chunk) > self._limit_bytes:
            self.close()
            raise LimitExceededError(
                what="Into a bucket, a file whose size was not announced", limit=self._limit_bytes, unit="bytes"
            )
        kept = bytes(chunk)  # free for bytes; anything else must be copied: obstore sends the buffer itself, and later
        self._sha256.update(kept)
        self._size_bytes += len(kept)
        try:
            with _bucket_errors():
                self._upload.write(kept)
        except BaseException:
            self.close()
            raise

    def commit(self, expected: Digest | None = None, expected_size_bytes: int | None = None) -> StoredBlob:
        """Make the upload a blob. Raises DigestMismatchError, BusyError; nothing is stored then."""
        self._check_open()
        try:
            check_size(self._size_bytes, expected_size_bytes)
            blob = StoredBlob(check_hash(self._sha256.digest(), expected), self._size_bytes)
            with _bucket_errors():
                self._upload.close()
                key = layout.blob_key(blob.digest)
                if self._upload_id is not None:
                    key = layout.part_key(self._upload_id, blob.digest)
                self._store._publish(self._key, key, blob)  # noqa: SLF001
        finally:
            self.close()
        return blob

    def close(self) -> None:
        """Delete the staging key. May be called twice."""
        if self._is_over:
            return
        self._is_over = True
        # obstore cannot abort a multipart upload; completing it and deleting the object is what leaves no parts.
        # Errors leave garbage for sweep_staging and the lifecycle rule, and must not hide why the upload ended.
        with contextlib.suppress(ObstoreError, OSError):
            if not self._upload.closed():
                self._upload.close()
        with contextlib.suppress(ObstoreError, OSError):
            obstore.delete(self._bucket, self._key)

    def __enter__(self) -> Self:
        """Return the writer itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        """Drop the upload unless it was committed."""
        self.close()

    def _check_open(self) -> None:
        if self._is_over:
            message = "this upload is over"
            raise ValueError(message)


def _choose_pieces(found: Mapping[int, tuple[str, int]], size_bytes: int) -> list[tuple[str, int]]:
    """Return the objects that hold a session's first bytes in order, each with how many count; none after a gap.

    An object counts up to where the next begins: the request that made it was cut, and went on from there.
    """
    starts = sorted(start for start in found if start < size_bytes)
    pieces: list[tuple[str, int]] = []
    end = 0
    for number, start in enumerate(starts):
        key, length = found[start]
        if start != end:
            break
        end = min(start + length, starts[number + 1] if number + 1 < len(starts) else size_bytes)
        pieces.append((key, end - start))
    return pieces


class BucketAppender:
    """One request's bytes of a session: an object for each commit, named by where it begins.

    Two requests at once write to the same keys; the row says which of them went on (`storage.uploads.advance`).
    """

    def __init__(self, store: BucketBlobStore, upload_id: str, offset: int) -> None:
        """Begin; nothing is sent before there is a byte."""
        self._bucket = store._bucket  # noqa: SLF001 - the appender is the store's other half
        self._upload_id = upload_id
        self._size_bytes = offset
        self._upload: WritableFile | None = None

    @property
    def size_bytes(self) -> int:
        """How many bytes the session has with those written so far."""
        return self._size_bytes

    def write(self, chunk: bytes | bytearray | memoryview) -> None:
        """Take the next bytes. Raises BusyError."""
        kept = bytes(chunk)
        with _bucket_errors():
            if self._upload is None:
                self._upload = _open_upload(self._bucket, layout.piece_key(self._upload_id, self._size_bytes))
            self._upload.write(kept)
        self._size_bytes += len(kept)

    def commit(self) -> int:
        """Complete the object. Raises BusyError."""
        upload, self._upload = self._upload, None
        if upload is not None:
            with _bucket_errors():
                upload.close()
        return self._size_bytes

    def close(self) -> None:
        """Complete what was not committed too, since it cannot be aborted: it does not count, and is written over."""
        upload, self._upload = self._upload, None
        if upload is not None:
            with contextlib.suppress(ObstoreError, OSError):
                upload.close()

    def __enter__(self) -> Self:
        """Return the appender itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        """Let what was not committed go."""
        self.close()


def _open_upload(bucket: ObjectStore, key: str, size_bytes: int | None = None) -> WritableFile:
    part_bytes = -(-(size_bytes or 0) // _PARTS_LIMIT)
    if part_bytes <= _PART_BYTES:
        return obstore.open_writer(bucket, key, buffer_size=_PART_BYTES, max_concurrency=_PARTS_IN_FLIGHT)
    return obstore.open_writer(bucket, key, buffer_size=part_bytes, max_concurrency=1)


@contextlib.contextmanager
def _bucket_errors() -> Iterator[None]:
    """Translate what obstore raises: classes of its own, or OSError (FileNotFoundError for a missing key or bucket)."""
    try:
        yield
    except (ObstoreError, OSError) as error:
        text = str(error)[:4_000].partition("\nDebug source")[0]
        status, code = _STATUS.search(text), _CODE.search(text)
        words = [f"HTTP {status[1]}"] if status else []
        words += [code[1]] if code else []
        if (code and code[1] in _FULL) or (status and status[1] == "507"):
            raise StorageFullError from error
        if not words:  # where to is the operator's business and not the client's
            line = (text.strip() or type(error).__name__).splitlines()[0]
            words = [_KEY.sub("a key", _ADDRESS.sub("the bucket", line.rpartition(" - ")[2]))[:200]]
        message = f"The bucket refused the request or did not answer ({' '.join(words)}); nothing was changed."
        raise BusyError(message) from error

"""Blobs in a local folder: the durable few lines.

How a blob becomes visible, in the order a power cut forces:

1. bytes go to a file of their own in `staging/`, hashed on the way;
2. fsync of that file: its content is on the disk before any name points at it;
3. `link` to the digest's key: atomic, and two writers of one digest both succeed;
4. fsync of the shard folder: the name is on the disk before anybody is told. A writer that finds the blob already
   there does this too, because the one that linked it may not have got so far.

A writer that finds the blob there compares it with its own bytes, which were hashed a moment ago: what rotted under an
unchanged size is replaced by them (`rename`, atomic too).

A failed fsync is never tried again: the kernel may drop the pages and report success the second time (what PostgreSQL
learnt in 2018, "fsyncgate"). The upload fails, and the store takes no more writes until the process is restarted.

Folders are 0700, uploads 0600, blobs 0400. Files are opened under O_NOFOLLOW: a symbolic link among the blobs is no
blob. What must not live here: a decision about which blob may go.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import stat
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from touchmark.artifacts import layout
from touchmark.artifacts.blobs import CHUNK_BYTES, StoredBlob, check_chunks, check_hash, check_size
from touchmark.domain.digest import Digest, digest_of
from touchmark.domain.errors import BlobNotFoundError, BusyError, DigestMismatchError, StorageFullError

if TYPE_CHECKING:
    from hashlib import _Hash as Sha256  # has a name for type checkers only

# From this size on, hashing in a thread beside the write pays for the hand-over (about 0.1 ms); smaller chunks are
# gathered first, since HTTP servers hand over a few dozen KiB at a time. A few pieces may wait for their hash, so that
# neither thread stands still while the other is not scheduled; they are all the memory an upload takes.
_PIECE_BYTES = 1 << 20
_PIECES = 4
# Bytes wait in the page cache for an fsync, and the client for all of them at its end. From this much on the disk is told
# to begin: an fsync then waits for the last of them alone.
_WRITE_BACK_BYTES = 8 << 20
_HASHES = 256
"""Sessions whose hash is kept between requests, 120 bytes each; another is read again once, when it is finished."""

# EFBIG: the process's own file size limit (ulimit -f), which is a quota too.
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_NO_BLOB = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})


class LocalBlobStore:
    """A `BlobStore` in one folder of one local file system. Safe for threads, forked children and other processes."""

    def __init__(self, root: Path | str) -> None:
        """Open the store at `root`, making the folders that are missing. Raises OSError if that cannot be done."""
        self.root = Path(root)
        self._refusal: str | None = None
        self._durable_shards: set[str] = set()
        self._hashes: OrderedDict[str, tuple[int, Sha256]] = OrderedDict()
        self._hashes_guard = threading.Lock()
        self._make_root(self.root)
        for key in ("blobs", layout.BLOBS_PREFIX, layout.STAGING_PREFIX):
            (self.root / key).mkdir(mode=0o700, exist_ok=True)
        self._sync_folder(self.root / "blobs")
        self._sync_folder(self.root)

    # ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────

    def open_writer(self, size_bytes: int | None = None) -> LocalBlobWriter:  # noqa: ARG002 - the contract's signature
        """Begin an upload. Raises StorageFullError, BusyError."""
        self._check_accepting()
        return LocalBlobWriter(self)

    def put(self, data: bytes) -> StoredBlob:
        """Store a blob held in memory; one already there costs reading it and an fsync of its folder."""
        self._check_accepting()
        digest = digest_of(data)
        with _disk_errors():
            parts = (data[start : start + CHUNK_BYTES] for start in range(0, len(data), CHUNK_BYTES))
            if self._holds(digest, len(data), parts):
                return StoredBlob(digest, len(data))
        with self.open_writer() as writer:
            writer.write(data)
            return writer.commit()

    def open_part_writer(self, upload_id: str) -> LocalBlobWriter:
        """Begin a part of an upload. Raises StorageFullError, BusyError."""
        self._check_accepting()
        return LocalBlobWriter(self, upload_id)

    def stream_part(self, upload_id: str, digest: Digest) -> Generator[bytes, None, None]:
        """Return a part in chunks. Raises BlobNotFoundError from the call itself."""
        chunks = self._stream(layout.part_key(upload_id, digest), digest, 0, None, CHUNK_BYTES)
        next(chunks)
        return chunks

    def drop_parts(self, upload_id: str) -> None:
        """Unlink an upload's parts. Not fsynced: what comes back after a power cut is swept."""
        prefix = layout.parts_prefix(upload_id).rpartition("/")[2]
        with os.scandir(self.root / layout.STAGING_PREFIX) as entries:
            for entry in entries:
                if entry.name.startswith(prefix):
                    Path(entry.path).unlink(missing_ok=True)

    def open_appender(self, upload_id: str, offset: int) -> LocalAppender:
        """Go on with a session. Raises BlobNotFoundError if it has fewer bytes, BusyError, StorageFullError."""
        self._check_accepting()
        return LocalAppender(self, upload_id, offset)

    def finish_session(self, upload_id: str, size_bytes: int, expected: Digest) -> StoredBlob:
        """Give a session's file the name of its digest: no byte is copied, and none is read if all came to this process."""
        with self.open_appender(upload_id, size_bytes) as appender:
            return appender.publish(expected)

    def drop_session(self, upload_id: str) -> None:
        """Unlink a session's file. Not fsynced, as with parts."""
        self._take_hash(upload_id, -1)
        (self.root / layout.session_key(upload_id)).unlink(missing_ok=True)

    def delete(self, digest: Digest) -> bool:
        """Unlink a blob. Not fsynced: one that comes back after a power cut is garbage again, not damage."""
        self._check_accepting()
        try:
            self._blob_path(digest).unlink()
        except FileNotFoundError:
            return False
        return True

    def sweep_staging(self, older_than_seconds: float) -> int:
        """Remove staging files last written more than so many seconds ago; return how many.

        An upload gathers a MiB before it writes, so a client at 1 kB/s writes every 17 minutes: sweep by hours.
        """
        limit = time.time() - older_than_seconds
        removed = 0
        with os.scandir(self.root / layout.STAGING_PREFIX) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):  # committed, or swept by another process, meanwhile
                    if entry.stat(follow_symlinks=False).st_mtime < limit:
                        Path(entry.path).unlink()
                        removed += 1
        return removed

    def check_writable(self) -> None:
        """Write one byte to staging and remove it. Raises StorageFullError, BusyError."""
        with self.open_writer() as writer:
            writer.write(b"\0")
            writer.flush()

    def close(self) -> None:
        """Nothing to give back: no file stays open between calls."""

    # ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────

    def find_size(self, digest: Digest) -> int | None:
        """Return the size in bytes of a stored blob, or None."""
        try:
            found = os.lstat(self._blob_path(digest))
        except OSError as error:
            if error.errno in _NO_BLOB:
                return None
            raise
        return found.st_size if stat.S_ISREG(found.st_mode) else None

    def find_path(self, digest: Digest) -> Path | None:
        """Return the blob's file, or None if it is not stored."""
        return None if self.find_size(digest) is None else self._blob_path(digest)

    def read(self, digest: Digest, offset: int = 0, length: int | None = None) -> bytes:
        """Return a range of a blob. Raises BlobNotFoundError."""
        # One pread for the whole range: the chunk size is the range itself.
        with contextlib.closing(self.stream(digest, offset, length, chunk_bytes=length or CHUNK_BYTES)) as chunks:
            return b"".join(chunks)

    def stream(
        self, digest: Digest, offset: int = 0, length: int | None = None, chunk_bytes: int = CHUNK_BYTES
    ) -> Generator[bytes, None, None]:
        """Return a range of a blob in chunks. Raises BlobNotFoundError from the call itself."""
        if offset < 0 or chunk_bytes < 1 or (length is not None and length < 0):
            message = f"offset {offset}, length {length} and chunk_bytes {chunk_bytes} must not be negative"
            raise ValueError(message)
        chunks = self._stream(layout.blob_key(digest), digest, offset, length, chunk_bytes)
        next(chunks)  # opens the file now; and a started generator closes it even if nobody ever iterates
        return chunks

    def sign(self, digest: Digest, seconds: int) -> str | None:  # noqa: ARG002 - the contract's signature
        """Return None: a folder has no address."""
        return None

    def sign_part(self, upload_id: str, number: int, seconds: int) -> str | None:  # noqa: ARG002 - the contract's signature
        """Return None: a folder has no address."""
        return None

    def list_sent_parts(self, upload_id: str) -> dict[int, int]:  # noqa: ARG002 - the contract's signature
        """Return nothing: nothing is sent to an address that was not given."""
        return {}

    def stream_sent_part(self, upload_id: str, number: int) -> Generator[bytes, None, None]:  # noqa: ARG002 - as above
        """Raise BlobNotFoundError."""
        raise BlobNotFoundError(digest=upload_id)

    def list_blobs(self) -> Iterator[StoredBlob]:
        """Yield every blob, in order of digest. Holds the names of one shard in memory at a time."""
        blobs = self.root / layout.BLOBS_PREFIX
        for shard in sorted(entry.name for entry in blobs.iterdir()):
            try:
                names = sorted(entry.name for entry in (blobs / shard).iterdir())
            except NotADirectoryError:
                continue
            for name in names:
                digest = layout.find_digest(f"{layout.BLOBS_PREFIX}/{shard}/{name}")
                size_bytes = None if digest is None else self.find_size(digest)
                if digest is not None and size_bytes is not None:
                    yield StoredBlob(digest, size_bytes)

    def check(self, digest: Digest) -> int:
        """Hash the whole blob and return its size in bytes. Raises BlobNotFoundError, DigestMismatchError."""
        with contextlib.closing(self.stream(digest)) as chunks:
            return check_chunks(chunks, digest)

    def _stream(
        self, key: str, digest: Digest, offset: int, length: int | None, chunk_bytes: int
    ) -> Generator[bytes, None, None]:
        try:
            # Plain text: a Path costs more to build than the file to open, and a thousand may be sniffed.
            descriptor = os.open(f"{self.root}/{key}", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            if error.errno in _NO_BLOB:
                raise BlobNotFoundError(digest=digest) from None
            raise
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise BlobNotFoundError(digest=digest)
            yield b""  # consumed by stream()
            end = found.st_size if length is None else min(offset + length, found.st_size)
            while offset < end:
                chunk = os.pread(descriptor, min(chunk_bytes, end - offset), offset)
                if not chunk:
                    break  # truncated behind our back: short, as promised
                offset += len(chunk)
                yield chunk
        finally:
            os.close(descriptor)

    # ── for the writer ───────────────────────────────────────────────────────────────────────────────────────────

    def _keep_hash(self, upload_id: str, size_bytes: int, sha256: Sha256) -> None:
        """Keep how far the hash of a session is, so that it need not be read again; the oldest is forgotten."""
        with self._hashes_guard:
            self._hashes[upload_id] = size_bytes, sha256
            self._hashes.move_to_end(upload_id)
            if len(self._hashes) > _HASHES:
                self._hashes.popitem(last=False)

    def _take_hash(self, upload_id: str, size_bytes: int) -> Sha256 | None:
        """Return the hash of a session's first bytes if it is kept; it is no longer kept then, and no other is."""
        with self._hashes_guard:
            kept = self._hashes.pop(upload_id, None)
        return kept[1] if kept is not None and kept[0] == size_bytes else None

    def _make_root(self, folder: Path) -> None:
        """Make a folder and the missing ones above it, each durably. Those that were there may not even be readable."""
        if not folder.is_dir():
            self._make_root(folder.parent)
            folder.mkdir(mode=0o700, exist_ok=True)
            self._sync_folder(folder.parent)

    def _blob_path(self, digest: Digest) -> Path:
        return self.root / layout.blob_key(digest)

    def _check_accepting(self) -> None:
        if self._refusal is not None:
            raise BusyError(self._refusal)

    def _holds(self, digest: Digest, size_bytes: int, chunks: Iterable[bytes]) -> bool:
        """Answer whether the blob is there with these very bytes, and if so make sure its name is on the disk.

        `chunks` are of CHUNK_BYTES. Comparing takes a quarter of the time of hashing what is there.
        """
        if self.find_size(digest) != size_bytes:
            return False
        try:
            with contextlib.closing(self.stream(digest)) as stored:
                if any(ours != theirs for ours, theirs in zip(chunks, stored, strict=True)):
                    return False
        except (ValueError, BlobNotFoundError, OSError):  # cut short or gone meanwhile, or a sector that cannot be read
            return False
        self._sync_shard(digest)
        return True

    def _publish(self, staged: Path, digest: Digest, *, moves: bool = False) -> None:
        """Give fsynced bytes their digest's name, durably; `moves`: and no other, so that nobody writes to them by it."""
        target = self._blob_path(digest)
        target.parent.mkdir(mode=0o700, exist_ok=True)
        try:
            if moves:
                staged.replace(target)
            else:
                os.link(staged, target, follow_symlinks=False)
        except FileExistsError:  # damaged, or another writer was a moment quicker: ours was just hashed, so it wins
            staged.replace(target)
        self._sync_shard(digest)

    def _keep_part(self, staged: Path, upload_id: str, digest: Digest) -> None:
        """Give fsynced bytes the name of a part, durably."""
        staged.replace(self.root / layout.part_key(upload_id, digest))
        self._sync_folder(self.root / layout.STAGING_PREFIX)

    def _sync_shard(self, digest: Digest) -> None:
        # The shard's own name is made durable on its first use in this process, whoever made it: another process may
        # have made it and not have come to its fsync yet. At most 256 extra fsyncs in a process's life.
        shard = layout.shard_key(digest)
        if shard not in self._durable_shards:
            self._sync_folder(self.root / layout.BLOBS_PREFIX)
            self._durable_shards.add(shard)
        self._sync_folder(self.root / shard)

    def _sync_folder(self, folder: Path) -> None:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        except OSError as error:
            raise self._refuse_writes(error) from error  # even ENOSPC: a name may be visible and not on the disk
        finally:
            os.close(descriptor)

    def _sync_file(self, descriptor: int) -> None:
        try:
            os.fsync(descriptor)
        except OSError as error:
            if error.errno in _FULL:  # delayed allocation; the file is thrown away, nothing else is in doubt
                raise StorageFullError from error
            raise self._refuse_writes(error) from error

    def _refuse_writes(self, error: OSError) -> BusyError:
        self._refusal = (
            f"The disk under {self.root} failed to keep written bytes (fsync: {error.strerror}), so nothing more is "
            "written to it until this server is restarted. Check the disk first. Reading goes on."
        )
        return BusyError(self._refusal)


class _Staged:
    """A file in staging that grows, and a hash that runs beside the writing."""

    def __init__(self, store: LocalBlobStore, path: Path, flags: int, sha256: Sha256 | None) -> None:
        """Open the file to write to. `sha256` goes on with what the file holds already; None: no hash is wanted."""
        self._store = store
        self._path = path
        self._sha256 = sha256
        # Filled in turn and kept for the whole upload: a fresh one each time costs more in page faults than its hash.
        # The first of `_pieces` is being filled; as fewer than _PIECES wait for their hash, it is never one of them.
        self._pieces = deque(bytearray() for _ in range(_PIECES))
        self._filled_bytes = 0
        self._size_bytes = 0
        self._position = self._begun = 0  # in the file: what was written, and how far writing to the disk was begun
        self._hasher: ThreadPoolExecutor | None = None  # one thread, made with the first whole piece
        self._hashing: deque[Future[None]] = deque()
        self._descriptor = -1  # -1 once it is over
        with _disk_errors():
            self._descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)

    @property
    def size_bytes(self) -> int:
        """How many bytes there are with those written so far."""
        return self._size_bytes

    def write(self, chunk: bytes | bytearray | memoryview) -> None:
        """Take the next bytes. Raises StorageFullError, BusyError; it is over then."""
        self._check_open()
        view = memoryview(chunk).cast("B")
        self._size_bytes += len(view)
        if self._filled_bytes == 0 and len(view) >= _PIECE_BYTES:
            self._write_piece(view)
            if not isinstance(chunk, bytes):
                self._wait_for_hash(0)  # the caller may reuse the chunk
            return
        while len(view) > 0:
            filling, begin = self._pieces[0], self._filled_bytes
            part = view[: _PIECE_BYTES - begin]
            if begin == len(filling):  # not full yet for the first time: small blobs take little memory
                filling += part
            else:  # through a view, since assigning to a bytearray's slice makes a copy of the part first
                memoryview(filling)[begin : begin + len(part)] = part
            self._filled_bytes += len(part)
            view = view[len(part) :]
            if self._filled_bytes == _PIECE_BYTES:
                self._write_piece(memoryview(filling))
                self._pieces.rotate(-1)
                self._filled_bytes = 0

    def flush(self) -> None:
        """Hand what was gathered to the operating system. Raises StorageFullError, BusyError."""
        self._wait_for_hash(0)
        with memoryview(self._pieces[0])[: self._filled_bytes] as piece:
            self._filled_bytes = 0
            if self._sha256 is not None:
                self._sha256.update(piece)
            self._write(piece)

    def close(self) -> None:
        """Let the file go. May be called twice."""
        if self._descriptor == -1:
            return
        descriptor, self._descriptor = self._descriptor, -1
        if self._hasher is not None:
            self._hasher.shutdown()
        with contextlib.suppress(OSError):  # close may repeat an error that fsync or write reported already
            os.close(descriptor)

    def __enter__(self) -> Self:
        """Return the writer itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        """Let the file go."""
        self.close()

    def _is_known(self, digest: Digest) -> bool:
        store = self._store
        key = self._path.relative_to(store.root).as_posix()
        with contextlib.closing(store._stream(key, digest, 0, None, CHUNK_BYTES)) as staged:  # noqa: SLF001
            return store._holds(digest, self._size_bytes, filter(None, staged))  # noqa: SLF001

    def _check_open(self) -> None:
        if self._descriptor == -1:
            message = "this upload is over"
            raise ValueError(message)

    def _write_piece(self, piece: memoryview) -> None:
        """Write a large piece while a thread hashes it: both leave the GIL, so two cores share the work."""
        if self._sha256 is not None:
            if self._hasher is None:
                self._hasher = ThreadPoolExecutor(1, thread_name_prefix="sha256")
            self._wait_for_hash(_PIECES - 2)
            self._hashing.append(self._hasher.submit(self._sha256.update, piece))
        self._write(piece)

    def _wait_for_hash(self, most: int) -> None:
        """Wait until at most so many pieces wait for their hash."""
        while len(self._hashing) > most:
            self._hashing.popleft().result()

    def _write(self, piece: memoryview) -> None:
        try:
            with _disk_errors():
                while len(piece) > 0:
                    count = os.write(self._descriptor, piece)
                    self._position += count
                    piece = piece[count:]
        except BaseException:
            self.close()
            raise
        if self._position - self._begun >= _WRITE_BACK_BYTES:
            _begin_write_back(self._descriptor, self._begun, self._position)
            self._begun = self._position


class LocalBlobWriter(_Staged):
    """An upload into a `LocalBlobStore` that comes in one piece."""

    _sha256: Sha256

    def __init__(self, store: LocalBlobStore, upload_id: str | None = None) -> None:
        """Make the staging file, of a blob or of a part of an upload. Raises StorageFullError, BusyError."""
        self._upload_id = upload_id
        super().__init__(
            store, store.root / layout.new_staging_key(), os.O_WRONLY | os.O_CREAT | os.O_EXCL, hashlib.sha256()
        )

    def commit(self, expected: Digest | None = None, expected_size_bytes: int | None = None) -> StoredBlob:
        """Make the upload a blob. Raises DigestMismatchError, StorageFullError, BusyError; nothing is stored then."""
        self._check_open()
        store = self._store
        try:
            store._check_accepting()  # noqa: SLF001 - the writer is the store's other half
            check_size(self._size_bytes, expected_size_bytes)
            self.flush()
            digest = check_hash(self._sha256.digest(), expected)
            with _disk_errors():
                if self._upload_id is not None:
                    store._sync_file(self._descriptor)  # noqa: SLF001
                    store._keep_part(self._path, self._upload_id, digest)  # noqa: SLF001
                elif not self._is_known(digest):  # spares the fsync of a known blob
                    os.fchmod(self._descriptor, 0o400)
                    store._sync_file(self._descriptor)  # noqa: SLF001
                    store._publish(self._path, digest)  # noqa: SLF001
        finally:
            self.close()
        return StoredBlob(digest, self._size_bytes)

    def close(self) -> None:
        """Remove the staging file. May be called twice."""
        if self._descriptor != -1:
            super().close()
            with contextlib.suppress(OSError):  # renamed into place, or swept; a staging file is worthless either way
                self._path.unlink()


class LocalAppender(_Staged):
    """One request's bytes at the end of a session's file, which stays."""

    def __init__(self, store: LocalBlobStore, upload_id: str, offset: int) -> None:
        """Open the file for this request alone and cut off what lies beyond `offset`; made if that is 0."""
        self._upload_id = upload_id
        flags = os.O_WRONLY if offset else os.O_WRONLY | os.O_CREAT
        path = store.root / layout.session_key(upload_id)
        try:
            super().__init__(store, path, flags, hashlib.sha256() if offset == 0 else None)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            raise BusyError("Another request is sending to this upload: ask how far it is, and go on there.") from None
        except BusyError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                raise BlobNotFoundError(digest=upload_id) from None
            raise
        try:
            with _disk_errors():
                found = os.fstat(self._descriptor)
                if found.st_nlink == 0 or not os.path.samestat(found, path.lstat()):
                    # It ended between opening and locking: what was opened may be a blob now, and nothing is cut off it.
                    raise BusyError("This upload has just ended: ask how far it is.")
                if found.st_size < offset:
                    raise BlobNotFoundError(digest=upload_id)
                os.ftruncate(self._descriptor, offset)
                os.lseek(self._descriptor, offset, os.SEEK_SET)
                self._position = self._begun = offset
        except BaseException:
            self.close()
            raise
        self._size_bytes = offset
        kept = store._take_hash(upload_id, offset)  # noqa: SLF001 - the appender is the store's other half
        self._sha256 = kept if offset else self._sha256

    def commit(self) -> int:
        """Make what was written durable; the hash so far is kept. Raises StorageFullError, BusyError."""
        self._check_open()
        store = self._store
        store._check_accepting()  # noqa: SLF001
        self.flush()
        with _disk_errors():
            store._sync_file(self._descriptor)  # noqa: SLF001
            store._sync_folder(store.root / layout.STAGING_PREFIX)  # noqa: SLF001 - the file may be new
        if self._sha256 is not None:
            store._keep_hash(self._upload_id, self._size_bytes, self._sha256.copy())  # noqa: SLF001
        return self._size_bytes

    def publish(self, expected: Digest) -> StoredBlob:
        """Make the whole session a blob. Raises DigestMismatchError, and the session stays."""
        self.flush()
        store = self._store
        if self._sha256 is None:  # another process took the first bytes, or this one was restarted
            self._sha256 = self._hash_again()
        try:
            digest = check_hash(self._sha256.digest(), expected)
        except DigestMismatchError:
            store._keep_hash(self._upload_id, self._size_bytes, self._sha256)  # noqa: SLF001
            raise
        with _disk_errors():
            if not self._is_known(digest):
                os.fchmod(self._descriptor, 0o400)
                store._sync_file(self._descriptor)  # noqa: SLF001
                store._publish(self._path, digest, moves=True)  # noqa: SLF001
            else:
                self._path.unlink(missing_ok=True)
        return StoredBlob(digest, self._size_bytes)

    def _hash_again(self) -> Sha256:
        sha256 = hashlib.sha256()
        with self._path.open("rb", buffering=0) as stream:
            while chunk := stream.read(CHUNK_BYTES):
                sha256.update(chunk)
        return sha256


def _begin_write_back(descriptor: int, begin: int, end: int) -> None:
    """Let the kernel begin to write a range of a file to the disk, and do not wait for it.

    It means that nothing is durable; errors stay for fsync to tell. Linux answers this advice so, for what is dirty
    (mm/fadvise.c); sync_file_range says it more plainly, and Python has it only through ctypes. Without it fsync waits.
    """
    if hasattr(os, "posix_fadvise"):
        with contextlib.suppress(OSError):  # advice
            os.posix_fadvise(descriptor, begin, end - begin, os.POSIX_FADV_DONTNEED)


@contextlib.contextmanager
def _disk_errors() -> Iterator[None]:
    """Translate what the operating system says about a write."""
    try:
        yield
    except FileNotFoundError as error:
        message = "The upload's temporary file is gone (swept as left over, or the folder was moved): send it again."
        raise BusyError(message) from error
    except OSError as error:
        if error.errno in _FULL:
            raise StorageFullError from error
        message = f"The disk refused a write ({error.strerror}); nothing was stored."
        raise BusyError(message) from error

"""Backup: everything a registry holds as of one instant, in one format whatever its database, while its server runs.

    TARGET/                      or the same entries in an uncompressed archive, TARGET.tar, in this order
    ├── registry.db              every table, in a SQLite file, from one snapshot
    ├── blobs/sha256/ab/ab00…    every blob that snapshot knows (artifacts/layout.py), each hashed while it is copied
    └── backup.json              what is in it; written last, so a backup without it did not finish

Rows first, then bytes: blobs never change and are stored before their rows, so bytes copied after the snapshot hold all
it names. Everything is a copy with disk blocks of its own, never a hard link, and fsynced. A second backup into the same
folder copies the blobs that are missing and leaves the one before it whole until the new one is.

Here too: reading a backup (`open_backup`). What must not live here: putting it back (restore.py), SQL.
"""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from touchmark.artifacts import layout
from touchmark.artifacts.blobs import BlobStore, stream_checked
from touchmark.artifacts.local import LocalBlobStore
from touchmark.domain.digest import Digest, parse_digest
from touchmark.domain.errors import (
    BlobNotFoundError,
    ConflictError,
    CorruptError,
    InvalidDigestError,
    InvalidFieldError,
    UnsupportedError,
)
from touchmark.ops import Progress
from touchmark.ops.durable import make_folder, sync_folder
from touchmark.ops.setup import hold_lock
from touchmark.registry import Registry
from touchmark.storage import integrity

FORMAT = 1
"""The format described above. Rises when an older Touchmark could not restore it."""
DATABASE_NAME = "registry.db"
ABOUT_NAME = "backup.json"
_NEW = ".new"  # a database that its backup.json does not name yet
_STARTED_NAME = "backup.started"  # marks a folder as a backup's before its first backup.json is there
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class BackupAbout:
    """What `backup.json` says.

    `log_size` and `log_root` (hexadecimal) are the log's head in the snapshot: compare them with a saved checkpoint.
    `counts` are rows a table. `database_sha256` (hexadecimal) is of registry.db. `created_at` is microseconds UTC.
    """

    format: int
    registry_id: str
    log_size: int
    log_root: str
    schema_revision: str
    created_at: int
    database_sha256: str
    database_bytes: int
    blob_count: int
    blob_bytes: int
    counts: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class BackupSummary:
    """What a backup wrote: its place, what is in it, and how many blobs and bytes of them were copied this time."""

    target: Path
    about: BackupAbout
    copied_blobs: int
    copied_bytes: int


# ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────────


def write_backup(registry: Registry, target: Path, *, on_progress: Progress | None = None) -> BackupSummary:
    """Write a backup of everything acknowledged before this call, into a folder, or an archive if `target` ends in .tar.

    Writers go on meanwhile. A folder may hold an earlier backup of the same registry, which is brought up to date; an
    archive must not exist. If it fails, no archive is left; a folder keeps its earlier backup, and what was copied.

    Raises InvalidFieldError, ConflictError (`target` holds something else), CorruptError and its cases (a blob is missing
    or damaged, the database does not read: run fsck), StorageFullError, BusyError, HomeBusyError, OSError.
    """
    target = target.expanduser().absolute()
    if target.name.endswith((".tar.gz", ".tgz", ".tar.xz", ".tar.zst", ".tar.bz2", ".zip")):
        raise InvalidFieldError(
            field="target", reason="write a folder, or a file that ends in .tar: models do not shrink"
        )
    if registry.home is not None and (target == registry.home or registry.home in target.parents):
        raise InvalidFieldError(field="target", reason="a backup inside the home it is of would be lost with it")
    tell = on_progress or (lambda _what, _done, _of: None)
    if target.suffix == ".tar":
        return _write_archive(registry, target, tell)
    return _write_folder(registry, target, tell)


def _write_folder(registry: Registry, target: Path, tell: Progress) -> BackupSummary:
    with suppress(FileNotFoundError, NotADirectoryError):
        if os.listdir(target) and not (target / _STARTED_NAME).exists() and not (target / ABOUT_NAME).exists():  # noqa: PTH208 - raises NotADirectoryError where iterdir waits
            raise ConflictError(f"{target} holds something that is no backup; name a new or empty folder.")
    try:
        make_folder(target)
    except FileExistsError:
        raise ConflictError(f"{target} is a file; name a folder, or a file that ends in .tar.") from None
    _write_new(target / _STARTED_NAME, b"")
    with hold_lock(target):
        earlier = _find_earlier(target)
        snapshot = target / (DATABASE_NAME + _NEW)
        about = _take_snapshot(registry, snapshot, tell)
        if earlier is not None and earlier != about.registry_id:
            snapshot.unlink()
            raise ConflictError(f"{target} is a backup of another registry ({earlier}, not {about.registry_id}).")
        copied_blobs, copied_bytes = _copy_blobs(registry.blobs, LocalBlobStore(target), snapshot, about, tell)
        # The commit: from here on backup.json names the new database, by its hash; which of the two names that one has
        # does not matter to a reader, so a crash before the second rename loses nothing.
        _write_new(target / (ABOUT_NAME + _NEW), _encode_about(about))
        (target / (ABOUT_NAME + _NEW)).replace(target / ABOUT_NAME)
        sync_folder(target)
        snapshot.replace(target / DATABASE_NAME)
        (target / _STARTED_NAME).unlink(missing_ok=True)
        with suppress(OSError):  # not empty if somebody else uses it; worthless either way
            (target / layout.STAGING_PREFIX).rmdir()
        sync_folder(target)
    sync_folder(target.parent)
    return BackupSummary(target, about, copied_blobs, copied_bytes)


def _find_earlier(target: Path) -> str | None:
    """Return the id of the registry whose finished backup lies in a folder, None if there is none yet."""
    if not (target / ABOUT_NAME).exists():
        return None
    return _parse_about((target / ABOUT_NAME).read_bytes()).registry_id


def _copy_blobs(
    source: BlobStore, target: LocalBlobStore, snapshot: Path, about: BackupAbout, tell: Progress
) -> tuple[int, int]:
    copied_blobs = copied_bytes = 0
    with integrity.open_registry_file(snapshot) as file:
        for done, (name, size_bytes) in enumerate(file.stream_blobs(), 1):
            digest = _check_digest(name)
            if target.find_size(digest) != size_bytes:
                copy_blob(_read_blob(source, digest, size_bytes), target, digest, size_bytes)
                copied_blobs, copied_bytes = copied_blobs + 1, copied_bytes + size_bytes
            tell("blobs", done, about.blob_count)
    return copied_blobs, copied_bytes


def _write_archive(registry: Registry, target: Path, tell: Progress) -> BackupSummary:
    if target.exists():
        raise ConflictError(f"{target} exists already; an archive is written once.")
    make_folder(target.parent, 0o777)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as scratch:
        snapshot, partial = Path(scratch) / DATABASE_NAME, Path(scratch) / "archive"
        about = _take_snapshot(registry, snapshot, tell)
        with open(partial, "xb", opener=_open_private) as file, integrity.open_registry_file(snapshot) as rows:
            with snapshot.open("rb") as database:
                chunks = iter(lambda: database.read(_CHUNK_BYTES), b"")
                _add_entry(file, DATABASE_NAME, about.database_bytes, about, chunks)
            for done, (name, size_bytes) in enumerate(rows.stream_blobs(), 1):
                digest = _check_digest(name)
                _add_entry(
                    file, layout.blob_key(digest), size_bytes, about, _read_blob(registry.blobs, digest, size_bytes)
                )
                tell("blobs", done, about.blob_count)
            encoded = _encode_about(about)
            _add_entry(file, ABOUT_NAME, len(encoded), about, iter([encoded]))
            file.write(bytes(2 * tarfile.BLOCKSIZE))  # the end of an archive (POSIX.1-2017, pax, ustar format)
            file.flush()
            os.fsync(file.fileno())
        # Never replaces what came meanwhile. The scratch folder's own name for it goes at once.
        os.link(partial, target)
    sync_folder(target.parent)
    return BackupSummary(target, about, about.blob_count, about.blob_bytes)


def _add_entry(file: BinaryIO, name: str, size_bytes: int, about: BackupAbout, chunks: Iterator[bytes]) -> None:
    """Write one entry of an archive. By hand, as tarfile would keep every entry in memory and read 16 KiB at a time."""
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode, entry.mtime = size_bytes, 0o600, about.created_at // 1_000_000
    file.write(entry.tobuf(tarfile.PAX_FORMAT))
    file.writelines(chunks)
    file.write(bytes(-size_bytes % tarfile.BLOCKSIZE))


def _read_blob(source: BlobStore, digest: Digest, size_bytes: int) -> Iterator[bytes]:
    """Return a blob's bytes, checked on the way. Raises CorruptError, and DigestMismatchError while they are read."""
    try:
        return stream_checked(source, digest, size_bytes)
    except BlobNotFoundError:
        raise CorruptError(f"The bytes of {digest} are missing. Run touchmark fsck.", digest=digest) from None


def _take_snapshot(registry: Registry, snapshot: Path, tell: Progress) -> BackupAbout:
    """Write all rows into a SQLite file and return what is in it."""
    tell("rows", 0, None)
    integrity.write_snapshot(registry.database, snapshot)
    with integrity.open_registry_file(snapshot) as file:
        head = file.get_head()
        blob_count, blob_bytes = file.sum_blobs()
        counts = file.count_rows()
    sha256, size_bytes = hash_file(snapshot)
    return BackupAbout(
        format=FORMAT,
        registry_id=head.registry_id,
        log_size=head.log_size,
        log_root=head.log_root.hex(),
        schema_revision=head.schema_revision,
        created_at=registry.clock(),
        database_sha256=sha256,
        database_bytes=size_bytes,
        blob_count=blob_count,
        blob_bytes=blob_bytes,
        counts=counts,
    )


# ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────


class Backup(Protocol):
    """A finished backup, open for reading. Nothing in it is trusted: its database is hashed, its blobs are too."""

    about: BackupAbout

    def copy_database(self, target: Path) -> None:
        """Write registry.db to a new file, fsynced. Raises CorruptError if it is not what backup.json names."""

    def stream_blob(self, digest: Digest) -> Iterator[bytes]:
        """Yield a blob's bytes, unverified. Raises BlobNotFoundError, CorruptError."""


@contextmanager
def open_backup(source: Path) -> Iterator[Backup]:
    """Open a backup, a folder or an archive.

    Raises InvalidFieldError (there is nothing), CorruptError (it did not finish, or is damaged), UnsupportedError (a
    newer Touchmark wrote it).
    """
    source = source.expanduser().absolute()
    if source.is_dir():
        yield _Folder(source)
    elif source.is_file():
        with source.open("rb") as file:
            yield _Archive(source, file)
    else:
        raise InvalidFieldError(field="source", reason=f"there is no backup at {source}")


class _Folder:
    """A backup in a folder."""

    def __init__(self, root: Path) -> None:
        try:
            self.about = _parse_about((root / ABOUT_NAME).read_bytes())
        except FileNotFoundError:
            raise _unfinished(root) from None
        self._root = root

    def copy_database(self, target: Path) -> None:
        """Copy whichever file backup.json means: the new one if the last backup was cut off between its two renames."""
        for name in (DATABASE_NAME + _NEW, DATABASE_NAME):
            with suppress(FileNotFoundError), (self._root / name).open("rb") as file:
                if _copy_hashed(iter(lambda: file.read(_CHUNK_BYTES), b""), target, self.about):
                    return
        raise CorruptError(f"{self._root / DATABASE_NAME} is not the database that {ABOUT_NAME} names: it is damaged.")

    def stream_blob(self, digest: Digest) -> Iterator[bytes]:
        """Yield the bytes of its file. No store is opened: that would make folders in a backup."""
        try:
            with (self._root / layout.blob_key(digest)).open("rb") as file:
                while chunk := file.read(_CHUNK_BYTES):
                    yield chunk
        except FileNotFoundError:
            raise BlobNotFoundError(digest=digest) from None


class _Archive:
    """A backup in an archive. Entries are found by name and read in place: no path in it is ever a path on disk."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path, self._file = path, file
        self._entries: dict[str, tuple[int, int]] = {}  # name -> where its bytes begin, and how many they are
        try:
            with tarfile.open(fileobj=file, mode="r:", ignore_zeros=False) as archive:
                while (entry := archive.next()) is not None:
                    if entry.isreg():
                        self._entries[entry.name] = entry.offset_data, entry.size
                    # tarfile remembers every entry it has read: a gigabyte for a million of them
                    archive.members.clear()  # type: ignore[attr-defined]
        except tarfile.TarError as error:
            raise CorruptError(f"{path} is no archive, or is cut off: {error}.") from None
        if ABOUT_NAME not in self._entries:
            raise _unfinished(path)
        self.about = _parse_about(b"".join(self._stream(ABOUT_NAME)))

    def copy_database(self, target: Path) -> None:
        """Copy the entry registry.db."""
        if DATABASE_NAME not in self._entries or not _copy_hashed(self._stream(DATABASE_NAME), target, self.about):
            raise CorruptError(f"{DATABASE_NAME} in {self._path} is not what {ABOUT_NAME} names: it is damaged.")

    def stream_blob(self, digest: Digest) -> Iterator[bytes]:
        """Yield the bytes of a blob's entry."""
        if layout.blob_key(digest) not in self._entries:
            raise BlobNotFoundError(digest=digest)
        yield from self._stream(layout.blob_key(digest))

    def _stream(self, name: str) -> Iterator[bytes]:
        at, left = self._entries[name]
        while left:
            self._file.seek(at)
            chunk = self._file.read(min(left, _CHUNK_BYTES))
            if not chunk:
                raise CorruptError(f"{self._path} is cut off inside {name}.")
            at, left = at + len(chunk), left - len(chunk)
            yield chunk


def _copy_hashed(chunks: Iterator[bytes], target: Path, about: BackupAbout) -> bool:
    """Write chunks to a file and fsync it; answer whether they were the database of this backup."""
    hashing = hashlib.sha256()
    with open(target, "wb", opener=_open_private) as file:
        for chunk in chunks:
            hashing.update(chunk)
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
    return hashing.hexdigest() == about.database_sha256


# ── small parts, restore's too ───────────────────────────────────────────────────────────────────────────────────


def copy_blob(chunks: Iterator[bytes], target: BlobStore, digest: Digest, size_bytes: int) -> None:
    """Store a blob if its bytes are what its digest says. Raises DigestMismatchError, StorageFullError, BusyError."""
    with target.open_writer(size_bytes) as writer:
        for chunk in chunks:
            writer.write(chunk)
        writer.commit(digest, size_bytes)


def hash_file(path: Path) -> tuple[str, int]:
    """Return a file's SHA-256 in hexadecimal, and its size in bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest(), file.tell()


def _write_new(path: Path, content: bytes) -> None:
    with open(path, "wb", opener=_open_private) as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    sync_folder(path.parent)


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _check_digest(name: str) -> Digest:
    try:
        return parse_digest(name)
    except InvalidDigestError:
        raise CorruptError(f"A row of blobs has the digest {name!r}, which is none. Run touchmark fsck.") from None


def _unfinished(place: Path) -> CorruptError:
    return CorruptError(f"There is no {ABOUT_NAME} in {place}: the backup did not finish, or this is none.")


def _encode_about(about: BackupAbout) -> bytes:
    return (json.dumps(asdict(about), indent=2, sort_keys=True) + "\n").encode()


def _parse_about(content: bytes) -> BackupAbout:
    """Read backup.json. Raises CorruptError, UnsupportedError."""
    try:
        document = json.loads(content)
        found = document["format"]
        if isinstance(found, int) and found > FORMAT:
            raise UnsupportedError(f"The backup has format {found}, this Touchmark knows {FORMAT}. Upgrade Touchmark.")
        about = BackupAbout(**document)
        kinds = {"log_size": int, "database_bytes": int, "blob_count": int, "blob_bytes": int, "counts": dict}
        for name, kind in (
            dict.fromkeys(("registry_id", "log_root", "database_sha256", "schema_revision"), str) | kinds
        ).items():
            if not isinstance(getattr(about, name), kind):
                raise CorruptError(f"{ABOUT_NAME} is damaged: {name} does not read.")
        bytes.fromhex(about.log_root)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CorruptError(f"{ABOUT_NAME} is damaged: {error}.") from None
    return about

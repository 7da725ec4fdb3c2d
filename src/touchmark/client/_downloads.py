"""Bytes that come: blobs fetched into part files, gone on with after a cut, and named only when they hash to their digest.

What a version is, and where its list of files comes from, is not known here; neither is the cache's order (_cache.py).

    TARGET/.touchmark-pull/        there from the beginning of a pull to its good end
      version                      what is pulled: the manifest's digest
      lock                         held by the process that pulls
      <64 hex>                     a blob on its way
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import stat
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol
from urllib.parse import quote

from touchmark.client._locks import take_lock
from touchmark.client._transfer import CHUNK_BYTES, Meter, Steady, Stop, run_jobs
from touchmark.client._transport import AGAIN, Answer, Elsewhere, LostError, Response, Transport, to_error
from touchmark.domain import errors
from touchmark.domain.paths import check_paths
from touchmark.domain.versions import VersionFile

if TYPE_CHECKING:
    from touchmark.client._transfer import Progress

STAGING = ".touchmark-pull"
REDIRECTS = frozenset({301, 302, 303, 307, 308})
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

_CONTENT_RANGE = re.compile(r"bytes ([0-9]+)-([0-9]+)/(?:[0-9]+|\*)")


class BlobSource:
    """Where blobs are read: one repository of one server, and wherever that sends us for the bytes."""

    def __init__(self, transport: Transport, repository: str) -> None:
        """Read from a repository such as `m/7`."""
        self.transport, self.repository = transport, repository
        self._elsewhere = Elsewhere(transport)

    @contextmanager
    def open(self, digest: str, begin: int = 0, end: int | None = None) -> Iterator[Response]:
        """Open the bytes of a blob from `begin` to before `end`; the answer's status says whether it is the range.

        A redirect is followed once, to an address that the server signed: our token is not sent there. Raises LostError,
        ServerUnreachableError for a redirect that leads nowhere we go.
        """
        headers = {"Accept": "*/*"}
        if begin or end is not None:
            headers["Range"] = f"bytes={begin}-{'' if end is None else end - 1}"
        mine = {**headers, "If-Range": f'"{digest}"'} if "Range" in headers else headers
        address = f"/v2/{quote(self.repository)}/blobs/{digest}"
        with self.transport.open("GET", address, headers=mine) as response:
            if response.status not in REDIRECTS:
                yield response
                return
            location = response.headers.get("location", "")
            response.read()
        # No If-Range: the store's ETag is another than ours, and the digest is checked whole in any case.
        transport, path = self._elsewhere.find(location)
        with transport.open("GET", path, headers=headers) as response:
            if response.status in REDIRECTS:
                raise self._elsewhere.refuse("the server sends on twice")
            yield response

    def interrupt(self) -> None:
        """Cut whatever moves now."""
        self.transport.interrupt()
        self._elsewhere.interrupt()

    def close(self) -> None:
        """Close connections to elsewhere; the server's own stay open for what comes next."""
        self._elsewhere.close()


@contextmanager
def open_source(transport: Transport, repository: str, *, several: bool = True) -> Iterator[BlobSource]:
    """Give a source; for several files at once with connections of its own, so that to cut them disturbs nobody else."""
    own = transport.split() if several else transport
    source = BlobSource(own, repository)
    try:
        yield source
    finally:
        source.close()
        if own is not transport:
            own.close()


def fetch_blob(
    source: BlobSource, file: VersionFile, part: Path, report: Callable[[int], None], check: Callable[[], None]
) -> None:
    """Fetch a blob into `part`, going on behind what is in it, and check it whole. `part` is then complete and right, on the disk too.

    After an error `part` holds what came, for the next call; it is gone if the bytes are wrong or the disk is full.

    Args:
        source: where it is.
        file: its digest, its size in bytes, and the path that errors name.
        part: a file nobody else writes to.
        report: called with the bytes that are there.
        check: called between two chunks; it may raise to end the work.

    Raises DigestMismatchError, InvalidManifestError, NotFoundError, ServerUnreachableError, StorageFullError.

    """
    if source.transport.is_offline:
        raise errors.OfflineError(what=repr(file.path))
    attempts = Steady()
    seen = _Seen()
    with open_part(part) as stream:
        while True:
            begun, resumed = False, _read_part(stream, file.size_bytes)
            try:
                seen.catch_up(stream, resumed, check)
                if seen.size_bytes < file.size_bytes:
                    with source.open(file.digest, seen.size_bytes) as response:
                        begun = response.status in {200, 206}
                        if response.status == 206 and _begin_of(response) != seen.size_bytes:
                            raise LostError("it sent another range than was asked for", sent=True)
                        if response.status == 200 and seen.size_bytes:  # it has no ranges, or they are of other bytes
                            seen, resumed = _Seen(), 0
                        if begun:
                            stream.seek(seen.size_bytes)
                            stream.truncate()
                            _copy(response, stream, seen, file, report, check)
                        else:
                            answer = Answer(response.status, response.headers, response.read())
                if begun or seen.size_bytes == file.size_bytes:
                    if seen.digest == file.digest and seen.size_bytes == file.size_bytes:
                        os.fsync(stream.fileno())
                        return
                    stream.truncate(0)
                    wrong = _wrong(file, seen)
                    if not resumed:
                        raise wrong
                    attempts.pause(wrong, 0)  # what was there from an earlier time may be what is wrong
                    continue
            except LostError as lost:
                check()
                cut = _broken_off(source.transport, file.path, lost) if begun else source.transport.unreachable(lost)
                attempts.pause(cut, seen.size_bytes)
                continue
            except OSError as error:
                raise to_full(error, part.parent) from None
            if answer.status == 416:
                stream.truncate(0)
            said = to_error(answer)
            if answer.status not in {416, *AGAIN}:
                raise said
            attempts.pause(said, seen.size_bytes, answer.headers.get("retry-after"))


class _Seen:
    """The bytes of a blob that were hashed, from its beginning on: kept over a cut, since hashing them again takes long."""

    def __init__(self) -> None:
        self._hasher, self.size_bytes = hashlib.sha256(), 0

    @property
    def digest(self) -> str:
        return "sha256:" + self._hasher.hexdigest()

    def add(self, chunk: bytes) -> None:
        self._hasher.update(chunk)
        self.size_bytes += len(chunk)

    def catch_up(self, stream: BinaryIO, size_bytes: int, check: Callable[[], None]) -> None:
        """Hash what is in a file beyond what was hashed; from its beginning if there is less than that."""
        if self.size_bytes > size_bytes:
            self._hasher, self.size_bytes = hashlib.sha256(), 0
        stream.seek(self.size_bytes)
        while self.size_bytes < size_bytes and (chunk := stream.read(min(CHUNK_BYTES, size_bytes - self.size_bytes))):
            self.add(chunk)
            check()


def _wrong(file: VersionFile, seen: _Seen) -> errors.TouchmarkError:
    if seen.digest != file.digest:
        return errors.DigestMismatchError(expected=file.digest, found=seen.digest, path=file.path)
    reason = f"it lists {file.path!r} with {file.size_bytes} bytes, and it has {seen.size_bytes}"
    return errors.InvalidManifestError(reason=reason)


@contextmanager
def open_part(part: Path) -> Iterator[BinaryIO]:
    """Open a part file to read and write, made if it is not there; it is taken away again if nothing is in it."""
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    try:
        stream: BinaryIO = os.fdopen(os.open(part, flags, 0o666), "r+b", buffering=0)
    except OSError as error:
        raise to_full(error, part.parent) from None
    with stream:
        try:
            yield stream
        except errors.StorageFullError:
            stream.truncate(0)  # give back what the user needs to go on at all
            raise
        except BaseException:
            if os.fstat(stream.fileno()).st_size == 0:
                part.unlink(missing_ok=True)
            raise


def _read_part(stream: BinaryIO, size_bytes: int) -> int:
    """Return how much of the blob is here; nothing if it is more than the whole."""
    found = os.fstat(stream.fileno()).st_size
    if found > size_bytes:
        stream.truncate(0)
        return 0
    return found


def _begin_of(response: Response) -> int | None:
    """Return where the range of a 206 begins (RFC 9110, 14.4)."""
    match = _CONTENT_RANGE.fullmatch(response.headers.get("content-range", ""))
    return int(match[1]) if match else None


def _copy(
    response: Response,
    stream: BinaryIO,
    seen: _Seen,
    file: VersionFile,
    report: Callable[[int], None],
    check: Callable[[], None],
) -> None:
    """Copy an answer behind what is there, not more than a byte beyond what it should hold."""
    while chunk := response.read(min(CHUNK_BYTES, file.size_bytes + 1 - seen.size_bytes)):
        write_whole(stream, chunk)
        seen.add(chunk)
        report(min(seen.size_bytes, file.size_bytes))
        if seen.size_bytes > file.size_bytes:
            break
        check()


def write_whole(stream: BinaryIO, chunk: bytes) -> None:
    """Write all of a chunk to an unbuffered file: one call may write less, at the very end of a disk for one."""
    left = memoryview(chunk)
    while left:
        left = left[stream.write(left) :]


def _broken_off(transport: Transport, path: str, lost: LostError) -> errors.ServerUnreachableError:
    """Return the error for a file that began to arrive: the server is running, and cuts an answer whose bytes rotted."""
    message = (
        f"{path!r} did not arrive whole from {transport.url}: {lost.reason}. "
        "If it never does, its bytes are damaged there: touchmark fsck --deep tells."
    )
    return errors.ServerUnreachableError(message, address=transport.url, reason=lost.reason)


def to_full(error: OSError, folder: Path) -> Exception:
    """Return the error that says that there is no room in a folder, or the one given if that is not what happened."""
    if error.errno in FULL:
        return full_error(folder)
    return error


def full_error(folder: Path, needed_bytes: int | None = None) -> errors.StorageFullError:
    """Return the error for a disk of this machine that is full."""
    needed = f" for {needed_bytes} bytes" if needed_bytes is not None else ""
    return errors.StorageFullError(f"There is no room{needed} in {str(folder)!r}: free some space and try again.")


def check_room(folder: Path, needed_bytes: int) -> None:
    """Raise StorageFullError if a folder's file system has fewer bytes free."""
    if needed_bytes and shutil.disk_usage(folder).free < needed_bytes:
        raise full_error(folder, needed_bytes)


def hash_file(place: Path, check: Callable[[], None] | None = None) -> str:
    """Return the digest of a file. Raises OSError."""
    hasher = hashlib.sha256()
    with place.open("rb", buffering=0) as stream:
        while chunk := stream.read(CHUNK_BYTES):
            hasher.update(chunk)
            if check is not None:
                check()
    return "sha256:" + hasher.hexdigest()


def has_size(place: Path, file: VersionFile) -> bool:
    """Answer whether a regular file of the right size is there."""
    try:
        found = place.lstat()
    except OSError:
        return False
    return stat.S_ISREG(found.st_mode) and found.st_size == file.size_bytes


def is_same(place: Path, file: VersionFile, check: Callable[[], None] | None = None) -> bool:
    """Answer whether a regular file is there with these very bytes."""
    try:
        return has_size(place, file) and hash_file(place, check) == file.digest
    except OSError:
        return False


# ── into a folder of the user's ──────────────────────────────────────────────────────────────────────────────────


class Shelf(Protocol):
    """Blobs that are on this machine already."""

    def copy_blob(self, file: VersionFile, part: Path) -> bool:
        """Write a blob's bytes into a new file and answer whether they were here, and right."""
        ...


def find_unfinished(target: Path) -> str | None:
    """Return the digest of the manifest whose pull into a folder did not come to its end, None if there was none."""
    try:
        return (target / STAGING / "version").read_text(encoding="ascii")
    except (OSError, ValueError):
        return None


def download_files(
    source: BlobSource,
    digest: str,
    files: Sequence[VersionFile],
    target: Path,
    progress: Progress | None = None,
    shelf: Shelf | None = None,
    *,
    beside: Collection[str] | None = None,
) -> None:
    """Write files into a folder, each checked before it gets its name; a right one that is there already stays.

    A pull that fails or is killed leaves `.touchmark-pull` in the folder, and the next one goes on with what is in it.
    A second process that pulls into the same folder waits. Raises DigestMismatchError (nothing of that file is left),
    ServerUnreachableError, StorageFullError, InvalidPathError for a path that would leave the folder; InvalidFieldError for
    a folder that holds something else.

    Args:
        source: where blobs are.
        digest: the manifest's.
        files: what to write; the same digest may come more than once.
        target: the folder, made if it is not there.
        progress: called while bytes move.
        shelf: blobs that need not be fetched.
        beside: paths that may be in the folder, right ones of `files` among them; None if all may be, and be replaced.

    """
    check_paths([file.path for file in files])
    for file in files:
        if file.path.split("/")[0].casefold() == STAGING:
            raise errors.InvalidPathError(path=file.path, reason=f"{STAGING!r} is where files are kept on their way")
    _check_folder(target)
    _check_no_home(target)
    is_begun = find_unfinished(target) == digest
    if beside is not None and not is_begun:
        _check_only(target, beside)
    meter = Meter(progress, {file.path: file.size_bytes for file in files})
    target.mkdir(parents=True, exist_ok=True)
    missing: list[VersionFile] = []
    _find_missing(files, target, meter, missing)
    if not missing:
        return
    if beside is not None and not is_begun:
        other = next((file.path for file in missing if os.path.lexists(target.joinpath(*file.path.split("/")))), None)
        if other is not None:
            raise _refuse_beside(target, other)
    with _open_staging(target) as staging:
        (staging / "version").write_text(digest, encoding="ascii")
        groups: dict[str, list[VersionFile]] = {}
        for file in sorted(missing, key=lambda file: -file.size_bytes):
            groups.setdefault(file.digest, []).append(file)
        check_room(target, _count_needed(groups, staging))
        run_jobs(
            [partial(_place, source, group, target, staging, meter, shelf) for group in groups.values()],
            source.interrupt,
        )
        shutil.rmtree(staging, ignore_errors=True)


def _check_no_home(target: Path) -> None:
    """Refuse a folder that is a registry's home or lies in one: its files are the registry's."""
    whole, real = target.expanduser().absolute(), target.expanduser().resolve()
    for folder in dict.fromkeys((whole, *whole.parents, real, *real.parents)):  # a link may lead into one
        try:
            is_home = (folder / "format").read_bytes()[:15] == b"touchmark home "
        except OSError:
            continue
        if is_home:
            raise _refuse(target, "it is the home of a registry: choose another folder")


def _check_only(target: Path, paths: Collection[str]) -> None:
    """Refuse a folder that holds more than these files. What a pull that was cut has left is no file of anybody's."""
    for folder, folders, names in os.walk(target):
        if Path(folder) == target and STAGING in folders:
            folders.remove(STAGING)
        for name in names:
            path = Path(folder, name).relative_to(target).as_posix()
            if path not in paths:
                raise _refuse_beside(target, path)


def _check_folder(target: Path) -> None:
    """Refuse a place where no folder can be, since it is a file or lies below one."""
    for place in (target, *target.parents):
        if os.path.lexists(place):
            if not place.is_dir():
                what = "it" if place == target else f"{str(place)[:200]!r} above it"
                raise _refuse(target, f"{what} is a file: choose a folder")
            return


def _refuse_beside(target: Path, path: str) -> errors.InvalidFieldError:
    return _refuse(
        target,
        f"it holds something else, {path[:200]!r}: choose another folder, or write over it (force=True, --force)",
    )


def _refuse(target: Path, reason: str) -> errors.InvalidFieldError:
    sentence = f"Nothing is written into {str(target)[:200]!r}: {reason}."
    return errors.InvalidFieldError(sentence, field="target", reason=reason)


@contextmanager
def _open_staging(target: Path) -> Iterator[Path]:
    """Make the folder for files on their way, and hold its lock."""
    staging = target / STAGING
    while True:
        if staging.is_symlink():
            raise errors.InvalidPathError(path=STAGING, reason=f"{str(staging)!r} is a link")
        staging.mkdir(exist_ok=True)
        try:
            lock = take_lock(staging / "lock")
            break
        except FileNotFoundError:  # the process that held it came to its end, and took the folder away
            continue
    try:
        yield staging
    finally:
        os.close(lock)


def _find_missing(files: Sequence[VersionFile], target: Path, meter: Meter, missing: list[VersionFile]) -> None:
    """Add the files that are not there, or not right, to `missing`."""

    def look(file: VersionFile, stop: Stop) -> None:
        if is_same(target.joinpath(*file.path.split("/")), file, stop.check):
            meter.end(file.path)
        else:
            missing.append(file)

    # Nothing to hash: no threads.
    there = {file.path for file in files if has_size(target.joinpath(*file.path.split("/")), file)}
    missing.extend(file for file in files if file.path not in there)
    run_jobs([partial(look, file) for file in files if file.path in there])


def _count_needed(groups: dict[str, list[VersionFile]], staging: Path) -> int:
    """Return how many bytes will be written that take room no file has now."""
    needed = 0
    for digest, group in groups.items():
        needed += sum(file.size_bytes for file in group)
        part = staging / digest[7:]
        if part.is_file():
            needed -= min(part.stat().st_size, group[0].size_bytes)
    return needed


def _place(
    source: BlobSource,
    group: Sequence[VersionFile],
    target: Path,
    staging: Path,
    meter: Meter,
    shelf: Shelf | None,
    stop: Stop,
) -> None:
    """Fetch one blob, and give it every name it has."""
    stop.check()
    wanted = []
    for file in group:
        if is_same(target.joinpath(*file.path.split("/")), file, stop.check):
            meter.end(file.path)  # another process pulled it while this one waited
        else:
            wanted.append(file)
    if not wanted:
        return
    first, *others = wanted
    part = staging / first.digest[7:]
    if part.exists() or shelf is None or not shelf.copy_blob(first, part):
        fetch_blob(source, first, part, partial(meter.at, first.path), stop.check)
    for number, file in enumerate([*others, first]):  # copies first, the part itself last
        place = _make_folders(target, file.path)
        made = part
        if file is not first:
            made = staging / f"{first.digest[7:]}.{number}"
            copy_file(part, made)
        made.replace(place)
        meter.end(file.path)


def copy_file(source: Path, target: Path) -> None:
    """Copy a file's bytes, without their passing through here if the file system can. Raises StorageFullError, OSError."""
    try:
        if not clone_file(source, target):
            shutil.copyfile(source, target)
        sync_file(target)
    except OSError as error:
        target.unlink(missing_ok=True)
        raise to_full(error, target.parent) from None


def sync_file(place: Path) -> None:
    """Put a file's bytes on the disk, before it gets a name that says that they are right (ADR 0026). Raises OSError."""
    descriptor = os.open(place, os.O_RDWR)  # Windows syncs only what may be written
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


_FICLONE = 0x40049409  # linux/fs.h; Python names it only from 3.14 on


def clone_file(source: Path, target: Path) -> bool:
    """Make a file that shares the other's bytes until one is written to; False where the file system cannot."""
    try:
        from fcntl import ioctl
    except ImportError:
        return False
    if sys.platform != "linux":
        return False
    with source.open("rb") as old, target.open("wb") as new:
        pair = (os.fstat(old.fileno()).st_dev, os.fstat(new.fileno()).st_dev)
        if pair in _cannot_clone:
            return False
        try:
            ioctl(new.fileno(), _FICLONE, old.fileno())
        except OSError:  # EOPNOTSUPP, ENOTTY, EXDEV, EINVAL: each file system says it in its own way
            _cannot_clone.add(pair)
            return False
    return True


_cannot_clone: set[tuple[int, int]] = set()
"""File systems, from and to, that were found not to."""


def _make_folders(target: Path, path: str) -> Path:
    """Make the folders above a path below `target`, and return its place.

    Raises InvalidPathError rather than go through a link.
    """
    folder = target
    *above, name = path.split("/")
    for part in above:
        folder /= part
        if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
            raise errors.InvalidPathError(path=path, reason=f"{str(folder)!r} is there and is no folder of its own")
        folder.mkdir(exist_ok=True)
    return folder / name

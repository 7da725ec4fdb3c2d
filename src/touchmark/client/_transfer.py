"""Moving bytes: files into a repository, a version's files into a folder. Every byte is hashed on this side.

Files go one after the other; parallel and resumable transfers have their place here, behind the same functions. What a
version is, and where its list of files comes from, is not known here.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

from touchmark.client._transport import AGAIN, Answer, Attempts, LostError, Response, Transport, to_error
from touchmark.domain import errors
from touchmark.domain.paths import check_path, check_paths
from touchmark.domain.versions import VersionFile

CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Transfer:
    """How far a transfer is: the file under way, and bytes done of all bytes of the whole transfer."""

    path: str
    done_bytes: int
    total_bytes: int


Progress = Callable[[Transfer], None]


class _Meter:
    """Tells a progress callback where a transfer of several files is."""

    def __init__(self, progress: Progress | None, total_bytes: int) -> None:
        self._progress, self._total, self._before = progress, total_bytes, 0

    def at(self, path: str, done_bytes: int) -> None:
        """Report so many bytes of the present file; fewer than before if it has to begin again."""
        if self._progress is not None:
            self._progress(Transfer(path, self._before + done_bytes, self._total))

    def end(self, path: str, size_bytes: int) -> None:
        """Report a whole file, moved or found in place."""
        self.at(path, size_bytes)
        self._before += size_bytes


# ── up ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def list_local_files(source: Path) -> dict[str, Path]:
    """Return the files below a folder (or the one file) by their path in a model. `source` itself may be a link.

    Raises InvalidPathError for links and special files (they could carry what was not meant), and for paths no manifest
    may hold; ArtifactNotFoundError if there is nothing at `source`, NothingToRegisterError if there is no file in it.
    """
    if source.is_file():
        return {check_path(source.name): source}
    if not source.is_dir():
        raise errors.ArtifactNotFoundError(path=str(source))
    found: dict[str, Path] = {}
    for folder, folders, names in os.walk(source, onerror=_refuse_unreadable):
        folders.sort()
        for name in [*folders, *sorted(names)]:
            file = Path(folder, name)
            path = file.relative_to(source).as_posix()
            mode = file.lstat().st_mode
            if stat.S_ISREG(mode):
                found[path] = file
            elif not stat.S_ISDIR(mode):
                raise errors.InvalidPathError(path=path, reason="links and special files are not taken: copy the file")
    if not found:
        raise errors.NothingToRegisterError(source=str(source))
    check_paths(found)
    return found


def _refuse_unreadable(error: OSError) -> None:
    raise errors.InvalidPathError(path=str(error.filename), reason=f"it cannot be read ({error.strerror})")


def upload_files(
    transport: Transport, repository: str, files: Mapping[str, Path], progress: Progress | None = None
) -> dict[str, str]:
    """Upload what the repository lacks, and return path to digest.

    Raises InvalidPathError for a file that cannot be read or changes meanwhile, and what the server answers.
    """
    sizes = {path: file.stat().st_size for path, file in files.items()}
    meter = _Meter(progress, sum(sizes.values()))
    digests: dict[str, str] = {}
    for path, file in files.items():
        digests[path] = digest = _hash_file(path, file)
        address = f"/v2/{quote(repository)}/blobs/{digest}"
        if transport.request("HEAD", address, missing_ok=True).status == 404:
            _upload_file(transport, repository, path, file, digest, sizes[path], meter)
        meter.end(path, sizes[path])
    return digests


def _upload_file(
    transport: Transport, repository: str, path: str, file: Path, digest: str, size_bytes: int, meter: _Meter
) -> None:
    """Send one file in one piece. The same bytes under the same digest may arrive twice, so it is sent again."""
    address = f"/v2/{quote(repository)}/blobs/uploads/?digest={digest}"
    headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size_bytes)}
    attempts = Attempts(total_seconds=None)
    while True:
        try:
            with transport.open("POST", address, _read_file(path, file, size_bytes, meter), headers) as response:
                answer = Answer(response.status, response.headers, response.read())
        except LostError as lost:
            attempts.pause(transport.unreachable(lost))
            continue
        if answer.status < 300:
            return
        error = to_error(answer)
        if isinstance(error, errors.DigestMismatchError):
            raise _changed(path) from None
        if answer.status not in AGAIN:
            raise error
        attempts.pause(error, answer.headers.get("retry-after"))


def _read_file(path: str, file: Path, size_bytes: int, meter: _Meter) -> Iterator[bytes]:
    """Yield the file's first `size_bytes`, as many as were announced."""
    done = 0
    with _open_file(path, file) as stream:
        while done < size_bytes:
            try:
                chunk = stream.read(min(CHUNK_BYTES, size_bytes - done))
            except OSError as error:  # else it would be taken for one of the network
                raise errors.InvalidPathError(path=path, reason=f"it cannot be read ({error.strerror})") from None
            if not chunk:
                raise _changed(path)
            done += len(chunk)
            yield chunk
            meter.at(path, done)


def _hash_file(path: str, file: Path) -> str:
    with _open_file(path, file) as stream:
        try:
            return "sha256:" + hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError as error:
            raise errors.InvalidPathError(path=path, reason=f"it cannot be read ({error.strerror})") from None


def _open_file(path: str, file: Path) -> BufferedReader:
    try:
        return file.open("rb")
    except OSError as error:
        raise errors.InvalidPathError(path=path, reason=f"it cannot be read ({error.strerror})") from None


def _changed(path: str) -> errors.InvalidPathError:
    return errors.InvalidPathError(path=path, reason="the file changed while it was uploaded: upload it again")


# ── down ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def download_files(
    transport: Transport,
    repository: str,
    files: Sequence[VersionFile],
    target: Path,
    progress: Progress | None = None,
) -> None:
    """Write files into a folder, each checked before it gets its name; a right one that is there already stays.

    Raises DigestMismatchError or ServerUnreachableError (nothing of that file is left), InvalidPathError for a path that
    would leave the folder.
    """
    check_paths([file.path for file in files])
    meter = _Meter(progress, sum(file.size_bytes for file in files))
    target.mkdir(parents=True, exist_ok=True)
    for file in files:
        place = target.joinpath(*file.path.split("/"))
        if not is_same(place, file):
            _make_folders(target, file.path)
            download_blob(transport, repository, file, place, partial(meter.at, file.path))
        meter.end(file.path, file.size_bytes)


def _make_folders(target: Path, path: str) -> None:
    """Make the folders above a path below `target`. Raises InvalidPathError rather than go through a link."""
    folder = target
    for name in path.split("/")[:-1]:
        folder /= name
        if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
            raise errors.InvalidPathError(path=path, reason=f"{str(folder)!r} is there and is no folder of its own")
        folder.mkdir(exist_ok=True)


def is_same(place: Path, file: VersionFile) -> bool:
    """Answer whether a regular file is there with these very bytes."""
    try:
        found = place.lstat()
        if not stat.S_ISREG(found.st_mode) or found.st_size != file.size_bytes:
            return False
        with place.open("rb") as stream:
            return "sha256:" + hashlib.file_digest(stream, "sha256").hexdigest() == file.digest
    except OSError:
        return False


def download_blob(
    transport: Transport, repository: str, file: VersionFile, place: Path, report: Callable[[int], None] | None = None
) -> None:
    """Write one blob beside its place, check it, and move it there.

    Raises DigestMismatchError, InvalidManifestError, NotFoundError, ServerUnreachableError.
    """
    address = f"/v2/{quote(repository)}/blobs/{file.digest}"
    attempts = Attempts(total_seconds=None)
    while True:
        # Beside its place, so that the move stays on one file system; made like any file, so that the umask holds.
        part = place.with_name(f".touchmark-{os.urandom(8).hex()}")
        begun = False
        try:
            with transport.open("GET", address) as response:
                begun = response.status == 200
                if begun:
                    with part.open("xb") as stream:
                        found, size_bytes = _copy(response, stream, file.size_bytes, report)
                    if found != file.digest:
                        raise errors.DigestMismatchError(expected=file.digest, found=found, path=file.path)
                    if size_bytes != file.size_bytes:
                        reason = f"it lists {file.path!r} with {file.size_bytes} bytes, and it has {size_bytes}"
                        raise errors.InvalidManifestError(reason=reason)
                    part.replace(place)
                    return
                answer = Answer(response.status, response.headers, response.read())
        except LostError as lost:
            attempts.pause(_broken_off(transport, file.path, lost) if begun else transport.unreachable(lost))
            continue
        finally:
            part.unlink(missing_ok=True)
        error = to_error(answer)
        if answer.status not in AGAIN:
            raise error
        attempts.pause(error, answer.headers.get("retry-after"))


def _broken_off(transport: Transport, path: str, lost: LostError) -> errors.ServerUnreachableError:
    """Return the error for a file that began to arrive: the server is running, and cuts an answer whose bytes rotted."""
    message = (
        f"{path!r} did not arrive whole from {transport.url}: {lost.reason}. "
        "If it never does, its bytes are damaged there: touchmark fsck --deep tells."
    )
    return errors.ServerUnreachableError(message, address=transport.url, reason=lost.reason)


def _copy(
    response: Response, stream: BinaryIO, size_bytes: int, report: Callable[[int], None] | None
) -> tuple[str, int]:
    """Copy an answer, not more than a byte beyond what it should hold, and return its digest and size."""
    hasher, done = hashlib.sha256(), 0
    while chunk := response.read(min(CHUNK_BYTES, size_bytes + 1 - done)):
        hasher.update(chunk)
        stream.write(chunk)
        done += len(chunk)
        if report is not None:
            report(min(done, size_bytes))
        if done > size_bytes:
            break
    return "sha256:" + hasher.hexdigest(), done

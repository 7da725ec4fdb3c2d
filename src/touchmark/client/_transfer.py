"""Moving bytes: files into a repository, a version's files into a folder. Every byte is hashed on this side.

Files go one after the other; parallel and resumable transfers have their place here, behind the same two functions.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from touchmark.client._transport import ATTEMPTS, Answer, Transport, _LostError, _sleep, to_error
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


def list_local_files(source: Path) -> dict[str, Path]:
    """Return the files below a folder (or the one file) by their path in a model.

    Raises InvalidPathError for links and special files (they could carry what was not meant), and for paths no manifest
    may hold; NothingToRegisterError if there is none.
    """
    if not source.exists():
        raise errors.ArtifactNotFoundError(path=str(source))
    if source.is_file():
        return {check_path(source.name): source}
    found: dict[str, Path] = {}
    for folder, folders, names in os.walk(source):
        folders.sort()
        for name in [*folders, *names]:
            file = Path(folder, name)
            mode = file.lstat().st_mode
            path = file.relative_to(source).as_posix()
            if stat.S_ISREG(mode):
                found[path] = file
            elif not stat.S_ISDIR(mode):
                raise errors.InvalidPathError(path=path, reason="links and special files are not taken: copy the file")
    if not found:
        raise errors.NothingToRegisterError(source=str(source))
    check_paths(found)
    return found


def upload_files(
    transport: Transport, repository: str, files: dict[str, Path], progress: Progress | None = None
) -> dict[str, str]:
    """Upload what the repository lacks, and return path to digest. Raises InvalidFieldError if a file changes meanwhile."""
    sizes = {path: file.stat().st_size for path, file in files.items()}
    total, done = sum(sizes.values()), 0
    digests: dict[str, str] = {}
    for path, file in files.items():
        with file.open("rb") as stream:
            digest = "sha256:" + hashlib.file_digest(stream, "sha256").hexdigest()
        address = f"/v2/{quote(repository)}/blobs/{digest}"
        if transport.request("HEAD", address, missing_ok=True).status == 404:
            start = done

            def report(sent: int, path: str = path, start: int = start) -> None:
                if progress is not None:
                    progress(Transfer(path, start + sent, total))

            _upload(transport, repository, path, file, digest, sizes[path], report)
        digests[path] = digest
        done += sizes[path]
        if progress is not None:
            progress(Transfer(path, done, total))
    return digests


def _upload(
    transport: Transport, repository: str, path: str, file: Path, digest: str, size: int, report: Callable[[int], None]
) -> None:
    """Send one file in one piece; the same bytes under the same digest may be sent twice, so it is retried."""
    address = f"/v2/{quote(repository)}/blobs/uploads?digest={digest}"
    headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with (
                file.open("rb") as stream,
                transport.open("POST", address, _read(stream, size, report), headers) as got,
            ):
                answer = Answer(got.status, got.headers, got.read())
        except (_LostError, OSError, http.client.HTTPException) as error:
            transport.close()
            if attempt == ATTEMPTS:
                raise errors.ServerUnreachableError(address=transport.url, reason=str(error)) from None
        else:
            if answer.status < 300:
                return
            found = to_error(answer)
            if isinstance(found, errors.DigestMismatchError):
                raise errors.InvalidFieldError(field=path, reason="the file changed while it was uploaded") from None
            if answer.status not in {429, 502, 503, 504} or attempt == ATTEMPTS:
                raise found
        _sleep(attempt, None)


def _read(stream: object, size: int, report: Callable[[int], None]) -> Iterator[bytes]:
    sent = 0
    while sent < size:
        chunk = stream.read(min(CHUNK_BYTES, size - sent))  # type: ignore[attr-defined]
        if not chunk:
            raise errors.InvalidFieldError(field="file", reason="the file became shorter while it was uploaded")
        sent += len(chunk)
        yield chunk
        report(sent)


def download_files(
    transport: Transport,
    repository: str,
    files: tuple[VersionFile, ...],
    target: Path,
    progress: Progress | None = None,
) -> None:
    """Write files into a folder, each checked before it gets its name; a right one that is there already stays.

    Raises DigestMismatchError (nothing of that file is left), InvalidPathError for a path that would leave the folder.
    """
    check_paths([file.path for file in files])
    total, done = sum(file.size_bytes for file in files), 0
    for file in files:
        place = target.joinpath(*check_path(file.path).split("/"))
        if not is_same(place, file):
            place.parent.mkdir(parents=True, exist_ok=True)
            start = done

            def report(got: int, path: str = file.path, start: int = start) -> None:
                if progress is not None:
                    progress(Transfer(path, start + got, total))

            download_blob(transport, repository, file, place, report)
        done += file.size_bytes
        if progress is not None:
            progress(Transfer(file.path, done, total))


def is_same(place: Path, file: VersionFile) -> bool:
    """Answer whether a regular file is there with these very bytes."""
    try:
        found = place.lstat()
    except OSError:
        return False
    if not stat.S_ISREG(found.st_mode) or found.st_size != file.size_bytes:
        return False
    with place.open("rb") as stream:
        return "sha256:" + hashlib.file_digest(stream, "sha256").hexdigest() == file.digest


def download_blob(
    transport: Transport, repository: str, file: VersionFile, place: Path, report: Callable[[int], None] | None = None
) -> None:
    """Write one blob to a file beside its place, check it, and move it there. Raises DigestMismatchError, NotFoundError."""
    address = f"/v2/{quote(repository)}/blobs/{file.digest}"
    for attempt in range(1, ATTEMPTS + 1):
        descriptor, name = tempfile.mkstemp(dir=place.parent, prefix=".touchmark-")
        try:
            with os.fdopen(descriptor, "wb") as stream, transport.open("GET", address) as response:
                if response.status != 200:
                    answer = Answer(response.status, response.headers, response.read())
                    if answer.status in {429, 502, 503, 504} and attempt < ATTEMPTS:
                        raise _LostError(f"the server answered {answer.status}", sent=False)
                    raise to_error(answer)
                hasher, got = hashlib.sha256(), 0
                while chunk := response.read(CHUNK_BYTES):
                    hasher.update(chunk)
                    stream.write(chunk)
                    got += len(chunk)
                    if got > file.size_bytes:
                        break
                    if report is not None:
                        report(got)
            found = "sha256:" + hasher.hexdigest()
            if got < file.size_bytes and attempt < ATTEMPTS:
                raise _LostError("the answer broke off", sent=True)
            if found != file.digest:
                raise errors.DigestMismatchError(expected=file.digest, found=found, path=file.path)
            Path(name).chmod(0o666 & ~_umask())
            Path(name).replace(place)
        except (_LostError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
            transport.close()
            if attempt == ATTEMPTS:
                raise errors.ServerUnreachableError(address=transport.url, reason=str(error)) from None
            _sleep(attempt, None)
        else:
            return
        finally:
            Path(name).unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask

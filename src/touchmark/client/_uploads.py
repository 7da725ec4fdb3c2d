"""Bytes that go: files of this machine into a repository of a server, each once, and on after a cut.

A small file goes in one request. A large one goes straight to the server's bucket, where there is one that can be reached
(_direct_uploads.py); else in pieces through a session (OCI distribution-spec v1.1, "Pushing a
blob in chunks"), whose address is noted in the cache, so that the next process goes on where one was killed. Which logged
model the files become, and what is listed where, is not known here.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, Self
from urllib.parse import quote, urlsplit

from touchmark.client._locks import try_lock
from touchmark.client._transfer import CHUNK_BYTES, TRANSFER_ATTEMPTS, Meter, Steady, Stop, run_jobs
from touchmark.client._transport import AGAIN, Answer, Attempts, Elsewhere, LostError, Transport, to_error
from touchmark.domain import errors
from touchmark.domain.paths import check_path, check_paths

if TYPE_CHECKING:
    from touchmark.client._transfer import Progress

SESSION_BYTES = 32 << 20
"""A larger file goes through a session: what a cut costs is then at most what was on its way."""
PIECE_BYTES = 64 << 20
"""Each piece is durable on the server when it is answered; a server that is killed loses at most one."""
NOTE_SECONDS = 7 * 86_400
"""Notes of sessions older than this are swept: the server has dropped them long since."""


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
    transport: Transport,
    repository: str,
    files: Mapping[str, Path],
    progress: Progress | None = None,
    *,
    known: Mapping[str, str] | None = None,
    earlier: Sequence[str] = (),
    is_new: bool = False,
) -> dict[str, str]:
    """Upload what the repository lacks, and return path to digest.

    Args:
        transport: the server.
        repository: where to, such as `runs/<id>`.
        files: path in the repository to file here.
        progress: called while bytes move.
        known: digest to another repository of this server that holds it, which is asked to lend it: no byte moves then.
        earlier: repositories that earlier attempts at the same files may have brought some of them to.
        is_new: the repository has just been made, so nothing is there and nothing need be asked for.

    Raises InvalidPathError for a file that cannot be read or changes meanwhile, and what the server answers.

    """
    sizes = {path: file.stat().st_size for path, file in files.items()}
    own = transport.split() if len(files) > 1 else transport
    push = Push(own, repository, sizes, Meter(progress, sizes), known or {}, earlier, is_new)
    largest_first = sorted(files.items(), key=lambda item: -sizes[item[0]])
    try:
        run_jobs([partial(push.send, path, file) for path, file in largest_first], push.interrupt)
    finally:
        push.elsewhere.close()
        if own is not transport:
            own.close()
    return {path: push.digests[path] for path in files}


@dataclass
class Push:
    """Files on their way into one repository."""

    transport: Transport
    repository: str
    sizes: Mapping[str, int]
    meter: Meter
    known: Mapping[str, str]
    earlier: Sequence[str]
    is_new: bool
    digests: dict[str, str] = field(default_factory=dict)
    taken: set[str] = field(default_factory=set)
    guard: threading.Lock = field(default_factory=threading.Lock)
    is_direct: bool = True
    """Whether straight to the bucket is worth a try."""

    def __post_init__(self) -> None:
        """Prepare ways to the bucket."""
        self.elsewhere = Elsewhere(self.transport)

    def interrupt(self) -> None:
        """Cut whatever moves now."""
        self.transport.interrupt()
        self.elsewhere.interrupt()

    def send(self, path: str, file: Path, stop: Stop) -> None:
        """Hash one file, and bring it there unless it is."""
        stop.check()
        digest = self.digests[path] = _hash_file(path, file, stop)
        with self.guard:
            is_first = digest not in self.taken
            self.taken.add(digest)
        if is_first and (self.is_new or not self.is_there(digest)):
            sending = Sending(self, path, file, digest, stop)
            location: str | None = ""
            for source in [self.known[digest]] if digest in self.known else self.earlier:
                self.drop(location)
                if (location := self.mount(digest, source)) is None:
                    break
            if location is not None:  # else it was lent
                send = sending.send_in_pieces if self.sizes[path] > SESSION_BYTES else sending.send_whole
                send(location or None)
        self.meter.end(path)

    def ask(self, method: str, address: str, *, missing_ok: bool = False) -> Answer:
        """Send a request without bytes, as patiently as bytes are sent. A session more that nobody uses does no harm."""
        attempts = Attempts(None, attempts=TRANSFER_ATTEMPTS)
        return self.transport.request(method, address, again=True, missing_ok=missing_ok, attempts=attempts)

    def is_there(self, digest: str) -> bool:
        """Answer whether the repository holds a blob."""
        address = f"/v2/{quote(self.repository)}/blobs/{digest}"
        return self.ask("HEAD", address, missing_ok=True).status != 404

    def mount(self, digest: str, source: str) -> str | None:
        """Ask the server to lend a blob of another repository; None if it did, else the address of a session to send to.

        The address is empty if the server gave none.
        """
        query = f"?mount={digest}&from={quote(source, safe='')}"
        try:
            answer = self.ask("POST", f"/v2/{quote(self.repository)}/blobs/uploads/{query}")
        except (errors.NotFoundError, errors.DeniedError, errors.InvalidError, errors.UnsupportedError):
            return ""  # it is not ours to read, or not there any more: send the bytes
        return None if answer.status == 201 else self.find_path(answer)

    def drop(self, location: str | None) -> None:
        """End a session that will not be gone on with."""
        if location:
            with suppress(errors.TouchmarkError):
                self.transport.request("DELETE", location, missing_ok=True)

    def find_path(self, answer: Answer) -> str:
        """Return the path and query of a session's address, on this server. Raises ServerUnreachableError if it is not."""
        location = answer.headers.get("location", "")
        parts = urlsplit(location)
        path = parts.path.removeprefix(self.transport.prefix) + (f"?{parts.query}" if parts.query else "")
        # The host is not looked at: a server behind a proxy may know itself by another name, and bytes (and our token)
        # only ever go to the one we were told.
        if not path.startswith("/v2/"):
            reason = "what answers there is no Touchmark: it gave no address to send to"
            raise errors.ServerUnreachableError(address=self.transport.url, reason=reason)
        return path


@dataclass
class Sending:
    """One file on its way."""

    push: Push
    path: str
    file: Path
    digest: str
    stop: Stop

    @property
    def size_bytes(self) -> int:
        """Return how large the file was when the push began."""
        return self.push.sizes[self.path]

    def send_whole(self, location: str | None) -> None:
        """Send the file in one request. The same bytes under the same digest may arrive twice, so it is sent again."""
        alone = f"/v2/{quote(self.push.repository)}/blobs/uploads/?digest={self.digest}"
        method, address = ("POST", alone) if location is None else ("PUT", _with_digest(location, self.digest))
        attempts = Steady()
        while True:
            answer = self._try(method, address, 0, self.size_bytes, attempts, 0)
            if answer is not None and answer.status < 300:
                return
            if answer is not None and not (method == "PUT" and answer.status == 404):
                self._judge(answer, attempts, 0)
            method, address = "POST", alone  # a session takes its bytes once

    def send_in_pieces(self, location: str | None) -> None:
        """Send the file through a session: one that was noted by an earlier process, the one given, or a new one."""
        with Note(self.push.transport.known_as, self.digest) as note:
            noted = note.read()
            if self.push.is_direct and len(noted) != 2:
                from touchmark.client._direct_uploads import send_direct

                if send_direct(self, note, noted):
                    self.push.drop(location)
                    return
                noted = []
            if len(noted) == 2:
                self.push.drop(location)
                self._send_on(note, noted[0], noted[1], resumed=True)
            else:
                self._send_on(note, self.push.repository, location, resumed=False)

    def _send_on(self, note: Note, repository: str, location: str | None, *, resumed: bool) -> None:
        """Send until the blob is there. `resumed` says that what the session has came from an earlier process."""
        attempts = Steady()
        done = 0
        ask = resumed
        while True:
            self.stop.check()
            if location is not None and ask:
                found = self._find_offset(location)
                if found is None:
                    # It ended: with the blob, if the answer to the last request was lost; or the server has dropped it.
                    note.forget()
                    if self.is_done(repository):
                        return
                    location, resumed = None, False
                else:
                    done = found
                    self.push.meter.at(self.path, done)
            if location is None:
                repository, done = self.push.repository, 0
                address = f"/v2/{quote(repository)}/blobs/uploads/"
                location = self.push.find_path(self.push.ask("POST", address))
            note.write(repository, location)
            answer = self._send_rest(location, done, attempts)
            ask = True
            if answer is None:
                continue
            if answer.status == 201:
                note.forget()
                if self.is_done(repository):
                    return
                location = None
                attempts.pause(to_error(answer), 0)
                continue
            wrong = isinstance(to_error(answer), errors.DigestMismatchError)
            if wrong:
                note.forget()
                self.push.drop(location)
                location = None
                if resumed:  # what an earlier process sent was not this file after all: it changed while it was read
                    resumed = False
                    continue
            self._judge(answer, attempts, done, also=(404, 416))

    def _find_offset(self, location: str) -> int | None:
        """Return how many bytes of a session are there, None if there is no such session."""
        try:
            answer = self.push.ask("GET", location, missing_ok=True)
        except (errors.DeniedError, errors.InvalidError, errors.ConflictError, errors.NotFoundError):
            return None  # it belongs to somebody else, or to a run that is deleted
        offset = answer.headers.get("touchmark-upload-offset", "")
        if answer.status == 404 or not offset.isdigit():
            return None
        return min(int(offset), self.size_bytes)

    def _send_rest(self, location: str, done: int, attempts: Steady) -> Answer | None:
        """Send pieces from `done` on and finish. Return the answer that ends it, None to ask how far it is and go on."""
        while done < self.size_bytes:
            end = min(done + PIECE_BYTES, self.size_bytes)
            answer = self._try("PATCH", location, done, end, attempts, done)
            if answer is None or answer.status != 202:
                return answer
            location, done = self.push.find_path(answer), end
        return self._try("PUT", _with_digest(location, self.digest), done, done, attempts, done)

    def is_done(self, repository: str) -> bool:
        """Answer whether the blob is in the repository it is for, lent by the one where its session was if need be."""
        if repository != self.push.repository:
            return self.push.mount(self.digest, repository) is None
        return self.push.is_there(self.digest)

    def _try(self, method: str, address: str, begin: int, end: int, attempts: Steady, done: int) -> Answer | None:
        """Send bytes once, and return the answer; None if there was none and there may be another attempt."""
        transport = self.push.transport
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(end - begin)}
        if method == "PATCH":
            headers["Content-Range"] = f"{begin}-{end - 1}"
        body = read_file(self.path, self.file, begin, end, partial(self.push.meter.at, self.path), self.stop)
        try:
            with transport.open(method, address, body, headers) as response:
                return Answer(response.status, response.headers, response.read())
        except LostError as lost:
            self.stop.check()
            attempts.pause(transport.unreachable(lost), done)
            return None

    def _judge(self, answer: Answer, attempts: Steady, done: int, *, also: tuple[int, ...] = ()) -> None:
        """Wait if an answer says "again" (or has a status of `also`); raise what it says otherwise."""
        error = to_error(answer)
        if isinstance(error, errors.DigestMismatchError):
            raise _changed(self.path) from None
        if answer.status not in also and answer.status not in AGAIN:
            raise error
        attempts.pause(error, done, answer.headers.get("retry-after"))


def _with_digest(location: str, digest: str) -> str:
    return f"{location}{'&' if '?' in location else '?'}digest={digest}"


def read_file(
    path: str, file: Path, begin: int, end: int, report: Callable[[int], None], stop: Stop
) -> Iterator[bytes]:
    """Yield the file's bytes from `begin` to before `end`, as many as were announced."""
    done = begin
    with _open_file(path, file) as stream:
        stream.seek(begin)
        while done < end:
            stop.check()
            try:
                chunk = stream.read(min(CHUNK_BYTES, end - done))
            except OSError as error:  # else it would be taken for one of the network
                raise errors.InvalidPathError(path=path, reason=f"it cannot be read ({error.strerror})") from None
            if not chunk:
                raise _changed(path)
            done += len(chunk)
            yield chunk
            report(done)


def _hash_file(path: str, file: Path, stop: Stop) -> str:
    hasher = hashlib.sha256()
    with _open_file(path, file) as stream:
        try:
            while chunk := stream.read(CHUNK_BYTES):
                hasher.update(chunk)
                stop.check()
        except OSError as error:
            raise errors.InvalidPathError(path=path, reason=f"it cannot be read ({error.strerror})") from None
    return "sha256:" + hasher.hexdigest()


def _open_file(path: str, file: Path) -> BufferedReader:
    try:
        return file.open("rb")
    except OSError as error:
        raise errors.InvalidPathError(path=path, reason=f"it cannot be read ({error.strerror})") from None


def _changed(path: str) -> errors.InvalidPathError:
    return errors.InvalidPathError(path=path, reason="the file changed while it was uploaded: upload it again")


# ── what the next process has to know ────────────────────────────────────────────────────────────────────────────


class Note:
    """A few words in the cache about something on a server that is not finished, under what it is about.

    Notes help and are never needed: one that cannot be read or written is as if it were not there, and what a note says
    is asked of the server before it is believed.
    """

    def __init__(self, *about: str) -> None:
        """Name it by what it is about."""
        self._about = list(about)
        self._place: Path | None = None
        self._lock: int | None = None

    def __enter__(self) -> Self:
        """Take the note for this process; while another has it, this one reads and writes none."""
        with suppress(OSError, RuntimeError, errors.TouchmarkError):
            from touchmark.client._cache import open_cache

            folder = open_cache().folder / "uploads"
            folder.mkdir(mode=0o700, exist_ok=True)
            place = folder / hashlib.sha256("\n".join(self._about).encode()).hexdigest()
            self._lock = try_lock(place.with_suffix(".lock"))
            self._place = place if self._lock is not None else None
        return self

    def __exit__(self, *_error: object) -> None:
        """Let go of it."""
        if self._place is not None and self._lock is not None:
            with suppress(OSError):
                self._place.with_suffix(".lock").unlink()
            os.close(self._lock)
        self._place = self._lock = None

    def read(self) -> list[str]:
        """Return the words of the note, none if there is no note."""
        if self._place is None:
            return []
        try:
            found = json.loads(self._place.read_text(encoding="utf-8"))
            words = found["words"] if found["about"] == self._about else []
        except (OSError, ValueError, TypeError, KeyError):
            return []
        return words if isinstance(words, list) and all(isinstance(word, str) for word in words) else []

    def write(self, *words: str) -> None:
        """Replace the note."""
        if self._place is None:
            return
        with suppress(OSError):
            new = self._place.with_suffix(f".{os.urandom(4).hex()}")
            new.write_text(json.dumps({"about": self._about, "words": words}), encoding="utf-8")
            new.replace(self._place)
            _sweep(self._place.parent)

    def forget(self) -> None:
        """Take the note away."""
        if self._place is not None:
            with suppress(OSError):
                self._place.unlink(missing_ok=True)


def _sweep(folder: Path) -> None:
    end = time.time() - NOTE_SECONDS
    for place in folder.iterdir():
        if place.stat().st_mtime < end:
            place.unlink(missing_ok=True)

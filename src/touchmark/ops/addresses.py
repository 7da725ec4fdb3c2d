"""The files of an address on the allow-list: which there are, and how their bytes come here.

Three kinds of places: a bucket (through obstore and a gate, addresses_gate.py), one file of an HTTP server, a repository of a
Hugging Face hub. Each is listed first; what is fetched then must be what was listed: the same size, the same ETag or
commit, the digest where the place knows it. What must not live here: rows, what becomes of the version.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from hashlib import sha256
from os import environ
from typing import Any, Protocol
from urllib.parse import quote, unquote, urljoin

from touchmark.artifacts.blobs import BlobStore
from touchmark.domain.addresses import HUB, Address, ImportPrefix, ImportRules, parse_url
from touchmark.domain.digest import Digest, parse_digest
from touchmark.domain.errors import (
    BusyError,
    DeniedError,
    DigestMismatchError,
    InvalidDigestError,
    InvalidError,
    InvalidSourceError,
    LimitExceededError,
    NotFoundError,
    NothingToRegisterError,
    StorageFullError,
    UnsupportedError,
)
from touchmark.domain.paths import MAX_PATHS, check_paths
from touchmark.domain.versions import VersionFile
from touchmark.ops.addresses_gate import Gate
from touchmark.ops.addresses_http import Answer, GuardedHttp
from touchmark.ops.mlflow_files import run_ahead

FETCHERS = 4
"""Files fetched at once."""
ATTEMPTS = 5
"""How often a file is gone on with; an attempt that brought PROGRESS_BYTES does not count."""
PROGRESS_BYTES = 8 << 20
"""See ATTEMPTS."""
PAUSE_SECONDS = 0.5
_PAGES = 1000
_COMMIT = re.compile(r"[0-9a-f]{40}")
_NEXT = re.compile(r'<([^>]*)>\s*;\s*rel="?next"?')
_RANGE = re.compile(r"bytes ([0-9]{1,18})-[0-9]{1,18}/([0-9]{1,18}|\*)")
_METADATA = "169.254.169.254"
_CLOUDS = {
    "s3": (".amazonaws.com", ".amazonaws.com.cn"),
    "gs": (".googleapis.com",),
    "az": (".core.windows.net", ".microsoftonline.com"),
}
_ENDPOINTS = {
    "s3": ("aws_endpoint", "aws_endpoint_url", "aws_endpoint_url_s3"),
    "gs": ("google_base_url",),
    "az": ("azure_storage_endpoint", "azure_endpoint"),
}
"""Where obstore looks for an endpoint, among options and, in capitals, in the environment; options know short names, too."""
_SHORT = ("endpoint", "endpoint_url", "base_url")


@dataclass(frozen=True, slots=True)
class ListedFile:
    """A file of a place.

    `path` is what it will be called in the version, `at` where the place has it. `mark` says, while it stays the same, that
    the bytes do: an ETag, or a commit; without one a file that broke off is fetched anew. `digest` is what the place says.
    """

    path: str
    at: str
    size_bytes: int | None
    mark: str | None
    digest: Digest | None = None


@dataclass(frozen=True, slots=True)
class Listing:
    """All files of an address, and the revision of it: a commit, an ETag, or the SHA-256 of the list with its ETags."""

    files: tuple[ListedFile, ...]
    revision: str | None

    @property
    def size_bytes(self) -> int | None:
        """The bytes of all; None if one does not say."""
        sizes = [file.size_bytes for file in self.files if file.size_bytes is not None]
        return sum(sizes) if len(sizes) == len(self.files) else None


class Place(Protocol):
    """An address that can be read. From any thread."""

    def list_files(self) -> Listing:
        """Return what is there. Raises NotFoundError, DeniedError, BusyError, InvalidError, LimitExceededError."""

    def open_file(self, file: ListedFile, offset: int) -> AbstractContextManager[Iterator[bytes]]:
        """Open a file from an offset on. Raises as `list_files` does, InvalidError too if it is another one by now."""

    def close(self) -> None:
        """Give back what is open."""


def open_place(rules: ImportRules, address: Address) -> Place:
    """Return the place of an address. Raises InvalidSourceError if it is on no list, InvalidError."""
    entry = rules.find(address)
    if entry is None:
        raise InvalidSourceError(source=address.text[:300], reason="it is on no list of this server (import_from)")
    if address.scheme in {"http", "https"}:
        return UrlPlace(GuardedHttp(entry, address, rules), address)
    if address.scheme == "hf":
        return HubPlace(entry, rules, address)
    return BucketPlace(entry, rules, address)


# ── one file of an HTTP server ───────────────────────────────────────────────────────────────────────────────────


class UrlPlace:
    """A URL: one file, called as its last part is."""

    def __init__(self, http: GuardedHttp, address: Address) -> None:
        """Take the URL."""
        self._http, self._url = http, f"{address.scheme}://{address.place}/{address.path}"
        self._name = unquote(address.path.rpartition("/")[2])

    def list_files(self) -> Listing:
        """Ask for its first byte."""
        try:
            with self._http.open(self._url, {"Range": "bytes=0-0"}) as answer:
                size_bytes, mark = answer.size_bytes, _read_mark(answer)
                if answer.status == 206:
                    size_bytes = _read_range(answer, 0)
        except UnsupportedError as error:
            if error.fields.get("status") != 416:  # an empty file has no first byte
                raise
            with self._http.open(self._url) as answer:
                size_bytes, mark = answer.size_bytes, _read_mark(answer)
        file = ListedFile(self._name, self._url, size_bytes, mark)
        return Listing((file,), mark or answer.headers.get("etag") or answer.headers.get("last-modified"))

    @contextmanager
    def open_file(self, file: ListedFile, offset: int) -> Iterator[Iterator[bytes]]:
        """Open it."""
        headers = {"Range": f"bytes={offset}-", "If-Range": file.mark or ""} if offset else {}
        with self._http.open(file.at, headers) as answer:
            if _read_mark(answer) != file.mark:
                raise InvalidError(f"{file.path!r} changed while it was imported.")
            yield _go_on(file, answer, offset)

    def close(self) -> None:
        """Nothing is kept open."""


def _read_mark(answer: Answer) -> str | None:
    """Return the answer's ETag if it is a strong one: only that says that bytes are the same (RFC 9110, 8.8.3)."""
    etag = answer.headers.get("etag", "")
    return etag[:200] if re.fullmatch(r'"[!#-~]+"', etag) is not None else None


def _read_range(answer: Answer, offset: int) -> int | None:
    """Return the size of the whole of which an answer is a part, None if it does not say. Raises InvalidError."""
    found = _RANGE.fullmatch(answer.headers.get("content-range", ""))
    if found is None or int(found[1]) != offset:
        raise InvalidError("The server answers with another part of the file than was asked for.")
    return None if found[2] == "*" else int(found[2])


def _go_on(file: ListedFile, answer: Answer, offset: int) -> Iterator[bytes]:
    """Return the bytes of an answer from `offset` on, whether the server skipped those before it or not."""
    whole = answer.size_bytes
    if answer.status == 206:
        whole = _read_range(answer, offset)
        offset = 0
    if whole is not None and file.size_bytes is not None and whole != file.size_bytes:
        raise InvalidError(f"{file.path!r} has {whole} bytes where {file.size_bytes} were said.")
    return _skip(answer.chunks, offset)


def _skip(chunks: Iterator[bytes], count: int) -> Iterator[bytes]:
    for chunk in chunks:
        if count < len(chunk):
            yield chunk[count:]
        count = max(0, count - len(chunk))


# ── a repository of a hub ────────────────────────────────────────────────────────────────────────────────────────


class HubPlace:
    """A model repository of a Hugging Face hub, at one commit: `/api/models/…/tree` says what is there, `/resolve` sends it.

    Large files come from wherever the hub sends us on to, and with the SHA-256 they must have (`lfs.oid` of the tree).
    """

    def __init__(self, entry: ImportPrefix, rules: ImportRules, address: Address) -> None:
        """Take the repository, and the path in it."""
        self._base = (entry.endpoint or HUB).rstrip("/")
        self._http = GuardedHttp(entry, parse_url(self._base), rules)
        organisation, name, *path = address.path.split("/")
        self._repo, self._path = f"{organisation}/{name}", "/".join(path)
        self._revision = address.revision or "main"

    def list_files(self) -> Listing:
        """List the tree of the commit that the revision is now."""
        commit = self._find_commit() or self._revision
        try:
            entries, seen = self._list_tree(commit, self._path, recursive=True)
            below = f"{self._path}/" if self._path else ""
        except NotFoundError:
            if not self._path:
                raise
            entries, seen, below = [], None, ""
        if not entries and self._path:  # perhaps it is a file: its folder tells
            below, _, name = self._path.rpartition("/")
            found, seen = self._list_tree(commit, below, recursive=False)
            below = f"{below}/" if below else ""
            entries = [each for each in found if each.get("path") == below + name]
        if _COMMIT.fullmatch(commit) is None and seen is not None:
            commit = seen
        mark = commit if _COMMIT.fullmatch(commit) is not None else None
        files = [_to_listed(each, below, commit, mark) for each in entries if each.get("type") == "file"]
        return Listing(tuple(sorted(files, key=lambda file: file.path)), commit)

    def _find_commit(self) -> str | None:
        """Return the commit a revision means now, None where the hub does not say."""
        try:
            url = f"{self._base}/api/models/{self._repo}/revision/{quote(self._revision, safe='')}"
            found, _headers = self._http.get_json(url)
        except NotFoundError:
            return None
        commit = str(found.get("sha")) if isinstance(found, dict) else ""
        return commit if _COMMIT.fullmatch(commit) is not None else None

    def _list_tree(self, commit: str, path: str, *, recursive: bool) -> tuple[list[dict[str, Any]], str | None]:
        """Return what lies below a path, and the commit the hub says it is of."""
        whole = quote(f"{commit}/{path}" if path else commit)
        url = f"{self._base}/api/models/{self._repo}/tree/{whole}{'?recursive=true' if recursive else ''}"
        entries: list[dict[str, Any]] = []
        for _ in range(_PAGES):
            page, headers = self._http.get_json(url)
            if not isinstance(page, list) or not all(isinstance(each, dict) for each in page):
                raise InvalidError(f"{self._base} does not answer as a hub does.")
            entries += page
            if len(entries) > MAX_PATHS * 4:  # folders are listed, too
                raise LimitExceededError(what="What is imported at once", limit=MAX_PATHS, unit="files")
            more = _NEXT.search(headers.get("link", ""))
            if more is None:
                seen = headers.get("x-repo-commit", "")
                return entries, seen if _COMMIT.fullmatch(seen) is not None else None
            url = urljoin(url, more[1])
        raise InvalidError(f"{self._base} has no end of pages.")

    @contextmanager
    def open_file(self, file: ListedFile, offset: int) -> Iterator[Iterator[bytes]]:
        """Open a file of the commit that was listed."""
        url = f"{self._base}/{self._repo}/resolve/{quote(file.at)}"
        with self._http.open(url, {"Range": f"bytes={offset}-"} if offset else {}) as answer:
            yield _go_on(file, answer, offset)

    def close(self) -> None:
        """Nothing is kept open."""


def _to_listed(each: Mapping[str, Any], below: str, commit: str, mark: str | None) -> ListedFile:
    path, size, digest = each.get("path"), each.get("size"), None
    is_size = isinstance(size, int) and not isinstance(size, bool) and size >= 0
    if not isinstance(path, str) or not path.startswith(below) or not is_size or len(path) > 2000:
        raise InvalidError("The hub lists a file without a path below what was asked for, or without a size.")
    lfs = each.get("lfs")
    if isinstance(lfs, dict):
        try:
            digest = parse_digest("sha256:" + str(lfs.get("oid")).removeprefix("sha256:"))
        except InvalidDigestError:
            raise InvalidError(f"The hub lists {path[:300]!r} with a digest that is none.") from None
    return ListedFile(path.removeprefix(below), f"{commit}/{path}", size, mark, digest)


# ── a bucket ─────────────────────────────────────────────────────────────────────────────────────────────────────


class BucketPlace:
    """What lies below a key of a bucket."""

    def __init__(self, entry: ImportPrefix, rules: ImportRules, address: Address) -> None:
        """Open the bucket behind a gate. Raises InvalidError for options nobody knows, MissingExtraError."""
        from touchmark.artifacts.sources import ForeignBucket  # 50 ms, which no start should wait for

        self._entry, self._rules, self._key = entry, rules, address.path
        names, options = _ENDPOINTS[address.scheme], {key.lower(): value for key, value in entry.options.items()}
        said = (options.get(name) for name in (*names, *_SHORT))
        endpoint = entry.endpoint or next(filter(None, (*said, *(environ.get(name.upper()) for name in names))), None)
        self._endpoint = None if endpoint is None else parse_url(endpoint)
        self._scheme = address.scheme
        self._gate = Gate(self._check)
        try:
            self._bucket = ForeignBucket(
                address.scheme, address.place, endpoint=endpoint, options=entry.options, proxy_url=self._gate.url
            )
        except BaseException:
            self._gate.close()
            raise

    def _check(self, target: Address) -> tuple[str, bool]:
        """Return which host the settings name for a connection, and whether it may be private. Raises DeniedError."""
        host = target.host
        if self._endpoint is not None:
            mine = self._endpoint.host
            if target.port == self._endpoint.port and (host == mine or host.endswith(f".{mine}")):
                return mine if host == mine else host, self._entry.private
        elif target.port == 443 and host.endswith(_CLOUDS[self._scheme]):
            return host, self._entry.private
        if host == _METADATA:
            if self._entry.machine_identity:
                return _METADATA, False
            raise DeniedError(
                "There are no credentials for it: give them as options, or write skip_signature among these (a public "
                "bucket), or machine_identity = true (those of this machine)."
            )
        named = self._entry.find_redirect(target)
        if named is None:
            raise DeniedError(
                f"It leads to {target.place}, which is on no list of this server (import_from, redirects)."
            )
        return named, self._entry.private

    def list_files(self) -> Listing:
        """List what lies below the key, or find the one object of that key."""
        with self._refusals():
            found = self._bucket.list_objects(self._key, MAX_PATHS)
        below = f"{self._key}/" if self._key else ""
        files = []
        for item in found:
            path = item.key.rpartition("/")[2] if item.key == self._key else item.key.removeprefix(below)
            files.append(ListedFile(path, item.key, item.size_bytes, item.etag))
        lines = "".join(f"{file.path}\n{file.size_bytes}\n{file.mark}\n" for file in files)
        revision = files[0].mark if len(files) == 1 else f"sha256:{sha256(lines.encode()).hexdigest()}"
        return Listing(tuple(files), revision)

    @contextmanager
    def open_file(self, file: ListedFile, offset: int) -> Iterator[Iterator[bytes]]:
        """Open an object that was listed."""
        from touchmark.artifacts.sources import ForeignObject

        with self._refusals():
            item = ForeignObject(file.at, file.size_bytes or 0, file.mark)
            with self._bucket.open_object(item, offset) as chunks:
                yield chunks

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        """Say why, where the gate refused what the bucket's client can only say failed."""
        before = len(self._gate.refusals)
        try:
            yield
        except (BusyError, DeniedError, NotFoundError):
            if len(self._gate.refusals) > before:
                raise DeniedError(self._gate.refusals[-1]) from None
            raise

    def close(self) -> None:
        """Close the gate."""
        self._gate.close()


# ── fetching ─────────────────────────────────────────────────────────────────────────────────────────────────────


class Meter:
    """Counts the bytes of an import, and stops it where it must end. From any thread."""

    def __init__(self, max_bytes: int, is_stopped: Callable[[], bool]) -> None:
        """Begin at nothing."""
        self._max_bytes, self._is_stopped = max_bytes, is_stopped
        self._lock, self.done_bytes = threading.Lock(), 0

    def add(self, count: int) -> None:
        """Count bytes that came, or take back such as come again. Raises LimitExceededError, BusyError if it was stopped."""
        with self._lock:
            self.done_bytes += count
            is_over = self.done_bytes > self._max_bytes
        if is_over:
            raise self._limit()
        if self.is_stopped:
            raise BusyError("The import was stopped.")

    @property
    def is_stopped(self) -> bool:
        """Whether nothing more should be fetched."""
        return self._is_stopped()

    def check_listing(self, listing: Listing, source: str) -> None:
        """Hold a list against what one version may be, before anything is fetched.

        Raises NothingToRegisterError, LimitExceededError, InvalidPathError.
        """
        if not listing.files:
            raise NothingToRegisterError(f"There is no file at {source[:300]!r}.", source=source[:300])
        check_paths(file.path for file in listing.files)
        if sum(file.size_bytes or 0 for file in listing.files) > self._max_bytes:
            raise self._limit()

    def _limit(self) -> LimitExceededError:
        return LimitExceededError(
            what="What is imported at once", limit=self._max_bytes, unit="bytes (max_import_bytes)"
        )


def fetch_listing(
    blobs: BlobStore,
    place: Place,
    listing: Listing,
    have: Mapping[str, tuple[VersionFile, str | None]],
    meter: Meter,
    on_file: Callable[[VersionFile, str | None], None] = lambda _file, _mark: None,
) -> Iterator[VersionFile]:
    """Fetch the files of a place into the store, several at once, hashed on the way; yield each in the order of the list.

    `have` are those that an import before this one brought here, by path, with the mark they had: they are not fetched
    again. `on_file` is told of each as soon as it is here, with its mark, from any thread. Raises BusyError and DeniedError
    (trying again may help), InvalidError, NotFoundError, StorageFullError.
    """

    def fetch(file: ListedFile) -> VersionFile:
        found, mark = have.get(file.path, (None, None))
        is_same = found is not None and mark is not None and (mark, found.size_bytes) == (file.mark, file.size_bytes)
        if found is None or not is_same or blobs.find_size(found.digest) != found.size_bytes:
            found = _fetch(blobs, place, file, meter)
        else:
            meter.add(found.size_bytes)
        on_file(found, file.mark)
        return found

    pool = ThreadPoolExecutor(FETCHERS, thread_name_prefix="fetch")
    try:
        yield from run_ahead(pool, fetch, listing.files, FETCHERS * 2)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _fetch(blobs: BlobStore, place: Place, file: ListedFile, meter: Meter) -> VersionFile:
    failures = 0
    while True:
        with blobs.open_writer(file.size_bytes) as writer:
            while True:
                before = writer.size_bytes
                try:
                    with place.open_file(file, before) as chunks:
                        for chunk in chunks:
                            writer.write(chunk)
                            meter.add(len(chunk))
                            if file.size_bytes is not None and writer.size_bytes > file.size_bytes:
                                raise InvalidError(
                                    f"{file.path!r} is longer than the {file.size_bytes} bytes that were said."
                                )
                    if file.size_bytes is not None and writer.size_bytes != file.size_bytes:
                        raise BusyError(f"{file.path!r} ended after {writer.size_bytes} of {file.size_bytes} bytes.")
                    try:
                        stored = writer.commit(file.digest)
                    except DigestMismatchError:
                        raise InvalidError(f"The bytes of {file.path!r} are not those whose digest was said.") from None
                    return VersionFile(file.path, stored.size_bytes, stored.digest)
                except StorageFullError:
                    raise
                except BusyError:
                    is_further = file.mark is not None and writer.size_bytes - before >= PROGRESS_BYTES
                    failures = 1 if is_further else failures + 1
                    if failures >= ATTEMPTS or meter.is_stopped:
                        raise
                    time.sleep(PAUSE_SECONDS * 2 ** (failures - 1))
                    if file.mark is None:  # nobody could tell whether what follows belongs to what is here
                        meter.add(-writer.size_bytes)
                        break

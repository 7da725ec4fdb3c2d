"""Where the files that MLflow speaks of lie, and how their bytes come here.

MLflow names files by addresses: `mlflow-artifacts:/…` (its own proxy), a path or `file:` on the server's machine, `s3://…`.
A `Place` is an address that can be read. Three kinds:

- ProxyPlace: below the artifact proxy of an MLflow server,
- ServedPlace: a run's or logged model's own root, wherever it lies, through the server that can read it,
- FolderPlace: a folder on this machine, which somebody named (`--artifacts`).

An address is never trusted to say where to connect or what to open: only the one server and the folders given are read.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar
from urllib.parse import SplitResult, unquote, urlsplit

from touchmark.artifacts.blobs import CHUNK_BYTES, BlobStore, StoredBlob
from touchmark.domain.errors import (
    BusyError,
    InvalidFieldError,
    LimitExceededError,
    NotFoundError,
    StorageFullError,
    UnsupportedError,
)
from touchmark.domain.imports import find_copied
from touchmark.domain.names import is_logged_model_id
from touchmark.ops.mlflow_http import API, ARTIFACTS, ATTEMPTS, PAUSE_SECONDS, MlflowHttp, quote_path

FETCHERS = 4
"""Files fetched at once. MLflow's server is the slower side; hashing takes one core for 1.8 GB/s."""
_FILES_IN_ALL = 100_000
_DEPTH = 60
Item = TypeVar("Item")
Result = TypeVar("Result")
_PROXY_PATH = "/api/2.0/mlflow-artifacts/artifacts/"


@dataclass(frozen=True, slots=True)
class PlacedFile:
    """A file of a place: its path from the place's root, and its size if it is known."""

    path: str
    size_bytes: int | None


class Place(Protocol):
    """An address that can be read; a place that is one file holds it under its base name."""

    def list_files(self) -> list[PlacedFile]:
        """Return every file below, by path; none if there is nothing. Raises LimitExceededError, BusyError."""

    def open_file(self, path: str) -> AbstractContextManager[Iterator[bytes]]:
        """Open a file that was listed. Raises NotFoundError; BusyError, also while it is read."""


# ── three kinds of places ────────────────────────────────────────────────────────────────────────────────────────


class ProxyPlace:
    """Below `/api/2.0/mlflow-artifacts/artifacts` of a server."""

    def __init__(self, http: MlflowHttp, root: str) -> None:
        """Take the path below the proxy's root."""
        self._http, self._root = http, root.strip("/")

    def list_files(self) -> list[PlacedFile]:
        """Return every file below."""
        return _list_tree(self._list, self._root)

    def _list(self, folder: str) -> list[dict[str, Any]]:
        return _files(self._http.get(ARTIFACTS, {"path": folder} if folder else None))

    @contextmanager
    def open_file(self, path: str) -> Iterator[Iterator[bytes]]:
        """Open a file."""
        with self._http.stream(f"{ARTIFACTS}/{quote_path(_below(self._root, path))}") as chunks:
            yield chunks


class ServedPlace:
    """Below the root of a run or a logged model, read by the server it belongs to with the server's own credentials."""

    def __init__(self, http: MlflowHttp, kind: str, owner_id: str, root: str = "") -> None:
        """Take whose files are meant (`run` or `logged_model`) and the path below its root."""
        self._http, self._is_run, self._owner_id, self._root = http, kind == "run", owner_id, root.strip("/")

    def list_files(self) -> list[PlacedFile]:
        """Return every file below."""
        return _list_tree(self._list, self._root)

    def _list(self, folder: str) -> list[dict[str, Any]]:
        if self._is_run:
            listed = self._http.get(f"{API}/artifacts/list", {"run_id": self._owner_id, "path": folder or None})
        else:
            address = f"{API}/logged-models/{quote_path(self._owner_id)}/artifacts/directories"
            listed = self._http.get(address, {"artifact_directory_path": folder or None})
        # These routes give paths from the owner's root, the proxy's gives base names.
        return [{**each, "path": str(each.get("path", "")).rpartition("/")[2]} for each in _files(listed)]

    @contextmanager
    def open_file(self, path: str) -> Iterator[Iterator[bytes]]:
        """Open a file."""
        whole = _below(self._root, path)
        if self._is_run:
            opened = self._http.stream("/get-artifact", {"run_id": self._owner_id, "path": whole})
        else:
            address = f"/ajax-api/2.0/mlflow/logged-models/{quote_path(self._owner_id)}/artifacts/files"
            opened = self._http.stream(address, {"artifact_file_path": whole})
        with opened as chunks:
            yield chunks


class FolderPlace:
    """A folder, or one file, on this machine. What a symbolic link inside leads out of it is not there."""

    def __init__(self, root: Path, allowed: Path) -> None:
        """Take the place, and the folder it must stay below."""
        self._root, self._allowed = root, allowed.resolve()

    def list_files(self) -> list[PlacedFile]:
        """Return every file below."""
        if self._root.is_file():
            return [PlacedFile(self._root.name, self._root.stat().st_size)] if self._is_inside(self._root) else []
        found: list[PlacedFile] = []
        for folder, _folders, names in os.walk(self._root):
            for name in names:
                path = Path(folder, name)
                if path.is_file() and self._is_inside(path):
                    found.append(PlacedFile(path.relative_to(self._root).as_posix(), path.stat().st_size))
                    _check_count(len(found))
        return sorted(found, key=lambda file: file.path)

    @contextmanager
    def open_file(self, path: str) -> Iterator[Iterator[bytes]]:
        """Open a file."""
        whole = self._root if self._root.is_file() else self._root / path
        if not self._is_inside(whole):
            raise NotFoundError(f"There is no file {path!r} below {self._allowed}.")
        try:
            with whole.open("rb") as file:
                yield iter(lambda: file.read(CHUNK_BYTES), b"")
        except FileNotFoundError:
            raise NotFoundError(f"There is no file {path!r} below {self._allowed}.") from None

    def _is_inside(self, path: Path) -> bool:
        return path.resolve().is_relative_to(self._allowed)


def _list_tree(list_folder: Callable[[str], list[dict[str, Any]]], root: str) -> list[PlacedFile]:
    found: list[PlacedFile] = []
    open_folders = [("", 0)]
    while open_folders:
        folder, depth = open_folders.pop()
        for each in list_folder(_below(root, folder)):
            name = each.get("path")
            if not isinstance(name, str) or not name or name in {".", ".."} or "/" in name:
                continue  # what names no entry of this folder
            path = _below(folder, name)
            if each.get("is_dir"):
                if depth < _DEPTH:
                    open_folders.append((path, depth + 1))
            else:
                found.append(PlacedFile(path, _read_size(each)))
                _check_count(len(found))
    if not found and root:  # perhaps it is a file: its folder tells
        folder, _, name = root.rpartition("/")
        for each in list_folder(folder):
            if each.get("path") == name and not each.get("is_dir"):
                return [PlacedFile(name, _read_size(each))]
    return sorted(found, key=lambda file: file.path)


def _read_size(file: Mapping[str, Any]) -> int | None:
    """Return a file's size in bytes, which JSON may hold as text; None if it says none that can be."""
    text = str(file.get("file_size"))
    return int(text) if len(text) < 20 and text.isascii() and text.isdigit() else None


def _files(listed: Any) -> list[dict[str, Any]]:
    files = listed.get("files")
    return [each for each in files if isinstance(each, dict)] if isinstance(files, list) else []


def _check_count(count: int) -> None:
    if count > _FILES_IN_ALL:
        raise LimitExceededError(what="What is fetched at once", limit=_FILES_IN_ALL, unit="files")


def _below(root: str, path: str) -> str:
    return f"{root}/{path}" if root and path else root or path


# ── from an address to a place ───────────────────────────────────────────────────────────────────────────────────


@dataclass
class Places:
    """Finds the place of an address. `owners` knows the roots of runs and logged models: address to (kind, id)."""

    server: MlflowHttp | None = None
    folders: Sequence[Path] = ()
    proxies: Sequence[MlflowHttp] = ()
    owners: dict[str, tuple[str, str]] = field(default_factory=dict)
    roots: dict[tuple[str, str], str] = field(default_factory=dict)
    versions: dict[tuple[str, int], str] = field(default_factory=dict)

    def add_owner(self, kind: str, owner_id: str, uri: str) -> None:
        """Note the root of a run (`run`) or a logged model (`logged_model`)."""
        if uri:
            self.owners[uri.rstrip("/")] = kind, owner_id
            self.roots[kind, owner_id] = uri.rstrip("/")

    def find_owner(self, uri: str) -> tuple[tuple[str, str], str] | None:
        """Return whose files an address is below of, and the path from the owner's root; or None."""
        root = uri.rstrip("/")
        while "/" in root:
            owner = self.owners.get(root)
            if owner is not None:
                return owner, uri.rstrip("/")[len(root) + 1 :]
            root = root.rpartition("/")[0]
        return None

    def follow(self, uri: str) -> str:
        """Return the address of bytes that `runs:/R/PATH`, `models:/m-ID` or `models:/NAME/N` names; others as they are.

        Raises NotFoundError if its run, logged model or version is not known.
        """
        for _ in range(10):
            if uri.startswith("runs:/"):
                run_id, _, path = uri.removeprefix("runs:/").strip("/").partition("/")
                root = self.roots.get(("run", run_id))
                if root is None:
                    raise NotFoundError(f"There is no run {run_id[:100]!r}, so nobody knows where {uri[:300]!r} lies.")
                return _below(root, path)
            if not uri.startswith("models:/"):
                return uri
            model_id, _, path = uri.removeprefix("models:/").strip("/").partition("/")
            copied = find_copied(uri)
            if is_logged_model_id(model_id):
                root = self.roots.get(("logged_model", model_id))
                if root is None:
                    raise NotFoundError(f"There is no logged model {model_id!r}.")
                return _below(root, path)
            if copied is None or copied not in self.versions:
                break
            uri = self.versions[copied]
        raise NotFoundError(f"{uri[:300]!r} names no version that is there.")

    def get_place(self, uri: str) -> Place:
        """Return the place an address of bytes means. Raises UnsupportedError if it is out of reach, NotFoundError."""
        uri = self.follow(uri)
        parts = _split(uri)
        inside = find_proxied(uri)
        if inside is not None:
            host, path = inside
            if host is None or any(host == known.host for known in self._all_servers()):
                found = self._find_proxied_place(path, host)
                if found is not None:
                    return found
        elif uri and parts.scheme in {"", "file"} and parts.netloc in {"", "localhost"}:
            folder = self._find_folder(unquote(parts.path) if parts.scheme else uri)
            if folder is not None:
                return folder
        owner = self.find_owner(uri)
        if owner is not None and self.server is not None:
            return ServedPlace(self.server, owner[0][0], owner[0][1], owner[1])
        raise UnsupportedError(f"Its files lie at {uri[:300]!r}, which is out of reach from here.", address=uri[:300])

    def _all_servers(self) -> list[MlflowHttp]:
        return [*self.proxies, *([self.server] if self.server is not None else [])]

    def _find_proxied_place(self, path: str, host: str | None) -> Place | None:
        if ".." in path.split("/"):
            return None
        for folder in self.folders:
            if (folder / path).exists():
                return FolderPlace(folder / path, folder)
        for known in self._all_servers():
            if host is None or host == known.host:
                return ProxyPlace(known, path)
        # Nothing there: a place without files, if there is a folder at all in which it could have been.
        return FolderPlace(self.folders[0] / path, self.folders[0]) if self.folders else None

    def _find_folder(self, text: str) -> Place | None:
        """Return the place of a path, if it lies in one of the folders; a relative one was so for MLflow's server."""
        path, missing = Path(text), None
        for folder in self.folders:
            candidates = [path] if path.is_absolute() else [folder.parent / path, folder / path]
            for candidate in candidates:
                if Path(os.path.normpath(candidate)).is_relative_to(folder):
                    if candidate.exists():
                        return FolderPlace(candidate, folder)
                    missing = missing or FolderPlace(candidate, folder)
        return missing  # it would be here, so there is nothing: no files were ever written


_NOWHERE = SplitResult("nowhere", "", "", "", "")


def _split(uri: str) -> SplitResult:
    """Return the parts of an address; what cannot be one (`s3://[`) leads nowhere, and must not end an import."""
    try:
        return urlsplit(uri)
    except ValueError:
        return _NOWHERE


def find_proxied(uri: str) -> tuple[str | None, str] | None:
    """Return the host (None: whichever server speaks of it) and path of an address on an artifact proxy, or None."""
    parts = _split(uri)
    if parts.scheme == "mlflow-artifacts":
        return parts.netloc or None, parts.path.strip("/")
    if parts.scheme in {"http", "https"} and _PROXY_PATH in parts.path:
        return parts.netloc, parts.path.partition(_PROXY_PATH)[2].strip("/")
    return None


def parse_folder(text: str) -> Path | None:
    """Return the folder a path or `file:` address names, None for any other address. Raises InvalidFieldError."""
    parts = _split(text)
    if parts.scheme in {"http", "https"} or text.lower().startswith(("http://", "https://")):
        return None
    if len(parts.scheme) > 1 and parts.scheme != "file":
        raise InvalidFieldError(
            field="artifacts", reason=f"{text.partition(':')[0][:50]}: cannot be read yet; write a folder or http(s)://"
        )
    folder = Path(unquote(parts.path) if parts.scheme == "file" else text).expanduser().absolute()
    if not folder.is_dir():
        raise InvalidFieldError(field="artifacts", reason=f"there is no folder {folder}")
    return Path(os.path.normpath(folder))


# ── fetching ─────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Fetched:
    """A file that was fetched and stored, or why not."""

    path: str
    blob: StoredBlob | None
    reason: str | None = None


def fetch_files(
    blobs: BlobStore, place: Place, files: Iterable[PlacedFile], on_bytes: Callable[[int], None] | None = None
) -> Iterator[Fetched]:
    """Fetch files of a place into the store, several at once, hashed on the way; yield each in the order given.

    A file that is gone, or is not as long as was said, is yielded with its reason. Raises what says that the place cannot
    be read now (BusyError, DeniedError, UnauthenticatedError, StorageFullError): trying again later may do.
    """
    with ThreadPoolExecutor(FETCHERS, thread_name_prefix="fetch") as pool:
        try:
            yield from run_ahead(pool, lambda file: _fetch(blobs, place, file, on_bytes), files, FETCHERS * 2)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def run_ahead(
    pool: ThreadPoolExecutor, work: Callable[[Item], Result], items: Iterable[Item], ahead: int
) -> Iterator[Result]:
    """Yield the results in order, with at most `ahead` items under way or waiting: memory does not grow with the list."""
    under_way: deque[Future[Result]] = deque()
    for item in items:
        under_way.append(pool.submit(work, item))
        if len(under_way) >= ahead:
            yield under_way.popleft().result()
    while under_way:
        yield under_way.popleft().result()


def _fetch(blobs: BlobStore, place: Place, file: PlacedFile, on_bytes: Callable[[int], None] | None) -> Fetched:
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with place.open_file(file.path) as chunks, blobs.open_writer(file.size_bytes) as writer:
                for chunk in chunks:
                    writer.write(chunk)
                    if on_bytes is not None:
                        on_bytes(len(chunk))
                if file.size_bytes is not None and writer.size_bytes != file.size_bytes:
                    reason = f"it has {writer.size_bytes} bytes where {file.size_bytes} were said"
                    return Fetched(file.path, None, reason)
                return Fetched(file.path, writer.commit())
        except NotFoundError:
            return Fetched(file.path, None, "it is not there any more")
        except BusyError as error:
            if error.fields.get("status") == 500 and attempt > 1:  # of this file, not of the server
                return Fetched(file.path, None, error.message)
            if attempt == ATTEMPTS or isinstance(error, StorageFullError):
                raise
            time.sleep(PAUSE_SECONDS * 2 ** (attempt - 1))
    raise AssertionError

"""Servers that imports read from: one of files with ranges, redirects and cuts, and one that speaks a hub's API."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "c" * 40


@dataclass
class Served:
    """What a peer does when a path is asked for.

    `data` is sent in whole or in part. `cut_after` ends the connection after so many bytes of each answer, as long as
    `cuts` lasts; `rate` is how many bytes a second are sent.
    """

    data: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    etag: str | None = "auto"
    ranges: bool = True
    cut_after: int | None = None
    cuts: int = 1 << 30
    rate: int | None = None
    sized: bool = True


@dataclass
class Seen:
    """A request that came."""

    path: str
    headers: dict[str, str]
    sent_bytes: int = 0


class Peer:
    """A real HTTP server on loopback; `find` says what lies at a path."""

    def __init__(self, find: Callable[[str], Served | None], host: str = "127.0.0.1") -> None:
        self.seen: list[Seen] = []
        self.connections = 0
        self._find = find
        peer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                peer.connections += 1
                super().setup()

            def do_GET(self) -> None:
                with suppress(OSError):
                    peer._answer(self)

            def log_message(self, *_args: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            address_family = 10 if ":" in host else 2

            def handle_error(self, *_args: Any) -> None:
                pass  # whoever hung up was told to

        self.server = Server((host, 0), Handler)
        self.port: int = self.server.server_address[1]
        self.host = f"[{host}]" if ":" in host else host
        self.url = f"http://{self.host}:{self.port}"
        self._thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    @property
    def sent_bytes(self) -> int:
        return sum(each.sent_bytes for each in self.seen)

    def forget(self) -> None:
        """Begin anew: nothing was asked, nobody connected."""
        self.seen, self.connections = [], 0

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self._thread.join()

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        seen = Seen(request.path, {key.lower(): value for key, value in request.headers.items()})
        self.seen.append(seen)
        found = self._find(request.path) or Served(status=404)
        data, status, headers = found.data, found.status, dict(found.headers)
        etag = f'"{hashlib.md5(data).hexdigest()}"' if found.etag == "auto" else found.etag
        if etag and status == 200:
            headers["ETag"] = etag
        asked = seen.headers.get("range", "")
        fits = not seen.headers.get("if-range") or seen.headers["if-range"] == etag
        if asked.startswith("bytes=") and found.ranges and status == 200 and fits:
            first, _, last = asked.removeprefix("bytes=").partition("-")
            start, end = int(first), min(int(last) + 1 if last else len(data), len(data))
            if start >= len(data):
                status, data = 416, b""
            else:
                status, headers["Content-Range"] = 206, f"bytes {start}-{end - 1}/{len(data)}"
                data = data[start:end]
        request.send_response(status)
        for key, value in headers.items():
            request.send_header(key, value)
        if found.sized:
            request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        is_cut = found.cut_after is not None and found.cuts > 0 and len(data) > found.cut_after
        if is_cut:
            found.cuts -= 1
            data = data[: found.cut_after]
        step = found.rate // 10 if found.rate else 1 << 16
        for at in range(0, len(data), step):
            request.wfile.write(data[at : at + step])
            seen.sent_bytes += len(data[at : at + step])
            if found.rate:
                time.sleep(0.1)
        if is_cut or not found.sized:
            request.close_connection = True


@contextmanager
def run_peer(files: dict[str, Served], host: str = "127.0.0.1") -> Iterator[Peer]:
    """Run a server of files by path; what is added to `files` later is served, too."""
    peer = Peer(lambda path: files.get(path.partition("?")[0]), host)
    try:
        yield peer
    finally:
        peer.close()


@dataclass
class Repo:
    """A repository of a hub: files by path, which of them are large ones with a digest, and where those are sent from."""

    files: dict[str, bytes]
    large: dict[str, str] = field(default_factory=dict)  # path -> the digest the hub says, "" for the right one
    cdn: str | None = None
    page: int = 1000
    token: str | None = None
    sizes: dict[str, int] = field(default_factory=dict)


@contextmanager
def run_hub(repos: dict[str, Repo]) -> Iterator[Peer]:
    """Run a server with a hub's `/api/models/…/revision`, `/tree` and `/resolve`."""
    peer: Peer

    def find(target: str) -> Served | None:
        parts = urlsplit(target)
        path = unquote(parts.path)
        api = path.startswith("/api/models/")
        organisation, name, verb, *rest = (path.removeprefix("/api/models") if api else path)[1:].split("/")
        repo = repos.get(f"{organisation}/{name}")
        if repo is None or not rest or rest[0] not in {"main", COMMIT}:
            return Served(status=401 if repo is None else 404)
        if repo.token is not None and peer.seen[-1].headers.get("authorization") != f"Bearer {repo.token}":
            return Served(status=401)
        if api and verb == "revision":
            return Served(json.dumps({"id": name, "sha": COMMIT}).encode())
        below = "/".join(rest[1:])
        if api and verb == "tree":
            return list_tree(repo, target, below, parse_qs(parts.query))
        if verb != "resolve" or below not in repo.files:
            return None
        if below in repo.large and repo.cdn is not None:
            return Served(status=302, headers={"Location": f"{repo.cdn}/{below}?Signature=secret"})
        return Served(repo.files[below])

    def list_tree(repo: Repo, target: str, below: str, query: dict[str, list[str]]) -> Served | None:
        found = []
        for path, data in sorted(repo.files.items()):
            if below and not path.startswith(below + "/"):
                continue
            entry: dict[str, Any] = {
                "type": "file",
                "path": path,
                "size": repo.sizes.get(path, len(data)),
                "oid": "0" * 40,
            }
            if path in repo.large:
                digest = repo.large[path] or hashlib.sha256(data).hexdigest()
                entry["lfs"] = {"oid": digest, "size": len(data), "pointerSize": 134}
            found.append(entry)
        if below and not found:
            return None
        start = int(query.get("cursor", ["0"])[0])
        page = found[start : start + repo.page]
        headers = {}
        if start + repo.page < len(found):
            address = f"{peer.url}{urlsplit(target).path}?recursive=true&cursor={start + repo.page}"
            headers["Link"] = f'<{address}>; rel="next"'
        return Served(json.dumps(page).encode(), headers=headers)

    peer = Peer(find)
    try:
        yield peer
    finally:
        peer.close()

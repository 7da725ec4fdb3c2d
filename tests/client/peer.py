"""A small HTTP server of the standard library that answers what a test tells it to: a peer the SDK did not write.

It stands for what may be between: a proxy, a server that dies in the middle, one that lies about bytes.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Request:
    """What arrived."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    client: tuple[str, int]
    """The other end's address: equal for two requests on one connection."""


@dataclass
class Reply:
    """What to answer. `cut` hangs up after so many bytes of the body; -1 before any answer."""

    status: int = 200
    body: bytes = b"{}"
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None


Answerer = Callable[[Request], Reply]


@dataclass
class Peer:
    """A server that is running: where, what arrived so far, and what answers."""

    url: str
    answer: Answerer
    requests: list[Request] = field(default_factory=list)

    def follow(self, *replies: Reply) -> None:
        """Answer with these, one after the other, and with the last ever after."""
        left = list(replies)
        self.answer = lambda _request: left.pop(0) if len(left) > 1 else left[0]


@contextmanager
def open_peer(answer: Answerer = lambda _request: Reply(), *, idle_seconds: float = 10) -> Iterator[Peer]:
    """Start a peer on a free port of this machine and stop it again. It closes a connection that is idle for so long."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = idle_seconds

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            headers = {name.lower(): value for name, value in self.headers.items()}
            request = Request(self.command, self.path, headers, body, self.client_address)
            peer.requests.append(request)
            reply = peer.answer(request)
            if reply.cut == -1:
                self.close_connection = True
                return
            self.send_response(reply.status)
            for name, value in {"Content-Length": str(len(reply.body)), **reply.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                with suppress(ConnectionError):  # a client that has seen enough hangs up
                    self.wfile.write(reply.body[: reply.cut])
            if reply.cut is not None or reply.headers.get("Connection") == "close":
                self.close_connection = True

        do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = answer  # noqa: N815 - http.server looks for these

        def log_message(self, *_words: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        peer = Peer(f"http://127.0.0.1:{server.server_port}", answer)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield peer
        finally:
            server.shutdown()
            thread.join()


def to_problem(status: int, code: str, detail: str, **fields: Any) -> Reply:
    """Return an error as our server writes it."""
    body = {"type": f"urn:touchmark:error:{code}", "status": status, "detail": detail, "code": code, "fields": fields}
    return Reply(status, json.dumps(body).encode(), {"Content-Type": "application/problem+json"})


def digest_of(data: bytes) -> str:
    """Return the digest of bytes."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def build_manifest(files: Mapping[str, tuple[bytes, int]]) -> bytes:
    """Return a manifest of files: path to the bytes it names and the size it says."""
    layers = [
        {"annotations": {"org.cncf.model.filepath": path}, "digest": digest_of(data), "size": size}
        for path, (data, size) in files.items()
    ]
    return json.dumps({"schemaVersion": 2, "layers": layers}).encode()


def serve_version(files: Mapping[str, bytes], **changes: Any) -> Answerer:
    """Answer as a registry with one version, `churn/1`, holding files.

    Args:
        files: path to bytes.
        changes: `manifest` other manifest bytes, `resolved` other fields of the resolved version, `blobs` other bytes by
            the digest they are asked for by.

    """
    manifest = changes.get("manifest") or build_manifest({path: (data, len(data)) for path, data in files.items()})
    blobs = {digest_of(data): data for data in files.values()} | changes.get("blobs", {})
    resolved = {
        "reference": "models:/churn/1", "name": "churn", "model_id": 7, "version": 1, "digest": digest_of(manifest),
        "state": "READY", "sealed": True, "size_bytes": 1, "file_count": len(files), "source": "models:/m-1",
        "run_id": None, "moved_to": None, "warning": None, "status_message": None, "of_a_later_release": [],
        **changes.get("resolved", {}),
    }  # fmt: skip

    def answer(request: Request) -> Reply:
        if request.path.startswith("/api/v1/resolve"):
            return Reply(body=json.dumps(resolved).encode())
        if request.path.startswith("/v2/m/7/manifests/"):
            return Reply(body=manifest)
        found = blobs.get(request.path.rpartition("/")[2])
        return to_problem(404, "blob_not_found", "There is no such blob.") if found is None else Reply(body=found)

    return answer

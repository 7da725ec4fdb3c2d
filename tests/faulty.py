"""An HTTP proxy before a bucket that does to requests and answers what a test says: a store that misbehaves.

Whole requests and answers are held in memory: parts of a transfer are some megabytes.
"""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from tests.client.proxy import cut

_ERROR = b'<?xml version="1.0" encoding="UTF-8"?><Error><Code>%s</Code><Message>none</Message></Error>'


@dataclass(frozen=True)
class Seen:
    """A request: its method, its path with the query, how many bytes it brought, and whether its address was signed."""

    method: str
    path: str
    size_bytes: int

    @property
    def is_signed(self) -> bool:
        """Return whether it was made by an address that somebody was given."""
        return "X-Amz-Signature" in self.path


@dataclass(frozen=True)
class Fault:
    """What is done to one request; what is not said is done right.

    `status` and `code` answer in place of the store. `reset` cuts the connection: 0 before the request reaches the store, N after
    so many bytes of the answer's body. `flip_down` and `flip_up` change a bit of the byte at that place of the answer or the
    request, `keep_up` passes on only so many bytes of a request, and says so to the store.
    """

    status: int | None = None
    code: str = "SlowDown"
    reset: int | None = None
    flip_down: int | None = None
    flip_up: int | None = None
    keep_up: int | None = None


Decide = Callable[[Seen], Fault | None]


class FaultyProxy:
    """A proxy at `endpoint`. `decide` says what becomes of each request; `seen` are those that came, `faults` counts."""

    def __init__(self, server: ThreadingHTTPServer) -> None:
        self.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
        self.decide: Decide = lambda _seen: None
        self.seen: list[Seen] = []
        self.faults = 0
        self._guard = threading.Lock()

    def judge(self, seen: Seen) -> Fault | None:
        """Note a request, and return what is to be done to it; one request at a time is asked about."""
        with self._guard:
            self.seen.append(seen)
            fault = self.decide(seen)
            self.faults += fault is not None
            return fault


@contextmanager
def open_faulty(endpoint: str) -> Iterator[FaultyProxy]:
    """Run a proxy to a store until the block ends."""
    target = urlsplit(endpoint).netloc

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        timeout = 60

        def pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            fault = proxy.judge(Seen(self.command, self.path, len(body))) or Fault()
            if fault.reset == 0:
                self.close_connection = True
                cut(self.connection)
                return
            if fault.status is not None:
                self.answer(fault.status, {"Content-Type": "application/xml"}, _ERROR % fault.code.encode())
                return
            if fault.flip_up is not None and fault.flip_up < len(body):
                body = flip(body, fault.flip_up)
            if fault.keep_up is not None:
                body = body[: fault.keep_up]
            link = http.client.HTTPConnection(target, timeout=60)
            try:
                link.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
                for name, value in self.headers.items():
                    link.putheader(name, str(len(body)) if name.lower() == "content-length" else value)
                link.endheaders(body)
                found = link.getresponse()
                data = found.read()
                headers = {name: value for name, value in found.getheaders() if name.lower() not in _OWN}
                if self.command == "HEAD":
                    headers["Content-Length"] = found.getheader("Content-Length", "0")
            finally:
                link.close()
            if fault.flip_down is not None and fault.flip_down < len(data):
                data = flip(data, fault.flip_down)
            self.answer(found.status, headers, data, fault.reset)

        def answer(self, status: int, headers: dict[str, str], data: bytes, reset: int | None = None) -> None:
            self.send_response_only(status)
            for name, value in {"Content-Length": str(len(data)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "HEAD":
                return
            with suppress(ConnectionError):
                self.wfile.write(data[:reset])
            if reset is not None and reset < len(data):
                self.close_connection = True
                cut(self.connection)

        do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = pass_on  # noqa: N815 - the names http.server calls

        def handle(self) -> None:
            with suppress(OSError, ValueError):  # cut by us, or by a client that has seen enough
                super().handle()

        def finish(self) -> None:
            with suppress(OSError, ValueError):
                super().finish()

        def log_message(self, *_args: object) -> None:
            """Say nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

    with Server(("127.0.0.1", 0), Handler) as server:
        proxy = FaultyProxy(server)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield proxy
        finally:
            server.shutdown()
            thread.join()


def flip(data: bytes, at: int) -> bytes:
    """Return bytes with one bit changed."""
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


_OWN = frozenset({"content-length", "connection", "keep-alive", "transfer-encoding"})

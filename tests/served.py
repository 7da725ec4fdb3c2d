"""A real server in a process of its own: started, spoken to over sockets, stopped or killed."""

from __future__ import annotations

import http.client
import json
import os
import queue
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import IO, Any

START_SECONDS = 30


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """Return the body's JSON."""
        return json.loads(self.body)


class Served:
    """A running server and the lines it writes."""

    def __init__(self, process: subprocess.Popen[bytes], home: Path, port: int) -> None:
        self.process, self.home, self.port = process, home, port
        self.output: queue.Queue[str | None] = queue.Queue()
        self.log: list[str] = []
        assert process.stdout is not None
        assert process.stderr is not None
        self._readers = [
            threading.Thread(target=_read_lines, args=(process.stdout, self.output.put), daemon=True),
            threading.Thread(target=_read_lines, args=(process.stderr, self._note), daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    def _note(self, line: str | None) -> None:
        if line is not None:
            self.log.append(line)

    def wait_until_ready(self) -> str:
        """Return the line that says the server is ready."""
        line = self.output.get(timeout=START_SECONDS)
        assert line is not None, f"it ended with {self.process.wait(10)}: {self.log}"
        return line

    def connect(self, head: str = "", body: bytes = b"") -> socket.socket:
        """Open a connection and send what is given; `head` is the request line and headers but Host."""
        link = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        if head:
            link.sendall((head + f"\r\nHost: 127.0.0.1:{self.port}\r\n\r\n").encode() + body)
        return link

    def ask(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Answer:
        """Send a request; `body` is bytes, or what goes as JSON."""
        link = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
            with suppress(BrokenPipeError):  # refused before all of it was sent: the answer is there
                link.request(method, path, data, dict(headers or {}))
            found = link.getresponse()
            return Answer(found.status, {key.lower(): value for key, value in found.getheaders()}, found.read())
        finally:
            link.close()

    def new_run(self) -> str:
        """Make a run and return its repository on /v2."""
        return "runs/" + self.ask("POST", "/api/v1/runs", {}).json()["run_id"]

    def upload(self, repository: str, data: bytes) -> str:
        """Upload bytes and return their digest."""
        digest = digest_of(data)
        answer = self.ask("POST", f"/v2/{repository}/blobs/uploads/?digest={digest}", data)
        assert answer.status == 201, answer
        return digest

    def list_blob_files(self) -> list[Path]:
        """Return every file below the home's blobs, half-made ones too."""
        return sorted(path for path in (self.home / "blobs").rglob("*") if path.is_file())

    def stop(self) -> int:
        """Ask for an orderly end, and return the exit code."""
        self.process.terminate()
        return self.wait()

    def wait(self, seconds: float = 20) -> int:
        """Wait for the end, and return the exit code; the log is complete then."""
        code = self.process.wait(seconds)
        assert self.process.stdin is not None
        self.process.stdin.close()
        for reader in self._readers:
            reader.join(10)
        return code


def _read_lines(stream: IO[bytes], take: Callable[[str | None], None]) -> None:
    with stream:
        for line in stream:
            take(line.decode("utf-8", "replace").rstrip("\n"))
    take(None)


def digest_of(data: bytes) -> str:
    """Return the digest of bytes."""
    return "sha256:" + sha256(data).hexdigest()


def find_port() -> int:
    """Return a port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def launch(home: Path, *flags: str, port: int | None = None, **more: Any) -> Served:
    """Start `touchmark serve` and do not wait. Warnings are errors there too."""
    port = port or find_port()
    environ = {key: value for key, value in os.environ.items() if not key.startswith("TOUCHMARK_")}
    words = ["serve", "--home", str(home), *(() if "--uds" in flags else ("--port", str(port))), *flags]
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "touchmark", *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environ,
        **more,
    )
    return Served(process, home, port)


@contextmanager
def serve(home: Path, *flags: str, **more: Any) -> Iterator[Served]:
    """Run a server for as long as the block runs."""
    served = launch(home, *flags, **more)
    try:
        served.wait_until_ready()
        yield served
    finally:
        served.process.kill()
        served.wait()


def read_answer(link: socket.socket) -> bytes:
    """Return all that comes until the other side closes."""
    found = b""
    with suppress(ConnectionResetError):
        while chunk := link.recv(1 << 16):
            found += chunk
    return found


def wait_for(condition: Callable[[], bool], seconds: float = 10) -> None:
    """Fail unless something becomes true in time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not become true"
        time.sleep(0.02)

"""Large files in and out of a real server through both of its doors, several at once, and clients that hardly read."""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

import touchmark
from tests.served import Served, serve

MIB = 1 << 20
SLOW_BYTES = 1000
"""What a slow client reads in a second."""
PATIENCE_SECONDS = 600


@dataclass(frozen=True)
class Measured:
    """What the server held in bytes, and how long clients waited in seconds."""

    idle_bytes: int
    most_bytes: int
    moving_seconds: float
    slowest_answer_seconds: float


def make_pieces(size_bytes: int) -> Iterator[bytes]:
    """Yield the bytes of a file that no other is equal to."""
    piece = os.urandom(MIB)
    for number in range(size_bytes // MIB):
        yield number.to_bytes(8) + piece[8:]


class Doors:
    """One run of a server, and its files behind /v2 and behind MLflow's proxy."""

    def __init__(self, served: Served) -> None:
        """Make the run."""
        kind = {"Content-Type": "application/json"}
        answer = served.ask("POST", "/api/2.0/mlflow/runs/create", {"experiment_id": "0"}, kind)
        made = answer.json()["run"]["info"]
        self._port = served.port
        self.repository = f"runs/{made['run_id']}"
        self._proxied = "/api/2.0/mlflow-artifacts/artifacts/" + made["artifact_uri"].removeprefix("mlflow-artifacts:/")

    def _send(self, method: str, address: str, size_bytes: int) -> str:
        """Send a new file, and return its digest."""
        hashing = hashlib.sha256()
        link = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE_SECONDS)
        link.putrequest(method, address)
        link.putheader("Content-Length", str(size_bytes))
        link.endheaders()
        for piece in make_pieces(size_bytes):
            link.send(piece)
            hashing.update(piece)
        answer = link.getresponse()
        said = answer.read()
        assert answer.status in {200, 202}, said
        location = answer.headers.get("location", "")
        digest = f"sha256:{hashing.hexdigest()}"
        if location:
            link.request("PUT", f"{location}?digest={digest}")
            assert link.getresponse().status == 201
        link.close()
        return digest

    def _fetch(self, address: str, digest: str) -> None:
        link = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE_SECONDS)
        link.request("GET", address)
        answer = link.getresponse()
        hashing, buffer = hashlib.sha256(), bytearray(MIB)
        while count := answer.readinto(buffer):
            hashing.update(memoryview(buffer)[:count])
        link.close()
        assert f"sha256:{hashing.hexdigest()}" == digest

    def send_to_v2(self, size_bytes: int) -> str:
        """Send a new file through an upload session, and return its digest."""
        link = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE_SECONDS)
        link.request("POST", f"/v2/{self.repository}/blobs/uploads/")
        location = link.getresponse().headers["location"]
        link.close()
        return self._send("PATCH", location, size_bytes)

    def send_to_proxy(self, name: str, size_bytes: int) -> str:
        """Send a new file as MLflow's clients do, and return its digest."""
        return self._send("PUT", f"{self._proxied}/{name}", size_bytes)

    def fetch_from_v2(self, digest: str) -> None:
        """Read a file to its end, and check it."""
        self._fetch(f"/v2/{self.repository}/blobs/{digest}", digest)

    def fetch_from_proxy(self, name: str, digest: str) -> None:
        """Read a file as MLflow's clients do, and check it."""
        self._fetch(f"{self._proxied}/{name}", digest)


@contextmanager
def read_slowly(served: Served, address: str) -> Iterator[list[int]]:
    """Read a file at SLOW_BYTES a second in the background; the list holds how many bytes came so far."""
    got, ended = [0], threading.Event()
    with socket.socket() as link:
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)
        link.settimeout(PATIENCE_SECONDS)
        link.connect(("127.0.0.1", served.port))
        link.sendall(f"GET {address} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())

        def read() -> None:
            while not ended.wait(0.1):
                got[0] += len(link.recv(SLOW_BYTES // 10))

        reader = threading.Thread(target=read)
        reader.start()
        try:
            yield got
        finally:
            ended.set()
            reader.join()


@contextmanager
def watch(served: Served) -> Iterator[dict[str, float]]:
    """Note the most memory the server holds, and the longest that anybody waits for an answer of a few bytes."""
    seen = {"most_bytes": 0.0, "slowest_seconds": 0.0}
    process, ended = psutil.Process(served.process.pid), threading.Event()

    def look() -> None:
        while not ended.wait(0.02):
            begin = time.monotonic()
            assert served.ask("GET", "/api/v1/models").status == 200
            seen["slowest_seconds"] = max(seen["slowest_seconds"], time.monotonic() - begin)
            seen["most_bytes"] = max(seen["most_bytes"], process.memory_info().rss)

    with ThreadPoolExecutor(1) as pool:
        looking = pool.submit(look)
        try:
            yield seen
        finally:
            ended.set()
            looking.result()


def measure_four_at_once(home: Path, size_bytes: int, slow_readers: int = 1) -> Measured:
    """Move four files at once, two in and two out, while others read slowly; return what that took of the server."""
    with serve(home, "--no-log-requests") as served:
        doors = Doors(served)
        doors.fetch_from_v2(doors.send_to_v2(MIB))
        idle_bytes = psutil.Process(served.process.pid).memory_info().rss
        stored = doors.send_to_proxy("stored.bin", size_bytes)
        with ExitStack() as stack:
            address = f"/v2/{doors.repository}/blobs/{stored}"
            slow = [stack.enter_context(read_slowly(served, address)) for _ in range(slow_readers)]
            seen = stack.enter_context(watch(served))
            begin = time.monotonic()
            with ThreadPoolExecutor(4) as pool:
                moves: list[Future[Any]] = [
                    pool.submit(doors.send_to_v2, size_bytes),
                    pool.submit(doors.send_to_proxy, "sent.bin", size_bytes),
                    pool.submit(doors.fetch_from_v2, stored),
                    pool.submit(doors.fetch_from_proxy, "stored.bin", stored),
                ]
                for move in moves:
                    move.result()
            seconds = time.monotonic() - begin
            for got in slow:
                assert 0 < got[0] < size_bytes, "a slow reader is still at it"
        return Measured(idle_bytes, int(seen["most_bytes"]), seconds, seen["slowest_seconds"])


def compare_shapes(home: Path, folder: Path, *, size_bytes: int, count: int, rounds: int) -> list[float]:
    """Pull one file and many of the same size in all, in turns; return how much longer the many took, round by round."""
    shapes = {"one": 1, "many": count}
    for name, files in shapes.items():
        (folder / name).mkdir()
        for number in range(files):
            with (folder / name / f"{number}.bin").open("wb") as stream:
                stream.writelines(make_pieces(max(MIB, size_bytes // files)))
    ratios = []
    with serve(home, "--no-log-requests") as served, touchmark.connect(f"http://127.0.0.1:{served.port}") as registry:
        for name in shapes:
            registry.register_model(folder / name, f"shape.{name}")
            shutil.rmtree(folder / name)
        for _ in range(rounds):
            seconds = {}
            for name, files in shapes.items():
                begin = time.monotonic()
                registry.pull(f"shape.{name}/1", folder / name)
                seconds[name] = time.monotonic() - begin
                assert sum(1 for _ in (folder / name).iterdir()) == files
                shutil.rmtree(folder / name)
            ratios.append(seconds["many"] / seconds["one"])
    return ratios

"""The servers that are measured: how each is started, asked one thing, and stopped."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def find_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def run_server(command: list[str], port: int, folder: Path) -> Iterator[int]:
    """Run a server until the block ends; it is ready when /health answers 200."""
    with (folder / "log.txt").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, start_new_session=True)
        try:
            for _ in range(3000):
                try:
                    link = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
                    link.request("GET", "/health")
                    if link.getresponse().status == 200:
                        break
                except OSError:
                    time.sleep(0.02)
            else:
                raise SystemExit((folder / "log.txt").read_text()[-2000:])
            yield port
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def touchmark_command(folder: Path, port: int, database: str | None) -> list[str]:
    more = ["--database", database] if database else []
    words = ["serve", "--home", str(folder / "home"), "--port", str(port), "--no-log-requests", *more]
    return [sys.executable, "-m", "touchmark", *words]


def mlflow_command(folder: Path, port: int, database: str | None) -> list[str]:
    store = database or f"sqlite:///{folder / 'mlflow.db'}"
    places = ["--backend-store-uri", store, "--artifacts-destination", str(folder / "artifacts")]
    return [str(Path(sys.executable).parent / "mlflow"), "server", "--workers", "1", "--port", str(port), *places]


def bare_command(folder: Path, port: int, _database: str | None) -> list[str]:
    return [sys.executable, str(HERE / "bare.py"), str(port), str(folder / "bare.db")]


def ask(port: int, method: str, path: str, body: Any = None) -> Any:
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    link.request(method, path, data, {"Content-Type": "application/json"} if data else {})
    answer = link.getresponse()
    found = answer.read()
    if answer.status != 200:
        raise SystemExit(f"{method} {path}: {answer.status} {found[:500]!r}")
    link.close()
    return json.loads(found) if found else {}


@contextmanager
def run_both(*databases: str | None) -> Iterator[tuple[int, int, Path]]:
    """Run Touchmark and MLflow in a temporary folder, and give their ports and that folder (`ours`, `theirs` below it)."""
    urls = databases or (None, None)
    with tempfile.TemporaryDirectory(prefix="touchmark-bench-") as name:
        folder = Path(name)
        ours, theirs = folder / "ours", folder / "theirs"
        ours.mkdir()
        theirs.mkdir()
        one, two = find_port(), find_port()
        with (
            run_server(touchmark_command(ours, one, urls[0]), one, ours),
            run_server(mlflow_command(theirs, two, urls[1]), two, theirs),
        ):
            yield one, two, folder

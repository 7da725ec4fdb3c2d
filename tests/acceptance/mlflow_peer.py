"""MLflow itself, as the tests of moving in and out need it: a filled database, and a real server where one is installed.

The database is made by `mlflow-skinny`, which the tests have anyway. A server needs the whole package: name its interpreter
in TOUCHMARK_MLFLOW_PYTHON, or make `.venv-mlflow`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from tests.house.source import ROOT
from tests.served import find_port

FILL = Path(__file__).with_name("mlflow_fill.py")


@dataclass(frozen=True)
class Peer:
    """What an MLflow holds: where it is, where its files are, and the ids of what was made."""

    uri: str
    artifacts: Path
    made: dict[str, Any]


def fill(python: str, uri: str, *more: str) -> dict[str, Any]:
    """Fill an MLflow through its own client and return the ids of what was made."""
    done = subprocess.run(
        [python, str(FILL), uri, *more], capture_output=True, text=True, check=False, timeout=110, env=environment()
    )
    assert done.returncode == 0, done.stderr
    made: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return made


def environment() -> dict[str, str]:
    """Return the environment without what would lead MLflow elsewhere."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    return {**kept, "MLFLOW_DISABLE_TELEMETRY": "true"}


def fill_database(folder: Path) -> Peer:
    """Make an MLflow database in a folder, with files beside it."""
    artifacts = folder / "art"
    artifacts.mkdir()
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    return Peer(uri, artifacts, fill(sys.executable, uri, artifacts.as_uri()))


def copy_database(peer: Peer, folder: Path) -> Peer:
    """Return the same with a database of its own, to be changed; the files stay where they are."""
    shutil.copy(peer.uri.removeprefix("sqlite:///"), folder / "copy.db")
    return Peer(f"sqlite:///{folder / 'copy.db'}", peer.artifacts, peer.made)


def find_python() -> str:
    """Return an interpreter that can run `mlflow server`; skips, visibly, where there is none."""
    named = os.environ.get("TOUCHMARK_MLFLOW_PYTHON")
    python = named or str(ROOT / ".venv-mlflow" / "bin" / "python")
    if not Path(python).exists():
        pytest.skip("no MLflow server: install mlflow into .venv-mlflow, or set TOUCHMARK_MLFLOW_PYTHON")
    return python


@contextmanager
def run_server(folder: Path) -> Iterator[str]:
    """Run a real MLflow server, one worker, its database and files below a folder; gives its address."""
    python, port = find_python(), find_port()
    folder.mkdir(exist_ok=True)
    words = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    words += [
        "--backend-store-uri",
        f"sqlite:///{folder / 'mlflow.db'}",
        "--artifacts-destination",
        str(folder / "art"),
    ]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [python, "-m", "mlflow", "server", *words],
            cwd=folder, env=environment(), stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    try:
        _wait(server, url, folder)
        yield url
    finally:
        _end(server)


def _wait(server: subprocess.Popen[bytes], url: str, folder: Path) -> None:
    end = time.monotonic() + 90
    while True:
        try:
            with urlopen(f"{url}/health", timeout=5):
                return
        except (URLError, OSError):
            assert server.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < end, (folder / "log").read_text()
            time.sleep(0.2)


def _end(server: subprocess.Popen[bytes]) -> None:
    """End a server with the workers it started."""
    os.killpg(server.pid, 9)
    server.wait(20)

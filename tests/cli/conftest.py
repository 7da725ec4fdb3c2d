"""A real server for each file of tests, and a model to register."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import touchmark
from tests.cli.running import COMMAND, Server, environment, find_port


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Start `touchmark serve` on an empty home."""
    home = tmp_path_factory.mktemp("home")
    port = find_port()
    words = ["serve", "--home", str(home), "--port", str(port), "--no-log-requests"]
    with subprocess.Popen([*COMMAND, *words], stdout=subprocess.PIPE, text=True, env=environment()) as process:
        assert process.stdout is not None
        said = process.stdout.readline()
        assert "is ready at" in said, said
        yield Server(f"http://127.0.0.1:{port}", home)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


@pytest.fixture
def registry(server: Server) -> Iterator[touchmark.Registry]:
    """Return the SDK's registry on the server, to prepare what a command is to show."""
    with touchmark.connect(server.url) as found:
        yield found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder that can be registered: two files, whose bytes no other test has."""
    made = tmp_path / "model"
    (made / "inner").mkdir(parents=True)
    (made / "weights.bin").write_bytes(os.urandom(5000))
    (made / "inner" / "notes.txt").write_text(f"made by {sys.executable}\n")
    return made

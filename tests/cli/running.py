"""Running the real command: in a pipe, in a terminal of a given width, and against a real server."""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import urlopen

COMMAND = [sys.executable, "-m", "touchmark"]
CACHE = tempfile.TemporaryDirectory(prefix="touchmark-cache-")  # gone with this process


@dataclass(frozen=True)
class Server:
    """A server in a process of its own, and the home it serves."""

    url: str
    home: Path

    def get(self, path: str) -> Any:
        """Return the JSON the HTTP API gives for a path below /api/v1."""
        with urlopen(f"{self.url}/api/v1{path}", timeout=30) as answer:
            return json.load(answer)


def find_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment(**more: str) -> dict[str, str]:
    """Return the environment without what a developer may have set for a registry of their own."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("TOUCHMARK_")}
    ours = {"TZ": "UTC", "TERM": "xterm-256color", "PYTHONUTF8": "1", "TOUCHMARK_CACHE": CACHE.name}
    return {**kept, **ours, **more}


def run(*words: str, url: str | None = None, cwd: Path | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the command with both outputs in pipes, and nobody at its standard input."""
    given = environment(**({"TOUCHMARK_URL": url} if url else {}), **env)
    return subprocess.run(
        [*COMMAND, *words], capture_output=True, text=True, check=False, timeout=60, env=given, cwd=cwd,
        stdin=subprocess.DEVNULL, encoding="utf-8",
    )  # fmt: skip


def run_json(*words: str, url: str) -> Any:
    """Run the command with --json and return what it printed, decoded; it must succeed."""
    done = run(*words, "--json", url=url)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def run_in_terminal(*words: str, columns: int, url: str, answer: str = "", **env: str) -> str:
    """Run the command on a terminal of that width, where somebody types `answer`, and return what could be seen there."""
    import fcntl
    import pty
    import termios

    reader, writer = pty.openpty()
    fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    with subprocess.Popen(
        [*COMMAND, *words], stdin=writer, stdout=writer, stderr=writer,
        env=environment(TOUCHMARK_URL=url, COLUMNS="", **env),
    ):  # fmt: skip
        os.close(writer)
        os.write(reader, answer.encode())
        written = b""
        while True:
            try:
                some = os.read(reader, 65536)
            except OSError:  # Linux ends a terminal's output so
                break
            if not some:
                break
            written += some
    os.close(reader)
    return written.decode().replace("\r\n", "\n")

"""A registry without a server to run: a private one that ends with this process.

`open_embedded` starts `touchmark serve` on a Unix socket only this user can reach. The child holds the other end of a
pipe and stops when it closes, so it ends even if this process is killed. The SDK has one code path.
"""

from __future__ import annotations

import atexit
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from touchmark.domain import errors

START_SECONDS = 30.0

_servers: dict[tuple[int, str], _Child] = {}
_guard = threading.Lock()


class _Child:
    """A private server, shared by every registry this process opened on its home."""

    def __init__(self, home: Path) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="tmk-"))  # short: a socket's path has at most 107 bytes
        self.socket = self.folder / "s"
        self.users = 0
        self.log = self.folder / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(  # noqa: S603 - this interpreter, with arguments of ours
                [
                    sys.executable, "-m", "touchmark", "serve", "--home", str(home), "--uds", str(self.socket),
                    "--exit-with-parent", "--no-log-requests",
                ],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )  # fmt: skip
        self._wait()

    def _wait(self) -> None:
        from touchmark.client._transport import Transport

        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            if self.process.poll() is not None:
                said = self.log.read_text(errors="replace").strip().splitlines()
                self.end()
                raise errors.UnsupportedError("The private server did not start: " + " ".join(said[-3:]))
            if self.socket.exists():
                try:
                    with Transport(f"unix://{self.socket}").open("GET", "/health") as answer:
                        answer.read()
                        if answer.status == 200:
                            return
                except Exception:  # noqa: BLE001, S110 - not yet: it is asked again until the time is over
                    pass
            time.sleep(0.01)
        self.end()
        raise errors.ServerUnreachableError(
            address=str(self.socket), reason=f"not ready after {START_SECONDS:.0f} seconds"
        )

    def end(self) -> None:
        if self.process.stdin is not None:
            self.process.stdin.close()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def open_embedded(home: Path) -> tuple[str, Callable[[], None]]:
    """Return the address of a private server on a home, and what to call when it is no longer used.

    Raises MissingExtraError if the server's parts are not installed, UnsupportedError with its last words if it fails.
    """
    if importlib.util.find_spec("litestar") is None or importlib.util.find_spec("granian") is None:
        raise errors.MissingExtraError(what="An embedded registry", install="pip install 'touchmark[server]'")
    key = (os.getpid(), str(home.expanduser().absolute()))
    with _guard:
        child = _servers.get(key)
        if child is None or child.process.poll() is not None:
            child = _servers[key] = _Child(Path(key[1]))
        child.users += 1

    def leave() -> None:
        with _guard:
            child.users -= 1
            if child.users <= 0 and _servers.get(key) is child:
                del _servers[key]
                child.end()

    return f"unix://{child.socket}", leave


@atexit.register
def _end_all() -> None:
    for (pid, _home), child in list(_servers.items()):
        if pid == os.getpid():
            child.end()
    _servers.clear()

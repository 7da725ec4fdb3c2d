"""A registry without a server to run: a private one that ends with this process.

`open_embedded` starts `touchmark serve` on a Unix socket only this user can reach. The child reads the other end of a
pipe and stops when it closes, so it ends even if this process is killed. The SDK has one code path: nothing else here or
in `client/` knows whether a server is private. What a home is, and how it is opened, is the server's business.
"""

from __future__ import annotations

import atexit
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from touchmark.client._transport import LostError, Transport
from touchmark.domain import errors

START_SECONDS = 90.0
"""A home may be migrated first, and another process that migrates it is waited for."""
STOP_SECONDS = 15.0
SOCKET_BYTES = 100
"""A socket's path may have 107 bytes on Linux and 103 on macOS (sockaddr_un)."""
LOG_LINES = 5

_servers: dict[tuple[int, str], _Child] = {}
_guard = threading.Lock()


class _Child:
    """A private server, shared by every registry this process opened on its home."""

    def __init__(self, home: str) -> None:
        """Start it and wait until it answers. Raises what it says on its way out, ServerUnreachableError."""
        self.users = 0
        self.folder = _make_folder()
        self.socket = self.folder / "s"
        self.log = self.folder / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(  # noqa: S603 - this interpreter, with arguments of ours
                [
                    # -P: a file of the user's that is called like a module must not be imported instead of it.
                    sys.executable, "-P", "-m", "touchmark", "--json", "serve", "--home", home,
                    "--uds", str(self.socket), "--exit-with-parent", "--no-log-requests",
                ],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C in a terminal is for the parent: it may want to end its run properly
            )  # fmt: skip
        try:
            self._wait()
        except BaseException:
            self.end()
            raise

    def _wait(self) -> None:
        transport = Transport(f"unix://{self.socket}")
        end = time.monotonic() + START_SECONDS
        reason = f"it did not begin to listen within {START_SECONDS:.0f} seconds"
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise _to_error(self.log.read_text(errors="replace").splitlines(), self.process.returncode)
            if self.socket.exists():
                try:
                    with transport.open("GET", "/health") as answer:
                        answer.read()
                        if answer.status == 200:
                            return
                        reason = f"it is not healthy ({answer.status})"
                except LostError as lost:
                    reason = lost.reason
                finally:
                    transport.close()
            time.sleep(0.01)
        raise errors.ServerUnreachableError(address=transport.url, reason=reason)

    def end(self) -> None:
        """Let it finish what it is doing, and take its folder away. May be called twice."""
        if self.process.stdin is not None:
            self.process.stdin.close()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def open_embedded(home: Path) -> tuple[str, Callable[[], None]]:
    """Return the address of a private server on a home, and what to call when it is no longer used.

    Registries of one process on one home share a server; it ends when the last of them is closed, or with the process.
    In a forked child the address still works as long as the parent lives; to let go of it there does nothing.

    Raises MissingExtraError if the server's parts are not installed, UnsupportedError where there are no Unix sockets,
    and what the server says if it does not start: UnsupportedHomeError, HomeBusyError, SchemaTooNewError.
    """
    if any(find_spec(name) is None for name in ("litestar", "granian", "sqlalchemy")):
        raise errors.MissingExtraError(what="touchmark.open()", install="pip install 'touchmark[server]'")
    process = os.getpid()
    key = (process, os.path.realpath(home.expanduser()))
    with _guard:
        child = _servers.get(key)
        if child is None or child.process.poll() is not None:
            if child is not None:  # it was killed: its folder is still there
                child.end()
            child = _servers[key] = _Child(key[1])
        child.users += 1

    def leave() -> None:
        if os.getpid() != process:
            return
        with _guard:
            child.users -= 1
            if child.users <= 0 and _servers.get(key) is child:
                del _servers[key]
                child.end()

    return f"unix://{child.socket}", leave


def _make_folder() -> Path:
    """Return a new folder, 0700, whose path leaves room for a socket's."""
    folder = Path(tempfile.mkdtemp(prefix="tmk-"))
    if len(os.fsencode(folder)) + len("/s") <= SOCKET_BYTES:
        return folder
    folder.rmdir()
    return Path(tempfile.mkdtemp(prefix="tmk-", dir="/tmp"))


def _to_error(said: list[str], returncode: int) -> errors.TouchmarkError:
    """Return the error a server ended with: its own as `--json` prints it, else its last words."""
    try:
        found = json.loads(said[-1])
        kind = next((cls for cls in errors.list_error_classes() if cls.code == found["code"]), errors.UnsupportedError)
        if kind is not errors.TouchmarkError:
            return kind(found["detail"], **found["fields"])
        said = [str(found["detail"])]
    except (LookupError, TypeError, ValueError):
        pass
    words = "\n".join(said[-LOG_LINES:]) or f"it said nothing and exited with {returncode}"
    return errors.UnsupportedError(f"The private server did not start: {words}")


def _begin_child() -> None:
    # The lock may have been held by another thread while this one forked; here nobody would ever let go of it.
    global _guard  # noqa: PLW0603
    _guard = threading.Lock()


@atexit.register
def _end_all() -> None:
    for (process, _home), child in list(_servers.items()):
        if process == os.getpid():
            child.end()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_child)

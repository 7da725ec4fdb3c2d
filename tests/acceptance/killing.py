"""Killing a server at random instants while clients write, and looking whether anything acknowledged was lost.

One round: four clients upload, register and move aliases; after a random time the server gets SIGKILL; it is started
again on the same home, without any repair, while the clients go on with what they were doing. Then everything that was
ever acknowledged is asked for. `make test` plays 20 rounds, `make soak` 200.

A request counts as in flight at a kill only if it was sent before the kill and its answer never came: what a client is
busy with (hashing a file, connecting) is no evidence.
"""

from __future__ import annotations

import hashlib
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import touchmark
from tests.acceptance.mortal_postgres import MortalPostgres
from tests.served import Served, find_port, launch
from touchmark import errors
from touchmark.client._transport import LostError, Response, Transport
from touchmark.domain.versions import VersionState
from touchmark.ops.fsck import check_registry, open_for_check

CLIENTS = 4
NAMES = ("shared", "other")
FILE_BYTES = 300_000
IDLE = "nothing"
REQUESTS = {
    "upload": re.compile(r"POST /v2/.*/blobs/uploads/"),
    "registration": re.compile(r"POST /api/v1/models/[^/]+/versions"),
    "alias move": re.compile(r"PUT /api/v1/models/[^/]+/aliases/"),
}


@dataclass
class Acknowledged:
    """What the clients were told, across all rounds."""

    versions: dict[tuple[str, int], tuple[str, str]] = field(default_factory=dict)  # digest, SHA-256 of the file
    moves: list[tuple[str, str, int, int]] = field(default_factory=list)  # name, alias, log index, version
    lost_answers: int = 0
    guard: threading.Lock = field(default_factory=threading.Lock)


class Watched(Transport):
    """Notes each request that was sent and got no answer: when it began, and what it was."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.unanswered: list[tuple[float, str]] = []

    def open(self, method: str, path: str, *more: Any, **options: Any) -> Response:
        begun = time.monotonic()
        try:
            return super().open(method, path, *more, **options)
        except LostError as lost:
            if lost.sent:
                kind = next((kind for kind, form in REQUESTS.items() if form.match(f"{method} {path}")), "another")
                self.unanswered.append((begun, kind))
            raise

    def find_in_flight(self, at: float) -> str:
        """Return what was under way at an instant at which the server died."""
        return next((kind for begun, kind in self.unanswered if begun < at), IDLE)


class Client(threading.Thread):
    """One writer. Errors that mean "no answer" are expected, others are kept."""

    def __init__(self, url: str, number: int, told: Acknowledged, folder: Path, seed: int) -> None:
        super().__init__(daemon=True)
        self.transport = Watched(url)
        self.number, self.told, self.folder = number, told, folder
        self.random = random.Random(seed)
        self.stopping = threading.Event()
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            with touchmark.Registry(self.transport) as registry:
                while not self.stopping.is_set():
                    try:
                        self.act(registry)
                    except (errors.ServerUnreachableError, errors.BusyError):
                        with self.told.guard:
                            self.told.lost_answers += 1
        except BaseException as failure:  # noqa: BLE001 - handed to the test
            self.failure = failure

    def act(self, registry: touchmark.Registry) -> None:
        name = self.random.choice(NAMES)
        if self.random.random() < 0.6:
            content = self.random.randbytes(FILE_BYTES)
            file = self.folder / f"{self.number}.bin"
            file.write_bytes(content)
            logged = registry.log_model(file, "weights")
            version = registry.register_model(logged.uri, name)
            with self.told.guard:
                found = (str(version.digest), hashlib.sha256(content).hexdigest())
                self.told.versions[name, version.version] = found
            return
        known = [number for (owner, number) in list(self.told.versions) if owner == name]
        if known:
            alias = registry.set_alias(name, f"alias{self.number}", self.random.choice(known))
            with self.told.guard:
                self.told.moves.append((name, f"alias{self.number}", alias.log_index, alias.version))


def play(
    home: Path,
    rounds: int,
    seed: int,
    show: Callable[[str], None],
    database: str | None = None,
    postgres: MortalPostgres | None = None,
) -> None:
    """Play rounds of killing, check after each, and show what was under way at the kills.

    With `postgres` that dies too each time, in turns a moment before the server and a moment after it.
    """
    database = database if postgres is None else postgres.url()
    luck = random.Random(seed)
    told = Acknowledged()
    under_way: Counter[str] = Counter()
    busy_kills = 0
    restarts: list[float] = []
    port = find_port()
    server = start(home, port, database)
    logs: list[str] = []
    try:
        for number in range(rounds):
            folder = home.parent / f"files-{number}"
            folder.mkdir()
            clients = [
                Client(f"http://127.0.0.1:{port}", n, told, folder, luck.random() * 2**50) for n in range(CLIENTS)
            ]
            for client in clients:
                client.start()
            time.sleep(luck.uniform(0.05, 0.6))
            if postgres is not None and number % 2 == 0:
                postgres.send("kill")
                time.sleep(luck.uniform(0, 0.05))
            killed_at = time.monotonic()
            server.process.kill()
            server.wait()
            logs += server.log
            if postgres is not None:
                postgres.stop("kill")
                postgres.start()
            begun = time.monotonic()
            server = start(home, port, database)
            restarts.append(time.monotonic() - begun)
            for client in clients:
                client.stopping.set()
            for client in clients:
                client.join(60)
                assert not client.is_alive(), f"round {number}: a client hangs"
                assert client.failure is None, f"round {number}: {client.failure!r}"
            in_flight = [client.transport.find_in_flight(killed_at) for client in clients]
            under_way.update(in_flight)
            busy_kills += any(what != IDLE for what in in_flight)
            check(f"http://127.0.0.1:{port}", told, home.parent, luck, every=number == rounds - 1)
        server.stop()
        registry = open_for_check(home, database)
        try:
            report = check_registry(registry, deep=True)
        finally:
            registry.close()
        assert report.exit_code in {0, 3}, report.findings
        failures = [line for line in [*logs, *server.log] if '"failure"' in line]
        assert failures == [], failures[0]
    finally:
        server.process.kill()
        server.wait()
    restarts.sort()
    show(
        f"{rounds} kills{'' if postgres is None else ' of the server and of PostgreSQL'}, {busy_kills} with a request in flight ({dict(under_way.most_common())}); {len(told.versions)} versions and "
        f"{len(told.moves)} moves acknowledged, none lost; {told.lost_answers} answers lost; "
        f"restart {restarts[len(restarts) // 2]:.2f} s (median), {restarts[-1]:.2f} s (longest)"
    )
    assert told.versions, "nothing was ever registered: the test would prove nothing"
    # With PostgreSQL gone first, many a request has its answer (try again) before the server goes.
    enough = rounds / 2 if postgres is None else 1
    assert busy_kills >= enough, "too few of the kills met a request in flight"


def start(home: Path, port: int, database: str | None) -> Served:
    """Start a server on a home, as it lies there."""
    server = launch(home, "--no-log-requests", *(() if database is None else ("--database", database)), port=port)
    server.wait_until_ready()
    return server


def check(url: str, told: Acknowledged, scratch: Path, luck: random.Random, *, every: bool) -> None:
    """Ask for everything acknowledged; nothing half-done may be seen. `every`: all bytes, not those of a few versions."""
    with touchmark.connect(url) as registry:
        listed: dict[tuple[str, int], touchmark.ModelVersion] = {}
        for name in NAMES:
            try:
                versions = list(registry.list_versions(name))
            except errors.ModelNotFoundError:
                versions = []
            numbers = sorted(version.version for version in versions)
            assert numbers == list(range(1, len(numbers) + 1)), f"gaps or duplicates in {name}: {numbers}"
            listed |= {(name, version.version): version for version in versions}
        for version in listed.values():
            assert version.sealed, f"a half version is visible: {version}"
            assert version.state is VersionState.READY, f"a half version is visible: {version}"
        for key, (digest, _content) in told.versions.items():
            assert listed[key].digest == digest
        # The newest of each name, whether its answer came or not, and some older ones; all of them at the end.
        newest = [key for name in NAMES for key in sorted(key for key in listed if key[0] == name)[-2:]]
        pulled = sorted(listed) if every else newest + luck.sample(sorted(listed), min(3, len(listed)))
        for key in pulled:
            with TemporaryDirectory(dir=scratch) as folder:
                (file,) = registry.pull(f"models:/{key[0]}/{key[1]}", folder).iterdir()
                content = hashlib.sha256(file.read_bytes()).hexdigest()
            assert key not in told.versions or told.versions[key][1] == content
        for name in NAMES:
            mine = [move[1:] for move in told.moves if move[0] == name]
            if mine:
                kept = {(move.alias, move.log_index, move.after) for move in registry.history(name)}
                assert [move for move in mine if move not in kept] == []

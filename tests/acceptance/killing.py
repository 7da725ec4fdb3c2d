"""Killing a server at random instants while clients write, and looking whether anything acknowledged was lost.

One round: four clients upload, register and move aliases; after a random time the server gets SIGKILL; it is started
again on the same home, without any repair, while the clients go on with what they were doing. Then everything that was
ever acknowledged is asked for. `make test` plays 20 rounds, `make soak` 200.
"""

from __future__ import annotations

import hashlib
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import touchmark
from tests.served import Served, find_port, launch
from touchmark import errors
from touchmark.ops.fsck import check_registry, open_for_check

CLIENTS = 4
NAMES = ("shared", "other")
FILE_BYTES = 300_000
IDLE = "nothing"


@dataclass
class Acknowledged:
    """What the clients were told, across all rounds."""

    versions: dict[tuple[str, int], tuple[str, str]] = field(default_factory=dict)  # digest, SHA-256 of the file
    moves: list[tuple[str, str, int]] = field(default_factory=list)  # name, alias, log index
    lost_answers: int = 0
    guard: threading.Lock = field(default_factory=threading.Lock)


class Client(threading.Thread):
    """One writer. `doing` says what is under way; errors that mean "no answer" are expected, others are kept."""

    def __init__(self, url: str, number: int, told: Acknowledged, folder: Path, seed: int) -> None:
        super().__init__(daemon=True)
        self.url, self.number, self.told, self.folder = url, number, told, folder
        self.random = random.Random(seed)
        self.doing = IDLE
        self.stopping = threading.Event()
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            with touchmark.connect(self.url) as registry:
                while not self.stopping.is_set():
                    try:
                        self.act(registry)
                    except (errors.ServerUnreachableError, errors.BusyError):
                        with self.told.guard:
                            self.told.lost_answers += 1
                    self.doing = IDLE
        except BaseException as failure:  # noqa: BLE001 - handed to the test
            self.failure = failure

    def act(self, registry: touchmark.Registry) -> None:
        name = self.random.choice(NAMES)
        if self.random.random() < 0.6:
            content = self.random.randbytes(FILE_BYTES)
            file = self.folder / f"{self.number}.bin"
            file.write_bytes(content)
            self.doing = "upload"
            logged = registry.log_model(file, "weights")
            self.doing = "registration"
            version = registry.register_model(logged.uri, name)
            with self.told.guard:
                found = (str(version.digest), hashlib.sha256(content).hexdigest())
                self.told.versions[name, version.version] = found
            return
        self.doing = "alias move"
        known = [number for (owner, number) in list(self.told.versions) if owner == name]
        if known:
            alias = registry.set_alias(name, f"alias{self.number}", self.random.choice(known))
            with self.told.guard:
                self.told.moves.append((name, f"alias{self.number}", alias.log_index))


def play(home: Path, rounds: int, seed: int, show: Callable[[str], None]) -> None:
    """Play rounds of killing, check after each, and print what was under way at the kills."""
    luck = random.Random(seed)
    told = Acknowledged()
    under_way: Counter[str] = Counter()
    busy_kills = 0
    restarts: list[float] = []
    port = find_port()
    server = start(home, port)
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
            server.process.kill()
            doing = [client.doing for client in clients]
            under_way.update(doing)
            busy_kills += any(what != IDLE for what in doing)
            server.wait()
            begun = time.monotonic()
            server = start(home, port)
            restarts.append(time.monotonic() - begun)
            for client in clients:
                client.stopping.set()
            for client in clients:
                client.join(60)
                assert not client.is_alive(), f"round {number}: a client hangs while {client.doing}"
                assert client.failure is None, f"round {number}: {client.failure!r}"
            check(f"http://127.0.0.1:{port}", told, home.parent / "pulled", luck)
        server.stop()
        registry = open_for_check(home)
        try:
            report = check_registry(registry, deep=True)
        finally:
            registry.close()
        assert report.exit_code in {0, 3}, report.findings
    finally:
        server.process.kill()
    restarts.sort()
    show(
        f"{rounds} kills, {busy_kills} with a request in flight ({dict(under_way)}); {len(told.versions)} versions and "
        f"{len(told.moves)} moves acknowledged, none lost; {told.lost_answers} answers lost; "
        f"restart {restarts[len(restarts) // 2]:.2f} s (median), {restarts[-1]:.2f} s (longest)"
    )
    assert told.versions, "nothing was ever registered: the test would prove nothing"
    assert busy_kills * 2 >= rounds, "fewer than half of the kills met a request in flight"


def start(home: Path, port: int) -> Served:
    """Start a server on a home, as it lies there."""
    server = launch(home, "--no-log-requests", port=port)
    server.wait_until_ready()
    return server


def check(url: str, told: Acknowledged, target: Path, luck: random.Random) -> None:
    """Ask for everything acknowledged; nothing half-done may be seen."""
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
        for key, (digest, _content) in told.versions.items():
            assert listed[key].digest == digest
        # Every byte of the newest and of some older ones; fsck --deep reads the rest at the end.
        newest = sorted(listed)[-3:] + luck.sample(sorted(listed), min(3, len(listed)))
        for number, key in enumerate(newest):
            folder = registry.pull(f"models:/{key[0]}/{key[1]}", target / str(number))
            if key in told.versions:
                contents = {
                    hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.rglob("*") if file.is_file()
                }
                assert told.versions[key][1] in contents
        for name in NAMES:
            if any(owner == name for owner, _alias, _index in told.moves):
                kept = {(move.alias, move.log_index) for move in registry.history(name)}
                missing = [move for move in told.moves if move[0] == name and (move[1], move[2]) not in kept]
                assert missing == []

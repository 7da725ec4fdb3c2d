"""Alias moves and registrations while PostgreSQL is taken away again and again, and what the history says afterwards.

Each client moves an alias of its own to one version after the other, on the condition that it stands where the client
saw it (If-Match), and registers a version now and then (Idempotency-Key, which the SDK sends by itself). A move whose
answer says neither yes nor no is looked up: the alias's log index tells. In the end the history must hold each move that
was acknowledged once, in order, and nothing that nobody asked for.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import touchmark
from tests.acceptance.mortal_postgres import MortalPostgres, Shears, Way
from tests.served import Served, digest_of, serve, wait_for
from touchmark import errors
from touchmark.client._transport import Attempts
from touchmark.ops.fsck import check_registry, open_for_check

CLIENTS = 8
VERSIONS = 3
PATIENCE_SECONDS = 60.0
MLFLOW = "/api/2.0/mlflow"
JSON = {"Content-Type": "application/json"}


@dataclass
class Told:
    """What one client was told, and how long it waited."""

    moves: list[tuple[int, int]] = field(default_factory=list)  # log index, version
    found_later: int = 0
    refused: int = 0
    registered: list[int] = field(default_factory=list)
    longest_seconds: float = 0.0
    codes: dict[str, int] = field(default_factory=dict)


class Mover(threading.Thread):
    """Moves its alias until it was told so `moves` times (None: until it is stopped)."""

    def __init__(self, url: str, number: int, source: str, moves: int | None) -> None:
        super().__init__(daemon=True)
        self.url, self.alias, self.source, self.moves = url, f"alias{number}", source, moves
        self.stopping = threading.Event()
        self.told = Told()
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            with touchmark.connect(self.url) as registry:
                seen, version = -1, 1
                while not self.stopping.is_set() and (self.moves is None or len(self.told.moves) < self.moves):
                    begun = time.monotonic()
                    seen = self.move(registry, version, seen, begun + PATIENCE_SECONDS)
                    self.told.moves.append((seen, version))
                    self.told.longest_seconds = max(self.told.longest_seconds, time.monotonic() - begun)
                    version = version % VERSIONS + 1
                    if len(self.told.moves) % 10 == 0:
                        self.register(registry)
        except BaseException as failure:  # noqa: BLE001 - handed to the test
            self.failure = failure

    def move(self, registry: touchmark.Registry, version: int, seen: int, end: float) -> int:
        """Move the alias once; return the log index of the move."""
        while True:
            try:
                return registry.set_alias("churn", self.alias, version, expected=seen).log_index
            except errors.BusyError as error:
                self.told.codes[error.code] = self.told.codes.get(error.code, 0) + 1
                self.told.refused += 1
                if time.monotonic() > end:
                    raise
                unknown = isinstance(error, errors.OutcomeUnknownError | errors.ServerUnreachableError)
            if unknown:
                now = self.look(registry, end)
                if now is not None and now.log_index != seen:
                    assert now.version == version, "somebody else moved my alias"
                    self.told.found_later += 1
                    return now.log_index

    def look(self, registry: touchmark.Registry, end: float) -> touchmark.Alias | None:
        while True:
            try:
                return registry.get_alias("churn", self.alias)
            except errors.AliasNotFoundError:
                return None
            except errors.BusyError:
                if time.monotonic() > end:
                    raise

    def register(self, registry: touchmark.Registry) -> None:
        """Register a version, with one key however often it is sent."""
        end, headers = time.monotonic() + PATIENCE_SECONDS, {"Idempotency-Key": f"{self.alias}-{len(self.told.moves)}"}
        transport = registry._session.transport
        while True:
            try:
                answer = transport.request(
                    "POST", "/api/v1/models/churn/versions", body={"source": self.source}, headers=headers,
                    attempts=Attempts(),
                )  # fmt: skip
            except errors.BusyError:
                if time.monotonic() > end:
                    raise
                continue
            self.told.registered.append(answer.json()["version"])
            return


class Bystander(threading.Thread):
    """Does everything else meanwhile: runs, metrics, searches, uploads. It is answered well, or told to try again."""

    def __init__(self, served: Served) -> None:
        super().__init__(daemon=True)
        self.served = served
        self.stopping = threading.Event()
        self.answers: Counter[int] = Counter()
        self.wrong: list[str] = []
        answer = served.ask("POST", f"{MLFLOW}/runs/create", {"experiment_id": "0"}, JSON)
        self.run_id = answer.json()["run"]["info"]["run_id"]

    def run(self) -> None:
        number = 0
        while not self.stopping.is_set():
            number += 1
            data = str(number).encode() * 10_000
            requests: list[tuple[str, str, Any]] = [
                ("POST", f"{MLFLOW}/runs/create", {"experiment_id": "0", "run_name": str(number)}),
                ("POST", f"{MLFLOW}/runs/log-batch", {
                    "run_id": self.run_id, "metrics": [{"key": "m", "value": 1, "timestamp": number, "step": number}],
                    "tags": [{"key": "t", "value": str(number)}],
                }),
                ("POST", f"{MLFLOW}/runs/search", {"experiment_ids": ["0"], "max_results": 5}),
                ("GET", f"{MLFLOW}/model-versions/search?filter=name%3D%27churn%27", None),
                ("GET", "/api/v1/models/churn/history", None),
                ("POST", f"/v2/runs/{self.run_id}/blobs/uploads/?digest={digest_of(data)}", data),
                ("GET", "/health", None),
            ]  # fmt: skip
            for method, path, body in requests:
                answer = self.served.ask(method, path, body, JSON if isinstance(body, dict) else None)
                self.answers[answer.status] += 1
                if answer.status not in {200, 201, 503}:
                    self.wrong.append(f"{method} {path}: {answer}")


def log_source(url: str, folder: Path) -> str:
    """Log a model and register it VERSIONS times; return its address."""
    file = folder / "weights.bin"
    file.write_bytes(b"weights")
    with touchmark.connect(url) as registry:
        source = registry.log_model(file, "weights").uri
        for _ in range(VERSIONS):
            registry.register_model(source, "churn")
    return source


def finish(movers: list[Mover], seconds: float) -> None:
    """Wait for every client. Fails if one hangs or met an error it should not have."""
    end = time.monotonic() + seconds
    for mover in movers:
        mover.join(max(end - time.monotonic(), 1))
        assert not mover.is_alive(), f"{mover.alias} hangs after {len(mover.told.moves)} moves"
        assert mover.failure is None, f"{mover.alias}: {mover.failure!r}"


def dismiss(bystander: Bystander) -> None:
    """Send a bystander home. Fails if it was answered anything but well or "try again"."""
    bystander.stopping.set()
    bystander.join(60)
    assert not bystander.is_alive()
    assert bystander.wrong == []
    assert bystander.answers[200] > 0


def compare(url: str, movers: list[Mover]) -> tuple[int, int]:
    """Compare the history with what the clients were told; return how many moves and registrations there were."""
    moves = registered = 0
    with touchmark.connect(url) as registry:
        for mover in movers:
            history = [(move.log_index, move.after) for move in registry.history(f"churn@{mover.alias}")][::-1]
            told = mover.told.moves
            # One that was stopped between an effect and its answer may have made one more move than it knows of.
            assert history[: len(told)] == told, f"{mover.alias}: told {told[-5:]}, kept {history[-5:]}"
            assert len(history) - len(told) in ({0} if mover.moves is not None else {0, 1}), mover.alias
            moves += len(told)
        numbers = sorted(number for mover in movers for number in mover.told.registered)
        registered = len(numbers)
        assert len(set(numbers)) == registered, "one version was given to two"
        kept = sorted(version.version for version in registry.list_versions("churn"))
        assert kept == list(range(1, len(kept) + 1))
        assert set(numbers) <= set(kept)
        if all(mover.moves is not None for mover in movers):
            assert len(kept) == VERSIONS + registered, "a registration was made twice"
    return moves, registered


def check_all(served: Served, url: str) -> None:
    """Nothing was ever answered with a 500 or a trace, and what is left behind is whole."""
    served.stop()
    failures = [line for line in served.log if '"failure"' in line]
    assert not failures, failures[0].encode().decode("unicode_escape")
    registry = open_for_check(served.home, url)
    try:
        report = check_registry(registry)
    finally:
        registry.close()
    assert report.exit_code in {0, 3}, report.findings


def summarise(movers: list[Mover]) -> str:
    codes: Counter[str] = Counter()
    for mover in movers:
        codes.update(mover.told.codes)
    later = sum(mover.told.found_later for mover in movers)
    longest = max(mover.told.longest_seconds for mover in movers)
    return f"refused {dict(codes)}, {later} found to have been made, longest wait {longest:.1f} s"


def play_restarts(
    home: Path,
    database: MortalPostgres,
    moves: int,
    every_seconds: float,
    luck: random.Random,
    show: Callable[[str], None],
) -> None:
    """Move aliases while PostgreSQL is ended every few seconds, each time in another way."""
    ways: Counter[str] = Counter()
    with serve(home, "--no-log-requests", "--database", database.url()) as served:
        url = f"http://127.0.0.1:{served.port}"
        source = log_source(url, home.parent)
        movers = [Mover(url, number, source, moves // CLIENTS) for number in range(CLIENTS)]
        bystander = Bystander(served)
        for thread in (*movers, bystander):
            thread.start()
        while any(mover.is_alive() for mover in movers):
            time.sleep(every_seconds)
            way: Way | str = luck.choice(["fast", "immediate", "kill", "backend"])
            if way == "backend":
                if not database.kill_backend(luck):
                    continue
            else:
                database.stop(way)
                database.start()
            ways[way] += 1
        finish(movers, 10)
        dismiss(bystander)
        made, registered = compare(url, movers)
        check_all(served, database.url())
    assert made == moves
    assert sum(ways.values()) >= 1
    show(
        f"PostgreSQL ended {sum(ways.values())} times ({dict(ways)}): {made} moves and {registered} registrations "
        f"acknowledged, each in the history once, lost 0; {summarise(movers)}; others {dict(bystander.answers)}"
    )


def play_cuts(
    home: Path, database: MortalPostgres, cuts: int, luck: random.Random, show: Callable[[str], None]
) -> None:
    """Move aliases while the connections to PostgreSQL are cut after random numbers of bytes."""
    shears = Shears(database.port, luck)
    try:
        with serve(home, "--no-log-requests", "--database", database.url(shears.port)) as served:
            url = f"http://127.0.0.1:{served.port}"
            source = log_source(url, home.parent)
            movers = [Mover(url, number, source, None) for number in range(CLIENTS)]
            bystander = Bystander(served)
            for thread in (*movers, bystander):
                thread.start()
            shears.longest, shears.around_commit = 40_000, 0.1
            begun = time.monotonic()
            while (
                min(shears.cuts, shears.commit_cuts) < cuts
                and time.monotonic() < begun + 60 + 2 * cuts
                and all(mover.is_alive() for mover in movers)
            ):
                time.sleep(0.05)
            shears.longest, shears.around_commit = None, 0.0
            for mover in movers:
                mover.stopping.set()
            finish(movers, 70)
            dismiss(bystander)
            assert min(shears.cuts, shears.commit_cuts) >= cuts
            made, registered = compare(url, movers)
            wait_for(lambda: count_connections(database) <= 30)
            check_all(served, database.url())
    finally:
        shears.close()
    show(
        f"{shears.cuts} cuts of the database's connections at random bytes, {shears.commit_cuts} at a COMMIT: {made} moves and {registered} registrations acknowledged, "
        f"each in the history once, lost 0; {summarise(movers)}; others {dict(bystander.answers)}"
    )


def count_connections(database: MortalPostgres) -> int:
    with database.connect("postgres") as link:
        row = link.execute("SELECT count(*) FROM pg_stat_activity WHERE datname = 'registry'").fetchone()
    assert row is not None
    found: int = row[0]
    return found

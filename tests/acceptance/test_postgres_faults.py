"""PostgreSQL taken away under load: restarted, killed, cut off in the middle of a message.

Whatever happens to the database, a client is told yes, no, or that it cannot be told; what was acknowledged is in the
history once; the server goes on by itself; and nothing ever answers 500. `make soak` plays the same for longer.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.acceptance.killing import play
from tests.acceptance.mortal_postgres import MortalPostgres, Shears, Way, open_mortal_postgres
from tests.acceptance.moving import Mover, compare, finish, log_source
from tests.served import Served, serve, wait_for
from touchmark.domain.access import SYSTEM
from touchmark.domain.errors import BusyError, ModelNotFoundError, OutcomeUnknownError
from touchmark.ops.fsck import check_registry, open_for_check
from touchmark.ops.setup import open_registry
from touchmark.registry import Registry
from touchmark.services import models
from touchmark.storage import dialect, ledger

pytestmark = [pytest.mark.processes, pytest.mark.postgres]
CLIENTS = 8
KILLS = 4


@pytest.fixture
def show(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    def write(line: str) -> None:
        with capsys.disabled():
            print(f"\n{line}")

    return write


@pytest.fixture
def database() -> Iterator[MortalPostgres]:
    with open_mortal_postgres() as server:
        yield server


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
        for mover in movers:
            mover.start()
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
        made, registered = compare(url, movers)
        check_all(served, database.url())
    assert made == moves
    assert sum(ways.values()) >= 1
    show(
        f"PostgreSQL ended {sum(ways.values())} times ({dict(ways)}): {made} moves and {registered} registrations "
        f"acknowledged, each in the history once, lost 0; {summarise(movers)}"
    )


@pytest.mark.timeout(150)
def test_alias_moves_are_made_once_while_postgres_ends_again_and_again(
    home: Path, database: MortalPostgres, show: Callable[[str], None]
) -> None:
    play_restarts(home, database, 160, 0.7, random.Random(20_261_125), show)


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
            for mover in movers:
                mover.start()
            shears.longest, shears.around_commit = 40_000, 0.1
            begun = time.monotonic()
            while (
                min(shears.cuts, shears.commit_cuts) < cuts
                and time.monotonic() < begun + 120
                and all(mover.is_alive() for mover in movers)
            ):
                time.sleep(0.05)
            shears.longest, shears.around_commit = None, 0.0
            for mover in movers:
                mover.stopping.set()
            finish(movers, 70)
            assert min(shears.cuts, shears.commit_cuts) >= cuts
            made, registered = compare(url, movers)
            wait_for(lambda: count_connections(database) <= 30)
            check_all(served, database.url())
    finally:
        shears.close()
    show(
        f"{shears.cuts} cuts of the database's connections at random bytes, {shears.commit_cuts} at a COMMIT: {made} moves and {registered} registrations acknowledged, "
        f"each in the history once, lost 0; {summarise(movers)}"
    )


def count_connections(database: MortalPostgres) -> int:
    with database.connect("postgres") as link:
        row = link.execute("SELECT count(*) FROM pg_stat_activity WHERE datname = 'registry'").fetchone()
    assert row is not None
    found: int = row[0]
    return found


@pytest.mark.timeout(200)
def test_alias_moves_are_made_once_while_the_connections_to_postgres_are_cut(
    home: Path, database: MortalPostgres, show: Callable[[str], None]
) -> None:
    play_cuts(home, database, 30, random.Random(20_261_126), show)


@pytest.mark.timeout(200)
def test_nothing_acknowledged_is_lost_when_the_server_and_postgres_are_killed(
    tmp_path: Path, database: MortalPostgres, show: Callable[[str], None]
) -> None:
    play(tmp_path / "home", KILLS, seed=20_261_127, show=show, postgres=database)


# ── what a caller is told when the database is lost in the middle of a commit ──────────────────────────────────────


@pytest.fixture
def cuttable(home: Path, database: MortalPostgres) -> Iterator[tuple[Registry, Shears]]:
    """Give a registry whose connections to its database go through shears."""
    shears = Shears(database.port, random.Random(1))
    registry = open_registry(home, database.url(shears.port))
    models.create_model(registry, SYSTEM, "first")
    yield registry, shears
    registry.close()
    shears.close()


def list_names(registry: Registry) -> list[str]:
    found = []
    for name in ("first", "second", "third"):
        with suppress(ModelNotFoundError):
            found.append(str(models.get_model(registry, SYSTEM, name).name))
    return found


def test_a_change_whose_commit_was_not_answered_is_found_to_have_been_made(cuttable: tuple[Registry, Shears]) -> None:
    registry, shears = cuttable
    shears.next_commit = "answer"

    models.create_model(registry, SYSTEM, "second")

    assert shears.commit_cuts == 1
    assert list_names(registry) == ["first", "second"]


def test_a_change_whose_commit_never_arrived_is_known_not_to_have_been_made(
    cuttable: tuple[Registry, Shears],
) -> None:
    registry, shears = cuttable
    shears.next_commit = "arrival"

    with pytest.raises(BusyError, match="nothing was changed") as caught:
        models.create_model(registry, SYSTEM, "second")

    assert type(caught.value) is BusyError
    assert shears.commit_cuts == 1
    assert list_names(registry) == ["first"]
    assert models.create_model(registry, SYSTEM, "second").name == "second"


def test_a_change_that_cannot_be_looked_for_is_told_as_unknown(
    cuttable: tuple[Registry, Shears], monkeypatch: pytest.MonkeyPatch
) -> None:
    registry, shears = cuttable
    monkeypatch.setattr("touchmark.registry.OUTCOME_SECONDS", 0.5)
    shears.next_commit = "answer"
    shears.longest_after_commit = 2

    with pytest.raises(OutcomeUnknownError):
        models.create_model(registry, SYSTEM, "second")

    shears.longest = shears.longest_after_commit = None
    assert list_names(registry) == ["first", "second"]


def test_a_connection_lost_between_two_transactions_is_made_again_unnoticed(
    cuttable: tuple[Registry, Shears],
) -> None:
    registry, shears = cuttable
    for ask in (
        registry.get_log_size,
        lambda: list_names(registry),
        lambda: models.create_model(registry, SYSTEM, "second"),
    ):
        shears.cut_all()
        ask()

    assert list_names(registry) == ["first", "second"]


def test_a_writer_that_says_nothing_any_more_does_not_hold_the_others_for_ever(
    home: Path, database: MortalPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dialect, "LOCK_SECONDS", 1)
    monkeypatch.setattr(dialect, "IDLE_WRITE_SECONDS", 3)
    registry, other = open_registry(home, database.url()), open_registry(home, database.url())
    is_held, is_over = threading.Event(), threading.Event()

    def fall_silent() -> None:
        with pytest.raises(BusyError, match="nothing was changed"), registry.write() as tx:
            is_held.set()
            is_over.wait(30)
            ledger.take_head(tx)

    silent = threading.Thread(target=fall_silent)
    silent.start()
    is_held.wait(10)
    with pytest.raises(BusyError, match="nothing was changed"):
        models.create_model(other, SYSTEM, "first")
    wait_for(lambda: count_writers(database) == 0)
    models.create_model(other, SYSTEM, "first")
    is_over.set()
    silent.join()

    assert list_names(registry) == ["first"]
    registry.close()
    other.close()


def count_writers(database: MortalPostgres) -> int:
    with database.connect("postgres") as link:
        row = link.execute("SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction'").fetchone()
    assert row is not None
    found: int = row[0]
    return found

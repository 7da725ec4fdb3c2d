"""PostgreSQL taken away under load: restarted, killed, cut off in the middle of a message.

Whatever happens to the database, a client is told yes, no, or that it cannot be told; what was acknowledged is in the
history once; the server goes on by itself; and nothing ever answers 500. `make soak` plays the same for longer.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.acceptance.killing import play
from tests.acceptance.mortal_postgres import MortalPostgres, Shears, open_mortal_postgres
from tests.acceptance.moving import play_cuts, play_restarts
from tests.client.proxy import open_proxy
from tests.served import serve, wait_for
from touchmark.domain.access import SYSTEM
from touchmark.domain.errors import BusyError, ModelNotFoundError, OutcomeUnknownError
from touchmark.ops.setup import open_registry
from touchmark.registry import Registry
from touchmark.services import models
from touchmark.storage import dialect, ledger

pytestmark = [pytest.mark.processes, pytest.mark.postgres]
KILLS = 5


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


@pytest.mark.timeout(150)
def test_alias_moves_are_made_once_while_postgres_ends_again_and_again(
    home: Path, database: MortalPostgres, show: Callable[[str], None]
) -> None:
    play_restarts(home, database, 160, 0.7, random.Random(20_261_125), show)


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


def test_a_database_that_does_not_answer_holds_up_only_those_who_need_it(home: Path, database: MortalPostgres) -> None:
    with open_proxy(database.port) as proxy, serve(home, "--database", database.url(proxy.port)) as served:
        assert served.ask("GET", "/health").status == 200
        proxy.hold_after(0)
        healthy: list[int] = []
        asking = threading.Thread(target=lambda: healthy.append(served.ask("GET", "/health").status))
        asking.start()
        time.sleep(0.3)

        begun = time.monotonic()
        assert served.ask("GET", "/api/v1/openapi.json").status == 200
        assert served.ask("GET", "/api/v1/nothing").status == 404
        assert time.monotonic() - begun < 2
        assert healthy == []

        proxy.hold_after(1 << 60)
        proxy.cut_all()
        asking.join(30)
        assert healthy == [200]


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

"""PostgreSQL restarted every two seconds during a thousand moves, cut off five hundred times, killed with the server."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.acceptance.killing import play
from tests.acceptance.mortal_postgres import MortalPostgres, open_mortal_postgres
from tests.acceptance.moving import play_cuts, play_restarts

pytestmark = [pytest.mark.processes, pytest.mark.postgres]


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


def test_a_thousand_moves_while_postgres_ends_every_two_seconds(
    home: Path, database: MortalPostgres, show: Callable[[str], None]
) -> None:
    play_restarts(home, database, 1000, 2.0, random.Random(time.time_ns()), show)


def test_five_hundred_cuts_at_random_bytes_and_as_many_at_a_commit(
    home: Path, database: MortalPostgres, show: Callable[[str], None]
) -> None:
    play_cuts(home, database, 500, random.Random(time.time_ns()), show)


def test_nothing_acknowledged_is_lost_in_fifty_kills_of_the_server_and_postgres(
    tmp_path: Path, database: MortalPostgres, show: Callable[[str], None]
) -> None:
    play(tmp_path / "home", 50, seed=time.time_ns(), show=show, postgres=database)

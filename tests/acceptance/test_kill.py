"""What was acknowledged survives `kill -9` of the server at random instants (promise 6)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.acceptance.killing import play

ROUNDS = 12
POSTGRES_ROUNDS = 5


@pytest.fixture
def show(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    def write(line: str) -> None:
        with capsys.disabled():
            print(f"\n{line}")

    return write


@pytest.mark.processes
@pytest.mark.timeout(400)
def test_nothing_acknowledged_is_lost_in_twelve_kills(tmp_path: Path, show: Callable[[str], None]) -> None:
    play(tmp_path / "home", ROUNDS, seed=20_261_123, show=show)


@pytest.mark.processes
@pytest.mark.postgres
@pytest.mark.timeout(200)
def test_nothing_acknowledged_is_lost_in_five_kills_on_postgres(
    tmp_path: Path, postgres_url: str, show: Callable[[str], None]
) -> None:
    play(tmp_path / "home", POSTGRES_ROUNDS, seed=20_261_124, show=show, database=postgres_url)

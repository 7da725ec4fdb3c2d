"""Ten thousand writes read through the other server, fifty races, thirty rolling restarts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.acceptance.balancing import Pair, open_pair, roll
from tests.acceptance.racing import race, read_own_writes, share_bytes

pytestmark = [pytest.mark.processes, pytest.mark.postgres]


@pytest.fixture
def show(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    def write(line: str) -> None:
        with capsys.disabled():
            print(f"\n{line}")

    return write


@pytest.fixture
def pair(home: Path, postgres_url: str) -> Iterator[Pair]:
    with open_pair(home, postgres_url) as servers:
        yield servers


def test_ten_thousand_writes_are_read_through_the_other_server_at_once(
    pair: Pair, tmp_path: Path, show: Callable[[str], None]
) -> None:
    read_own_writes(pair.servers, 10_000, tmp_path, show)
    share_bytes(pair.servers, 50, tmp_path)


def test_fifty_races_over_two_servers_have_one_order(pair: Pair, tmp_path: Path, show: Callable[[str], None]) -> None:
    race(pair.servers, 50, 8, 60, tmp_path, show)


def test_thirty_races_have_one_order_also_when_a_server_is_killed(
    pair: Pair, tmp_path: Path, show: Callable[[str], None]
) -> None:
    race(pair.servers, 30, 8, 80, tmp_path, show, pair.kill)


def test_thirty_rolling_restarts_fail_no_request(home: Path, postgres_url: str, show: Callable[[str], None]) -> None:
    roll(home, postgres_url, 15, show)

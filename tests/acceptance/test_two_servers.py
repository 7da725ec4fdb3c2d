"""Two server processes on one database and one home: each knows at once what the other acknowledged; either may restart."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.acceptance.balancing import Pair, open_pair, roll
from tests.acceptance.racing import Line, race, read_own_writes, share_bytes
from tests.served import digest_of, read_answer, serve, wait_for

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
        assert [line for line in servers.logs if '"failure"' in line] == []


@pytest.mark.timeout(120)
def test_what_one_server_acknowledged_the_other_answers_at_once(
    pair: Pair, tmp_path: Path, show: Callable[[str], None]
) -> None:
    read_own_writes(pair.servers, 500, tmp_path, show)
    share_bytes(pair.servers, 4, tmp_path)


@pytest.mark.timeout(120)
def test_races_for_an_alias_over_two_servers_have_one_order(
    pair: Pair, tmp_path: Path, show: Callable[[str], None]
) -> None:
    race(pair.servers, 4, 8, 40, tmp_path, show)


@pytest.mark.timeout(120)
def test_races_have_one_order_also_when_a_server_is_killed(
    pair: Pair, tmp_path: Path, show: Callable[[str], None]
) -> None:
    race(pair.servers, 3, 8, 60, tmp_path, show, pair.kill)


@pytest.mark.timeout(120)
def test_both_servers_are_restarted_in_turn_without_a_failed_request(
    home: Path, postgres_url: str, show: Callable[[str], None]
) -> None:
    roll(home, postgres_url, 1, show)


def test_a_server_about_to_end_says_so_first_and_loses_nothing(home: Path) -> None:
    with serve(home, "--no-log-requests", "--drain-seconds", "2") as served:
        kept = Line(served)
        assert kept.ask("GET", "/health")[0] == 200
        begun = time.monotonic()
        served.process.terminate()
        wait_for(lambda: served.ask("GET", "/health").status == 503)
        answer = served.ask("GET", "/api/v1/models")
        status, _ = kept.ask("POST", "/api/v1/models", {"name": "churn"})

        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert status == 201
        assert served.wait() == 0
        assert 1.8 < time.monotonic() - begun < 8
        kept.close()


def test_requests_in_flight_are_finished_before_the_end(home: Path) -> None:
    with serve(home, "--no-log-requests") as served:
        repository = served.new_run()
        data = b"x" * 3_000_000
        with served.connect(
            f"POST /v2/{repository}/blobs/uploads/?digest={digest_of(data)} HTTP/1.1\r\nContent-Length: {len(data)}",
            data[:100],
        ) as link:
            wait_for(lambda: bool(served.list_blob_files()))
            served.process.terminate()
            time.sleep(0.3)
            link.sendall(data[100:])
            assert read_answer(link).startswith(b"HTTP/1.1 201 ")
        assert served.wait() == 0

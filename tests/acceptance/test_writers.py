"""Many writers at once: numbers without gaps or duplicates, one winner of a race, one effect of a request sent often."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import touchmark
from tests.served import Served, serve
from touchmark import errors
from touchmark.ops.fsck import check_registry, open_for_check

WRITERS = 64
EACH = 3
RACES = 5


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Served, str | None]]:
    """Run a server on each database."""
    url = None if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    flags = [] if url is None else ["--database", url]
    with serve(tmp_path / "home", "--no-log-requests", *flags) as served:
        yield served, url


def connect(served: Served) -> touchmark.Registry:
    return touchmark.connect(f"http://127.0.0.1:{served.port}")


def log_file(registry: touchmark.Registry, tmp_path: Path) -> str:
    file = tmp_path / "model.txt"
    file.write_text("weights")
    return registry.log_model(file, "weights").uri


@pytest.mark.processes
@pytest.mark.timeout(300)
def test_sixty_four_writers_of_one_name_leave_no_gap_and_no_duplicate(
    server: tuple[Served, str | None], tmp_path: Path
) -> None:
    served, url = server
    with connect(served) as registry:
        source = log_file(registry, tmp_path)

    def write(_number: int) -> list[int]:
        with connect(served) as mine:
            return [mine.register_model(source, "churn").version for _ in range(EACH)]

    with ThreadPoolExecutor(WRITERS) as pool:
        numbers = [number for given in pool.map(write, range(WRITERS)) for number in given]

    assert sorted(numbers) == list(range(1, WRITERS * EACH + 1))
    served.stop()
    opened = open_for_check(served.home, url)
    report = check_registry(opened)
    opened.close()
    assert report.exit_code in {0, 3}, report.findings


@pytest.mark.processes
def test_of_many_who_saw_the_same_alias_one_moves_it(server: tuple[Served, str | None], tmp_path: Path) -> None:
    served, _url = server
    with connect(served) as registry:
        source = log_file(registry, tmp_path)
        for _ in range(9):
            registry.register_model(source, "churn")
        seen = registry.set_alias("churn", "champion", 1).log_index

    def move(version: int, seen: int) -> bool:
        with connect(served) as mine:
            try:
                mine.set_alias("churn", "champion", version, expected=seen)
            except errors.AliasMovedError:
                return False
            return True

    with connect(served) as registry, ThreadPoolExecutor(8) as pool:
        for race in range(RACES):
            candidates = [
                version for version in range(1, 10) if version != registry.get_alias("churn", "champion").version
            ]
            won = list(pool.map(move, candidates, [seen] * len(candidates)))

            assert sum(won) == 1
            now = registry.get_alias("churn", "champion")
            assert now.version == candidates[won.index(True)]
            assert len(registry.history("churn@champion")) == 2 + race
            seen = now.log_index


@pytest.mark.processes
def test_a_request_sent_twenty_times_with_one_key_has_one_effect(
    server: tuple[Served, str | None], tmp_path: Path
) -> None:
    served, _url = server
    with connect(served) as registry:
        source = log_file(registry, tmp_path)

    def send(_number: int) -> tuple[int, int]:
        body = {"source": source}
        answer = served.ask("POST", "/api/v1/models/churn/versions", body, {**JSON, "Idempotency-Key": "once"})
        return answer.status, answer.json()["version"]

    with ThreadPoolExecutor(20) as pool:
        assert set(pool.map(send, range(20))) == {(201, 1)}
    other = served.ask("POST", "/api/v1/models/other/versions", {"source": source}, {**JSON, "Idempotency-Key": "once"})

    assert (other.status, other.json()["code"]) == (409, "idempotency_mismatch")
    with connect(served) as registry:
        assert registry.get_model("churn").version_count == 1


JSON = {"Content-Type": "application/json"}

SCRIPT = """
import sys, touchmark
with touchmark.open(sys.argv[1]) as registry:
    for _ in range(15):
        registry.register_model(sys.argv[2], "churn")
"""


@pytest.mark.processes
@pytest.mark.timeout(200)
def test_four_processes_share_one_home(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with touchmark.open(home) as registry:
        source = log_file(registry, tmp_path)
        writers = [subprocess.Popen([sys.executable, "-c", SCRIPT, str(home), source]) for _ in range(4)]
        assert [writer.wait(150) for writer in writers] == [0] * 4

        assert sorted(version.version for version in registry.list_versions("churn")) == list(range(1, 61))

"""Answers that are kept: never older than what somebody was told is done, in whatever process it was done."""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.served import Served, serve
from touchmark.wire import Answers, SharedLook

pytestmark = pytest.mark.processes
API = "/api/2.0/mlflow/"
JSON = {"Content-Type": "application/json"}


def test_an_answer_is_given_again_only_while_the_log_has_its_size() -> None:
    answers = Answers()
    answers.keep(("a", ""), 7, b"seven")

    assert answers.find(("a", ""), 7) == b"seven"
    assert answers.find(("a", ""), 8) is None
    assert answers.find(("a", "other"), 7) is None
    answers.keep(("a", ""), 8, b"eight")
    assert answers.find(("a", ""), 8) == b"eight"


def test_what_was_not_asked_for_longest_goes_first() -> None:
    answers = Answers(limit_bytes=16 * 1000)
    for number in range(30):
        answers.keep((str(number), ""), 1, bytes(400 - len(str(number))))
        answers.find(("0", ""), 1)

    kept = [number for number in range(30) if answers.find((str(number), ""), 1) is not None]
    assert kept == [0, *range(15, 30)]


def test_a_long_question_takes_room_too() -> None:
    answers = Answers(limit_bytes=16 * 1000)
    for number in range(30):
        answers.keep(("a", f"name=x&{number}{'y' * 7_000}"), 1, b"x")

    assert sum(answers.find(("a", f"name=x&{number}{'y' * 7_000}"), 1) is not None for number in range(30)) == 2


def test_an_answer_too_long_is_not_kept() -> None:
    answers = Answers(limit_bytes=1600)
    answers.keep(("a", ""), 1, bytes(101))
    assert answers.find(("a", ""), 1) is None


class Far:
    """Something far away that grows by one with each look, and answers when it is let."""

    def __init__(self) -> None:
        self.seen = 0
        self.error: Exception | None = None
        self.go_on = asyncio.Semaphore(0)

    async def look(self) -> int:
        self.seen += 1
        seen, error = self.seen, self.error
        await self.go_on.acquire()
        if error is not None:
            raise error
        return seen


async def ask(look: SharedLook, count: int) -> list[asyncio.Task[int]]:
    tasks = [asyncio.create_task(look.get()) for _ in range(count)]
    for _ in range(3):  # each one has asked, and the look has begun
        await asyncio.sleep(0)
    return tasks


async def take(tasks: list[asyncio.Task[int]]) -> list[object]:
    async with asyncio.timeout(10):
        return list(await asyncio.gather(*tasks, return_exceptions=True))


def test_all_who_ask_while_a_look_is_under_way_share_the_next_one() -> None:
    async def play() -> list[list[object]]:
        far = Far()
        look = SharedLook(far.look)
        first, second = await ask(look, 1), await ask(look, 20)
        far.go_on.release()
        found = [await take(first)]
        third = await ask(look, 5)
        far.go_on.release()
        found.append(await take(second))
        far.go_on.release()
        return [*found, await take(third)]

    assert asyncio.run(play()) == [[1], [2] * 20, [3] * 5]


def test_a_look_that_fails_fails_for_those_who_asked_and_nobody_else() -> None:
    async def play() -> list[list[object]]:
        far = Far()
        look = SharedLook(far.look)
        far.error = OSError("away")
        first = await ask(look, 3)
        far.error = None
        second = await ask(look, 2)
        for _ in range(2):
            far.go_on.release()
        return [list(map(str, await take(first))), await take(second)]

    assert asyncio.run(play()) == [["away"] * 3, [2, 2]]


def test_who_goes_away_takes_nobodys_answer_along() -> None:
    async def play() -> list[object]:
        far = Far()
        look = SharedLook(far.look)
        asked = await ask(look, 3)
        asked[0].cancel()
        later = await ask(look, 1)
        later[0].cancel()
        far.go_on.release()
        far.go_on.release()
        return await take(asked[1:]) + await take(await ask_and_let(look, far))

    async def ask_and_let(look: SharedLook, far: Far) -> list[asyncio.Task[int]]:
        asked = await ask(look, 1)
        far.go_on.release()
        return asked

    assert asyncio.run(play()) == [1, 1, 3]


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def two(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Served, Served]]:
    """Two server processes on one registry."""
    flags = [] if request.param == "sqlite" else ["--database", request.getfixturevalue("postgres_url")]
    home = tmp_path / "home"
    with serve(home, *flags, "--no-log-requests") as one, serve(home, *flags, "--no-log-requests") as other:
        yield one, other


def test_a_reader_never_sees_less_than_a_writer_in_another_process_was_told(two: tuple[Served, Served]) -> None:
    one, other = two
    one.ask("POST", API + "registered-models/create", {"name": "churn"}, JSON)
    one.ask("POST", API + "model-versions/create", {"name": "churn", "source": "s3://b/c"}, JSON)
    done = 0
    writing = True
    behind: list[tuple[int, int]] = []

    def write() -> None:
        nonlocal done, writing
        for number in range(1, 60):
            body = {"name": "churn", "version": "1", "key": "n", "value": str(number)}
            assert other.ask("POST", API + "model-versions/set-tag", body, JSON).status == 200
            done = number
        writing = False

    def read(path: str) -> None:
        link = http.client.HTTPConnection("127.0.0.1", one.port, timeout=30)
        while writing:
            expected = done
            link.request("GET", path)
            found = json.loads(link.getresponse().read())
            seen = max(read_numbers(found), default=0)
            if seen < expected:
                behind.append((expected, seen))
        link.close()

    readers = [
        threading.Thread(target=read, args=(API + path,))
        for path in (
            "model-versions/get?name=churn&version=1",
            "registered-models/get?name=churn",
            "model-versions/search",
        )
        for _ in range(3)  # some share a look at the log
    ]
    writer = threading.Thread(target=write)
    for thread in (*readers, writer):
        thread.start()
    for thread in (*readers, writer):
        thread.join()

    assert behind == []
    assert done == 59


def read_numbers(found: Any) -> list[int]:
    """Return the values of every tag `n` anywhere in an answer."""
    if isinstance(found, dict):
        if found.get("key") == "n":
            return [int(found["value"])]
        return [number for value in found.values() for number in read_numbers(value)]
    if isinstance(found, list):
        return [number for value in found for number in read_numbers(value)]
    return []

"""Upload sessions of a real server when several requests meet, when one is too much, and what they cost in memory."""

from __future__ import annotations

import hashlib
import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from tests.served import Answer, Served, digest_of, read_answer, serve, wait_for

MIB = 1 << 20
DATA = random.Random(7).randbytes(4 * MIB)

pytestmark = pytest.mark.processes


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def flags(request: pytest.FixtureRequest) -> list[str]:
    """Give what a server of each database is started with."""
    url = request.getfixturevalue("postgres_url") if request.param == "postgres" else None
    return ["--no-log-requests", *(("--database", url) if url else ())]


def begin(served: Served, repository: str | None = None) -> str:
    return served.ask("POST", f"/v2/{repository or served.new_run()}/blobs/uploads/").headers["location"]


def offset_of(answer: Answer) -> int:
    return int(answer.headers["touchmark-upload-offset"])


def send_at_once(asks: Sequence[Callable[[], Answer]]) -> list[Answer]:
    """Send each from a thread of its own, all at one moment."""
    gate = threading.Barrier(len(asks))

    def go(ask: Callable[[], Answer]) -> Answer:
        gate.wait()
        return ask()

    with ThreadPoolExecutor(len(asks)) as pool:
        return list(pool.map(go, asks))


def test_of_two_requests_that_send_the_same_piece_one_is_told_how_far_the_upload_is(
    home: Path, flags: list[str]
) -> None:
    with serve(home, *flags) as served:
        for _ in range(5):
            location = begin(served)
            piece = {"Content-Range": f"0-{len(DATA) - 1}"}
            answers = send_at_once([partial(served.ask, "PATCH", location, DATA, piece)] * 4)
            assert sorted(answer.status for answer in answers) == [202, 416, 416, 416]
            assert {offset_of(answer) for answer in answers} == {len(DATA)}
            assert served.ask("PUT", f"{location}?digest={digest_of(DATA)}").status == 201


def test_requests_that_only_append_wait_for_each_other(home: Path, flags: list[str]) -> None:
    pieces = [bytes([65 + n]) * MIB for n in range(6)]
    with serve(home, *flags) as served:
        location = begin(served)
        answers = send_at_once([partial(served.ask, "PATCH", location, piece) for piece in pieces])
        assert [answer.status for answer in answers] == [202] * len(pieces)
        order = sorted(range(len(pieces)), key=lambda n: offset_of(answers[n]))
        whole = b"".join(pieces[n] for n in order)
        assert served.ask("PUT", f"{location}?digest={digest_of(whole)}").status == 201


def test_of_many_that_end_an_upload_at_once_one_does(home: Path, flags: list[str]) -> None:
    with serve(home, *flags) as served:
        repository = served.new_run()
        for _ in range(5):
            location = begin(served, repository)
            assert served.ask("PATCH", location, DATA).status == 202
            answers = send_at_once([partial(served.ask, "PUT", f"{location}?digest={digest_of(DATA)}")] * 4)
            assert sorted(answer.status for answer in answers) == [201, 404, 404, 404]
        assert served.ask("GET", f"/v2/{repository}/blobs/{digest_of(DATA)}").body == DATA
        assert len(served.list_blob_files()) == 1


def test_who_waits_for_an_upload_stops_nobody_else(home: Path) -> None:
    with serve(home, "--no-log-requests") as served:
        location, repository = begin(served), served.new_run()
        slow = served.connect(f"PATCH {location} HTTP/1.1\r\nContent-Length: {3 * MIB}", DATA[: 2 * MIB])
        with closing(slow), ThreadPoolExecutor(48) as pool:
            wait_for(lambda: _is_held(served, location))
            waiting = [pool.submit(served.ask, "PATCH", location, b"x") for _ in range(24)]
            asking = [pool.submit(served.ask, "GET", location) for _ in range(24)]
            time.sleep(0.5)
            start = time.monotonic()
            digest = served.upload(repository, DATA)
            assert served.ask("GET", f"/v2/{repository}/blobs/{digest}").body == DATA
            assert time.monotonic() - start < 3, "others waited for one upload"
            slow.sendall(DATA[2 * MIB : 3 * MIB])
            assert {future.result().status for future in waiting} == {202}
            assert {future.result().status for future in asking} == {204}
        assert offset_of(served.ask("GET", location)) == 3 * MIB + 24


def _is_held(served: Served, location: str) -> bool:
    """Answer whether a request is sending: a question then waits until nobody is, or for its own time."""
    start = time.monotonic()
    served.ask("GET", location)
    return time.monotonic() - start > 1


def test_an_upload_that_is_cancelled_while_bytes_come_leaves_nothing(home: Path) -> None:
    with serve(home, "--no-log-requests") as served:
        location = begin(served)
        with closing(
            served.connect(
                f"PATCH {location} HTTP/1.1\r\nConnection: close\r\nContent-Length: {4 * MIB}", DATA[: 3 * MIB]
            )
        ) as link:
            wait_for(lambda: served.list_blob_files() != [])
            assert served.ask("DELETE", location).status == 204
            link.sendall(DATA[3 * MIB :])
            assert b" 404 " in read_answer(link).partition(b"\r\n")[0]
        assert served.ask("GET", location).status == 404
        assert served.list_blob_files() == []


def test_an_upload_may_not_grow_beyond_the_limit_and_what_it_has_stays(home: Path) -> None:
    with serve(home, "--no-log-requests", "--max-upload-bytes", str(2 * MIB)) as served:
        location = begin(served)
        assert served.ask("PATCH", location, DATA[:MIB]).status == 202
        refused = served.ask("PATCH", location, DATA[MIB : 3 * MIB])
        assert (refused.status, refused.json()["errors"][0]["code"]) == (413, "SIZE_INVALID")
        offset = offset_of(served.ask("GET", location))
        assert MIB <= offset <= 2 * MIB
        assert served.ask("PATCH", location, DATA[offset : 2 * MIB]).status == 202
        full = served.ask("PATCH", location, b"x")
        assert (full.status, offset_of(served.ask("GET", location))) == (413, 2 * MIB)
        assert served.ask("PUT", f"{location}?digest={digest_of(DATA[: 2 * MIB])}").status == 201


def test_a_server_that_is_killed_between_requests_loses_nothing(home: Path, flags: list[str]) -> None:
    with serve(home, *flags) as served:
        location = begin(served)
        assert served.ask("PATCH", location, DATA[:MIB]).status == 202
        assert served.ask("PUT", f"{location}?digest={digest_of(DATA)}").status == 400
        served.process.kill()
    with serve(home, *flags) as served:
        assert offset_of(served.ask("GET", location)) == MIB
        again = served.ask("PATCH", location, DATA, {"Content-Range": f"0-{len(DATA) - 1}"})
        assert (again.status, offset_of(again)) == (416, MIB)
        rest = DATA[MIB:]
        put = served.ask(
            "PUT", f"{location}?digest={digest_of(DATA)}", rest, {"Content-Range": f"{MIB}-{len(DATA) - 1}"}
        )
        assert put.status == 201
        assert served.ask("GET", put.headers["location"]).body == DATA


def test_memory_does_not_grow_with_what_is_sent(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    block, blocks, senders = random.Random(9).randbytes(8 * MIB), 16, 4
    digest = "sha256:" + hashlib.sha256(block * blocks).hexdigest()
    with serve(home, "--no-log-requests") as served:

        def send(_number: int) -> Answer:
            location = begin(served)
            head = f"PATCH {location} HTTP/1.1\r\nConnection: close\r\nContent-Length: {len(block) * blocks}"
            with closing(served.connect(head)) as link:
                for _ in range(blocks):
                    link.sendall(block)
                assert b" 202 " in read_answer(link).partition(b"\r\n")[0]
            return served.ask("PUT", f"{location}?digest={digest}")

        served.upload(served.new_run(), block)
        before = _resident_bytes(served)
        answers = send_at_once([partial(send, number) for number in range(senders)])
        grown = _peak_bytes(served) - before
    assert [answer.status for answer in answers] == [201] * senders
    with capsys.disabled():
        print(f"\n{senders} uploads of {len(block) * blocks // MIB} MiB at once: {grown / MIB:.0f} MiB more memory")

    assert grown < 96 * MIB


def _resident_bytes(served: Served) -> int:
    return _read_status(served, "VmRSS")


def _peak_bytes(served: Served) -> int:
    return _read_status(served, "VmHWM")


def _read_status(served: Served, field: str) -> int:
    lines = Path(f"/proc/{served.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(field))

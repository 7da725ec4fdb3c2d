"""A real server in a process of its own: starting, refusing, moving bytes, being cut off, stopped and killed."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import stat
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from tests.parts import skip_without
from tests.served import Served, digest_of, find_port, launch, read_answer, serve, wait_for

pytestmark = pytest.mark.processes

DATA = bytes(range(256)) * 4096 * 3  # 3 MiB
DIGEST = digest_of(DATA)


@pytest.fixture
def served(home: Path) -> Iterator[Served]:
    """Give a running server on an empty home."""
    with serve(home, "--log-format", "json") as running:
        yield running


def begin_upload(served: Served, repository: str, data: bytes, length: int | None = len(DATA)) -> socket.socket:
    """Open an upload of DATA and send `data` of it; `length` None sends it in chunks."""
    said = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    body = f"{len(data):x}\r\n".encode() + data + b"\r\n" if length is None else data
    return served.connect(f"POST /v2/{repository}/blobs/uploads/?digest={DIGEST} HTTP/1.1\r\n{said}", body)


# ── starting ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_server_says_that_it_is_ready_and_answers_in_one_process(home: Path) -> None:
    served = launch(home)
    try:
        line = served.wait_until_ready()
        health = served.ask("GET", "/health")

        assert line == f"Touchmark is ready at http://127.0.0.1:{served.port} (home {home})"
        assert health.status == 200
        assert health.json()["status"] == "ok"
        assert psutil.Process(served.process.pid).children(recursive=True) == []
    finally:
        assert served.stop() == 0
    assert [line for line in served.log if "Traceback" in line or "Warning" in line] == []


def test_whatever_the_server_writes_is_its_owners_alone(home: Path) -> None:
    folder = home / "new"
    with serve(folder) as served:
        served.upload(served.new_run(), DATA)
        modes = {path: stat.S_IMODE(path.lstat().st_mode) for path in [folder, *folder.rglob("*")]}

    assert [path for path, mode in modes.items() if mode & 0o077] == []
    assert all(mode == 0o700 for path, mode in modes.items() if path.is_dir())


def test_two_servers_may_start_on_one_new_home_at_the_same_moment(home: Path) -> None:
    started = [launch(home) for _ in range(2)]
    try:
        for served in started:
            served.wait_until_ready()
        assert started[0].ask("POST", "/api/v1/models", {"name": "net"}).status == 201
        assert started[1].ask("GET", "/api/v1/models/net").status == 200
        log = started[1].ask("GET", "/api/v1/events?after=-1").json()["items"]
        assert [event["kind"] for event in log] == ["registry.created", "model.created"]
    finally:
        for served in started:
            served.process.kill()
            served.wait()


def expect_refusal(home: Path, *flags: str, port: int | None = None) -> str:
    """Start a server that must not start, and return what it says."""
    served = launch(home, *flags, port=port)
    try:
        code = served.wait(30)
    finally:
        served.process.kill()
    said = "\n".join(served.log)
    assert code != 0
    assert "Traceback" not in said
    return said


def test_a_port_that_is_taken_is_named(home: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]

        assert f"127.0.0.1:{port} already" in expect_refusal(home, port=port)
    assert not home.joinpath("registry.db").exists()


def test_a_second_server_does_not_share_the_port_of_the_first(served: Served, tmp_path: Path) -> None:
    assert "already" in expect_refusal(tmp_path / "other", port=served.port)


def test_a_host_that_others_can_reach_is_refused_with_the_reason(home: Path) -> None:
    assert "loopback only" in expect_refusal(home, "--host", "0.0.0.0")


def test_a_home_that_cannot_be_is_refused_with_the_reason(home: Path) -> None:
    file = home / "file"
    file.write_text("")
    assert "cannot be a home" in expect_refusal(file)
    newer = home / "newer"
    newer.mkdir()
    (newer / "format").write_text("touchmark home 2\n")
    assert "touchmark home 2" in expect_refusal(newer)
    assert not (newer / "registry.db").exists()


@pytest.mark.parametrize("host", ["localhost", "::1"])
def test_every_name_of_this_machine_can_be_listened_on(home: Path, host: str) -> None:
    if host == "::1":
        with socket.socket(socket.AF_INET6) as probe:
            try:
                probe.bind((host, 0))
            except OSError:
                skip_without("an IPv6 loopback address")
    with serve(home, "--host", host) as served, closing(socket.create_connection((host, served.port), 10)) as link:
        name = f"[{host}]" if ":" in host else host
        link.sendall(f"GET /health HTTP/1.1\r\nHost: {name}:{served.port}\r\n\r\n".encode())

        assert link.recv(4096).startswith(b"HTTP/1.1 200 ")


# ── a Unix socket ────────────────────────────────────────────────────────────────────────────────────────────────


def ask_socket(path: Path) -> bytes:
    with closing(socket.socket(socket.AF_UNIX)) as link:
        link.settimeout(10)
        link.connect(str(path))
        link.sendall(b"GET /health HTTP/1.1\r\nHost: touchmark\r\nConnection: close\r\n\r\n")
        return read_answer(link)


def test_a_unix_socket_is_the_owners_alone_and_goes_with_the_server(home: Path) -> None:
    path = home / "s"
    with serve(home, "--uds", str(path)) as served:
        assert stat.S_IMODE(path.lstat().st_mode) == 0o600
        assert ask_socket(path).startswith(b"HTTP/1.1 200 ")
        assert served.stop() == 0
    assert not path.exists()


def test_a_socket_of_a_killed_server_is_replaced_and_nothing_else_is(home: Path) -> None:
    path = home / "s"
    with serve(home, "--uds", str(path)):
        assert "already" in expect_refusal(home, "--uds", str(path))  # alive: not taken away
        assert ask_socket(path).startswith(b"HTTP/1.1 200 ")
    assert path.exists()
    with serve(home, "--uds", str(path)):
        assert ask_socket(path).startswith(b"HTTP/1.1 200 ")
    file = home / "precious"
    file.write_text("text")
    assert "no socket" in expect_refusal(home, "--uds", str(file))
    assert file.read_text() == "text"
    assert "longer" in expect_refusal(home, "--uds", str(home / ("s" * 120)))


# ── stopping ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_an_upload_in_flight_ends_well_after_the_sign_to_stop(served: Served, sign: signal.Signals) -> None:
    repository = served.new_run()
    with (
        closing(served.connect("GET /v2/ HTTP/1.1")) as idle,
        closing(begin_upload(served, repository, DATA[:-9])) as link,
    ):
        assert idle.recv(4096)
        wait_for(lambda: len(served.list_blob_files()) == 1)
        served.process.send_signal(sign)
        time.sleep(0.3)
        link.sendall(DATA[-9:])

        assert read_answer(link).startswith(b"HTTP/1.1 201 ")
        assert served.wait() == 0
    with serve(served.home) as again:
        assert again.ask("GET", f"/v2/{repository}/blobs/{DIGEST}").body == DATA


def test_a_second_sign_does_not_wait_for_anybody(served: Served) -> None:
    with closing(begin_upload(served, served.new_run(), DATA[:9])):
        wait_for(lambda: len(served.list_blob_files()) == 1)
        served.process.terminate()
        time.sleep(0.3)
        assert served.process.poll() is None
        served.process.terminate()

        assert served.wait(5) == 1


def test_a_server_ends_with_its_parent(home: Path) -> None:
    with serve(home, "--exit-with-parent") as served:
        assert served.process.stdin is not None
        time.sleep(0.2)
        assert served.process.poll() is None
        served.process.stdin.close()

        assert served.wait(10) == 0


# ── bytes ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("length", [len(DATA), None], ids=["length", "chunked"])
def test_an_upload_that_is_cut_leaves_nothing(served: Served, length: int | None) -> None:
    repository = served.new_run()
    # in chunks even all the bytes do not count without the last, empty chunk
    link = begin_upload(served, repository, DATA[:-1] if length else DATA, length)
    wait_for(lambda: len(served.list_blob_files()) == 1)
    link.close()

    wait_for(lambda: served.list_blob_files() == [])
    assert served.ask("HEAD", f"/v2/{repository}/blobs/{DIGEST}").status == 404
    assert served.upload(repository, DATA) == DIGEST


def test_a_server_killed_during_an_upload_knows_nothing_of_it(served: Served) -> None:
    repository = served.new_run()
    kept = served.upload(repository, b"kept")
    with closing(begin_upload(served, repository, DATA[:-1])):
        wait_for(lambda: len(served.list_blob_files()) == 2)
        served.process.kill()
        served.wait()

    with closing(sqlite3.connect(served.home / "registry.db")) as database:
        assert database.execute("SELECT digest FROM blobs").fetchall() == [(kept,)]
        assert database.execute("SELECT digest FROM repository_blobs").fetchall() == [(kept,)]
    with serve(served.home) as again:
        assert again.ask("HEAD", f"/v2/{repository}/blobs/{DIGEST}").status == 404
        assert again.ask("GET", f"/v2/{repository}/blobs/{kept}").body == b"kept"
        assert again.upload(repository, DATA) == DIGEST
        assert again.ask("GET", f"/v2/{repository}/blobs/{DIGEST}").body == DATA


def test_wrong_bytes_are_refused_on_a_connection_that_goes_on(served: Served) -> None:
    repository = served.new_run()
    with closing(begin_upload(served, repository, DATA[::-1])) as link:
        assert link.recv(4096).startswith(b"HTTP/1.1 400 ")
        head = f"POST /v2/{repository}/blobs/uploads/?digest={DIGEST} HTTP/1.1\r\nContent-Length: {len(DATA)}"
        link.sendall(f"{head}\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode() + DATA)

        assert read_answer(link).startswith(b"HTTP/1.1 201 ")
    assert len(served.list_blob_files()) == 1


def test_who_asks_first_is_told_to_go_on_or_not_to_send_at_all(home: Path) -> None:
    with serve(home, "--max-upload-bytes", str(len(DATA))) as served:
        repository = served.new_run()
        head = f"POST /v2/{repository}/blobs/uploads/?digest={DIGEST} HTTP/1.1\r\nExpect: 100-continue"
        with closing(served.connect(f"{head}\r\nConnection: close\r\nContent-Length: {len(DATA)}")) as link:
            assert link.recv(4096) == b"HTTP/1.1 100 Continue\r\n\r\n"
            link.sendall(DATA)
            assert read_answer(link).startswith(b"HTTP/1.1 201 ")
        with closing(served.connect(f"{head}\r\nContent-Length: {len(DATA) + 1}")) as link:
            assert read_answer(link).startswith(b"HTTP/1.1 413 ")


def test_a_damaged_blob_never_arrives_whole(served: Served) -> None:
    repository = served.new_run()
    served.upload(repository, DATA)
    (file,) = served.list_blob_files()
    file.chmod(0o600)
    with file.open("r+b") as stored:
        stored.seek(100)
        stored.write(b"?")

    with closing(served.connect(f"GET /v2/{repository}/blobs/{DIGEST} HTTP/1.1\r\nConnection: close")) as link:
        head, _, body = read_answer(link).partition(b"\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 200 ")
    assert f"content-length: {len(DATA)}".encode() in head.lower()
    assert len(body) < len(DATA)
    wait_for(lambda: any("DigestMismatchError" in line for line in served.log))
    assert served.ask("GET", "/health").status == 200


def test_memory_does_not_grow_with_what_is_sent_and_fetched(served: Served) -> None:
    process = psutil.Process(served.process.pid)
    repository = served.new_run()
    big = os.urandom(1 << 20) * 192
    served.upload(repository, DATA)
    served.ask("GET", f"/v2/{repository}/blobs/{DIGEST}")
    before = process.memory_info().rss

    digest = served.upload(repository, big)
    after_upload = process.memory_info().rss
    assert served.ask("GET", f"/v2/{repository}/blobs/{digest}").body == big
    after_download = process.memory_info().rss

    assert after_upload - before < 48 << 20
    assert after_download - before < 48 << 20


def test_what_is_sent_to_nobody_is_not_read_to_its_end(served: Served) -> None:
    process = psutil.Process(served.process.pid)
    repository = served.new_run()
    digest = served.upload(repository, os.urandom(1 << 20) * 64)
    (file,) = served.list_blob_files()

    def is_open() -> bool:
        return any(found.path == str(file) for found in process.open_files())

    before = process.io_counters().read_chars
    links = [served.connect(f"GET /v2/{repository}/blobs/{digest} HTTP/1.1") for _ in range(4)]
    for link in links:
        assert link.recv(1000)
        link.close()
    wait_for(lambda: not is_open())

    assert process.io_counters().read_chars - before < 128 << 20  # of 256: what fits into the buffers on the way


def test_slow_uploads_do_not_keep_others_from_reading_and_writing(served: Served) -> None:
    repository = served.new_run()
    links = [begin_upload(served, repository, DATA[:1000]) for _ in range(40)]
    wait_for(lambda: len(served.list_blob_files()) == len(links))

    assert served.ask("POST", "/api/v1/models", {"name": "net"}).status == 201
    assert served.ask("GET", "/api/v1/models/net").status == 200
    assert served.upload(repository, b"quick")

    for link in links:
        link.close()
    wait_for(lambda: len(served.list_blob_files()) == 1)


# ── who may ask, and what is told ────────────────────────────────────────────────────────────────────────────────


def test_a_page_in_a_browser_reaches_nothing_under_another_name(served: Served) -> None:
    rebound = served.ask("GET", "/api/v1/models", headers={"Host": f"evil.example:{served.port}"})
    crossed = served.ask("POST", "/api/v1/models", {"name": "net"}, {"Origin": "http://evil.example"})

    assert (rebound.status, rebound.json()["code"]) == (403, "denied")
    assert (crossed.status, crossed.json()["code"]) == (403, "denied")
    assert served.ask("GET", "/api/v1/models/net").status == 404


@pytest.mark.parametrize("path", ["/", "/health"])
def test_who_asks_with_head_is_told_as_with_get_but_for_the_body(served: Served, path: str) -> None:
    asked, whole = served.ask("HEAD", path), served.ask("GET", path)

    assert (asked.status, asked.body) == (200, b"")
    assert {asked.headers["content-length"], whole.headers["content-length"]} == {str(len(whole.body))}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nope", 404),
        ("DELETE", "/health", 405),
        ("PUT", "/health", 405),
    ],
)
def test_what_is_not_there_is_a_problem_document(served: Served, method: str, path: str, status: int) -> None:
    answer = served.ask(method, path)

    assert (answer.status, answer.json()["status"], answer.json()["code"]) == (status, status, "route_not_found")
    assert answer.headers["content-type"] == "application/problem+json"
    assert ("allow" in answer.headers) == (status == 405)


def test_a_request_keeps_its_id_if_it_is_plain_and_gets_one_if_not(served: Served) -> None:
    def id_of(given: str | None) -> str:
        headers = {} if given is None else {"X-Request-Id": given}
        return served.ask("GET", "/api/v1/models", headers=headers).headers["x-request-id"]

    assert id_of("a.b_c-1") == "a.b_c-1"
    for given in (None, "", "a b", "x" * 65, '"', "\xe9"):
        found = id_of(given)
        assert found != given
        assert len(found) == 16


def test_the_log_has_one_line_a_request_whatever_the_path_holds(served: Served) -> None:
    served.ask("GET", "/evil%0d%0aforged%1b%5b31m", headers={"X-Request-Id": "marked"})
    served.ask("GET", "/api/v1/models?prefix=secret", headers={"Authorization": "Bearer hidden"})
    wait_for(lambda: any('"/api/v1/models"' in line for line in served.log))

    entries = [json.loads(line) for line in served.log if line]
    (found,) = [entry for entry in entries if entry.get("request") == "marked"]
    assert (found["method"], found["path"], found["status"]) == ("GET", "/evil\r\nforged\x1b[31m", 404)
    assert found["seconds"] >= 0
    said = "\n".join(served.log)
    assert "\x1b" not in said
    assert "hidden" not in said
    assert "secret" not in said


def test_what_goes_wrong_inside_is_told_to_the_log_alone(served: Served) -> None:
    with closing(sqlite3.connect(served.home / "registry.db")) as database:
        database.execute("DROP TABLE models")
        database.commit()

    answer = served.ask("GET", "/api/v1/models/net", headers={"X-Request-Id": "marked"})
    wait_for(lambda: any("Traceback" in line for line in served.log))

    assert answer.status == 500
    assert answer.json()["request_id"] == "marked"
    assert b"Traceback" not in answer.body
    assert b"sqlite" not in answer.body
    (failure,) = [json.loads(line) for line in served.log if "Traceback" in line]
    assert failure["request"] == "marked"


def test_the_server_runs_as_a_module_and_says_how(tmp_path: Path) -> None:
    served = launch(tmp_path, "--help", port=find_port())

    assert served.wait() == 0
    assert served.log == []
    assert "--host" in "".join(iter(served.output.get, None))

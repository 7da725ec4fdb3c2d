"""What the SDK does when servers are slow, busy, gone or something else: sent again where that is safe, and only there."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

import touchmark
from tests.client.peer import Peer, Reply, Request, open_peer, to_problem
from touchmark import errors
from touchmark.client import _transport
from touchmark.client._transport import ATTEMPTS, Answer, LostError, Transport, to_error

BUSY = to_problem(503, "busy", "Busy: try again in a moment.")
PROXY_BUSY = Reply(503, b"<html>upstream is restarting</html>", {"Content-Type": "text/html"})
CUT = Reply(body=b'{"items": []}', cut=5)
HANG_UP = Reply(cut=-1)


def find_free_port() -> int:
    """Return a port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


# ── sending again ──


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
@pytest.mark.parametrize("first", [BUSY, PROXY_BUSY, Reply(429), Reply(502), Reply(504), CUT, HANG_UP])
def test_a_request_that_may_arrive_twice_is_sent_again(peer: Peer, method: str, first: Reply) -> None:
    peer.follow(first, Reply(body=b'{"done": true}'))

    answer = Transport(peer.url).request(method, "/x")

    assert answer.json() == {"done": True}
    assert len(peer.requests) == 2


@pytest.mark.parametrize("first", [PROXY_BUSY, CUT, HANG_UP, Reply(502)])
def test_a_post_without_a_key_that_may_have_arrived_is_not_sent_again(peer: Peer, first: Reply) -> None:
    peer.follow(first, Reply())

    with pytest.raises((errors.ServerUnreachableError, errors.BusyError)):
        Transport(peer.url).request("POST", "/x", body={"a": 1})

    assert len(peer.requests) == 1


def test_what_our_server_was_too_busy_for_changed_nothing_and_is_sent_again(peer: Peer) -> None:
    peer.follow(BUSY, Reply())

    Transport(peer.url).request("POST", "/x", body={"a": 1})

    assert len(peer.requests) == 2


@pytest.mark.parametrize("first", [CUT, HANG_UP, PROXY_BUSY])
def test_what_creates_carries_one_key_through_all_attempts(peer: Peer, first: Reply) -> None:
    model = {
        "name": "churn", "model_id": 1, "description": None, "owner": None, "contact": None, "created_at": 1,
        "created_by": "x", "updated_at": 1, "version_count": 0, "latest_version": None, "tags": {}, "aliases": {},
        "similar_names": [],
    }  # fmt: skip
    peer.follow(first, Reply(201, json.dumps(model).encode()))
    with touchmark.connect(peer.url) as registry:
        made = registry.create_model("churn")
        registry.create_model("other")

    assert made.name == "churn"
    keys = [request.headers["idempotency-key"] for request in peer.requests]
    assert keys[0] == keys[1] != keys[2]
    assert peer.requests[0].body == peer.requests[1].body


def test_a_delete_whose_answer_was_lost_has_deleted(peer: Peer) -> None:
    peer.follow(HANG_UP, to_problem(404, "model_not_found", "There is no such model.", name="churn"))
    with touchmark.connect(peer.url) as registry:
        registry.delete_model("churn")

        with pytest.raises(errors.ModelNotFoundError):  # the answer to a first attempt means what it says
            registry.delete_model("churn")


def test_a_conditional_move_whose_answer_was_lost_is_not_guessed_at(peer: Peer) -> None:
    peer.follow(HANG_UP, to_problem(412, "alias_moved", "It moved.", name="churn", alias="champion"))

    with touchmark.connect(peer.url) as registry, pytest.raises(errors.ServerUnreachableError):
        registry.set_alias("churn", "champion", 2, expected=17)

    assert [request.headers["if-match"] for request in peer.requests] == ['"17"']


def test_attempts_are_counted(peer: Peer) -> None:
    peer.follow(BUSY)

    with pytest.raises(errors.BusyError, match="Busy: try again"):
        Transport(peer.url).request("GET", "/x")

    assert len(peer.requests) == ATTEMPTS


def test_attempts_end_when_their_time_is_over(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_transport.Attempts.__init__, "__defaults__", (0.3,))
    peer.follow(Reply(503, b"{}", {"Retry-After": "30"}))
    start = time.monotonic()

    with pytest.raises(errors.BusyError):
        Transport(peer.url).request("GET", "/x")

    assert time.monotonic() - start < 15, "it waited for the 30 seconds the server asked for"


def test_the_pause_a_server_asks_for_is_kept(peer: Peer) -> None:
    peer.follow(Reply(503, b"{}", {"Retry-After": "1"}), Reply())
    start = time.monotonic()

    Transport(peer.url).request("GET", "/x")

    assert 1 <= time.monotonic() - start < 25


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_server_that_is_not_there_is_an_error_that_says_how_to_start_one(method: str) -> None:
    transport = Transport(f"http://127.0.0.1:{find_free_port()}")

    with pytest.raises(errors.ServerUnreachableError, match="touchmark serve") as caught:
        transport.request(method, "/x")

    assert "refused" in caught.value.message


def test_a_post_that_found_no_server_is_sent_once_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_transport, "PAUSE_SECONDS", 0.3)
    port = find_free_port()
    arrived: list[bytes] = []

    def listen_late() -> None:
        time.sleep(0.2)
        with socket.create_server(("127.0.0.1", port)) as server:
            connection, _address = server.accept()
            with connection:
                arrived.append(connection.recv(65536))
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")

    thread = threading.Thread(target=listen_late)
    thread.start()
    Transport(f"http://127.0.0.1:{port}").request("POST", "/x", body={})
    thread.join()

    assert len(arrived) == 1


def test_a_server_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_transport, "READ_SECONDS", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        transport = Transport(f"http://127.0.0.1:{silent.getsockname()[1]}")

        with pytest.raises(errors.ServerUnreachableError, match="too long"):
            transport.request("GET", "/x")


# ── connections ──


def test_requests_one_after_the_other_share_a_connection(peer: Peer) -> None:
    transport = Transport(peer.url)
    for _ in range(3):
        transport.request("GET", "/x")
    transport.close()

    assert len({request.client for request in peer.requests}) == 1


def test_a_connection_that_the_server_closed_meanwhile_is_noticed_before_a_request_is_lost_on_it() -> None:
    with open_peer(idle_seconds=0.05) as peer:
        transport = Transport(peer.url)
        transport.request("GET", "/x")
        (kept,) = transport._idle
        deadline = time.monotonic() + 5
        while _transport._is_quiet(kept.sock) and time.monotonic() < deadline:
            time.sleep(0.005)

        transport.request("POST", "/x", body={})  # not sent again: had it been lost, it would be an error
        transport.close()

    assert len({request.client for request in peer.requests}) == 2


def test_threads_do_not_share_a_connection_at_one_time(peer: Peer) -> None:
    def answer(request: Request) -> Reply:
        time.sleep(0.01)
        return Reply(body=json.dumps(request.path).encode())

    peer.answer = answer
    transport = Transport(peer.url)
    paths = [f"/{number}" for number in range(40)]

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda path: transport.request("GET", path).json(), paths))

    assert answers == paths
    assert 1 < len({request.client for request in peer.requests}) <= 8
    transport.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_makes_a_connection_of_its_own(peer: Peer) -> None:
    peer.answer = lambda request: Reply(body=json.dumps(request.path).encode())
    transport = Transport(peer.url)
    transport.request("GET", "/before")

    child = os.fork()
    if child == 0:
        right = transport.request("GET", "/child").json() == "/child"
        os._exit(0 if right else 1)
    assert transport.request("GET", "/parent").json() == "/parent"
    _pid, status = os.waitpid(child, 0)
    transport.close()

    assert os.waitstatus_to_exitcode(status) == 0
    clients = {request.path: request.client for request in peer.requests}
    assert clients["/before"] == clients["/parent"] != clients["/child"]


def test_an_answer_left_half_read_is_not_taken_for_the_next_one(peer: Peer) -> None:
    peer.follow(Reply(body=b"x" * 1_000_000), Reply(body=b'"second"'))
    transport = Transport(peer.url)
    with transport.open("GET", "/first") as response:
        response.read(10)

    assert transport.request("GET", "/second").json() == "second"
    transport.close()


def test_an_answer_read_piece_by_piece_that_breaks_off_is_lost(peer: Peer) -> None:
    peer.follow(Reply(body=b"x" * 100, cut=50))
    transport = Transport(peer.url)

    with transport.open("GET", "/x") as response, pytest.raises(LostError, match="50 bytes before its end"):
        while response.read(16):
            pass


def test_why_a_large_upload_was_refused_is_read_although_the_server_hung_up() -> None:
    refusal = b'{"code": "limit_exceeded", "detail": "One upload may be at most 9 bytes.", "fields": {}}'
    with socket.create_server(("127.0.0.1", 0)) as server:

        def refuse() -> None:
            connection, _address = server.accept()
            with connection, suppress(ConnectionResetError):  # the client may have hung up first
                connection.recv(1000)
                connection.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: %d\r\n\r\n%b" % (len(refusal), refusal))
                connection.shutdown(socket.SHUT_RDWR)
                while connection.recv(1 << 20):
                    pass

        thread = threading.Thread(target=refuse)
        thread.start()
        transport = Transport(f"http://127.0.0.1:{server.getsockname()[1]}")
        body = (b"x" * 65536 for _ in range(400))
        with transport.open("POST", "/x", body, {"Content-Length": str(65536 * 400)}) as response:
            answer = Answer(response.status, response.headers, response.read())
        thread.join()

    assert answer.status == 413
    assert not transport._idle, "a connection with half a request on it was kept"


# ── where to, and who asks ──


def test_a_redirect_is_not_followed_and_the_token_does_not_travel(peer: Peer) -> None:
    with open_peer() as elsewhere:
        peer.follow(Reply(302, b"", {"Location": f"{elsewhere.url}/x"}))
        with pytest.raises(errors.TouchmarkError, match="redirect"):
            Transport(peer.url, token="tmk_secret").request("GET", "/x")

        assert peer.requests[0].headers["authorization"] == "Bearer tmk_secret"
        assert elsewhere.requests == []


@pytest.mark.parametrize(
    "url",
    [
        "", "localhost:5000", "ftp://host", "http://", "http://host:port", "http://host:99999", "unix://relative/path",
        "unix:", "http://me:secret@host", "http://host/?a=1", "http://[::1", None,
    ],
)  # fmt: skip
def test_an_address_that_is_none_is_refused_without_showing_a_password(url: str) -> None:
    with pytest.raises(errors.InvalidFieldError) as caught:
        Transport(url)

    assert "secret" not in str(caught.value)


def test_a_path_in_the_address_stands_before_that_of_the_request(peer: Peer) -> None:
    Transport(f"{peer.url}/ml/registry/").request("GET", "/api/v1/log")

    assert peer.requests[0].path == "/ml/registry/api/v1/log"


def test_connect_takes_address_and_token_from_the_environment(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOUCHMARK_URL", peer.url)
    monkeypatch.setenv("TOUCHMARK_TOKEN", "tmk_1")
    peer.follow(Reply(body=b'{"size": 0}'))
    with touchmark.connect() as registry:
        registry.get_log_head()

    assert peer.requests[0].headers["authorization"] == "Bearer tmk_1"


def test_a_token_with_a_line_end_is_refused_without_being_shown(peer: Peer) -> None:
    with pytest.raises(errors.InvalidFieldError) as caught:
        touchmark.connect(peer.url, token="tmk_1\r\nX-Evil: 1")

    assert "tmk_1" not in str(caught.value)


def test_a_unix_socket_is_spoken_to(tmp_path: Path) -> None:
    path = tmp_path / "s o%c"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()

        def serve() -> None:
            connection, _address = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\ntrue")

        thread = threading.Thread(target=serve)
        thread.start()
        assert Transport(f"unix://{path}").request("GET", "/health").json() is True
        thread.join()


# ── errors ──


@pytest.mark.parametrize("cls", errors.list_error_classes())
def test_each_error_of_the_server_is_raised_as_its_own_class(cls: type[errors.TouchmarkError]) -> None:
    reply = to_problem(400, cls.code, "What the server says.", name="churn", version=3)

    error = to_error(Answer(400, {}, reply.body))

    assert type(error) is cls
    assert str(error) == "What the server says."
    assert error.fields == {"name": "churn", "version": 3}


def test_an_error_of_v2_is_raised_as_the_class_its_detail_names() -> None:
    detail = {"code": "blob_not_found", "fields": {"digest": "sha256:1"}}
    body = {"errors": [{"code": "BLOB_UNKNOWN", "message": "There is no blob.", "detail": detail}]}

    error = to_error(Answer(404, {}, json.dumps(body).encode()))

    assert type(error) is errors.BlobNotFoundError
    assert error.fields == {"digest": "sha256:1"}


@pytest.mark.parametrize(
    ("status", "cls"),
    [
        (400, errors.InvalidError), (401, errors.UnauthenticatedError), (403, errors.DeniedError),
        (404, errors.NotFoundError), (409, errors.ConflictError), (412, errors.PreconditionError),
        (429, errors.BusyError), (500, errors.TouchmarkError), (502, errors.BusyError), (507, errors.StorageFullError),
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "body",
    [
        b"", b"<html>", b"null", b"[]", b'"x"', b"{}", b'{"code": 7, "detail": [], "fields": "x"}', b'{"errors": []}',
        b'{"errors": [{"detail": "x"}]}', b"\xff\xfe", b"[" * 100_000, b'{"code": "of_a_later_release", "fields": [1]}',
    ],
)  # fmt: skip
def test_an_answer_of_something_else_becomes_an_error_by_its_status(
    status: int, cls: type[errors.TouchmarkError], body: bytes
) -> None:
    assert type(to_error(Answer(status, {}, body))) is cls


@pytest.mark.parametrize("body", [b'{"detail": "Not Found"}', b'{"errors": [{"message": "Not Found"}]}'])
def test_an_error_without_a_code_is_not_ours_and_its_words_are_told_as_anothers(body: bytes) -> None:
    error = to_error(Answer(404, {}, body))

    assert str(error).startswith("It was not Touchmark that answered (404, 'Not Found'): ")


@pytest.mark.parametrize(
    "body", [b"{}", b'{"ok": 1}', b"[]", b'"up"', b"null", b"", b'{"items": [{"id": 7}]}', b'{"items": ["x"]}']
)
@pytest.mark.parametrize(
    "ask",
    [
        lambda registry: registry.get_model("net"), lambda registry: list(registry.list_models()),
        lambda registry: registry.resolve("net/1"), lambda registry: list(registry.list_versions("net")),
        lambda registry: registry.register_model("models:/net/1", "net"), lambda registry: registry.create_model("net"),
        lambda registry: registry.set_alias("net", "a", 1), lambda registry: registry.diff("net/1", "net/2"),
        lambda registry: registry.lineage("net/1"), lambda registry: registry.get_log_head(),
        lambda registry: registry.start_run(), lambda registry: registry.pull("net/1"), lambda registry: registry.get_run("r"),
    ],
)  # fmt: skip
def test_an_answer_that_is_none_of_ours_is_told_as_such(
    peer: Peer, body: bytes, ask: Callable[[touchmark.Registry], object]
) -> None:
    peer.follow(Reply(body=body))

    with touchmark.connect(peer.url) as registry, pytest.raises(errors.ServerUnreachableError, match="is no Touchmark"):
        ask(registry)


@pytest.mark.parametrize("body", [b"<html>", b"\xff\xfe", b"\x1f\x8b\x08", b"[" * 100_000, b"{"])
def test_a_page_where_json_should_be_says_that_nobody_we_know_is_there(peer: Peer, body: bytes) -> None:
    peer.follow(Reply(body=body))

    with touchmark.connect(peer.url) as registry, pytest.raises(errors.ServerUnreachableError, match="no Touchmark"):
        registry.resolve("churn/1")


def test_a_body_no_json_can_hold_is_refused_before_it_is_sent(peer: Peer) -> None:
    transport = Transport(peer.url)

    for body in ({"a": float("nan")}, {"a": object()}, {"a": "\ud800"}):
        with pytest.raises(errors.InvalidFieldError, match="JSON"):
            transport.request("POST", "/x", body=body)

    assert peer.requests == []

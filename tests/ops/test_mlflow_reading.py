"""Reading a server that misbehaves: what breaks off is fetched again, and nothing an answer says leads elsewhere."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from touchmark.artifacts.local import LocalBlobStore
from touchmark.domain.errors import (
    BusyError,
    DeniedError,
    InvalidError,
    InvalidFieldError,
    LimitExceededError,
    NotFoundError,
    UnauthenticatedError,
    UnsupportedError,
)
from touchmark.ops import mlflow_http
from touchmark.ops.mlflow_files import Places, ProxyPlace, fetch_files, parse_folder
from touchmark.ops.mlflow_http import API, ARTIFACTS, Credentials, MlflowHttp
from touchmark.ops.mlflow_reader import MlflowServer

Answer = tuple[int, dict[str, str], bytes]
ID = "m-" + "0" * 32


class Server(ThreadingHTTPServer):
    """A real HTTP server whose answers a test writes; it keeps what it was asked."""

    daemon_threads = True

    def __init__(self, answer: Callable[[str, dict[str, list[str]], int], Answer]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer, self.asked, self.headers = answer, Counter[str](), list[dict[str, str]]()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        server: Any = self.server
        parts = urlsplit(self.path)
        server.asked[parts.path] += 1
        server.headers.append(dict(self.headers))
        length = int(self.headers.get("Content-Length", 0))
        self.rfile.read(length)
        status, headers, body = server.answer(parts.path, parse_qs(parts.query), server.asked[parts.path])
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = "Content-Length" in headers  # a wrong one: what follows would be taken for the body

    do_POST = do_GET  # noqa: N815 - the name http.server asks for

    def log_message(self, *_words: object) -> None:
        """Say nothing."""


@contextmanager
def serving(answer: Callable[[str, dict[str, list[str]], int], Answer]) -> Iterator[Server]:
    with Server(answer) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("touchmark.ops.mlflow_http", "touchmark.ops.mlflow_files"):
        monkeypatch.setattr(f"{module}.PAUSE_SECONDS", 0.01)


def as_json(value: object, status: int = 200) -> Answer:
    return status, {"Content-Type": "application/json"}, json.dumps(value).encode()


@pytest.mark.parametrize(
    ("status", "error"),
    [(400, InvalidError), (401, UnauthenticatedError), (403, DeniedError), (404, NotFoundError), (405, InvalidError)],
)
def test_an_error_is_raised_at_once_with_the_sentence_of_the_server(status: int, error: type[Exception]) -> None:
    with serving(lambda *_: as_json({"error_code": "X", "message": "because of this"}, status)) as server:
        with MlflowHttp(server.url) as http, pytest.raises(error, match="because of this"):
            http.get("/x")
        assert server.asked["/x"] == 1


def test_a_search_that_meets_a_busy_server_is_sent_again_and_a_write_is_not() -> None:
    def answer(_path: str, _query: dict[str, list[str]], count: int) -> Answer:
        return as_json({"count": count}) if count > 2 else (503, {}, b"<html>busy</html>")

    with serving(answer) as server, MlflowHttp(server.url) as http:
        assert http.post("/search", {}, again=True) == {"count": 3}
        with pytest.raises(BusyError):
            http.post("/create", {})
        assert server.asked == {"/search": 3, "/create": 1}


def test_a_redirect_is_refused_and_credentials_go_nowhere_else() -> None:
    with serving(lambda *_: as_json({})) as other:
        with serving(lambda *_: (302, {"Location": other.url + "/elsewhere"}, b"")) as server:
            with MlflowHttp(server.url, Credentials(token="secret")) as http:
                with pytest.raises(InvalidFieldError, match="/elsewhere"):
                    http.get("/x")
                with pytest.raises(InvalidFieldError), http.stream("/x"):
                    pass
            assert {headers["Authorization"] for headers in server.headers} == {"Bearer secret"}
        assert other.headers == []


def test_a_name_and_password_in_the_address_are_sent_and_not_shown() -> None:
    with serving(lambda *_: as_json({})) as server:
        with MlflowHttp(server.url.replace("//", "//me:p%40ss@")) as http:
            http.get("/x")
            assert http.url == server.url
        assert server.headers[0]["Authorization"] == "Basic bWU6cEBzcw=="


@pytest.mark.parametrize("body", [b"<html>a login page</html>", b"[1, 2]", b'"text"', b"{", b"null"])
def test_what_is_no_mlflow_server_says_so(body: bytes) -> None:
    said = pytest.raises(BusyError, match="does not answer as an MLflow server")
    with serving(lambda *_: (200, {}, body)) as server, MlflowHttp(server.url) as http, said:
        http.get("/x")


@pytest.mark.parametrize(
    "url", ["ftp://host", "http://", "http://host:0", "http://host?x=1", "http://host:port", "host", "http://ünï"]
)
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(InvalidFieldError):
        MlflowHttp(url)


def test_answers_of_wrong_types_read_as_absent() -> None:
    runs = [
        {"info": {"run_id": "r", "start_time": "12", "end_time": True, "status": 7}, "data": "no"}, "text", None,
        {"info": [], "data": {"metrics": [{"key": "k", "value": "NaN"}, {"key": "b", "value": "x"}, 3]}},
    ]  # fmt: skip
    with serving(lambda *_: as_json({"runs": runs, "next_page_token": 0})) as server, MlflowHttp(server.url) as http:
        first, second = MlflowServer(http).list_runs("0")

    assert (first.run_id, first.started_at, first.params, first.artifact_uri) == ("r", 12_000, {}, "")
    assert list(second.latest) == ["k"]


@pytest.mark.parametrize("number", ["--5", "-", "²", "9" * 5_000, 10**30, True, 1.5, None])
def test_a_number_that_is_none_reads_as_absent(number: object) -> None:
    metrics = [{"key": "a", "value": 1.0, "timestamp": 7, "step": number}, {"key": "b", "value": 10**400}]
    runs = [{"info": {"run_id": "r", "start_time": number}, "data": {"metrics": metrics}}]
    files = [{"path": "file", "file_size": number}]
    answer = {"runs": runs, "files": files}
    with serving(lambda *_: as_json(answer)) as server, MlflowHttp(server.url) as http:
        (run,) = MlflowServer(http).list_runs("0")
        (file,) = ProxyPlace(http, "").list_files()

    assert run.started_at in {0, None}
    assert {key: metric.step for key, metric in run.latest.items()} == {"a": 0}
    assert file.size_bytes is None


# ── files ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_file_that_breaks_off_is_fetched_again_and_whole(tmp_path: Path) -> None:
    whole = bytes(range(256)) * 9_000

    def answer(path: str, _query: dict[str, list[str]], count: int) -> Answer:
        if path == ARTIFACTS:
            return as_json({"files": [{"path": "f", "is_dir": False, "file_size": len(whole)}]})
        return (200, {"Content-Length": str(len(whole))}, whole[:-7]) if count < 3 else (200, {}, whole)

    store = LocalBlobStore(tmp_path)
    with serving(answer) as server, MlflowHttp(server.url) as http:
        place = ProxyPlace(http, "root")
        (fetched,) = fetch_files(store, place, place.list_files())

    assert fetched.blob is not None
    assert fetched.blob.digest == "sha256:" + hashlib.sha256(whole).hexdigest()
    assert [each.digest for each in store.list_blobs()] == [fetched.blob.digest]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ((200, {}, b"short"), "5 bytes where 9"),
        ((404, {}, b""), "not there any more"),
        ((500, {}, b'{"message": "no bucket"}'), "no bucket"),
    ],
)
def test_a_file_that_is_not_as_it_was_said_is_reported_and_the_others_come(
    tmp_path: Path, answer: Answer, reason: str
) -> None:
    def respond(path: str, _query: dict[str, list[str]], _count: int) -> Answer:
        if path == ARTIFACTS:
            return as_json({"files": [{"path": name, "is_dir": False, "file_size": 9} for name in ("bad", "good")]})
        return answer if path.endswith("bad") else (200, {}, b"good file")

    store = LocalBlobStore(tmp_path)
    with serving(respond) as server, MlflowHttp(server.url) as http:
        place = ProxyPlace(http, "root")
        bad, good = fetch_files(store, place, place.list_files())

    assert bad.blob is None
    assert reason in str(bad.reason)
    assert good.blob is not None
    assert len(list(store.list_blobs())) == 1


def test_a_server_that_went_away_ends_the_fetching(tmp_path: Path) -> None:
    with serving(lambda *_: as_json({"files": [{"path": "f", "file_size": 1}]})) as server:
        http = MlflowHttp(server.url)
        place = ProxyPlace(http, "root")
        listed = place.list_files()
    http.close()

    with pytest.raises(BusyError, match="No answer"):
        list(fetch_files(LocalBlobStore(tmp_path), place, listed))


def test_a_listing_leads_nowhere_else_and_has_an_end() -> None:
    def answer(_path: str, query: dict[str, list[str]], _count: int) -> Answer:
        names = ["..", ".", "", "a/b", "/etc/passwd", 7, None]
        found: list[dict[str, Any]] = [{"path": name, "is_dir": True} for name in names]
        depth = query["path"][0].count("/")
        found += [{"path": "deeper", "is_dir": True}, {"path": f"file{depth}", "is_dir": False, "file_size": "3"}]
        return as_json({"files": found})

    with serving(answer) as server, MlflowHttp(server.url) as http:
        listed = ProxyPlace(http, "root").list_files()

    assert 10 < len(listed) < 100
    assert {part for file in listed for part in file.path.split("/")} == {
        "deeper",
        *(f"file{n}" for n in range(len(listed))),
    }


def test_a_listing_without_end_is_refused() -> None:
    files = [{"path": f"f{number}", "is_dir": False} for number in range(100_001)]
    refused = pytest.raises(LimitExceededError)
    with serving(lambda *_: as_json({"files": files})) as server, MlflowHttp(server.url) as http, refused:
        ProxyPlace(http, "root").list_files()


# ── from an address to a place ───────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def places(tmp_path: Path) -> Iterator[Places]:
    (tmp_path / "art" / "1").mkdir(parents=True)
    (tmp_path / "art" / "1" / "file").write_text("here")
    with serving(lambda *_: as_json({"files": []})) as server, MlflowHttp(server.url) as http:
        found = Places(http, [tmp_path / "art"])
        found.add_owner("run", "r1", "s3://bucket/1/r1/artifacts")
        found.add_owner("logged_model", ID, "mlflow-artifacts:/1/models/x/artifacts")
        yield found


@pytest.mark.parametrize(
    "address",
    [
        "s3://bucket/other", "gs://x/y", "dbfs:/x", "hdfs://host/x", "http://169.254.169.254/latest", "ftp://host/x", "",
        "https://elsewhere/api/2.0/mlflow-artifacts/artifacts/1", "mlflow-artifacts://elsewhere:80/1", "file:///etc",
        "/etc/passwd", "../../etc", "C:\\models", "s3://[bucket/x", "http://[", "mlflow-artifacts://[/1", "http://a\u2100b/x",
    ],
)  # fmt: skip
def test_an_address_elsewhere_is_out_of_reach_and_nobody_is_asked(places: Places, address: str) -> None:
    with pytest.raises(UnsupportedError, match="out of reach"):
        places.get_place(address)


@pytest.mark.parametrize(
    "address", ["runs:/unknown/model", f"models:/m-{'1' * 32}", "models:/never/3", "models:/x@alias"]
)
def test_what_names_something_unknown_says_so(places: Places, address: str) -> None:
    with pytest.raises(NotFoundError):
        places.get_place(address)


def test_addresses_are_followed_to_where_the_bytes_are(places: Places) -> None:
    places.versions["a", 1] = "models:/b/2"
    places.versions["b", 2] = f"models:/{ID}"
    places.versions["loop", 1] = "models:/loop/1"

    assert places.follow("runs:/r1/model") == "s3://bucket/1/r1/artifacts/model"
    assert places.follow("models:/a/1") == "mlflow-artifacts:/1/models/x/artifacts"
    assert places.find_owner("s3://bucket/1/r1/artifacts/deep/model/") == (("run", "r1"), "deep/model")
    assert places.find_owner("s3://bucket/1/r1/artifacts-of-another") is None
    with pytest.raises(NotFoundError):
        places.follow("models:/loop/1")


def test_a_folder_that_was_given_stands_for_the_proxy_and_for_relative_paths(places: Places, tmp_path: Path) -> None:
    for address in (
        "mlflow-artifacts:/1",
        "./art/1",
        "art/1",
        "1",
        (tmp_path / "art" / "1").as_uri(),
        str(tmp_path / "art" / "1"),
    ):
        assert [file.path for file in places.get_place(address).list_files()] == ["file"], address
    with pytest.raises(InvalidFieldError):
        parse_folder("s3://bucket")
    with pytest.raises(InvalidFieldError):
        parse_folder(str(tmp_path / "nowhere"))
    assert parse_folder("http://proxy") is None


def test_a_root_that_only_the_server_can_read_is_read_through_it() -> None:
    def answer(path: str, query: dict[str, list[str]], _count: int) -> Answer:
        if path == f"{API}/artifacts/list" and query.get("path") == ["model"]:
            return as_json({"files": [{"path": "model/f", "is_dir": False, "file_size": 5}]})
        if path == "/get-artifact" and query == {"run_id": ["r1"], "path": ["model/f"]}:
            return 200, {}, b"bytes"
        return as_json({}, 404)

    with serving(answer) as server, MlflowHttp(server.url) as http:
        found = Places(http)
        found.add_owner("run", "r1", "s3://bucket/1/r1/artifacts")
        place = found.get_place("runs:/r1/model")
        (file,) = place.list_files()
        with place.open_file(file.path) as chunks:
            assert b"".join(chunks) == b"bytes"
    assert mlflow_http.ATTEMPTS > 1

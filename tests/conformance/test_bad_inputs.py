"""Every line of bad_inputs.json against a real server: a clear refusal, at once, that tells nothing and changes nothing.

A line says what it tries (`about`, `what`), what is sent, and the status and code it is answered with. What is sent is
`ask` (method and target) with `headers`, and a body: `json` is written as JSON, `body` as UTF-8, `hex` as bytes. `raw` is
all of a request, byte for byte (Latin-1). A text may be a list of parts, `["x", 9]` among them being nine times x. In
every text `{run}` and the like stand for what `Stage` has made. `code` null: the HTTP layer refused it, without a body.
"""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.postgres import PostgresServer
from tests.served import Served, read_answer, serve

pytestmark = [pytest.mark.processes, pytest.mark.timeout(120)]

CASES: list[dict[str, Any]] = json.loads((Path(__file__).parent / "bad_inputs.json").read_text())
SECONDS = 1.0
"""In which each is answered. These machines stand still now and then, so that one that was late is asked again."""
ANSWER_BYTES = 16_000
"""What an answer may take, whatever was sent."""
LEAKS = re.compile(
    r"Traceback|File \"|\.py\b|site-packages|sqlite|SQLAlchemy|psycopg|SELECT|INSERT|object at 0x", re.IGNORECASE
)


@dataclass
class Stage:
    """A server with two models, a version each, an alias, a run and a cursor."""

    served: Served
    names: Mapping[str, str]

    def fill(self, text: str | list[Any]) -> str:
        """Return a text with its repetitions written out and its names put in."""
        parts = [text] if isinstance(text, str) else text
        whole = "".join(part if isinstance(part, str) else part[0] * part[1] for part in parts)
        for name, value in self.names.items() if "{" in whole[:2000] else ():
            whole = whole.replace("{" + name + "}", value)
        return whole

    def build(self, case: Mapping[str, Any]) -> bytes:
        """Return the bytes of a case's request."""
        if "raw" in case:
            return self.fill(case["raw"]).encode("latin-1")
        body = None
        if "json" in case:
            body = self.fill(json.dumps(case["json"])).encode()
        elif "body" in case:
            body = self.fill(case["body"]).encode()
        elif "hex" in case:
            body = bytes.fromhex(case["hex"])
        headers = {"Host": f"127.0.0.1:{self.served.port}"}
        if body is not None:
            headers |= {"Content-Type": "application/json", "Content-Length": str(len(body))}
        headers |= {name: self.fill(value) for name, value in case.get("headers", {}).items()}
        lines = [f"{self.fill(case['ask'])} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b"")

    def send(self, request: bytes) -> tuple[int, dict[str, str], bytes]:
        """Send bytes and return the status, headers and body of the first answer."""
        with closing(self.served.connect()) as link:
            with suppress(ConnectionError):  # it may answer before it has read everything, and hang up
                link.sendall(request)
            return read_first(link)

    def look(self) -> Any:
        """Return what no refused request may change."""
        paths = ("log", "models", "versions?include_deleted=true", "runs", "experiments", "runs/{run}/artifacts",
                 "runs/{run}", "models/risk/aliases")  # fmt: skip
        return [self.served.ask("GET", self.fill(f"/api/v1/{path}")).json() for path in paths]


def read_first(link: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """Read one answer, as long as its Content-Length says."""
    found = b""
    while b"\r\n\r\n" not in found:
        chunk = link.recv(1 << 16)
        assert chunk, f"no answer, only {found[:100]!r}"
        found += chunk
    head, _, body = found.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    length = int(headers.get("content-length", "0"))
    while len(body) < length:
        chunk = link.recv(1 << 16)
        assert chunk, "the answer broke off"
        body += chunk
    return int(first.split(" ")[1]), headers, body


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def stage(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Stage]:
    """Start a server on each database and make what the cases speak of."""
    with ExitStack() as stack:
        flags: list[str] = []
        if request.param == "postgres":
            server: PostgresServer = request.getfixturevalue("postgres_server")
            flags = ["--database", stack.enter_context(server.open_database())]
        served = stack.enter_context(serve(tmp_path_factory.mktemp("home"), *flags))
        names = {"port": str(served.port)}
        for name, prefix in (("risk", ""), ("other", "other_")):
            made = served.ask("POST", "/api/v1/logged-models", {"name": "net"}).json()["model_id"]
            blob = served.upload(f"logged-models/{made}", f"weights of {name}".encode())
            served.ask("PUT", f"/api/v1/logged-models/{made}/artifacts", {"files": {"model.bin": blob}})
            served.ask("POST", f"/api/v1/logged-models/{made}/finish", {"status": "READY"})
            source = {"source": f"models:/{made}"}
            version = served.ask("POST", f"/api/v1/models/{name}/versions", source).json()
            names |= {
                f"{prefix}logged_model": made,
                f"{prefix}blob": blob,
                f"{prefix}digest": version["digest"],
                f"{prefix}model_id": str(version["model_id"]),
            }
        served.ask("PUT", "/api/v1/models/risk/aliases/champion", {"version": 1})
        repository = served.new_run()
        names |= {"run": repository.partition("/")[2], "own": served.upload(repository, b"of this run")}
        names["cursor"] = served.ask("GET", "/api/v1/models?limit=1").json()["next_cursor"]
        names["cursor_short"] = names["cursor"][:-1]
        yield Stage(served, names)


def find_fault(stage: Stage, case: Mapping[str, Any]) -> str | None:
    """Send a case, and say what is wrong with its answer."""
    request = stage.build(case)
    for _ in range(3):
        start = time.monotonic()
        status, headers, body = stage.send(request)
        seconds = time.monotonic() - start
        if seconds < SECONDS:
            break
    else:
        return f"it takes {seconds:.1f} s"
    text = body.decode()
    if status != case["status"]:
        return f"{status} {text[:300]}"
    if case["code"] is None:
        return None if text == "" else f"a body: {text[:300]}"
    answer = json.loads(text)
    if "errors" in answer:  # OCI distribution-spec, "Error codes"
        (error,) = answer["errors"]
        sentence, code, whole = error["message"], error["detail"]["code"], error["code"].isupper()
    else:
        sentence, code = answer["detail"], answer["code"]
        whole = answer["type"] == f"urn:touchmark:error:{code}" and answer["status"] == status and bool(answer["title"])
        if headers["content-type"] != "application/problem+json":
            return f"content-type {headers['content-type']}"
    if code != case["code"]:
        return f"code {code}: {text[:300]}"
    if not whole or not sentence.endswith((".", "!")) or "set-cookie" in headers:
        return f"not whole: {text[:300]} {headers}"
    if len(body) > ANSWER_BYTES:
        return f"{len(body)} bytes"
    leak = LEAKS.search(text)
    if leak is not None or str(stage.served.home) in text:
        return f"it tells of the inside: {text[:500]}"
    return None


def test_every_bad_input_is_refused_clearly_and_at_once_and_leaves_nothing_behind(stage: Stage) -> None:
    assert len(CASES) > 150
    before = stage.look()
    wrong = []

    for case in CASES:
        try:
            fault = find_fault(stage, case)
        except Exception as error:  # noqa: BLE001 - one more line of the report
            fault = f"{type(error).__name__}: {error}"[:300]
        if fault is not None:
            wrong.append(f"{case['about']}: {case['what']}: {fault}")

    assert not wrong, "\n".join(wrong)
    assert stage.look() == before
    assert stage.served.process.poll() is None
    assert [line for line in stage.served.log if '"failure"' in line] == []


def test_no_bad_input_is_called_a_matter_of_time() -> None:
    assert [case["what"] for case in CASES if case["status"] >= 500] == []


def test_what_follows_a_body_is_a_request_of_its_own_and_what_is_inside_one_is_none(stage: Stage) -> None:
    host = f"Host: 127.0.0.1:{stage.served.port}\r\n"
    inside = f"DELETE /api/v1/models/risk HTTP/1.1\r\n{host}\r\n"
    last = f"GET /api/v1/health HTTP/1.1\r\n{host}Connection: close\r\n\r\n"
    with closing(stage.served.connect()) as link:
        link.sendall(
            f"GET /api/v1/models/none HTTP/1.1\r\n{host}Content-Length: {len(inside)}\r\n\r\n{inside}{last}".encode()
        )
        found = read_answer(link)

    assert re.findall(rb"HTTP/1\.1 (\d+)", found) == [b"404", b"200"]


def test_bodies_that_never_end_hold_nobody_up(stage: Stage) -> None:
    head = "POST /api/v1/models HTTP/1.1\r\nContent-Type: application/json"
    links = [stage.served.connect(f"{head}\r\nContent-Length: 100", b'{"name":') for _ in range(20)]
    links += [stage.served.connect(f"{head}\r\nTransfer-Encoding: chunked", b'8\r\n{"name":\r\n') for _ in range(20)]
    links += [stage.served.connect("GET /api/v1/models HTTP/1.1") for _ in range(20)]
    try:
        assert find_fault(stage, CASES[0]) is None
        assert stage.served.ask("PUT", "/api/v1/models/risk/aliases/champion", {"version": 1}).status == 200
    finally:
        for link in links:
            link.close()


def test_a_body_that_breaks_off_says_so_and_creates_nothing(stage: Stage) -> None:
    before = stage.look()
    with closing(stage.served.connect("POST /api/v1/models HTTP/1.1\r\nContent-Length: 100", b'{"name":"n"}')) as link:
        link.shutdown(socket.SHUT_WR)
        status, _, body = read_first(link)

    assert (status, json.loads(body)["code"]) == (400, "invalid_field")
    assert stage.look() == before

"""Bad input gets a clear 4xx that says what to change: one table, on both databases, and nothing is left behind.

Each line is a request and the status and code it is answered with; every answer is also held against openapi.json. The
log's size before and after shows that no refused request made an event.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.postgres import PostgresServer
from tests.protocols.native_door import Door, open_door
from touchmark.protocols.native.openapi import PATH

LONG = "x" * 300
HUGE = "x" * 100_001
RUN = "0" * 32
MODEL = "m-" + "0" * 32
NO_NAMES = ["", " ", " a", "a ", "a/b", "a:b", "a@b", ".", "..", "a\x00b", "a\nb", "a\u200bb", "e\u0301", LONG, MODEL]
NO_SOURCES = [
    "file:///etc/passwd", "file:/etc/passwd", "/etc/passwd", "../etc/passwd", "..%2f..%2fetc", "%2e%2e/etc", "C:\\x",
    "http://169.254.169.254/latest/meta-data", "https://example.org/model.bin", "s3://bucket/key", "dbfs:/x", "",
    "mlflow-artifacts:/x", "models:risk/1", "risk/1",
]  # fmt: skip
NO_REFERENCES = [
    "", "risk", "models:/risk", "models:/risk/", "models:/risk/0", "models:/risk/-1", "models:/risk/01",
    "models:/risk/1.0", "models:/risk/99999999999", "models:/risk/٣", "models:/risk@", "models:/risk@latest",
    "models:/risk@1", "models:/risk@sha256:abc", "models:/risk@a b", "models:/a:b/1", "models:/risk/1/../2",
    "models:/risk/1//x", "file:///etc/passwd", "../risk/1", "http://x/1", "runs:/abc/model", f"models:/{MODEL}",
    "models:/risk/1\x00", "x" * 4001,
]  # fmt: skip
NO_FILTERS = [
    "name", "name =", "name = risk", "name ~ 'a'", "nothing = 'a'", "name = 'a' AND", "(name = 'a'", "name = 'a';--",
    "tags. = 'a'", "name LIKE 'a\\'", "created_at > 'yesterday'", "version = 'a'", "metrics.auc > 'x'",
    "name = 'a\x00'",
]  # fmt: skip
NO_PATHS = [
    "../x", "a/../b", "/etc/passwd", "a//b", "a\\b", "C:/x", "./a", "a/.", "a\x00", "a\n", "a/", "", ".", "a ", "a.",
]  # fmt: skip
NO_TAG_KEYS = ["", " ", "a\nb", "x" * 251]
NO_CURSORS = ["x", "AAAA", "=" * 10, "x" * 2001]
NO_NUMBERS = ["0", "-1", "1.5", "abc", "", "1e3", " 1", "+1", "0x1", "9" * 30, "1001", "true", "null"]

Case = tuple[str, str, Any, int, str]


def list_cases() -> Iterator[Case]:
    """Yield method, path, body (bytes are sent as they are), status and code."""
    for name in NO_NAMES:
        yield "POST", "/models", {"name": name}, 400, "invalid_name"
        yield "POST", "/models/risk/rename", {"new_name": name}, 400, "invalid_name"
        if name not in {"", ".", "..", "a/b"}:  # as a part of a path those are other paths
            path = quote(name, safe="")
            yield "GET", f"/models/{path}", None, 400, "invalid_name"
            yield "PUT", f"/models/{path}/tags", {"tags": {"a": "b"}}, 400, "invalid_name"
            yield "POST", f"/models/{path}/versions", {"source": "models:/risk/1"}, 400, "invalid_name"
    for source in NO_SOURCES:
        yield "POST", "/models/risk/versions", {"source": source}, 400, "invalid_source"
    yield "POST", "/models/risk/versions", {"source": "models:/risk/1/MLmodel"}, 400, "invalid_source"
    yield "POST", "/models/risk/versions", {"source": "runs:/../x"}, 400, "invalid_reference"
    yield "POST", "/models/risk/versions", {"source": f"runs:/{RUN}/../../etc"}, 400, "invalid_reference"
    yield "POST", "/models/risk/versions", {"source": f"runs:/{RUN}/model"}, 404, "run_not_found"
    yield "POST", "/models/risk/versions", {"source": f"models:/{MODEL}"}, 404, "logged_model_not_found"
    yield "POST", "/models/risk/versions", {"source": "models:/none/1"}, 404, "model_not_found"
    yield "POST", "/models/risk/versions", {"source": "models:/risk/9"}, 404, "version_not_found"
    yield "POST", "/models/risk/versions", {"source": "models:/risk@none"}, 404, "alias_not_found"
    yield "POST", "/models/risk/versions", {"source": "models:/risk/1", "parents": ["x"]}, 400, "invalid_reference"
    yield (
        "POST", "/models/risk/versions", {"source": "models:/risk/1", "parents": ["risk/1"] * 101}, 400,
        "limit_exceeded",
    )  # fmt: skip
    for reference in NO_REFERENCES:
        ref = quote(reference, safe="")
        yield "GET", f"/resolve?ref={ref}", None, 400, "invalid_reference"
        yield "GET", f"/diff?left=models:/risk/1&right={ref}", None, 400, "invalid_reference"
        yield "GET", f"/lineage?ref={ref}", None, 400, "invalid_reference"
    for filter_text in NO_FILTERS:
        text = quote(filter_text, safe="")
        yield "GET", f"/versions?filter={text}", None, 400, "invalid_filter"
        yield "GET", f"/models?filter={text}", None, 400, "invalid_filter"
    yield "GET", f"/versions?filter={'x' * 10_001}", None, 400, "limit_exceeded"
    yield "GET", "/versions?order_by=alias", None, 400, "invalid_filter"
    yield "GET", "/models?order_by=name%20SIDEWAYS", None, 400, "invalid_filter"
    for cursor in NO_CURSORS:
        for path in ("/models", "/versions", "/models/risk/versions", "/experiments", "/runs"):
            yield "GET", f"{path}?cursor={quote(cursor)}", None, 400, "invalid_cursor"
    for number in NO_NUMBERS:
        code = "limit_exceeded" if number == "1001" else "invalid_field"
        for path in ("/models", "/versions", "/models/risk/versions", "/models/risk/history", "/events", "/runs"):
            yield "GET", f"{path}?limit={quote(number, safe='')}", None, 400, code
    for number in ("-1", "1.5", "abc", "", "9" * 30):
        yield "GET", f"/lineage?ref=risk/1&depth={number}", None, 400, "invalid_field"
    yield "GET", "/lineage?ref=risk/1&depth=21", None, 400, "limit_exceeded"
    for version in ("0", "-1", "01", "1.0", "one", "99999999999", "%D9%A3", "1%20", "latest", "%00"):
        yield "GET", f"/models/risk/versions/{version}", None, 400, "invalid_reference"
        yield "DELETE", f"/models/risk/versions/{version}", None, 400, "invalid_reference"
        yield "GET", f"/models/risk/versions/{version}/lineage", None, 400, "invalid_reference"
    for alias in ("latest", "Latest", "1", "v1", "-a", "a b", "a.b", "%00", "a%0A", "x" * 129, "%C3%A4"):
        for method, body in (("GET", None), ("PUT", {"version": 1}), ("DELETE", None)):
            yield method, f"/models/risk/aliases/{alias}", body, 400, "invalid_alias"
        yield "GET", f"/models/risk/history?alias={alias}", None, 400, "invalid_alias"
    for wrong in (0, -1, 2**31, 10**30):
        yield "PUT", "/models/risk/aliases/a", {"version": wrong}, 400, "invalid_reference"
    for wrong in ("1", 1.5, True, None, [1], {}):
        yield "PUT", "/models/risk/aliases/a", {"version": wrong}, 400, "invalid_field"
    yield "PUT", "/models/risk/aliases/a", {"version": 9}, 404, "version_not_found"
    yield "PUT", "/models/none/aliases/a", {"version": 1}, 404, "model_not_found"
    for as_of in ("yesterday", "2026-13-01", "2026-01-01T00:00:00", "2026-01-01T00:00:00+00:00", "", "9" * 30, "1.5"):
        yield "GET", f"/models/risk/aliases/a?as_of={as_of}", None, 400, "invalid_field"
    for key in NO_TAG_KEYS:
        for path in ("/models/risk", "/models/risk/versions/1"):
            yield "PUT", f"{path}/tags", {"tags": {key: "v"}}, 400, "invalid_tag"
            yield "DELETE", f"{path}/tags?key={quote(key)}", None, 400, "invalid_tag"
        yield "POST", "/models", {"name": "n", "tags": {key: "v"}}, 400, "invalid_tag"
        yield "POST", "/experiments", {"name": "n", "tags": {key: "v"}}, 400, "invalid_tag"
        yield "POST", "/runs", {"tags": {key: "v"}}, 400, "invalid_tag"
    yield "PUT", "/models/risk/tags", {"tags": {"a": "x\x00"}}, 400, "invalid_tag"
    yield "PUT", "/models/risk/tags", {"tags": {"a": HUGE}}, 400, "invalid_tag"
    yield "PUT", "/models/risk/tags", {"tags": {str(n): "" for n in range(1001)}}, 400, "limit_exceeded"
    for field, limit in (("description", HUGE), ("owner", HUGE), ("contact", HUGE)):
        yield "POST", "/models", {"name": "n", field: limit}, 400, "limit_exceeded"
        yield "PATCH", "/models/risk", {field: limit}, 400, "limit_exceeded"
        yield "PATCH", "/models/risk", {field: "a\x00"}, 400, "invalid_field"
    yield "PATCH", "/models/risk/versions/1", {}, 400, "invalid_field"
    yield "PATCH", "/models/risk/versions/1", {"description": HUGE}, 400, "limit_exceeded"
    yield "POST", "/models/risk/versions/1/deprecate", {"reason": " "}, 400, "invalid_field"
    yield "POST", "/models/risk/versions/1/deprecate", {"reason": "r", "replaced_by": "x"}, 400, "invalid_reference"
    yield "POST", "/models/risk/versions/1/deprecate", {"reason": "r", "replaced_by": "risk/1"}, 400, "invalid_field"
    for wrong in ("NaN", "nan ", "Infinity", "1", "", True, None, [], {}):
        yield "POST", "/models/risk/versions/1/evaluations", {"metrics": {"auc": wrong}}, 400, "invalid_field"
        yield "POST", f"/runs/{RUN}/log", {"metrics": [{"key": "a", "value": wrong}]}, 400, "invalid_field"
    yield "POST", "/models/risk/versions/1/evaluations", {"metrics": {}}, 400, "invalid_field"
    yield "POST", "/models/risk/versions/1/evaluations", {"metrics": {" ": 1}}, 400, "invalid_field"
    for text in (b'{"metrics":{"a":1e999}}', b'{"metrics":{"a":NaN}}', b'{"metrics":{"a":1' + b"0" * 400 + b"}}"):
        yield "POST", "/models/risk/versions/1/evaluations", text, 400, "invalid_field"
    for path_text in NO_PATHS:
        path = quote(path_text, safe="")
        yield "PUT", "/runs/RUN/artifacts", {"files": {path_text: "sha256:" + "0" * 64}}, 400, "invalid_path"
        yield "DELETE", f"/runs/RUN/artifacts?path={path}", None, 400, "invalid_path"
        if path_text:  # an empty path is the root of a listing
            yield "GET", f"/runs/RUN/artifacts?path={path}", None, 400, "invalid_path"
    yield "PUT", "/runs/RUN/artifacts", {"files": {"a": "sha256:xyz"}}, 400, "invalid_digest"
    yield "PUT", "/runs/RUN/artifacts", {"files": {"a": "sha256:" + "0" * 64}}, 404, "blob_not_found"
    yield "GET", "/runs/RUN/artifacts?recursive=yes", None, 400, "invalid_field"
    for run_id in ("a%20b", "..%2e", "%00", "x" * 65, "%C3%A4"):
        yield "GET", f"/runs/{run_id}", None, 400, "invalid_field"
        yield "PUT", f"/runs/{run_id}/artifacts", {"files": {}}, 400, "invalid_field"
    for model_id in ("m-1", "m-" + "A" * 32, "%00", "x"):
        yield "GET", f"/logged-models/{model_id}", None, 400, "invalid_field"
        yield "PUT", f"/logged-models/{model_id}/artifacts", {"files": {}}, 400, "invalid_field"
    yield "GET", f"/runs/{RUN}", None, 404, "run_not_found"
    yield "GET", f"/logged-models/{MODEL}", None, 404, "logged_model_not_found"
    yield "GET", "/runs?experiment=none", None, 404, "experiment_not_found"
    yield "POST", "/runs", {"experiment": 999}, 404, "experiment_not_found"
    yield "POST", "/runs", {"experiment": -1}, 400, "invalid_field"
    yield "POST", "/runs", {"experiment": 10**30}, 400, "invalid_field"
    yield "POST", "/runs", {"params": {"a": 1}}, 400, "invalid_field"
    yield "POST", "/runs", {"name": " "}, 400, "invalid_field"
    yield "PATCH", "/runs/RUN", {"status": "DONE"}, 400, "invalid_field"
    yield "PATCH", "/runs/RUN", {"ended_at": 2**63}, 400, "invalid_field"
    yield "PATCH", "/runs/RUN", {"ended_at": "now"}, 400, "invalid_field"
    yield "POST", "/runs/RUN/log", {"metrics": [{"key": "a", "value": 1, "step": 2**63}]}, 400, "invalid_field"
    yield "POST", "/runs/RUN/log", {"params": {str(n): "" for n in range(1001)}}, 400, "limit_exceeded"
    yield "POST", "/runs/RUN/datasets", {"datasets": [{"name": "n"}]}, 400, "invalid_field"
    yield "POST", "/runs/RUN/datasets", {"datasets": [{"name": "n", "digest": " "}]}, 400, "invalid_field"
    yield "POST", "/logged-models", {"name": "a/b"}, 400, "invalid_field"
    for index in ("-1", str(-(2**63)), "abc", "1.5", "%00", "9" * 30):
        code = (404, "event_not_found") if index[0] == "-" else (400, "invalid_field")
        yield "GET", f"/log/entries/{index}", None, *code
        yield "GET", f"/log/proof?index={index}", None, *code
    yield "GET", "/log/proof", None, 400, "invalid_field"
    yield "GET", "/log/proof?index=0&size=0", None, 400, "invalid_field"
    yield "GET", "/log/proof?index=0&size=999", None, 400, "invalid_field"
    yield "GET", "/log/consistency?first=0", None, 400, "invalid_field"
    yield "GET", "/events?after=x", None, 400, "invalid_field"
    yield "GET", "/events?model=a:b", None, 400, "invalid_name"
    yield "GET", "/events?model=none", None, 404, "model_not_found"
    yield "GET", "/resolve", None, 400, "invalid_field"
    yield "GET", "/resolve?ref=risk/1&ref=risk/1", None, 400, "invalid_field"
    yield "GET", "/resolve?REF=risk/1", None, 400, "invalid_field"
    yield "GET", "/resolve?ref=%ff", None, 400, "invalid_field"
    yield "GET", "/models?" + "&".join(f"a{n}=1" for n in range(60)), None, 400, "invalid_field"
    for path in ("/models/risk", "/log", "/health", "/models/risk/versions/1/files", "/models/risk/aliases"):
        yield "GET", f"{path}?unknown=1", None, 400, "invalid_field"
    for text in ("TRUE", "1", "", "yes", "null"):
        yield "GET", f"/versions?include_deleted={text}", None, 400, "invalid_field"
    for body in (
        b"", b"{", b"[]", b"null", b'"x"', b"1", b"{}x", b"\xff", b'{"name":"a","name":"b"}', b'{"name":"\\ud800"}',
        b'{"name":NaN}', b'{"name":1}', b'{"name":null}', b'{"name":["a"]}', b'{"name":"n","zzz":1}', b'{"Name":"n"}',
        b'{"name":"n","tags":[]}', b'{"name":"n","tags":{"a":1}}', b'{"name":"n","tags":{"a":null}}',
        b'{"name":"n","description":1}', b'{"name":"n","tags":null}', b'{"name":' + b"[" * 65 + b"]" * 65 + b"}",
        b"[" * 100_000,
    ):  # fmt: skip
        yield "POST", "/models", body, 400, "invalid_field"
    yield "POST", "/models", b'{"name":"' + b"x" * (4 << 20) + b'"}', 413, "limit_exceeded"


CASES = list(list_cases())


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def door(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """Give a server that holds one version, for the whole table, once on each database."""
    home: Path = tmp_path_factory.mktemp("home")
    if request.param == "sqlite":
        with open_door(home) as opened:
            opened.register("risk")
            yield opened
        return
    server: PostgresServer = request.getfixturevalue("postgres_server")
    with server.open_database() as url, open_door(home, url) as opened:
        opened.register("risk")
        yield opened


def test_every_line_of_the_table_is_answered_as_it_says_and_leaves_nothing_behind(door: Door) -> None:
    run_id = door.do("POST", "/runs", {})["run_id"]
    before = door.do("GET", "/log")
    runs = door.do("GET", "/runs")
    wrong = []

    for method, path, body, status, code in CASES:
        more = {} if body is None else {"content": body if isinstance(body, bytes) else json.dumps(body).encode()}
        try:
            response = door.ask(method, path.replace("/runs/RUN", f"/runs/{run_id}"), **more)
            said = response.json() if response.content else {}
            found = (response.status_code, said.get("code"))
            assert said["detail"]
        except Exception as error:  # noqa: BLE001 - a crash is one more line of the report
            found = (type(error).__name__, str(error)[:300])
        if found != (status, code):
            wrong.append(f"{method} {path[:120]} {str(body)[:80]}: {found}, not {(status, code)}")

    assert wrong == []
    assert door.do("GET", "/log") == before
    assert door.do("GET", "/runs") == runs
    assert [item["name"] for item in door.do("GET", "/models")["items"]] == ["risk"]


def test_a_refusal_says_what_to_change_as_a_problem_document(door: Door) -> None:
    response = door.ask("POST", "/models", {"name": "n", "tags": {"a": 1}}, headers={"X-Request-Id": "abc-1"})

    problem = response.json()
    assert response.headers["content-type"] == "application/problem+json"
    assert problem["type"] == "urn:touchmark:error:invalid_field"
    assert (problem["title"], problem["status"], problem["request_id"]) == ("Bad Request", 400, "abc-1")
    assert problem["fields"]["field"] == "tags[...]"
    assert problem["detail"] == "Invalid value for 'tags[...]': expected `str`, got `int`."


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"metrics": [{"key": "a", "value": 1}, {"key": "a"}]}, "metrics[1].value"),
        ({"metrics": [{"key": "a", "value": 1, "zzz": 2}]}, "metrics[0].zzz"),
        ({"zzz": 1}, "zzz"),
        ({"params": []}, "params"),
    ],
)
def test_the_field_that_is_wrong_is_named_by_its_path(door: Door, body: Any, field: str) -> None:
    answer = door.ask("POST", f"/runs/{RUN}/log", body).json()

    assert answer["fields"]["field"] == field


def test_a_key_that_cannot_be_one_is_refused(door: Door) -> None:
    for key in ("", "x" * 201):
        headers = {"Idempotency-Key": key}
        assert door.refuse("POST", "/models", {"name": "n"}, headers=headers) == (400, "invalid_field")


def test_an_address_nobody_knows_and_a_method_it_does_not_take_are_problems_too(door: Door) -> None:
    for path in ("/none", "/models/risk/none", "/models/risk/versions/1/none", "/log/entries", "/log/entries/1/2"):
        response = door.ask("GET", path)
        assert (response.status_code, response.json()["code"]) == (404, "route_not_found")
        assert response.headers["content-type"] == "application/problem+json"

    response = door.ask("POST", "/resolve", {})
    assert response.status_code == 405
    assert response.headers["content-type"] == "application/problem+json"


def test_a_path_says_which_methods_it_takes(door: Door) -> None:
    for path, methods in (("/models/risk", "DELETE, GET, HEAD, OPTIONS, PATCH"), ("/resolve", "GET, HEAD, OPTIONS")):
        for method, status in (("OPTIONS", 204), ("TRACE", 405)):
            response = door.send(method, f"/api/v1{path}")
            assert response.status_code == status
            assert ", ".join(sorted(response.headers["allow"].split(", "))) == methods


def test_head_is_get_without_the_body(door: Door) -> None:
    for path in ("/models/risk", "/resolve?ref=risk/1", "/log"):
        head, get = (
            door.send(method, f"/api/v1{path}", headers={"X-Request-Id": "same"}) for method in ("HEAD", "GET")
        )
        assert (head.status_code, head.headers, head.content) == (200, get.headers, b"")


def test_the_document_is_served_as_it_was_checked_in(door: Door) -> None:
    response = door.send("GET", "/api/v1/openapi.json")

    assert response.headers["content-type"] == "application/json"
    assert response.content == PATH.read_bytes()

"""Models, versions and aliases through /api/v1, on a real server's application with real bytes."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.protocols.native_door import FILES, Door, open_door
from touchmark.domain import ledger
from touchmark.storage.migrations import HEAD


@pytest.fixture
def door(home: Path) -> Iterator[Door]:
    """Give a server on an empty SQLite home."""
    with open_door(home) as opened:
        yield opened


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def either(request: pytest.FixtureRequest, home: Path) -> Iterator[Door]:
    """Give a server on an empty registry, once on each database."""
    url = None if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    with open_door(home, url) as opened:
        yield opened


NAMES = [
    "risk.churn",
    "two words",
    "100%",
    "a%25b",
    "a+b=c&d?e#f",
    "größe",
    "模型",
    "~!$'()*,;[]|\\^`{}<>\"",
    "%2e%2e",
    "v 1.0",
]


# ── models ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", NAMES)
def test_a_name_with_any_characters_is_decoded_exactly_once(door: Door, name: str) -> None:
    path = f"/models/{quote(name, safe='')}"

    door.register(name)
    door.do("PUT", f"{path}/aliases/champion", {"version": 1})

    assert door.do("GET", path)["name"] == name
    assert door.do("GET", f"{path}/versions/1")["name"] == name
    assert door.do("GET", f"{path}/aliases/champion")["name"] == name
    assert door.do("GET", f"/resolve?ref={quote(f'models:/{name}@champion', safe='')}")["name"] == name
    assert [item["name"] for item in door.do("GET", "/models")["items"]] == [name]


def test_a_slash_hidden_in_a_name_opens_no_other_path(door: Door) -> None:
    door.register("a")

    assert door.refuse("GET", "/models/a%2Fversions") == (404, "route_not_found")
    assert door.refuse("GET", "/models/a%2fversions%2f1") == (404, "route_not_found")
    assert door.refuse("DELETE", "/models/a%2Fversions/1") == (404, "route_not_found")
    assert door.do("GET", "/models/a")["version_count"] == 1


def test_a_path_that_is_no_utf8_is_refused(door: Door) -> None:
    assert door.refuse("GET", "/models/%ff%fe") == (400, "invalid_field")


def test_a_model_is_created_read_changed_renamed_and_deleted(either: Door) -> None:
    made = either.ask("POST", "/models", {"name": "risk", "description": "d", "owner": "ada", "tags": {"team": "x"}})
    assert made.status_code == 201
    model = made.json()
    assert (model["description"], model["owner"], model["contact"], model["tags"]) == ("d", "ada", None, {"team": "x"})
    assert (model["version_count"], model["latest_version"], model["aliases"]) == (0, None, {})

    changed = either.do("PATCH", "/models/risk", {"description": None, "contact": "c@d"})
    assert (changed["description"], changed["owner"], changed["contact"]) == (None, "ada", "c@d")

    either.register("risk")
    assert either.do("POST", "/models/risk/rename", {"new_name": "churn"})["name"] == "churn"
    assert either.do("GET", "/models/risk")["name"] == "churn"
    assert either.refuse("POST", "/models", {"name": "risk"}) == (409, "name_taken")
    assert either.do("GET", "/resolve?ref=models:/risk/1")["moved_to"] == "churn"

    assert either.do("DELETE", "/models/churn") is None
    assert either.refuse("GET", "/models/churn") == (404, "model_not_found")
    assert either.refuse("DELETE", "/models/churn") == (404, "model_not_found")


def test_a_second_model_of_the_name_is_refused(door: Door) -> None:
    door.do("POST", "/models", {"name": "risk"})

    assert door.refuse("POST", "/models", {"name": "risk"}) == (409, "model_exists")


def test_tags_of_models_and_versions_are_set_and_deleted(either: Door) -> None:
    either.register("risk")
    for path in ("/models/risk", "/models/risk/versions/1"):
        either.do("PUT", f"{path}/tags", {"tags": {"a": "1", "b": "2", "ключ %": "x"}})
        either.do("PUT", f"{path}/tags", {"tags": {"b": "3"}})
        assert either.do("GET", path)["tags"] == {"a": "1", "b": "3", "ключ %": "x"}

        either.do("DELETE", f"{path}/tags", params={"key": "ключ %"})
        assert either.do("GET", path)["tags"] == {"a": "1", "b": "3"}
        assert either.refuse("DELETE", f"{path}/tags?key=zz") == (404, "tag_not_found")


def test_a_repeated_request_with_the_same_key_has_one_effect_and_one_answer(either: Door) -> None:
    key = {"Idempotency-Key": "k-1"}
    source = f"models:/{either.log_model()}"

    first = either.do("POST", "/models", {"name": "risk"}, headers=key)
    assert either.do("POST", "/models", {"name": "risk"}, headers=key) == first
    assert either.refuse("POST", "/models", {"name": "other"}, headers=key) == (409, "idempotency_mismatch")

    key = {"Idempotency-Key": "k-2"}
    made = [either.do("POST", "/models/risk/versions", {"source": source}, headers=key) for _ in range(3)]
    assert [version["version"] for version in made] == [1, 1, 1]
    assert either.refuse("POST", "/models/other/versions", {"source": source}, headers=key) == (
        409,
        "idempotency_mismatch",
    )

    key = {"Idempotency-Key": "k-3"}
    path = "/models/risk/versions/1/evaluations"
    made = [either.do("POST", path, {"metrics": {"auc": 0.9}}, headers=key) for _ in range(2)]
    assert made[0] == made[1]
    assert len(either.do("GET", path)["items"]) == 1


def test_models_are_searched_and_paged(either: Door) -> None:
    for number in range(5):
        either.do("POST", "/models", {"name": f"risk.{number}", "tags": {"n": str(number % 2)}})
    either.do("POST", "/models", {"name": "other"})

    page = either.do("GET", "/models?prefix=risk.&limit=2&order_by=name DESC")
    names = [item["name"] for item in page["items"]]
    while page["next_cursor"]:
        asked = {"prefix": "risk.", "limit": 2, "order_by": "name DESC", "cursor": page["next_cursor"]}
        page = either.do("GET", "/models", params=asked)
        names += [item["name"] for item in page["items"]]

    assert names == [f"risk.{number}" for number in (4, 3, 2, 1, 0)]
    found = either.do("GET", "/models", params={"filter": "tags.n = '1'"})["items"]
    assert [item["name"] for item in found] == ["risk.1", "risk.3"]
    assert [item["name"] for item in either.do("GET", "/models?words=oth")["items"]] == ["other"]


# ── versions ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_version_is_registered_read_and_listed_with_its_files(either: Door) -> None:
    made = either.register("risk", description="first", tags={"a": "b"}, run_link="https://ci/1")
    assert (made["version"], made["state"], made["sealed"], made["stage"]) == (1, "READY", True, "None")
    assert (made["description"], made["tags"], made["run_link"]) == ("first", {"a": "b"}, "https://ci/1")
    assert made["size_bytes"] == sum(map(len, FILES.values()))

    read = either.do("GET", "/models/risk/versions/1")
    assert isinstance(read["contents"], dict)
    assert {**read, "contents": None} == {**made, "contents": None}

    files = either.do("GET", "/models/risk/versions/1/files")
    assert files["digest"] == made["digest"]
    assert {file["path"]: file["digest"] for file in files["items"]} == {
        path: "sha256:" + hashlib.sha256(data).hexdigest() for path, data in FILES.items()
    }


def test_a_version_is_copied_between_models_and_remembers_its_parent(door: Door) -> None:
    door.register("risk")

    copy = door.do("POST", "/models/prod/versions", {"source": "models:/risk/1", "parents": ["models:/risk/1"]})

    assert (copy["name"], copy["version"], copy["parent"]) == ("prod", 1, "risk/1")
    graph = door.do("GET", "/models/prod/versions/1/lineage?depth=2")
    assert graph == door.do("GET", "/lineage?ref=models:/prod/1&depth=2")
    labels = {node["id"]: node["label"] for node in graph["nodes"]}
    assert labels[graph["root"]] == "prod/1"
    drawn = {(edge["relation"], labels[edge["from"]], labels[edge["to"]]) for edge in graph["edges"]}
    assert ("copy_of", "prod/1", "risk/1") in drawn
    assert {edge[key] for edge in graph["edges"] for key in ("from", "to")} <= labels.keys()


def test_a_deleted_version_is_gone_until_it_is_restored(either: Door) -> None:
    either.register("risk")
    either.do("DELETE", "/models/risk/versions/1")

    assert either.refuse("GET", "/models/risk/versions/1") == (404, "version_not_found")
    assert either.do("GET", "/models/risk/versions/1?include_deleted=true")["deleted_at"] is not None
    assert either.refuse("GET", "/resolve?ref=models:/risk/1") == (409, "version_deleted")
    assert either.do("GET", "/models/risk/versions")["items"] == []
    assert len(either.do("GET", "/models/risk/versions?include_deleted=true")["items"]) == 1

    assert either.do("POST", "/models/risk/versions/1/restore")["deleted_at"] is None
    assert either.refuse("POST", "/models/risk/versions/1/restore") == (409, "version_not_deleted")


def test_a_deprecated_version_resolves_with_a_warning(door: Door) -> None:
    door.register("risk")
    door.register("risk", {"model.bin": b"better"})

    made = door.do(
        "POST", "/models/risk/versions/1/deprecate", {"reason": "It drifts.", "replaced_by": "models:/risk/2"}
    )

    assert made["deprecation"]["reason"] == "It drifts."
    assert "It drifts." in door.do("GET", "/resolve?ref=models:/risk/1")["warning"]
    assert door.do("GET", "/models/risk")["latest_version"] == 2


def test_a_description_is_changed_and_emptied(door: Door) -> None:
    door.register("risk", description="old")

    assert door.do("PATCH", "/models/risk/versions/1", {"description": "new"})["description"] == "new"
    assert door.do("PATCH", "/models/risk/versions/1", {"description": None})["description"] is None


def test_metrics_that_are_no_json_numbers_travel_as_strings_both_ways(either: Door) -> None:
    either.register("risk")
    sent = {"auc": 0.1 + 0.2, "count": 3, "loss": "nan", "top": "inf", "low": "-inf", "tiny": 5e-324}

    made = either.do("POST", "/models/risk/versions/1/evaluations", {"metrics": sent, "dataset": "holdout"})

    assert made["metrics"] == {**sent, "count": 3.0}
    assert either.do("GET", "/models/risk/versions/1/evaluations")["items"] == [made]
    assert either.do("GET", "/models/risk/versions/1")["metrics"] == made["metrics"]


def test_what_a_reference_means_is_enough_to_pin_and_fetch(either: Door) -> None:
    made = either.register("risk")
    either.do("PUT", "/models/risk/aliases/champion", {"version": 1})
    references = ("models:/risk/1", "risk@champion", "models:/risk/latest", f"models:/risk@{made['digest']}")

    for reference in references:
        found = either.do("GET", "/resolve", params={"ref": reference})
        assert (found["reference"], found["version"], found["digest"]) == (reference, 1, made["digest"])
        assert (found["sealed"], found["size_bytes"], found["file_count"]) == (True, made["size_bytes"], 2)


def test_two_versions_are_compared(door: Door) -> None:
    door.register("risk", {"a": b"1", "b": b"2", "c": b"3"}, tags={"x": "1", "y": "1"})
    door.register("risk", {"a": b"1", "b": b"two", "d": b"4"}, tags={"x": "2", "z": "1"})
    door.do("POST", "/models/risk/versions/1/evaluations", {"metrics": {"auc": 0.5, "loss": "nan"}})
    door.do("POST", "/models/risk/versions/2/evaluations", {"metrics": {"auc": "inf"}})

    diff = door.do("GET", "/diff?left=models:/risk/1&right=models:/risk/2")

    assert (diff["left"], diff["right"], diff["same_bytes"]) == ("risk/1", "risk/2", False)
    assert [file["path"] for file in diff["files"]["added"]] == ["d"]
    assert [file["path"] for file in diff["files"]["removed"]] == ["c"]
    assert [file["path"] for file in diff["files"]["changed"]] == ["b"]
    assert diff["files"]["same_count"] == 1
    assert diff["tags"] == {"added": {"z": "1"}, "removed": {"y": "1"}, "changed": {"x": {"left": "1", "right": "2"}}}
    assert diff["metrics"]["changed"] == {"auc": {"left": 0.5, "right": "inf"}}
    assert diff["metrics"]["removed"] == {"loss": "nan"}


def test_versions_of_all_models_are_searched(either: Door) -> None:
    either.register("one", description="a churn model")
    either.register("two")
    either.do("POST", "/models/two/versions/1/evaluations", {"metrics": {"auc": 0.95}})

    found = either.do("GET", "/versions", params={"filter": "metrics.auc > 0.9"})["items"]
    assert [(item["name"], item["version"], item["contents"]) for item in found] == [("two", 1, None)]
    assert [item["name"] for item in either.do("GET", "/versions?words=churn")["items"]] == ["one"]
    page = either.do("GET", "/versions?limit=1&order_by=name")
    assert page["items"][0]["name"] == "one"
    rest = either.do("GET", "/versions", params={"limit": 1, "order_by": "name", "cursor": page["next_cursor"]})
    assert [item["name"] for item in rest["items"]] == ["two"]


# ── aliases ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_alias_moves_only_if_it_is_where_the_caller_saw_it(either: Door) -> None:
    for _ in range(2):
        either.register("risk")
    path = "/models/risk/aliases/champion"

    new = either.ask("PUT", path, {"version": 1}, headers={"If-None-Match": "*"})
    assert new.status_code == 200
    assert new.headers["etag"] == f'"{new.json()["log_index"]}"'
    assert either.ask("GET", path).headers["etag"] == new.headers["etag"]
    assert either.refuse("PUT", path, {"version": 2}, headers={"If-None-Match": "*"}) == (412, "alias_moved")

    moved = either.ask("PUT", path, {"version": 2}, headers={"If-Match": new.headers["etag"]})
    assert moved.headers["etag"] != new.headers["etag"]
    assert either.refuse("PUT", path, {"version": 1}, headers={"If-Match": new.headers["etag"]}) == (412, "alias_moved")
    assert either.refuse("DELETE", path, headers={"If-Match": new.headers["etag"]}) == (412, "alias_moved")
    assert either.do("DELETE", path, headers={"If-Match": moved.headers["etag"]}) is None
    assert either.refuse("GET", path) == (404, "alias_not_found")


def test_of_many_conditional_moves_at_once_exactly_one_is_made(either: Door) -> None:
    for _ in range(8):
        either.register("risk")
    etag = either.ask("PUT", "/models/risk/aliases/champion", {"version": 1}).headers["etag"]
    moves = [
        ("PUT", "/models/risk/aliases/champion", {"json": {"version": number}, "headers": {"If-Match": etag}})
        for number in range(2, 9)
    ]

    statuses = sorted(answer.status_code for answer in either.send_all(moves))

    assert statuses == [200] + [412] * 6


@pytest.mark.parametrize("value", ["1", 'W/"1"', '"1", "2"', "*", '""', '"x"', '"-1"'])
def test_a_condition_that_is_no_etag_is_refused(door: Door, value: str) -> None:
    door.register("risk")

    refused = door.refuse("PUT", "/models/risk/aliases/a", {"version": 1}, headers={"If-Match": value})

    assert refused == (400, "invalid_field")


def test_an_alias_is_read_as_of_an_instant_and_its_moves_newest_first(either: Door) -> None:
    for _ in range(3):
        either.register("risk")
    moved = [either.do("PUT", "/models/risk/aliases/champion", {"version": number}) for number in (1, 2, 3)]
    either.do("PUT", "/models/risk/aliases/other", {"version": 1})
    path = "/models/risk/aliases/champion"

    for alias in moved:
        assert either.do("GET", f"{path}?as_of={alias['moved_at']}")["version"] == alias["version"]
    assert either.refuse("GET", f"{path}?as_of={moved[0]['moved_at'] - 1}") == (404, "alias_not_found")
    assert either.refuse("GET", f"{path}?as_of=2001-01-01") == (404, "alias_not_found")
    assert either.do("GET", path, params={"as_of": "2999-01-01T00:00:00+01:00"})["version"] == 3

    first = either.do("GET", "/models/risk/history?alias=champion&limit=2")
    assert [(move["before"], move["after"]) for move in first["items"]] == [(2, 3), (1, 2)]
    rest = either.do("GET", f"/models/risk/history?alias=champion&limit=2&before={first['next_cursor']}")
    assert [(move["before"], move["after"]) for move in rest["items"]] == [(None, 1)]
    assert rest["next_cursor"] is None
    assert (
        either.do("GET", f"/models/risk/history?alias=champion&before={rest['items'][0]['log_index']}")["items"] == []
    )
    assert either.refuse("GET", "/models/risk/history?alias=never") == (404, "alias_not_found")
    assert len(either.do("GET", "/models/risk/history")["items"]) == 4
    assert [alias["alias"] for alias in either.do("GET", "/models/risk/aliases")["items"]] == ["champion", "other"]


# ── the log ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_log_is_read_and_proved_by_what_it_hands_out(either: Door) -> None:
    either.register("risk")
    either.do("PUT", "/models/risk/aliases/champion", {"version": 1})
    earlier = either.do("GET", "/log")
    either.do("DELETE", "/models/risk/aliases/champion")
    head = either.do("GET", "/log")
    root = bytes.fromhex(head["root"])

    events = either.do("GET", "/events")
    assert [event["index"] for event in events["items"]] == list(range(head["size"]))
    assert events["next_after"] == head["size"] - 1
    assert either.do("GET", f"/events?after={events['next_after']}") == {"items": [], "next_after": head["size"] - 1}
    kinds = [event["kind"] for event in either.do("GET", "/events?model=risk")["items"]]
    assert kinds == ["version.registered", "alias.set", "alias.deleted"]

    for index in range(head["size"]):
        entry = either.do("GET", f"/log/entries/{index}")
        leaf = ledger.hash_leaf(entry["leaf"].encode())
        assert leaf.hex() == entry["leaf_hash"]
        proof = either.do("GET", f"/log/proof?index={index}")
        assert ledger.verify_inclusion(index, proof["size"], leaf, [bytes.fromhex(h) for h in proof["hashes"]], root)

    grown = either.do("GET", f"/log/consistency?first={earlier['size']}&second={head['size']}")
    hashes = [bytes.fromhex(part) for part in grown["hashes"]]
    before = bytes.fromhex(earlier["root"])
    assert ledger.verify_consistency(earlier["size"], grown["second"], before, root, hashes)
    assert either.refuse("GET", f"/log/entries/{head['size']}") == (404, "event_not_found")
    assert either.refuse("GET", f"/log/proof?index={head['size']}") == (404, "event_not_found")


def test_health_says_version_and_schema(door: Door) -> None:
    assert door.do("GET", "/health") == {"status": "ok", "version": "0.1.0", "schema": HEAD}


def test_what_is_wrong_with_a_server_is_told_to_its_log_and_not_to_whoever_asks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with open_door(tmp_path / "secret-place") as door:
        shutil.rmtree(tmp_path / "secret-place" / "blobs")
        (tmp_path / "secret-place" / "blobs").write_text("no folder any more")
        native, plain = door.ask("GET", "/health"), door.send("GET", "/health")

    assert (native.status_code, native.json()["detail"]) == (
        503,
        "Not healthy: the database or the store of files does not work; the server's log says what is wrong.",
    )
    assert (plain.status_code, plain.json()) == (503, {"status": "unavailable"})
    said = [json.loads(line)["health"] for line in capsys.readouterr().err.splitlines() if '"health"' in line]
    assert len(said) == 2
    assert all("blobs" in line or "Not a directory" in line for line in said)

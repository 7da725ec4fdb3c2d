"""How a request of /api/v1 finds its operation, and when an answer is given again instead of being made again."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.protocols.native_door import Door, open_door
from touchmark.domain.access import Principal, PrincipalKind
from touchmark.ops.setup import open_registry
from touchmark.protocols.native import openapi
from touchmark.protocols.native.operations import PREFIX, Table
from touchmark.registry import Registry
from touchmark.services import aliases, models, registration, versions

TABLE = Table(openapi.OPERATIONS)
WHO = Principal(PrincipalKind.USER, "user-ada")
PATHS = ("/models/risk", "/models/risk/versions/1", "/resolve?ref=risk@champion", "/resolve?ref=risk/latest")


@pytest.fixture
def door(home: Path) -> Iterator[Door]:
    with open_door(home) as opened:
        yield opened


@pytest.mark.parametrize("value", ["risk", "{}", "a b", "é"])
def test_every_operation_is_found_by_its_path_with_what_stands_in_it(value: str) -> None:
    for operation in openapi.OPERATIONS:
        path = PREFIX + re.sub(r"\{\w+\}", lambda _: value, operation.path)
        found = TABLE.find(operation.method, path)

        assert found is not None, path
        assert found[1] == dict.fromkeys(operation.parts, value)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/models/"), ("GET", "/models//versions/1"), ("GET", "/none"), ("GET", "/models/a/versions/1/more"),
        ("GET", "//models"), ("GET", "/"), ("TRACE", "/models/risk"), ("OPTIONS", "/models/risk"), ("GET", "/models/a/rename"),
    ],
)  # fmt: skip
def test_what_is_no_operation_is_left_to_the_routes(method: str, path: str) -> None:
    assert TABLE.find(method, PREFIX + path) is None


def test_a_path_with_a_slash_too_many_means_the_same(door: Door) -> None:
    door.register("risk")

    for path in ("/models/risk/", "//models//risk", "/models/risk//versions/1/"):
        assert door.send("GET", f"/api/v1{path}").json() == door.do("GET", re.sub("/+", "/", path).rstrip("/"))


def test_an_answer_is_given_again_until_the_catalogue_changes_even_in_another_process(door: Door, home: Path) -> None:
    door.register("risk", tags={"team": "a"})
    door.register("risk", files={"other": b"1"})
    door.do("PUT", "/models/risk/aliases/champion", {"version": 1})
    other = open_registry(home)  # whoever else has the home open: the command line, a second worker

    changes: list[Callable[[Registry], Any]] = [
        lambda r: models.set_model_tags(r, WHO, "risk", {"team": "b"}),
        lambda r: versions.set_version_tags(r, WHO, "risk", 1, {"team": "b"}),
        lambda r: aliases.set_alias(r, WHO, "risk", "champion", 2),
        lambda r: versions.record_evaluation(r, WHO, "risk", 1, {"auc": 0.5}),
        lambda r: versions.deprecate_version(r, WHO, "risk", 2, reason="old"),
        lambda r: registration.register_version(r, WHO, "risk", "models:/risk/1"),
        lambda r: models.create_model(r, WHO, "Risk"),  # looks like it: said in `similar_names`
    ]
    seen = [door.do("GET", path) for path in PATHS]
    for change in changes:
        assert [door.do("GET", path) for path in PATHS] == seen
        change(other)
        now = [door.do("GET", path) for path in PATHS]
        assert now != seen, "the change is not seen"
        seen = now
    versions.delete_version(other, WHO, "risk", 1)
    assert door.refuse("GET", "/models/risk/versions/1") == (404, "version_not_found")
    models.delete_model(other, WHO, "risk")
    assert [door.refuse("GET", path)[0] for path in PATHS] == [404] * len(PATHS)
    other.close()


def test_kept_answers_are_no_way_around_the_rules_of_a_path(door: Door) -> None:
    door.register("risk")
    assert door.do("GET", "/models/risk/versions/1") == door.do("GET", "/models/risk/versions/1")

    assert door.send("GET", "/api/v1/models/risk%2Fversions/1").status_code == 404
    assert door.refuse("GET", "/models/risk/versions/1?none=1") == (400, "invalid_field")
    assert door.send("HEAD", "/api/v1/models/risk").content == b""
    assert door.do("GET", "/models/risk")["name"] == "risk"

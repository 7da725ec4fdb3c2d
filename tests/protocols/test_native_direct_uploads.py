"""Direct uploads through the native door of a server whose files are in a folder: refused, in the documented words."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.protocols.native_door import Door, open_door
from touchmark.domain.digest import digest_of

NEW = {"repository": "runs/none", "digest": digest_of(b"x"), "size_bytes": 1}
NONE = "/direct-uploads/" + "0" * 64


@pytest.fixture
def door(home: Path) -> Iterator[Door]:
    with open_door(home) as opened:
        yield opened


def test_a_server_without_the_setting_says_where_to_upload(door: Door) -> None:
    answer = door.ask("POST", "/direct-uploads", NEW)

    assert (answer.status_code, answer.json()["code"]) == (501, "unsupported")
    assert "upload on /v2" in answer.json()["detail"]


@pytest.mark.parametrize(
    "wrong", [{"digest": None}, {"size_bytes": "1"}, {"size_bytes": None}, {"repository": 5}, {"more": 1}]
)
def test_a_wrong_field_is_refused(door: Door, wrong: dict[str, Any]) -> None:
    assert door.refuse("POST", "/direct-uploads", NEW | wrong) == (400, "invalid_field")


@pytest.mark.parametrize(("method", "path"), [("GET", NONE), ("POST", NONE + "/finish"), ("DELETE", NONE)])
def test_an_upload_that_is_none_is_not_found(door: Door, method: str, path: str) -> None:
    assert door.refuse(method, path) == (404, "upload_not_found")
    assert door.refuse(method, path.replace("0" * 64, "..x")) == (404, "upload_not_found")


def test_a_session_and_an_upload_in_parts_are_no_direct_uploads(door: Door) -> None:
    run_id = door.do("POST", "/runs", {})["run_id"]
    session = door.send("POST", f"/v2/runs/{run_id}/blobs/uploads/").headers["docker-upload-uuid"]

    for method, path in (("GET", ""), ("POST", "/finish"), ("DELETE", "")):
        assert door.refuse(method, f"/direct-uploads/{session}{path}") == (404, "upload_not_found")
    assert door.send("GET", f"/v2/runs/{run_id}/blobs/uploads/{session}").status_code == 204

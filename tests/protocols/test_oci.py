"""/v2 as the OCI Distribution specification v1.1 has it, for what is spoken of it: the whole application, in process."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from tests.protocols.native_door import Door, open_door
from tests.served import digest_of
from touchmark.artifacts.manifests import CONFIG_BYTES, build_manifest
from touchmark.domain.digest import Digest
from touchmark.domain.versions import VersionFile
from touchmark.server.app import build_app
from touchmark.server.settings import Settings

DATA = bytes(range(256)) * 20
DIGEST = digest_of(DATA)
NOBODY = "sha256:" + "0" * 64


@pytest.fixture
def door(home: Path) -> Iterator[Door]:
    """Give a server on an empty SQLite home."""
    with open_door(home) as opened:
        yield opened


@pytest.fixture(params=["sqlite", "postgres"])
def anywhere(home: Path, request: pytest.FixtureRequest) -> Iterator[Door]:
    """Give a server that holds the model `net`, on each database."""
    url = request.getfixturevalue("postgres_url") if request.param == "postgres" else None
    with open_door(home, url) as opened:
        opened.register("net")
        yield opened


@pytest.fixture
def run(door: Door) -> str:
    """Give the repository of a run."""
    return f"runs/{door.do('POST', '/runs', {})['run_id']}"


@pytest.fixture
def blob(door: Door, run: str) -> str:
    """Give the path of a blob that is stored."""
    return f"/v2/{run}/blobs/{door.upload(run, DATA)}"


def code_of(response: httpx.Response) -> tuple[int, str, str]:
    """Return status, OCI's code and ours; the form of the body is checked on the way."""
    assert response.headers["content-type"] == "application/json"
    (error,) = response.json()["errors"]
    assert set(error) == {"code", "message", "detail"}
    assert error["detail"]["request_id"] == response.headers["x-request-id"]
    return response.status_code, error["code"], error["detail"]["code"]


def list_files(home: Path) -> list[Path]:
    return [path for path in (home / "blobs").rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/v2/foo", (404, "NAME_UNKNOWN", "route_not_found")),
        ("GET", "/v2/models/a/b/tags/list", (404, "NAME_UNKNOWN", "route_not_found")),
        ("POST", "/v2/models/net/tags/list", (405, "UNSUPPORTED", "unsupported")),
        ("PUT", "/v2/models/net/blobs/x", (405, "UNSUPPORTED", "unsupported")),
    ],
)
def test_what_is_not_there_is_told_in_the_specifications_form(
    door: Door, method: str, path: str, expected: tuple[int, str, str]
) -> None:
    assert code_of(door.send(method, path)) == expected


# ── uploads ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("path", ["/v2", "/v2/"])
def test_the_door_says_that_it_is_one(door: Door, path: str) -> None:
    response = door.send("GET", path)

    assert (response.status_code, response.json()) == (200, {})


def test_a_blob_sent_with_its_digest_is_stored_and_read_back(door: Door, run: str) -> None:
    response = door.send("POST", f"/v2/{run}/blobs/uploads/?digest={DIGEST}", content=DATA)

    assert (response.status_code, response.content) == (201, b"")
    assert response.headers["location"] == f"/v2/{run}/blobs/{DIGEST}"
    assert response.headers["docker-content-digest"] == DIGEST
    assert door.send("GET", response.headers["location"]).content == DATA


def test_a_blob_is_sent_to_the_address_that_was_given(door: Door, run: str) -> None:
    begun = door.send("POST", f"/v2/{run}/blobs/uploads/")
    stored = door.send("PUT", f"{begun.headers['location']}?digest={DIGEST}", content=DATA)

    assert begun.status_code == 202
    assert begun.headers["location"] == f"/v2/{run}/blobs/uploads/{begun.headers['docker-upload-uuid']}"
    assert (stored.status_code, stored.headers["location"]) == (201, f"/v2/{run}/blobs/{DIGEST}")
    assert door.send("GET", stored.headers["location"]).content == DATA


def test_an_upload_without_a_length_is_taken(door: Door, run: str) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(DATA), 1000):
            yield DATA[start : start + 1000]

    response = door.send("POST", f"/v2/{run}/blobs/uploads/?digest={DIGEST}", content=pieces())

    assert response.status_code == 201
    assert door.send("GET", f"/v2/{run}/blobs/{DIGEST}").content == DATA


def test_an_empty_blob_is_a_blob(door: Door, run: str) -> None:
    path = f"/v2/{run}/blobs/{door.upload(run, b'')}"

    assert door.send("GET", path).content == b""
    assert door.send("HEAD", path).headers["content-length"] == "0"
    assert door.send("GET", path, headers={"range": "bytes=0-0"}).status_code == 416


def test_bytes_that_are_not_what_the_digest_says_leave_nothing(door: Door, run: str, home: Path) -> None:
    response = door.send("POST", f"/v2/{run}/blobs/uploads/?digest={NOBODY}", content=DATA)

    assert code_of(response) == (400, "DIGEST_INVALID", "digest_mismatch")
    assert door.send("HEAD", f"/v2/{run}/blobs/{NOBODY}").status_code == 404
    assert door.send("HEAD", f"/v2/{run}/blobs/{DIGEST}").status_code == 404
    assert list_files(home) == []


@pytest.mark.parametrize("digest", ["sha256:ABC", "md5:" + "0" * 32, "sha512:" + "0" * 128, "", DIGEST.upper()])
def test_a_digest_of_another_form_is_refused(door: Door, run: str, digest: str) -> None:
    response = door.send("POST", f"/v2/{run}/blobs/uploads/?digest={digest}", content=DATA)

    assert code_of(response) == (400, "DIGEST_INVALID", "invalid_digest")


def test_the_end_of_an_upload_needs_a_digest(door: Door, run: str) -> None:
    begun = door.send("POST", f"/v2/{run}/blobs/uploads/")

    assert code_of(door.send("PUT", begun.headers["location"], content=DATA))[:2] == (400, "DIGEST_INVALID")


def test_an_upload_comes_in_pieces_and_says_how_far_it_is(anywhere: Door) -> None:
    location = anywhere.send("POST", "/v2/models/net/blobs/uploads/").headers["location"]
    offsets = []
    for start, end in ((0, 100), (100, 101), (101, 3000)):
        headers = {"content-range": f"{start}-{end - 1}"}
        response = anywhere.send("PATCH", location, content=DATA[start:end], headers=headers)
        offsets.append((response.status_code, response.headers["range"], response.headers["touchmark-upload-offset"]))
    asked = anywhere.send("GET", location)
    stored = anywhere.send("PUT", f"{location}?digest={DIGEST}", content=DATA[3000:])

    assert offsets == [(202, "0-99", "100"), (202, "0-100", "101"), (202, "0-2999", "3000")]
    assert (asked.status_code, asked.headers["location"], asked.headers["range"]) == (204, location, "0-2999")
    assert stored.status_code == 201
    assert anywhere.send("GET", stored.headers["location"]).content == DATA
    assert code_of(anywhere.send("GET", location))[:2] == (404, "BLOB_UPLOAD_UNKNOWN")
    assert code_of(anywhere.send("PATCH", location, content=b"more"))[:2] == (404, "BLOB_UPLOAD_UNKNOWN")


@pytest.mark.parametrize("begin", [0, 99, 101, 10**17])
def test_a_piece_that_does_not_begin_where_the_upload_ends_is_refused(door: Door, run: str, begin: int) -> None:
    location = door.send("POST", f"/v2/{run}/blobs/uploads/").headers["location"]
    door.send("PATCH", location, content=DATA[:100])
    refused = door.send("PATCH", location, content=b"x", headers={"content-range": f"{begin}-{begin}"})

    assert code_of(refused) == (416, "BLOB_UPLOAD_INVALID", "upload_offset_mismatch")
    assert refused.headers["range"] == "0-99"
    assert door.send("PATCH", location, content=DATA[100:]).status_code == 202
    assert door.send("PUT", f"{location}?digest={DIGEST}").status_code == 201


@pytest.mark.parametrize("said", ["", "5", "9-3", "0-", "a-b", "bytes */9", "-1-5", "0-" + "9" * 40])
def test_a_content_range_that_is_none_is_refused(door: Door, run: str, said: str) -> None:
    location = door.send("POST", f"/v2/{run}/blobs/uploads/").headers["location"]

    response = door.send("PATCH", location, content=b"x", headers={"content-range": said})
    assert code_of(response) == (400, "SIZE_INVALID", "invalid_field")


def test_a_wrong_digest_ends_no_upload(door: Door, run: str, home: Path) -> None:
    location = door.send("POST", f"/v2/{run}/blobs/uploads/").headers["location"]
    door.send("PATCH", location, content=DATA[:-1])

    assert code_of(door.send("PUT", f"{location}?digest={DIGEST}"))[:2] == (400, "DIGEST_INVALID")
    assert code_of(door.send("PUT", f"{location}?digest=sha256:x"))[:2] == (400, "DIGEST_INVALID")
    assert code_of(door.send("PUT", location))[:2] == (400, "DIGEST_INVALID")
    assert door.send("PUT", f"{location}?digest={DIGEST}", content=DATA[-1:]).status_code == 201
    assert len(list_files(home)) == 1


def test_an_upload_that_is_cancelled_leaves_nothing(door: Door, run: str, home: Path) -> None:
    location = door.send("POST", f"/v2/{run}/blobs/uploads/").headers["location"]
    door.send("PATCH", location, content=DATA)

    assert len(list_files(home)) == 1
    assert door.send("DELETE", location).status_code == 204
    assert list_files(home) == []
    assert code_of(door.send("DELETE", location))[:2] == (404, "BLOB_UPLOAD_UNKNOWN")


def test_an_upload_belongs_to_its_repository(door: Door, run: str) -> None:
    door.register("net")
    location = door.send("POST", f"/v2/{run}/blobs/uploads/").headers["location"]
    elsewhere = location.replace(run, "models/net")

    for method in ("PATCH", "GET", "PUT", "DELETE"):
        query = f"?digest={DIGEST}" if method == "PUT" else ""
        response = door.send(method, elsewhere + query, content=None if method == "GET" else DATA)
        assert code_of(response)[:2] == (404, "BLOB_UPLOAD_UNKNOWN"), method
    assert door.send("GET", location).headers["touchmark-upload-offset"] == "0"


@pytest.mark.parametrize("upload_id", ["x", "0" * 64, "00000000-0000-4000-8000-000000000000"])
def test_an_upload_that_never_began_is_unknown(door: Door, run: str, upload_id: str) -> None:
    response = door.send("PATCH", f"/v2/{run}/blobs/uploads/{upload_id}", content=DATA)

    assert code_of(response)[:2] == (404, "BLOB_UPLOAD_UNKNOWN")


def test_a_blob_is_mounted_from_where_it_can_be_read_and_no_byte_moves(anywhere: Door) -> None:
    run = f"runs/{anywhere.do('POST', '/runs', {})['run_id']}"
    anywhere.upload(run, DATA)
    mount = f"/v2/models/net/blobs/uploads/?mount={DIGEST}"

    stranger = f"runs/{anywhere.do('POST', '/runs', {})['run_id']}"  # the bytes are here, and it has no part in them
    assert anywhere.send("POST", f"{mount}&from={stranger}").status_code == 202
    assert anywhere.send("GET", f"/v2/models/net/blobs/{DIGEST}").status_code == 404
    mounted = anywhere.send("POST", f"{mount}&from={run}")
    assert (mounted.status_code, mounted.headers["location"]) == (201, f"/v2/models/net/blobs/{DIGEST}")
    assert anywhere.send("GET", mounted.headers["location"]).content == DATA
    for source in ("runs/" + "0" * 32, "nowhere", "models/other", ""):
        other = anywhere.send("POST", f"/v2/models/net/blobs/uploads/?mount={NOBODY}&from={source}")
        assert (other.status_code, "blobs/uploads/" in other.headers["location"]) == (202, True), source
    assert anywhere.send("POST", f"{mount}").status_code == 202


@pytest.mark.parametrize(
    "repository",
    ["runs/nope", "models/nope", "m/7", "m/x", "logged-models/m-" + "0" * 32, "logged-models/x", "other/thing"],
)
@pytest.mark.parametrize("upload", ["blobs/uploads/", f"blobs/uploads/?digest={DIGEST}"])
def test_nothing_is_taken_for_a_repository_that_is_not_there(
    door: Door, home: Path, repository: str, upload: str
) -> None:
    response = door.send("POST", f"/v2/{repository}/{upload}", content=DATA)

    assert code_of(response)[:2] == (404, "NAME_UNKNOWN")
    assert list_files(home) == []


@pytest.mark.parametrize("declared", [True, False])
def test_an_upload_above_the_limit_leaves_nothing(home: Path, declared: bool) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield DATA
        yield DATA

    with asyncio.Runner() as runner:
        door = Door(runner, build_app(Settings(home=home, log_requests=False, max_upload_bytes=len(DATA))))
        runner.run(door.start())
        run = f"runs/{door.do('POST', '/runs', {})['run_id']}"
        fits = door.send("POST", f"/v2/{run}/blobs/uploads/?digest={DIGEST}", content=DATA)
        before = list_files(home)
        body: Any = DATA + DATA if declared else pieces()
        response = door.send("POST", f"/v2/{run}/blobs/uploads/?digest={digest_of(DATA + DATA)}", content=body)
        runner.run(door.stop())

    assert fits.status_code == 201
    assert code_of(response) == (413, "SIZE_INVALID", "limit_exceeded")
    assert list_files(home) == before


# ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_blob_is_an_attachment_that_no_browser_runs(door: Door, blob: str, method: str) -> None:
    response = door.send(method, blob)

    assert response.status_code == 200
    assert response.headers["content-type"] == "application/octet-stream"
    assert response.headers["content-disposition"] == "attachment"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["content-length"] == str(len(DATA))
    assert response.headers["docker-content-digest"] == DIGEST
    assert response.headers["etag"] == f'"{DIGEST}"'
    assert response.headers["accept-ranges"] == "bytes"
    assert response.content == (DATA if method == "GET" else b"")


@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [
        ("bytes=0-0", 0, 0),
        ("bytes=10-19", 10, 19),
        ("bytes=5000-", 5000, len(DATA) - 1),
        ("bytes=5000-99999", 5000, len(DATA) - 1),
        ("bytes=-7", len(DATA) - 7, len(DATA) - 1),
        ("bytes=-99999", 0, len(DATA) - 1),
    ],
)
def test_a_range_is_that_range(door: Door, blob: str, asked: str, first: int, last: int) -> None:
    response = door.send("GET", blob, headers={"range": asked})

    assert response.status_code == 206
    assert response.headers["content-range"] == f"bytes {first}-{last}/{len(DATA)}"
    assert response.headers["content-length"] == str(last - first + 1)
    assert response.content == DATA[first : last + 1]


@pytest.mark.parametrize("asked", [f"bytes={len(DATA)}-", "bytes=99999-", "bytes=-0"])
def test_a_range_beyond_the_end_is_refused_with_the_size(door: Door, blob: str, asked: str) -> None:
    response = door.send("GET", blob, headers={"range": asked})

    assert (response.status_code, response.headers["content-range"]) == (416, f"bytes */{len(DATA)}")
    assert response.content == b""


@pytest.mark.parametrize("asked", ["bytes=0-1,5-6", "bytes=9-3", "bytes=", "bytes=a-b", "lines=0-1", "bytes=-", "-5"])
def test_what_is_no_single_range_is_ignored(door: Door, blob: str, asked: str) -> None:
    response = door.send("GET", blob, headers={"range": asked})

    assert (response.status_code, response.content) == (200, DATA)


def test_a_range_means_nothing_to_head_or_for_another_version(door: Door, blob: str) -> None:
    for method, headers in [("HEAD", {}), ("GET", {"if-range": '"other"'})]:
        response = door.send(method, blob, headers={"range": "bytes=0-1", **headers})
        assert (response.status_code, response.headers["content-length"]) == (200, str(len(DATA)))
    assert door.send("GET", blob, headers={"range": "bytes=0-1", "if-range": f'"{DIGEST}"'}).status_code == 206


@pytest.mark.parametrize(
    ("tags", "status"), [(f'"{DIGEST}"', 304), (f'"x", W/"{DIGEST}"', 304), ("*", 304), ('"x"', 200), (DIGEST, 200)]
)
def test_who_has_the_blob_is_not_sent_it_again(door: Door, blob: str, tags: str, status: int) -> None:
    response = door.send("GET", blob, headers={"if-none-match": tags})

    assert (response.status_code, response.content) == (status, DATA if status == 200 else b"")
    assert response.headers["etag"] == f'"{DIGEST}"'


def test_a_blob_of_one_repository_is_not_there_in_another(door: Door, blob: str) -> None:
    other = f"runs/{door.do('POST', '/runs', {})['run_id']}"

    for method in ("GET", "HEAD"):
        assert door.send(method, f"/v2/{other}/blobs/{DIGEST}").status_code == 404
    assert code_of(door.send("GET", f"/v2/{other}/blobs/{DIGEST}")) == (404, "BLOB_UNKNOWN", "blob_not_found")


def test_a_blob_nobody_sent_is_unknown(door: Door, run: str) -> None:
    assert code_of(door.send("GET", f"/v2/{run}/blobs/{NOBODY}"))[:2] == (404, "BLOB_UNKNOWN")
    assert code_of(door.send("GET", f"/v2/{run}/blobs/nonsense"))[:2] == (400, "DIGEST_INVALID")


@pytest.mark.parametrize(
    "repository",
    [
        "models/%00",
        "runs/%00",
        "runs/a%00",
        "models/%EF%BF%BD%00",
        "runs/%EF%BF%BD",
        "m/01",
        "m/%D9%A1",
        "m/-1",
    ],
)
def test_what_can_name_no_repository_is_unknown_on_every_database(anywhere: Door, repository: str) -> None:
    for path in (f"blobs/{DIGEST}", "manifests/1", f"manifests/{DIGEST}"):
        assert code_of(anywhere.send("GET", f"/v2/{repository}/{path}")) == (404, "NAME_UNKNOWN", "manifest_not_found")
    assert code_of(anywhere.send("POST", f"/v2/{repository}/blobs/uploads/"))[:2] == (404, "NAME_UNKNOWN")
    assert code_of(anywhere.send("GET", "/v2/models/net/manifests/sha256:%00"))[:2] == (404, "MANIFEST_UNKNOWN")


# ── manifests ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def model(door: Door) -> dict[str, Any]:
    """Give a registered model without versions."""
    made: dict[str, Any] = door.do("POST", "/models", {"name": "risk.churn"})
    return made


def push_files(door: Door, repository: str, *, config: bool = True) -> bytes:
    """Upload what a manifest names, and return the manifest."""
    door.upload(repository, DATA)
    if config:
        door.upload(repository, CONFIG_BYTES)
    return build_manifest([VersionFile("model.bin", len(DATA), Digest(DIGEST))]).bytes


def test_a_manifest_is_stored_under_its_digest_and_read_back_to_the_byte(door: Door, model: dict[str, Any]) -> None:
    repository = f"m/{model['model_id']}"
    content = push_files(door, repository)
    # a foreign spelling of the same manifest has another digest and is kept as it came
    spelled = json.dumps(json.loads(content), indent=2).encode()

    for data in (content, spelled):
        path = f"/v2/{repository}/manifests/{digest_of(data)}"
        put = door.send("PUT", path, content=data)
        found, head = door.send("GET", path), door.send("HEAD", path)
        assert (put.status_code, put.headers["location"]) == (201, path)
        assert (found.status_code, found.content) == (200, data)
        assert found.headers["content-type"] == "application/vnd.oci.image.manifest.v1+json"
        assert found.headers["x-content-type-options"] == "nosniff"
        assert found.headers["docker-content-digest"] == digest_of(data)
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-length"] == str(len(data))
        assert head.headers["content-type"] == found.headers["content-type"]


def test_a_model_is_one_repository_under_its_name_and_its_number(door: Door, model: dict[str, Any]) -> None:
    content = push_files(door, "models/risk.churn")

    put = door.send("PUT", f"/v2/m/{model['model_id']}/manifests/{digest_of(content)}", content=content)
    found = door.send("GET", f"/v2/models/risk.churn/manifests/{digest_of(content)}")

    assert (put.status_code, found.status_code) == (201, 200)


def test_a_version_is_found_by_number_and_by_alias_and_its_files_are_readable(door: Door) -> None:
    version = door.register("two words")
    door.do("PUT", "/models/two%20words/aliases/champion", {"version": 1})

    for reference in ("1", "champion", version["digest"]):
        found = door.send("GET", f"/v2/models/two%20words/manifests/{reference}")
        assert (found.status_code, found.headers["docker-content-digest"]) == (200, version["digest"])
    for layer in found.json()["layers"]:
        blob = door.send("GET", f"/v2/models/two%20words/blobs/{layer['digest']}")
        assert digest_of(blob.content) == layer["digest"]


@pytest.mark.parametrize("name", ["モデル", "Größe", "a b", "100%", "a%20b", "%2f", "a?b=c&d#e", "a<b>", 'a"b', "😀"])
def test_every_name_a_model_may_have_is_given_as_an_address_that_leads_back_to_it(door: Door, name: str) -> None:
    model_id = door.do("POST", "/models", {"name": name})["model_id"]
    begun = door.send("POST", f"/v2/models/{quote(name, safe='')}/blobs/uploads/")
    stored = door.send("PUT", f"{begun.headers['location']}?digest={DIGEST}", content=DATA)
    content = push_files(door, f"m/{model_id}")
    put = door.send("PUT", f"/v2/models/{quote(name, safe='')}/manifests/{digest_of(content)}", content=content)

    assert (begun.status_code, stored.status_code, put.status_code) == (202, 201, 201)
    assert door.send("GET", stored.headers["location"]).content == DATA
    assert door.send("GET", put.headers["location"]).content == content
    assert door.send("GET", f"/v2/m/{model_id}/blobs/{DIGEST}").content == DATA


@pytest.mark.parametrize("reference", ["2", "nope", NOBODY, "99999999999999999999", "no~tag"])
def test_a_manifest_that_is_not_there_is_unknown(door: Door, reference: str) -> None:
    door.register("net")

    assert code_of(door.send("GET", f"/v2/models/net/manifests/{reference}"))[:2] == (404, "MANIFEST_UNKNOWN")


def test_a_manifest_needs_every_blob_it_names(door: Door, model: dict[str, Any]) -> None:
    repository = f"m/{model['model_id']}"
    content = push_files(door, repository, config=False)
    path = f"/v2/{repository}/manifests/{digest_of(content)}"

    response = door.send("PUT", path, content=content)

    assert code_of(response)[:2] == (404, "MANIFEST_BLOB_UNKNOWN")
    assert code_of(door.send("GET", path))[:2] == (404, "MANIFEST_UNKNOWN")


def test_a_manifest_is_put_under_no_other_digest_and_no_number(door: Door, model: dict[str, Any]) -> None:
    content = push_files(door, f"m/{model['model_id']}")
    path = f"/v2/m/{model['model_id']}/manifests"

    assert code_of(door.send("PUT", f"{path}/{NOBODY}", content=content))[:2] == (400, "DIGEST_INVALID")
    assert code_of(door.send("PUT", f"{path}/1", content=content)) == (405, "UNSUPPORTED", "sealed")
    assert code_of(door.send("PUT", f"{path}/v1", content=content)) == (400, "UNSUPPORTED", "invalid_alias")
    assert code_of(door.send("GET", f"{path}/v1"))[:2] == (404, "MANIFEST_UNKNOWN")
    for what in (f"manifests/{digest_of(content)}", "manifests/champion", f"blobs/{DIGEST}"):
        refused = door.send("DELETE", f"/v2/m/{model['model_id']}/{what}")
        assert code_of(refused) == (405, "UNSUPPORTED", "sealed")


def test_a_push_by_alias_registers_a_version_once_and_moves_the_alias(anywhere: Door) -> None:
    model_id = anywhere.do("GET", "/models/net")["model_id"]
    content = push_files(anywhere, f"m/{model_id}")
    before = anywhere.do("GET", "/models/net")["version_count"]
    pushed = [
        anywhere.send("PUT", f"/v2/models/net/manifests/{tag}", content=content)
        for tag in ("champion", "champion", "challenger", "latest")
    ]

    assert [each.status_code for each in pushed] == [201] * 4
    assert {each.headers["touchmark-version"] for each in pushed} == {str(before + 1)}
    assert anywhere.do("GET", "/models/net")["aliases"] == {"challenger": before + 1, "champion": before + 1}
    for tag in ("champion", "latest", str(before + 1)):
        read = anywhere.send("GET", f"/v2/models/net/manifests/{tag}")
        assert (read.content, read.headers["docker-content-digest"]) == (content, digest_of(content))


def test_tags_are_aliases_and_numbers_in_pages(anywhere: Door) -> None:
    model_id = anywhere.do("GET", "/models/net")["model_id"]
    anywhere.send("PUT", "/v2/models/net/manifests/champion", content=push_files(anywhere, f"m/{model_id}"))
    tags: list[str] = []
    path = "/v2/models/net/tags/list?n=1"
    for _ in range(5):
        page = anywhere.send("GET", path)
        tags += page.json()["tags"]
        if "link" not in page.headers:
            break
        path = page.headers["link"].partition(">")[0].removeprefix("<")

    assert tags == anywhere.send("GET", "/v2/models/net/tags/list").json()["tags"] == ["1", "2", "champion"]
    assert anywhere.send("GET", "/v2/models/net/tags/list?n=0").json() == {"name": "models/net", "tags": []}
    assert code_of(anywhere.send("GET", "/v2/models/net/tags/list?n=x"))[:2] == (400, "SIZE_INVALID")
    assert code_of(anywhere.send("GET", "/v2/models/nope/tags/list"))[:2] == (404, "NAME_UNKNOWN")


def test_manifests_that_speak_of_another_are_listed(anywhere: Door) -> None:
    model_id = anywhere.do("GET", "/models/net")["model_id"]
    content = push_files(anywhere, f"m/{model_id}")
    subject = {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": NOBODY, "size": 1}
    signature = json.dumps({**json.loads(content), "subject": subject, "artifactType": "a/signature"}).encode()
    put = anywhere.send("PUT", f"/v2/models/net/manifests/{digest_of(signature)}", content=signature)
    listed = anywhere.send("GET", f"/v2/models/net/referrers/{NOBODY}")

    assert put.headers["oci-subject"] == NOBODY
    assert listed.headers["content-type"] == "application/vnd.oci.image.index.v1+json"
    assert [(each["digest"], each["artifactType"]) for each in listed.json()["manifests"]] == [
        (digest_of(signature), "a/signature")
    ]
    assert anywhere.send("GET", f"/v2/models/net/referrers/{NOBODY}?artifactType=b").json()["manifests"] == []
    assert anywhere.send("GET", f"/v2/models/net/referrers/{DIGEST}").json()["manifests"] == []


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"schemaVersion": 1}', b"\xff"])
def test_what_is_no_manifest_is_refused(door: Door, model: dict[str, Any], content: bytes) -> None:
    path = f"/v2/m/{model['model_id']}/manifests/{digest_of(content)}"

    assert code_of(door.send("PUT", path, content=content))[:2] == (400, "MANIFEST_INVALID")


def test_a_manifest_above_the_limit_is_too_large(door: Door, model: dict[str, Any]) -> None:
    content = b" " * (4 << 20) + b" "

    response = door.send("PUT", f"/v2/m/{model['model_id']}/manifests/{digest_of(content)}", content=content)

    assert code_of(response)[:2] == (413, "SIZE_INVALID")


def test_a_run_has_files_and_no_manifest(door: Door, run: str) -> None:
    content = push_files(door, run)

    put = door.send("PUT", f"/v2/{run}/manifests/{digest_of(content)}", content=content)
    got = door.send("GET", f"/v2/{run}/manifests/{digest_of(content)}")

    assert (put.status_code, got.status_code) == (404, 404)

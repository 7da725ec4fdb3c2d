"""MLflow's artifact proxy: what is sent over the wire, and the real client against a real server."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import resource
import sqlite3
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from tests.protocols.native_door import Door, open_door
from tests.served import Served, find_port, read_answer, serve, wait_for
from touchmark import wire
from touchmark.server.app import build_app
from touchmark.server.settings import Settings

MIB = 1 << 20
API = "/api/2.0/mlflow-artifacts"
PROXY = f"{API}/artifacts"
JSON = {"content-type": "application/json"}


@pytest.fixture
def door(home: Path) -> Iterator[Door]:
    """Give a server on an empty SQLite home."""
    with open_door(home) as opened:
        yield opened


@pytest.fixture(params=["sqlite", "postgres"])
def anywhere(home: Path, request: pytest.FixtureRequest) -> Iterator[Door]:
    """Give a server on each database."""
    url = request.getfixturevalue("postgres_url") if request.param == "postgres" else None
    with open_door(home, url) as opened:
        yield opened


def new_run(door: Door) -> str:
    run_id: str = door.do("POST", "/runs", {})["run_id"]
    return run_id


def new_model(door: Door) -> str:
    model_id: str = door.do("POST", "/logged-models", {"name": "net"})["model_id"]
    return model_id


@pytest.fixture
def run_id(door: Door) -> str:
    """Give a run."""
    return new_run(door)


@pytest.fixture
def root(run_id: str) -> str:
    """Give the place of a run's files below the proxy."""
    return f"0/{run_id}/artifacts"


def put(door: Door, place: str, data: bytes) -> None:
    response = door.send("PUT", f"{PROXY}/{place}", content=data)
    assert (response.status_code, response.content) == (200, b""), response.text


def ls(door: Door, place: str) -> Any:
    response = door.send("GET", PROXY, params={"path": place})
    assert response.status_code == 200, response.text
    return response.json()


def refusal(response: httpx.Response) -> tuple[int, str]:
    assert set(response.json()) == {"error_code", "message"}, response.text
    return response.status_code, response.json()["error_code"]


def seal(door: Door, run_id: str, name: str = "net", path: str = "m") -> str:
    """Register a folder of a run and return where its sealed files are below the proxy."""
    version = door.do("POST", f"/models/{name}/versions", {"source": f"runs:/{run_id}/{path}"})
    return f"sealed/{version['digest'].removeprefix('sha256:')}"


def list_files(home: Path) -> list[Path]:
    return [path for path in (home / "blobs").rglob("*") if path.is_file()]


# ── files in and out ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["run", "model"])
def test_a_file_is_put_read_listed_and_deleted(anywhere: Door, kind: str) -> None:
    place = f"0/{new_run(anywhere)}/artifacts" if kind == "run" else f"0/models/{new_model(anywhere)}/artifacts"
    data = os.urandom(3 * MIB + 1)
    put(anywhere, f"{place}/a/b.bin", data)
    put(anywhere, f"{place}/c d.txt", b"text")
    put(anywhere, f"{place}/empty", b"")

    found = anywhere.send("GET", f"{PROXY}/{place}/a/b.bin")

    assert (found.status_code, found.content) == (200, data)
    assert found.headers["content-length"] == str(len(data))
    assert ls(anywhere, place) == {
        "files": [
            {"path": "a", "is_dir": True},
            {"path": "c d.txt", "is_dir": False, "file_size": 4},
            {"path": "empty", "is_dir": False, "file_size": 0},
        ]
    }
    assert ls(anywhere, f"{place}/a/") == {"files": [{"path": "b.bin", "is_dir": False, "file_size": len(data)}]}
    for _ in range(2):
        deleted = anywhere.send("DELETE", f"{PROXY}/{place}/a")
        assert (deleted.status_code, deleted.json()) == (200, {})
    assert refusal(anywhere.send("GET", f"{PROXY}/{place}/a/b.bin")) == (404, "RESOURCE_DOES_NOT_EXIST")
    assert [file["path"] for file in ls(anywhere, place)["files"]] == ["c d.txt", "empty"]


def test_an_answer_to_put_has_no_body_and_no_type(door: Door, root: str) -> None:
    response = door.send("PUT", f"{PROXY}/{root}/x", content=b"x")

    assert response.headers["content-length"] == "0"
    assert "content-type" not in response.headers


def test_a_file_written_again_is_read_anew_at_once(door: Door, root: str) -> None:
    put(door, f"{root}/x", b"old")
    etag = door.send("GET", f"{PROXY}/{root}/x").headers["etag"]
    assert door.send("GET", f"{PROXY}/{root}/x", headers={"if-none-match": etag}).status_code == 304
    put(door, f"{root}/x", b"newer")

    found = door.send("GET", f"{PROXY}/{root}/x", headers={"if-none-match": etag})

    assert (found.status_code, found.content) == (200, b"newer")
    assert "no-cache" in found.headers["cache-control"]


def test_ranges_and_heads_are_answered_as_for_any_file(door: Door, root: str) -> None:
    put(door, f"{root}/x", b"0123456789")
    for asked, status, content in (("bytes=2-4", 206, b"234"), ("bytes=-1", 206, b"9"), ("bytes=10-", 416, b"")):
        part = door.send("GET", f"{PROXY}/{root}/x", headers={"range": asked})
        assert (part.status_code, part.content) == (status, content)
    head = door.send("HEAD", f"{PROXY}/{root}/x")
    assert (head.status_code, head.headers["content-length"], head.content) == (200, "10", b"")


@pytest.mark.parametrize("name", ["page.html", "image.svg", "naïve – 1.js"])
def test_a_download_never_runs_as_a_page(door: Door, root: str, run_id: str, name: str) -> None:
    put(door, f"{root}/{quote(name)}", b"<script>alert(1)</script>")
    query = {"run_id": run_id, "path": name}
    for found in (door.send("GET", f"{PROXY}/{root}/{quote(name)}"), door.send("GET", "/get-artifact", params=query)):
        assert found.status_code == 200
        assert found.headers["content-type"] == "application/octet-stream"
        assert found.headers["x-content-type-options"] == "nosniff"
        assert found.headers["content-disposition"] == f"attachment; filename*=UTF-8''{quote(name)}"


def test_a_listing_of_what_is_no_folder_is_empty(door: Door, root: str) -> None:
    put(door, f"{root}/x", b"x")
    nobody = root.replace(root.split("/")[1], "nobody")
    for place in (
        "",
        "zzz",
        f"{root}/x",
        f"{root}/none",
        nobody,
        root.replace("0/", "7/", 1),
        "0",
        "sealed",
        "sealed/x",
    ):
        assert ls(door, place) == {}, place
    assert door.send("GET", PROXY).json() == {}


def test_a_folder_cannot_be_downloaded(door: Door, root: str) -> None:
    put(door, f"{root}/a/b", b"x")
    assert refusal(door.send("GET", f"{PROXY}/{root}/a")) == (400, "INVALID_PARAMETER_VALUE")
    assert refusal(door.send("GET", f"{PROXY}/{root}")) == (404, "RESOURCE_DOES_NOT_EXIST")


def test_a_path_is_a_file_or_a_folder(door: Door, root: str) -> None:
    put(door, f"{root}/a/b", b"x")
    for path in ("a", "a/b/c"):
        response = door.send("PUT", f"{PROXY}/{root}/{path}", content=b"y" * 3 * MIB)
        assert refusal(response) == (400, "INVALID_PARAMETER_VALUE")


def test_the_experiment_in_the_address_must_be_the_owners(door: Door, root: str) -> None:
    put(door, f"{root}/x", b"x")
    wrong = root.replace("0/", "1/", 1)
    for method in ("PUT", "GET", "DELETE"):
        assert refusal(door.send(method, f"{PROXY}/{wrong}/x", content=b"y")) == (404, "RESOURCE_DOES_NOT_EXIST")
    assert door.send("GET", f"{PROXY}/{root}/x").content == b"x"


@pytest.mark.parametrize(
    "place", ["foo/bar", "x", "0", "0/run", "0/run/other/x", "0/models/m-1/artifacts/x", "00/r/artifacts/x", "-1/r/artifacts/x"]
)  # fmt: skip
def test_what_belongs_to_nobody_is_not_stored(door: Door, home: Path, place: str) -> None:
    before = list_files(home)
    response = door.send("PUT", f"{PROXY}/{place}", content=b"x")

    assert refusal(response) == (400, "INVALID_PARAMETER_VALUE")
    assert "EXPERIMENT/RUN/artifacts/PATH" in response.json()["message"]
    assert refusal(door.send("GET", f"{PROXY}/{place}")) == (404, "RESOURCE_DOES_NOT_EXIST")
    assert door.send("DELETE", f"{PROXY}/{place}").json() == {}
    assert list_files(home) == before


def test_a_deleted_run_takes_no_files_and_still_shows_them(door: Door, run_id: str, root: str) -> None:
    put(door, f"{root}/x", b"x")
    door.do("DELETE", f"/runs/{run_id}")
    for method in ("PUT", "DELETE"):
        assert refusal(door.send(method, f"{PROXY}/{root}/x", content=b"y")) == (400, "INVALID_PARAMETER_VALUE")
    assert door.send("GET", f"{PROXY}/{root}/x").content == b"x"


def test_all_files_of_a_run_are_not_deleted_at_once(door: Door, root: str) -> None:
    put(door, f"{root}/x", b"x")
    for address in (root, f"{root}/", f"{root}/."):
        assert refusal(door.send("DELETE", f"{PROXY}/{address}")) == (400, "INVALID_PARAMETER_VALUE")
    assert door.send("GET", f"{PROXY}/{root}/x").content == b"x"


# ── paths ────────────────────────────────────────────────────────────────────────────────────────────────────────

CLIMBS = [
    "%2e%2e/x", "a/%2e%2e/%2e%2e/x", "..%2fx", "%252e%252e/x", "%25252e%25252e%25252fx", "a%5c..%5cx", "a%255cb",
    "a%00b", "a%2500b", "a%23b", "a%2523b", "%2Fetc/passwd", "C%3A%5Cx", "a%0ab", "a%7fb", "a%e2%80%aeb",
    "%" + "25" * 12 + "41", "x" * 300, "a%20/b", "a./b",
]  # fmt: skip


@pytest.mark.parametrize("path", CLIMBS)
def test_a_path_that_climbs_or_hides_something_is_refused_in_every_place(
    door: Door, home: Path, root: str, run_id: str, path: str
) -> None:
    put(door, f"{root}/x", b"x")
    before = list_files(home)
    address = f"{root}/{path}" if not path.startswith("%2F") else path
    asked = [
        door.send("PUT", f"{PROXY}/{address}", content=b"y"),
        door.send("GET", f"{PROXY}/{address}"),
        door.send("GET", f"{PROXY}?path={address}"),
        door.send("GET", f"{API}/presigned/{address}"),
        door.send("GET", f"/api/2.0/mlflow/artifacts/list?run_id={run_id}&path={path}"),
        door.send("GET", f"/get-artifact?run_id={run_id}&path={path}"),
        door.send("POST", f"/ajax-api/2.0/mlflow/upload-artifact?run_uuid={run_id}&path={path}", content=b"y"),
        door.send("POST", f"{API}/mpu/create/{address}", json={"path": "f", "num_parts": 1}),
    ]
    for response in asked:
        assert refusal(response) == (400, "INVALID_PARAMETER_VALUE"), response.request.url
        assert response.json()["message"].startswith("Invalid path"), response.text
    assert list_files(home) == before
    assert [file["path"] for file in ls(door, root)["files"]] == ["x"]


def test_a_dot_dot_segment_as_it_is_is_refused(home: Path) -> None:
    """No client library sends one: each takes it out first."""
    with serve(home) as served:
        for path in ("0/x/artifacts/../../../etc/passwd", "../x", "sealed/../x"):
            for method in ("GET", "PUT", "DELETE"):
                with closing(served.connect(f"{method} {PROXY}/{path} HTTP/1.1\r\nConnection: close")) as link:
                    assert b" 400 " in read_answer(link).partition(b"\r\n")[0]


def test_a_path_is_decoded_until_nothing_changes_and_its_empty_parts_go(door: Door, root: str) -> None:
    put(door, f"{root}/a%2520b%2541//./c", b"x")

    assert ls(door, f"{root}/a bA") == {"files": [{"path": "c", "is_dir": False, "file_size": 1}]}
    assert door.send("GET", f"{PROXY}/{root}/a%20bA/c").content == b"x"


# ── sealed versions ──────────────────────────────────────────────────────────────────────────────────────────────


def test_the_files_of_a_sealed_version_are_read_under_its_digest(anywhere: Door) -> None:
    run_id = new_run(anywhere)
    put(anywhere, f"0/{run_id}/artifacts/m/MLmodel", b"flavors: {}\n")
    put(anywhere, f"0/{run_id}/artifacts/m/data/w.bin", b"0123456789")
    sealed = seal(anywhere, run_id)

    assert ls(anywhere, sealed) == {
        "files": [{"path": "MLmodel", "is_dir": False, "file_size": 12}, {"path": "data", "is_dir": True}]
    }
    assert ls(anywhere, f"{sealed}/data") == {"files": [{"path": "w.bin", "is_dir": False, "file_size": 10}]}
    found = anywhere.send("GET", f"{PROXY}/{sealed}/data/w.bin")
    assert found.content == b"0123456789"
    assert "immutable" in found.headers["cache-control"]
    part = anywhere.send("GET", f"{PROXY}/{sealed}/data/w.bin", headers={"range": "bytes=3-4"})
    assert (part.status_code, part.content) == (206, b"34")
    query = {"name": "net", "version": "1", "path": "data/w.bin"}
    assert anywhere.send("GET", "/model-versions/get-artifact", params=query).content == b"0123456789"
    for path in ("", "/", "/none", "/data/none"):
        assert refusal(anywhere.send("GET", f"{PROXY}/{sealed}{path}")) == (404, "RESOURCE_DOES_NOT_EXIST")
    assert refusal(anywhere.send("GET", f"{PROXY}/{sealed}/data"))[0] == 400


def test_nothing_below_a_sealed_address_can_be_written_or_deleted(door: Door, run_id: str, root: str) -> None:
    put(door, f"{root}/m/w", b"sealed")
    sealed = seal(door, run_id)
    for place in (
        sealed,
        f"{sealed}/w",
        f"{sealed}/new",
        "sealed",
        "sealed/x/y",
        f"sealed/{'0' * 64}/w",
        f"{sealed}/a/../w",
    ):
        for method in ("PUT", "DELETE"):
            status, code = refusal(door.send(method, f"{PROXY}/{quote(place).replace('..', '%2e')}", content=b"x"))
            assert (status, code) == (409, "RESOURCE_CONFLICT"), place
    for action in ("create", "complete", "abort"):
        body = {"path": "w", "num_parts": 1, "upload_id": "0" * 64, "parts": [{"part_number": 1}]}
        assert refusal(door.send("POST", f"{API}/mpu/{action}/{sealed}", json=body)) == (409, "RESOURCE_CONFLICT")
    assert door.send("GET", f"{PROXY}/{sealed}/w").content == b"sealed"


def test_what_becomes_of_the_run_does_not_reach_the_version(door: Door, run_id: str, root: str) -> None:
    put(door, f"{root}/m/w", b"sealed")
    sealed = seal(door, run_id)
    put(door, f"{root}/m/w", b"tampered")
    assert seal(door, run_id) != sealed
    door.send("DELETE", f"{PROXY}/{root}/m")
    door.do("DELETE", f"/runs/{run_id}")
    door.do("DELETE", "/models/net/versions/1")

    assert door.send("GET", f"{PROXY}/{sealed}/w").content == b"sealed"
    query = {"name": "net", "version": "1", "path": "w"}
    assert refusal(door.send("GET", "/model-versions/get-artifact", params=query)) == (404, "RESOURCE_DOES_NOT_EXIST")


@pytest.mark.parametrize("name", ["0" * 64, "0" * 63, "A" * 64, "sha256:" + "0" * 64, "%2e%2e"])
def test_a_digest_that_nothing_was_sealed_with_has_no_files(door: Door, name: str) -> None:
    response = door.send("GET", f"{PROXY}/sealed/{name}/w")
    assert response.status_code == (400 if name == "%2e%2e" else 404)


def test_a_blob_that_rotted_is_healed_by_putting_it_again(door: Door, home: Path, run_id: str, root: str) -> None:
    data = os.urandom(2 * MIB)
    put(door, f"{root}/m/w", data)
    sealed = seal(door, run_id)
    (file,) = [path for path in list_files(home) if path.name == hashlib.sha256(data).hexdigest()]
    file.chmod(0o600)
    file.write_bytes(bytes([data[0] ^ 1]) + data[1:])
    with pytest.raises(Exception, match="hash"):  # the stream is cut; in this process that is the error itself
        door.send("GET", f"{PROXY}/{sealed}/w")

    put(door, f"0/{new_run(door)}/artifacts/anything", data)

    assert door.send("GET", f"{PROXY}/{sealed}/w").content == data


# ── lists, and files by other addresses ──────────────────────────────────────────────────────────────────────────


def test_a_runs_files_are_listed_from_its_root(door: Door, run_id: str, root: str) -> None:
    put(door, f"{root}/a/b", b"xyz")
    listed = "/api/2.0/mlflow/artifacts/list"
    address = f"mlflow-artifacts:/{root}"

    assert door.send("GET", listed, params={"run_id": run_id}).json() == {
        "root_uri": address,
        "files": [{"path": "a", "is_dir": True}],
    }
    assert door.send("GET", listed, params={"run_uuid": run_id, "path": "a"}).json() == {
        "root_uri": address,
        "files": [{"path": "a/b", "is_dir": False, "file_size": 3}],
    }
    assert door.send("GET", listed, params={"run_id": run_id, "path": "a/b"}).json() == {"root_uri": address}
    missing = door.send("GET", listed)
    assert refusal(missing) == (400, "INVALID_PARAMETER_VALUE")
    assert missing.json()["message"].startswith("Missing value for required parameter 'run_id'.")
    assert refusal(door.send("GET", listed, params={"run_id": "nobody"})) == (404, "RESOURCE_DOES_NOT_EXIST")


def test_a_logged_models_files_are_listed_and_read(door: Door) -> None:
    model_id = new_model(door)
    put(door, f"0/models/{model_id}/artifacts/d/f", b"xyz")
    base = f"/ajax-api/2.0/mlflow/logged-models/{model_id}/artifacts"

    listed = door.send("GET", f"{base}/directories", params={"artifact_directory_path": "d"})
    assert listed.json() == {
        "root_uri": f"mlflow-artifacts:/0/models/{model_id}/artifacts",
        "files": [{"path": "d/f", "is_dir": False, "file_size": 3}],
    }
    assert door.send("GET", f"{base}/files", params={"artifact_file_path": "d/f"}).content == b"xyz"
    said = door.send("GET", f"{base}/files")
    assert refusal(said)[0] == 400
    assert said.json()["message"] == 'Request must include the "artifact_file_path" query parameter.'
    for path in ("directories", "files?artifact_file_path=x"):
        nobody = door.send("GET", f"/api/2.0/mlflow/logged-models/m-xx/artifacts/{path}")
        assert refusal(nobody) == (404, "RESOURCE_DOES_NOT_EXIST")
        assert nobody.json()["message"] == "Logged model with ID 'm-xx' not found."


def test_a_page_may_upload_ten_mebibytes(door: Door, run_id: str, root: str) -> None:
    address = f"/ajax-api/2.0/mlflow/upload-artifact?run_uuid={run_id}&path=u/x.txt"
    for query, data, sentence in (
        ("", b"x", "Request must specify run_uuid."),
        (f"?run_uuid={run_id}", b"x", "Request must specify path."),
        (f"?run_uuid={run_id}&path=x", b"", "Request must specify data."),
        (f"?run_uuid={run_id}&path=x", bytes((10 << 20) + 1), "Artifact size is too large. Max size is 10MB."),
    ):
        said = door.send("POST", f"/ajax-api/2.0/mlflow/upload-artifact{query}", content=data)
        assert refusal(said) == (400, "INVALID_PARAMETER_VALUE")
        assert said.json()["message"] == sentence
    done = door.send("POST", address, content=bytes(10 << 20))
    assert (done.status_code, done.content) == (200, b"")
    assert ls(door, f"{root}/u") == {"files": [{"path": "x.txt", "is_dir": False, "file_size": 10 << 20}]}


def test_addresses_of_other_stores_are_refused_as_mlflow_does(door: Door, run_id: str) -> None:
    base = "/api/2.0/mlflow/artifacts/presigned-"
    for kind, body, status, word in (
        ("upload", {"run_id": run_id, "path": "x"}, 400, "Presigned upload is not supported for proxied"),
        ("upload", {"path": "x"}, 400, "Exactly one of run_id and model_id must be provided."),
        ("upload", {"run_id": run_id}, 400, "Missing value for required parameter 'path'"),
        ("upload", {"run_id": "nobody", "path": "x"}, 404, "Run with id=nobody not found"),
        ("download", {"run_id": run_id, "path": "x"}, 400, "Presigned download is not supported for runs with proxied"),
        ("download", {"run_id": run_id, "path": "x", "expiration": 0}, 400, "between 1 and 604800 seconds (got 0)."),
        ("download", {"run_id": run_id, "path": "../x"}, 400, "Invalid path"),
    ):
        said = door.send("POST", f"{base}{kind}-url", json=body)
        assert refusal(said)[0] == status
        assert word in said.json()["message"]


def test_what_the_server_is_can_be_asked(door: Door) -> None:
    for prefix in ("/api", "/ajax-api"):
        info = door.send("GET", f"{prefix}/3.0/mlflow/server-info", headers={"x-mlflow-workspace": "x"}).json()
        assert info["workspaces_enabled"] is False
        assert info["multipart_uploads_enabled"] is info["multipart_downloads_enabled"] is False
        assert door.send("GET", f"{prefix}/3.0/mlflow/server-features").json() == {"workspaces_enabled": False}
    version = door.send("GET", "/version")
    assert (version.text, version.headers["content-type"]) == ("3.17.2", "text/plain; charset=utf-8")


def test_a_workspace_is_refused_at_once_with_mlflows_words(door: Door, root: str) -> None:
    for method, path in (("GET", f"{PROXY}?path={root}"), ("PUT", f"{PROXY}/{root}/x"), ("GET", "/version")):
        said = door.send(method, path, headers={"x-mlflow-workspace": "team"})
        assert refusal(said) == (400, "FEATURE_DISABLED")
    assert door.send("GET", f"{PROXY}?path={root}", headers={"x-mlflow-workspace": " "}).status_code == 200


# ── uploads in parts ─────────────────────────────────────────────────────────────────────────────────────────────


def begin(door: Door, folder: str, name: str, parts: int) -> Any:
    response = door.send("POST", f"{API}/mpu/create/{folder}", json={"path": name, "num_parts": parts})
    assert response.status_code == 200, response.text
    return response.json()


def test_a_file_is_uploaded_in_parts_to_the_addresses_that_were_given(anywhere: Door) -> None:
    root = f"0/{new_run(anywhere)}/artifacts"
    data = os.urandom(2 * MIB + 5)
    pieces = [data[:MIB], data[MIB : 2 * MIB], data[2 * MIB :]]
    begun = begin(anywhere, f"{root}/d", "/srv/models/w.bin", 3)
    assert [c["part_number"] for c in begun["credentials"]] == [1, 2, 3]
    parts = []
    for credential in reversed(begun["credentials"]):
        assert credential["url"].startswith(f"http://127.0.0.1{API}/mpu/parts/")
        sent = anywhere.send("PUT", credential["url"], content=pieces[credential["part_number"] - 1])
        assert sent.status_code == 200, sent.text
        parts.append({**credential, "etag": sent.headers["etag"]})
    assert ls(anywhere, f"{root}/d") == {}
    body = {"path": "w.bin", "upload_id": begun["upload_id"], "parts": parts[::-1]}
    for _ in range(2):
        done = anywhere.send("POST", f"{API}/mpu/complete/{root}/d", json=body)
        assert (done.status_code, done.json()) == (200, {})

    assert anywhere.send("GET", f"{PROXY}/{root}/d/w.bin").content == data
    for _ in range(2):
        aborted = anywhere.send("POST", f"{API}/mpu/abort/{root}/d", json=body)
        assert (aborted.status_code, aborted.json()) == (200, {})
    assert anywhere.send("GET", f"{PROXY}/{root}/d/w.bin").content == data


@pytest.mark.parametrize("name", ["w.bin", "/srv/w.bin", "C:\\models\\w.bin", "\\\\host\\share/w.bin"])
def test_the_file_keeps_its_name_whatever_system_it_comes_from(door: Door, root: str, name: str) -> None:
    begun = begin(door, root, name, 1)
    sent = door.send("PUT", begun["credentials"][0]["url"], content=b"x")
    body = {"path": name, "upload_id": begun["upload_id"], "parts": [{"part_number": 1, "etag": sent.headers["etag"]}]}
    assert door.send("POST", f"{API}/mpu/complete/{root}", json=body).status_code == 200
    assert [file["path"] for file in ls(door, root)["files"]] == ["w.bin"]


def test_an_upload_that_cannot_be_in_so_many_parts_is_sent_in_one(door: Door, root: str) -> None:
    for parts in (0, -1, 10_001):
        said = door.send("POST", f"{API}/mpu/create/{root}", json={"path": "f", "num_parts": parts})
        assert refusal(said) == (501, "NOT_IMPLEMENTED")  # the client falls back on these words
        assert said.json()["message"].startswith("Multipart upload is not supported")


def test_wrong_parts_and_strangers_uploads_are_refused(door: Door, root: str) -> None:
    begun = begin(door, root, "f", 2)
    first, second = (credential["url"] for credential in begun["credentials"])
    etag = door.send("PUT", first, content=b"1").headers["etag"]
    complete = f"{API}/mpu/complete/{root}"
    body = {"path": "f", "upload_id": begun["upload_id"], "parts": [{"part_number": 1, "etag": etag}]}
    for wrong, status in (
        ({"upload_id": "0" * 64}, 404),
        ({"upload_id": ""}, 400),
        ({"path": "g"}, 404),
        ({"path": ".."}, 400),
        ({"path": "/srv/"}, 400),
        ({"parts": []}, 400),
        ({"parts": [{"part_number": 2}]}, 400),
        ({"parts": [{"part_number": 1, "etag": "x"}]}, 400),
        ({"parts": [{"part_number": "one"}]}, 400),
        ({"parts": "x"}, 400),
    ):
        assert refusal(door.send("POST", complete, json={**body, **wrong}))[0] == status, wrong
    for url in (
        second.replace("parts/2", "parts/0"),
        second.replace("parts/2", "parts/x"),
        second.replace("parts/2", "parts/99999"),
    ):
        assert refusal(door.send("PUT", url, content=b"x")) == (400, "INVALID_PARAMETER_VALUE")
    for url in (first[:-1] + ("0" if first[-1] != "0" else "1"), first.partition("?")[0]):
        assert refusal(door.send("PUT", url, content=b"x")) == (404, "RESOURCE_DOES_NOT_EXIST")
    assert ls(door, root) == {}
    assert door.send("POST", complete, json=body).status_code == 200


def test_the_given_addresses_are_the_public_ones(home: Path) -> None:
    public = "https://models.example.org/touchmark/"

    async def ask() -> Any:
        app = build_app(Settings(home=home, public_url=public, log_requests=False))
        signs: asyncio.Queue[Any] = asyncio.Queue()
        replies: asyncio.Queue[Any] = asyncio.Queue()
        life = asyncio.create_task(
            app({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, signs.get, replies.put)
        )
        await signs.put({"type": "lifespan.startup"})
        await replies.get()
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client:
            run_id = (await client.post("/api/v1/runs", json={})).json()["run_id"]
            root = f"0/{run_id}/artifacts"
            await client.put(f"{PROXY}/{root}/f", content=b"xyz")
            begun = await client.post(f"{API}/mpu/create/{root}", json={"path": "f", "num_parts": 1})
            presigned = await client.get(f"{API}/presigned/{root}/f")
            info = await client.get("/api/3.0/mlflow/server-info")
        await signs.put({"type": "lifespan.shutdown"})
        await life
        return begun.json(), presigned.json(), info.json()

    begun, presigned, info = asyncio.run(ask())

    assert begun["credentials"][0]["url"].startswith(
        f"https://models.example.org/touchmark{API}/mpu/parts/1?upload_id="
    )
    assert presigned["url"].startswith("https://models.example.org/touchmark/v2/runs/")
    assert presigned["file_size"] == 3
    assert info["multipart_uploads_enabled"] is True  # clients come over a network
    assert info["multipart_downloads_enabled"] is False


def test_a_presigned_address_gives_the_bytes_it_was_given_for(door: Door, run_id: str, root: str) -> None:
    put(door, f"{root}/m/w", b"0123456789")
    sealed = seal(door, run_id)
    for place in (f"{root}/m/w", f"{sealed}/w"):
        given = door.send("GET", f"{API}/presigned/{place}").json()
        assert (given["file_size"], given["headers"]) == (10, {})
        put(door, f"{root}/m/w", b"changed!!!")
        part = door.send("GET", given["url"], headers={"range": "bytes=4-6"})
        assert (part.status_code, part.content) == (206, b"456")
        put(door, f"{root}/m/w", b"0123456789")
    assert refusal(door.send("GET", f"{API}/presigned/{root}/none")) == (404, "RESOURCE_DOES_NOT_EXIST")


# ── uploads that go wrong ────────────────────────────────────────────────────────────────────────────────────────


def test_an_upload_beyond_the_limit_is_refused_before_and_while_it_comes(home: Path) -> None:
    with serve(home, "--max-upload-bytes", "3000000") as served:
        run_id = served.ask("POST", "/api/v1/runs", {}).json()["run_id"]
        root = f"0/{run_id}/artifacts"
        begun = served.ask("POST", f"{API}/mpu/create/{root}", {"path": "g", "num_parts": 2}, JSON).json()
        one, two = (c["url"].partition(str(served.port))[2] for c in begun["credentials"])
        assert served.ask("PUT", one, bytes(2_000_000)).status == 200
        for path in (f"{PROXY}/{root}/f", two):
            declared = served.ask("PUT", path, bytes(3_000_001))
            assert (declared.status, declared.json()["error_code"]) == (413, "INVALID_PARAMETER_VALUE")
        assert served.ask("PUT", two, bytes(1_000_001)).status == 413
        head = f"PUT {PROXY}/{root}/f HTTP/1.1\r\nTransfer-Encoding: chunked\r\nConnection: close"
        chunk = b"100000\r\n" + bytes(MIB) + b"\r\n"
        with closing(served.connect(head, chunk * 4 + b"0\r\n\r\n")) as link:
            assert b" 413 " in read_answer(link).partition(b"\r\n")[0]
        assert served.ask("GET", f"{PROXY}?path={root}").json() == {}
        assert served.ask("PUT", f"{PROXY}/{root}/f", bytes(3_000_000)).status == 200
        assert [
            path for path in served.list_blob_files() if path.parent.name == "staging" and "-" not in path.name
        ] == []


@pytest.mark.processes
@pytest.mark.parametrize("parts", [False, True])
def test_an_upload_that_is_cut_leaves_nothing(home: Path, parts: bool) -> None:
    with serve(home) as served:
        run_id = served.ask("POST", "/api/v1/runs", {}).json()["run_id"]
        root = f"0/{run_id}/artifacts"
        path = f"{PROXY}/{root}/f"
        if parts:
            begun = served.ask("POST", f"{API}/mpu/create/{root}", {"path": "f", "num_parts": 2}, JSON).json()
            path = begun["credentials"][0]["url"].partition(str(served.port))[2]
        before = served.list_blob_files()
        with closing(served.connect(f"PUT {path} HTTP/1.1\r\nContent-Length: {4 * MIB}", bytes(2 * MIB))):
            wait_for(lambda: len(served.list_blob_files()) == len(before) + 1)
        wait_for(lambda: served.list_blob_files() == before)

        assert served.ask("GET", f"{PROXY}?path={root}").json() == {}
        assert served.stop() == 0
        assert not any("Traceback" in line for line in served.log), served.log


def _limit_files() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_000_000, 4_000_000))  # a quota: the kernel answers EFBIG


@pytest.mark.processes
def test_a_full_disk_is_told_at_once_and_leaves_nothing(home: Path) -> None:
    with serve(home, preexec_fn=_limit_files) as served:
        run_id = served.ask("POST", "/api/v1/runs", {}).json()["run_id"]
        root = f"0/{run_id}/artifacts"
        begun = served.ask("POST", f"{API}/mpu/create/{root}", {"path": "g", "num_parts": 2}, JSON).json()
        part, other = (c["url"].partition(str(served.port))[2] for c in begun["credentials"])
        for path in (f"{PROXY}/{root}/f", part):
            full = served.ask("PUT", path, os.urandom(6_000_000))
            assert (full.status, full.json()["error_code"]) == (
                507,
                "RESOURCE_EXHAUSTED",
            )  # clients do not repeat these
        assert served.list_blob_files() == []
        sent = [served.ask("PUT", path, os.urandom(3_000_000)).headers["etag"] for path in (part, other)]
        parts = [{"part_number": number, "etag": etag} for number, etag in enumerate(sent, 1)]
        body = {"path": "g", "upload_id": begun["upload_id"], "parts": parts}
        joined = served.ask("POST", f"{API}/mpu/complete/{root}", body, JSON)
        assert (joined.status, joined.json()["error_code"]) == (507, "RESOURCE_EXHAUSTED")
        assert served.ask("GET", f"{PROXY}?path={root}").json() == {}
        assert served.ask("PUT", f"{PROXY}/{root}/f", bytes(3_000_000)).status == 200


def test_an_upload_left_a_week_ago_is_dropped_when_the_server_starts(home: Path) -> None:
    with open_door(home) as door:
        root = f"0/{new_run(door)}/artifacts"
        old, young = (begin(door, root, name, 1) for name in ("old", "young"))
        for begun in (old, young):
            assert door.send("PUT", begun["credentials"][0]["url"], content=b"x").status_code == 200
    with sqlite3.connect(home / "registry.db") as database:
        week = 7 * 24 * 3600 * 1_000_000
        database.execute("UPDATE uploads SET updated_at = updated_at - ? WHERE path = 'old'", (week,))
    database.close()
    assert len(list_files(home)) == 2

    with open_door(home) as door:
        assert refusal(door.send("PUT", old["credentials"][0]["url"], content=b"x"))[0] == 404
        assert door.send("PUT", young["credentials"][0]["url"], content=b"x").status_code == 200
        assert len(list_files(home)) == 1


async def _send_and_fall_silent(app: Any, path: str, sent: list[bytes]) -> tuple[int, Any]:
    """Send the beginning of a body and then nothing; return status and JSON of the answer."""
    answered: list[Any] = []

    async def receive() -> Any:
        if sent:
            return {"type": "http.request", "body": sent.pop(0), "more_body": True}
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Any) -> None:
        answered.append(message)

    scope = {
        "type": "http", "method": "PUT", "path": path, "raw_path": path.encode(), "query_string": b"", "scheme": "http",
        "headers": [(b"host", b"127.0.0.1"), (b"content-length", b"9000000")], "http_version": "1.1",
    }  # fmt: skip
    await app(scope, receive, send)
    return answered[0]["status"], json.loads(b"".join(message.get("body", b"") for message in answered[1:]))


@pytest.mark.parametrize("sent", [[], [b"x"], [bytes(2 * MIB), b"x"]], ids=["at once", "early", "late"])
def test_a_client_that_falls_silent_is_told_to_send_it_again(
    door: Door, home: Path, root: str, sent: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "IDLE_SECONDS", 0.2)
    start = time.monotonic()

    status, said = door._runner.run(_send_and_fall_silent(door._app, f"{PROXY}/{root}/f", list(sent)))

    assert (status, said["error_code"]) == (503, "TEMPORARILY_UNAVAILABLE")
    assert "Nothing more of the body came" in said["message"]
    assert time.monotonic() - start < 20
    assert ls(door, root) == {}
    assert [path for path in list_files(home) if path.parent.name == "staging"] == []


def test_a_client_that_is_slow_but_not_silent_is_waited_for(
    door: Door, root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "IDLE_SECONDS", 2.0)

    async def dribble() -> AsyncIterator[bytes]:
        for _ in range(12):
            await asyncio.sleep(0.25)
            yield b"x"

    assert door.send("PUT", f"{PROXY}/{root}/f", content=dribble()).status_code == 200
    assert door.send("GET", f"{PROXY}/{root}/f").content == b"x" * 12


# ── the real client ──────────────────────────────────────────────────────────────────────────────────────────────


def run_client(served: Served, script: str, *arguments: str, **environ: str) -> str:
    """Run a script with the real MLflow client; return what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *arguments],
        env={
            **os.environ,
            "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{served.port}",
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
            **environ,
        },
        cwd=served.home,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


FOLDER = """
    import sys, pathlib, filecmp, tempfile
    import mlflow
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
    uri, source = sys.argv[1], pathlib.Path(sys.argv[2])
    repository = get_artifact_repository(uri)
    repository.log_artifacts(str(source), "m")
    repository.log_artifact(str(source / "MLmodel"))
    listed = {file.path: (file.is_dir, file.file_size) for file in repository.list_artifacts("m")}
    assert listed == {"m/MLmodel": (False, 8), "m/data": (True, None), "m/ä b.txt": (False, 1)}, listed
    assert repository.list_artifacts("m/MLmodel") == []
    got = pathlib.Path(mlflow.artifacts.download_artifacts(uri + "/m", dst_path=tempfile.mkdtemp()))
    for file in source.rglob("*"):
        if file.is_file():
            assert filecmp.cmp(file, got / file.relative_to(source), shallow=False), file
    one = pathlib.Path(mlflow.artifacts.download_artifacts(uri + "/m/data/w.bin"))
    assert one.read_bytes() == (source / "data/w.bin").read_bytes()
    repository.delete_artifacts("m/data")
    assert [pathlib.Path(file.path).name for file in mlflow.artifacts.list_artifacts(uri + "/m")] == ["MLmodel", "ä b.txt"]
    print(len(repository.list_artifacts("m")))
    """


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Give a folder of files."""
    folder = tmp_path / "source"
    (folder / "data" / "deep").mkdir(parents=True)
    (folder / "MLmodel").write_bytes(b"flavors:")
    (folder / "ä b.txt").write_bytes(b"x")
    (folder / "data" / "w.bin").write_bytes(os.urandom(5 * MIB + 3))
    (folder / "data" / "deep" / "empty").write_bytes(b"")
    return folder


@pytest.mark.mlflow
@pytest.mark.processes
def test_the_real_client_logs_lists_downloads_and_deletes_a_folder(home: Path, source: Path) -> None:
    with serve(home) as served:
        run_id = served.ask("POST", "/api/v1/runs", {}).json()["run_id"]
        model_id = served.ask("POST", "/api/v1/logged-models", {"name": "net"}).json()["model_id"]
        for place in (f"0/{run_id}/artifacts", f"0/models/{model_id}/artifacts"):
            assert run_client(served, FOLDER, f"mlflow-artifacts:/{place}", str(source)) == "2\n"


USER = """
    import sys, pathlib, filecmp
    import mlflow
    source = pathlib.Path(sys.argv[1])
    with mlflow.start_run() as run:
        mlflow.log_artifacts(str(source), "m")
        mlflow.log_artifact(str(source / "MLmodel"), "m/again")
        mlflow.log_text("hello", "notes/hello.txt")
        mlflow.log_dict({"a": 1}, "a.json")
    run_id = run.info.run_id
    client = mlflow.MlflowClient()
    assert [f.path for f in client.list_artifacts(run_id)] == ["a.json", "m", "notes"]
    assert [f.path for f in client.list_artifacts(run_id, "m")] == ["m/MLmodel", "m/again", "m/data", "m/ä b.txt"]
    assert [f.path for f in mlflow.artifacts.list_artifacts(run_id=run_id, artifact_path="notes")] == ["notes/hello.txt"]
    assert mlflow.artifacts.load_text(run.info.artifact_uri + "/notes/hello.txt") == "hello"
    got = pathlib.Path(mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path="m"))
    same = pathlib.Path(client.download_artifacts(run_id, "m", "."))
    for file in source.rglob("*"):
        if file.is_file():
            for folder in (got, same):
                assert filecmp.cmp(file, folder / file.relative_to(source), shallow=False), file
    client.log_artifact(run_id, str(source / "MLmodel"), "late")
    client.delete_run(run_id)
    try:
        client.log_artifact(run_id, str(source / "MLmodel"), "later")
    except Exception as error:
        assert "must be in the 'active' state" in str(error), error
    else:
        raise AssertionError("a deleted run took a file")
    try:
        mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path="none")
    except Exception as error:
        print(type(error).__name__)
    """


@pytest.mark.mlflow
@pytest.mark.processes
def test_a_script_logs_and_reads_artifacts_of_its_run(home: Path, source: Path) -> None:
    with serve(home) as served:
        start = time.monotonic()
        run_client(served, USER, str(source))
        assert time.monotonic() - start < 60
        statuses = {line.split("status=")[1].split()[0] for line in served.log if "mlflow-artifacts" in line}
        assert statuses <= {"200", "400", "404"}, statuses


MULTIPART = """
    import sys, pathlib, filecmp, tempfile
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
    uri, file = sys.argv[1], pathlib.Path(sys.argv[2])
    repository = get_artifact_repository(uri)
    repository.log_artifact(str(file), "d")
    got = repository.download_artifacts("d/" + file.name, tempfile.mkdtemp())
    assert filecmp.cmp(file, got, shallow=False)
    """


@pytest.mark.mlflow
@pytest.mark.processes
@pytest.mark.parametrize("told_by", ["server", "environment"])
def test_the_real_client_uploads_and_downloads_a_large_file_in_parts(home: Path, source: Path, told_by: str) -> None:
    sizes = {"MLFLOW_MULTIPART_UPLOAD_MINIMUM_FILE_SIZE": "1", "MLFLOW_MULTIPART_UPLOAD_CHUNK_SIZE": str(MIB)}
    if told_by == "environment":
        forced = {"MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD": "true", "MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD": "true"}
        sizes |= {"MLFLOW_MULTIPART_DOWNLOAD_CHUNK_SIZE": str(MIB), **forced}
        flags: tuple[str, ...] = ()
        port = None
    else:
        port = find_port()
        flags = ("--public-url", f"http://127.0.0.1:{port}")
    with serve(home, *flags, port=port) as served:
        run_id = served.ask("POST", "/api/v1/runs", {}).json()["run_id"]
        root = f"0/{run_id}/artifacts"
        run_client(served, MULTIPART, f"mlflow-artifacts:/{root}", str(source / "data" / "w.bin"), **sizes)
        assert served.stop() == 0
        parts = [line for line in served.log if "/mpu/parts/" in line]
        assert len(parts) == 6
        assert not any("upload_id" in line for line in served.log)  # the log must not show how to write to an upload
        assert len([line for line in served.log if "/v2/runs/" in line]) == (6 if told_by == "environment" else 0)
        assert [path.name for path in served.list_blob_files()] == [
            hashlib.sha256((source / "data" / "w.bin").read_bytes()).hexdigest()
        ]


SEALED = """
    import sys, pathlib, filecmp
    import mlflow
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
    uri, source = sys.argv[1], pathlib.Path(sys.argv[2])
    got = pathlib.Path(mlflow.artifacts.download_artifacts(uri))
    for file in source.rglob("*"):
        if file.is_file():
            assert filecmp.cmp(file, got / file.relative_to(source), shallow=False), file
    repository = get_artifact_repository(uri)
    for refused in (lambda: repository.log_artifact(str(source / "MLmodel")), lambda: repository.delete_artifacts("MLmodel")):
        try:
            refused()
        except Exception as error:
            assert "409" in str(error) and "RESOURCE_CONFLICT" in str(error), error
        else:
            raise AssertionError("it was written")
    """


@pytest.mark.mlflow
@pytest.mark.processes
def test_the_real_client_downloads_a_sealed_version_and_cannot_write_to_it(home: Path, source: Path) -> None:
    with serve(home) as served:
        run_id = served.ask("POST", "/api/v1/runs", {}).json()["run_id"]
        for file in source.rglob("*"):
            if file.is_file():
                path = f"{PROXY}/0/{run_id}/artifacts/m/{quote(file.relative_to(source).as_posix())}"
                assert served.ask("PUT", path, file.read_bytes()).status == 200
        version = served.ask("POST", "/api/v1/models/net/versions", {"source": f"runs:/{run_id}/m"}, JSON).json()
        digest = version["digest"].removeprefix("sha256:")
        start = time.monotonic()
        run_client(served, SEALED, f"http://127.0.0.1:{served.port}{PROXY}/sealed/{digest}", str(source))
        assert time.monotonic() - start < 60  # no refusal was sent again for minutes

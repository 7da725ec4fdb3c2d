"""Push (distribution-spec v1.1, "Push"): blobs whole, streamed and in chunks, mounts, manifests."""

from __future__ import annotations

import http.client
import json
import os
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conformance.oci.distribution import (
    EMPTY,
    INDEX,
    LAYER,
    MANIFEST,
    NOBODY,
    TITLE,
    Place,
    check_error,
    describe_manifest,
    with_digest,
)
from tests.served import Served, digest_of

pytestmark = pytest.mark.processes

CHUNKS = (b"first chunk;", b"second one")
WHOLE = b"".join(CHUNKS)


def patch(place: Place, location: str, start: int, data: bytes) -> Any:
    """Send one chunk as "Pushing a blob in chunks" has it."""
    return place.ask_at(
        "PATCH",
        location,
        data,
        Content_Type="application/octet-stream",
        Content_Length=str(len(data)),
        Content_Range=f"{start}-{start + len(data) - 1}",
    )


# ── blobs in one piece ───────────────────────────────────────────────────────────────────────────────────────────


def test_a_blob_comes_with_one_post(place: Place) -> None:
    digest = digest_of(WHOLE)
    posted = place.ask("POST", f"blobs/uploads/?digest={digest}", WHOLE, Content_Type="application/octet-stream")

    assert posted.status == 201
    assert place.ask_at("GET", posted.headers["location"]).body == WHOLE


def test_a_blob_comes_with_post_and_put(place: Place) -> None:
    location = place.begin()
    put = place.ask_at("PUT", with_digest(location, digest_of(WHOLE)), WHOLE, Content_Type="application/octet-stream")

    assert put.status == 201
    assert place.ask_at("GET", put.headers["location"]).body == WHOLE


def test_a_blob_is_streamed_without_a_length(place: Place, served: Served) -> None:
    data = os.urandom(3 << 20)

    def pieces() -> Iterator[bytes]:
        for at in range(0, len(data), 100_000):
            yield data[at : at + 100_000]

    location = place.begin()
    link = http.client.HTTPConnection("127.0.0.1", served.port, timeout=30)
    link.request("PATCH", location, pieces(), {"Content-Type": "application/octet-stream"}, encode_chunked=True)
    patched = link.getresponse()
    patched.read()
    link.close()
    put = place.ask_at("PUT", with_digest(patched.headers["location"], digest_of(data)), b"")

    assert (patched.status, patched.headers["range"]) == (202, f"0-{len(data) - 1}")
    assert put.status == 201
    assert place.ask_at("GET", put.headers["location"]).body == data


# ── blobs in chunks ──────────────────────────────────────────────────────────────────────────────────────────────


def test_a_blob_comes_in_chunks(place: Place) -> None:
    location, start = place.begin(), 0
    for chunk in CHUNKS:
        patched = patch(place, location, start, chunk)
        start += len(chunk)
        assert (patched.status, patched.headers["range"]) == (202, f"0-{start - 1}")
        location = patched.headers["location"]
    put = place.ask_at("PUT", with_digest(location, digest_of(WHOLE)), b"")

    assert put.status == 201
    assert place.ask_at("GET", put.headers["location"]).body == WHOLE


def test_the_last_chunk_may_come_with_the_put(place: Place) -> None:
    location = patch(place, place.begin(), 0, CHUNKS[0]).headers["location"]
    begin, end = len(CHUNKS[0]), len(WHOLE) - 1
    put = place.ask_at("PUT", with_digest(location, digest_of(WHOLE)), CHUNKS[1], Content_Range=f"{begin}-{end}")

    assert put.status == 201
    assert place.ask_at("GET", put.headers["location"]).body == WHOLE


def test_chunks_out_of_order_are_416_and_the_upload_goes_on(place: Place) -> None:
    location = place.begin()
    early = patch(place, location, len(CHUNKS[0]), CHUNKS[1])
    first = patch(place, location, 0, CHUNKS[0])
    again = patch(place, location, 0, CHUNKS[0])
    asked = place.ask_at("GET", location)
    second = patch(place, location, len(CHUNKS[0]), CHUNKS[1])

    check_error(early, 416)
    check_error(again, 416)
    assert again.headers["range"] == f"0-{len(CHUNKS[0]) - 1}"
    assert (first.status, second.status) == (202, 202)
    assert asked.status == 204
    assert asked.headers["range"] == f"0-{len(CHUNKS[0]) - 1}"
    assert asked.headers["location"]
    assert place.ask_at("PUT", with_digest(location, digest_of(WHOLE)), b"").status == 201


@pytest.mark.parametrize("said", ["0-4", "0-11", "4-0", "x-y", "0-"])
def test_a_content_range_that_is_not_what_comes_is_refused(place: Place, said: str) -> None:
    location = place.begin()
    check_error(place.ask_at("PATCH", location, b"0123456789", Content_Range=said), 400)

    assert place.ask_at("GET", location).headers["touchmark-upload-offset"] == "0"


def test_a_wrong_digest_is_400_and_the_upload_can_still_be_ended(place: Place) -> None:
    location = patch(place, place.begin(), 0, WHOLE).headers["location"]
    for wrong in (NOBODY, digest_of(CHUNKS[0])):
        check_error(place.ask_at("PUT", with_digest(location, wrong), b""), 400, "DIGEST_INVALID")

    assert place.ask_at("PUT", with_digest(location, digest_of(WHOLE)), b"").status == 201


def test_an_upload_that_ended_is_unknown(place: Place) -> None:
    ended, cancelled = place.begin(), place.begin()
    patch(place, ended, 0, WHOLE)
    assert place.ask_at("PUT", with_digest(ended, digest_of(WHOLE)), b"").status == 201
    assert place.ask_at("DELETE", cancelled).status == 204

    for location in (ended, cancelled, f"/v2/{place.path}/blobs/uploads/{'0' * 64}"):
        check_error(place.ask_at("GET", location), 404, "BLOB_UPLOAD_UNKNOWN")
        check_error(place.ask_at("PATCH", location, b"x"), 404, "BLOB_UPLOAD_UNKNOWN")
        check_error(place.ask_at("PUT", with_digest(location, NOBODY), b""), 404, "BLOB_UPLOAD_UNKNOWN")
        check_error(place.ask_at("DELETE", location), 404, "BLOB_UPLOAD_UNKNOWN")


# ── mounts ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_blob_is_mounted_from_another_repository(place: Place, other: Place) -> None:
    digest = other.push_blob(os.urandom(100))
    mounted = place.ask("POST", f"blobs/uploads/?mount={digest}&from={other.path}", b"")

    assert mounted.status == 201
    assert mounted.headers["location"].startswith(f"/v2/{place.path}/blobs/")
    assert place.ask("HEAD", f"blobs/{digest}").status == 200


def test_what_cannot_be_mounted_begins_an_upload(place: Place, other: Place) -> None:
    data = os.urandom(100)
    elsewhere = other.push_blob(data)
    for query in (
        f"mount={NOBODY}&from={other.path}",  # not there
        f"mount={elsewhere}&from={place.path}",  # there, and not in this one
        f"mount={elsewhere}&from=models/nobody",
        f"mount={elsewhere}&from=no-repository",
        f"mount={elsewhere}",  # nothing is looked for in repositories that are not named
    ):
        begun = place.ask("POST", f"blobs/uploads/?{query}", b"")
        assert begun.status == 202, query
    assert place.ask_at("PUT", with_digest(begun.headers["location"], elsewhere), data).status == 201


# ── manifests ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_manifest_is_put_by_tag_and_by_digest(place: Place) -> None:
    content = place.make_image()
    for reference in ("test0", "test1", digest_of(content)):
        put = place.put_manifest(content, reference)
        assert put.status == 201
        assert put.headers["docker-content-digest"] == digest_of(content)
        assert place.ask_at("GET", put.headers["location"]).body == content


def test_a_tag_moves_to_the_manifest_that_was_put_last(place: Place) -> None:
    first, second = place.push_image("champion"), place.push_image("champion")

    assert place.ask("GET", "manifests/champion").body == second
    assert [place.ask("GET", f"manifests/{number}").body for number in (1, 2)] == [first, second]


def test_a_manifest_whose_blobs_are_not_here_is_refused(place: Place, other: Place) -> None:
    content = other.push_image("champion")

    for reference in (digest_of(content), "champion"):
        check_error(place.put_manifest(content, reference), 404, "MANIFEST_BLOB_UNKNOWN")
    assert place.ask("GET", f"manifests/{digest_of(content)}").status == 404


def test_a_manifest_without_layers_is_kept_and_is_no_version(place: Place) -> None:
    content = place.make_image(layers=0)

    assert place.put_manifest(content).status == 201
    assert place.ask("GET", f"manifests/{digest_of(content)}").body == content
    check_error(place.put_manifest(content, "empty"), 400, "MANIFEST_INVALID")
    assert place.ask("GET", "tags/list").json()["tags"] == []


def test_a_folder_that_was_packed_by_its_client_is_kept_and_is_no_version(place: Place) -> None:
    layer = place.describe(os.urandom(10), LAYER, annotations={TITLE: "folder"})
    content = place.make_image(layers=0)
    content = json.dumps({**json.loads(content), "layers": [layer]}).encode()

    assert place.put_manifest(content).status == 201
    check_error(place.put_manifest(content, "champion"), 400, "MANIFEST_INVALID")


def test_an_index_is_kept_under_its_digest_and_is_no_version(place: Place, served: Served) -> None:
    listed = [describe_manifest(place.push_image()) for _ in range(2)]
    missing = {"mediaType": MANIFEST, "digest": NOBODY, "size": 3}  # a sparse index (image-spec v1.1)
    document = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [*listed, missing]}
    index = json.dumps(document, indent=1).encode()
    put = place.put_manifest(index, media_type=INDEX)
    got = place.ask("GET", f"manifests/{digest_of(index)}")

    assert put.status == 201
    assert (got.body, got.headers["content-type"]) == (index, INDEX)
    check_error(place.put_manifest(index, "champion", INDEX), 400, "MANIFEST_INVALID")
    refused = served.ask(
        "POST",
        f"/api/v1/models/{place.name}/versions",
        {"source": f"models:/{place.name}@{digest_of(index)}"},
    )
    assert (refused.status, refused.json()["code"]) == (400, "invalid_manifest")
    assert served.ask("GET", f"/api/v1/models/{place.name}").json()["version_count"] == 0


@pytest.mark.parametrize(
    "change",
    [
        {"schemaVersion": 1},
        {"mediaType": "application/vnd.docker.distribution.manifest.v2+json"},
        {"mediaType": INDEX},
        {"config": None},
        {"layers": {}},
        {"layers": [{"mediaType": EMPTY, "digest": "sha256:0", "size": 1}]},
        {"subject": []},
        {"artifactType": 7},
        {"annotations": {"a": 1}},
    ],
)
def test_what_is_no_manifest_is_refused(place: Place, change: dict[str, Any]) -> None:
    content = json.dumps({**json.loads(place.make_image()), **change}).encode()

    check_error(place.put_manifest(content), 400, "MANIFEST_INVALID")


@pytest.mark.parametrize("tag", ["1", "999"])
def test_nothing_is_pushed_by_a_number(place: Place, tag: str) -> None:
    check_error(place.put_manifest(place.make_image(), tag), 405, "UNSUPPORTED")


@pytest.mark.parametrize("tag", ["v1", "v1.0", "-a", "a" * 129, "Latest"])
def test_a_tag_that_is_no_alias_is_refused_with_a_sentence(place: Place, tag: str) -> None:
    refused = place.put_manifest(place.make_image(), tag)

    check_error(refused, 400, "UNSUPPORTED")
    assert tag in refused.json()["errors"][0]["message"]


def test_a_push_by_tag_is_a_version_like_any_other(place: Place, served: Served) -> None:
    content = place.push_image("champion", layers=2)
    version = served.ask("GET", f"/api/v1/models/{place.name}/versions/1").json()
    files = served.ask("GET", f"/api/v1/models/{place.name}/versions/1/files").json()["items"]
    kinds = {event["kind"] for event in served.ask("GET", f"/api/v1/events?model={place.name}").json()["items"]}
    layers = json.loads(content)["layers"]

    assert version["digest"] == digest_of(content)
    assert version["aliases"] == ["champion"]
    # a layer without a path is a file called by its digest
    assert sorted(file["path"] for file in files) == sorted(layer["digest"].partition(":")[2] for layer in layers)
    assert kinds == {"model.created", "version.registered", "alias.set"}

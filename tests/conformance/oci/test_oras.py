"""What ORAS sends (oras 1.2): its requests in its order, since no package of the distribution's has the program."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from tests.conformance.oci.distribution import EMPTY, INDEX, MANIFEST, TITLE, Place, describe_manifest, with_digest
from tests.served import digest_of

pytestmark = pytest.mark.processes

ACCEPTED = (
    "application/vnd.docker.distribution.manifest.v2+json, "
    "application/vnd.docker.distribution.manifest.list.v2+json, "
    f"{MANIFEST}, {INDEX}, application/vnd.oci.artifact.manifest.v1+json"
)


def push_layer(place: Place, data: bytes) -> None:
    """HEAD, then POST and PUT of what is not there."""
    digest = digest_of(data)
    if place.ask("HEAD", f"blobs/{digest}").status == 200:
        return
    begun = place.ask("POST", "blobs/uploads/", b"", Content_Length="0")
    assert begun.status == 202
    put = place.ask_at(
        "PUT", with_digest(begun.headers["location"], digest), data, Content_Type="application/octet-stream"
    )
    assert put.status == 201
    assert put.headers["docker-content-digest"] == digest


def push(place: Place, files: dict[str, bytes], tag: str, **more: Any) -> bytes:
    """Say `oras push REPOSITORY:TAG FILE…`."""
    layers = [
        {
            "mediaType": "application/octet-stream", "digest": digest_of(data), "size": len(data),
            "annotations": {TITLE: path},
        }
        for path, data in files.items()
    ]  # fmt: skip
    document = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": "application/vnd.unknown.artifact.v1",
        "config": {"mediaType": EMPTY, "digest": digest_of(b"{}"), "size": 2, "data": "e30="},
        "layers": layers,
        "annotations": {"org.opencontainers.image.created": "2026-11-23T00:00:00Z"},
        **more,
    }
    content = json.dumps(document, separators=(",", ":")).encode()
    for data in [*files.values(), b"{}"]:
        push_layer(place, data)
    assert place.ask("HEAD", f"manifests/{digest_of(content)}", Accept=MANIFEST).status in {200, 404}
    put = place.put_manifest(content, tag)
    assert put.status == 201
    assert put.headers["docker-content-digest"] == digest_of(content)
    return content


def pull(place: Place, reference: str) -> dict[str, bytes]:
    """Say `oras pull REPOSITORY:REFERENCE`."""
    head = place.ask("HEAD", f"manifests/{reference}", Accept=ACCEPTED)
    assert (head.status, head.headers["content-type"]) == (200, MANIFEST)
    digest = head.headers["docker-content-digest"]
    got = place.ask("GET", f"manifests/{digest}", Accept=MANIFEST)
    assert digest_of(got.body) == digest
    assert got.headers["content-length"] == head.headers["content-length"]
    files = {}
    for layer in got.json()["layers"]:
        blob = place.ask("GET", f"blobs/{layer['digest']}")
        assert len(blob.body) == layer["size"]
        files[layer["annotations"][TITLE]] = blob.body
    return files


def test_oras_pushes_pulls_tags_and_lists(place: Place) -> None:
    files = {"model.safetensors": os.urandom(300_000), "config/labels.txt": b"cat\ndog\n"}
    content = push(place, files, "champion")
    tagged = place.put_manifest(place.ask("GET", "manifests/champion", Accept=ACCEPTED).body, "challenger")

    assert pull(place, "champion") == pull(place, "challenger") == pull(place, "1") == files
    assert tagged.headers["docker-content-digest"] == digest_of(content)
    assert place.ask("GET", "tags/list").json()["tags"] == ["1", "challenger", "champion"]


def test_what_oras_pushed_has_its_paths_in_the_catalogue(place: Place) -> None:
    files = {"model.safetensors": os.urandom(1_000), "config/labels.txt": b"cat\ndog\n"}
    push(place, files, "champion")
    listed = place.served.ask("GET", f"/api/v1/models/{place.name}/versions/1/files").json()["items"]

    assert {each["path"]: each["digest"] for each in listed} == {path: digest_of(data) for path, data in files.items()}


def test_oras_attaches_and_discovers(place: Place) -> None:
    content = push(place, {"model.bin": os.urandom(100)}, "champion")
    report = {"report.json": b'{"accuracy": 1}'}
    layer_of = {"artifactType": "application/vnd.example.report", "subject": describe_manifest(content)}
    # `oras attach` puts by digest, and makes no tag `sha256-…` of its own since OCI-Subject is answered
    pushed = json.loads(push(place, report, "later", **layer_of))
    again = json.dumps(pushed, indent=2).encode()
    put = place.put_manifest(again)
    found = place.ask("GET", f"referrers/{digest_of(content)}?artifactType=application/vnd.example.report").json()

    assert put.headers["oci-subject"] == digest_of(content)
    assert digest_of(again) in [each["digest"] for each in found["manifests"]]


def test_oras_copies_between_repositories_without_sending_bytes(place: Place, other: Place) -> None:
    files = {"model.bin": os.urandom(5_000)}
    content = push(place, files, "champion")
    for digest in (digest_of(files["model.bin"]), digest_of(b"{}")):
        assert other.ask("HEAD", f"blobs/{digest}").status == 404
        mounted = other.ask("POST", f"blobs/uploads/?from={place.path}&mount={digest}", b"")
        assert mounted.status == 201
    assert other.put_manifest(content, "champion").status == 201

    assert pull(other, "champion") == files

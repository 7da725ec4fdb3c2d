"""Pull, which every registry must support (distribution-spec v1.1, "Pull")."""

from __future__ import annotations

import json

import pytest

from tests.conformance.oci.distribution import MANIFEST, NOBODY, Place, check_error, with_digest
from tests.served import Served, digest_of

pytestmark = pytest.mark.processes

DATA = b"blob of the pull tests"


def test_the_root_answers_200(served: Served) -> None:
    answer = served.ask("GET", "/v2/")

    assert answer.status == 200
    assert answer.headers["docker-distribution-api-version"] == "registry/2.0"


def test_a_blob_is_asked_after_and_read(place: Place) -> None:
    digest = place.push_blob(DATA)
    head, got = place.ask("HEAD", f"blobs/{digest}"), place.ask("GET", f"blobs/{digest}")

    for answer in (head, got):
        assert answer.status == 200
        assert answer.headers["docker-content-digest"] == digest
        assert answer.headers["content-length"] == str(len(DATA))
    assert (head.body, got.body) == (b"", DATA)


def test_a_part_of_a_blob_is_read_by_its_range(place: Place) -> None:
    digest = place.push_blob(DATA)
    part = place.ask("GET", f"blobs/{digest}", Range="bytes=5-9")
    beyond = place.ask("GET", f"blobs/{digest}", Range=f"bytes={len(DATA)}-")

    assert (part.status, part.body) == (206, DATA[5:10])
    assert part.headers["content-range"] == f"bytes 5-9/{len(DATA)}"
    assert (beyond.status, beyond.headers["content-range"]) == (416, f"bytes */{len(DATA)}")


def test_a_blob_that_is_not_there_is_404(place: Place) -> None:
    assert place.ask("HEAD", f"blobs/{NOBODY}").status == 404
    check_error(place.ask("GET", f"blobs/{NOBODY}"), 404, "BLOB_UNKNOWN")


def test_a_manifest_is_read_by_digest_and_by_tag(place: Place) -> None:
    content = place.push_image("tagtest0")

    for reference in (digest_of(content), "tagtest0"):
        head, got = place.ask("HEAD", f"manifests/{reference}"), place.ask("GET", f"manifests/{reference}")
        for answer in (head, got):
            assert answer.status == 200
            assert answer.headers["docker-content-digest"] == digest_of(content)
            assert answer.headers["content-type"] == MANIFEST  # without parameters ("Pulling manifests")
            assert answer.headers["content-length"] == str(len(content))
        assert (head.body, got.body) == (b"", content)


@pytest.mark.parametrize("accept", [MANIFEST, f"{MANIFEST}, */*;q=0.1", "application/json", "text/html"])
def test_a_manifest_has_one_form_whatever_is_accepted(place: Place, accept: str) -> None:
    content = place.push_image("champion")
    answer = place.ask("GET", "manifests/champion", Accept=accept)

    assert (answer.status, answer.body, answer.headers["content-type"]) == (200, content, MANIFEST)


@pytest.mark.parametrize("reference", [NOBODY, ".INVALID_MANIFEST_NAME", "nothing", "7"])
def test_a_manifest_that_is_not_there_is_404(place: Place, reference: str) -> None:
    assert place.ask("HEAD", f"manifests/{reference}").status == 404
    check_error(place.ask("GET", f"manifests/{reference}"), 404, "MANIFEST_UNKNOWN")


def test_a_repository_that_is_not_there_is_404(served: Served) -> None:
    for path in ("manifests/a", f"blobs/{NOBODY}", "tags/list", f"referrers/{NOBODY}"):
        check_error(served.ask("GET", f"/v2/models/nobody/{path}"), 404)
        check_error(served.ask("GET", f"/v2/one-segment/{path}"), 404)


def test_errors_have_the_specifications_body(place: Place) -> None:
    check_error(place.put_manifest(b"blah", "sha256:totallywrong"), 400)
    check_error(place.put_manifest(b"blah", "tagtest0"), 400, "MANIFEST_INVALID")
    check_error(place.put_manifest(json.dumps({"schemaVersion": 2}).encode()), 400, "MANIFEST_INVALID")
    check_error(place.ask("PUT", f"blobs/{NOBODY}", b""), 405, "UNSUPPORTED")
    check_error(place.ask("GET", "nothing/here"), 404)
    check_error(place.ask_at("POST", "/v2", b""), 405, "UNSUPPORTED")
    check_error(place.ask_at("PUT", with_digest(place.begin(), "md5:00"), b""), 400, "DIGEST_INVALID")

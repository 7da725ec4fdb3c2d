"""Content discovery (distribution-spec v1.1, "Content Discovery"): tags and referrers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.conformance.oci.distribution import (
    CONFIG,
    EMPTY,
    INDEX,
    MANIFEST,
    NOBODY,
    Place,
    check_error,
    describe_manifest,
    read_link,
)
from tests.served import digest_of

pytestmark = pytest.mark.processes

TAGS = ["Test4", "test0", "test1", "test2", "test3"]
SCAN, SIGNATURE = "application/vnd.example.scan.v1", "application/vnd.example.signature.v1"


# ── tags ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def tagged(place: Place) -> Place:
    """Give a repository of one version with five aliases."""
    content = place.make_image()
    for tag in reversed(TAGS):
        assert place.put_manifest(content, tag).status == 201
    return place


def test_tags_are_listed_in_their_order(tagged: Place) -> None:
    answer = tagged.ask("GET", "tags/list")

    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {"name": tagged.path, "tags": ["1", *TAGS]}
    assert "link" not in answer.headers


def test_tags_are_limited_and_gone_on_with(tagged: Place) -> None:
    everything = ["1", *TAGS]
    page = tagged.ask("GET", "tags/list?n=2")
    rest = tagged.ask("GET", f"tags/list?n=3&last={everything[1]}")

    assert page.json()["tags"] == everything[:2]
    assert rest.json()["tags"] == everything[2:5]
    assert tagged.ask("GET", "tags/list?n=6").json()["tags"] == everything
    assert tagged.ask("GET", "tags/list?last=zzz").json()["tags"] == []
    check_error(tagged.ask("GET", "tags/list?n=-1"), 400)

    found, address = [], f"/v2/{tagged.path}/tags/list?n=2"
    while address is not None:
        answer = tagged.ask_at("GET", address)
        found += answer.json()["tags"]
        address = read_link(answer.headers)
    assert found == everything


def test_no_tags_are_asked_for_and_none_come(tagged: Place) -> None:
    answer = tagged.ask("GET", "tags/list?n=0")

    assert (answer.json()["tags"], "link" in answer.headers) == ([], False)


def test_a_repository_without_versions_has_an_empty_list(place: Place) -> None:
    place.push_image()  # by its digest alone

    assert place.ask("GET", "tags/list").json() == {"name": place.path, "tags": []}


# ── referrers ────────────────────────────────────────────────────────────────────────────────────────────────────


def make_referrer(place: Place, subject: dict[str, Any], **more: Any) -> bytes:
    """Push the blob of a manifest that speaks of another one, and return it."""
    empty = place.describe(b"{}", EMPTY)
    document = {
        "schemaVersion": 2, "mediaType": MANIFEST, "config": empty, "layers": [empty], "subject": subject, **more,
    }  # fmt: skip
    return json.dumps(document).encode()


def list_referrers(place: Place, digest: str, query: str = "") -> list[dict[str, Any]]:
    answer = place.ask("GET", f"referrers/{digest}{query}")
    assert answer.status == 200
    assert answer.headers["content-type"] == INDEX
    index = answer.json()
    assert (index["schemaVersion"], index["mediaType"]) == (2, INDEX)
    found: list[dict[str, Any]] = index["manifests"]
    return found


def test_nothing_speaks_of_a_manifest_that_is_not_there(place: Place) -> None:
    assert list_referrers(place, NOBODY) == []
    check_error(place.ask("GET", "referrers/latest"), 400, "DIGEST_INVALID")


def test_whatever_speaks_of_a_manifest_is_listed_with_its_type_and_annotations(place: Place, other: Place) -> None:
    image = place.push_image("champion")
    subject = describe_manifest(image)
    annotations = {"org.opencontainers.image.created": "2026-01-01T00:00:00Z"}
    typed = make_referrer(place, subject, artifactType=SIGNATURE, annotations=annotations)
    by_config = make_referrer(place, subject, config=place.describe(b"{}", SCAN), layers=[])
    index = json.dumps(
        {
            "schemaVersion": 2, "mediaType": INDEX, "artifactType": SCAN, "manifests": [describe_manifest(typed)],
            "subject": subject,
        }
    ).encode()  # fmt: skip
    bare = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": [], "subject": subject}).encode()
    pushed = {typed: MANIFEST, by_config: MANIFEST, index: INDEX, bare: INDEX}
    for content, media_type in pushed.items():
        put = place.put_manifest(content, media_type=media_type)
        assert (put.status, put.headers["oci-subject"]) == (201, subject["digest"])
    found = {each["digest"]: each for each in list_referrers(place, subject["digest"])}

    assert found[digest_of(typed)] == {
        **describe_manifest(typed), "artifactType": SIGNATURE, "annotations": annotations,
    }  # fmt: skip
    assert found[digest_of(by_config)] == {**describe_manifest(by_config), "artifactType": SCAN}
    assert found[digest_of(index)] == {**describe_manifest(index, INDEX), "artifactType": SCAN}
    assert found[digest_of(bare)] == describe_manifest(bare, INDEX)
    assert list_referrers(other, subject["digest"]) == []
    assert place.ask("GET", f"manifests/{digest_of(index)}").body == index


def test_referrers_are_filtered_by_type_and_the_answer_says_so(place: Place) -> None:
    subject = describe_manifest(place.push_image())
    for kind in (SCAN, SIGNATURE):
        assert place.put_manifest(make_referrer(place, subject, artifactType=kind)).status == 201
    answer = place.ask("GET", f"referrers/{subject['digest']}?artifactType={SCAN}")

    assert [each["artifactType"] for each in answer.json()["manifests"]] == [SCAN]
    assert answer.headers["oci-filters-applied"] == "artifactType"
    assert list_referrers(place, subject["digest"], f"?artifactType={CONFIG}") == []


def test_what_speaks_of_a_manifest_may_come_before_it(place: Place) -> None:
    image = place.make_image()
    referrer = make_referrer(place, describe_manifest(image), artifactType=SIGNATURE)
    assert place.put_manifest(referrer).status == 201
    assert place.ask("GET", f"manifests/{digest_of(image)}").status == 404
    assert place.put_manifest(image).status == 201

    assert [each["digest"] for each in list_referrers(place, digest_of(image))] == [digest_of(referrer)]


def test_many_large_referrers_come_in_pages(place: Place) -> None:
    subject = describe_manifest(place.push_image())
    text = "x" * 1_500_000
    pushed = [make_referrer(place, subject, artifactType=f"a/{n % 2}", annotations={f"n{n}": text}) for n in range(9)]
    for content in pushed:
        assert place.put_manifest(content).status == 201
    for query, wanted in (("", pushed), ("?artifactType=a/1", pushed[1::2])):
        found, pages = [], 0
        address: str | None = f"/v2/{place.path}/referrers/{subject['digest']}{query}"
        while address is not None:
            answer = place.ask_at("GET", address)
            assert len(answer.body) <= 4 << 20
            found += [each["digest"] for each in answer.json()["manifests"]]
            address, pages = read_link(answer.headers), pages + 1
        assert found == sorted(map(digest_of, wanted))
        assert pages > 1

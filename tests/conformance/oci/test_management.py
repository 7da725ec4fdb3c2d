"""Content management (distribution-spec v1.1, "Content Management"): what is sealed is not deleted, which 405 says."""

from __future__ import annotations

import json

import pytest

from tests.conformance.oci.distribution import Place, check_error
from tests.served import digest_of

pytestmark = pytest.mark.processes


def test_nothing_is_deleted_and_everything_stays(place: Place) -> None:
    content = place.push_image("champion")
    unregistered = place.push_image()
    layer = json.loads(content)["layers"][0]["digest"]
    held = [f"manifests/{digest_of(content)}", "manifests/champion", "manifests/1", f"blobs/{layer}"]
    held += [f"manifests/{digest_of(unregistered)}"]
    for what in held:
        check_error(place.ask("DELETE", what), 405, "UNSUPPORTED")

    assert [place.ask("HEAD", what).status for what in held] == [200] * len(held)
    assert place.ask("GET", "tags/list").json()["tags"] == ["1", "champion"]


def test_a_version_deleted_in_the_catalogue_has_no_tag(place: Place) -> None:
    content = place.push_image("champion")
    served = place.served
    served.ask("DELETE", f"/api/v1/models/{place.name}/aliases/champion")
    deleted = served.ask("DELETE", f"/api/v1/models/{place.name}/versions/1")

    assert deleted.status in {200, 204}, deleted
    assert place.ask("GET", "tags/list").json()["tags"] == []
    check_error(place.ask("GET", "manifests/1"), 404, "MANIFEST_UNKNOWN")
    check_error(place.ask("GET", "manifests/champion"), 404, "MANIFEST_UNKNOWN")
    # pushed once more it is a version once more
    assert place.put_manifest(content, "champion").headers["touchmark-version"] == "2"

"""A client of the OCI Distribution specification v1.1 that knows nothing of Touchmark but how a repository comes to be.

Requests are as the specification has them, and as its own conformance suite sends them. Manifests are those of container
images and of ORAS, none in Touchmark's own form.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from tests.served import Answer, Served, digest_of

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
EMPTY = "application/vnd.oci.empty.v1+json"
TITLE = "org.opencontainers.image.title"
NOBODY = "sha256:" + "0" * 64

CODES = {
    "BLOB_UNKNOWN", "BLOB_UPLOAD_INVALID", "BLOB_UPLOAD_UNKNOWN", "DIGEST_INVALID", "MANIFEST_BLOB_UNKNOWN",
    "MANIFEST_INVALID", "MANIFEST_UNKNOWN", "NAME_INVALID", "NAME_UNKNOWN", "SIZE_INVALID", "UNAUTHORIZED", "DENIED",
    "UNSUPPORTED", "TOOMANYREQUESTS",
}  # fmt: skip
"""Every code of the specification ("Error Codes")."""


class Place:
    """A repository: the model `name`."""

    def __init__(self, served: Served, name: str) -> None:
        """Make the model."""
        self.served, self.name, self.path = served, name, f"models/{name}"
        assert served.ask("POST", "/api/v1/models", {"name": name}).status == 201

    def ask(self, method: str, rest: str, body: bytes | None = None, **headers: str) -> Answer:
        """Send a request below the repository; `_` in a header's name is `-`."""
        spelled = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.served.ask(method, f"/v2/{self.path}/{rest}", body, spelled)

    def ask_at(self, method: str, location: str, body: bytes | None = None, **headers: str) -> Answer:
        """Send a request to a Location, which may be a path alone (RFC 9110, 10.2.2)."""
        spelled = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.served.ask(method, location, body, spelled)

    def begin(self) -> str:
        """Begin an upload and return its Location."""
        begun = self.ask("POST", "blobs/uploads/", b"")
        assert begun.status == 202, begun
        return begun.headers["location"]

    def push_blob(self, data: bytes) -> str:
        """Push a blob with POST and PUT, and return its digest."""
        digest = digest_of(data)
        put = self.ask_at("PUT", with_digest(self.begin(), digest), data, Content_Type="application/octet-stream")
        assert put.status == 201, put
        return digest

    def describe(self, data: bytes, media_type: str, **more: Any) -> dict[str, Any]:
        """Push a blob and return its descriptor."""
        return {"mediaType": media_type, "digest": self.push_blob(data), "size": len(data), **more}

    def make_image(self, *, layers: int = 1, **more: Any) -> bytes:
        """Push the blobs of a new container image and return its manifest."""
        document = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": self.describe(json.dumps({"author": os.urandom(8).hex()}).encode(), CONFIG),
            "layers": [self.describe(os.urandom(200), LAYER) for _ in range(layers)],
            **more,
        }
        return json.dumps(document).encode()

    def put_manifest(self, content: bytes, reference: str | None = None, media_type: str = MANIFEST) -> Answer:
        """Put a manifest, by its digest if nothing else is said."""
        return self.ask("PUT", f"manifests/{reference or digest_of(content)}", content, Content_Type=media_type)

    def push_image(self, reference: str | None = None, **more: Any) -> bytes:
        """Push a new container image and return its manifest."""
        content = self.make_image(**more)
        put = self.put_manifest(content, reference)
        assert put.status == 201, put
        return content


def describe_manifest(content: bytes, media_type: str = MANIFEST) -> dict[str, Any]:
    """Return the descriptor of a manifest."""
    return {"mediaType": media_type, "digest": digest_of(content), "size": len(content)}


def with_digest(location: str, digest: str) -> str:
    """Return an upload's Location with the digest that ends it; a Location may have a query already."""
    return f"{location}{'&' if '?' in location else '?'}digest={digest}"


def check_error(answer: Answer, status: int, code: str | None = None) -> None:
    """Fail unless this is an error of the specification's form, with one of its codes ("Error Codes")."""
    assert answer.status == status, answer
    assert answer.headers["content-type"].startswith("application/json")
    (error,) = answer.json()["errors"]
    assert error["code"] in CODES
    assert isinstance(error["message"], str)
    if code is not None:
        assert error["code"] == code


def read_link(headers: Mapping[str, str]) -> str | None:
    """Return where the next page is (RFC 5988), None on the last one."""
    if "link" not in headers:
        return None
    address, _, rest = headers["link"].partition(">")
    assert 'rel="next"' in rest
    return address.removeprefix("<")

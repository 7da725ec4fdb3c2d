"""The OpenAPI document against a real server: schemathesis makes requests from the one and holds the other to it.

For each operation: the cases its schemas suggest, valid and invalid, and a few random ones, the same in every run. Every
answer must have a documented status, media type, headers and body; no answer is a 5xx; what breaks the document is
refused. What follows it may still be refused with 400: JSON Schema cannot say "in normal form C" or "a reference".
"""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator

import httpx
import pytest
import schemathesis
from schemathesis.config import SchemathesisConfig

from touchmark.protocols.native.openapi import build_document

pytestmark = [pytest.mark.processes, pytest.mark.timeout(300)]

# 503: blob_missing, "upload it and try again"; 501: `unsupported`, of a valid upload straight to a bucket that is not there.
_ANSWERS = ["2xx", "4xx", "501", "503"]
EXAMPLES = int(os.environ.get("TOUCHMARK_SCHEMA_EXAMPLES") or 10)
SEED = int(os.environ.get("TOUCHMARK_SCHEMA_SEED") or 1)
"""More of them, and others, in tests/soak."""
CONFIG = SchemathesisConfig.from_dict(
    {
        "seed": SEED,
        "generation": {
            "max-examples": EXAMPLES,
            "deterministic": SEED == 1,
            "no-shrink": True,
            "database": "none",
        },
        "checks": {
            "not_a_server_error": {"expected-statuses": _ANSWERS},
            "positive_data_acceptance": {"expected-statuses": _ANSWERS},
            "negative_data_rejection": {"expected-statuses": ["4xx"]},
        },
    }
)
schema = schemathesis.openapi.from_dict(build_document(), config=CONFIG)

_SERVE = """
import sys
from pathlib import Path
from touchmark.server.serving import serve
from touchmark.server.settings import Settings
serve(Settings(home=Path(sys.argv[1]), port=int(sys.argv[2]), log_requests=False, exit_with_parent=True))
"""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start a server that holds the model, the version and the alias of the document's examples."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-c", _SERVE, str(tmp_path_factory.mktemp("home")), str(port)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        server.stdout.readline()  # it says so once it answers
        try:
            fill(f"http://127.0.0.1:{port}")
            yield f"http://127.0.0.1:{port}"
        finally:
            server.kill()


def fill(address: str) -> None:
    """Register a version with one file, and point an alias at it."""
    data = b"weights"
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    with httpx.Client(base_url=address) as client:
        model_id = client.post("/api/v1/logged-models", json={"name": "net"}).json()["model_id"]
        for method, path, more in (
            ("POST", f"/v2/logged-models/{model_id}/blobs/uploads/?digest={digest}", {"content": data}),
            ("PUT", f"/api/v1/logged-models/{model_id}/artifacts", {"json": {"files": {"model.bin": digest}}}),
            ("POST", f"/api/v1/logged-models/{model_id}/finish", {"json": {"status": "READY"}}),
            ("POST", "/api/v1/models/risk.churn/versions", {"json": {"source": f"models:/{model_id}"}}),
            ("PUT", "/api/v1/models/risk.churn/aliases/champion", {"json": {"version": 1}}),
        ):
            client.request(method, path, **more).raise_for_status()


@schema.parametrize()
def test_the_server_does_what_its_document_says(case: schemathesis.Case, address: str) -> None:
    case.call_and_validate(base_url=f"{address}/api/v1")

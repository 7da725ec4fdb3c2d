"""A server that MLflow's client is pointed at, and what is asked of every version that is registered through it.

The same tests run against MLflow's own server (TOUCHMARK_CONFORMANCE_URI names one), which proves that a test asks for
what MLflow does. What only Touchmark promises is then passed over: sealing here, tests marked `better` elsewhere.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

PROXY = "/api/2.0/mlflow-artifacts/artifacts"
SENT_AGAIN = {408, 429, 500, 502, 503, 504}
"""Statuses after which MLflow's client sends the same request again, for about four minutes in all."""
SOON_SECONDS = 5.0


@dataclass(frozen=True)
class Door:
    """Where a server answers, and whether it is Touchmark."""

    uri: str
    is_touchmark: bool

    @property
    def client(self) -> MlflowClient:
        """Return a client of this server."""
        return MlflowClient(self.uri, self.uri)

    def send(self, method: str, path: str, **more: Any) -> httpx.Response:
        """Send a request as it is; `path` begins at the server's root."""
        return httpx.request(method, self.uri + path, timeout=60, **more)

    def native(self, path: str) -> Any:
        """Return what Touchmark's own API says."""
        answer = self.send("GET", f"/api/v1/{path}")
        assert answer.status_code == 200, answer.text
        return answer.json()

    def look(self, version: ModelVersion) -> Any:
        """Return a version as Touchmark's own API shows it."""
        return self.native(f"models/{quote(version.name, safe='')}/versions/{version.version}")

    def digest_of(self, version: ModelVersion) -> str:
        """Return the digest of a sealed version."""
        found = self.look(version)
        assert found["sealed"], found
        assert re.fullmatch(r"sha256:[0-9a-f]{64}", found["digest"]), found
        return str(found["digest"])

    def check_sealed(self, version: ModelVersion) -> None:
        """Fail unless a version is sealed and stays as it is whatever is done to its run's and model's artifacts.

        Overwrites and deletes all of those through the artifact proxy: the last thing a test does with them.
        """
        if not self.is_touchmark:
            return
        digest, before = self.digest_of(version), read_version(version)
        assert before, "it has files"
        for root in self._sources(version):
            for path in _walk(self, root):
                for method in ("PUT", "DELETE"):
                    answer = self.send(method, f"{PROXY}/{quote(path)}", content=b"tampered")
                    assert answer.status_code == 200, (method, path, answer.text)
        address = self.client.get_model_version_download_uri(version.name, version.version)
        assert address.startswith(f"{self.uri}{PROXY}/sealed/"), address
        for path in before:
            for method in ("PUT", "DELETE"):
                answer = self.send(method, f"{address.removeprefix(self.uri)}/{quote(path)}", content=b"tampered")
                assert 400 <= answer.status_code < 500, (method, path, answer.text)
                assert answer.status_code not in SENT_AGAIN
        assert read_version(version) == before
        assert self.digest_of(version) == digest

    def check_unsealed(self, version: ModelVersion, *words: str) -> None:
        """Fail unless a version says everywhere that its bytes are not held, and answers READY all the same."""
        assert version.status == "READY"
        found = self.look(version)
        assert (found["sealed"], found["digest"]) == (False, None), found
        shown = self.client.get_model_version(version.name, version.version)
        assert shown.status_message, "it says why"
        for word in words:
            assert word in shown.status_message, shown

    def _sources(self, version: ModelVersion) -> list[str]:
        """Return the proxied places of the run and the logged model behind a version."""
        found: list[str] = []
        if version.run_id:
            found.append(self.client.get_run(version.run_id).info.artifact_uri)
        source = version.source
        while match := re.fullmatch(r"models:/([^/]+)/(\d+)", source):
            source = self.client.get_model_version(match[1], match[2]).source
        if model := re.fullmatch(r"models:/(m-[0-9a-f]{32})", source):
            found.append(self.client.get_logged_model(model[1]).artifact_location)
        return [place.removeprefix("mlflow-artifacts:/") for place in found]


def _walk(door: Door, folder: str) -> Iterator[str]:
    answer = door.send("GET", PROXY, params={"path": folder})
    assert answer.status_code == 200, answer.text
    for item in answer.json().get("files", ()):
        path = f"{folder}/{item['path']}"
        if item["is_dir"]:
            yield from _walk(door, path)
        else:
            yield path


def read_files(uri: str) -> dict[str, str]:
    """Download an artifact URI through MLflow's client and return the SHA-256 of each file by its path."""
    with TemporaryDirectory() as folder:
        place = Path(download_artifacts(artifact_uri=uri, dst_path=folder))
        files = [place] if place.is_file() else sorted(path for path in place.rglob("*") if path.is_file())
        base = place.parent if place.is_file() else place
        found = {file.relative_to(base).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    # The client notes in its copy where it came from; what was stored never has that file.
    found.pop("registered_model_meta", None)
    return found


def read_version(version: ModelVersion) -> dict[str, str]:
    """Return the SHA-256 of each file of a version by its path."""
    return read_files(f"models:/{version.name}/{version.version}")


def hash_files(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file below a folder by its path."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@contextmanager
def refused(code: str, *words: str) -> Iterator[None]:
    """Fail unless the block is refused with this error code, these words in its message, and at once."""
    began = time.monotonic()
    with pytest.raises(MlflowException) as caught:
        yield
    assert caught.value.error_code == code, caught.value
    for word in words:
        assert word in str(caught.value), caught.value
    assert time.monotonic() - began < SOON_SECONDS, "it took long: was it sent again?"


def as_dict(entity: Any) -> dict[str, Any]:
    """Return a model or version as plain values, aliases and versions inside it in an order, to compare it whole."""
    found = dict(entity)
    found["aliases"] = dict(found["aliases"]) if isinstance(found["aliases"], dict) else sorted(found["aliases"])
    if "latest_versions" in found:
        found["latest_versions"] = sorted(
            (as_dict(item) for item in found["latest_versions"]), key=itemgetter("version")
        )
    return found

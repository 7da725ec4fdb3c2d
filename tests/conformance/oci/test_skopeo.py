"""A client of other hands pushes and pulls: skopeo, from the distribution's packages."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.parts import skip_without
from tests.served import serve

pytestmark = pytest.mark.processes

WEIGHTS = b"weights" * 100_000


def skopeo(*words: object) -> str:
    done = subprocess.run(
        ["skopeo", "--insecure-policy", *map(str, words)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def make_layout(folder: Path, files: dict[str, bytes]) -> bytes:
    """Write an OCI image layout of plain files, tagged `v`, as a push of plain files looks; return its manifest's bytes."""
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def store(data: bytes, media_type: str, **more: Any) -> dict[str, Any]:
        name = hashlib.sha256(data).hexdigest()
        (blobs / name).write_bytes(data)
        return {"mediaType": media_type, "digest": f"sha256:{name}", "size": len(data), **more}

    title = "org.opencontainers.image.title"
    kind = "application/vnd.oci.image.manifest.v1+json"
    document = {
        "schemaVersion": 2,
        "mediaType": kind,
        "artifactType": "application/vnd.example.model",
        "config": store(b"{}", "application/vnd.oci.empty.v1+json"),
        "layers": [store(data, "application/octet-stream", annotations={title: path}) for path, data in files.items()],
    }
    manifest = json.dumps(document).encode()
    tagged = store(manifest, kind, annotations={"org.opencontainers.image.ref.name": "v"})
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [tagged]}))
    (folder / "oci-layout").write_text(json.dumps({"imageLayoutVersion": "1.0.0"}))
    return manifest


def test_skopeo_pushes_by_alias_lists_and_pulls(tmp_path: Path) -> None:
    if shutil.which("skopeo") is None:
        skip_without("skopeo: apt-get install skopeo")
    manifest = make_layout(tmp_path / "in", {"model.bin": WEIGHTS, "folder/notes.txt": b"notes"})
    with serve(tmp_path / "home") as served:
        served.ask("POST", "/api/v1/models", {"name": "net"})
        place = f"docker://127.0.0.1:{served.port}/models/net"
        for alias in ("champion", "champion", "challenger"):
            skopeo("copy", "--dest-tls-verify=false", f"oci:{tmp_path / 'in'}:v", f"{place}:{alias}")
        tags = json.loads(skopeo("list-tags", "--tls-verify=false", place))["Tags"]
        raw = skopeo("inspect", "--raw", "--tls-verify=false", f"{place}:champion")
        skopeo("copy", "--src-tls-verify=false", f"{place}:1", f"oci:{tmp_path / 'out'}:v")
        model = served.ask("GET", "/api/v1/models/net").json()
        version = served.ask("GET", "/api/v1/models/net/versions/1").json()

    assert (model["version_count"], model["aliases"]) == (1, {"challenger": 1, "champion": 1})
    assert version["digest"] == "sha256:" + hashlib.sha256(manifest).hexdigest()
    assert version["file_count"] == 2
    assert tags == ["1", "challenger", "champion"]
    assert raw.encode() == manifest
    assert (tmp_path / "out/blobs/sha256" / hashlib.sha256(WEIGHTS).hexdigest()).read_bytes() == WEIGHTS

"""A registry whose files are in a real bucket (Ceph's S3 gateway): registered, killed, checked, pulled, backed up."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

import touchmark
from tests.acceptance.racing import race, read_own_writes, share_bytes
from tests.ceph import Ceph
from tests.clouds import AzureStandIn
from tests.served import Served, digest_of, serve
from touchmark.domain.errors import UnsupportedHomeError
from touchmark.ops.backup import write_backup
from touchmark.ops.fsck import check_registry, open_for_check
from touchmark.ops.restore import restore_backup
from touchmark.ops.setup import open_registry

pytestmark = [pytest.mark.processes, pytest.mark.ceph]

WEIGHTS = b"0123456789abcdef" * (3 << 16)  # 3 MiB


@pytest.fixture
def bucket(ceph_cluster: Ceph, monkeypatch: pytest.MonkeyPatch) -> str:
    for key, value in ceph_cluster.environ().items():
        monkeypatch.setenv(key, value)
    return f"s3://{ceph_cluster.make_bucket()}/models"


def register(served: Served, folder: Path) -> touchmark.Registry:
    folder.mkdir(exist_ok=True)
    (folder / "model.bin").write_bytes(WEIGHTS)
    registry = touchmark.connect(f"http://127.0.0.1:{served.port}")
    registry.register_model(str(folder), "net")
    registry.set_alias("net", "champion", 1)
    return registry


def test_a_registry_in_a_bucket_survives_a_kill_and_is_whole(bucket: str, home: Path, tmp_path: Path) -> None:
    with serve(home, "--artifacts", bucket) as served:
        register(served, tmp_path / "in").close()
        served.process.send_signal(signal.SIGKILL)
        served.process.wait()
    with serve(home) as served:  # the home remembers where its files are
        registry = touchmark.connect(f"http://127.0.0.1:{served.port}")
        pulled = registry.pull("models:/net@champion", tmp_path / "out")
        registry.close()
        said = "\n".join(served.log)
    checked = open_for_check(home)
    report = check_registry(checked, deep=True)
    checked.close()

    assert (pulled / "model.bin").read_bytes() == WEIGHTS
    assert "Files are in s3://" in said
    assert report.findings == []
    assert not (home / "blobs").exists()
    with pytest.raises(UnsupportedHomeError, match="its files are in"):
        open_registry(home, artifacts="s3://another/place")


def test_a_client_fetches_from_the_bucket_by_a_signed_address(bucket: str, home: Path, tmp_path: Path) -> None:
    with serve(home, "--artifacts", bucket, "--presign") as served:
        registry = register(served, tmp_path / "in")
        found = registry.resolve("models:/net/1")
        path = f"/v2/m/{found.model_id}/blobs/{digest_of(WEIGHTS)}"
        sent = served.ask("GET", path)
        head = served.ask("HEAD", path)
        part = served.ask("GET", path, headers={"Range": "bytes=1-3"})
        with urllib.request.urlopen(sent.headers["location"], timeout=30) as answer:
            fetched = answer.read()
        tampered = sent.headers["location"].replace("X-Amz-Expires=600", "X-Amz-Expires=999")
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(tampered, timeout=30)
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(urllib.request.Request(sent.headers["location"], b"other", method="PUT"), timeout=30)
        registry.close()

    assert (sent.status, sent.body, sent.headers["cache-control"]) == (307, b"", "no-store")
    assert fetched == WEIGHTS
    assert head.status == 200
    assert (part.status, part.body) == (206, WEIGHTS[1:4])


def test_a_bucket_is_backed_up_and_restored_into_a_folder(bucket: str, home: Path, tmp_path: Path) -> None:
    with serve(home, "--artifacts", bucket) as served:
        register(served, tmp_path / "in").close()
    source = open_for_check(home)
    write_backup(source, tmp_path / "backup")
    source.close()
    restore_backup(tmp_path / "backup", tmp_path / "again")
    checked = open_for_check(tmp_path / "again")
    report = check_registry(checked, deep=True)
    held = checked.blobs.read(digest_of(WEIGHTS))  # type: ignore[arg-type]
    checked.close()

    assert report.findings == []
    assert held == WEIGHTS


def test_a_bucket_that_does_not_answer_is_said_so_at_once(
    bucket: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(AssertionError, match="refused the request"), serve(home, "--artifacts", bucket):
        pass


def test_a_mistyped_bucket_is_not_remembered(bucket: str, home: Path) -> None:
    wrong = subprocess.run(
        [sys.executable, "-m", "touchmark", "serve", "--home", str(home), "--artifacts", bucket.replace("/models", "x/models")],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip

    assert wrong.returncode == 8
    assert "bucket" in wrong.stderr
    with serve(home, "--artifacts", bucket) as served:
        assert served.new_run()


@pytest.mark.postgres
def test_two_servers_with_homes_of_their_own_share_a_database_and_a_bucket(
    bucket: str, postgres_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--database", postgres_url, "--artifacts", bucket, "--no-log-requests")

    def show(line: str) -> None:
        with capsys.disabled():
            print(f"\n{line}")

    with serve(tmp_path / "one", *flags) as one, serve(tmp_path / "two", *flags) as two:
        read_own_writes((one, two), 200, tmp_path, show)
        share_bytes((one, two), 6, tmp_path)
        race((one, two), 2, 8, 30, tmp_path, show)

    for home in ("one", "two"):
        checked = open_for_check(tmp_path / home, postgres_url)
        report = check_registry(checked, deep=True)
        checked.close()
        assert report.findings == []


def test_a_bucket_belongs_to_the_registry_that_came_first(bucket: str, tmp_path: Path) -> None:
    for name in ("one", "one"):  # the same one starts again
        with serve(tmp_path / name, "--artifacts", bucket) as served:
            assert any("multipart yes, copy yes" in line for line in served.log)

    with (
        pytest.raises(AssertionError, match="holds the files of another registry"),
        serve(tmp_path / "two", "--artifacts", bucket),
    ):
        pass


def test_a_registry_may_lie_in_azure(
    azure_stand_in: AzureStandIn, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key, value in azure_stand_in.environ().items():
        monkeypatch.setenv(key, value)
    (tmp_path / "large").mkdir()
    large = os.urandom((32 << 20) + 5)
    (tmp_path / "large" / "model.bin").write_bytes(large)
    with serve(home, "--artifacts", f"az://{azure_stand_in.make_bucket()}/models", "--presign") as served:
        register(served, tmp_path / "in").close()
        registry = touchmark.connect(f"http://127.0.0.1:{served.port}")
        registry.register_model(str(tmp_path / "large"), "net")  # no addresses for uploads there: through the server
        pulled = registry.pull("models:/net/1", tmp_path / "out")
        again = registry.pull("models:/net/2", tmp_path / "again")
        sent = served.ask("GET", f"/v2/m/{registry.resolve('models:/net/1').model_id}/blobs/{digest_of(WEIGHTS)}")
        registry.close()
        said = "\n".join(served.log)
    checked = open_for_check(home)
    report = check_registry(checked, deep=True)
    checked.close()

    assert (pulled / "model.bin").read_bytes() == WEIGHTS
    assert (again / "model.bin").read_bytes() == large
    assert "multipart yes, copy yes" in said
    assert "presign yes" in said
    assert sent.status == 307
    assert report.findings == []

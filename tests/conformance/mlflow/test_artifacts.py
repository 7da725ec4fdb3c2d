"""Artifacts of runs through MLflow's client and its proxy: logged, listed, downloaded, overwritten, deleted."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient

from tests.conformance.mlflow.doors import PROXY, SENT_AGAIN, Door, hash_files, read_files
from tests.conformance.mlflow.trained import write_files

pytestmark = [pytest.mark.mlflow, pytest.mark.processes, pytest.mark.filterwarnings("ignore")]

MIB = 1 << 20


@pytest.fixture
def run_id(client: MlflowClient, experiment: str) -> str:
    """Give a run."""
    return str(client.create_run(experiment).info.run_id)


@pytest.fixture
def place(client: MlflowClient, run_id: str) -> str:
    """Give the proxy's path of the run's artifacts."""
    return f"{PROXY}/{client.get_run(run_id).info.artifact_uri.removeprefix('mlflow-artifacts:/')}"


def test_a_folder_comes_back_as_it_was(client: MlflowClient, run_id: str, tmp_path: Path) -> None:
    client.log_artifacts(run_id, str(write_files(tmp_path / "files")), "data")
    assert read_files(f"runs:/{run_id}/data") == hash_files(tmp_path / "files")
    got = Path(client.download_artifacts(run_id, "data", str(tmp_path)))
    assert hash_files(got) == hash_files(tmp_path / "files")
    assert Path(client.download_artifacts(run_id, "data/a.txt", str(tmp_path))).read_bytes() == b"alpha"
    got = Path(mlflow.artifacts.download_artifacts(run_id=run_id, dst_path=str(tmp_path / "all")))
    assert hash_files(got / "data") == hash_files(tmp_path / "files")


def test_artifacts_are_listed(client: MlflowClient, run_id: str, tmp_path: Path) -> None:
    client.log_artifacts(run_id, str(write_files(tmp_path / "files")), "data")
    client.log_text(run_id, "text", "top.txt")

    def listed(path: str | None = None) -> dict[str, tuple[bool, int | None]]:
        return {item.path: (item.is_dir, item.file_size) for item in client.list_artifacts(run_id, path)}

    assert listed() == {"data": (True, None), "top.txt": (False, 4)}
    assert listed("data") == {"data/a.txt": (False, 5), "data/nested": (True, None), "data/with blank": (True, None)}
    assert listed("data/nested") == {"data/nested/deeper": (True, None), "data/nested/empty": (False, 0)}
    assert listed("top.txt") == {}
    assert listed("none") == {}


def test_many_kinds_of_things_are_logged(client: MlflowClient, run_id: str, tmp_path: Path) -> None:
    client.log_text(run_id, "é\n", "notes/text.txt")
    client.log_dict(run_id, {"a": [1, None]}, "notes/data.json")
    client.log_dict(run_id, {"a": 1}, "notes/data.yaml")
    (tmp_path / "one.bin").write_bytes(b"\x00\xff")
    client.log_artifact(run_id, str(tmp_path / "one.bin"), "bytes")
    assert mlflow.artifacts.load_text(f"runs:/{run_id}/notes/text.txt") == "é\n"
    assert mlflow.artifacts.load_dict(f"runs:/{run_id}/notes/data.json") == {"a": [1, None]}
    assert Path(client.download_artifacts(run_id, "bytes/one.bin", str(tmp_path))).read_bytes() == b"\x00\xff"


def test_a_file_is_overwritten(client: MlflowClient, run_id: str) -> None:
    client.log_text(run_id, "first, longer", "a.txt")
    client.log_text(run_id, "second", "a.txt")
    assert mlflow.artifacts.load_text(f"runs:/{run_id}/a.txt") == "second"
    assert [item.file_size for item in client.list_artifacts(run_id)] == [6]


def test_a_table_grows(client: MlflowClient, run_id: str) -> None:
    client.log_table(run_id, {"x": [1, 2]}, "table.json")
    client.log_table(run_id, {"x": [3]}, "table.json")
    assert list(client.load_table(client.get_run(run_id).info.experiment_id, "table.json", [run_id])["x"]) == [1, 2, 3]


def test_files_are_deleted(door: Door, client: MlflowClient, run_id: str, place: str, tmp_path: Path) -> None:
    client.log_artifacts(run_id, str(write_files(tmp_path / "files")))
    assert door.send("DELETE", f"{place}/a.txt").status_code == 200
    assert door.send("DELETE", f"{place}/a.txt").status_code == 200
    assert door.send("GET", f"{place}/a.txt").status_code == 404
    assert door.send("DELETE", f"{place}/nested").status_code == 200
    assert [item.path for item in client.list_artifacts(run_id)] == ["with blank"]


def test_a_big_file_comes_back_as_it_was(client: MlflowClient, run_id: str, tmp_path: Path) -> None:
    data = os.urandom(MIB) * 24
    (tmp_path / "big.bin").write_bytes(data)
    client.log_artifact(run_id, str(tmp_path / "big.bin"))
    assert [item.file_size for item in client.list_artifacts(run_id)] == [24 * MIB]
    (tmp_path / "back").mkdir()
    got = Path(client.download_artifacts(run_id, "big.bin", str(tmp_path / "back"))).read_bytes()
    assert hashlib.sha256(got).digest() == hashlib.sha256(data).digest()


def test_a_file_comes_in_parts_too(door: Door, client: MlflowClient, run_id: str, place: str) -> None:
    client.log_text(run_id, "0123456789", "a.txt")
    answer = door.send("GET", f"{place}/a.txt", headers={"Range": "bytes=2-4"})
    assert (answer.status_code, answer.content) == (206, b"234")
    assert answer.headers["content-range"] == "bytes 2-4/10"
    answer = door.send("GET", f"{place}/a.txt", headers={"Range": "bytes=7-"})
    assert (answer.status_code, answer.content) == (206, b"789")
    answer = door.send("HEAD", f"{place}/a.txt")
    assert (answer.status_code, answer.headers["content-length"]) == (200, "10")


def test_nothing_that_is_downloaded_runs_as_a_page(door: Door, client: MlflowClient, run_id: str, place: str) -> None:
    client.log_text(run_id, "<script>alert(1)</script>", "a.html")
    answer = door.send("GET", f"{place}/a.html")
    assert answer.headers["content-disposition"].startswith("attachment")
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_the_interface_s_own_downloads_work(door: Door, client: MlflowClient, run_id: str) -> None:
    client.log_text(run_id, "text", "notes/a.txt")
    answer = door.send("GET", "/get-artifact", params={"run_id": run_id, "path": "notes/a.txt"})
    assert (answer.status_code, answer.content) == (200, b"text")
    answer = door.send("GET", "/api/2.0/mlflow/artifacts/list", params={"run_id": run_id, "path": "notes"})
    assert answer.status_code == 200
    assert [(item["path"], item["file_size"]) for item in answer.json()["files"]] == [("notes/a.txt", 4)]
    query = {"run_uuid": run_id, "path": "sent.txt"}
    answer = door.send("POST", "/ajax-api/2.0/mlflow/upload-artifact", params=query, content=b"sent")
    assert answer.status_code == 200, answer.text
    assert mlflow.artifacts.load_text(f"runs:/{run_id}/sent.txt") == "sent"


def test_a_file_that_is_absent_is_not_found(door: Door, client: MlflowClient, run_id: str, place: str) -> None:
    answer = door.send("GET", f"{place}/none.txt")
    assert (answer.status_code, answer.json()["error_code"]) == (404, "RESOURCE_DOES_NOT_EXIST")
    with pytest.raises(mlflow.MlflowException):
        client.download_artifacts(run_id, "none.txt")


@pytest.mark.parametrize(
    "path", ["../up.txt", "a/../../up.txt", "..%2fup.txt", "%2e%2e/up.txt", "%252e%252e%252fup.txt", "a%5c..%5cup.txt"]
)
def test_a_path_that_climbs_is_refused(door: Door, place: str, path: str) -> None:
    for method in ("PUT", "GET", "DELETE"):
        # Through a socket of our own: a client library would walk the dots by itself.
        import http.client

        link = http.client.HTTPConnection(door.uri.removeprefix("http://"), timeout=20)
        link.request(method, f"{place}/{path}", b"up" if method == "PUT" else None)
        answer = link.getresponse()
        answer.read()
        link.close()
        assert 400 <= answer.status < 500, (method, path, answer.status)
        assert answer.status not in SENT_AGAIN


def test_model_metadata_is_read_from_a_run(client: MlflowClient, run_id: str, tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text(json.dumps({"auc": 0.9}))
    with mlflow.start_run(run_id=run_id):
        mlflow.log_artifact(str(tmp_path / "report.json"))
        assert mlflow.get_artifact_uri("report.json").endswith("/artifacts/report.json")
    assert mlflow.artifacts.load_dict(f"runs:/{run_id}/report.json") == {"auc": 0.9}
    (listed,) = mlflow.artifacts.list_artifacts(run_id=run_id)
    assert listed.path == "report.json"


@pytest.mark.better
def test_what_helps_a_client_transfer_is_announced(door: Door) -> None:
    told = door.send("GET", "/api/3.0/mlflow/server-info").json()
    # Beside the client one PUT is three times as fast as parts; they are announced where there is a public address.
    assert (told["multipart_uploads_enabled"], told["multipart_downloads_enabled"]) == (False, False)
    assert told["workspaces_enabled"] is False


@pytest.mark.better
def test_a_client_that_sends_in_parts_is_served(
    client: MlflowClient, run_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD", "true")
    monkeypatch.setenv("MLFLOW_MULTIPART_UPLOAD_MINIMUM_FILE_SIZE", str(6 * MIB))
    monkeypatch.setenv("MLFLOW_MULTIPART_UPLOAD_CHUNK_SIZE", str(5 * MIB))
    data = os.urandom(MIB) * 12
    (tmp_path / "big.bin").write_bytes(data)
    client.log_artifact(run_id, str(tmp_path / "big.bin"), "parts")
    assert read_files(f"runs:/{run_id}/parts/big.bin") == {"big.bin": hashlib.sha256(data).hexdigest()}

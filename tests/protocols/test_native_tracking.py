"""Experiments, runs, logged models and their files through /api/v1."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.protocols.native_door import FILES, Door, open_door


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def door(request: pytest.FixtureRequest, home: Path) -> Iterator[Door]:
    """Give a server on an empty registry, once on each database."""
    url = None if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    with open_door(home, url) as opened:
        yield opened


def test_an_experiment_is_created_read_and_listed(door: Door) -> None:
    made = door.do("POST", "/experiments", {"name": "churn / 2026", "tags": {"a": "b"}})

    assert door.do("GET", f"/experiments/{made['experiment_id']}") == made
    assert door.refuse("POST", "/experiments", {"name": "churn / 2026"}) == (409, "experiment_exists")
    assert [item["name"] for item in door.do("GET", "/experiments")["items"]] == ["churn / 2026", "Default"]
    page = door.do("GET", "/experiments?limit=1")
    rest = door.do("GET", f"/experiments?limit=1&cursor={page['next_cursor']}")
    assert [item["name"] for item in rest["items"]] == ["Default"]
    assert door.refuse("GET", "/experiments/999") == (404, "experiment_not_found")


def test_a_run_is_begun_logged_ended_deleted_and_restored(door: Door) -> None:
    made = door.ask("POST", "/runs", {"experiment": "churn", "name": "r", "user": "ada", "params": {"lr": "0.1"}})
    assert made.status_code == 201
    run = made.json()
    path = f"/runs/{run['run_id']}"
    assert (run["name"], run["user"], run["status"], run["params"]) == ("r", "ada", "RUNNING", {"lr": "0.1"})

    door.do(
        "POST",
        f"{path}/log",
        {
            "params": {"depth": "3"},
            "metrics": [
                {"key": "loss", "value": 0.5, "at": 1, "step": 1},
                {"key": "loss", "value": "nan", "at": 2, "step": 2},
                {"key": "auc", "value": 1},
            ],
            "tags": {"t": "v"},
        },
    )
    door.do("POST", f"{path}/datasets", {"datasets": [{"name": "train", "digest": "d1", "context": "training"}]})
    ended = door.do("PATCH", path, {"status": "FINISHED"})
    assert ended["status"] == "FINISHED"
    assert ended["ended_at"] is not None
    read = door.do("GET", path)
    assert read == ended
    assert read["metrics"]["loss"] == {"value": "nan", "at": 2, "step": 2}
    assert read["metrics"]["auc"]["value"] == 1.0
    assert read["datasets"][0]["name"] == "train"

    history = door.do("GET", f"{path}/metrics?key=loss&limit=1")
    rest = door.do("GET", f"{path}/metrics?key=loss&limit=1&cursor={history['next_cursor']}")
    assert [item["value"] for item in history["items"] + rest["items"]] == [0.5, "nan"]

    number = read["experiment_id"]
    for experiment in ("churn", number):
        assert [one["run_id"] for one in door.do("GET", f"/runs?experiment={experiment}")["items"]] == [run["run_id"]]
    door.do("DELETE", path)
    assert door.do("GET", "/runs?experiment=churn")["items"] == []
    assert door.refuse("POST", f"{path}/log", {"tags": {"a": "b"}}) == (409, "run_deleted")
    door.do("POST", f"{path}/restore")
    assert door.refuse("POST", f"{path}/log", {"params": {"lr": "0.2"}}) == (409, "param_changed")


def test_files_of_a_run_are_listed_deleted_and_registered(door: Door) -> None:
    run_id = door.do("POST", "/runs", {})["run_id"]
    path = f"/runs/{run_id}/artifacts"
    files = {f"model/{name}": door.upload(f"runs/{run_id}", data) for name, data in FILES.items()}
    door.do("PUT", path, {"files": files})

    root = door.do("GET", path)["items"]
    assert [(entry["path"], entry["is_dir"], entry["digest"]) for entry in root] == [("model", True, None)]
    assert [entry["path"] for entry in door.do("GET", f"{path}?path=model")["items"]] == sorted(files)
    assert {entry["path"]: entry["digest"] for entry in door.do("GET", f"{path}?recursive=true")["items"]} == files

    made = door.do("POST", "/models/risk/versions", {"source": f"runs:/{run_id}/model"})
    assert made["run_id"] == run_id
    door.do("DELETE", f"{path}?path=model/MLmodel")
    assert door.refuse("DELETE", f"{path}?path=model/MLmodel") == (404, "artifact_not_found")
    assert len(door.do("GET", "/models/risk/versions/1/files")["items"]) == 2


def test_only_bytes_uploaded_here_can_be_listed_here(door: Door) -> None:
    one, two = (door.do("POST", "/runs", {})["run_id"] for _ in range(2))
    digest = door.upload(f"runs/{one}", b"secret")

    assert door.refuse("PUT", f"/runs/{two}/artifacts", {"files": {"a": digest}}) == (404, "blob_not_found")


def test_a_logged_model_is_registered_once_it_is_finished(door: Door) -> None:
    run_id = door.do("POST", "/runs", {"params": {"lr": "0.1"}})["run_id"]
    made = door.do("POST", "/logged-models", {"name": "net", "run_id": run_id, "model_type": "torch"})
    path = f"/logged-models/{made['model_id']}"
    assert (made["status"], made["run_id"], made["model_type"]) == ("PENDING", run_id, "torch")
    digest = door.upload(path.strip("/"), b"x")
    door.do("PUT", f"{path}/artifacts", {"files": {"a/b": digest}})
    source = {"source": f"models:/{made['model_id']}"}

    assert door.refuse("POST", "/models/risk/versions", source) == (409, "logged_model_not_ready")
    assert door.do("POST", f"{path}/finish", {"status": "READY"})["status"] == "READY"
    assert door.refuse("POST", f"{path}/finish", {"status": "UPLOAD_FAILED"}) == (409, "conflict")
    version = door.do("POST", "/models/risk/versions", source)
    assert (version["logged_model_id"], version["run_id"]) == (made["model_id"], run_id)
    assert version["origin"]["params"] == {"lr": "0.1"}
    assert door.do("GET", path)["status"] == "READY"
    assert [entry["path"] for entry in door.do("GET", f"{path}/artifacts?recursive=true")["items"]] == ["a/b"]
    door.do("DELETE", f"{path}/artifacts?path=a")
    assert door.do("GET", f"{path}/artifacts")["items"] == []

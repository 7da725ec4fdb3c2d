"""The `mlflow` command: experiments, runs and artifacts."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import mlflow
import pytest
from click.testing import CliRunner
from mlflow import MlflowClient

from tests.conformance.mlflow.doors import Door, hash_files
from tests.conformance.mlflow.trained import log_model, write_files
from tests.conformance.mlflow_reference import plain_environment

pytestmark = [
    pytest.mark.mlflow,
    pytest.mark.processes,
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.timeout(300),
    pytest.mark.parametrize("door", ["sqlite"], indirect=True),  # the protocol is the same
]

Say = Callable[..., str]


@pytest.fixture
def say(door: Door, monkeypatch: pytest.MonkeyPatch) -> Say:
    """Give a function that runs `mlflow` with some words and returns what it prints."""
    from mlflow.cli import cli  # warns while it is imported

    monkeypatch.setenv("MLFLOW_TRACKING_URI", door.uri)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")

    def run(*words: str, code: int = 0) -> str:
        # In this process: each start of the command costs four seconds of importing.
        done = CliRunner().invoke(cli, words)
        assert done.exit_code == code, (words, done.output, done.exception)
        return done.stdout if code == 0 else done.output + str(done.exception)

    return run


def test_the_command_on_a_terminal_finds_the_server(door: Door, experiment: str) -> None:
    environment = plain_environment() | {"MLFLOW_TRACKING_URI": door.uri, "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    command = [Path(sys.executable).parent / "mlflow", "experiments", "get", "-x", experiment, "--output", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=100, env=environment)

    assert json.loads(done.stdout)["experiment_id"] == experiment


def test_an_experiment_lives(say: Say, client: MlflowClient) -> None:
    name = f"experiment {uuid4().hex[:12]}"
    made = re.search(r"id (\d+)", say("experiments", "create", "-n", name))
    assert made is not None
    experiment = made[1]
    assert name in say("experiments", "search")
    assert json.loads(say("experiments", "get", "-x", experiment, "--output", "json"))["name"] == name
    say("experiments", "rename", "-x", experiment, "--new-name", f"{name} new")
    assert client.get_experiment(experiment).name == f"{name} new"
    say("experiments", "delete", "-x", experiment)
    assert client.get_experiment(experiment).lifecycle_stage == "deleted"
    say("experiments", "restore", "-x", experiment)
    assert client.get_experiment(experiment).lifecycle_stage == "active"
    assert "already exists" in say("experiments", "create", "-n", f"{name} new", code=1)


def test_a_run_lives(say: Say, client: MlflowClient, experiment: str) -> None:
    with mlflow.start_run(experiment_id=experiment, run_name="told") as run:
        mlflow.log_param("depth", 3)
        mlflow.log_metric("auc", 0.5)
    run_id = run.info.run_id
    listed = say("runs", "list", "--experiment-id", experiment)
    assert run_id in listed
    assert "told" in listed
    told = json.loads(say("runs", "describe", "--run-id", run_id))
    assert told["data"]["params"] == {"depth": "3"}
    assert told["data"]["metrics"] == {"auc": 0.5}
    rows = list(csv.DictReader(io.StringIO(say("experiments", "csv", "-x", experiment))))
    assert [(row["run_id"], row["metrics.auc"], row["params.depth"]) for row in rows] == [(run_id, "0.5", "3")]
    say("runs", "delete", "--run-id", run_id)
    assert client.get_run(run_id).info.lifecycle_stage == "deleted"
    say("runs", "restore", "--run-id", run_id)
    assert client.get_run(run_id).info.lifecycle_stage == "active"
    assert "not found" in say("runs", "describe", "--run-id", "0123456789abcdef0123456789abcdef", code=1)


def test_artifacts_go_up_and_come_back(say: Say, client: MlflowClient, experiment: str, tmp_path: Path) -> None:
    run_id = client.create_run(experiment).info.run_id
    folder = write_files(tmp_path / "files")
    say("artifacts", "log-artifacts", "--local-dir", str(folder), "--run-id", run_id, "--artifact-path", "data")
    say("artifacts", "log-artifact", "--local-file", str(folder / "a.txt"), "--run-id", run_id)
    listed = json.loads(say("artifacts", "list", "--run-id", run_id))
    assert {(item["path"], item["is_dir"]) for item in listed} == {("a.txt", False), ("data", True)}
    say("artifacts", "download", "--run-id", run_id, "--artifact-path", "data", "-d", str(tmp_path / "got"))
    assert hash_files(tmp_path / "got" / "data") == hash_files(folder)


def test_a_sealed_version_is_downloaded(door: Door, say: Say, client: MlflowClient, name: str, tmp_path: Path) -> None:
    mlflow.set_experiment(f"experiment {uuid4().hex[:12]}")
    log_model(name)
    version = client.get_model_version(name, "1")
    say("artifacts", "download", "--artifact-uri", f"models:/{name}/1", "-d", str(tmp_path / "before"))
    door.check_sealed(version)
    say("artifacts", "download", "--artifact-uri", f"models:/{name}/1", "-d", str(tmp_path / "after"))
    before = hash_files(tmp_path / "before")
    assert "MLmodel" in before
    assert hash_files(tmp_path / "after") == before

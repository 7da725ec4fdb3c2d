"""MLflow's last 2.x client, by its own interpreter: the core of what its users do ends sealed, like all else."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from tests.conformance.mlflow.doors import Door
from tests.conformance.mlflow.trained import predict
from tests.conformance.mlflow_reference import plain_environment
from tests.house.source import ROOT
from tests.parts import skip_without

pytestmark = [pytest.mark.mlflow, pytest.mark.processes, pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(300)]

PYTHON = ROOT / ".venv-mlflow2" / "bin" / "python"
SCRIPT = Path(__file__).with_name("flows_of_mlflow2.py")


def run_script(door: Door, name: str, what: str, folder: Path) -> Any:
    """Run the script with the older client, and return what it says."""
    if not PYTHON.exists():
        skip_without("MLflow 2.x: `make test` makes .venv-mlflow2")
    done = subprocess.run(
        [PYTHON, SCRIPT, door.uri, name, what],
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
        cwd=folder,
        env=plain_environment() | {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_what_users_of_2x_do_works_and_ends_sealed(door: Door, client: MlflowClient, name: str, tmp_path: Path) -> None:
    made = run_script(door, name, "register", tmp_path)
    assert made["child_parent"] == made["run_id"]
    assert made["params"] == {"depth": "3", "lr": "0.1"}
    assert made["history"] == [1.0, 1.0 / 2, 1.0 / 3]
    assert made["found"] == [made["run_id"]]
    assert made["artifacts"] == ["model", "notes", "other"]
    assert made["registered"] == "2"
    assert made["copied"] == [f"{name}.copy", "1", f"models:/{name}/1"]
    assert made["refused"] == "RESOURCE_ALREADY_EXISTS"
    assert made["latest"] == {"None": "1", "Production": "2"}
    assert made["searched"] == ["1", "2"]
    assert made["models"] == [name]
    assert made["aliases"] == {"champion": "1"}
    assert made["shown"] == ["first", {"state": "checked"}, "READY"]
    files = made["files"]
    assert files[f"models:/{name}.copy/1"] == files[f"models:/{name}/1"] != files[f"models:/{name}/2"]
    assert made["predictions"] == {
        f"models:/{name}@champion": [2.0, 4.0, 10.0],
        f"models:/{name}/2": [3.0, 6.0, 15.0],
        f"models:/{name}/Production": [3.0, 6.0, 15.0],
        f"models:/{name}.copy/1": [2.0, 4.0, 10.0],
    }
    # The newest client reads what the older one wrote.
    assert predict(f"models:/{name}@champion") == [2.0, 4.0, 10.0]
    # Whatever becomes of the run's files, the older client reads the same.
    for model, number in ((name, "1"), (name, "2"), (f"{name}.copy", "1")):
        door.check_sealed(client.get_model_version(model, number))
    if door.is_touchmark:
        assert run_script(door, name, "look", tmp_path) == {
            key: made[key] for key in ("aliases", "shown", "files", "predictions")
        }

"""A script for the interpreter that has MLflow's last 2.x client: what its users do, with what came of it as JSON.

    python flows_of_mlflow2.py URI NAME register|look

Runs apart from pytest, beside another MLflow: it imports nothing of ours. `register` ends with a line of JSON that says
what the test must find; `look` prints what a client of 2.x reads of the same versions later.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import mlflow
import mlflow.sklearn
import numpy as np
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from sklearn.linear_model import LinearRegression

INPUTS = np.array([[1.0], [2.0], [5.0]])


def fit(slope: float) -> LinearRegression:
    """Return a model that multiplies by `slope`."""
    inputs = np.array([[1.0], [2.0], [3.0]])
    return LinearRegression().fit(inputs, inputs[:, 0] * slope)


def read(uri: str) -> dict[str, str]:
    """Return the digest of each file at an address."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=folder))
        found = {
            path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(root.rglob("*"))
            if path.is_file()
        }
    found.pop("registered_model_meta", None)
    return found


def predict(uri: str) -> list[float]:
    """Load a model and return what it says about INPUTS."""
    return [round(float(value), 6) for value in mlflow.pyfunc.load_model(uri).predict(INPUTS)]


def register(client: MlflowClient, name: str) -> dict[str, Any]:
    """Track, register, promote, copy, rename: versions 1 (logged), 2 (from a run), and a copy of 1."""
    mlflow.set_experiment(f"experiment of {name}")
    with mlflow.start_run(run_name="old client") as run:
        mlflow.log_params({"depth": 3, "lr": 0.1})
        for step in range(3):
            mlflow.log_metric("loss", 1.0 / (step + 1), step=step)
        mlflow.set_tags({"team": "risk"})
        mlflow.log_text("hello", "notes/hello.txt")
        mlflow.sklearn.log_model(fit(2.0), "model", registered_model_name=name, pip_requirements=["scikit-learn"])
        mlflow.sklearn.log_model(fit(3.0), "other", pip_requirements=["scikit-learn"])
        with mlflow.start_run(nested=True, run_name="child") as child:
            mlflow.log_metric("auc", float("nan"))
    run_id = run.info.run_id
    version = mlflow.register_model(f"runs:/{run_id}/other", name)
    client.update_registered_model(name, "words")
    client.update_model_version(name, "1", "first")
    client.set_registered_model_tag(name, "team", "risk")
    client.set_model_version_tag(name, "1", "state", "checked")
    client.set_registered_model_alias(name, "champion", "1")
    client.transition_model_version_stage(name, "2", "Production", archive_existing_versions=True)
    copied = client.copy_model_version(f"models:/{name}@champion", f"{name}.copy")
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        refused = error.error_code
    return {
        "run_id": run_id,
        "child_parent": client.get_run(child.info.run_id).data.tags["mlflow.parentRunId"],
        "params": client.get_run(run_id).data.params,
        "history": [metric.value for metric in client.get_metric_history(run_id, "loss")],
        "found": [item.info.run_id for item in client.search_runs([run.info.experiment_id], "params.depth = '3'")],
        "artifacts": sorted(item.path for item in client.list_artifacts(run_id)),
        "registered": str(version.version),
        "copied": [copied.name, str(copied.version), copied.source],
        "refused": refused,
        "latest": {item.current_stage: str(item.version) for item in client.get_latest_versions(name)},
        "searched": sorted(str(item.version) for item in client.search_model_versions(f"name = '{name}'")),
        "models": [item.name for item in client.search_registered_models(f"name = '{name}'")],
        **look(client, name),
    }


def look(client: MlflowClient, name: str) -> dict[str, Any]:
    """Return what the versions are and do."""
    shown = client.get_model_version(name, "1")
    return {
        "aliases": dict(client.get_registered_model(name).aliases),
        "shown": [shown.description, shown.tags, shown.status],
        "files": {uri: read(uri) for uri in (f"models:/{name}/1", f"models:/{name}/2", f"models:/{name}.copy/1")},
        "predictions": {
            uri: predict(uri)
            for uri in (
                f"models:/{name}@champion",
                f"models:/{name}/2",
                f"models:/{name}/Production",
                f"models:/{name}.copy/1",
            )
        },
    }


if __name__ == "__main__":
    uri, name, what = sys.argv[1:]
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    print(json.dumps({"register": register, "look": look}[what](MlflowClient(uri, uri), name)))

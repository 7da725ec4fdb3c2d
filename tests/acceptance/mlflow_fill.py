"""Fills an MLflow server or database with one of everything, through MLflow's own client; prints what it made as JSON.

Run by itself: `PYTHON mlflow_fill.py URI [ARTIFACT_ROOT]`, with any interpreter that has mlflow or mlflow-skinny 3.x.
"""

from __future__ import annotations

import json
import logging
import math
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, LoggedModelOutput, Metric, Param, RunTag

WEIGHTS = bytes(range(256)) * 500
REFUSED = (" lead", "x\ny", "a@b", "m-" + "0" * 32)


def fill(uri: str, root: str | None) -> dict[str, Any]:
    warnings.simplefilter("ignore", FutureWarning)  # stages, which are still called
    logging.disable(logging.WARNING)
    mlflow.set_tracking_uri(uri)  # MLflow's store asks it for logged models, whatever its caller named
    client = MlflowClient(uri, uri)

    def location(name: str) -> str | None:
        return None if root is None else f"{root}/{name}"

    made: dict[str, Any] = {}
    churn = client.create_experiment("churn", location("churn"), tags={"team": "risk", "long": "x" * 3_000})
    gone = client.create_experiment("gone", location("gone"))
    client.create_experiment("odd ünï 😀", location("odd"))
    run = client.create_run(churn, run_name="first", tags={"mlflow.user": "alice", "k": "v ü"}).info
    made |= {"experiment": churn, "run": run.run_id, "artifact_uri": run.artifact_uri}
    losses = [Metric("loss", 1.0 / (step + 1), 1_000 + step, step) for step in range(300)]
    client.log_batch(run.run_id, losses, [Param("lr", "0.1"), Param("opt", "adam")], [RunTag("empty", "")])
    for key, value, at, step in (
        ("nan", math.nan, 5, 1), ("nan", 2.0, 4, 0), ("inf", math.inf, 1, 0), ("deep/key.x y-z", 1e-300, 7, -3),
    ):  # fmt: skip
        client.log_metric(run.run_id, key, value, timestamp=at, step=step)
    dataset = Dataset("train", "abc123", "http", '{"url": "http://data/x.csv"}', '{"cols": 2}', '{"rows": 6}')
    tags = [InputTag("mlflow.data.context", "training"), InputTag("split", "first")]
    client.log_inputs(run.run_id, [DatasetInput(dataset, tags)])
    with tempfile.TemporaryDirectory() as folder:
        for name, content in {
            "model/MLmodel": b"flavors: {}\n", "model/data/weights": WEIGHTS, "model/empty": b"", "notes": b"hello",
            "sp ace+%&.txt": b"odd name",
        }.items():  # fmt: skip
            path = Path(folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        client.log_artifacts(run.run_id, folder)
    client.set_terminated(run.run_id)

    parent = client.create_run(churn, run_name="parent").info.run_id
    child = client.create_run(churn, run_name="child", tags={"mlflow.parentRunId": parent}).info.run_id
    logged = client.create_logged_model(
        churn, "booster", child, model_type="xgboost", params={"depth": "3"}, tags={"stage": "dev"}
    )
    made |= {"parent": parent, "child": child, "logged": logged.model_id}
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "MLmodel").write_text("flavors: {}\nmodel_uuid: 1\n")
        client.log_model_artifacts(logged.model_id, folder)
    client.finalize_logged_model(logged.model_id, "READY")
    client.log_outputs(child, [LoggedModelOutput(logged.model_id, 4)])
    client.log_metric(child, "auc", 0.93, timestamp=9, step=4, model_id=logged.model_id)
    client.create_logged_model(churn, "pending")
    made["deleted_run"] = client.create_run(churn, run_name="deleted").info.run_id
    client.delete_run(made["deleted_run"])
    made["running"] = client.create_run(churn, run_name="running").info.run_id
    client.log_metric(made["running"], "loss", 3.0, timestamp=1, step=0)
    made["gone_run"] = client.create_run(gone, run_name="in gone").info.run_id
    client.delete_experiment(gone)

    model_uri = f"{run.artifact_uri}/model"
    client.create_registered_model("churn", {"owner": "risk", "e": ""}, "Who leaves, und wer bleibt")
    for number in range(1, 6):
        text = {"description": f"number {number}", "run_link": "http://ci/1", "tags": {"n": str(number)}}
        client.create_model_version("churn", model_uri, run.run_id, **text)
    client.delete_model_version("churn", "2")
    client.delete_model_version("churn", "5")
    client.transition_model_version_stage("churn", "1", "Archived")
    client.transition_model_version_stage("churn", "3", "Production")
    client.create_model_version("churn", "s3://bucket/some/model")  # 6: out of reach
    for alias, version in (("champion", "3"), ("blue", "4"), ("é", "4")):
        client.set_registered_model_alias("churn", alias, version)
    client.create_registered_model("booster")
    client.create_model_version("booster", f"models:/{logged.model_id}", model_id=logged.model_id)
    client.copy_model_version("models:/churn/3", "aaa-copy")  # sorts before what it was copied from
    client.create_registered_model("empty")
    client.create_registered_model("lost")
    client.create_model_version("lost", f"{run.artifact_uri}/nothing-here", run.run_id)
    client.create_model_version("lost", f"{run.artifact_uri}/notes", run.run_id)  # one file
    for name in REFUSED:
        client.create_registered_model(name)
        client.create_model_version(name, model_uri, run.run_id)
    client.create_registered_model("ends with deleted")
    for _ in range(3):
        client.create_model_version("ends with deleted", model_uri, run.run_id)
    client.delete_model_version("ends with deleted", "3")
    prompt = {"mlflow.prompt.is_prompt": "true", "mlflow.prompt.text": "Hello {{name}}"}
    registry = client._get_registry_client()  # the client itself lets prompts be made by mlflow.genai only
    registry.create_registered_model("greeting", {"mlflow.prompt.is_prompt": "true"})
    registry.create_model_version("greeting", "prompt-template", tags=prompt)
    going = client.create_logged_model(churn, "will-go", child)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "file").write_text("kept")
        client.log_model_artifacts(going.model_id, folder)
    client.finalize_logged_model(going.model_id, "READY")
    client.create_registered_model("orphaned")
    client.create_model_version("orphaned", f"models:/{going.model_id}", model_id=going.model_id)
    client.delete_logged_model(going.model_id)
    made["deleted_logged"] = going.model_id
    return made


if __name__ == "__main__":
    print(json.dumps(fill(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None)))

"""Moving out: models go to a stock MLflow server under the same numbers, once, and its own client loads them."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.mlflow_peer import environment
from tests.cli.running import COMMAND, run
from tests.conformance.mlflow_reference import run_reference
from touchmark.domain.access import SYSTEM
from touchmark.domain.errors import ConflictError, ModelNotFoundError
from touchmark.domain.tracking import ArtifactOwner, Metric
from touchmark.domain.versions import Stage
from touchmark.ops.export_mlflow import EXPERIMENT, ExportReport, export_mlflow
from touchmark.ops.mlflow_http import MlflowHttp
from touchmark.ops.setup import open_registry
from touchmark.registry import Registry
from touchmark.services import aliases, imports, models, registration, runs, stages, versions

pytestmark = [pytest.mark.mlflow, pytest.mark.processes, pytest.mark.timeout(300)]

READ = """
import json, logging, sys, warnings
from pathlib import Path
warnings.simplefilter("ignore")
logging.disable(logging.WARNING)
import mlflow
from mlflow import MlflowClient
mlflow.set_tracking_uri(sys.argv[1])
client, found = MlflowClient(), {}
for model in map(client.get_registered_model, sys.argv[3:]):
    listed = {}
    for each in client.search_model_versions(f"name = '{model.name}'"):
        folder = Path(mlflow.artifacts.download_artifacts(f"models:/{model.name}/{each.version}"))
        files = {str(path.relative_to(folder)): path.read_bytes().hex() for path in folder.rglob("*") if path.is_file()}
        files.pop("registered_model_meta", None)  # written by the client that downloads
        listed[each.version] = [files, each.description, each.current_stage, each.tags, each.run_link]
    found[model.name] = [model.description, model.tags, {k: int(v) for k, v in model.aliases.items()}, listed]
found["origins"] = {
    run.info.run_name: [run.data.params, {k: repr(v) for k, v in run.data.metrics.items()}, run.data.tags.get("team"), run.info.status]
    for run in client.search_runs([client.get_experiment_by_name(sys.argv[2]).experiment_id])
}
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with run_reference(tmp_path_factory.mktemp("server") / "mlflow") as found:
        yield found


@contextmanager
def opened(home: Path) -> Iterator[Registry]:
    registry = open_registry(home)
    try:
        yield registry
    finally:
        registry.close()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def register(registry: Registry, name: str, content: bytes, **more: Any) -> int:
    """Register a version with two files, from a run with params, metrics and tags."""
    run_id = runs.create_run(registry, SYSTEM, 0, params={"lr": "0.1"}, tags={"team": "risk"}).run_id
    runs.log_metrics(registry, SYSTEM, run_id, [Metric("auc", 0.5, 1_000), Metric("bad", float("nan"), 1_000)])
    files = {"model/MLmodel": b"flavors: {}\n", "model/deep/wei ghts+%&": content, "model/empty": b""}
    stored = {path: registry.blobs.put(data) for path, data in files.items()}
    imports.import_files(registry, SYSTEM, ArtifactOwner("run", run_id), stored)
    return registration.register_version(registry, SYSTEM, name, f"runs:/{run_id}/model", **more).version


def fill(registry: Registry, name: str) -> None:
    """Make a model with a gap, a deleted last version, a copy, stages, tags and aliases."""
    models.create_model(registry, SYSTEM, name, description="Who leaves, und wer bleibt", tags={"owner": "risk"})
    register(registry, name, b"one", description="first", tags={"k": "v ü"}, run_link="http://ci/1")
    for content in (b"two", b"three", b"four", b"five"):
        register(registry, name, content)
    versions.delete_version(registry, SYSTEM, name, 2)
    versions.delete_version(registry, SYSTEM, name, 4)
    versions.delete_version(registry, SYSTEM, name, 5)
    stages.set_stage(registry, SYSTEM, name, 3, Stage.PRODUCTION, archive_others=False)
    aliases.set_alias(registry, SYSTEM, name, "champion", 3)
    aliases.set_alias(registry, SYSTEM, name, "first", 1)


def send(registry: Registry, url: str, *names: str, **options: Any) -> ExportReport:
    with MlflowHttp(url) as http:
        return export_mlflow(registry, http, names, **options)


def read_back(url: str, *names: str) -> dict[str, Any]:
    """Return what MLflow's own client finds and downloads of some models."""
    script = [sys.executable, "-c", READ, url, EXPERIMENT, *names]
    done = subprocess.run(script, capture_output=True, text=True, check=False, timeout=200, env=environment())
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def files(content: bytes) -> dict[str, str]:
    return {"MLmodel": b"flavors: {}\n".hex(), "deep/wei ghts+%&": content.hex(), "empty": ""}


def next_number(url: str, name: str) -> int:
    """Return the number MLflow gives to the next version of a model."""
    with MlflowHttp(url) as http:
        made = http.post("/api/2.0/mlflow/model-versions/create", {"name": name, "source": "s3://bucket/next"})
    return int(made["model_version"]["version"])


def test_a_model_goes_out_with_its_numbers_texts_aliases_stages_and_bytes(home: Path, url: str) -> None:
    with opened(home) as registry:
        fill(registry, "out")
        dry = send(registry, url, "out", dry_run=True)
        report = send(registry, url, "out")
        again = send(registry, url, "out")

    assert (dict(report.went), report.problems) == ({"models": 1, "versions": 2, "aliases": 2, "files": 6}, [])
    assert (dry.went, dry.sent_bytes) == (report.went, report.sent_bytes)
    assert (dict(again.went), dict(again.present)) == ({}, {"models": 1, "versions": 2, "aliases": 2})
    found = read_back(url, "out")
    assert found["out"] == [
        "Who leaves, und wer bleibt", {"owner": "risk"}, {"champion": 3, "first": 1},
        {"1": [files(b"one"), "first", "None", {"k": "v ü"}, "http://ci/1"], "3": [files(b"three"), "", "Production", {}, ""]},
    ]  # fmt: skip
    assert found["origins"]["out/3"] == [{"lr": "0.1"}, {"auc": "0.5", "bad": "nan"}, "risk", "FINISHED"]
    assert next_number(url, "out") == 6  # 4 and 5 stay taken there, too


def test_an_export_that_is_killed_goes_on_where_it_was(home: Path, url: str) -> None:
    luck, kills = random.Random(3), 0
    with opened(home) as registry:
        for name in ("killed.a", "killed.b"):
            fill(registry, name)
    words = ["export", "mlflow", "killed.a", "killed.b", "--to", url, "--home", str(home)]
    for _ in range(8):
        child = subprocess.Popen([*COMMAND, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(luck.uniform(0.3, 1.0))
        child.send_signal(signal.SIGKILL)
        kills += child.wait(20) == -signal.SIGKILL
    assert kills > 0, "it was never killed: the test would prove nothing"

    done = run(*words, "--json")

    assert done.returncode == 0, done.stderr + done.stdout
    found = read_back(url, "killed.a", "killed.b")
    for name in ("killed.a", "killed.b"):
        listed = found[name][3]
        assert {number: each[0] for number, each in listed.items()} == {"1": files(b"one"), "3": files(b"three")}
        assert found[name][2] == {"champion": 3, "first": 1}


def test_a_model_that_is_there_with_other_versions_is_not_touched(home: Path, url: str) -> None:
    with MlflowHttp(url) as http:
        http.post("/api/2.0/mlflow/registered-models/create", {"name": "theirs", "description": "stays"})
    assert next_number(url, "theirs") == 1
    with opened(home) as registry:
        fill(registry, "theirs")
        fill(registry, "beside")
        report = send(registry, url)

    assert [(each.what, each.subject) for each in report.problems] == [("model", "theirs")]
    assert "another version 1" in report.problems[0].reason
    assert (report.went["models"], report.failed["models"]) == (1, 1)
    with MlflowHttp(url) as http:
        found = http.get("/api/2.0/mlflow/registered-models/get", {"name": "theirs"})["registered_model"]
    assert (found["description"], len(found["latest_versions"]), "aliases" in found) == ("stays", 1, False)


def test_a_number_that_was_used_up_there_stops_the_model_and_says_so(home: Path, url: str) -> None:
    with MlflowHttp(url) as http:
        http.post("/api/2.0/mlflow/registered-models/create", {"name": "used up"})
        assert next_number(url, "used up") == 1
        http.ask("DELETE", "/api/2.0/mlflow/model-versions/delete", body={"name": "used up", "version": "1"})
    with opened(home) as registry:
        fill(registry, "used up")
        report = send(registry, url, "used up")

    assert "versions were deleted there" in report.problems[0].reason
    assert report.went["versions"] == 0


def test_an_unsealed_version_and_tags_mlflow_cannot_hold_are_said(home: Path, url: str) -> None:
    with opened(home) as registry:
        models.create_model(registry, SYSTEM, "odd", tags={"a=b": "refused there", "fine": "yes"})
        registration.register_address(
            registry, SYSTEM, "odd", "s3://bucket/x", reference=None, reason="It lies elsewhere."
        )
        register(registry, "odd", b"second")
        report = send(registry, url, "odd")

    said = [each.reason for each in report.problems]
    assert any("'a=b' left out" in reason for reason in said)
    assert any("unsealed here" in reason for reason in said)
    found = read_back(url, "odd")["odd"]
    assert found[1] == {"fine": "yes"}
    assert {number: each[0] for number, each in found[3].items()} == {"1": {}, "2": files(b"second")}


def test_a_prompt_goes_out_as_a_prompt(home: Path, url: str) -> None:
    tags = {"mlflow.prompt.is_prompt": "true", "mlflow.prompt.text": "Hello {{name}}"}
    with opened(home) as registry:
        models.create_model(registry, SYSTEM, "greeting", tags={"mlflow.prompt.is_prompt": "true"})
        registration.register_address(
            registry, SYSTEM, "greeting", "prompt-template", reference=None, reason="It is a prompt.", tags=tags
        )
        report = send(registry, url, "greeting")
        again = send(registry, url, "greeting")

    assert (report.problems, dict(again.went)) == ([], {})
    with MlflowHttp(url) as http:
        params = {"name": "greeting", "version": "1"}
        found = http.get("/api/2.0/mlflow/model-versions/get", params)["model_version"]
    assert {each["key"]: each["value"] for each in found["tags"]} == tags


def test_damaged_bytes_do_not_go_out(home: Path, url: str) -> None:
    with opened(home) as registry:
        register(registry, "damaged", b"these bytes will rot")
        files_here = versions.list_files(registry, SYSTEM, "damaged", 1).files
        path = registry.blobs.find_path(next(file.digest for file in files_here if file.path.startswith("deep")))
        assert path is not None
        path.chmod(0o600)
        path.write_bytes(b"these bytes have rot")
        report = send(registry, url, "damaged")

    assert next((each.what, each.subject) for each in report.problems) == ("version", "damaged/1")
    assert report.went["versions"] == 0


def test_a_name_that_is_not_here_is_refused_before_anything_is_written(home: Path, url: str) -> None:
    with opened(home) as registry, pytest.raises(ModelNotFoundError):
        send(registry, url, "nobody")


def test_a_deleted_export_experiment_is_refused_with_what_to_do(home: Path, url: str) -> None:
    with opened(home) as registry, MlflowHttp(url) as http:
        register(registry, "deleted experiment", b"x")
        send(registry, url)
        path = "/api/2.0/mlflow/experiments"
        experiment = http.get(f"{path}/get-by-name", {"experiment_name": EXPERIMENT})["experiment"]
        http.post(f"{path}/delete", {"experiment_id": experiment["experiment_id"]})
        try:
            with pytest.raises(ConflictError, match="Restore it there"):
                send(registry, url)
        finally:
            http.post(f"{path}/restore", {"experiment_id": experiment["experiment_id"]})

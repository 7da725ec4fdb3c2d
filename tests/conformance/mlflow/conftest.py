"""One server a file and database, MLflow's client pointed at it, and nothing left over from the test before."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from uuid import uuid4

import mlflow
import mlflow.tracking.fluent
import pytest
from mlflow import MlflowClient

from tests import postgres
from tests.conformance.mlflow.doors import Door
from tests.served import serve

GIVEN = os.environ.get("TOUCHMARK_CONFORMANCE_URI")
"""The address of an MLflow server to run the same tests against, to prove the tests."""

_SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",  # a 5xx is to fail, not to be tried for four minutes
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}


@pytest.fixture(
    scope="module", params=["given"] if GIVEN else ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)]
)
def door(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """Start Touchmark on each database, or take the server that was named."""
    if GIVEN:
        yield Door(GIVEN.rstrip("/"), is_touchmark=False)
        return
    with ExitStack() as stack:
        flags = ["--no-log-requests"]
        if request.param == "postgres":
            server: postgres.PostgresServer = request.getfixturevalue("postgres_server")
            flags += ["--database", stack.enter_context(server.open_database())]
        served = stack.enter_context(serve(tmp_path_factory.mktemp("home"), *flags))
        yield Door(f"http://127.0.0.1:{served.port}", is_touchmark=True)


@pytest.fixture(autouse=True)
def pass_over_what_is_better(request: pytest.FixtureRequest) -> None:
    """Skip a test of what Touchmark does better where the server is another."""
    if GIVEN and request.node.get_closest_marker("better"):
        pytest.skip("MLflow's own server does not do this")


@pytest.fixture(autouse=True)
def fresh_client(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[None]:
    """Give MLflow's client an empty folder and no memory, and point it at the server."""
    for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
        monkeypatch.delenv(name)
    for name, value in _SETTINGS.items():
        monkeypatch.setenv(name, value)
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    if "door" in request.fixturenames:
        uri = request.getfixturevalue("door").uri
        mlflow.set_tracking_uri(uri)
        mlflow.set_registry_uri(uri)
    yield
    while mlflow.active_run():
        mlflow.end_run()
    mlflow.set_tracking_uri(None)
    mlflow.set_registry_uri(None)
    mlflow.tracking.fluent._active_experiment_id = None
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "MLFLOW_EXPERIMENT_ID", "MLFLOW_RUN_ID"):
        os.environ.pop(name, None)


@pytest.fixture
def client(door: Door) -> MlflowClient:
    """Give a client of the server."""
    return door.client


@pytest.fixture
def name() -> str:
    """Give a name nothing else has."""
    return f"model.{uuid4().hex[:12]}"


@pytest.fixture
def experiment(door: Door) -> str:
    """Give the id of an experiment of this test's own, which runs go to."""
    return str(mlflow.set_experiment(f"experiment {uuid4().hex[:12]}").experiment_id)

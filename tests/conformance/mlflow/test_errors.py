"""What a caller did wrong, and what this server does not have, is said at once: MLflow's client repeats no request for it.

Here the client keeps its own settings for sending again, under which a 5xx would hold it for about four minutes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from tests.conformance.mlflow.doors import SENT_AGAIN, SOON_SECONDS, Door, refused

pytestmark = [pytest.mark.mlflow, pytest.mark.processes, pytest.mark.filterwarnings("ignore")]

Call = Callable[[MlflowClient], Any]
UNKNOWN = "0123456789abcdef0123456789abcdef"


@pytest.fixture(autouse=True)
def usual_patience(fresh_client: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the client send again as often as it does for everybody."""
    for name in ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_TIMEOUT"):
        monkeypatch.delenv(name)


USER_ERRORS: dict[str, tuple[str, Call]] = {
    "an unknown model": ("RESOURCE_DOES_NOT_EXIST", lambda client: client.get_registered_model("nobody")),
    "an unknown version": ("RESOURCE_DOES_NOT_EXIST", lambda client: client.get_model_version("nobody", "1")),
    "an unknown alias": ("INVALID_PARAMETER_VALUE", lambda client: client.get_model_version_by_alias("known", "x")),
    "a taken name": ("RESOURCE_ALREADY_EXISTS", lambda client: client.create_registered_model("known")),
    "a bad name": ("INVALID_PARAMETER_VALUE", lambda client: client.create_registered_model("a/b")),
    "a version that is none": ("INVALID_PARAMETER_VALUE", lambda client: client.get_model_version("known", "one")),
    "a huge version": (
        "INVALID_PARAMETER_VALUE",
        lambda client: client.update_model_version("known", "99999999999999999999", "words"),
    ),
    "a bad filter": ("INVALID_PARAMETER_VALUE", lambda client: client.search_model_versions("evilhax = true")),
    "an order twice": (
        "INVALID_PARAMETER_VALUE",
        lambda client: client.search_registered_models(order_by=["name", "name"]),
    ),
    "a page too large": ("INVALID_PARAMETER_VALUE", lambda client: client.search_registered_models(max_results=1_001)),
    "a bad token": ("INVALID_PARAMETER_VALUE", lambda client: client.search_model_versions(page_token="garbage")),
    "a reserved alias": (
        "INVALID_PARAMETER_VALUE",
        lambda client: client.set_registered_model_alias("known", "latest", "1"),
    ),
    "a local source": ("INVALID_PARAMETER_VALUE", lambda client: client.create_model_version("known", "/etc")),
    "a source that climbs": (
        "INVALID_PARAMETER_VALUE",
        lambda client: client.create_model_version("known", "s3://bucket/../other"),
    ),
    "a source with a bad host": (
        "INVALID_PARAMETER_VALUE",
        lambda client: client.create_model_version("known", "file://123.456.789.123/a"),
    ),
    "an unknown run": ("RESOURCE_DOES_NOT_EXIST", lambda client: client.log_param(UNKNOWN, "a", "b")),
    "an unknown experiment": ("RESOURCE_DOES_NOT_EXIST", lambda client: client.get_experiment("987654")),
    "an unknown logged model": (
        "RESOURCE_DOES_NOT_EXIST",
        lambda client: client.get_logged_model(f"m-{UNKNOWN}"),
    ),
    "a run's bad filter": ("INVALID_PARAMETER_VALUE", lambda client: client.search_runs(["0"], "metrics.a LIKE 1")),
    "a logged model's bad filter": (
        "INVALID_PARAMETER_VALUE",
        lambda client: client.search_logged_models(["0"], "metrics.a > 'b'"),
    ),
    "an unknown webhook": ("RESOURCE_DOES_NOT_EXIST", lambda client: client.get_webhook(UNKNOWN)),
}

PEER_FAILS = {
    "a huge version",
    "an order twice",
    "a source with a bad host",
    "a logged model's bad filter",
}
"""What MLflow's own server answers 500, so that its client asks again and again."""

OUT_OF_SCOPE: dict[str, Call] = {
    "traces": lambda client: client.search_traces(locations=["0"]),
    "one trace": lambda client: mlflow.get_trace(f"tr-{UNKNOWN}") or _nothing(),  # type: ignore[func-returns-value]
    "deleting traces": lambda client: client.delete_traces("0", max_timestamp_millis=1),
    "evaluation data sets": lambda _: mlflow.genai.datasets.create_dataset(name="golden", experiment_id="0"),
    "searching evaluation data sets": lambda _: list(mlflow.genai.datasets.search_datasets(experiment_ids=["0"])),
    "scorers": lambda _: mlflow.genai.list_scorers(experiment_id="0"),
}
"""Nothing here is in a model registry. Each must end in an error, soon, whatever MLflow makes of it."""


def _nothing() -> None:
    raise MlflowException("there is none")


@pytest.fixture(scope="module", autouse=True)
def known_model(door: Door) -> None:
    """Make the model that some errors are about."""
    for path, body in (
        ("registered-models/create", {"name": "known"}),
        ("model-versions/create", {"name": "known", "source": "s3://bucket/known"}),
    ):
        assert door.send("POST", f"/api/2.0/mlflow/{path}", json=body).status_code in {200, 400}


@contextmanager
def soon() -> Iterator[None]:
    """Fail if the block takes as long as it would with requests sent again."""
    began = time.monotonic()
    yield
    assert time.monotonic() - began < SOON_SECONDS, "it took long: was it sent again?"


@pytest.mark.parametrize(
    "what", [pytest.param(what, marks=pytest.mark.better) if what in PEER_FAILS else what for what in USER_ERRORS]
)
def test_a_users_error_is_raised_at_once(client: MlflowClient, what: str) -> None:
    code, call = USER_ERRORS[what]
    with refused(code):
        call(client)


@pytest.mark.better
@pytest.mark.parametrize("what", OUT_OF_SCOPE)
def test_what_a_registry_has_not_is_refused_at_once(client: MlflowClient, what: str) -> None:
    with soon(), pytest.raises(MlflowException):
        OUT_OF_SCOPE[what](client)


@pytest.mark.better
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/3.0/mlflow/traces"),
        ("POST", "/api/3.0/mlflow/traces/search"),
        ("GET", f"/api/3.0/mlflow/traces/tr-{UNKNOWN}"),
        ("POST", "/api/2.0/mlflow/traces/delete-traces"),
        ("POST", "/v1/traces"),
        ("POST", "/api/3.0/mlflow/datasets/create"),
        ("POST", "/api/3.0/mlflow/datasets/search"),
        ("GET", "/api/3.0/mlflow/scorers/list"),
        ("POST", "/api/3.0/mlflow/scorers/register"),
        ("POST", "/api/3.0/mlflow/gateway/endpoints/create"),
        ("GET", "/api/3.0/mlflow/gateway/secrets/list"),
        ("GET", "/api/3.0/mlflow/workspaces"),
        ("GET", "/api/2.0/mlflow/users/get"),
        ("GET", "/ajax-api/2.0/mlflow/no/such/thing"),
        ("POST", "/graphql"),
    ],
)
def test_an_address_that_is_not_served_says_so_in_mlflows_words(door: Door, method: str, path: str) -> None:
    answer = door.send(method, path, json={} if method == "POST" else None)
    assert answer.status_code == 404
    if path.startswith(("/api/", "/ajax-api/")):
        assert answer.json()["error_code"] == "ENDPOINT_NOT_FOUND"
        assert path in answer.json()["message"]


@pytest.mark.better
def test_a_run_goes_on_where_tracing_cannot(experiment: str) -> None:
    # A traced function exports in the background; that there is nowhere to send it must not hold the run up.
    @mlflow.trace
    def answer() -> int:
        return 42

    with soon(), mlflow.start_run(experiment_id=experiment) as run:
        assert answer() == 42
        mlflow.log_metric("said", 42)
    assert mlflow.get_run(run.info.run_id).data.metrics == {"said": 42}


def test_a_server_that_is_gone_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with soon(), pytest.raises(MlflowException, match=r"127\.0\.0\.1"):
        MlflowClient("http://127.0.0.1:9", "http://127.0.0.1:9").search_registered_models()


@pytest.mark.better
@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'"text"', b"\xff", b'{"name": {}}', b"[" * 5_000])
def test_no_body_makes_the_client_send_it_again(door: Door, body: bytes) -> None:
    for method, path in (
        ("POST", "registered-models/create"),
        ("PATCH", "registered-models/update"),
        ("DELETE", "model-versions/delete"),
        ("POST", "runs/log-batch"),
        ("POST", "runs/search"),
        ("POST", "logged-models"),
        ("POST", "webhooks"),
    ):
        answer: httpx.Response = door.send(
            method, f"/api/2.0/mlflow/{path}", content=body, headers={"Content-Type": "application/json"}
        )
        assert answer.status_code < 500, (path, body[:20], answer.text)
        assert answer.status_code not in SENT_AGAIN

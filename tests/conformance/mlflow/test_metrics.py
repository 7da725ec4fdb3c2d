"""Metrics through MLflow's client: their history, their latest value, odd numbers, many at once."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric

from tests.conformance.mlflow.doors import Door, refused

pytestmark = [pytest.mark.mlflow, pytest.mark.processes, pytest.mark.filterwarnings("ignore")]


@pytest.fixture
def run_id(client: MlflowClient, experiment: str) -> str:
    """Give a run."""
    return str(client.create_run(experiment).info.run_id)


def history(client: MlflowClient, run_id: str, key: str) -> list[tuple[float, int, int]]:
    return [(point.value, point.timestamp, point.step) for point in client.get_metric_history(run_id, key)]


def test_a_metric_has_a_history(client: MlflowClient, run_id: str) -> None:
    for step, value in enumerate((0.5, 0.25, 0.125)):
        client.log_metric(run_id, "loss", value, timestamp=1_700_000_000_000 + step, step=step)
    assert history(client, run_id, "loss") == [
        (0.5, 1_700_000_000_000, 0),
        (0.25, 1_700_000_000_001, 1),
        (0.125, 1_700_000_000_002, 2),
    ]
    assert client.get_run(run_id).data.metrics == {"loss": 0.125}
    assert client.get_metric_history(run_id, "none") == []


@pytest.mark.parametrize(
    ("points", "wanted"),
    [
        ([(1.0, 10, 5), (2.0, 20, 4)], 1.0),
        ([(1.0, 10, 5), (2.0, 9, 5)], 1.0),
        ([(1.0, 10, 5), (2.0, 10, 5)], 2.0),
        ([(2.0, 10, 5), (1.0, 10, 5)], 2.0),
        ([(1.0, 10, -3), (2.0, 10, -5)], 1.0),
    ],
)
def test_the_latest_value_is_that_of_the_last_step_then_time_then_size(
    client: MlflowClient, run_id: str, points: list[tuple[float, int, int]], wanted: float
) -> None:
    for value, at, step in points:
        client.log_metric(run_id, "one", value, at, step)
    client.log_batch(run_id, [Metric("batch", *point) for point in points])
    assert client.get_run(run_id).data.metrics == {"one": wanted, "batch": wanted}


def test_the_same_point_sent_twice_is_one(client: MlflowClient, run_id: str) -> None:
    for _ in range(2):
        client.log_metric(run_id, "a", 1.0, 10, 0)
        client.log_batch(run_id, [Metric("b", 1.0, 10, 0), Metric("b", 1.0, 10, 0)])
    assert len(history(client, run_id, "a")) == 1
    assert len(history(client, run_id, "b")) == 1


def test_odd_numbers_come_back(client: MlflowClient, run_id: str) -> None:
    numbers = {
        "nan": math.nan,
        "inf": math.inf,
        "minus": -math.inf,
        "tiny": 5e-324,
        "negative zero": -0.0,
        "big": 1e300,
    }
    for key, value in numbers.items():
        client.log_metric(run_id, key, value)
    found = client.get_run(run_id).data.metrics
    assert math.isnan(found["nan"])
    assert math.isnan(history(client, run_id, "nan")[0][0])
    assert (found["tiny"], found["big"], found["negative zero"]) == (5e-324, 1e300, 0.0)
    assert found["inf"] > 1e300
    assert found["minus"] < -1e300


@pytest.mark.parametrize("key", ["a/b/c", "a.b-c d", "val_é", "x" * 250, "a:b"])
def test_a_metric_may_have_many_kinds_of_key(client: MlflowClient, run_id: str, key: str) -> None:
    client.log_metric(run_id, key, 1.5)
    assert client.get_run(run_id).data.metrics == {key: 1.5}
    assert [point[0] for point in history(client, run_id, key)] == [1.5]


def test_a_bad_metric_is_refused(client: MlflowClient, run_id: str) -> None:
    for key in ("", "x" * 251):
        with refused("INVALID_PARAMETER_VALUE"):
            client.log_metric(run_id, key, 1.0)
    assert client.get_run(run_id).data.metrics == {}


def test_a_long_history_comes_in_full(client: MlflowClient, run_id: str) -> None:
    for start in range(0, 3000, 1000):
        client.log_batch(run_id, [Metric("loss", 1 / (step + 1), step, step) for step in range(start, start + 1000)])
    found = history(client, run_id, "loss")
    assert found == [(1 / (step + 1), step, step) for step in range(3000)]


def test_a_history_comes_in_pages(door: Door, client: MlflowClient, run_id: str) -> None:
    client.log_batch(run_id, [Metric("loss", step, step, step) for step in range(10)])
    found: list[int] = []
    token = None
    while True:
        query = {"run_id": run_id, "metric_key": "loss", "max_results": 4} | ({"page_token": token} if token else {})
        page = door.send("GET", "/api/2.0/mlflow/metrics/get-history", params=query).json()
        found += [point["step"] for point in page["metrics"]]
        token = page.get("next_page_token")
        if not token:
            break
    assert found == list(range(10))


def test_histories_of_many_runs_come_at_once(door: Door, client: MlflowClient, experiment: str) -> None:
    runs = [client.create_run(experiment).info.run_id for _ in range(2)]
    for run_id in runs:
        client.log_batch(run_id, [Metric("loss", step, step, step) for step in range(20)])
    query = {"run_ids": runs, "metric_key": "loss", "start_step": 5, "end_step": 9}
    answer = door.send("GET", "/ajax-api/2.0/mlflow/metrics/get-history-bulk-interval", params=query)
    assert answer.status_code == 200, answer.text
    found = [(point["run_id"], point["step"]) for point in answer.json()["metrics"]]
    assert sorted(found) == sorted((run_id, step) for run_id in runs for step in range(5, 10))


def test_steps_logged_at_once_are_all_kept(client: MlflowClient, run_id: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda step: client.log_metric(run_id, "loss", step, step, step), range(64)))
    assert sorted(point[2] for point in history(client, run_id, "loss")) == list(range(64))
    assert client.get_run(run_id).data.metrics == {"loss": 63.0}


def test_a_metric_belongs_to_a_logged_model_and_a_data_set(client: MlflowClient, run_id: str, experiment: str) -> None:
    model = client.create_logged_model(experiment, f"net{uuid4().hex[:6]}", run_id)
    client.log_metric(run_id, "auc", 0.9, step=1, model_id=model.model_id, dataset_name="test", dataset_digest="abc")
    assert client.get_run(run_id).data.metrics == {"auc": 0.9}
    (found,) = client.get_logged_model(model.model_id).metrics
    assert (found.key, found.value, found.run_id, found.model_id) == ("auc", 0.9, run_id, model.model_id)
    assert (found.dataset_name, found.dataset_digest) == ("test", "abc")


@pytest.mark.better
def test_a_history_of_a_run_that_is_absent_is_not_found(client: MlflowClient) -> None:
    with refused("RESOURCE_DOES_NOT_EXIST"):
        client.get_metric_history(uuid4().hex, "loss")

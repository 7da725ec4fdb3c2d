"""Experiments and runs through MLflow's client: as training scripts use them."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode
from uuid import uuid4

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag, ViewType

from tests.conformance.mlflow.doors import Door, refused
from tests.conformance.mlflow.trained import predict

pytestmark = [pytest.mark.mlflow, pytest.mark.processes, pytest.mark.filterwarnings("ignore")]

# ── experiments ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_there_is_a_default_experiment(client: MlflowClient) -> None:
    found = client.get_experiment("0")
    assert (found.name, found.lifecycle_stage) == ("Default", "active")
    with mlflow.start_run() as run:
        assert run.info.experiment_id == "0"


def test_an_experiment_is_created_as_it_was_described(client: MlflowClient, name: str) -> None:
    made = client.create_experiment(name, tags={"team": "risk", "number": "5"})
    found = client.get_experiment(made)
    assert (found.experiment_id, found.name, found.lifecycle_stage) == (made, name, "active")
    assert found.tags == {"team": "risk", "number": "5"}
    assert found.artifact_location == f"mlflow-artifacts:/{made}"
    assert found.creation_time == found.last_update_time
    assert dict(client.get_experiment_by_name(name)) == dict(found)


def test_an_experiment_is_set_by_name_and_by_id(client: MlflowClient, name: str) -> None:
    made = mlflow.set_experiment(name)
    assert mlflow.set_experiment(name).experiment_id == made.experiment_id
    assert mlflow.set_experiment(experiment_id=made.experiment_id).name == name
    with mlflow.start_run() as run:
        assert run.info.experiment_id == made.experiment_id


def test_an_experiment_that_is_absent_is_none_by_name_and_not_found_by_id(client: MlflowClient, name: str) -> None:
    assert client.get_experiment_by_name(name) is None
    with refused("RESOURCE_DOES_NOT_EXIST"):
        client.get_experiment("123456789")


def test_a_name_of_an_experiment_is_used_once(client: MlflowClient, name: str) -> None:
    made = client.create_experiment(name)
    with refused("RESOURCE_ALREADY_EXISTS"):
        client.create_experiment(name)
    client.delete_experiment(made)
    with refused("RESOURCE_ALREADY_EXISTS"):
        client.create_experiment(name)


def test_an_experiment_is_deleted_and_restored_with_its_runs(client: MlflowClient, name: str) -> None:
    made = client.create_experiment(name)
    run = client.create_run(made)
    client.delete_experiment(made)
    assert client.get_experiment(made).lifecycle_stage == "deleted"
    assert client.get_run(run.info.run_id).info.lifecycle_stage == "deleted"
    assert made not in [found.experiment_id for found in client.search_experiments()]
    deleted = client.search_experiments(ViewType.DELETED_ONLY)
    assert made in [found.experiment_id for found in deleted]
    with pytest.raises(mlflow.MlflowException, match="deleted"):
        mlflow.set_experiment(name)
    client.restore_experiment(made)
    assert client.get_experiment(made).lifecycle_stage == "active"
    assert client.get_run(run.info.run_id).info.lifecycle_stage == "active"


def test_an_experiment_gets_another_name(client: MlflowClient, name: str) -> None:
    made = client.create_experiment(name)
    client.rename_experiment(made, f"{name}.new")
    assert client.get_experiment(made).name == f"{name}.new"
    assert client.get_experiment_by_name(name) is None


def test_tags_of_an_experiment_are_set_and_deleted(client: MlflowClient, experiment: str) -> None:
    client.set_experiment_tag(experiment, "a", 1)
    client.set_experiment_tag(experiment, "b", "")
    assert client.get_experiment(experiment).tags == {"a": "1", "b": ""}
    client.delete_experiment_tag(experiment, "a")
    assert client.get_experiment(experiment).tags == {"b": ""}


def test_experiments_are_searched(client: MlflowClient, name: str) -> None:
    ids = [client.create_experiment(f"{name}.{kind}", tags={"kind": kind}) for kind in ("a", "b", "C")]

    def search(text: str = "", **more: Any) -> list[str]:
        found = client.search_experiments(filter_string=f"name LIKE '{name}%'{text}", **more)
        return [experiment.name.rpartition(".")[2] for experiment in found]

    assert search() == ["C", "b", "a"]
    assert search(order_by=["name"]) == ["C", "a", "b"]
    assert search(" AND tags.kind = 'b'") == ["b"]
    assert search(" AND tags.kind ILIKE 'c'") == ["C"]
    assert search(" AND tags.none IS NULL", order_by=["creation_time ASC"]) == ["a", "b", "C"]
    assert search(f" AND experiment_id IN ('{ids[0]}', '{ids[2]}')") == ["C", "a"]
    page = client.search_experiments(filter_string=f"name LIKE '{name}%'", max_results=2)
    rest = client.search_experiments(filter_string=f"name LIKE '{name}%'", max_results=2, page_token=page.token)
    assert [found.experiment_id for found in [*page, *rest]] == ids[::-1]
    assert not rest.token
    with refused("INVALID_PARAMETER_VALUE"):
        client.search_experiments(filter_string="lifecycle_stage = 'active'")


# ── runs ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_run_is_recorded(client: MlflowClient, experiment: str) -> None:
    with mlflow.start_run(run_name="first", tags={"a": "b"}, description="words") as active:
        mlflow.log_param("depth", 3)
        mlflow.log_params({"lr": 0.1, "kind": "net"})
        mlflow.log_metric("auc", 0.5, step=1)
        mlflow.log_metrics({"auc": 0.75, "loss": 0.25}, step=2)
        mlflow.set_tag("c", 4)
        mlflow.set_tags({"d": "5", "e": ""})
    run = client.get_run(active.info.run_id)
    assert (run.info.run_name, run.info.status, run.info.lifecycle_stage) == ("first", "FINISHED", "active")
    assert run.info.experiment_id == experiment
    assert run.info.start_time <= run.info.end_time
    assert run.info.artifact_uri == f"mlflow-artifacts:/{experiment}/{run.info.run_id}/artifacts"
    assert run.info.user_id
    assert run.data.params == {"depth": "3", "lr": "0.1", "kind": "net"}
    assert run.data.metrics == {"auc": 0.75, "loss": 0.25}
    wanted = {"a": "b", "c": "4", "d": "5", "e": "", "mlflow.runName": "first", "mlflow.note.content": "words"}
    assert wanted.items() <= run.data.tags.items()


def test_a_run_without_a_name_is_given_one(client: MlflowClient, experiment: str) -> None:
    with mlflow.start_run() as active:
        pass
    run = client.get_run(active.info.run_id)
    assert run.info.run_name
    assert run.data.tags["mlflow.runName"] == run.info.run_name


def test_a_run_gets_another_name(client: MlflowClient, experiment: str) -> None:
    run_id = client.create_run(experiment, run_name="first").info.run_id
    client.update_run(run_id, name="second")
    assert client.get_run(run_id).info.run_name == "second"
    assert client.get_run(run_id).data.tags["mlflow.runName"] == "second"
    client.set_tag(run_id, "mlflow.runName", "third")
    assert client.get_run(run_id).info.run_name == "third"


def test_runs_are_nested(client: MlflowClient, experiment: str) -> None:
    with mlflow.start_run() as parent:
        children = []
        for depth in (1, 2):
            with mlflow.start_run(nested=True) as child:
                mlflow.log_param("depth", depth)
            children.append(child.info.run_id)
    found = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'")
    assert sorted(run.info.run_id for run in found) == sorted(children)
    assert mlflow.get_parent_run(children[0]).info.run_id == parent.info.run_id


def test_a_run_is_resumed(client: MlflowClient, experiment: str) -> None:
    with mlflow.start_run() as first:
        mlflow.log_param("a", 1)
    with mlflow.start_run(run_id=first.info.run_id) as second:
        assert client.get_run(first.info.run_id).info.status == "RUNNING"
        mlflow.log_param("b", 2)
    assert second.info.run_id == first.info.run_id
    assert client.get_run(first.info.run_id).data.params == {"a": "1", "b": "2"}


def test_a_run_that_fails_says_so(client: MlflowClient, experiment: str) -> None:
    with pytest.raises(ZeroDivisionError), mlflow.start_run() as run:
        _ = 1 / 0
    assert client.get_run(run.info.run_id).info.status == "FAILED"
    killed = client.create_run(experiment).info.run_id
    client.set_terminated(killed, "KILLED", end_time=1_700_000_000_000)
    assert client.get_run(killed).info.status == "KILLED"
    assert client.get_run(killed).info.end_time == 1_700_000_000_000


def test_a_param_is_set_once(client: MlflowClient, experiment: str) -> None:
    run_id = client.create_run(experiment).info.run_id
    client.log_param(run_id, "depth", 3)
    client.log_param(run_id, "depth", 3)
    with refused("INVALID_PARAMETER_VALUE", "Changing param values is not allowed"):
        client.log_param(run_id, "depth", 4)
    with refused("INVALID_PARAMETER_VALUE"):
        client.log_batch(run_id, params=[Param("new", "1"), Param("depth", "4")])
    assert client.get_run(run_id).data.params == {"depth": "3"}


def test_long_values_are_kept(client: MlflowClient, experiment: str) -> None:
    run_id = client.create_run(experiment).info.run_id
    client.log_param(run_id, "k" * 250, "v" * 6000)
    client.set_tag(run_id, "t" * 250, "v" * 8000)
    found = client.get_run(run_id).data
    assert found.params["k" * 250] == "v" * 6000
    assert found.tags["t" * 250] == "v" * 8000
    with refused("INVALID_PARAMETER_VALUE"):
        client.log_param(run_id, "k" * 251, "v")
    with refused("INVALID_PARAMETER_VALUE"):
        client.set_tag(run_id, "t" * 251, "v")


def test_tags_of_a_run_are_deleted(client: MlflowClient, experiment: str) -> None:
    run_id = client.create_run(experiment, tags={"a": "b"}).info.run_id
    client.delete_tag(run_id, "a")
    assert "a" not in client.get_run(run_id).data.tags
    with refused("RESOURCE_DOES_NOT_EXIST", "No tag with name: a in run with id"):
        client.delete_tag(run_id, "a")


def test_a_run_is_deleted_and_restored(client: MlflowClient, experiment: str) -> None:
    run_id = client.create_run(experiment).info.run_id
    client.delete_run(run_id)
    assert client.get_run(run_id).info.lifecycle_stage == "deleted"
    assert client.search_runs([experiment]) == []
    assert [run.info.run_id for run in client.search_runs([experiment], run_view_type=ViewType.ALL)] == [run_id]
    with refused("INVALID_PARAMETER_VALUE", "must be in the 'active' state"):
        client.log_metric(run_id, "a", 1)
    with refused("INVALID_PARAMETER_VALUE", "must be in the 'active' state"):
        client.set_tag(run_id, "a", "b")
    client.restore_run(run_id)
    client.log_metric(run_id, "a", 1)
    assert client.get_run(run_id).data.metrics == {"a": 1.0}


def test_a_run_that_is_absent_is_not_found(client: MlflowClient) -> None:
    absent = uuid4().hex
    for ask in (
        lambda: client.get_run(absent),
        lambda: client.log_metric(absent, "a", 1),
        lambda: client.log_param(absent, "a", 1),
        lambda: client.set_tag(absent, "a", 1),
        lambda: client.delete_run(absent),
        lambda: client.update_run(absent, name="a"),
        lambda: client.log_batch(absent, [Metric("a", 1, 1, 0)]),
    ):
        with refused("RESOURCE_DOES_NOT_EXIST", f"Run with id={absent} not found"):
            ask()


def test_a_batch_is_recorded_whole(client: MlflowClient, experiment: str) -> None:
    run_id = client.create_run(experiment).info.run_id
    client.log_batch(
        run_id,
        [Metric(f"m{number}", number, 1_700_000_000_000, number) for number in range(800)],
        [Param(f"p{number}", str(number)) for number in range(100)],
        [RunTag(f"t{number}", str(number)) for number in range(100)],
    )
    found = client.get_run(run_id).data
    assert found.metrics == {f"m{number}": float(number) for number in range(800)}
    assert found.params == {f"p{number}": str(number) for number in range(100)}
    assert {f"t{number}": str(number) for number in range(100)}.items() <= found.tags.items()


@pytest.mark.parametrize(
    ("metrics", "params", "tags"), [(1001, 0, 0), (0, 101, 0), (0, 0, 101), (900, 100, 1)], ids=str
)
def test_a_batch_has_its_limits(door: Door, experiment: str, metrics: int, params: int, tags: int) -> None:
    run_id = door.client.create_run(experiment).info.run_id
    body = {
        "run_id": run_id,
        "metrics": [{"key": f"m{n}", "value": n, "timestamp": 1, "step": 0} for n in range(metrics)],
        "params": [{"key": f"p{n}", "value": "v"} for n in range(params)],
        "tags": [{"key": f"t{n}", "value": "v"} for n in range(tags)],
    }
    answer = door.send("POST", "/api/2.0/mlflow/runs/log-batch", json=body)
    assert (answer.status_code, answer.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
    assert door.client.get_run(run_id).data.metrics == {}


def test_many_params_and_tags_are_sent_in_many_batches(client: MlflowClient, experiment: str) -> None:
    with mlflow.start_run() as run:
        mlflow.log_params({f"p{number}": number for number in range(250)})
        mlflow.log_metrics({f"m{number}": number for number in range(1200)})
        mlflow.set_tags({f"t{number}": number for number in range(150)})
    found = client.get_run(run.info.run_id).data
    assert (len(found.params), len(found.metrics)) == (250, 1200)
    assert {f"t{number}" for number in range(150)} <= found.tags.keys()


@pytest.fixture(scope="module")
def three_runs(door: Door) -> tuple[str, list[str]]:
    """Make three runs in an experiment, and return its id and theirs."""
    client = door.client
    experiment = client.create_experiment(f"three {uuid4().hex}")
    ids = []
    for number, (kind, auc) in enumerate((("net", 0.5), ("Tree", 0.9), ("net", float("nan")))):
        run_id = client.create_run(
            experiment, start_time=1_700_000_000_000 + number, run_name=f"run_{number}", tags={"team": "risk"}
        ).info.run_id
        client.log_batch(run_id, [Metric("auc", auc, 1, 0), Metric("n 1", number, 1, 0)], [Param("kind", kind)])
        ids.append(run_id)
    client.set_terminated(ids[0], "FAILED", 1_700_000_001_000)
    client.set_terminated(ids[1], "FINISHED", 1_700_000_002_000)
    return experiment, ids


@pytest.mark.parametrize(
    ("text", "order", "wanted"),
    [
        ("", None, [2, 1, 0]),
        ("metrics.auc > 0.4", None, [1, 0]),
        ("metrics.auc >= 0.5 AND params.kind = 'net'", None, [0]),
        ("metrics.auc != 0.5", None, [2, 1]),
        ("metrics.`n 1` < 2", ["metrics.`n 1` ASC"], [0, 1]),
        ("params.kind LIKE 'n%'", None, [2, 0]),
        ("params.kind ILIKE 'T%'", None, [1]),
        ("params.none IS NULL", None, [2, 1, 0]),
        ("params.kind IS NOT NULL", ["params.kind", "start_time"], [1, 0, 2]),
        ("tags.team = 'risk'", ["start_time ASC"], [0, 1, 2]),
        ("attributes.status = 'RUNNING'", None, [2]),
        ("status != 'RUNNING'", None, [1, 0]),
        ("run_name = 'run_1'", None, [1]),
        ("run_name LIKE 'run%'", ["run_name DESC"], [2, 1, 0]),
        ("start_time > 1700000000000", None, [2, 1]),
        ("end_time <= 1700000001000", None, [0]),
        ("", ["metrics.auc DESC"], [1, 0, 2]),
        ("", ["metrics.auc ASC"], [0, 1, 2]),
        ("", ["end_time DESC"], [1, 0, 2]),
    ],
)
def test_runs_are_searched(
    client: MlflowClient,
    three_runs: tuple[str, list[str]],
    text: str,
    order: list[str] | None,
    wanted: list[int],
) -> None:
    experiment, ids = three_runs
    found = client.search_runs([experiment], text, order_by=order)
    assert [ids.index(run.info.run_id) for run in found] == wanted


def test_runs_are_found_by_their_ids(client: MlflowClient, three_runs: tuple[str, list[str]]) -> None:
    experiment, ids = three_runs
    found = client.search_runs([experiment], f"run_id IN ('{ids[0]}', '{ids[2]}')")
    assert [run.info.run_id for run in found] == [ids[2], ids[0]]
    (found,) = client.search_runs([experiment], f"attributes.run_id = '{ids[1]}'")
    whole = client.get_run(ids[1])
    assert (dict(found.info), found.data.to_dictionary()) == (dict(whole.info), whole.data.to_dictionary())


def test_runs_come_in_pages(client: MlflowClient, three_runs: tuple[str, list[str]]) -> None:
    experiment, ids = three_runs
    page = client.search_runs([experiment], max_results=2, order_by=["metrics.auc DESC"])
    rest = client.search_runs([experiment], max_results=2, order_by=["metrics.auc DESC"], page_token=page.token)
    assert [ids.index(run.info.run_id) for run in [*page, *rest]] == [1, 0, 2]
    assert not rest.token


def test_runs_are_found_as_a_table(client: MlflowClient, three_runs: tuple[str, list[str]]) -> None:
    experiment, ids = three_runs
    table = mlflow.search_runs([experiment], order_by=["start_time ASC"])
    assert list(table["run_id"]) == ids
    assert list(table["params.kind"]) == ["net", "Tree", "net"]
    np.testing.assert_array_equal(table["metrics.auc"], [0.5, 0.9, float("nan")])


def test_a_search_of_runs_that_means_nothing_is_refused(client: MlflowClient, experiment: str) -> None:
    for text in ("metrics.auc > 'a'", "status > 'A'", "params.a = 5", "nothing", "experiment_id = '1'", "name = 'a'"):
        with refused("INVALID_PARAMETER_VALUE"):
            client.search_runs([experiment], text)
    with refused("INVALID_PARAMETER_VALUE"):
        client.search_runs([experiment], max_results=50_001)


# ── inputs and what is logged by itself ──────────────────────────────────────────────────────────────────────────


def test_data_sets_are_recorded(client: MlflowClient, experiment: str) -> None:
    frame = pd.DataFrame({"x": [1.0, 2.0], "y": [0, 1]})
    train = mlflow.data.from_pandas(frame, name="train", targets="y", source="https://host/train.csv")
    test = mlflow.data.from_numpy(np.array([[1.0], [2.0]]), name="test")
    with mlflow.start_run() as run:
        mlflow.log_input(train, context="training", tags={"a": "b"})
        mlflow.log_input(test)
        mlflow.log_input(train, context="training")
    found = {item.dataset.name: item for item in client.get_run(run.info.run_id).inputs.dataset_inputs}
    assert set(found) == {"train", "test"}
    assert found["train"].dataset.digest == train.digest
    assert '"mlflow_colspec"' in found["train"].dataset.schema
    assert "https://host/train.csv" in found["train"].dataset.source
    assert {tag.key: tag.value for tag in found["train"].tags} == {"a": "b", "mlflow.data.context": "training"}
    searched = client.search_runs([experiment], "datasets.name = 'train' AND datasets.context = 'training'")
    assert [each.info.run_id for each in searched] == [run.info.run_id]
    assert {item.dataset.name for item in searched[0].inputs.dataset_inputs} == {"train", "test"}


def test_metrics_logged_after_autolog_reach_the_version(
    door: Door, client: MlflowClient, name: str, experiment: str
) -> None:
    from sklearn.linear_model import Ridge

    inputs = np.array([[1.0], [2.0], [3.0], [4.0]])
    mlflow.sklearn.autolog(registered_model_name=name, log_input_examples=False, silent=True)
    try:
        with mlflow.start_run():
            Ridge(alpha=0.5).fit(inputs, inputs[:, 0])
            mlflow.log_metric("held_out", 0.75)
    finally:
        mlflow.sklearn.autolog(disable=True)
    query = urlencode({"filter": "metrics.held_out >= 0.75"})
    found = door.native(f"versions?{query}")["items"]
    assert (name, 1) in {(version["name"], version["version"]) for version in found}


def test_autolog_records_a_training_and_its_model(door: Door, client: MlflowClient, name: str, experiment: str) -> None:
    from sklearn.linear_model import Ridge

    inputs = np.array([[1.0], [2.0], [3.0], [4.0]])
    mlflow.sklearn.autolog(registered_model_name=name, log_input_examples=False, silent=True)
    try:
        Ridge(alpha=0.5).fit(inputs, inputs[:, 0])
    finally:
        mlflow.sklearn.autolog(disable=True)
    (run,) = client.search_runs([experiment])
    assert run.info.status == "FINISHED"
    assert run.data.params["alpha"] == "0.5"
    assert "training_score" in run.data.metrics
    assert [item.dataset.name for item in run.inputs.dataset_inputs] == ["dataset"]
    assert len(run.outputs.model_outputs) == 1
    version = client.get_model_version(name, "1")
    assert version.run_id == run.info.run_id
    assert len(predict(f"models:/{name}/1")) == 3
    door.check_sealed(version)

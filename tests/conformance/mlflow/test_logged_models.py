"""Logged models through MLflow's client: made in steps, tagged, measured, searched, deleted; what a run put out."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import uuid4

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.entities import LoggedModelOutput, LoggedModelStatus
from mlflow.exceptions import MlflowException

from tests.conformance.mlflow.doors import Door, hash_files, read_files, refused
from tests.conformance.mlflow.trained import log_model, predict, times, write_files

pytestmark = [pytest.mark.mlflow, pytest.mark.processes, pytest.mark.filterwarnings("ignore")]


def test_a_model_is_made_in_steps(door: Door, client: MlflowClient, name: str, experiment: str, tmp_path: Path) -> None:
    run_id = client.create_run(experiment).info.run_id
    made = client.create_logged_model(
        experiment, "net", run_id, tags={"a": "b"}, params={"depth": "3"}, model_type="classifier"
    )
    assert made.model_id.startswith("m-")
    assert made.status is LoggedModelStatus.PENDING
    assert made.artifact_location == f"mlflow-artifacts:/{experiment}/models/{made.model_id}/artifacts"
    client.log_model_artifacts(made.model_id, str(write_files(tmp_path / "files")))
    client.finalize_logged_model(made.model_id, LoggedModelStatus.READY)
    found = client.get_logged_model(made.model_id)
    assert (found.name, found.model_type, found.source_run_id) == ("net", "classifier", run_id)
    assert found.experiment_id == experiment
    assert (found.status, found.params) == (LoggedModelStatus.READY, {"depth": "3"})
    assert found.tags["a"] == "b"
    assert found.creation_timestamp <= found.last_updated_timestamp
    assert sorted(item.path for item in client.list_logged_model_artifacts(made.model_id)) == [
        "a.txt", "nested", "with blank"
    ]  # fmt: skip
    assert read_files(f"models:/{made.model_id}") == hash_files(tmp_path / "files")
    version = mlflow.register_model(f"models:/{made.model_id}", name)
    assert read_files(f"models:/{name}/1") == hash_files(tmp_path / "files")
    door.check_sealed(version)


def test_many_params_are_sent_in_many_batches(client: MlflowClient, experiment: str) -> None:
    made = client.create_logged_model(experiment, "net", params={f"p{number}": str(number) for number in range(250)})
    found = client.get_logged_model(made.model_id)
    assert found.params == {f"p{number}": str(number) for number in range(250)}
    client.log_model_params(made.model_id, {"late": "1"})
    assert client.get_logged_model(made.model_id).params["late"] == "1"


def test_a_model_without_a_name_is_given_one(client: MlflowClient, experiment: str) -> None:
    assert client.create_logged_model(experiment).name


def test_a_model_nobody_holds_is_described(client: MlflowClient, experiment: str) -> None:
    made = mlflow.create_external_model("outside", params={"a": "b"}, tags={"c": "d"})
    found = client.get_logged_model(made.model_id)
    assert (found.name, found.status, found.params) == ("outside", LoggedModelStatus.READY, {"a": "b"})
    assert found.tags["c"] == "d"


def test_a_model_that_failed_says_so(client: MlflowClient, experiment: str) -> None:
    made = client.create_logged_model(experiment, "net")
    client.finalize_logged_model(made.model_id, LoggedModelStatus.FAILED)
    assert client.get_logged_model(made.model_id).status is LoggedModelStatus.FAILED


def test_tags_of_a_model_are_set_and_deleted(client: MlflowClient, experiment: str) -> None:
    made = client.create_logged_model(experiment, "net", tags={"a": "1"})
    client.set_logged_model_tags(made.model_id, {"b": "2", "a": "3", "with blank/and.more": ""})
    assert client.get_logged_model(made.model_id).tags == {"a": "3", "b": "2", "with blank/and.more": ""}
    client.delete_logged_model_tag(made.model_id, "b")
    assert client.get_logged_model(made.model_id).tags == {"a": "3", "with blank/and.more": ""}
    with refused("RESOURCE_DOES_NOT_EXIST"):
        client.delete_logged_model_tag(made.model_id, "b")


@pytest.mark.parametrize("bad", ["a/b", "a:b", "a.b", "a%b", 'a"b', "a'b"])
def test_a_bad_name_is_refused(client: MlflowClient, experiment: str, bad: str) -> None:
    with refused("INVALID_PARAMETER_VALUE"):
        client.create_logged_model(experiment, bad)


def test_a_model_that_is_absent_is_not_found(client: MlflowClient) -> None:
    absent = f"m-{uuid4().hex}"
    for ask in (
        lambda: client.get_logged_model(absent),
        lambda: client.delete_logged_model(absent),
        lambda: client.finalize_logged_model(absent, "READY"),
    ):
        with refused("RESOURCE_DOES_NOT_EXIST", absent):
            ask()


def test_a_model_is_deleted(client: MlflowClient, experiment: str) -> None:
    made = client.create_logged_model(experiment, "net")
    client.delete_logged_model(made.model_id)
    with refused("RESOURCE_DOES_NOT_EXIST"):
        client.get_logged_model(made.model_id)
    assert client.search_logged_models([experiment]) == []


def test_a_run_puts_out_a_model(client: MlflowClient, experiment: str) -> None:
    with mlflow.start_run() as run:
        info = log_model()
        made = mlflow.initialize_logged_model("second")
        mlflow.log_outputs([LoggedModelOutput(made.model_id, step=7)])
    outputs = {item.model_id: item.step for item in client.get_run(run.info.run_id).outputs.model_outputs}
    assert outputs == {info.model_id: 0, made.model_id: 7}
    assert client.get_logged_model(info.model_id).source_run_id == run.info.run_id


def test_metrics_of_its_run_are_a_model_s(client: MlflowClient, experiment: str) -> None:
    with mlflow.start_run() as run:
        mlflow.log_metric("before", 0.5)
        info = log_model()
        mlflow.log_metric("auc", 0.9, model_id=info.model_id)
    found = {point.key: (point.value, point.run_id) for point in client.get_logged_model(info.model_id).metrics}
    assert found == {"before": (0.5, run.info.run_id), "auc": (0.9, run.info.run_id)}


def test_a_model_is_loaded_in_every_way_a_run_s_may_be(client: MlflowClient, experiment: str) -> None:
    with mlflow.start_run() as run:
        info = log_model()
    for uri in (f"models:/{info.model_id}", f"runs:/{run.info.run_id}/model", info.model_uri):
        assert predict(uri) == times(2.0)
    assert mlflow.last_logged_model().model_id == info.model_id


@pytest.fixture(scope="module")
def three_models(door: Door) -> tuple[str, list[str]]:
    """Make three logged models with metrics in an experiment, and return its id and theirs."""
    client = door.client
    experiment = client.create_experiment(f"three {uuid4().hex}")
    run_id = client.create_run(experiment).info.run_id
    ids = []
    for number, (name, kind, auc) in enumerate(
        (("net", "torch", 0.5), ("Tree", "sklearn", 0.9), ("net", "torch", 0.7))
    ):
        made = client.create_logged_model(
            experiment, name, run_id if number else None, {"team": "risk"}, {"depth": str(number)}, kind
        )
        for data, shift in (("train", 0.0), ("test", -0.1 * number)):
            client.log_metric(
                run_id, "auc", auc + shift, step=1, model_id=made.model_id, dataset_name=data, dataset_digest=f"d{data}"
            )
        ids.append(made.model_id)
    return experiment, ids


@pytest.mark.parametrize(
    ("text", "order", "wanted"),
    [
        (None, None, [2, 1, 0]),
        ("name = 'net'", None, [2, 0]),
        ("name != 'net'", None, [1]),
        ("name LIKE 'T%'", None, [1]),
        ("name ILIKE 'N_T'", None, [2, 0]),
        ("name IN ('net', 'other')", None, [2, 0]),
        ("model_type = 'sklearn'", None, [1]),
        ("params.depth = '2'", None, [2]),
        ("tags.team = 'risk'", None, [2, 1, 0]),
        ("metrics.auc > 0.65", None, [2, 1]),
        ("metrics.auc > 0.65 AND name = 'net'", None, [2]),
        ("creation_timestamp > 0", [{"field_name": "creation_timestamp"}], [0, 1, 2]),
        (None, [{"field_name": "name", "ascending": True}, {"field_name": "creation_timestamp"}], [1, 0, 2]),
        (None, [{"field_name": "metrics.auc", "ascending": False}], [1, 0, 2]),
    ],
)
def test_models_are_searched(
    client: MlflowClient,
    three_models: tuple[str, list[str]],
    text: str | None,
    order: list[dict[str, Any]] | None,
    wanted: list[int],
) -> None:
    experiment, ids = three_models
    found = client.search_logged_models([experiment], text, order_by=order)
    assert [ids.index(model.model_id) for model in found] == wanted


def test_models_are_searched_by_what_they_score_on_a_data_set(
    client: MlflowClient, three_models: tuple[str, list[str]]
) -> None:
    experiment, ids = three_models
    test = [{"dataset_name": "test", "dataset_digest": "dtest"}]
    found = client.search_logged_models([experiment], "metrics.auc > 0.65", datasets=test)
    assert [ids.index(model.model_id) for model in found] == [1]
    order = [{"field_name": "metrics.auc", "ascending": False, "dataset_name": "test", "dataset_digest": "dtest"}]
    found = client.search_logged_models([experiment], order_by=order)
    assert [ids.index(model.model_id) for model in found] == [1, 0, 2]


def test_models_come_in_pages(client: MlflowClient, three_models: tuple[str, list[str]]) -> None:
    experiment, ids = three_models
    page = client.search_logged_models([experiment], max_results=2)
    rest = client.search_logged_models([experiment], max_results=2, page_token=page.token)
    assert [ids.index(model.model_id) for model in [*page, *rest]] == [2, 1, 0]
    assert not rest.token
    with refused("INVALID_PARAMETER_VALUE"):
        client.search_logged_models([experiment], "name = 'net'", max_results=2, page_token=page.token)


def test_models_are_found_as_a_table(three_models: tuple[str, list[str]]) -> None:
    experiment, ids = three_models
    table = mlflow.search_logged_models([experiment])
    assert list(table["model_id"]) == ids[::-1]
    assert mlflow.search_logged_models([experiment], output_format="list")[0].model_id == ids[2]


def test_a_search_that_means_nothing_is_refused(client: MlflowClient, experiment: str) -> None:
    for text in ("name = 'a' OR name = 'b'", "metrics.auc > 'a'", "name > 'a'"):
        with pytest.raises(MlflowException):
            client.search_logged_models([experiment], text)
    with refused("INVALID_PARAMETER_VALUE"):
        client.search_logged_models([experiment], order_by=[{"field_name": "params.depth"}])

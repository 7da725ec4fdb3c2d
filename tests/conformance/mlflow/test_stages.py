"""Stages through MLflow's client: deprecated there, and still called by many scripts."""

from __future__ import annotations

import pytest
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from tests.conformance.mlflow.doors import Door, as_dict, refused
from tests.conformance.mlflow.trained import log_model, predict, times

pytestmark = [pytest.mark.mlflow, pytest.mark.processes, pytest.mark.filterwarnings("ignore")]


@pytest.fixture
def model(client: MlflowClient, name: str) -> str:
    """Give a model with four versions whose files lie elsewhere."""
    client.create_registered_model(name)
    for number in (1, 2, 3, 4):
        client.create_model_version(name, f"s3://bucket/{number}")
    return name


def stages_of(client: MlflowClient, name: str) -> dict[str, str]:
    return {number: client.get_model_version(name, number).current_stage for number in ("1", "2", "3", "4")}


def latest(versions: list[ModelVersion]) -> dict[str, str]:
    return {version.current_stage: str(version.version) for version in versions}


@pytest.mark.parametrize(
    ("said", "stage"),
    [("Staging", "Staging"), ("PRODUCTION", "Production"), ("archived", "Archived"), ("nOnE", "None")],
)
def test_a_version_moves_to_a_stage_however_it_is_written(
    client: MlflowClient, model: str, said: str, stage: str
) -> None:
    before = client.get_model_version(model, "1")
    moved = client.transition_model_version_stage(model, "1", said)
    assert moved.current_stage == stage
    assert moved.last_updated_timestamp >= before.last_updated_timestamp
    assert as_dict(client.get_model_version(model, "1")) == as_dict(moved)


def test_versions_share_a_stage(client: MlflowClient, model: str) -> None:
    for number in ("1", "2"):
        client.transition_model_version_stage(model, number, "Production")
    assert stages_of(client, model) == {"1": "Production", "2": "Production", "3": "None", "4": "None"}


@pytest.mark.parametrize("stage", ["Staging", "Production"])
def test_others_are_archived_when_it_is_asked_for(client: MlflowClient, model: str, stage: str) -> None:
    for number in ("1", "2"):
        client.transition_model_version_stage(model, number, stage)
    moved = client.transition_model_version_stage(model, "3", stage, archive_existing_versions=True)
    assert stages_of(client, model) == {"1": "Archived", "2": "Archived", "3": stage, "4": "None"}
    times_of = {client.get_model_version(model, number).last_updated_timestamp for number in ("1", "2", "3")}
    assert times_of == {moved.last_updated_timestamp}
    assert client.get_registered_model(model).last_updated_timestamp == moved.last_updated_timestamp


@pytest.mark.better
@pytest.mark.parametrize("stage", ["None", "Archived"])
def test_archiving_for_a_stage_that_holds_nothing_in_use_is_refused_at_once(
    client: MlflowClient, model: str, stage: str
) -> None:
    with refused("INVALID_PARAMETER_VALUE"):
        client.transition_model_version_stage(model, "1", stage, archive_existing_versions=True)


def test_an_unknown_stage_is_refused(client: MlflowClient, model: str) -> None:
    with refused("INVALID_PARAMETER_VALUE", "Invalid Model Version stage"):
        client.transition_model_version_stage(model, "1", "Testing")
    assert stages_of(client, model)["1"] == "None"


def test_the_latest_version_of_each_stage_is_found(client: MlflowClient, model: str) -> None:
    for number, stage in (("3", "Production"), ("1", "Production"), ("2", "Staging")):
        client.transition_model_version_stage(model, number, stage)
    assert latest(client.get_latest_versions(model)) == {"Production": "3", "Staging": "2", "None": "4"}
    assert latest(client.get_latest_versions(model, [])) == {"Production": "3", "Staging": "2", "None": "4"}
    assert latest(client.get_latest_versions(model, ["production"])) == {"Production": "3"}
    assert latest(client.get_latest_versions(model, ["None", "STAGING"])) == {"Staging": "2", "None": "4"}
    assert client.get_latest_versions(model, ["Archived"]) == []
    assert latest(client.get_registered_model(model).latest_versions) == {
        "Production": "3",
        "Staging": "2",
        "None": "4",
    }
    with refused("INVALID_PARAMETER_VALUE"):
        client.get_latest_versions(model, ["Testing"])


def test_latest_versions_are_the_versions_whole(client: MlflowClient, model: str) -> None:
    client.set_model_version_tag(model, "4", "a", "b")
    client.update_model_version(model, "4", "words")
    whole = as_dict(client.get_model_version(model, "4"))
    assert [as_dict(found) for found in client.get_latest_versions(model)] == [whole]
    assert [as_dict(found) for found in client.get_registered_model(model).latest_versions] == [whole]


@pytest.mark.better
def test_latest_versions_show_their_aliases(client: MlflowClient, model: str) -> None:
    client.set_registered_model_alias(model, "champion", "4")
    whole = as_dict(client.get_model_version(model, "4"))
    assert whole["aliases"] == ["champion"]
    assert [as_dict(found) for found in client.get_latest_versions(model)] == [whole]
    assert [as_dict(found) for found in client.get_registered_model(model).latest_versions] == [whole]


def test_the_one_before_is_the_latest_when_a_version_is_deleted(client: MlflowClient, model: str) -> None:
    for number in ("1", "3"):
        client.transition_model_version_stage(model, number, "Production")
    client.delete_model_version(model, "3")
    assert latest(client.get_latest_versions(model, ["Production"])) == {"Production": "1"}


def test_a_model_is_loaded_by_its_stage(door: Door, client: MlflowClient, name: str, experiment: str) -> None:
    for slope in (2.0, 3.0, 4.0):
        log_model(name, slope)
    client.transition_model_version_stage(name, "1", "Production")
    client.transition_model_version_stage(name, "2", "Staging")
    assert predict(f"models:/{name}/Production") == times(2.0)
    assert predict(f"models:/{name}/staging") == times(3.0)
    assert predict(f"models:/{name}/latest") == times(4.0)
    door.check_sealed(client.get_model_version(name, "1"))
    assert predict(f"models:/{name}/Production") == times(2.0)

"""Aliases through MLflow's client: set, moved, read, deleted, reserved, shown, loaded."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import mlflow
import pytest
from mlflow import MlflowClient

from tests.conformance.mlflow.doors import Door, as_dict, refused
from tests.conformance.mlflow.trained import log_model, predict, times

pytestmark = [pytest.mark.mlflow, pytest.mark.processes, pytest.mark.filterwarnings("ignore")]


@pytest.fixture
def model(client: MlflowClient, name: str) -> str:
    """Give a model with three versions whose files lie elsewhere."""
    client.create_registered_model(name)
    for number in (1, 2, 3):
        client.create_model_version(name, f"s3://bucket/{number}")
    return name


def test_an_alias_points_at_a_version(client: MlflowClient, model: str) -> None:
    client.set_registered_model_alias(model, "champion", "2")
    client.set_registered_model_alias(model, "best_one-2", 2)
    found = client.get_model_version_by_alias(model, "champion")
    assert str(found.version) == "2"
    assert sorted(found.aliases) == ["best_one-2", "champion"]
    assert as_dict(found) == as_dict(client.get_model_version(model, "2"))
    assert {alias: str(at) for alias, at in client.get_registered_model(model).aliases.items()} == {
        "champion": "2",
        "best_one-2": "2",
    }


def test_an_alias_moves(client: MlflowClient, model: str) -> None:
    client.set_registered_model_alias(model, "champion", "1")
    client.set_registered_model_alias(model, "champion", "3")
    client.set_registered_model_alias(model, "champion", "3")
    assert str(client.get_model_version_by_alias(model, "champion").version) == "3"
    assert client.get_model_version(model, "1").aliases == []
    assert client.get_model_version(model, "3").aliases == ["champion"]


def test_the_same_alias_may_be_used_by_other_models(client: MlflowClient, model: str) -> None:
    client.create_registered_model(f"{model}.other")
    client.create_model_version(f"{model}.other", "s3://bucket/other")
    client.set_registered_model_alias(model, "champion", "3")
    client.set_registered_model_alias(f"{model}.other", "champion", "1")
    assert str(client.get_model_version_by_alias(model, "champion").version) == "3"
    assert str(client.get_model_version_by_alias(f"{model}.other", "champion").version) == "1"


def test_upper_and_lower_case_are_two_aliases(client: MlflowClient, model: str) -> None:
    client.set_registered_model_alias(model, "champion", "1")
    client.set_registered_model_alias(model, "Champion", "2")
    assert str(client.get_model_version_by_alias(model, "champion").version) == "1"
    assert str(client.get_model_version_by_alias(model, "Champion").version) == "2"


def test_an_alias_is_deleted_and_may_be_deleted_again(client: MlflowClient, model: str) -> None:
    client.set_registered_model_alias(model, "champion", "1")
    client.delete_registered_model_alias(model, "champion")
    client.delete_registered_model_alias(model, "champion")
    assert client.get_registered_model(model).aliases == {}
    with refused("INVALID_PARAMETER_VALUE", "Registered model alias champion not found"):
        client.get_model_version_by_alias(model, "champion")


def test_an_unknown_alias_is_an_invalid_value(client: MlflowClient, model: str) -> None:
    with refused("INVALID_PARAMETER_VALUE", "Registered model alias nobody not found"):
        client.get_model_version_by_alias(model, "nobody")


def test_an_alias_needs_its_model_and_version(client: MlflowClient, model: str) -> None:
    with refused("RESOURCE_DOES_NOT_EXIST", f"Model Version (name={model}, version=9) not found"):
        client.set_registered_model_alias(model, "champion", "9")
    with refused("RESOURCE_DOES_NOT_EXIST", f"Registered Model with name={model}.none not found"):
        client.set_registered_model_alias(f"{model}.none", "champion", "1")
    with refused("RESOURCE_DOES_NOT_EXIST", f"Registered Model with name={model}.none not found"):
        client.delete_registered_model_alias(f"{model}.none", "champion")
    assert client.get_registered_model(model).aliases == {}


@pytest.mark.parametrize("alias", ["latest", "Latest", "LATEST", "v1", "V12", "v007"])
def test_a_reserved_alias_is_refused(client: MlflowClient, model: str, alias: str) -> None:
    with refused("INVALID_PARAMETER_VALUE", "is reserved"):
        client.set_registered_model_alias(model, alias, "1")


@pytest.mark.parametrize("alias", ["", "a b", "a/b", "a:b", "a@b", "a.b", "x" * 256])
def test_a_bad_alias_is_refused(client: MlflowClient, model: str, alias: str) -> None:
    with refused("INVALID_PARAMETER_VALUE"):
        client.set_registered_model_alias(model, alias, "1")


def test_an_alias_may_begin_like_a_version(client: MlflowClient, model: str) -> None:
    client.set_registered_model_alias(model, "v1x", "1")
    assert str(client.get_model_version_by_alias(model, "v1x").version) == "1"


@pytest.mark.parametrize("alias", ["latest", "Latest"])
def test_latest_is_the_highest_version(client: MlflowClient, model: str, alias: str) -> None:
    assert str(client.get_model_version_by_alias(model, alias).version) == "3"
    client.delete_model_version(model, "3")
    assert str(client.get_model_version_by_alias(model, alias).version) == "2"


def test_latest_of_a_model_without_versions_is_not_found(client: MlflowClient, name: str) -> None:
    client.create_registered_model(name)
    with refused("RESOURCE_DOES_NOT_EXIST"):
        client.get_model_version_by_alias(name, "latest")


def test_an_alias_goes_with_its_version(client: MlflowClient, model: str) -> None:
    client.set_registered_model_alias(model, "champion", "2")
    client.set_registered_model_alias(model, "other", "1")
    client.delete_model_version(model, "2")
    assert {alias: str(at) for alias, at in client.get_registered_model(model).aliases.items()} == {"other": "1"}
    with refused("INVALID_PARAMETER_VALUE", "Registered model alias champion not found"):
        client.get_model_version_by_alias(model, "champion")


def test_searching_models_shows_their_aliases(client: MlflowClient, model: str) -> None:
    client.set_registered_model_alias(model, "champion", "2")
    (found,) = client.search_registered_models(f"name = '{model}'")
    assert {alias: str(at) for alias, at in found.aliases.items()} == {"champion": "2"}


@pytest.mark.better
def test_searching_versions_shows_their_aliases(client: MlflowClient, model: str) -> None:
    client.set_registered_model_alias(model, "champion", "2")
    client.set_registered_model_alias(model, "challenger", "2")
    found = {
        str(version.version): sorted(version.aliases) for version in client.search_model_versions(f"name='{model}'")
    }
    assert found == {"1": [], "2": ["challenger", "champion"], "3": []}


def test_a_model_is_loaded_by_its_alias(door: Door, client: MlflowClient, name: str, experiment: str) -> None:
    for slope in (2.0, 3.0):
        log_model(name, slope)
    client.set_registered_model_alias(name, "champion", "1")
    assert predict(f"models:/{name}@champion") == times(2.0)
    client.set_registered_model_alias(name, "champion", "2")
    assert predict(f"models:/{name}@champion") == times(3.0)
    version = client.get_model_version_by_alias(name, "champion")
    door.check_sealed(version)
    assert predict(f"models:/{name}@champion") == times(3.0)
    assert mlflow.models.get_model_info(f"models:/{name}@champion").flavors["sklearn"]


def test_an_alias_moved_by_many_at_once_ends_at_one_of_their_versions(client: MlflowClient, model: str) -> None:
    def move(number: int) -> None:
        client.set_registered_model_alias(model, "champion", str(number % 3 + 1))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(move, range(24)))
    at = client.get_model_version_by_alias(model, "champion")
    assert at.aliases == ["champion"]
    assert sum(len(client.get_model_version(model, number).aliases) for number in ("1", "2", "3")) == 1

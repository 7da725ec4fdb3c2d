"""Copies, new names and deletions through MLflow's client."""

from __future__ import annotations

from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from tests.conformance.mlflow.doors import Door, read_version, refused
from tests.conformance.mlflow.trained import log_model, predict, times

pytestmark = [pytest.mark.mlflow, pytest.mark.processes, pytest.mark.filterwarnings("ignore")]


@pytest.mark.parametrize("reference", ["/1", "@champion", "/latest"])
def test_a_version_is_copied_to_a_new_model(
    door: Door, client: MlflowClient, name: str, experiment: str, reference: str
) -> None:
    log_model(name)
    client.update_model_version(name, "1", "first words")
    client.set_model_version_tag(name, "1", "a", "b")
    client.set_registered_model_alias(name, "champion", "1")
    client.transition_model_version_stage(name, "1", "Production")
    original = client.get_model_version(name, "1")
    copy = client.copy_model_version(f"models:/{name}{reference}", f"{name}.prod")
    assert (copy.name, str(copy.version), copy.source) == (f"{name}.prod", "1", f"models:/{name}/1")
    assert (copy.run_id, copy.run_link, copy.description) == (original.run_id, original.run_link, "first words")
    assert copy.tags == original.tags
    assert (copy.current_stage, copy.aliases, copy.status) == ("None", [], "READY")
    assert predict(f"models:/{name}.prod/1") == times(2.0)
    addresses = {client.get_model_version_download_uri(version.name, "1") for version in (original, copy)}
    assert len(addresses) == 1
    if door.is_touchmark:
        assert door.digest_of(copy) == door.digest_of(original)
    door.check_sealed(copy)
    assert predict(f"models:/{name}.prod/1") == times(2.0)


def test_a_copy_of_a_copy_has_the_same_files(door: Door, client: MlflowClient, name: str, experiment: str) -> None:
    log_model(name)
    client.copy_model_version(f"models:/{name}/1", f"{name}.second")
    third = client.copy_model_version(f"models:/{name}.second/1", f"{name}.third")
    assert third.source == f"models:/{name}.second/1"
    assert client.get_model_version_download_uri(f"{name}.third", "1") == client.get_model_version_download_uri(
        name, "1"
    )
    assert read_version(third) == read_version(client.get_model_version(name, "1"))
    door.check_sealed(third)


def test_a_copy_to_a_model_that_exists_is_its_next_version(client: MlflowClient, name: str, experiment: str) -> None:
    log_model(name)
    client.create_registered_model(f"{name}.prod", tags={"kept": "1"})
    client.create_model_version(f"{name}.prod", "s3://bucket/x")
    assert str(client.copy_model_version(f"models:/{name}/1", f"{name}.prod").version) == "2"
    assert client.get_registered_model(f"{name}.prod").tags == {"kept": "1"}


def test_a_copy_outlives_what_it_was_copied_from(door: Door, client: MlflowClient, name: str, experiment: str) -> None:
    log_model(name)
    copy = client.copy_model_version(f"models:/{name}/1", f"{name}.prod")
    client.delete_model_version(name, "1")
    client.delete_registered_model(name)
    assert predict(f"models:/{name}.prod/1") == times(2.0)
    if door.is_touchmark:
        assert door.digest_of(copy)


def test_a_copy_of_nothing_is_not_found(client: MlflowClient, name: str, experiment: str) -> None:
    for made in (False, True):
        if made:
            client.create_registered_model(name)
        with pytest.raises(MlflowException, match=rf"RESOURCE_DOES_NOT_EXIST: .*\(name={name}, version=9\) not found"):
            client.copy_model_version(f"models:/{name}/9", f"{name}.prod")
    with pytest.raises(MlflowException, match="INVALID_PARAMETER_VALUE: Registered model alias none not found"):
        client.copy_model_version(f"models:/{name}@none", f"{name}.prod")
    with pytest.raises(MlflowException, match="Unsupported source model URI"):
        client.copy_model_version(f"runs:/{'0' * 32}/model", f"{name}.prod")


def test_a_new_name_takes_everything_with_it(door: Door, client: MlflowClient, name: str, experiment: str) -> None:
    for slope in (2.0, 3.0):
        log_model(name, slope)
    client.set_registered_model_tag(name, "a", "b")
    client.set_model_version_tag(name, "1", "c", "d")
    client.set_registered_model_alias(name, "champion", "1")
    before = client.get_registered_model(name)
    client.rename_registered_model(name, f"{name}.new")
    found = client.get_registered_model(f"{name}.new")
    assert found.name == f"{name}.new"
    assert found.creation_timestamp == before.creation_timestamp
    assert found.last_updated_timestamp > before.last_updated_timestamp
    assert found.tags == {"a": "b"}
    assert {alias: str(at) for alias, at in found.aliases.items()} == {"champion": "1"}
    assert {version.name for version in found.latest_versions} == {f"{name}.new"}
    assert client.get_model_version(f"{name}.new", "1").tags == {"c": "d"}
    with refused("RESOURCE_DOES_NOT_EXIST", f"Registered Model with name={name} not found"):
        client.get_registered_model(name)
    assert client.search_model_versions(f"name='{name}'") == []
    assert predict(f"models:/{name}.new@champion") == times(2.0)
    door.check_sealed(client.get_model_version(f"{name}.new", "1"))
    assert predict(f"models:/{name}.new@champion") == times(2.0)


def test_a_copy_loads_after_its_original_got_a_new_name(client: MlflowClient, name: str, experiment: str) -> None:
    log_model(name)
    client.copy_model_version(f"models:/{name}/1", f"{name}.prod")
    client.rename_registered_model(name, f"{name}.new")
    assert predict(f"models:/{name}.prod/1") == times(2.0)


def test_a_name_that_is_taken_is_refused(client: MlflowClient, name: str) -> None:
    client.create_registered_model(name)
    client.create_registered_model(f"{name}.other")
    with refused("RESOURCE_ALREADY_EXISTS"):
        client.rename_registered_model(name, f"{name}.other")
    assert client.get_registered_model(name).name == name


@pytest.mark.parametrize("bad", ["a/b", "a:b", "."])
def test_a_bad_new_name_is_refused(client: MlflowClient, name: str, bad: str) -> None:
    client.create_registered_model(name)
    with refused("INVALID_PARAMETER_VALUE"):
        client.rename_registered_model(name, bad)
    assert client.get_registered_model(name).name == name


def test_a_deleted_version_is_gone_for_clients(client: MlflowClient, name: str) -> None:
    client.create_registered_model(name)
    for number in (1, 2):
        client.create_model_version(name, f"s3://bucket/{number}")
    client.delete_model_version(name, "2")
    for ask in (
        lambda: client.get_model_version(name, "2"),
        lambda: client.set_model_version_tag(name, "2", "a", "b"),
        lambda: client.delete_model_version_tag(name, "2", "a"),
        lambda: client.update_model_version(name, "2", "words"),
        lambda: client.transition_model_version_stage(name, "2", "Staging"),
        lambda: client.get_model_version_download_uri(name, "2"),
        lambda: client.set_registered_model_alias(name, "a", "2"),
        lambda: client.delete_model_version(name, "2"),
    ):
        with refused("RESOURCE_DOES_NOT_EXIST"):
            ask()
    assert [str(version.version) for version in client.search_model_versions(f"name='{name}'")] == ["1"]
    assert [str(version.version) for version in client.get_latest_versions(name)] == ["1"]


@pytest.mark.better
def test_a_deleted_version_keeps_its_record(door: Door, client: MlflowClient, name: str, experiment: str) -> None:
    log_model(name)
    version = client.get_model_version(name, "1")
    digest = door.digest_of(version)
    client.delete_model_version(name, "1")
    kept = door.native(f"models/{name}/versions/1?include_deleted=true")
    assert (kept["digest"], kept["sealed"]) == (digest, True)
    assert kept["deleted_at"]


def test_a_deleted_model_is_gone_for_clients(client: MlflowClient, name: str) -> None:
    client.create_registered_model(name, {"a": "b"})
    client.create_model_version(name, "s3://bucket/x", tags={"a": "b"})
    client.set_registered_model_alias(name, "champion", "1")
    client.delete_registered_model(name)
    for ask in (
        lambda: client.get_registered_model(name),
        lambda: client.get_model_version(name, "1"),
        lambda: client.delete_registered_model(name),
        lambda: client.set_registered_model_tag(name, "a", "b"),
    ):
        with refused("RESOURCE_DOES_NOT_EXIST"):
            ask()
    assert client.search_registered_models(f"name='{name}'") == []
    assert client.search_model_versions(f"name='{name}'") == []


def test_a_deleted_name_may_be_created_anew(client: MlflowClient, name: str) -> None:
    client.create_registered_model(name, {"a": "b"}, "old words")
    client.create_model_version(name, "s3://bucket/x")
    client.set_registered_model_alias(name, "champion", "1")
    client.delete_registered_model(name)
    made = client.create_registered_model(name)
    assert (made.tags, made.aliases, made.description or "") == ({}, {}, "")
    assert client.search_model_versions(f"name='{name}'") == []


@pytest.mark.better
def test_a_name_created_anew_goes_on_counting(client: MlflowClient, name: str) -> None:
    client.create_registered_model(name)
    client.create_model_version(name, "s3://bucket/x")
    client.delete_registered_model(name)
    client.create_registered_model(name)
    assert str(client.create_model_version(name, "s3://bucket/y").version) == "2"


def test_a_version_outlives_its_run_and_its_logged_model(
    door: Door, client: MlflowClient, name: str, experiment: str, tmp_path: Path
) -> None:
    with mlflow.start_run() as run:
        info = log_model(name)
    client.delete_run(run.info.run_id)
    client.delete_logged_model(info.model_id)
    version = client.get_model_version(name, "1")
    assert predict(f"models:/{name}/1") == times(2.0)
    if door.is_touchmark:
        assert door.digest_of(version)

"""Registered models and versions through MLflow's client: made, read, described, tagged, numbered, sealed."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import mlflow
import pytest
from mlflow import MlflowClient

from tests.conformance.mlflow.doors import Door, as_dict, hash_files, read_files, read_version, refused
from tests.conformance.mlflow.trained import REQUIREMENTS, fit, log_model, predict, times, write_files

pytestmark = [pytest.mark.mlflow, pytest.mark.processes, pytest.mark.filterwarnings("ignore")]


def test_a_model_is_created_as_it_was_described(client: MlflowClient, name: str) -> None:
    made = client.create_registered_model(name, {"team": "risk", "number": 5, "empty": ""}, "for the desk")
    assert made.name == name
    assert made.tags == {"team": "risk", "number": "5", "empty": ""}
    assert made.description == "for the desk"
    assert made.creation_timestamp == made.last_updated_timestamp
    assert made.latest_versions == []
    assert made.aliases == {}
    assert as_dict(client.get_registered_model(name)) == as_dict(made)


def test_a_model_without_description_has_none(client: MlflowClient, name: str) -> None:
    client.create_registered_model(name)
    assert not client.get_registered_model(name).description
    assert client.get_registered_model(name).tags == {}


def test_a_name_is_created_once(client: MlflowClient, name: str) -> None:
    client.create_registered_model(name)
    with refused("RESOURCE_ALREADY_EXISTS", f"Registered Model (name={name}) already exists"):
        client.create_registered_model(name)


@pytest.mark.parametrize("kind", ["é ü", "with blank", "a.b-c_d", "per%cent", "que?stion&=+", "#hash", "'quote\""])
def test_a_model_may_have_many_kinds_of_name(client: MlflowClient, name: str, kind: str) -> None:
    odd = f"{name} {kind}"
    client.create_registered_model(odd)
    version = client.create_model_version(odd, "s3://bucket/x")
    client.set_registered_model_alias(odd, "a", version.version)
    assert client.get_registered_model(odd).name == odd
    assert client.get_model_version(odd, version.version).name == odd
    assert client.get_model_version_by_alias(odd, "a").version == version.version


@pytest.mark.parametrize("bad", ["", "  ", "a/b", "a:b", ".", ".."])
def test_a_bad_name_is_refused(client: MlflowClient, bad: str) -> None:
    with refused("INVALID_PARAMETER_VALUE"):
        client.create_registered_model(bad)


def test_an_absent_model_is_not_found(client: MlflowClient, name: str) -> None:
    words = f"Registered Model with name={name} not found"
    for ask in (
        lambda: client.get_registered_model(name),
        lambda: client.update_registered_model(name, "words"),
        lambda: client.set_registered_model_tag(name, "a", "b"),
        lambda: client.delete_registered_model_tag(name, "a"),
        lambda: client.delete_registered_model(name),
        lambda: client.rename_registered_model(name, f"{name}.new"),
        lambda: client.create_model_version(name, "s3://bucket/x"),
        lambda: client.get_latest_versions(name),
    ):
        with refused("RESOURCE_DOES_NOT_EXIST", words):
            ask()


def test_an_absent_version_is_not_found(client: MlflowClient, name: str) -> None:
    client.create_registered_model(name)
    words = f"Model Version (name={name}, version=7) not found"
    for ask in (
        lambda: client.get_model_version(name, "7"),
        lambda: client.update_model_version(name, "7", "words"),
        lambda: client.set_model_version_tag(name, "7", "a", "b"),
        lambda: client.delete_model_version_tag(name, "7", "a"),
        lambda: client.delete_model_version(name, "7"),
        lambda: client.get_model_version_download_uri(name, "7"),
        lambda: client.transition_model_version_stage(name, "7", "Staging"),
    ):
        with refused("RESOURCE_DOES_NOT_EXIST", words):
            ask()


def test_a_version_number_is_a_number(client: MlflowClient, name: str) -> None:
    client.create_registered_model(name)
    with refused("INVALID_PARAMETER_VALUE"):
        client.get_model_version(name, "first")


def test_a_model_is_described_anew(client: MlflowClient, name: str) -> None:
    made = client.create_registered_model(name, description="first")
    changed = client.update_registered_model(name, "second")
    assert changed.description == "second"
    assert changed.last_updated_timestamp > made.last_updated_timestamp
    assert as_dict(client.get_registered_model(name)) == as_dict(changed)


def test_tags_of_a_model_are_set_and_deleted(client: MlflowClient, name: str) -> None:
    client.create_registered_model(name, {"kept": "1"})
    client.set_registered_model_tag(name, "number", 5)
    client.set_registered_model_tag(name, "kept", "2")
    client.set_registered_model_tag(name, "Kept", "other")
    client.set_registered_model_tag(name, "empty", "")
    assert client.get_registered_model(name).tags == {"kept": "2", "Kept": "other", "number": "5", "empty": ""}
    client.delete_registered_model_tag(name, "number")
    client.delete_registered_model_tag(name, "number")
    assert client.get_registered_model(name).tags == {"kept": "2", "Kept": "other", "empty": ""}


def test_a_tag_may_be_long_but_not_endless(client: MlflowClient, name: str) -> None:
    client.create_registered_model(name)
    client.set_registered_model_tag(name, "k" * 250, "v" * 4999)
    with refused("INVALID_PARAMETER_VALUE"):
        client.set_registered_model_tag(name, "k" * 251, "v")
    with refused("INVALID_PARAMETER_VALUE"):
        client.set_registered_model_tag(name, "long", "v" * 100_001)
    assert set(client.get_registered_model(name).tags) == {"k" * 250}


def test_versions_are_numbered_from_one(client: MlflowClient, name: str) -> None:
    client.create_registered_model(name)
    made = [client.create_model_version(name, f"s3://bucket/{number}") for number in (1, 2, 3)]
    assert [str(version.version) for version in made] == ["1", "2", "3"]
    assert [version.source for version in made] == ["s3://bucket/1", "s3://bucket/2", "s3://bucket/3"]


def test_a_number_is_not_used_again_after_its_version_is_deleted(client: MlflowClient, name: str) -> None:
    client.create_registered_model(name)
    for number in ("1", "2"):
        client.create_model_version(name, "s3://bucket/x")
        client.delete_model_version(name, number)
    assert str(client.create_model_version(name, "s3://bucket/x").version) == "3"


def test_a_version_tells_what_it_was_made_with(client: MlflowClient, name: str, experiment: str) -> None:
    run = client.create_run(experiment)
    client.create_registered_model(name)
    made = client.create_model_version(
        name, "s3://bucket/x", run.info.run_id, {"a": "b", "n": 1}, "https://host/run", "first words"
    )
    assert (made.name, str(made.version), made.source) == (name, "1", "s3://bucket/x")
    assert (made.run_id, made.run_link, made.description) == (run.info.run_id, "https://host/run", "first words")
    assert made.tags == {"a": "b", "n": "1"}
    assert (made.status, made.current_stage) == ("READY", "None")
    assert made.creation_timestamp == made.last_updated_timestamp
    assert as_dict(client.get_model_version(name, "1")) == as_dict(made)
    model = client.get_registered_model(name)
    assert model.last_updated_timestamp == made.last_updated_timestamp
    assert [as_dict(version) for version in model.latest_versions] == [as_dict(made)]


def test_describing_a_version_leaves_its_model_as_it_was(client: MlflowClient, name: str) -> None:
    client.create_registered_model(name)
    made = client.create_model_version(name, "s3://bucket/x")
    before = client.get_registered_model(name).last_updated_timestamp
    changed = client.update_model_version(name, "1", "words")
    assert changed.description == "words"
    assert changed.last_updated_timestamp > made.last_updated_timestamp
    assert client.get_registered_model(name).last_updated_timestamp == before


def test_tags_of_a_version_are_set_and_deleted(client: MlflowClient, name: str) -> None:
    client.create_registered_model(name)
    client.create_model_version(name, "s3://bucket/x", tags={"a": "1"})
    client.set_model_version_tag(name, "1", "b", 2)
    client.set_model_version_tag(name, "1", "a", "")
    assert client.get_model_version(name, "1").tags == {"a": "", "b": "2"}
    client.delete_model_version_tag(name, "1", "a")
    client.delete_model_version_tag(name, "1", "a")
    assert client.get_model_version(name, "1").tags == {"b": "2"}


def test_log_model_registers_what_it_logged(door: Door, client: MlflowClient, name: str, experiment: str) -> None:
    with mlflow.start_run() as run:
        mlflow.log_metric("auc", 0.9)
        info = log_model(name)
    version = client.get_model_version(name, "1")
    assert str(info.registered_model_version) == "1"
    assert version.source == f"models:/{info.model_id}"
    assert version.run_id == run.info.run_id
    assert version.status == "READY"
    assert predict(f"models:/{name}/1") == times(2.0)
    assert read_version(version) == read_files(info.model_uri)
    door.check_sealed(version)
    assert predict(f"models:/{name}/1") == times(2.0)


def test_a_run_s_model_is_registered_by_its_name(door: Door, name: str, experiment: str) -> None:
    with mlflow.start_run() as run:
        info = log_model()
    version = mlflow.register_model(f"runs:/{run.info.run_id}/model", name, tags={"from": "run"})
    assert version.source == f"models:/{info.model_id}"
    assert version.run_id == run.info.run_id
    assert version.tags == {"from": "run"}
    assert predict(f"models:/{name}/1") == times(2.0)
    door.check_sealed(version)


def test_a_model_among_the_files_of_a_run_is_registered(
    door: Door, client: MlflowClient, name: str, experiment: str, tmp_path: Path
) -> None:
    mlflow.sklearn.save_model(fit(), str(tmp_path / "net"), pip_requirements=REQUIREMENTS)
    with mlflow.start_run() as run:
        mlflow.log_artifacts(str(tmp_path / "net"), "nets/first")
        mlflow.log_text("beside", "nets/other.txt")
    version = mlflow.register_model(f"runs:/{run.info.run_id}/nets/first", name)
    assert version.source == f"{run.info.artifact_uri}/nets/first"
    assert version.run_id == run.info.run_id
    assert read_version(version) == hash_files(tmp_path / "net")
    assert predict(f"models:/{name}/1") == times(2.0)
    door.check_sealed(version)
    assert predict(f"models:/{name}/1") == times(2.0)


def test_any_files_of_a_run_make_a_version(
    door: Door, client: MlflowClient, name: str, experiment: str, tmp_path: Path
) -> None:
    with mlflow.start_run() as run:
        mlflow.log_artifacts(str(write_files(tmp_path / "files")), "weights")
        mlflow.log_text("beside", "weights.txt")
    source = f"runs:/{run.info.run_id}/weights"
    client.create_registered_model(name)
    version = client.create_model_version(name, source, run.info.run_id)
    assert (version.source, version.run_id) == (source, run.info.run_id)
    assert read_version(version) == hash_files(tmp_path / "files")
    door.check_sealed(version)


def test_a_logged_model_is_registered_by_its_id(door: Door, name: str, experiment: str) -> None:
    info = log_model()
    version = mlflow.register_model(f"models:/{info.model_id}", name)
    assert version.source == f"models:/{info.model_id}"
    assert predict(f"models:/{name}/1") == times(2.0)
    door.check_sealed(version)


@pytest.mark.parametrize("reference", ["/1", "@champion"])
def test_a_version_is_registered_under_another_name(
    door: Door, client: MlflowClient, name: str, experiment: str, reference: str
) -> None:
    log_model(name)
    client.set_registered_model_alias(name, "champion", "1")
    client.create_registered_model(f"{name}.copy")
    version = client.create_model_version(f"{name}.copy", f"models:/{name}{reference}")
    assert version.source == f"models:/{name}/1"
    assert version.run_id == client.get_model_version(name, "1").run_id
    assert predict(f"models:/{name}.copy/1") == times(2.0)
    assert read_version(version) == read_version(client.get_model_version(name, "1"))
    if door.is_touchmark:
        assert door.digest_of(version) == door.digest_of(client.get_model_version(name, "1"))
    door.check_sealed(version)


def test_the_same_source_registered_twice_makes_two_versions(
    door: Door, client: MlflowClient, name: str, experiment: str
) -> None:
    info = log_model()
    first, second = (mlflow.register_model(info.model_uri, name) for _ in range(2))
    assert [str(first.version), str(second.version)] == ["1", "2"]
    if door.is_touchmark:
        assert door.digest_of(first) == door.digest_of(second)
        assert door.look(second)["same_bytes_as"] == 1
    door.check_sealed(second)


def test_versions_of_two_trainings_differ(door: Door, client: MlflowClient, name: str, experiment: str) -> None:
    for slope in (2.0, 3.0):
        log_model(name, slope)
    assert predict(f"models:/{name}/1") == times(2.0)
    assert predict(f"models:/{name}/2") == times(3.0)
    versions = [client.get_model_version(name, number) for number in ("1", "2")]
    if door.is_touchmark:
        assert len({door.digest_of(version) for version in versions}) == 2
    for version in versions:
        door.check_sealed(version)


def test_a_logged_model_lists_its_versions(client: MlflowClient, name: str, experiment: str) -> None:
    info = log_model()
    mlflow.register_model(info.model_uri, name)
    mlflow.register_model(info.model_uri, f"{name}.second")
    noted = json.loads(client.get_logged_model(info.model_id).tags["mlflow.modelVersions"])
    assert {(entry["name"], str(entry["version"])) for entry in noted} == {(name, "1"), (f"{name}.second", "1")}


def test_a_logged_model_brings_its_run(client: MlflowClient, name: str, experiment: str) -> None:
    with mlflow.start_run() as run:
        info = log_model()
    client.create_registered_model(name)
    made = client.create_model_version(name, f"models:/{info.model_id}", model_id=info.model_id)
    assert made.run_id == run.info.run_id


@pytest.mark.parametrize(
    "source",
    [
        "mlflow-artifacts:/models",
        "http://169.254.169.254/latest/meta-data",
        "mlflow-artifacts://host:9000/models/../../../",
        "https://host/api/2.0/mlflow-artifacts/artifacts/../../../",
        "s3a://my_bucket/models/../../../",
        "ftp://host:8888/path/../../../",
        "s3://bucket/models/..%2f..%2fartifacts",
        "s3://bucket/artifact%00",
        "file:///tmp",
        "/tmp",
        "file:///etc/passwd",
    ],
)
def test_a_source_that_reaches_elsewhere_is_refused(client: MlflowClient, name: str, source: str) -> None:
    client.create_registered_model(name)
    with refused("INVALID_PARAMETER_VALUE"):
        client.create_model_version(name, source)
    assert client.search_model_versions(f"name='{name}'") == []


def test_a_source_of_another_run_is_refused(client: MlflowClient, name: str, experiment: str) -> None:
    first, second = (client.create_run(experiment).info for _ in range(2))
    client.create_registered_model(name)
    with refused("INVALID_PARAMETER_VALUE"):
        client.create_model_version(name, f"{first.artifact_uri}/model", run_id=second.run_id)


def test_an_address_elsewhere_is_kept_and_says_that_it_is_unsealed(door: Door, client: MlflowClient, name: str) -> None:
    client.create_registered_model(name)
    made = client.create_model_version(name, "s3://bucket/path/model")
    assert (made.status, made.source) == ("READY", "s3://bucket/path/model")
    assert client.get_model_version_download_uri(name, "1") == "s3://bucket/path/model"
    if door.is_touchmark:
        door.check_unsealed(made)


@pytest.mark.better
def test_a_run_nobody_knows_makes_an_unsealed_version(door: Door, client: MlflowClient, name: str) -> None:
    client.create_registered_model(name)
    run_id = uuid4().hex
    made = client.create_model_version(name, f"runs:/{run_id}/model", run_id=run_id)
    door.check_unsealed(made)


@pytest.mark.better
def test_a_logged_model_nobody_knows_makes_an_unsealed_version(door: Door, client: MlflowClient, name: str) -> None:
    client.create_registered_model(name)
    absent = f"m-{uuid4().hex}"
    door.check_unsealed(client.create_model_version(name, f"models:/{absent}", model_id=absent), absent)


@pytest.mark.better
def test_a_version_tells_who_made_it(client: MlflowClient, name: str) -> None:
    client.create_registered_model(name)
    assert client.create_model_version(name, "s3://bucket/x").user_id
    assert client.get_model_version(name, "1").user_id
    assert client.search_model_versions(f"name='{name}'")[0].user_id


def test_writers_at_once_leave_no_gap(client: MlflowClient, name: str) -> None:
    client.create_registered_model(name)
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda number: client.create_model_version(name, f"s3://bucket/{number}"), range(16)))
    assert sorted(int(version.version) for version in made) == list(range(1, 17))


def test_a_registration_is_ready_when_it_is_answered(client: MlflowClient, name: str) -> None:
    client.create_registered_model(name)
    made = client.create_model_version(name, "s3://bucket/x", await_creation_for=5)
    assert made.status == "READY"
    assert client.get_model_version(name, "1").status == "READY"

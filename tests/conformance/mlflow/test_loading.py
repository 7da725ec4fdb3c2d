"""Registered models loaded and downloaded through MLflow's client, by every address, from wherever its runs are."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import mlflow
import mlflow.sklearn
import pytest
from mlflow import MlflowClient

from tests.conformance.mlflow.doors import PROXY, Door, hash_files, read_files, refused
from tests.conformance.mlflow.trained import INPUTS, REQUIREMENTS, fit, log_model, predict, times
from tests.served import serve

pytestmark = [pytest.mark.mlflow, pytest.mark.processes, pytest.mark.filterwarnings("ignore")]


def test_a_version_is_loaded_by_every_address(
    door: Door, client: MlflowClient, name: str, experiment: str, tmp_path: Path
) -> None:
    with mlflow.start_run() as run:
        info = log_model(name)
    client.set_registered_model_alias(name, "champion", "1")
    client.transition_model_version_stage(name, "1", "Production")
    addresses = [
        f"models:/{name}/1",
        f"models:/{name}@champion",
        f"models:/{name}/Production",
        f"models:/{name}/latest",
        f"models:/{info.model_id}",
        f"runs:/{run.info.run_id}/model",
    ]
    for address in addresses:
        assert predict(address) == times(2.0)
    loaded = mlflow.sklearn.load_model(f"models:/{name}/1")
    assert [round(float(value), 6) for value in loaded.predict(INPUTS)] == times(2.0)
    files = [read_files(address) for address in addresses]
    assert all(found == files[0] for found in files)
    assert "MLmodel" in files[0]
    door.check_sealed(client.get_model_version(name, "1"))
    for address in addresses[:4]:
        assert read_files(address) == files[0]
        assert predict(address) == times(2.0)


def test_a_version_says_what_it_is(client: MlflowClient, name: str, experiment: str) -> None:
    signature = mlflow.models.infer_signature(INPUTS, fit().predict(INPUTS))
    info = log_model(name, signature=signature)
    told = mlflow.models.get_model_info(f"models:/{name}/1")
    assert told.signature == signature
    assert told.model_id == info.model_id
    loaded = mlflow.pyfunc.load_model(f"models:/{name}/1")
    assert loaded.metadata.signature == signature
    requirements = mlflow.pyfunc.get_model_dependencies(f"models:/{name}/1")
    assert "scikit-learn" in Path(requirements).read_text()


def test_single_files_of_a_version_are_downloaded(
    client: MlflowClient, name: str, experiment: str, tmp_path: Path
) -> None:
    log_model(name)
    got = mlflow.artifacts.download_artifacts(f"models:/{name}/1/MLmodel", dst_path=str(tmp_path))
    assert "sklearn" in Path(got).read_text()
    listed = mlflow.artifacts.list_artifacts(f"models:/{name}/1")
    assert "MLmodel" in [item.path for item in listed]
    assert "sklearn" in mlflow.artifacts.load_text(f"models:/{name}/1/MLmodel")


def test_a_python_model_with_files_is_loaded(
    door: Door, client: MlflowClient, name: str, experiment: str, tmp_path: Path
) -> None:
    (tmp_path / "words.json").write_text(json.dumps({"hello": "bonjour"}))

    class Translator(mlflow.pyfunc.PythonModel):
        def load_context(self, context: mlflow.pyfunc.PythonModelContext) -> None:
            self.words = json.loads(Path(context.artifacts["words"]).read_text())

        def predict(self, context: mlflow.pyfunc.PythonModelContext, model_input: list[str]) -> list[str]:
            return [self.words.get(word, word) for word in model_input]

    mlflow.pyfunc.log_model(
        name="translator",
        python_model=Translator(),
        artifacts={"words": str(tmp_path / "words.json")},
        pip_requirements=["mlflow"],
        registered_model_name=name,
    )
    loaded = mlflow.pyfunc.load_model(f"models:/{name}/1")
    assert loaded.predict(["hello", "you"]) == ["bonjour", "you"]
    door.check_sealed(client.get_model_version(name, "1"))
    assert mlflow.pyfunc.load_model(f"models:/{name}/1").predict(["hello"]) == ["bonjour"]


@pytest.mark.parametrize("form", ["skops", "cloudpickle"])
def test_a_model_is_loaded_in_the_form_it_was_saved(
    door: Door, client: MlflowClient, name: str, experiment: str, form: str
) -> None:
    log_model(name, serialization_format=form)
    assert predict(f"models:/{name}/1") == times(2.0)
    door.check_sealed(client.get_model_version(name, "1"))
    assert predict(f"models:/{name}/1") == times(2.0)


@pytest.mark.better
def test_sealed_files_have_an_address_that_copies_share(
    door: Door, client: MlflowClient, name: str, experiment: str, tmp_path: Path
) -> None:
    log_model(name)
    copy = client.copy_model_version(f"models:/{name}/1", f"{name}.copy")
    digest = door.digest_of(copy).removeprefix("sha256:")
    address = client.get_model_version_download_uri(name, "1")
    assert address == f"{door.uri}{PROXY}/sealed/{digest}"
    assert client.get_model_version_download_uri(f"{name}.copy", "1") == address
    assert read_files(address) == read_files(f"models:/{name}/1")
    assert predict(address) == times(2.0)


@pytest.mark.better
def test_a_sealed_version_loads_whatever_tracking_server_a_client_has(
    door: Door, client: MlflowClient, name: str, experiment: str, tmp_path: Path
) -> None:
    log_model(name)
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'elsewhere.db'}")
    mlflow.set_registry_uri(door.uri)
    assert predict(f"models:/{name}/1") == times(2.0)


@pytest.fixture(scope="module")
def tracker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """Start a second server, for runs alone."""
    with serve(tmp_path_factory.mktemp("tracker"), "--no-log-requests") as served:
        yield Door(f"http://127.0.0.1:{served.port}", is_touchmark=True)


@pytest.mark.better
def test_a_registry_beside_a_tracking_server_keeps_what_it_cannot_read_as_unsealed(
    door: Door, tracker: Door, client: MlflowClient, name: str
) -> None:
    mlflow.set_tracking_uri(tracker.uri)
    mlflow.set_registry_uri(door.uri)
    mlflow.set_experiment("beside")
    with mlflow.start_run() as run:
        info = log_model(name)
    version = client.get_model_version(name, "1")
    assert version.source == f"models:/{info.model_id}"
    door.check_unsealed(version)
    with refused("RESOURCE_DOES_NOT_EXIST"):
        client.get_run(run.info.run_id)


def test_a_model_saved_on_disk_is_registered_through_a_run(
    door: Door, client: MlflowClient, name: str, experiment: str, tmp_path: Path
) -> None:
    mlflow.sklearn.save_model(fit(3.0), str(tmp_path / "net"), pip_requirements=REQUIREMENTS)
    with mlflow.start_run() as run:
        mlflow.log_artifacts(str(tmp_path / "net"), "net")
    client.create_registered_model(name)
    source = f"{run.info.artifact_uri}/net"
    version = client.create_model_version(name, source, run.info.run_id)
    assert version.source == source
    assert read_files(f"models:/{name}/1") == hash_files(tmp_path / "net")
    assert predict(f"models:/{name}/1") == times(3.0)
    door.check_sealed(version)

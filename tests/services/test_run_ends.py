"""When a run ends: metrics logged after its model was registered reach the version, and change nothing that it has."""

from __future__ import annotations

import pytest

from touchmark.domain.access import Principal
from touchmark.domain.digest import digest_of
from touchmark.domain.repositories import parse_repository
from touchmark.domain.tracking import ArtifactOwner, Metric
from touchmark.registry import Registry
from touchmark.services import artifacts, blobs, registration, runs, search, versions

NAN = float("nan")


@pytest.fixture
def run_id(registry: Registry, who: Principal) -> str:
    run = runs.create_run(registry, who, experiment="ends")
    owner = ArtifactOwner("run", run.run_id)
    with blobs.open_upload(registry, who, parse_repository(owner.repository)) as upload:
        upload.write(b"weights")
        upload.commit(digest_of(b"weights"))
    artifacts.set_artifacts(registry, who, owner, {"model/w.bin": digest_of(b"weights")})
    return run.run_id


def log(registry: Registry, who: Principal, run_id: str, **metrics: float) -> None:
    runs.log_batch(registry, who, run_id, metrics=[Metric(key, value, at=1) for key, value in metrics.items()])


def register(registry: Registry, who: Principal, run_id: str, name: str = "net") -> int:
    return registration.register_version(registry, who, name, f"runs:/{run_id}/model").version


def measured(registry: Registry, who: Principal, number: int, name: str = "net") -> dict[str, float]:
    return dict(versions.get_version(registry, who, name, number).metrics)


def test_what_was_measured_after_registration_is_found_by_searches(
    registry: Registry, who: Principal, run_id: str
) -> None:
    log(registry, who, run_id, loss=0.5)
    register(registry, who, run_id)
    log(registry, who, run_id, auc=0.9, loss=0.1)
    runs.update_run(registry, who, run_id, status="FINISHED")

    found = search.search_versions(registry, who, filter="metrics.auc >= 0.9").items
    assert [(version.name, version.version) for version in found] == [("net", 1)]
    assert measured(registry, who, 1) == {"auc": 0.9, "loss": 0.5}, "what it had when it was registered stays"
    assert versions.get_version(registry, who, "net", 1).origin["metrics"].keys() == {"loss"}
    (evaluation,) = versions.list_evaluations(registry, who, "net", 1)
    assert (evaluation.by, dict(evaluation.metrics)) == ("system", {"auc": 0.9})


def test_only_the_last_version_of_each_model_is_completed_and_only_once(
    registry: Registry, who: Principal, run_id: str
) -> None:
    for _ in range(2):
        register(registry, who, run_id)
    register(registry, who, run_id, "other")
    log(registry, who, run_id, auc=0.9)
    size = registry.get_log_size()
    runs.update_run(registry, who, run_id, status="FAILED")

    assert registry.get_log_size() == size + 2
    assert [measured(registry, who, 1), measured(registry, who, 2)] == [{}, {"auc": 0.9}]
    assert measured(registry, who, 1, "other") == {"auc": 0.9}
    log(registry, who, run_id, auc=0.1)
    runs.update_run(registry, who, run_id, status="FINISHED")
    assert registry.get_log_size() == size + 2
    assert measured(registry, who, 2) == {"auc": 0.9}


def test_a_version_registered_after_the_end_a_deleted_one_and_a_run_that_goes_on_are_left_alone(
    registry: Registry, who: Principal, run_id: str
) -> None:
    register(registry, who, run_id, "deleted")
    versions.delete_version(registry, who, "deleted", 1)
    log(registry, who, run_id, auc=0.9)
    size = registry.get_log_size()
    runs.update_run(registry, who, run_id, status="RUNNING")
    runs.update_run(registry, who, run_id, name="renamed")
    runs.update_run(registry, who, run_id, status="KILLED")
    assert registry.get_log_size() == size
    register(registry, who, run_id)
    log(registry, who, run_id, late=1.0)
    runs.update_run(registry, who, run_id, status="KILLED")
    assert measured(registry, who, 1) == {"auc": 0.9}


def test_a_metric_that_is_no_number_is_kept(registry: Registry, who: Principal, run_id: str) -> None:
    register(registry, who, run_id)
    log(registry, who, run_id, loss=NAN, gain=float("inf"))
    runs.update_run(registry, who, run_id, status="FINISHED")
    found = measured(registry, who, 1)
    assert found["gain"] == float("inf")
    assert found["loss"] != found["loss"]

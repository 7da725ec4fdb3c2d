"""Bringing things in, on both databases: under ids of their own, in order, and never twice."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from typing import Literal

import pytest

from touchmark.domain.access import Principal
from touchmark.domain.errors import ConflictError, InvalidPathError, ModelNotFoundError, RunNotFoundError
from touchmark.domain.imports import (
    SourceLoggedModel,
    SourceRun,
    SourceVersion,
    clean_logged_model,
    clean_run,
    clean_version,
    find_copied,
    is_same_version,
)
from touchmark.domain.tracking import ArtifactOwner, Experiment, Measurement, Metric, RunStatus
from touchmark.domain.versions import VersionFile, VersionState
from touchmark.ops.fsck import Report, check_registry
from touchmark.registry import Registry
from touchmark.services import experiments, imports, models, runs, versions
from touchmark.storage import artifacts, logged_models
from touchmark.storage import imports as rows
from touchmark.storage.migrations import HEAD

RUN = SourceRun(
    run_id="a" * 32, experiment_id="0", name="first", user="ada", status="RUNNING", started_at=5_000, ended_at=None,
    is_deleted=False, deleted_at=None, artifact_uri="", params={"p": "1"}, tags={"t": "1"},
)  # fmt: skip
VERSION = SourceVersion(
    name="churn", number=1, created_at=7_000, updated_at=8_000, description="text", user="ada", stage="production",
    source="s3://bucket/x", download_uri="s3://bucket/x", run_id=RUN.run_id, run_link="http://ci", status="READY",
    status_message=None, is_deleted=False, tags={"k": "v"},
)  # fmt: skip
LOGGED = SourceLoggedModel(
    model_id="m-" + "0" * 32, experiment_id="0", name="booster", status="PENDING", run_id=None, model_type=None,
    status_message=None, created_at=1_000, updated_at=1_000, is_deleted=False, artifact_uri="",
)  # fmt: skip


def bring_run(registry: Registry, who: Principal, source: SourceRun, *history: Metric) -> None:
    imports.import_run(registry, who, clean_run(source, 0, history, 1))


def check(registry: Registry) -> Report:
    """Let fsck go through a registry whose schema was made without migrations."""
    with registry.track() as tx:
        tx.connection.exec_driver_sql("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
        tx.connection.exec_driver_sql(f"INSERT INTO alembic_version VALUES ('{HEAD}')")
    return check_registry(registry, deep=True)


def gap(number: int) -> SourceVersion:
    return replace(VERSION, number=number, created_at=None, is_deleted=True, tags={})


def put(registry: Registry, *contents: bytes) -> list[VersionFile]:
    blobs = [registry.blobs.put(content) for content in contents]
    return [VersionFile(f"file{n}", blob.size_bytes, blob.digest) for n, blob in enumerate(blobs)]


def test_experiments_made_after_an_import_get_ids_of_their_own(registry: Registry, who: Principal) -> None:
    for wanted in (7, 3, 400_000_000_000_000_000):
        made = imports.import_experiment(registry, who, Experiment(wanted, f"number {wanted}", 1, 1, None, {"a": "b"}))
        assert (made.experiment_id, made.is_new) == (wanted, True)

    ids = [experiments.create_experiment(registry, who, name).experiment_id for name in ("x", "y")]

    assert ids == [400_000_000_000_000_001, 400_000_000_000_000_002]
    assert experiments.get_experiment(registry, who, 7).tags == {"a": "b"}


def test_an_experiment_whose_id_is_taken_gets_another_and_one_that_is_here_is_taken(
    registry: Registry, who: Principal
) -> None:
    first = experiments.create_experiment(registry, who, "mine").experiment_id

    other = imports.import_experiment(registry, who, Experiment(first, "theirs", 1, 1, None, {}))
    same = imports.import_experiment(registry, who, Experiment(99, "mine", 1, 1, 5, {"new": "tag"}))

    assert (other.experiment_id != first, other.is_new) == (True, True)
    assert (same.experiment_id, same.is_new) == (first, False)
    assert experiments.get_experiment(registry, who, first).deleted_at is None
    assert experiments.get_experiment(registry, who, first).tags == {"new": "tag"}


def test_a_run_that_comes_again_grows_and_is_not_changed(registry: Registry, who: Principal) -> None:
    bring_run(registry, who, RUN, Metric("loss", 2.0, 1, 0))
    runs.set_tags(registry, who, RUN.run_id, {"t": "changed here"})

    later = replace(RUN, status="FINISHED", ended_at=9_000, params={"p": "2", "q": "3"}, tags={"t": "1", "u": "2"})
    bring_run(registry, who, later, Metric("loss", 2.0, 1, 0), Metric("loss", 1.0, 2, 1))

    found = runs.get_run(registry, who, RUN.run_id)
    assert (found.status, found.ended_at) == (RunStatus.FINISHED, 9_000)
    assert (found.params, found.tags) == ({"p": "1", "q": "3"}, {"t": "changed here", "u": "2"})
    assert found.metrics["loss"].value == 1.0
    assert len(runs.get_metric_history(registry, who, RUN.run_id, "loss").items) == 2


def test_a_long_history_comes_whole_and_its_newest_value_last(
    registry: Registry, who: Principal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imports, "_POINTS", 100)
    history = [Metric("loss", float(step), step, step) for step in range(250)]
    written = rows.add_history
    calls = 0

    def cut(*words: object) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        written(*words)

    monkeypatch.setattr(rows, "add_history", cut)
    with pytest.raises(KeyboardInterrupt):
        bring_run(registry, who, RUN, *history)
    assert imports.find_runs(registry, who, [RUN.run_id])[RUN.run_id].latest == {}  # the sign that it is not whole

    bring_run(registry, who, RUN, *history)

    assert runs.get_run(registry, who, RUN.run_id).metrics["loss"].value == 249.0
    assert len(runs.get_metric_history(registry, who, RUN.run_id, "loss", limit=1_000).items) == 250


def test_a_logged_model_that_comes_again_ends_and_grows(registry: Registry, who: Principal) -> None:
    assert imports.import_logged_model(registry, who, clean_logged_model(LOGGED, 0, has_run=False))
    ready = replace(
        LOGGED, status="READY", updated_at=2_000, tags={"a": "b"}, measurements=[Measurement(Metric("auc", 0.5, 1), None, "d", "1")]
    )  # fmt: skip

    assert not imports.import_logged_model(registry, who, clean_logged_model(ready, 0, has_run=False))

    assert imports.find_logged_models(registry, who, [LOGGED.model_id]) == {LOGGED.model_id: 2_000}
    with registry.read() as tx:
        found = logged_models.get_logged_model(tx, LOGGED.model_id)
    assert (found.status, found.tags, found.metrics["auc"].value) == ("READY", {"a": "b"}, 0.5)


def test_files_come_for_deleted_runs_too_and_never_as_file_and_folder(registry: Registry, who: Principal) -> None:
    bring_run(registry, who, replace(RUN, is_deleted=True))
    owner, blob = ArtifactOwner("run", RUN.run_id), registry.blobs.put(b"bytes")

    imports.import_files(registry, who, owner, {"a/b": blob, "c": blob})

    assert imports.list_file_sizes(registry, who, owner) == {"a/b": 5, "c": 5}
    for path in ("a", "a/b/c"):
        with pytest.raises(InvalidPathError):
            imports.import_files(registry, who, owner, {path: blob})
    with pytest.raises(RunNotFoundError):
        imports.import_files(registry, who, ArtifactOwner("run", "unknown"), {"a": blob})
    assert imports.list_file_sizes(registry, who, owner) == {"a/b": 5, "c": 5}


@pytest.mark.parametrize("kind", ["run", "logged_model"])
def test_files_wait_for_whoever_writes_the_same_owner_and_never_become_file_and_folder(
    registry: Registry, who: Principal, kind: Literal["run", "logged_model"]
) -> None:
    blob, other = registry.blobs.put(b"bytes"), registry.blobs.put(b"more")
    owner = ArtifactOwner(kind, RUN.run_id if kind == "run" else LOGGED.model_id)
    if kind == "run":
        bring_run(registry, who, RUN)
    else:
        imports.import_logged_model(registry, who, clean_logged_model(LOGGED, 0, has_run=False))

    with ThreadPoolExecutor(1) as threads:
        with registry.track() as tx:  # somebody logs the file `a`
            artifacts.lock_owner(tx, owner)
            rows.record_blobs(tx, owner.repository, [(blob.digest, blob.size_bytes)])
            artifacts.set_artifacts(tx, owner, {"a": blob.digest}, {blob.digest: blob.size_bytes})
            brought = threads.submit(imports.import_files, registry, who, owner, {"a/b": other})
            wait([brought], timeout=0.5)
        with pytest.raises(InvalidPathError):
            brought.result(30)

    assert imports.list_file_sizes(registry, who, owner) == {"a": 5}


def test_versions_come_in_order_sealed_unsealed_and_deleted(registry: Registry, who: Principal) -> None:
    bring_run(registry, who, RUN, Metric("auc", 0.5, 1))
    models.create_model(registry, who, "churn")
    with pytest.raises(ConflictError, match="is 1, not 2"):
        imports.import_version(registry, who, "churn", clean_version(replace(VERSION, number=2), "x"), None)

    sealed = imports.import_version(registry, who, "churn", clean_version(VERSION, "x"), put(registry, b"one"))
    deleted = imports.import_version(registry, who, "churn", clean_version(gap(2), "x"), None)
    third = clean_version(replace(VERSION, number=3, stage="Deleted?"), "x")
    unsealed = imports.import_version(registry, who, "churn", third, None, reason="It lies elsewhere.")

    assert sealed.sealed
    assert (sealed.run_link, sealed.tags, str(sealed.stage)) == ("http://ci", {"k": "v"}, "Production")
    assert (sealed.origin["imported"]["user"], sealed.origin["imported"]["created_at"]) == ("ada", 7_000)
    assert sealed.metrics == {"auc": 0.5}
    assert (deleted.state, deleted.deleted_at is not None, deleted.sealed) == (VersionState.FAILED, True, False)
    assert (unsealed.state, unsealed.status_message) == (VersionState.READY, "It lies elsewhere.")
    assert [problem.reason for problem in third.problems] == ["stage 'Deleted?' is unknown here: it counts as None"]
    assert models.get_model(registry, who, "churn").latest_version == 3
    with pytest.raises(ModelNotFoundError):
        imports.import_version(registry, who, "other", clean_version(VERSION, "x"), None)
    assert check(registry).findings == []


def test_a_deleted_number_can_be_restored_like_any_other_and_the_log_agrees(registry: Registry, who: Principal) -> None:
    models.create_model(registry, who, "churn")
    imports.import_version(registry, who, "churn", clean_version(gap(1), "x"), None)

    restored = versions.restore_version(registry, who, "churn", 1)

    assert (restored.deleted_at, restored.state) == (None, VersionState.FAILED)
    assert check(registry).findings == []


def test_an_unsealed_version_is_sealed_once(registry: Registry, who: Principal) -> None:
    models.create_model(registry, who, "churn")
    made = imports.import_version(registry, who, "churn", clean_version(VERSION, "x"), None, reason="Not yet.")

    sealed = imports.seal_imported_version(registry, who, made, put(registry, b"one"))
    again = imports.seal_imported_version(registry, who, made, put(registry, b"two"))

    assert (sealed.sealed, sealed.status_message) == (True, None)
    assert again == sealed
    assert check(registry).exit_code in {0, 3}  # the bytes of the second try are nobody's


def test_files_no_manifest_may_hold_leave_the_version_unsealed_with_the_reason(
    registry: Registry, who: Principal
) -> None:
    models.create_model(registry, who, "churn")
    twice = [*put(registry, b"one"), replace(put(registry, b"one")[0], path="FILE0")]

    made = imports.import_version(registry, who, "churn", clean_version(VERSION, "x"), twice)

    assert not made.sealed
    assert "upper and lower case" in str(made.status_message)


@pytest.mark.parametrize(
    ("source", "copied"),
    [
        ("models:/a/1", ("a", 1)), ("models:/a b.c/12", ("a b.c", 12)), ("models:/a@b", None), ("models:/a/latest", None),
        ("models:/a/b/1", None), ("models:/1", None), ("runs:/a/1", None), ("", None),
    ],
)  # fmt: skip
def test_what_a_source_copies_is_read_from_it(source: str, copied: tuple[str, int] | None) -> None:
    assert find_copied(source) == copied


def test_a_version_is_the_same_by_name_number_and_creation() -> None:
    origin = {"imported": dict(clean_version(VERSION, "x").imported)}

    assert is_same_version(origin, VERSION)
    assert is_same_version(origin, gap(1))  # a deleted one does not say when it was made
    assert not is_same_version(origin, replace(VERSION, created_at=1))
    assert not is_same_version(origin, replace(VERSION, name="other"))
    assert not is_same_version({}, VERSION)
    assert not is_same_version({"imported": "text"}, VERSION)

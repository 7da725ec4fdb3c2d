"""The SDK and the real server: what a user writes, from a run to a model that is loaded."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

import touchmark
from touchmark import errors
from touchmark.client._transfer import Transfer
from touchmark.domain.tracking import LoggedModelStatus, RunStatus
from touchmark.domain.versions import VersionState

pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[touchmark.Registry]:
    """Give a registry on a real server; each test uses model names of its own."""
    with touchmark.open(tmp_path_factory.mktemp("home")) as opened:
        yield opened


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Return a folder whose bytes no other test has."""
    folder = tmp_path / "my model"
    (folder / "data").mkdir(parents=True)
    (folder / "weights.bin").write_bytes(os.urandom(3_000_000))
    (folder / "data" / "café.txt").write_bytes(b"")
    return folder


def list_tree(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_run_keeps_what_was_logged(registry: touchmark.Registry, model: Path) -> None:
    with registry.start_run(experiment="churn", name="first", params={"depth": 3}, tags={"team": "risk"}) as run:
        run.log_params({"rate": 0.1})
        run.log_metrics({"auc": 0.5, "loss": math.inf}, step=1)
        run.log_metrics({"auc": np.float32(0.75), "loss": math.nan}, step=2)
        run.log_metric("seconds", 12)
        with pytest.raises(errors.InvalidFieldError, match="a metric is a number"):
            run.log_metric("seconds", "twelve")  # type: ignore[arg-type]
        run.set_tags({"seed": 7})
        run.log_dataset("customers", digest="abc123", context="training", source="s3://bucket/customers")
        run.log_artifact(model / "weights.bin")
        run.log_artifacts(model, "all")
        run.log_text("grüße", "notes/hello.txt")
    found = registry.get_run(run.id)

    assert (found.name, found.status) == ("first", RunStatus.FINISHED)
    assert found.ended_at is not None
    assert found.params == {"depth": "3", "rate": "0.1"}
    assert found.tags == {"team": "risk", "seed": "7"}
    assert found.metrics["auc"].value == 0.75
    assert math.isnan(found.metrics["loss"].value)
    assert next(registry.list_metrics(run.id, "loss")).value == math.inf
    assert [(dataset.name, dataset.context) for dataset in found.datasets] == [("customers", "training")]
    files = {entry.path: entry.size_bytes for entry in registry.list_artifacts(run.id, recursive=True)}
    assert files == {
        "weights.bin": 3_000_000, "all/weights.bin": 3_000_000, "all/data/café.txt": 0, "notes/hello.txt": 7,
    }  # fmt: skip
    assert [item.run_id for item in registry.list_runs("churn")] == [run.id]
    assert registry.get_experiment(found.experiment_id).name == "churn"

    run.delete_artifact("all")
    assert [entry.path for entry in registry.list_artifacts(run.id)] == ["notes", "weights.bin"]


def test_a_run_that_an_exception_leaves_has_failed(registry: touchmark.Registry) -> None:
    with pytest.raises(ZeroDivisionError), registry.start_run() as run:
        1 / 0  # noqa: B018

    assert registry.get_run(run.id).status is RunStatus.FAILED


def test_a_model_goes_from_a_run_to_a_folder_byte_for_byte(
    registry: touchmark.Registry, model: Path, tmp_path: Path
) -> None:
    seen: list[Transfer] = []
    with registry.start_run(experiment="trees") as run:
        run.log_metrics({"auc": 0.93})
        logged = run.log_model(model, "classifier", registered_model_name="trees", tags={"team": "risk"})
    again = registry.register_model(f"runs:/{run.id}/classifier", "trees", description="by hand", parents=["trees/1"])
    registry.set_alias("trees", "challenger", again.version)
    found = registry.resolve("models:/trees@challenger")
    target = registry.pull(found.pinned, tmp_path / "here", progress=seen.append)

    assert logged.version is not None
    assert logged.version.version == 1
    assert logged.uri.startswith("models:/m-")
    assert registry.get_logged_model(logged.model_id).status is LoggedModelStatus.READY
    assert (again.version, again.same_bytes_as, again.run_id) == (2, 1, run.id)
    assert again.metrics == {"auc": 0.93}
    assert (found.version, found.state, found.digest) == (2, VersionState.READY, again.digest)
    assert found.pinned == f"models:/trees@{again.digest}"
    assert list_tree(target) == list_tree(model)
    assert seen[-1].done_bytes == 3_000_000
    files = registry.list_files("trees@challenger")
    assert (files.digest, files.content_digest) == (again.digest, again.content_digest)
    relations = {edge["relation"] for edge in registry.lineage("trees/2")["edges"]}
    assert {"produced_by", "derived_from"} <= relations
    assert registry.diff("trees/1", "trees/2")["same_bytes"] is True


def test_every_source_makes_a_version(
    registry: touchmark.Registry, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(model.parent)
    logged = registry.log_model(model, "net")

    made = [
        registry.register_model(source, "sources").version
        for source in ("./my model", model, str(model), "my model", logged.uri, "models:/sources/1", "sources/1")
    ]

    assert made == [1, 2, 3, 4, 5, 6, 7]
    assert {version.content_digest for version in registry.list_versions("sources")} == {
        registry.get_version("sources", 1).content_digest
    }


def test_a_source_that_could_be_two_things_is_refused(
    registry: touchmark.Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sources" / "1").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)

    with pytest.raises(errors.InvalidSourceError, match=r"\./sources/1 or models:/sources/1"):
        registry.register_model("sources/1", "copies")
    with pytest.raises(errors.InvalidSourceError, match="no address of its own"):
        registry.register_model("s3://bucket/model", "copies")
    with pytest.raises(errors.ArtifactNotFoundError, match="nowhere"):
        registry.register_model("./nowhere", "copies")
    with pytest.raises(errors.ModelNotFoundError):
        registry.get_model("copies")


def test_objects_come_back_as_they_were(registry: touchmark.Registry) -> None:
    x = np.array([[0.0], [1.0], [2.0], [3.0]])
    estimator = LogisticRegression().fit(x, [0, 0, 1, 1])
    registry.register_model(estimator, "objects")
    registry.register_model({"layer": np.arange(4)}, "objects")
    registry.register_model({"any": object}, "objects", format="pickle")

    loaded = registry.load("models:/objects/1")
    arrays = registry.load("models:/objects/2")

    assert isinstance(loaded, LogisticRegression)
    assert loaded.predict(x).tolist() == [0, 0, 1, 1]
    assert isinstance(arrays, dict)
    assert arrays["layer"].tolist() == [0, 1, 2, 3]
    with pytest.raises(errors.UnsafeFormatError):
        registry.load("models:/objects/3")
    assert registry.load("models:/objects/3", allow_pickle=True) == {"any": object}


def test_a_model_whose_upload_was_interrupted_cannot_be_registered(registry: touchmark.Registry, model: Path) -> None:
    def fail(transfer: Transfer) -> None:
        raise KeyboardInterrupt

    with registry.start_run(experiment="interrupted") as run:
        with pytest.raises(KeyboardInterrupt):
            run.log_model(model, "half", registered_model_name="half", progress=fail)
        with pytest.raises(errors.NothingToRegisterError):
            registry.register_model(f"runs:/{run.id}/half", "half")

    with pytest.raises(errors.ModelNotFoundError):
        registry.get_model("half")


def test_searches_walk_all_pages_and_only_those_that_are_wanted(registry: touchmark.Registry, model: Path) -> None:
    first = registry.register_model(model, "many", tags={"team": "risk"})
    for number in range(2, 131):
        registry.register_model("models:/many/1", "many", tags={"team": "risk" if number % 2 else "fraud"})

    every = [version.version for version in registry.list_versions("many")]
    risk = list(registry.search_versions("name = 'many' AND tags.team = 'risk'", order_by="version ASC"))

    assert every == list(range(130, 0, -1))
    assert [version.version for version in risk] == list(range(1, 131, 2))
    assert (risk[0].digest, risk[0].tags) == (first.digest, {"team": "risk"})
    assert len(list(registry.list_versions("many", limit=105))) == 105
    assert [version.version for version in registry.list_versions("many", limit=1)] == [130]
    with pytest.raises(errors.InvalidFilterError):
        next(registry.search_versions("name ="))


def test_models_are_created_found_renamed_and_deleted(registry: touchmark.Registry, model: Path) -> None:
    made = registry.create_model("risk.churn", description="who leaves", owner="risk", tags={"team": "risk"})
    registry.create_model("risk.fraud & Betrug-100%")
    registry.register_model(model, "risk.churn")
    with pytest.raises(errors.ModelExistsError):
        registry.create_model("risk.churn")

    changed = registry.update_model("risk.churn", owner=None, contact="risk@example.org")
    registry.set_tags("risk.churn", {"tier": 1})
    registry.delete_tag("risk.churn", "team")
    moved = registry.rename_model("risk.churn", "risk.attrition")

    assert made.tags == {"team": "risk"}
    assert (changed.description, changed.owner, changed.contact) == ("who leaves", None, "risk@example.org")
    assert moved.model_id == made.model_id
    assert registry.get_model("risk.churn").name == "risk.attrition"
    assert registry.get_model("risk.attrition").tags == {"tier": "1"}
    names = [found.name for found in registry.list_models(prefix="risk.")]
    assert names == ["risk.attrition", "risk.fraud & Betrug-100%"]
    assert [found.name for found in registry.search_models(words="leaves")] == ["risk.attrition"]
    with pytest.raises(errors.TagNotFoundError):
        registry.delete_tag("risk.attrition", "team")
    for name in names:
        registry.delete_model(name)
    assert list(registry.list_models(prefix="risk.")) == []


def test_versions_are_described_tagged_evaluated_deprecated_deleted_and_restored(
    registry: touchmark.Registry, model: Path
) -> None:
    registry.register_model(model, "life")
    registry.register_model(model, "life")
    registry.update_version("life", 1, description="the first")
    registry.set_tags("life", {"approved": "yes"}, version=1)
    registry.record_evaluation("life", 1, {"auc": 0.9, "worst": -math.inf}, dataset="2026-10")
    registry.deprecate("life", 1, "leaked labels", replaced_by="life/2")
    found = registry.get_version("life", 1)

    assert (found.description, found.tags) == ("the first", {"approved": "yes"})
    assert found.metrics["worst"] == -math.inf
    assert registry.list_evaluations("life", 1)[0]["metrics"] == {"auc": 0.9, "worst": -math.inf}
    assert found.deprecation is not None
    assert found.deprecation.reason == "leaked labels"
    with pytest.warns(touchmark.DeprecatedVersionWarning, match="leaked labels"):
        registry.resolve("life/1")

    registry.delete_tag("life", "approved", version=1)
    registry.delete_version("life", 1)
    with pytest.raises(errors.VersionNotFoundError):
        registry.get_version("life", 1)
    assert registry.get_version("life", 1, include_deleted=True).deleted_at is not None
    assert registry.restore_version("life", 1).deleted_at is None


def test_an_alias_moves_on_its_condition_and_its_past_can_be_read(registry: touchmark.Registry, model: Path) -> None:
    for _ in range(2):
        registry.register_model(model, "moves")
    first = registry.set_alias("moves", "champion", 1, expected=-1)
    time.sleep(0.01)
    second = registry.set_alias("moves", "champion", 2, expected=first.log_index)

    with pytest.raises(errors.AliasMovedError):
        registry.set_alias("moves", "champion", 1, expected=first.log_index)
    with pytest.raises(errors.AliasMovedError):
        registry.set_alias("moves", "champion", 1, expected=-1)
    assert registry.get_alias("moves", "champion") == second
    assert registry.get_alias("moves", "champion", as_of=first.moved_at).version == 1
    assert [alias.alias for alias in registry.list_aliases("moves")] == ["champion"]
    registry.delete_alias("moves", "champion", expected=second.log_index)
    assert [(move.before, move.after) for move in registry.history("moves@champion")] == [(2, None), (1, 2), (None, 1)]
    assert len(registry.history("moves", limit=2)) == 2
    with pytest.raises(errors.AliasNotFoundError):
        registry.resolve("moves@champion")


def test_the_log_is_read_from_where_one_was(registry: touchmark.Registry) -> None:
    before = registry.get_log_head()["size"]
    registry.create_model("logged")
    registry.set_tags("logged", {"a": "1"})

    news = list(registry.list_events(after=before - 1))

    assert [event["index"] for event in news] == [before, before + 1]
    assert {event["model"] for event in news} == {"logged"}
    assert list(registry.list_events(model="logged")) == news
    assert len(list(registry.list_events(limit=1))) == 1
    assert registry.get_log_head()["size"] == before + 2


def test_threads_register_without_gaps(registry: touchmark.Registry, model: Path) -> None:
    registry.register_model(model, "threads")

    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: registry.register_model("models:/threads/1", "threads").version, range(40)))

    assert sorted(made) == list(range(2, 42))


def test_names_travel_as_they_are(registry: touchmark.Registry, model: Path) -> None:
    for name in ("Ünïcode 模型", "100% #1?&=+", "a;b,c", "..x", "~tilde'\""):
        registry.register_model(model / "data", name, tags={"k / ü?&": "v"})
        registry.set_alias(name, "a-1", 1)

        assert registry.resolve(f"models:/{name}@a-1").name == name
        assert registry.get_version(name, 1).tags == {"k / ü?&": "v"}
        registry.delete_tag(name, "k / ü?&", version=1)

"""Moving in from MLflow: everything comes, once, under its own ids and numbers, or is reported with the reason."""

from __future__ import annotations

import json
import math
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.mlflow_fill import REFUSED, WEIGHTS
from tests.acceptance.mlflow_peer import Peer, copy_database, environment, fill, fill_database
from tests.cli.running import COMMAND, run
from tests.conformance.mlflow_reference import run_reference
from tests.served import serve
from touchmark.domain.access import SYSTEM
from touchmark.domain.digest import digest_of
from touchmark.domain.errors import BusyError, InvalidFieldError
from touchmark.domain.tracking import ArtifactOwner, LoggedModelStatus, ModelRole, RunStatus
from touchmark.domain.versions import Stage, VersionState
from touchmark.ops.fsck import check_registry
from touchmark.ops.import_mlflow import IMPORTER, PROMPT_REASON, ImportReport, import_mlflow, open_source
from touchmark.ops.setup import open_registry
from touchmark.registry import Registry
from touchmark.services import (
    aliases,
    artifacts,
    experiments,
    imports,
    log,
    logged_models,
    models,
    registration,
    runs,
    versions,
)
from touchmark.storage import versions as version_rows

pytestmark = pytest.mark.mlflow

EVERY = {"experiments": 3, "runs": 6, "logged models": 3, "files": 7, "models": 8, "versions": 15, "aliases": 2}
"""What mlflow_fill.py makes and may come; experiment 0 is here already."""


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Peer:
    return fill_database(tmp_path_factory.mktemp("mlflow"))


@contextmanager
def opened(home: Path) -> Iterator[Registry]:
    registry = open_registry(home)
    try:
        yield registry
    finally:
        registry.close()


def bring(registry: Registry, address: str, *places: object, **options: Any) -> ImportReport:
    """Import once."""
    with open_source(address, [str(place) for place in places]) as (source, found):
        return import_mlflow(registry, source, found, **options)


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with opened(tmp_path / "home") as found:
        yield found


@pytest.fixture(scope="module")
def filled(peer: Peer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Registry, ImportReport]]:
    """Give a registry into which everything came; to be read only."""
    with opened(tmp_path_factory.mktemp("filled") / "home") as found:
        yield found, bring(found, peer.uri, peer.artifacts)


def check_sound(registry: Registry) -> None:
    report = check_registry(registry, deep=True)
    assert report.findings == []


def read(registry: Registry, digest: str) -> bytes:
    return registry.blobs.read(digest)  # type: ignore[arg-type]


def describe(registry: Registry) -> dict[str, Any]:
    """Return what a registry holds but for its own times, log and surrogate ids: equal for equal imports."""
    with registry.read() as tx:
        tables = {
            "experiments": "SELECT experiment_id, name, created_at, deleted_at FROM experiments WHERE experiment_id > 0",
            "experiment_tags": "SELECT * FROM experiment_tags",
            "runs": "SELECT run_id, experiment_id, name, user, status, started_at, ended_at, deleted_at IS NULL FROM runs",
            **{name: f"SELECT * FROM {name}" for name in ("run_params", "run_tags", "run_metrics", "run_latest_metrics")},
            **{name: f"SELECT * FROM {name}" for name in ("run_datasets", "run_models")},
            "logged_models": "SELECT * FROM logged_models",
            **{
                f"logged_model_{name}": f"SELECT * FROM logged_model_{name}"
                for name in ("params", "tags", "metrics", "measurements")
            },
            "artifacts": "SELECT owner_kind, owner_id, path, digest, size_bytes FROM artifacts",
            "models": "SELECT name, description, version_count, deleted_at IS NULL FROM models",
            "versions": "SELECT m.name, v.number, v.state, v.digest, v.source, v.run_id, v.logged_model_id, v.parent,"
            " v.description, v.stage, v.status_message, v.run_link, v.deleted_at IS NULL"
            " FROM versions v JOIN models m USING (model_id)",
            "tags": "SELECT m.name, v.number, t.key, t.value FROM version_tags t JOIN versions v USING (version_id)"
            " JOIN models m USING (model_id) WHERE v.deleted_at IS NULL",
            "aliases": "SELECT m.name, a.alias, a.number FROM aliases a JOIN models m USING (model_id)",
        }  # fmt: skip
        return {
            name: sorted(map(repr, tx.connection.exec_driver_sql(statement).all()))
            for name, statement in tables.items()
        }


# ── everything comes ─────────────────────────────────────────────────────────────────────────────────────────────


def test_what_came_and_what_did_not_is_counted_and_named(filled: tuple[Registry, ImportReport]) -> None:
    _registry, report = filled

    assert dict(report.came) == EVERY
    assert report.present == {"experiments": 1}
    assert report.failed == {"models": len(REFUSED), "versions": len(REFUSED), "aliases": 1}
    assert (report.unsealed, report.deleted) == (3, 3)  # the prompt, and what is out of reach; two gaps and a last one
    assert {(each.what, each.subject) for each in report.problems} == {
        *(("model", name) for name in REFUSED), *(("version", name) for name in REFUSED),
        ("version", "churn/6"), ("version", "lost/1"), ("alias", "churn@é"),
    }  # fmt: skip


def test_the_registry_is_sound_afterwards(filled: tuple[Registry, ImportReport]) -> None:
    check_sound(filled[0])


def test_experiments_keep_their_ids_times_and_tags(filled: tuple[Registry, ImportReport], peer: Peer) -> None:
    registry, _ = filled

    churn = experiments.get_experiment(registry, SYSTEM, int(peer.made["experiment"]))
    assert (churn.name, churn.tags) == ("churn", {"team": "risk", "long": "x" * 3_000})
    assert churn.created_at < registry.clock() - 1
    assert experiments.find_experiment_by_name(registry, SYSTEM, "odd ünï 😀") is not None
    gone = experiments.find_experiment_by_name(registry, SYSTEM, "gone")
    assert gone is not None
    assert gone.deleted_at is not None


def test_runs_keep_their_ids_params_metrics_with_history_tags_and_data_sets(
    filled: tuple[Registry, ImportReport], peer: Peer
) -> None:
    registry, _ = filled

    found = runs.get_run(registry, SYSTEM, peer.made["run"])
    assert (found.name, found.user, found.status) == ("first", "alice", RunStatus.FINISHED)
    assert found.ended_at is not None
    assert found.params == {"lr": "0.1", "opt": "adam"}
    assert found.tags.items() >= {("k", "v ü"), ("empty", "")}
    assert found.metrics["loss"].value == 1 / 300
    assert math.isnan(found.metrics["nan"].value)
    assert found.metrics["deep/key.x y-z"].step == -3
    (dataset,) = found.datasets
    assert (dataset.name, dataset.digest, dataset.context) == ("train", "abc123", "training")
    assert (dataset.source, dataset.profile, dataset.tags) == (
        '{"url": "http://data/x.csv"}',
        '{"rows": 6}',
        {"split": "first"},
    )
    history = runs.get_metric_history(registry, SYSTEM, peer.made["run"], "loss", limit=1_000).items
    assert [(each.step, each.at, each.value) for each in history] == [
        (step, (1_000 + step) * 1_000, 1 / (step + 1)) for step in range(300)
    ]


def test_nested_deleted_and_running_runs_stand_as_they_did(filled: tuple[Registry, ImportReport], peer: Peer) -> None:
    registry, _ = filled

    child = runs.get_run(registry, SYSTEM, peer.made["child"])
    assert child.tags["mlflow.parentRunId"] == peer.made["parent"]
    assert [(link.role, link.model_id, link.step) for link in child.models] == [
        (ModelRole.OUTPUT, peer.made["logged"], 4)
    ]
    assert runs.get_run(registry, SYSTEM, peer.made["deleted_run"]).deleted_at is not None
    running = runs.get_run(registry, SYSTEM, peer.made["running"])
    assert (running.status, running.ended_at, running.deleted_at) == (RunStatus.RUNNING, None, None)


def test_a_run_that_was_deleted_with_its_experiment_comes_back_with_it(registry: Registry, peer: Peer) -> None:
    bring(registry, peer.uri, peer.artifacts)
    gone = experiments.find_experiment_by_name(registry, SYSTEM, "gone")
    assert gone is not None

    experiments.restore_experiment(registry, SYSTEM, gone.experiment_id)

    assert runs.get_run(registry, SYSTEM, peer.made["gone_run"]).deleted_at is None


def test_logged_models_keep_their_ids_and_measurements(filled: tuple[Registry, ImportReport], peer: Peer) -> None:
    registry, _ = filled

    found = logged_models.get_logged_model(registry, SYSTEM, peer.made["logged"])
    assert (found.name, found.status, found.run_id) == ("booster", LoggedModelStatus.READY, peer.made["child"])
    assert (found.model_type, found.params, found.tags["stage"]) == ("xgboost", {"depth": "3"}, "dev")
    assert found.metrics["auc"].value == 0.93
    (measured,) = logged_models.get_measurements(registry, SYSTEM, [peer.made["logged"]])[peer.made["logged"]]
    assert (measured.run_id, measured.metric.step) == (peer.made["child"], 4)
    deleted = logged_models.get_logged_model(registry, SYSTEM, peer.made["deleted_logged"], deleted=True)
    assert deleted.deleted_at is not None


def test_files_of_runs_and_logged_models_come(filled: tuple[Registry, ImportReport], peer: Peer) -> None:
    registry, _ = filled

    found = {
        file.path: read(registry, file.digest)
        for file in artifacts.list_artifact_files(registry, SYSTEM, ArtifactOwner("run", peer.made["run"]))
    }
    assert found == {
        "model/MLmodel": b"flavors: {}\n", "model/data/weights": WEIGHTS, "model/empty": b"", "notes": b"hello",
        "sp ace+%&.txt": b"odd name",
    }  # fmt: skip
    owner = ArtifactOwner("logged_model", peer.made["logged"])
    assert [file.path for file in artifacts.list_artifact_files(registry, SYSTEM, owner)] == ["MLmodel"]


def test_versions_keep_their_numbers_texts_and_stages_and_are_sealed(
    filled: tuple[Registry, ImportReport], peer: Peer
) -> None:
    registry, _ = filled

    listed = imports.find_model(registry, SYSTEM, "churn")
    assert listed is not None
    assert [(each.version, each.sealed, each.deleted_at is None) for each in listed.versions] == [
        (1, True, True), (2, False, False), (3, True, True), (4, True, True), (5, False, False), (6, False, True),
    ]  # fmt: skip
    assert (listed.description, listed.tags) == ("Who leaves, und wer bleibt", {"owner": "risk", "e": ""})
    third = versions.get_version(registry, SYSTEM, "churn", 3)
    assert (third.description, third.stage, third.run_link) == ("number 3", Stage.PRODUCTION, "http://ci/1")
    assert (third.tags, third.run_id, third.created_by) == ({"n": "3"}, peer.made["run"], "import")
    assert third.source == f"{peer.made['artifact_uri']}/model"
    files = versions.list_files(registry, SYSTEM, "churn", 3).files
    assert {file.path: file.digest for file in files} == {
        "MLmodel": digest_of(b"flavors: {}\n"), "data/weights": digest_of(WEIGHTS), "empty": digest_of(b""),
    }  # fmt: skip
    assert third.same_bytes_as == 1


def test_the_origin_says_what_the_run_was_and_who_made_the_version_when(
    filled: tuple[Registry, ImportReport], peer: Peer
) -> None:
    registry, _ = filled

    origin = versions.get_version(registry, SYSTEM, "churn", 3).origin
    assert origin["params"] == {"lr": "0.1", "opt": "adam"}
    assert origin["metrics"]["loss"]["value"] == repr(1 / 300)
    assert (origin["run"]["id"], origin["run"]["experiment"]) == (peer.made["run"], "churn")
    imported = origin["imported"]
    assert (imported["from"], imported["name"], imported["version"]) == (peer.uri, "churn", 3)
    with closing(sqlite3.connect(peer.uri.removeprefix("sqlite:///"))) as database:
        (there,) = database.execute(
            "SELECT creation_time FROM model_versions WHERE name='churn' AND version=3"
        ).fetchone()
    assert imported["created_at"] == there * 1_000


def test_a_deleted_number_stays_taken_and_says_why(registry: Registry, peer: Peer) -> None:
    bring(registry, peer.uri, peer.artifacts)
    name = "ends with deleted"

    last = versions.get_version(registry, SYSTEM, name, 3, deleted=True)
    assert last.deleted_at is not None
    assert last.state is VersionState.FAILED
    assert "deleted before the import" in str(last.status_message)
    made = registration.register_version(registry, SYSTEM, name, f"runs:/{peer.made['run']}/model")
    assert made.version == 4
    check_sound(registry)


def test_copies_are_copies_of_what_came_with_them(filled: tuple[Registry, ImportReport]) -> None:
    registry, _ = filled

    copy, original = (versions.get_version(registry, SYSTEM, *each) for each in (("aaa-copy", 1), ("churn", 3)))
    assert copy.digest == original.digest
    assert (copy.parent, copy.source) == ("churn/3", "models:/churn/3")
    assert copy.version_id > original.version_id  # in the order in which they were made there
    with registry.read() as tx:
        targets = version_rows.list_edges(tx, copy.version_id, "copy_of")
    assert [row.target for row in targets] == [str(original.version_id)]


def test_aliases_point_where_they_did(filled: tuple[Registry, ImportReport]) -> None:
    registry, _ = filled

    assert {each.alias: each.version for each in aliases.list_aliases(registry, SYSTEM, "churn")} == {
        "blue": 4,
        "champion": 3,
    }


def test_what_is_out_of_reach_is_unsealed_and_says_so(filled: tuple[Registry, ImportReport]) -> None:
    registry, _ = filled

    far = versions.get_version(registry, SYSTEM, "churn", 6)
    assert (far.sealed, far.state, far.source) == (False, VersionState.READY, "s3://bucket/some/model")
    assert "out of reach" in str(far.status_message)
    assert not versions.get_version(registry, SYSTEM, "lost", 1).sealed
    one = versions.list_files(registry, SYSTEM, "lost", 2).files
    assert [(file.path, file.digest) for file in one] == [("notes", digest_of(b"hello"))]


def test_a_prompt_comes_with_its_text(filled: tuple[Registry, ImportReport]) -> None:
    registry, report = filled

    prompt = versions.get_version(registry, SYSTEM, "greeting", 1)
    assert prompt.tags["mlflow.prompt.text"] == "Hello {{name}}"
    assert prompt.status_message == PROMPT_REASON
    assert [each for each in report.problems if each.subject.startswith("greeting")] == []


def test_each_version_is_one_entry_of_the_log_by_the_importer(filled: tuple[Registry, ImportReport]) -> None:
    registry, _ = filled

    entries = list(log.list_events(registry, SYSTEM, after=0, limit=1_000))
    kinds = [str(entry.event.kind) for entry in entries]
    assert kinds.count("version.registered") == EVERY["versions"]
    assert kinds.count("model.created") == EVERY["models"]
    assert kinds.count("alias.set") == EVERY["aliases"]
    assert len(kinds) == sum(EVERY[what] for what in ("versions", "models", "aliases"))
    assert {entry.event.actor.id for entry in entries} == {"import"}


# ── again, cut off, beside others ────────────────────────────────────────────────────────────────────────────────


def test_a_second_import_changes_nothing(registry: Registry, peer: Peer) -> None:
    bring(registry, peer.uri, peer.artifacts)
    before = describe(registry), len(log.list_events(registry, SYSTEM, after=0, limit=1_000))

    again = bring(registry, peer.uri, peer.artifacts)

    assert (describe(registry), len(log.list_events(registry, SYSTEM, after=0, limit=1_000))) == before
    assert (dict(again.came), dict(again.added)) == ({}, {})
    assert again.fetched_bytes == 0
    assert again.present == {**EVERY, "experiments": 4}


MORE = """
import logging, sys, warnings
warnings.simplefilter("ignore")
import mlflow
from mlflow import MlflowClient
from mlflow.entities import Metric
logging.disable(logging.WARNING)
uri, run, running, root = sys.argv[1:]
mlflow.set_tracking_uri(uri)
client = MlflowClient(uri, uri)
client.log_metric(running, "loss", 1.0, timestamp=2, step=1)
client.log_param(running, "late", "yes")
client.set_terminated(running)
client.create_experiment("new one", root + "/new")
version = client.create_model_version("churn", client.get_run(run).info.artifact_uri + "/model", run)
client.set_model_version_tag("churn", "1", "seen", "yes")
client.set_registered_model_alias("churn", "champion", version.version)
"""


def test_a_later_import_brings_what_is_new(registry: Registry, peer: Peer, tmp_path: Path) -> None:
    mine = copy_database(peer, tmp_path)
    bring(registry, mine.uri, mine.artifacts)
    script = [sys.executable, "-c", MORE, mine.uri, mine.made["run"], mine.made["running"], tmp_path.as_uri()]
    subprocess.run(script, check=True, capture_output=True, env=environment(), timeout=100)

    report = bring(registry, mine.uri, mine.artifacts)

    assert dict(report.came) == {"experiments": 1, "versions": 1}
    assert dict(report.added) == {"runs": 1, "versions": 1, "aliases": 1}
    found = runs.get_run(registry, SYSTEM, mine.made["running"])
    assert (found.status, found.metrics["loss"].value, found.params["late"]) == (RunStatus.FINISHED, 1.0, "yes")
    assert len(runs.get_metric_history(registry, SYSTEM, found.run_id, "loss").items) == 2
    assert versions.get_version(registry, SYSTEM, "churn", 7).sealed
    assert versions.get_version(registry, SYSTEM, "churn", 1).tags["seen"] == "yes"
    assert aliases.get_alias(registry, SYSTEM, "churn", "champion").version == 7
    check_sound(registry)


def test_what_was_changed_here_stays_as_it_is(registry: Registry, peer: Peer) -> None:
    bring(registry, peer.uri, peer.artifacts)
    aliases.set_alias(registry, SYSTEM, "churn", "champion", 1)
    versions.set_version_tags(registry, SYSTEM, "churn", 1, {"n": "changed"})
    versions.delete_version(registry, SYSTEM, "churn", 4)
    models.delete_model(registry, SYSTEM, "booster")
    runs.delete_run(registry, SYSTEM, peer.made["child"])
    before = describe(registry)

    report = bring(registry, peer.uri, peer.artifacts)

    after = describe(registry)
    assert after == before
    assert any("champion" in note for note in report.notes)
    assert any("booster" in note for note in report.notes)
    assert [(each.what, each.subject) for each in report.problems if each.subject.endswith("blue")] == [
        ("alias", "churn@blue")
    ]


def test_another_version_under_the_same_number_is_reported_and_nothing_follows_it(
    registry: Registry, peer: Peer
) -> None:
    run_id = runs.create_run(registry, SYSTEM, 0).run_id
    stored = registry.blobs.put(b"other bytes")
    imports.import_files(registry, SYSTEM, ArtifactOwner("run", run_id), {"model/file": stored})
    registration.register_version(registry, SYSTEM, "churn", f"runs:/{run_id}/model")

    report = bring(registry, peer.uri, peer.artifacts)

    (problem,) = [each for each in report.problems if (each.what, each.subject) == ("version", "churn")]
    assert "another version here" in problem.reason
    assert report.failed["versions"] == 6 + len(REFUSED)
    listed = imports.find_model(registry, SYSTEM, "churn")
    assert listed is not None
    assert [each.version for each in listed.versions] == [1]
    check_sound(registry)


def test_versions_without_files_are_sealed_when_the_files_are_found(registry: Registry, peer: Peer) -> None:
    first = bring(registry, peer.uri)
    assert first.unsealed == EVERY["versions"] - first.deleted
    assert not versions.get_version(registry, SYSTEM, "churn", 3).sealed

    second = bring(registry, peer.uri, peer.artifacts)

    assert second.unsealed == 2  # the prompt, which needs none, was not counted as lacking them
    sealed = versions.get_version(registry, SYSTEM, "churn", 3)
    assert sealed.sealed
    assert sealed.status_message is None
    check_sound(registry)


def test_a_dry_run_says_the_same_and_changes_nothing(registry: Registry, peer: Peer) -> None:
    before = describe(registry)

    dry = bring(registry, peer.uri, peer.artifacts, dry_run=True)

    assert describe(registry) == before
    real = bring(registry, peer.uri, peer.artifacts)
    assert (dry.came, dry.failed, dry.unsealed, dry.deleted) == (real.came, real.failed, real.unsealed, real.deleted)
    assert dry.fetched_bytes == real.fetched_bytes
    assert dry.problems == real.problems


@pytest.mark.processes
def test_an_import_that_is_killed_leaves_nothing_half_done_and_goes_on(
    peer: Peer, filled: tuple[Registry, ImportReport], tmp_path: Path
) -> None:
    home, luck = tmp_path / "home", random.Random(7)
    words = ["import", "mlflow", "--from", peer.uri, "--artifacts", str(peer.artifacts), "--home", str(home)]
    kills = 0
    for _ in range(12):
        child = subprocess.Popen([*COMMAND, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(luck.uniform(0.35, 1.1))
        child.send_signal(signal.SIGKILL)
        kills += child.wait(20) == -signal.SIGKILL
        if not (home / "registry.db").exists():
            continue
        with opened(home) as registry:
            report = check_registry(registry, deep=True)
            assert report.exit_code in {0, 3}, report.findings  # bytes that no row names yet are harmless
            with registry.read() as tx:
                half = tx.connection.exec_driver_sql(
                    "SELECT count(*) FROM versions WHERE digest IS NULL AND status_message IS NULL"
                ).scalar()
            assert half == 0
    assert kills > 0, "it was never killed: the test would prove nothing"

    done = run(*words)

    assert done.returncode == 4, done.stderr
    with opened(home) as registry:
        assert describe(registry) == describe(filled[0])
        assert check_registry(registry, deep=True).exit_code in {0, 3}


@pytest.mark.processes
def test_a_server_may_use_the_home_meanwhile(peer: Peer, tmp_path: Path) -> None:
    home = tmp_path / "home"
    words = ["import", "mlflow", "--from", peer.uri, "--artifacts", str(peer.artifacts), "--home", str(home)]
    with serve(home) as server:
        child = subprocess.Popen([*COMMAND, *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        made = 0
        while child.poll() is None:
            repository = server.new_run()
            digest = server.upload(repository, os.urandom(100))
            run_id = repository.partition("/")[2]
            assert server.ask("PUT", f"/api/v1/runs/{run_id}/artifacts", {"files": {"m/f": digest}}).status == 204
            body = {"source": f"runs:/{run_id}/m"}
            assert server.ask("POST", "/api/v1/models/mine/versions", body).status == 201
            made += 1
        assert child.stderr is not None
        with child.stderr:
            assert child.wait() == 4, child.stderr.read()
        assert made > 0
        assert server.ask("GET", "/api/v1/models/churn/versions/3").json()["sealed"]
        server.stop()
    with opened(home) as registry:
        check_sound(registry)
        listed = imports.find_model(registry, SYSTEM, "mine")
        assert listed is not None
        assert [each.version for each in listed.versions] == list(range(1, made + 1))


# ── the command ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_command_prints_what_came_and_exits_with_4_if_something_did_not(peer: Peer, tmp_path: Path) -> None:
    words = [
        "import",
        "mlflow",
        "--from",
        peer.uri,
        "--artifacts",
        str(peer.artifacts),
        "--home",
        str(tmp_path / "home"),
    ]

    dry = run(*words, "--dry-run", "--json")
    assert not (tmp_path / "home").exists()
    real = run(*words)
    again = run(*words, "--json")

    assert (dry.returncode, real.returncode, again.returncode) == (4, 4, 4)
    assert {row["what"]: row["came"] for row in json.loads(dry.stdout)["counts"]} == EVERY
    assert "versions\t15\t0\t0\t4" in real.stdout.splitlines()
    assert any(line.startswith("model\ta@b\t") for line in real.stdout.splitlines())
    found = json.loads(again.stdout)
    assert {row["what"]: row["came"] for row in found["counts"]} == dict.fromkeys(EVERY, 0)
    assert ("version", "churn/6") in {(each["what"], each["subject"]) for each in found["problems"]}


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--from", "ftp://host"], 5, "sqlite:///FILE"),
        (["--from", "sqlite:///nowhere.db"], 5, "there is no file"),
        (["--from", "http://127.0.0.1:9"], 8, "No answer from http://127.0.0.1:9"),
        (["--from", "http://127.0.0.1:9", "--artifacts", "s3://bucket"], 5, "s3"),
        (["--from", "http://127.0.0.1:9", "--artifacts", "nowhere"], 5, "there is no folder"),
        (["--from", "http://h:99999"], 5, "Invalid value for 'from'"),
        (["--from", "http://127.0.0.1:9", "--artifacts", "http://["], 5, "Invalid value for 'artifacts'"),
        (["--from", "http://127.0.0.1:9", "--artifacts", "s3://["], 5, "Invalid value for 'artifacts': s3:"),
        ([], 2, "--from"),
    ],
)
def test_a_wrong_command_says_what_to_change(words: list[str], code: int, said: str, tmp_path: Path) -> None:
    done = run("import", "mlflow", *words, "--home", str(tmp_path / "home"), cwd=tmp_path)

    assert (done.returncode, said in done.stderr) == (code, True), done.stderr


def test_a_password_is_neither_shown_nor_recorded(peer: Peer, tmp_path: Path) -> None:
    done = run("import", "mlflow", "--from", "http://me:secret@127.0.0.1:9", "--home", str(tmp_path / "home"))

    assert "No answer from http://127.0.0.1:9" in done.stderr
    assert "secret" not in done.stderr + done.stdout


# ── what is read is not trusted ──────────────────────────────────────────────────────────────────────────────────


def change(peer: Peer, folder: Path, statement: str, *values: object) -> Peer:
    """Return a copy of the database in which something was changed by hand."""
    mine = copy_database(peer, folder)
    with closing(sqlite3.connect(mine.uri.removeprefix("sqlite:///"))) as database, database:
        database.execute(statement, values)
    return mine


@pytest.mark.parametrize(
    "address", ["file:///etc", "/etc/passwd", "mlflow-artifacts:/../../../etc", "file://elsewhere/etc"]
)
def test_a_version_does_not_lead_out_of_the_folders_that_were_given(
    registry: Registry, peer: Peer, tmp_path: Path, address: str
) -> None:
    mine = change(
        peer, tmp_path, "UPDATE model_versions SET source=?, storage_location=NULL WHERE name='lost'", address
    )

    bring(registry, mine.uri, mine.artifacts)

    for number in (1, 2):
        assert not versions.get_version(registry, SYSTEM, "lost", number).sealed


def test_a_symbolic_link_does_not_lead_out_of_the_folder(registry: Registry, peer: Peer, tmp_path: Path) -> None:
    shutil.copytree(peer.artifacts, tmp_path / "art")
    secret = tmp_path / "secret"
    secret.write_text("not yours")
    folder = tmp_path / "art" / "churn" / peer.made["run"] / "artifacts" / "model"
    (folder / "link").symlink_to(secret)
    (folder / "inside").symlink_to(folder / "MLmodel")
    old, new = peer.artifacts.as_uri(), (tmp_path / "art").as_uri()
    statement = "UPDATE model_versions SET source = replace(source, ?, ?), storage_location = NULL"
    mine = change(peer, tmp_path, statement, old, new)
    with closing(sqlite3.connect(mine.uri.removeprefix("sqlite:///"))) as database, database:
        database.execute("UPDATE runs SET artifact_uri = replace(artifact_uri, ?, ?)", (old, new))

    bring(registry, mine.uri, tmp_path / "art")

    paths = [file.path for file in versions.list_files(registry, SYSTEM, "churn", 1).files]
    assert paths == ["MLmodel", "data/weights", "empty", "inside"]


@pytest.mark.parametrize(
    ("statement", "kept"),
    [
        ("UPDATE params SET value = ? WHERE key='lr'", lambda r, p: runs.get_run(r, SYSTEM, p.made["run"]).params["opt"] == "adam"),
        ("UPDATE tags SET value = ? WHERE key='k'", lambda r, p: "empty" in runs.get_run(r, SYSTEM, p.made["run"]).tags),
        ("UPDATE runs SET user_id = ?", lambda r, p: runs.get_run(r, SYSTEM, p.made["run"]).user == ""),
        ("UPDATE registered_models SET description = ?", lambda r, _: models.get_model(r, SYSTEM, "churn").description is None),
        ("UPDATE model_versions SET description = ?", lambda r, _: versions.get_version(r, SYSTEM, "churn", 3).sealed),
        ("UPDATE model_version_tags SET value = ?", lambda r, _: versions.get_version(r, SYSTEM, "churn", 3).sealed),
        ("UPDATE datasets SET dataset_source = ?", lambda r, p: not runs.get_run(r, SYSTEM, p.made["run"]).datasets),
        ("UPDATE logged_models SET model_type = ?", lambda r, p: logged_models.get_logged_model(r, SYSTEM, p.made["logged"]).model_type is None),
    ],
)  # fmt: skip
def test_one_part_that_may_not_be_stored_keeps_nothing_else_out(
    registry: Registry, peer: Peer, tmp_path: Path, statement: str, kept: Callable[[Registry, Peer], bool]
) -> None:
    mine = change(peer, tmp_path, statement, "nul\x00 and " + "x" * 200_000)

    report = bring(registry, mine.uri, mine.artifacts)

    assert dict(report.came) == EVERY
    assert [each for each in report.problems if "left out" in each.reason] != []
    assert kept(registry, mine)
    check_sound(registry)


def test_an_experiment_id_that_is_taken_is_mapped_and_said(registry: Registry, peer: Peer) -> None:
    mine = experiments.create_experiment(registry, SYSTEM, "mine").experiment_id
    assert str(mine) == peer.made["experiment"]

    report = bring(registry, peer.uri, peer.artifacts)

    found = experiments.find_experiment_by_name(registry, SYSTEM, "churn")
    assert found is not None
    assert found.experiment_id != mine
    assert runs.get_run(registry, SYSTEM, peer.made["run"]).experiment_id == found.experiment_id
    assert f"Experiment 'churn' has the id {found.experiment_id} here, {mine} there." in report.notes


def test_an_older_database_without_logged_models_aliases_and_workspaces_is_read(
    registry: Registry, peer: Peer, tmp_path: Path
) -> None:
    mine = copy_database(peer, tmp_path)
    with closing(sqlite3.connect(mine.uri.removeprefix("sqlite:///"))) as database, database:
        database.execute("PRAGMA foreign_keys=OFF")
        for name in ("logged_models", "logged_model_params", "logged_model_tags", "logged_model_metrics"):
            database.execute(f"DROP TABLE {name}")
        for name in ("registered_model_aliases", "input_tags", "inputs", "datasets"):
            database.execute(f"DROP TABLE {name}")

    report = bring(registry, mine.uri, mine.artifacts)

    assert report.came["versions"] == EVERY["versions"]
    assert report.came["runs"] == EVERY["runs"]
    assert (report.came["logged models"], report.came["aliases"]) == (0, 0)


def test_what_is_no_mlflow_database_is_refused(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "other.db")) as database, database:
        database.execute("CREATE TABLE runs (id INTEGER)")
    (tmp_path / "text.db").write_text("this is no database")

    with (
        pytest.raises(InvalidFieldError, match="not the database of an MLflow"),
        open_source(f"sqlite:///{tmp_path}/other.db"),
    ):
        pass
    with pytest.raises(BusyError, match="cannot be read"), open_source(f"sqlite:///{tmp_path}/text.db"):
        pass


def test_the_database_that_is_read_is_not_changed(registry: Registry, peer: Peer) -> None:
    file = Path(peer.uri.removeprefix("sqlite:///"))
    before = file.read_bytes(), sorted(path.name for path in file.parent.iterdir())

    bring(registry, peer.uri, peer.artifacts)

    assert (file.read_bytes(), sorted(path.name for path in file.parent.iterdir())) == before


@pytest.mark.postgres
def test_a_database_on_postgresql_reads_the_same(
    filled: tuple[Registry, ImportReport], peer: Peer, registry: Registry, postgres_url: str
) -> None:
    artifacts_uri = peer.artifacts.as_uri()
    made = fill(sys.executable, postgres_url, artifacts_uri)

    report = bring(registry, postgres_url.replace("postgresql+psycopg", "postgresql"), peer.artifacts)

    assert dict(report.came) == EVERY
    assert runs.get_run(registry, SYSTEM, made["run"]).params == {"lr": "0.1", "opt": "adam"}
    assert (
        versions.get_version(registry, SYSTEM, "churn", 3).digest
        == versions.get_version(filled[0], SYSTEM, "churn", 3).digest
    )
    check_sound(registry)


# ── a real server ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.processes
@pytest.mark.timeout(300)
def test_a_server_gives_the_same_as_its_database_but_for_deleted_numbers_at_the_end(tmp_path: Path) -> None:
    with run_reference(tmp_path / "mlflow") as url:
        made = fill(sys.executable, url)
        with opened(tmp_path / "over-http") as registry:
            report = bring(registry, url)
            again = bring(registry, url)
            over_http = describe(registry)
            check_sound(registry)
    with opened(tmp_path / "from-database") as registry:
        bring(registry, f"sqlite:///{tmp_path / 'mlflow' / 'mlflow.db'}", tmp_path / "mlflow" / "artifacts")
        from_database = describe(registry)

    assert dict(report.came) == {**EVERY, "versions": EVERY["versions"] - 1}
    assert (dict(again.came), dict(again.added), again.fetched_bytes) == ({}, {}, 0)
    only = {name: set(rows) ^ set(over_http[name]) for name, rows in from_database.items() if rows != over_http[name]}
    assert only.keys() <= {"versions", "models"}
    assert all("ends with deleted" in row for rows in only.values() for row in rows)
    assert made["run"]
    assert IMPORTER.id == "import"

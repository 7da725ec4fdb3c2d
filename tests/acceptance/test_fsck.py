"""fsck against every kind of damage: each column of each table once, then rows, bytes and the log itself.

A registry that has been through every kind of event is made once and copied for each case; the damage is done behind
its back, with plain SQL and plain file operations.
"""

from __future__ import annotations

import json
import math
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from touchmark.artifacts import layout
from touchmark.artifacts.manifests import build_manifest
from touchmark.domain.access import Principal, PrincipalKind
from touchmark.domain.digest import Digest, digest_of
from touchmark.domain.events import EventKind
from touchmark.domain.idempotency import IdempotencyKey
from touchmark.domain.ledger import hash_leaf
from touchmark.domain.repositories import parse_repository
from touchmark.domain.tracking import ArtifactOwner, DatasetInput, LoggedModelStatus, Metric
from touchmark.domain.versions import Stage, VersionFile
from touchmark.ops.fsck import EXIT_CODES, Kind, Report, check_registry
from touchmark.ops.setup import open_registry
from touchmark.registry import Registry
from touchmark.services import aliases, artifacts, blobs, logged_models, manifests, models, registration, runs, versions
from touchmark.storage import schema as s

ADA = Principal(PrincipalKind.USER, "user-ada", verified=True, request_id="r-1")
BOB = Principal(PrincipalKind.SERVICE, "service-bob", token_id="t-9")
ML_MODEL = b"""flavors:
  python_function: {loader_module: mlflow.sklearn, python_version: 3.11.7}
  sklearn: {sklearn_version: 1.5.0, pickled_model: model.pkl}
signature:
  inputs: '[{"type": "double", "name": "age", "required": true}]'
  outputs: '[{"type": "long", "name": "churns", "required": true}]'
"""
WEIGHTS = bytes(range(256)) * 400


def upload(registry: Registry, repository: str, content: bytes) -> Digest:
    with blobs.open_upload(registry, ADA, parse_repository(repository)) as writer:
        writer.write(content)
        return writer.commit(digest_of(content)).digest


def log_model(registry: Registry, name: str, run_id: str | None, files: dict[str, bytes]) -> str:
    """Log a model with files and return its reference."""
    model = logged_models.create_logged_model(registry, ADA, name, run_id=run_id)
    owner = ArtifactOwner("logged_model", model.model_id)
    digests = {path: upload(registry, owner.repository, content) for path, content in files.items()}
    artifacts.set_artifacts(registry, ADA, owner, digests)
    logged_models.finish_logged_model(registry, ADA, model.model_id, status=LoggedModelStatus.READY)
    return f"models:/{model.model_id}"


def seed(registry: Registry) -> None:
    """Take a registry through every kind of event, and leave rows in every table and values in every column."""
    run = runs.create_run(registry, ADA, "training", params={"depth": "6"}, tags={"git": "abc"})
    measured = [Metric("auc", 0.91, 1, 5), Metric("loss", math.nan, 1, 5), Metric("gap", math.inf, 1, 5)]
    runs.log_batch(registry, ADA, run.run_id, metrics=measured)
    runs.log_datasets(registry, ADA, run.run_id, [DatasetInput("sales", "d1", context="train", source="s")])
    sklearn = log_model(
        registry, "sklearn", run.run_id, {"MLmodel": ML_MODEL, "model.pkl": b"\x80\x04N.", "w": WEIGHTS}
    )
    plain = log_model(registry, "plain", None, {"weights/model.bin": b"plain", "readme.md": b"how to"})
    owner = ArtifactOwner("run", run.run_id)
    artifacts.set_artifacts(registry, ADA, owner, {"notes/a.txt": upload(registry, owner.repository, b"notes")})

    models.create_model(
        registry, ADA, "churn", description="Who leaves", owner="Ada L.", contact="ada@example.org", tags={"team": "risk"}
    )
    key = IdempotencyKey("k-1", "h")
    register = registration.register_version
    register(registry, ADA, "churn", sklearn, description="first one", tags={"kind": "a"}, run_link="http://x", key=key)
    register(registry, BOB, "churn", plain, parents=["models:/churn/1"], description="second")
    register(registry, BOB, "churn", sklearn)
    register(registry, BOB, "kept", "models:/churn/1", tags={"copied": "yes"})
    models.update_model(registry, BOB, "churn", description="Who will leave", owner=None)
    models.update_model(registry, BOB, "churn", owner="Bob B.")
    models.set_model_tags(registry, ADA, "churn", {"team": "growth", "tier": "1", "gone": "x"})
    models.delete_model_tag(registry, ADA, "churn", "gone")
    versions.update_version(registry, ADA, "churn", 1, description="the first of them")
    versions.set_version_tags(registry, ADA, "churn", 1, {"kind": "b", "reviewed": "no", "gone": "x"})
    versions.delete_version_tag(registry, ADA, "churn", 1, "gone")
    versions.record_evaluation(registry, BOB, "churn", 1, {"auc": 0.5, "drift": -math.inf}, dataset="march")
    versions.set_stage(registry, ADA, "churn", 1, Stage.PRODUCTION, archive_others=False)
    versions.set_stage(registry, ADA, "churn", 2, Stage.PRODUCTION, archive_others=True)
    versions.deprecate_version(registry, ADA, "churn", 1, reason="old", replaced_by="models:/churn/2")
    aliases.set_alias(registry, ADA, "churn", "champion", 1)
    aliases.set_alias(registry, BOB, "churn", "champion", 2)
    aliases.set_alias(registry, BOB, "churn", "doomed", 3)
    aliases.set_alias(registry, BOB, "churn", "passing", 2)
    aliases.delete_alias(registry, BOB, "churn", "passing")
    versions.delete_version(registry, ADA, "churn", 3)
    versions.restore_version(registry, ADA, "churn", 3)
    versions.delete_version(registry, ADA, "churn", 3)
    models.rename_model(registry, ADA, "churn", "attrition")
    register(registry, ADA, "short-lived", plain, tags={"a": "b"})
    aliases.set_alias(registry, ADA, "short-lived", "champion", 1)
    models.delete_model(registry, ADA, "short-lived")
    models.create_model(registry, ADA, "short-lived", description="again")
    register(registry, ADA, "dropped", plain)
    models.delete_model(registry, ADA, "dropped")
    put_unregistered_manifest(registry)


def put_unregistered_manifest(registry: Registry) -> None:
    model_id = models.get_model(registry, ADA, "kept").model_id
    path = f"m/{model_id}"
    made = build_manifest([VersionFile("lone.bin", 4, upload(registry, path, b"lone"))])
    upload(registry, path, registry.blobs.read(made.config.digest))
    manifests.put_manifest(registry, ADA, parse_repository(path), made.digest, made.bytes)


@pytest.fixture(scope="session")
def seeded_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a home that has seen everything, once."""
    home = tmp_path_factory.mktemp("seeded") / "home"
    registry = open_registry(home)
    try:
        seed(registry)
    finally:
        registry.close()
    return home


@pytest.fixture
def damaged(seeded_home: Path, tmp_path: Path) -> Iterator[Path]:
    """Give a copy of that home to damage."""
    home = tmp_path / "home"
    shutil.copytree(seeded_home, home)
    yield home
    shutil.rmtree(home)


def check(home: Path, *, deep: bool = False) -> Report:
    registry = open_registry(home)
    try:
        return check_registry(registry, deep=deep)
    finally:
        registry.close()


def execute(home: Path, *statements: str | tuple[str, tuple[Any, ...]]) -> None:
    """Change rows behind the registry's back, foreign keys or not."""
    with closing(sqlite3.connect(home / "registry.db")) as connection:
        for statement in statements:
            connection.execute(*(statement if isinstance(statement, tuple) else (statement,)))
        connection.commit()


def query(home: Path, statement: str, *values: Any) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(home / "registry.db")) as connection:
        return connection.execute(statement, values).fetchall()


def test_a_sound_registry_is_clean(seeded_home: Path) -> None:
    report = check(seeded_home, deep=True)

    assert report.findings == []
    assert report.exit_code == 0
    assert report.checked["log entries"] == query(seeded_home, "SELECT size FROM log_head")[0][0]
    assert report.checked["blobs"] == query(seeded_home, "SELECT count(*) FROM blobs")[0][0]


def test_the_seed_has_every_kind_of_event(seeded_home: Path) -> None:
    kinds = {kind for (kind,) in query(seeded_home, "SELECT DISTINCT kind FROM events")}

    assert kinds == {kind.value for kind in EventKind}

"""fsck against every kind of damage: each column of each table once, then rows, bytes and the log itself.

A registry that has been through every kind of event is made once and copied for each case; the damage is done behind
its back, with plain SQL and plain file operations.
"""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from touchmark.artifacts import layout
from touchmark.artifacts.manifests import MANIFEST_MEDIA_TYPE, build_manifest
from touchmark.domain.access import Principal, PrincipalKind
from touchmark.domain.digest import Digest, digest_of
from touchmark.domain.events import EventKind
from touchmark.domain.idempotency import IdempotencyKey
from touchmark.domain.ledger import hash_leaf
from touchmark.domain.repositories import parse_repository
from touchmark.domain.tracking import ArtifactOwner, DatasetInput, LoggedModelStatus, Metric
from touchmark.domain.versions import Stage, VersionFile
from touchmark.domain.webhooks import WebhookEvent, WebhookRules
from touchmark.ops.fsck import EXIT_CODES, HOLDERS, Kind, Report, check_registry, open_for_check
from touchmark.ops.setup import open_registry
from touchmark.registry import Registry
from touchmark.services import (
    aliases,
    artifacts,
    blobs,
    logged_models,
    manifests,
    models,
    registration,
    runs,
    sealing,
    stages,
    versions,
    webhooks,
)
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
        registry,
        ADA,
        "churn",
        description="Who leaves",
        owner="Ada L.",
        contact="ada@example.org",
        tags={"team": "risk"},
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
    stages.set_stage(registry, ADA, "churn", 1, Stage.PRODUCTION, archive_others=False)
    stages.set_stage(registry, ADA, "churn", 2, Stage.PRODUCTION, archive_others=True)
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
    for source in ("s3://bucket/here", "s3://bucket/gone"):
        waiting = registration.register_address(
            registry, ADA, "kept", source, reference=None, reason="elsewhere", run_id=run.run_id, pending=True
        )
        if source.endswith("here"):
            file = VersionFile("w.bin", 7, registry.blobs.put(b"fetched").digest)
            origin = {"from": "http://127.0.0.1:9"}
            sealing.seal_version(
                registry, ADA, waiting.version_id, [file], run=None, logged_model=None, experiment=None, imported=origin
            )
        else:
            sealing.give_up(registry, ADA, waiting.version_id, "nobody has it", failed=False)
    rules, events = WebhookRules(), [WebhookEvent.MODEL_VERSION_CREATED, WebhookEvent.MODEL_VERSION_ALIAS_CREATED]
    hooks = [
        webhooks.create_webhook(registry, ADA, f"hook-{n}", f"https://8.8.8.8/{n}", events, secret="s", rules=rules)
        for n in range(3)
    ]
    first = hooks[0].webhook_id
    webhooks.update_webhook(registry, BOB, first, description="tells", secret="other", events=events[1:], rules=rules)
    webhooks.delete_webhook(registry, ADA, hooks[1].webhook_id)


def put_unregistered_manifest(registry: Registry) -> None:
    model_id = models.get_model(registry, ADA, "kept").model_id
    path = f"m/{model_id}"
    made = build_manifest([VersionFile("lone.bin", 4, upload(registry, path, b"lone"))])
    upload(registry, path, registry.blobs.read(made.config.digest))
    manifests.put_manifest(registry, ADA, parse_repository(path), made.digest, made.bytes)
    about = {"mediaType": MANIFEST_MEDIA_TYPE, "digest": made.digest, "size": len(made.bytes)}
    signature = json.dumps({**json.loads(made.bytes), "subject": about}).encode()
    manifests.put_manifest(registry, ADA, parse_repository(path), digest_of(signature), signature)


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
    registry = open_for_check(home)
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


def subjects(report: Report, kind: Kind | None = None) -> list[str]:
    return [finding.subject for finding in report.findings if kind is None or finding.kind is kind]


def blob_path(home: Path, digest: str) -> Path:
    return home / "blobs" / layout.blob_key(Digest(digest))


# ── nothing wrong ──


def test_a_sound_registry_is_clean(seeded_home: Path) -> None:
    report = check(seeded_home, deep=True)

    assert report.findings == []
    assert report.exit_code == 0
    assert report.checked["log entries"] == query(seeded_home, "SELECT size FROM log_head")[0][0]
    assert report.checked["blobs"] == query(seeded_home, "SELECT count(*) FROM blobs")[0][0]


def test_the_seed_has_every_kind_of_event_and_a_value_in_every_column(seeded_home: Path) -> None:
    kinds = {kind for (kind,) in query(seeded_home, "SELECT DISTINCT kind FROM events")}
    empty = [
        f"{table}.{column}"
        for table, column in CELLS
        if not query(seeded_home, f'SELECT 1 FROM "{table}" WHERE "{column}" IS NOT NULL')
    ]

    assert kinds == {kind.value for kind in EventKind}
    assert empty == []


# ── each column, each row ──

LOG = ("log_head", "events", "event_texts", "log_nodes")
CATALOGUE = (
    "models", "model_names", "model_tags", "versions", "version_tags", "version_params", "version_metrics", "aliases",
    "alias_moves", "evaluations", "edges", "search_terms", "webhooks",
)  # fmt: skip
BYTES = ("blobs", "repository_blobs", "manifests", "manifest_blobs", "manifest_facts", "repository_manifests")
TABLES = (*LOG, *CATALOGUE, *BYTES)
CELLS = [(table, column.name) for table in TABLES for column in s.metadata.tables[table].columns]
# Nothing else says when bytes came, or through which door: these are the only record of it (docs/reference/fsck.md).
NOT_DERIVED = {("blobs", "created_at"), ("manifests", "created_at")}
ONLY_RECORD = ("repository_blobs", "repository_manifests")


def another(value: Any, column: str) -> Any:
    """Return a value like this one that is not it."""
    if isinstance(value, bytes):
        return value[:-3] + bytes([value[-3] ^ 1]) + value[-2:]
    if isinstance(value, int):
        return 1 - value if column == "is_nan" else value + 1_000_003
    if isinstance(value, float):
        return value + 0.5 if math.isfinite(value) else 1.0
    if value is None:
        return 7
    if value.startswith("sha256:"):
        return value[:-1] + ("0" if value[-1] != "0" else "1")
    if value.startswith("{"):
        return value.replace('":', '" :', 1)
    return value + "x"


def damage_cell(home: Path, table: str, column: str, pick: int) -> Any:
    """Change one cell and return the value it has now."""
    rows = query(home, f'SELECT rowid, "{column}" FROM "{table}" ORDER BY "{column}" IS NULL, rowid')
    there = [row for row in rows if row[1] is not None] or rows
    rowid, value = there[pick % len(there)]
    changed = another(value, column)
    execute(home, (f'UPDATE "{table}" SET "{column}" = ? WHERE rowid = ?', (changed, rowid)))
    return changed


@pytest.mark.parametrize(("table", "column"), CELLS)
def test_a_changed_cell_is_named(damaged: Path, table: str, column: str) -> None:
    changed = damage_cell(damaged, table, column, 1)

    report = check(damaged)

    if (table, column) in NOT_DERIVED:
        assert report.findings == []
        return
    keys = {key.name for key in s.metadata.tables[table].primary_key.columns}
    shown = {("event_texts", "salt"): "text"}.get((table, column), column)  # they hash together: either may be wrong
    named = [one for one in subjects(report) if one.startswith(f"{table}[") or one == changed]
    assert [one for one in named if one.endswith(f"].{shown}") or column in keys], report.findings
    assert report.exit_code == (6 if table in LOG else 5)


@pytest.mark.parametrize("table", TABLES)
def test_a_deleted_row_is_missed(damaged: Path, table: str) -> None:
    execute(damaged, f'DELETE FROM "{table}" WHERE rowid = (SELECT rowid FROM "{table}" ORDER BY rowid DESC LIMIT 1)')

    report = check(damaged)

    if table in ONLY_RECORD:
        assert report.findings == []
        return
    assert [one for one in subjects(report) if one.startswith((f"{table}[", "versions[", "manifest_blobs["))]
    assert report.exit_code == (6 if table in LOG else 5)


@pytest.mark.parametrize("table", [table for table in TABLES if table != "log_head"])
def test_an_added_row_is_found(damaged: Path, table: str) -> None:
    columns = [column.name for column in s.metadata.tables[table].columns]
    key = next(iter(s.metadata.tables[table].primary_key.columns)).name
    unique = {"models": ["name"], "versions": ["number"]}.get(table, [])
    row = dict(zip(columns, query(damaged, f'SELECT * FROM "{table}" LIMIT 1')[0], strict=True))
    row |= {column: another(row[column], column) for column in [key, *unique]}
    names, marks = ", ".join(f'"{name}"' for name in row), ", ".join("?" * len(row))
    execute(damaged, (f'INSERT INTO "{table}" ({names}) VALUES ({marks})', tuple(row.values())))

    report = check(damaged)

    if table == "blobs":  # a row that promises bytes nobody has
        assert subjects(report) == [row["digest"]]
        assert report.exit_code == 4
        return
    assert [one for one in subjects(report) if one.startswith(f"{table}[") and str(row[key]) in one]
    assert report.exit_code == (6 if table in LOG else 5)


def test_which_door_bytes_came_through_cannot_be_checked_only_that_it_exists(damaged: Path) -> None:
    here, there = query(damaged, "SELECT DISTINCT repository FROM repository_blobs ORDER BY repository LIMIT 2")
    execute(damaged, ("UPDATE OR REPLACE repository_blobs SET repository = ? WHERE repository = ?", (*here, *there)))

    assert check(damaged).findings == []


def test_a_cell_of_another_type_is_a_finding_and_not_a_crash(damaged: Path) -> None:
    execute(
        damaged,
        "UPDATE events SET leaf = 'text' WHERE log_index = 3",
        "UPDATE events SET leaf = x'ff' WHERE log_index = 4",
        "UPDATE event_texts SET salt = 'text'",
        "UPDATE log_nodes SET hash = 7 WHERE level = 1 AND position = 2",
        "UPDATE manifests SET content = 'text', contents = x'00', size_bytes = 'many'",
        "UPDATE OR REPLACE version_tags SET version_id = 'text'",
        "UPDATE version_metrics SET value = 'text'",
        "UPDATE blobs SET size_bytes = 'text'",
        "UPDATE log_head SET frontier = 'text', size = 'text'",
    )

    report = check(damaged, deep=True)

    assert report.exit_code == 6
    assert {one.partition("[")[0] for one in subjects(report)} >= {
        "events", "event_texts", "log_nodes", "manifests", "version_tags", "version_metrics", "blobs", "log_head",
    }  # fmt: skip


# ── bytes ──


def test_a_blob_cut_short_is_found_without_reading_it(damaged: Path) -> None:
    path = blob_path(damaged, digest_of(WEIGHTS))
    path.chmod(0o600)
    path.write_bytes(WEIGHTS[:-1])

    report = check(damaged)

    assert subjects(report) == [digest_of(WEIGHTS)]
    assert "damaged" in report.findings[0].sentence
    assert report.exit_code == 4


def test_a_flipped_bit_is_found_by_deep_alone(damaged: Path) -> None:
    path = blob_path(damaged, digest_of(WEIGHTS))
    path.chmod(0o600)
    path.write_bytes(WEIGHTS[:90_000] + bytes([WEIGHTS[90_000] ^ 1]) + WEIGHTS[90_001:])

    assert check(damaged).findings == []
    report = check(damaged, deep=True)
    assert subjects(report, Kind.BYTES) == [digest_of(WEIGHTS)]
    assert report.exit_code == 4


def test_a_header_that_was_changed_is_damage_to_bytes_and_not_to_rows(damaged: Path) -> None:
    path = blob_path(damaged, digest_of(ML_MODEL))
    path.chmod(0o600)
    path.write_bytes(ML_MODEL.replace(b"churns", b"chorns"))

    report = check(damaged)

    assert subjects(report) == [digest_of(ML_MODEL)]
    assert report.exit_code == 4


def test_bytes_that_the_disk_does_not_give_back_are_named(damaged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unreadable = {blob_path(damaged, digest_of(data)).stat().st_ino for data in (WEIGHTS, ML_MODEL)}
    pread = os.pread

    def failing(descriptor: int, length: int, offset: int) -> bytes:
        if os.fstat(descriptor).st_ino in unreadable:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return pread(descriptor, length, offset)

    monkeypatch.setattr(os, "pread", failing)
    quick, deep = check(damaged), check(damaged, deep=True)

    assert digest_of(ML_MODEL) in subjects(quick)
    assert {digest_of(ML_MODEL), digest_of(WEIGHTS)} <= set(subjects(deep))
    assert {each.kind for each in (*quick.findings, *deep.findings)} == {Kind.BYTES}
    assert deep.exit_code == 4


def test_missing_bytes_are_named(damaged: Path) -> None:
    blob_path(damaged, digest_of(b"plain")).unlink()

    report = check(damaged)

    assert [(finding.kind, finding.subject) for finding in report.findings] == [(Kind.BYTES, digest_of(b"plain"))]
    assert report.exit_code == 4


def test_damaged_bytes_are_told_with_their_path_and_the_versions_they_hurt(damaged: Path) -> None:
    for data in (b"plain", ML_MODEL, b"notes"):
        blob_path(damaged, digest_of(data)).unlink()

    said = {each.subject: (each.sentence, each.versions) for each in check(damaged).findings}

    assert said == {
        digest_of(b"plain"): (
            "Its bytes are missing. They are 'weights/model.bin' of attrition/2 and 2 deleted versions.",
            ("attrition/2",),
        ),
        digest_of(ML_MODEL): (
            "Its bytes are missing. They are 'MLmodel' of attrition/1, kept/1 and 1 deleted version.",
            ("attrition/1", "kept/1"),
        ),
        digest_of(b"notes"): ("Its bytes are missing. No version needs them.", ()),
    }


def test_of_many_versions_that_damaged_bytes_hurt_some_are_named_and_all_counted(tmp_path: Path) -> None:
    with closing(open_registry(tmp_path / "home")) as registry:
        source = log_model(registry, "plain", None, {"w": b"shared"})
        for _ in range(HOLDERS + 3):
            registration.register_version(registry, ADA, "m", source)
    blob_path(tmp_path / "home", digest_of(b"shared")).unlink()

    (finding,) = check(tmp_path / "home").findings

    assert finding.versions == tuple(f"m/{number + 1}" for number in range(HOLDERS))
    assert finding.sentence.endswith(f"m/{HOLDERS} and 3 more versions.")


def test_bytes_that_no_row_knows_are_reported_apart(damaged: Path) -> None:
    registry = open_registry(damaged)
    stray = registry.blobs.put(b"nobody's").digest
    registry.close()

    report = check(damaged)

    assert [(finding.kind, finding.subject) for finding in report.findings] == [(Kind.ORPHAN, stray)]
    assert report.exit_code == 3


def test_the_worst_finding_gives_the_exit_code(damaged: Path) -> None:
    expected = []
    registry = open_registry(damaged)
    registry.blobs.put(b"nobody's")
    registry.close()
    expected.append(check(damaged).exit_code)
    blob_path(damaged, digest_of(b"plain")).unlink()
    expected.append(check(damaged).exit_code)
    execute(damaged, "UPDATE aliases SET number = 1")
    expected.append(check(damaged).exit_code)
    execute(damaged, "UPDATE log_head SET last_at = 1")
    expected.append(check(damaged).exit_code)

    assert expected == [3, 4, 5, 6] == [EXIT_CODES[kind] for kind in Kind]


# ── the log ──


def forge(home: Path, index: int, change: Callable[[dict[str, Any]], None]) -> tuple[bytes, bytes]:
    """Rewrite an entry and the hash beside it; return the new leaf and its hash."""
    (leaf,) = query(home, "SELECT leaf FROM events WHERE log_index = ?", index)[0]
    document = json.loads(leaf)
    change(document)
    forged = json.dumps(document, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()
    assert forged != leaf
    execute(home, ("UPDATE events SET leaf = ?, leaf_hash = ? WHERE log_index = ?", (forged, hash_leaf(forged), index)))
    return forged, hash_leaf(forged)


def blame_bob(document: dict[str, Any]) -> None:
    document["actor"]["id"] = "service-eve"


def test_an_entry_forged_with_its_hash_is_betrayed_by_the_tree(damaged: Path) -> None:
    forge(damaged, 9, blame_bob)
    execute(damaged, "UPDATE events SET actor = 'service-eve' WHERE log_index = 9")

    report = check(damaged)

    assert "events[log_index=9].leaf" in subjects(report, Kind.LOG)
    assert not [one for one in subjects(report) if one.startswith("log_nodes")]
    assert report.exit_code == 6


def test_an_entry_forged_with_its_lowest_node_is_betrayed_by_the_next(damaged: Path) -> None:
    _, forged = forge(damaged, 9, blame_bob)
    execute(damaged, ("UPDATE log_nodes SET hash = ? WHERE level = 0 AND position = 9", (forged,)))

    report = check(damaged)

    assert "events[log_index='8..9'].leaf" in subjects(report, Kind.LOG)
    assert report.exit_code == 6


def test_the_last_entry_forged_is_betrayed_by_the_head(damaged: Path) -> None:
    ((size,),) = query(damaged, "SELECT size FROM log_head")
    _, forged = forge(damaged, size - 1, blame_bob)
    execute(damaged, ("UPDATE log_nodes SET hash = ? WHERE level = 0 AND position = ?", (forged, size - 1)))

    report = check(damaged)

    assert report.exit_code == 6
    assert {one for one in subjects(report, Kind.LOG) if not one.startswith("events")} & {
        "log_head[id=1].root", f"log_nodes[level=1, position={size - 1 >> 1}].hash",
    } or f"events[log_index='{size - 2}..{size - 1}'].leaf" in subjects(report)  # fmt: skip


def test_two_entries_that_changed_places_are_both_named(damaged: Path) -> None:
    execute(
        damaged,
        "UPDATE events SET log_index = -1 WHERE log_index = 11",
        "UPDATE events SET log_index = 11 WHERE log_index = 12",
        "UPDATE events SET log_index = 12 WHERE log_index = -1",
    )

    report = check(damaged)

    assert {"events[log_index=11].leaf", "events[log_index=12].leaf"} <= set(subjects(report, Kind.LOG))
    assert {"events[log_index=11].log_index", "events[log_index=12].log_index"} <= set(subjects(report))


def test_a_log_cut_off_at_its_end_is_found(damaged: Path) -> None:
    ((size,),) = query(damaged, "SELECT size FROM log_head")
    execute(
        damaged,
        f"DELETE FROM events WHERE log_index >= {size - 3}",
        f"DELETE FROM event_texts WHERE log_index >= {size - 3}",
    )

    report = check(damaged)

    assert f"events[log_index={size - 3}]" in subjects(report, Kind.LOG)
    assert f"Entries {size - 3} to {size - 1} are missing." in [finding.sentence for finding in report.findings]


def test_a_log_whose_head_is_gone_is_still_checked(damaged: Path) -> None:
    execute(damaged, "DELETE FROM log_head")

    report = check(damaged)

    assert subjects(report) == ["log_head[id=1]"]
    assert report.exit_code == 6


def test_an_effect_that_lies_about_the_state_before_is_found(damaged: Path) -> None:
    """The tree is right in itself here: only replaying shows that the entry cannot have been."""
    ((index,),) = query(damaged, "SELECT max(log_index) FROM events WHERE kind = 'alias.set'")

    def lie(document: dict[str, Any]) -> None:
        document["effects"][0]["before"] = {"number": 2}

    forge(damaged, index, lie)

    sentences = [finding.sentence for finding in check(damaged).findings]

    assert any("which was not there" in sentence for sentence in sentences)


# ── texts that were erased ──


def test_an_erased_text_is_no_damage(damaged: Path) -> None:
    """As erasing leaves it: the text gone from beside the log, and from the rows that show it, or not yet from those."""
    execute(damaged, "UPDATE event_texts SET text = NULL")
    assert check(damaged).findings == []

    execute(
        damaged,
        "UPDATE models SET description = '[erased]', owner = '[erased]' WHERE name = 'attrition'",
        "DELETE FROM search_terms WHERE subject = 'model' AND term = 'leave'",
    )
    assert check(damaged).findings == []


def test_what_was_not_erased_is_still_compared(damaged: Path) -> None:
    execute(damaged, "UPDATE event_texts SET text = NULL", "UPDATE versions SET number = 99 WHERE number = 3")

    assert [one for one in subjects(check(damaged)) if one.endswith("].number")]


# ── the database and the report ──


def test_an_older_schema_is_said_and_nothing_else_is_checked(damaged: Path) -> None:
    execute(damaged, "UPDATE alembic_version SET version_num = '0000'")

    report = check(damaged)

    assert subjects(report) == ["alembic_version.version_num"]
    assert report.exit_code == 5


def test_a_torn_database_file_is_a_finding_and_not_a_crash(damaged: Path) -> None:
    path = damaged / "registry.db"
    ((page_bytes,),) = query(damaged, "PRAGMA page_size")
    content = bytearray(path.read_bytes())
    for page in range(20, len(content) // page_bytes, 3):
        content[page * page_bytes : page * page_bytes + 64] = b"\xa5" * 64
    path.write_bytes(content)

    report = check(damaged)

    assert "database" in subjects(report, Kind.METADATA)
    assert report.exit_code >= 5


def test_a_thousand_findings_of_one_sort_are_listed_in_part(damaged: Path) -> None:
    rows = [f"('w{n}', 'model', 1)" for n in range(1_000)]
    execute(damaged, f"INSERT INTO search_terms VALUES {', '.join(rows)}")

    report = check(damaged)

    assert len(report.findings) == 100
    assert report.unlisted == {Kind.METADATA: 900}
    assert report.exit_code == 5


def test_what_is_written_meanwhile_is_not_mistaken_for_damage(damaged: Path) -> None:
    writer, reader = open_registry(damaged), open_registry(damaged)
    told: list[str] = []

    def write(what: str, _done: int, _of: int | None) -> None:
        if what not in told:
            told.append(what)
            source = log_model(writer, f"while {what}", None, {"f": what.encode()})
            registration.register_version(writer, ADA, "meanwhile", source)
            aliases.set_alias(writer, ADA, "meanwhile", "newest", len(told))
            writer.blobs.put(b"no row yet, then one: " + what.encode())
            upload(writer, source.replace("models:/", "logged-models/"), b"no row yet, then one: " + what.encode())

    try:
        report = check_registry(reader, deep=True, on_progress=write)
        again = check_registry(reader, deep=True)
    finally:
        writer.close()
        reader.close()

    assert {"database", "log", "manifests", "blobs"} <= set(told)
    assert report.findings == []
    assert again.findings == []
    assert again.checked["log entries"] == report.checked["log entries"] + 2 * len(told)


@pytest.mark.postgres
def test_postgres_is_checked_the_same_way(postgres_url: str, tmp_path: Path) -> None:
    registry = open_registry(tmp_path / "home", postgres_url)
    try:
        seed(registry)
        assert check_registry(registry, deep=True).findings == []

        for statement, subject, code in (
            ("UPDATE version_metrics SET value = 7 WHERE value = 0.5", ".value", 5),
            ("UPDATE version_metrics SET is_nan = NOT is_nan", ".is_nan", 5),
            ("UPDATE alias_moves SET after = 9 WHERE after = 1", ".after", 5),
            ("DELETE FROM version_tags WHERE key = 'kind'", "version_tags[", 5),
            ("UPDATE manifests SET size_bytes = size_bytes + 1", ".size_bytes", 5),
            ("UPDATE events SET leaf = set_byte(leaf, 20, 65) WHERE log_index = 9", "events[log_index=9].leaf", 6),
            (
                "UPDATE log_nodes SET position = 1000 WHERE level = 1 AND position = 2",
                "log_nodes[level=1, position=1000]",
                6,
            ),
        ):
            with registry.track() as tx:
                tx.run(text(statement))
            report = check_registry(registry)
            assert any(subject in one for one in subjects(report)), statement
            assert report.exit_code == code
    finally:
        registry.close()

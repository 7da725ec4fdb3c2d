"""Backup and restore: while writers write, on both databases and across, and from backups that are damaged.

What is compared is everything: every row of every table, every byte of every blob, and the log entry by entry.
"""

from __future__ import annotations

import json
import os
import shutil
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from obstore.store import MemoryStore
from sqlalchemy import Column, Table, select

from tests.acceptance.test_fsck import ADA, WEIGHTS, blob_path, execute, log_model, query, seed
from touchmark.artifacts import layout
from touchmark.artifacts.bucket import BucketBlobStore
from touchmark.domain.digest import digest_of
from touchmark.domain.errors import (
    ConflictError,
    CorruptError,
    HomeBusyError,
    InvalidFieldError,
    SchemaTooNewError,
    UnsupportedError,
)
from touchmark.domain.idempotency import IdempotencyKey
from touchmark.ops.backup import hash_file, write_backup
from touchmark.ops.fsck import check_registry
from touchmark.ops.restore import restore_backup
from touchmark.ops.setup import open_registry
from touchmark.registry import Registry
from touchmark.services import aliases, experiments, models, registration
from touchmark.storage import ledger, schema
from touchmark.storage.engine import Database


@pytest.fixture(scope="session")
def sound_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a home that has seen everything, once."""
    home = tmp_path_factory.mktemp("sound") / "home"
    with closing(open_registry(home)) as registry:
        seed(registry)
    return home


@pytest.fixture
def registry(sound_home: Path, tmp_path: Path) -> Iterator[Registry]:
    """Give a copy of that home, opened."""
    shutil.copytree(sound_home, tmp_path / "home")
    with closing(open_registry(tmp_path / "home")) as opened:
        yield opened


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def _told(table: Table) -> list[Column[Any]]:
    return [column for column in table.columns if column is not schema.log_head.c.place]  # a restored one has its own


def read_rows(registry: Registry) -> dict[str, list[tuple[Any, ...]]]:
    with registry.read() as tx:
        return {
            table.name: [tuple(row) for row in tx.all(select(*_told(table)).order_by(*table.primary_key.columns))]
            for table in schema.metadata.sorted_tables
        }


def read_leaves(registry: Registry) -> list[bytes]:
    with registry.read() as tx:
        return [leaf for _, leaf in ledger.list_events(tx, after=-1, limit=100_000)]


def assert_same(restored: Registry, source: Registry) -> None:
    assert read_rows(restored) == read_rows(source)
    for blob in source.blobs.list_blobs():
        assert restored.blobs.check(blob.digest) == blob.size_bytes
    assert check_registry(restored, deep=True).findings == []


# ── from here to there ──


@pytest.mark.parametrize("name", ["backup", "backup.tar"])
def test_a_restored_backup_holds_the_same_rows_and_bytes(registry: Registry, tmp_path: Path, name: str) -> None:
    summary = write_backup(registry, tmp_path / name)
    restored = restore_backup(tmp_path / name, tmp_path / "elsewhere")

    assert restored.report.findings == []
    assert restored.about == summary.about
    assert summary.copied_blobs == summary.about.blob_count > 5
    with closing(open_registry(tmp_path / "elsewhere")) as opened:
        assert_same(opened, registry)
    assert names_in(tmp_path) == sorted(["elsewhere", "home", name])


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Registry]:
    """Give an empty registry on each database, SQLite with local files and PostgreSQL with a bucket in memory."""
    if request.param == "sqlite":
        opened = open_registry(tmp_path / "source")
    else:
        url = request.getfixturevalue("postgres_url")
        opened = open_registry(tmp_path / "source", url, blobs=BucketBlobStore(MemoryStore()))
    with closing(opened):
        yield opened


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def target_url(request: pytest.FixtureRequest) -> Iterator[str | None]:
    """Give the URL of another empty database, None for SQLite in the home."""
    if request.param == "sqlite":
        yield None
        return
    with request.getfixturevalue("postgres_server").open_database() as url:
        yield url


def test_every_write_acknowledged_before_is_in_a_backup_taken_while_four_threads_write(
    source: Registry, target_url: str | None, tmp_path: Path
) -> None:
    seed(source)
    acknowledged: list[tuple[int, str]] = []
    stop = threading.Event()
    failures: list[BaseException] = []

    def write(number: int) -> None:
        try:
            count = 0
            while not stop.is_set():
                count += 1
                origin = log_model(source, f"w{number}", None, {"f": f"{number} {count}".encode() * 50})
                made = registration.register_version(source, ADA, f"model-{number % 2}", origin)
                moved = aliases.set_alias(source, ADA, made.name, f"newest-{number}", made.version)
                acknowledged.append((moved.log_index, made.digest or ""))
        except BaseException as error:
            failures.append(error)
            raise

    def wait_for_writers(_what: str, done: int, _of: int | None) -> None:
        """Let every writer get somewhere before the snapshot and between it and the first blob."""
        seen = len(acknowledged)
        while done < 2 and len(acknowledged) < seen + 4 and not failures:
            time.sleep(0.01)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    try:
        while len(acknowledged) < 8 and not failures:
            time.sleep(0.01)
        before = list(acknowledged)
        summary = write_backup(source, tmp_path / "backup", on_progress=wait_for_writers)
    finally:
        stop.set()
        for thread in threads:
            thread.join()

    assert failures == []
    restored = restore_backup(tmp_path / "backup", tmp_path / "target", target_url)
    with closing(open_registry(tmp_path / "target", target_url)) as opened:
        leaves, all_leaves = read_leaves(opened), read_leaves(source)
        with opened.read() as tx:
            digests = {row.digest for row in tx.all(select(schema.versions.c.digest))}
        again = check_registry(opened, deep=True)

    assert leaves == all_leaves[: summary.about.log_size]
    assert [index for index, _ in before if index >= len(leaves)] == []
    assert [digest for _, digest in before if digest not in digests] == []
    assert len(all_leaves) >= len(leaves) + 4  # they did write meanwhile
    assert restored.report.findings == again.findings == []


def test_a_backup_of_either_database_restores_into_either(
    source: Registry, target_url: str | None, tmp_path: Path
) -> None:
    seed(source)
    write_backup(source, tmp_path / "backup.tar")

    restored = restore_backup(tmp_path / "backup.tar", tmp_path / "target", target_url)

    assert restored.report.findings == []
    with closing(open_registry(tmp_path / "target", target_url)) as opened:
        assert_same(opened, source)
        # life goes on: ids and numbers continue, names that were taken stay taken
        experiment = experiments.create_experiment(opened, ADA, "after")
        assert experiment.experiment_id == max(row[0] for row in read_rows(source)["experiments"]) + 1
        made = registration.register_version(opened, ADA, "attrition", "models:/attrition/1")
        assert made.version == 4
        assert (
            registration.register_version(
                opened, ADA, "churn", log_model(opened, "x", None, {"f": b"x"}), key=IdempotencyKey("k-1", "h")
            ).version
            == 1
        )
        assert check_registry(opened, deep=True).findings == []


@pytest.mark.postgres
def test_a_database_of_its_own_is_replaced_by_force_alone(
    registry: Registry, tmp_path: Path, postgres_url: str
) -> None:
    write_backup(registry, tmp_path / "backup")
    restore_backup(tmp_path / "backup", tmp_path / "other", postgres_url)
    with closing(open_registry(tmp_path / "other", postgres_url)) as opened:
        models.create_model(opened, ADA, "since-then")

    with pytest.raises(ConflictError, match="force"):
        restore_backup(tmp_path / "backup", tmp_path / "other", postgres_url)
    restore_backup(tmp_path / "backup", tmp_path / "other", postgres_url, force=True)

    with closing(open_registry(tmp_path / "other", postgres_url)) as opened:
        assert_same(opened, registry)


@pytest.mark.postgres
def test_a_damaged_backup_leaves_a_database_of_its_own_empty(
    registry: Registry, tmp_path: Path, postgres_url: str
) -> None:
    write_backup(registry, tmp_path / "backup")
    spoil(blob_in(tmp_path / "backup", WEIGHTS), at=1000)

    with pytest.raises(CorruptError):
        restore_backup(tmp_path / "backup", tmp_path / "other", postgres_url)

    with closing(Database(postgres_url)) as database, database.read(0) as tx:
        assert not tx.engine.dialect.has_table(tx.connection, "events")
    assert not (tmp_path / "other").exists()


# ── what a backup is ──


def blob_in(folder: Path, content: bytes) -> Path:
    return folder / layout.blob_key(digest_of(content))


def test_a_second_backup_copies_only_what_is_missing(registry: Registry, tmp_path: Path) -> None:
    first = write_backup(registry, tmp_path / "backup")
    registration.register_version(registry, ADA, "later", log_model(registry, "later", None, {"f": b"later"}))
    kept = blob_in(tmp_path / "backup", WEIGHTS).stat()

    second = write_backup(registry, tmp_path / "backup")

    assert (second.copied_blobs, second.copied_bytes) == (1, 5)
    assert second.about.blob_count == first.about.blob_count + 1
    assert blob_in(tmp_path / "backup", WEIGHTS).stat() == kept
    restore_backup(tmp_path / "backup", tmp_path / "elsewhere")
    with closing(open_registry(tmp_path / "elsewhere")) as opened:
        assert_same(opened, registry)


def test_a_backup_shares_no_inode_and_is_private(registry: Registry, tmp_path: Path) -> None:
    write_backup(registry, tmp_path / "backup")
    write_backup(registry, tmp_path / "backup.tar")

    copies = [path for path in (tmp_path / "backup").rglob("*") if path.is_file()]
    originals = {path.stat().st_ino for path in (tmp_path / "home").rglob("*")}
    assert [path for path in copies if path.stat().st_nlink != 1 or path.stat().st_ino in originals] == []
    assert [path for path in [*copies, tmp_path / "backup.tar"] if path.stat().st_mode & 0o077] == []
    names = {path.relative_to(tmp_path / "backup").parts[0] for path in copies}
    assert names == {"registry.db", "backup.json", "blobs", "lock"}


def test_an_archive_is_one_that_any_tar_reads(registry: Registry, tmp_path: Path) -> None:
    write_backup(registry, tmp_path / "backup.tar")

    with tarfile.open(tmp_path / "backup.tar") as archive:
        names = archive.getnames()
        archive.extractall(tmp_path / "unpacked", filter="data")

    assert (names[0], names[-1]) == ("registry.db", "backup.json")
    assert restore_backup(tmp_path / "unpacked", tmp_path / "elsewhere").report.findings == []


def test_a_blob_damaged_at_the_source_fails_the_backup_and_keeps_the_one_before(
    registry: Registry, tmp_path: Path
) -> None:
    write_backup(registry, tmp_path / "backup")
    source = log_model(registry, "later", None, {"f": b"later"})
    registration.register_version(registry, ADA, "later", source)
    spoil(blob_path(tmp_path / "home", digest_of(b"later")), at=2)

    for target in ("backup", "backup.tar"):
        with pytest.raises(CorruptError):
            write_backup(registry, tmp_path / target)

    assert not (tmp_path / "backup.tar").exists()
    assert names_in(tmp_path) == ["backup", "home"]
    restore_backup(tmp_path / "backup", tmp_path / "elsewhere")
    with closing(open_registry(tmp_path / "elsewhere")) as opened:
        assert read_leaves(opened) == read_leaves(registry)[:-1]


def test_a_backup_cut_off_between_its_two_renames_is_whole(registry: Registry, tmp_path: Path) -> None:
    write_backup(registry, tmp_path / "old")
    models.create_model(registry, ADA, "later")
    write_backup(registry, tmp_path / "new")
    (tmp_path / "new" / "registry.db").rename(tmp_path / "new" / "registry.db.new")
    shutil.copy(tmp_path / "old" / "registry.db", tmp_path / "new" / "registry.db")

    restore_backup(tmp_path / "new", tmp_path / "elsewhere")

    with closing(open_registry(tmp_path / "elsewhere")) as opened:
        assert_same(opened, registry)


@pytest.mark.parametrize("name", ["home", "home/backup", "backup.tar.gz", "backup.zip"])
def test_a_target_that_makes_no_sense_is_refused(registry: Registry, tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidFieldError):
        write_backup(registry, tmp_path / name)


def test_a_folder_that_holds_something_else_is_left_alone(registry: Registry, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.png").write_bytes(b"meow")
    (tmp_path / "taken.tar").write_bytes(b"")
    with closing(open_registry(tmp_path / "another")) as another:
        write_backup(another, tmp_path / "of-another")

    for name in ("photos", "taken.tar", "photos/cat.png", "of-another", "another"):
        with pytest.raises(ConflictError):
            write_backup(registry, tmp_path / name)

    assert names_in(tmp_path / "photos") == ["cat.png"]
    restore_backup(tmp_path / "of-another", tmp_path / "another-again")


# ── damaged backups ──


def spoil(path: Path, *, at: int) -> None:
    """Flip one bit of a file."""
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1]))


def change_about(backup: Path, **changes: Any) -> None:
    document = json.loads((backup / "backup.json").read_text())
    (backup / "backup.json").write_text(json.dumps(document | changes))


DAMAGES: dict[str, tuple[Callable[[Path], object], type[Exception]]] = {
    "backup.json is missing": (lambda b: (b / "backup.json").unlink(), CorruptError),
    "backup.json is cut short": (lambda b: os.truncate(b / "backup.json", 100), CorruptError),
    "backup.json names another root": (lambda b: change_about(b, log_root="00" * 32), CorruptError),
    "backup.json names another size": (lambda b: change_about(b, log_size=3), CorruptError),
    "backup.json names another registry": (lambda b: change_about(b, registry_id="x"), CorruptError),
    "backup.json has a text for a number": (lambda b: change_about(b, log_size="3"), CorruptError),
    "backup.json has a field too many": (lambda b: change_about(b, more=1), CorruptError),
    "a newer format": (lambda b: change_about(b, format=2), UnsupportedError),
    "a newer schema": (lambda b: change_about(b, schema_revision="9999"), SchemaTooNewError),
    "registry.db is missing": (lambda b: (b / "registry.db").unlink(), CorruptError),
    "a bit of registry.db": (lambda b: spoil(b / "registry.db", at=9000), CorruptError),
    "registry.db is cut short": (lambda b: os.truncate(b / "registry.db", 8192), CorruptError),
    "a bit of a blob": (lambda b: spoil(blob_in(b, WEIGHTS), at=5000), CorruptError),
    "a blob is cut short": (lambda b: os.truncate(blob_in(b, WEIGHTS), 5000), CorruptError),
    "a blob is missing": (lambda b: blob_in(b, WEIGHTS).unlink(), CorruptError),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_backup_restores_nothing(registry: Registry, tmp_path: Path, damage: str) -> None:
    write_backup(registry, tmp_path / "backup")
    spoiling, error = DAMAGES[damage]
    spoiling(tmp_path / "backup")

    with pytest.raises(error) as raised:
        restore_backup(tmp_path / "backup", tmp_path / "elsewhere")

    assert "backup" in str(raised.value).lower() or error is SchemaTooNewError
    assert names_in(tmp_path) == ["backup", "home"]


def test_a_digest_in_a_backup_that_would_be_a_path_is_never_opened(registry: Registry, tmp_path: Path) -> None:
    write_backup(registry, tmp_path / "backup")
    (tmp_path / "secret").write_bytes(WEIGHTS)
    changed = "sha256:../../../secret"
    execute(tmp_path / "backup", f"UPDATE blobs SET digest = '{changed}' WHERE digest = '{digest_of(WEIGHTS)}'")
    database_sha256, database_bytes = hash_file(tmp_path / "backup" / "registry.db")
    change_about(tmp_path / "backup", database_sha256=database_sha256, database_bytes=database_bytes)

    with pytest.raises(CorruptError, match=r"'sha256:\.\./\.\./\.\./secret', which is none"):
        restore_backup(tmp_path / "backup", tmp_path / "elsewhere")

    assert names_in(tmp_path) == ["backup", "home", "secret"]


def test_a_cut_off_archive_restores_nothing(registry: Registry, tmp_path: Path) -> None:
    write_backup(registry, tmp_path / "backup.tar")
    size = (tmp_path / "backup.tar").stat().st_size

    for left in (0, 100, 512, size // 3, size // 2, size - 2048, size - 1025):
        shutil.copy(tmp_path / "backup.tar", tmp_path / "cut.tar")
        os.truncate(tmp_path / "cut.tar", left)
        with pytest.raises(CorruptError):
            restore_backup(tmp_path / "cut.tar", tmp_path / "elsewhere")

    assert names_in(tmp_path) == ["backup.tar", "cut.tar", "home"]


def test_any_flipped_bit_of_an_archive_restores_nothing_or_the_same(registry: Registry, tmp_path: Path) -> None:
    """Some bits carry nothing (the padding after an entry, its time): then what is restored must be right."""
    write_backup(registry, tmp_path / "backup.tar")
    size = (tmp_path / "backup.tar").stat().st_size

    refused = 0
    for at in range(0, size, size // 40):
        shutil.copy(tmp_path / "backup.tar", tmp_path / "flipped.tar")
        spoil(tmp_path / "flipped.tar", at=at)
        try:
            restore_backup(tmp_path / "flipped.tar", tmp_path / "elsewhere")
        except CorruptError:
            refused += 1
            assert not (tmp_path / "elsewhere").exists()
        else:
            with closing(open_registry(tmp_path / "elsewhere")) as opened:
                assert_same(opened, registry)
            shutil.rmtree(tmp_path / "elsewhere")

    assert refused > 30


def test_damage_that_was_there_when_the_backup_was_taken_is_restored_and_said(
    registry: Registry, tmp_path: Path
) -> None:
    execute(tmp_path / "home", "UPDATE models SET owner = 'Eve' WHERE name = 'attrition'")
    write_backup(registry, tmp_path / "backup")

    restored = restore_backup(tmp_path / "backup", tmp_path / "elsewhere")

    assert restored.report.exit_code == 5
    assert [finding.subject.rpartition(".")[2] for finding in restored.report.findings] == ["owner"]


# ── where to ──


def test_a_home_is_replaced_by_force_alone_and_kept(registry: Registry, tmp_path: Path) -> None:
    home = tmp_path / "home"
    write_backup(registry, tmp_path / "backup")
    models.create_model(registry, ADA, "since-then")
    since = read_rows(registry)

    with pytest.raises(ConflictError, match="force"):
        restore_backup(tmp_path / "backup", home)
    with pytest.raises(HomeBusyError):  # it is open here
        restore_backup(tmp_path / "backup", home, force=True)
    assert read_rows(registry) == since
    registry.close()
    summary = restore_backup(tmp_path / "backup", home, force=True)

    assert query(home, "SELECT count(*) FROM models WHERE name = 'since-then'") == [(0,)]
    assert summary.moved_away is not None
    with closing(open_registry(summary.moved_away)) as kept:
        assert read_rows(kept) == since


def test_an_empty_folder_becomes_the_home(registry: Registry, tmp_path: Path) -> None:
    write_backup(registry, tmp_path / "backup")
    (tmp_path / "empty").mkdir()

    restore_backup(tmp_path / "backup", tmp_path / "empty")

    with closing(open_registry(tmp_path / "empty")) as opened:
        assert_same(opened, registry)


def test_a_place_that_is_taken_is_refused_even_by_force(registry: Registry, tmp_path: Path) -> None:
    write_backup(registry, tmp_path / "backup")
    open_registry(tmp_path / "another").close()
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "registry.db").write_bytes(b"no database")
    (tmp_path / "file").write_bytes(b"")
    before = names_in(tmp_path)

    for name in ("another", "photos", "file"):
        with pytest.raises(ConflictError):
            restore_backup(tmp_path / "backup", tmp_path / name, force=True)

    assert names_in(tmp_path) == before


def test_bytes_can_be_restored_into_a_bucket(registry: Registry, tmp_path: Path) -> None:
    write_backup(registry, tmp_path / "backup")
    bucket = BucketBlobStore(MemoryStore())

    restored = restore_backup(tmp_path / "backup", tmp_path / "elsewhere", blobs=bucket)

    assert restored.report.findings == []
    with closing(open_registry(tmp_path / "elsewhere", blobs=bucket)) as opened:
        assert_same(opened, registry)


def test_a_backup_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(InvalidFieldError, match="no backup at"):
        restore_backup(tmp_path / "nowhere", tmp_path / "elsewhere")

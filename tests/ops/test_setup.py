"""Where a registry may be opened."""

from __future__ import annotations

import socket
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from touchmark.artifacts.local import LocalBlobStore
from touchmark.domain.errors import BusyError, UnsupportedHomeError
from touchmark.ops import setup
from touchmark.ops.backup import write_backup
from touchmark.ops.fsck import open_for_check
from touchmark.ops.restore import restore_backup


def test_no_database_is_made_where_its_locks_would_not_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test may mount a network's file system, so the kind that lies below this folder counts as one."""
    mounts = Path("/proc/self/mounts")
    if not mounts.exists():
        pytest.skip("the kind of a file system is read from /proc")
    kinds = {line.split(" ")[2] for line in mounts.read_text(encoding="utf-8", errors="replace").splitlines()}
    monkeypatch.setattr(setup, "_NETWORK", frozenset(kinds))

    for url in (None, f"sqlite:///{tmp_path}/elsewhere.db"):
        with pytest.raises(UnsupportedHomeError, match="network file system"):
            setup.open_registry(tmp_path / "home", url)

    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("prefix", ["staging", "team/staging", "staging/team", "models/blobs"])
def test_no_registry_is_begun_among_the_objects_of_another(prefix: str, tmp_path: Path) -> None:
    """A registry at `models` sweeps what is old below `models/staging`, whoever put it there."""
    with pytest.raises(UnsupportedHomeError, match="name it otherwise"):
        setup.open_registry(tmp_path / "home", artifacts=f"s3://bucket/{prefix}")

    assert not (tmp_path / "home" / "artifacts").exists()


def test_homes_on_one_database_name_one_place_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_REGION": "c"}.items():
        monkeypatch.setenv(key, value)
    database = f"sqlite:///{tmp_path / 'registry.db'}"
    setup.open_registry(tmp_path / "one", database, artifacts="s3://models/one").close()

    for artifacts in ("s3://models/two", None):
        with pytest.raises(UnsupportedHomeError, match=r"files are in s3://models/one: start it with --artifacts"):
            setup.open_registry(tmp_path / "two", database, artifacts=artifacts)
    setup.open_registry(
        tmp_path / "two", database, artifacts="s3://models/one"
    ).close()  # nothing of the refusals stayed
    setup.open_registry(tmp_path / "two", database).close()

    assert (tmp_path / "two" / "artifacts").read_text() == "s3://models/one\n"
    assert not (tmp_path / "two" / "blobs").exists()


def test_a_database_of_files_in_a_folder_is_not_opened_with_a_bucket(tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path / 'registry.db'}"
    setup.open_registry(tmp_path / "one", database).close()

    with pytest.raises(UnsupportedHomeError, match="files are in the folder of a home"):
        setup.open_registry(tmp_path / "two", database, artifacts="s3://models/two")

    assert not (tmp_path / "two" / "artifacts").exists()
    setup.open_registry(tmp_path / "one", database).close()


def test_the_first_start_of_a_registry_from_before_says_where_its_files_are(tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path / 'registry.db'}"
    setup.open_registry(tmp_path / "one", database).close()
    with closing(sqlite3.connect(tmp_path / "registry.db")) as before, before:
        before.execute("UPDATE log_head SET place = NULL")

    setup.open_registry(tmp_path / "one", database).close()

    with closing(sqlite3.connect(tmp_path / "registry.db")) as after:
        assert after.execute("SELECT place FROM log_head").fetchall() == [("folder",)]


def test_a_registry_restored_from_a_bucket_has_its_files_in_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key, value in {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_REGION": "c"}.items():
        monkeypatch.setenv(key, value)
    with closing(setup.open_registry(tmp_path / "one", artifacts="s3://models/one")) as registry:
        write_backup(registry, tmp_path / "backup")  # nothing is registered: no blob has to be fetched

    restore_backup(tmp_path / "backup", tmp_path / "two")

    with closing(setup.open_registry(tmp_path / "two")) as restored:
        assert isinstance(restored.blobs, LocalBlobStore)


def test_a_database_that_lets_nobody_in_is_told_in_its_drivers_words(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

    for opens in (setup.open_registry, open_for_check):
        with pytest.raises(BusyError, match=rf"cannot be reached.*{port} .*refused") as caught:
            opens(tmp_path, f"postgresql://ada:s3cret@127.0.0.1:{port}/registry")

        assert "s3cret" not in caught.value.message

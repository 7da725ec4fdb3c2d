"""One registry a test, on SQLite with local files and on a real PostgreSQL with a bucket in memory."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from obstore.store import MemoryStore
from sqlalchemy import event
from sqlalchemy.engine import make_url

from tests.postgres import PostgresServer
from touchmark.artifacts.blobs import BlobStore
from touchmark.artifacts.bucket import BucketBlobStore
from touchmark.artifacts.local import LocalBlobStore
from touchmark.domain.access import Principal, PrincipalKind
from touchmark.registry import Registry
from touchmark.storage import experiments, ledger, schema
from touchmark.storage.engine import Database


class Clock:
    """A clock that moves on by a millisecond each time it is read; microseconds UTC."""

    def __init__(self) -> None:
        self.now = 1_700_000_000_000_000

    def __call__(self) -> int:
        self.now += 1_000
        return self.now


def prepare(url: str) -> None:
    """Set an empty database up as a registry's."""
    database = Database(url)
    # In one transaction: SQLite would wait for the disk after each of a hundred statements.
    with database.write(1_600_000_000_000_000) as tx:
        schema.metadata.create_all(tx.connection, checkfirst=False)
        ledger.create_head(tx, "00000000-0000-4000-8000-000000000000")
        experiments.create_default(tx)
    database.close()


def open_registry(url: str, blobs: BlobStore) -> Registry:
    """Open a registry on a database that was prepared."""
    return Registry(Database(url), blobs, clock=Clock())


@pytest.fixture(scope="session")
def prepared_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a SQLite file of an empty registry, to be copied: making one takes a test's time several times over."""
    file = tmp_path_factory.mktemp("prepared") / "registry.db"
    prepare(f"sqlite:///{file}")
    return file


@pytest.fixture(scope="session")
def prepared_database(postgres_server: PostgresServer) -> Iterator[str]:
    """Give the name of a PostgreSQL database of an empty registry, to be copied."""
    with postgres_server.open_database() as url:
        prepare(url)
        yield str(make_url(url).database)


@pytest.fixture
def sqlite_url(prepared_file: Path, tmp_path: Path) -> str:
    """Give the URL of an empty registry's database in a file of its own."""
    shutil.copyfile(prepared_file, tmp_path / "registry.db")
    return f"sqlite:///{tmp_path / 'registry.db'}"


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def registry(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Registry]:
    """Give an empty registry, once on each database."""
    if request.param == "sqlite":
        opened = open_registry(request.getfixturevalue("sqlite_url"), LocalBlobStore(tmp_path / "blobs"))
        yield opened
        opened.close()
        return
    server, template = request.getfixturevalue("postgres_server"), request.getfixturevalue("prepared_database")
    with server.open_database(template) as url:
        opened = open_registry(url, BucketBlobStore(MemoryStore()))
        yield opened
        opened.close()


@pytest.fixture
def who() -> Principal:
    """Give somebody who asks."""
    return Principal(PrincipalKind.USER, "user-ada", verified=True)


@pytest.fixture
def statements(registry: Registry) -> Callable[[], AbstractContextManager[list[str]]]:
    """Give a context in which the SQL statements sent to the database are collected."""

    @contextmanager
    def watch() -> Iterator[list[str]]:
        sent: list[str] = []

        def note(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
            sent.append(statement)

        event.listen(registry.database.engine, "before_cursor_execute", note)
        try:
            yield sent
        finally:
            event.remove(registry.database.engine, "before_cursor_execute", note)

    return watch

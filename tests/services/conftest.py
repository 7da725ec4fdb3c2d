"""One registry a test, on SQLite with local files and on a real PostgreSQL with a bucket in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from obstore.store import MemoryStore
from sqlalchemy import event

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


def open_registry(url: str, blobs: BlobStore) -> Registry:
    """Open a registry on an empty database and set it up."""
    registry = Registry(Database(url), blobs, clock=Clock())
    with (
        registry.track() as tx
    ):  # in one transaction: SQLite would wait for the disk after each of a hundred statements
        schema.metadata.create_all(tx.connection, checkfirst=False)
        ledger.create_head(tx, "00000000-0000-4000-8000-000000000000")
        experiments.create_default(tx)
    return registry


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def registry(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Registry]:
    """Give an empty registry, once on each database."""
    if request.param == "sqlite":
        opened = open_registry(f"sqlite:///{tmp_path / 'registry.db'}", LocalBlobStore(tmp_path / "blobs"))
    else:
        opened = open_registry(request.getfixturevalue("postgres_url"), BucketBlobStore(MemoryStore()))
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

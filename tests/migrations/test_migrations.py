"""The steps make the schema that schema.py describes, on both databases, once, and only by one process at a time."""

from __future__ import annotations

import re
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import inspect, text

from tests.postgres import PostgresServer
from touchmark.domain.errors import SchemaTooNewError
from touchmark.storage import migrations
from touchmark.storage.engine import Database
from touchmark.storage.schema import metadata


def describe_tables(database: Database) -> dict[str, object]:
    inspector = inspect(database.engine)
    return {
        table: {
            "columns": sorted((c["name"], str(c["type"]), c["nullable"]) for c in inspector.get_columns(table)),
            "key": inspector.get_pk_constraint(table)["constrained_columns"],
            "foreign": sorted(
                (k["constrained_columns"], k["referred_table"], k["referred_columns"])
                for k in inspector.get_foreign_keys(table)
            ),
        }
        for table in inspector.get_table_names()
        if table != "alembic_version"
    }


def describe_indexes(database: Database) -> set[str]:
    with database.engine.connect() as connection:
        if connection.dialect.name == "sqlite":
            rows = connection.execute(text("SELECT sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"))
        else:
            rows = connection.execute(text("SELECT indexdef FROM pg_indexes WHERE schemaname = 'public'"))
        found = {re.sub(r'["\s]+', " ", row[0]).replace("alembic_version_pkc", "") for row in rows}
    return {index for index in found if "alembic_version" not in index}


def compare(migrated: Database, described: Database) -> None:
    migrations.migrate(migrated)
    metadata.create_all(described.engine)
    try:
        assert describe_tables(migrated) == describe_tables(described)
        assert describe_indexes(migrated) == describe_indexes(described)
    finally:
        migrated.close()
        described.close()


def test_the_steps_make_the_described_schema_on_sqlite(tmp_path: Path) -> None:
    compare(Database(f"sqlite:///{tmp_path}/a.db"), Database(f"sqlite:///{tmp_path}/b.db"))


@pytest.mark.postgres
def test_the_steps_make_the_described_schema_on_postgresql(postgres_server: PostgresServer) -> None:
    with postgres_server.open_database() as one, postgres_server.open_database() as two:
        compare(Database(one), Database(two))


def test_migrating_again_changes_nothing(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/a.db")
    migrations.migrate(database)
    with sqlite3.connect(tmp_path / "a.db") as connection:
        before = connection.execute("PRAGMA schema_version").fetchone()
    migrations.migrate(database)

    with sqlite3.connect(tmp_path / "a.db") as connection:
        assert connection.execute("PRAGMA schema_version").fetchone() == before
    assert migrations.find_revision(database) == migrations.HEAD
    database.close()


def test_several_processes_may_open_an_empty_database_at_once(tmp_path: Path) -> None:
    databases = [Database(f"sqlite:///{tmp_path}/a.db") for _ in range(6)]
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(migrations.migrate, databases))

    assert {migrations.find_revision(database) for database in databases} == {migrations.HEAD}
    for database in databases:
        database.close()


def test_a_schema_from_the_future_is_refused_and_left_alone(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/a.db")
    migrations.migrate(database)
    with database.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(SchemaTooNewError) as caught:
        migrations.migrate(database)

    assert caught.value.fields == {"found": "9999", "known": migrations.HEAD}
    database.close()

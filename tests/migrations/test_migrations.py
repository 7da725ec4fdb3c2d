"""An empty database gets the schema the steps make, on both databases, once, and only by one process at a time."""

from __future__ import annotations

import re
import sqlite3
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import inspect, text

from tests.postgres import PostgresServer
from touchmark.domain.errors import SchemaTooNewError
from touchmark.storage import migrations
from touchmark.storage.dialect import hold_migration_lock
from touchmark.storage.engine import Database


def describe_tables(database: Database) -> dict[str, object]:
    inspector = inspect(database.engine)
    with warnings.catch_warnings():  # indexes of expressions are compared below, by their text
        warnings.filterwarnings("ignore", "Skipped unsupported reflection")
        unique = {table: inspector.get_unique_constraints(table) for table in inspector.get_table_names()}
    return {
        table: {
            "columns": [
                (c["name"], str(c["type"]), getattr(c["type"], "collation", None), c["nullable"], c["default"])
                for c in inspector.get_columns(table)
            ],
            "key": inspector.get_pk_constraint(table),
            "unique": sorted((k["name"], k["column_names"]) for k in unique[table]),
            "foreign": sorted(
                (k["name"], k["constrained_columns"], k["referred_table"], k["referred_columns"])
                for k in inspector.get_foreign_keys(table)
            ),
        }
        for table in unique
    }


def describe_indexes(database: Database) -> set[str]:
    with database.engine.connect() as connection:
        if connection.dialect.name == "sqlite":
            rows = connection.execute(text("SELECT sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"))
        else:
            rows = connection.execute(text("SELECT indexdef FROM pg_indexes WHERE schemaname = 'public'"))
        return {re.sub(r'["\s]+', " ", row[0]) for row in rows}


def compare(stepped: Database, made: Database) -> None:
    with stepped.engine.connect() as connection, connection.begin():
        hold_migration_lock(connection)
        migrations.run_steps(connection, "0001")
    migrations.migrate(stepped)
    migrations.migrate(made)
    try:
        assert len(describe_tables(made)) > 30
        assert describe_tables(stepped) == describe_tables(made)
        assert describe_indexes(stepped) == describe_indexes(made)
        assert migrations.find_revision(stepped) == migrations.find_revision(made) == migrations.HEAD
    finally:
        stepped.close()
        made.close()


def test_the_steps_and_an_empty_database_come_to_the_same_schema_on_sqlite(tmp_path: Path) -> None:
    compare(Database(f"sqlite:///{tmp_path}/a.db"), Database(f"sqlite:///{tmp_path}/b.db"))


@pytest.mark.postgres
def test_the_steps_and_an_empty_database_come_to_the_same_schema_on_postgresql(postgres_server: PostgresServer) -> None:
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


def test_a_new_database_is_made_without_alembic(tmp_path: Path) -> None:
    code = (
        "import sys; from touchmark.storage import engine, migrations;"
        f"migrations.migrate(engine.Database('sqlite:///{tmp_path}/a.db')); assert 'alembic' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

    database = Database(f"sqlite:///{tmp_path}/a.db")
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

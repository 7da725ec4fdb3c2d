"""Schema changes, one file each in `versions/`, run by Alembic under an exclusive lock when a registry is opened.

To add one: change schema.py, write the step in `versions/NNNN_what.py` with both directions spelled out, set HEAD. An empty
database is made from schema.py at once; a test compares that with what the steps make, on both databases.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy import Column, MetaData, PrimaryKeyConstraint, String, Table, inspect, select
from sqlalchemy.exc import DBAPIError

from touchmark.domain.errors import SchemaTooNewError
from touchmark.storage.dialect import hold_migration_lock, translate_error
from touchmark.storage.engine import Database
from touchmark.storage.schema import metadata

HEAD = "0005"
"""The newest step this Touchmark knows."""

# Alembic's own table, as Alembic makes it.
_version = Table(
    "alembic_version",
    MetaData(),
    Column("version_num", String(32), nullable=False),
    PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
)


def find_revision(database: Database) -> str | None:
    """Return the step the database stands at, or None if it is empty."""
    with database.engine.connect() as connection:
        return _read_revision(connection)


def _read_revision(connection: Any) -> str | None:
    if not inspect(connection).has_table(_version.name):
        return None
    revision: str | None = connection.execute(select(_version.c.version_num)).scalar()
    return revision


def migrate(database: Database) -> None:
    """Bring the database to HEAD: made or changed in one transaction, one process at a time; nothing if it is there.

    Raises SchemaTooNewError if a newer Touchmark wrote it, BusyError, StorageFullError.
    """
    try:
        found = find_revision(database)
        if found == HEAD:
            return
        _check_known(found)
        with database.engine.connect() as connection, connection.begin():
            hold_migration_lock(connection)
            found = _read_revision(connection)
            _check_known(found)
            if found is None:
                create_schema(connection)
            elif found != HEAD:
                run_steps(connection, HEAD)
    except DBAPIError as error:
        known = translate_error(error)
        if known is None:
            raise
        raise known from error


def create_schema(connection: Any) -> None:
    """Make the schema of HEAD in an empty database, inside the caller's transaction."""
    metadata.create_all(connection, checkfirst=False)
    _version.create(connection, checkfirst=True)  # Alembic leaves it behind, empty, when every step was taken back
    connection.execute(_version.insert().values(version_num=HEAD))


def run_steps(connection: Any, revision: str) -> None:
    """Run the steps up to a revision, inside the caller's transaction."""
    # Alembic is imported only here: a server whose schema is new or current starts without it (measured 0.2 to 0.3 s).
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


def _check_known(found: str | None) -> None:
    if found is not None and found > HEAD:
        raise SchemaTooNewError(found=found, known=HEAD)

"""Schema changes, one file each in `versions/`, run by Alembic under an exclusive lock when a registry is opened.

To add one: change schema.py, write the step in `versions/NNNN_what.py` with both directions spelled out, set HEAD. A test
compares what the steps make with schema.py on both databases.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy import inspect, text

from touchmark.domain.errors import SchemaTooNewError
from touchmark.storage.dialect import hold_migration_lock
from touchmark.storage.engine import Database

HEAD = "0002"
"""The newest step this Touchmark knows."""


def find_revision(database: Database) -> str | None:
    """Return the step the database stands at, or None if it is empty."""
    with database.engine.connect() as connection:
        return _read_revision(connection)


def _read_revision(connection: Any) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    revision: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return revision


def migrate(database: Database) -> None:
    """Bring the database to HEAD: every step in one transaction, one process at a time; nothing if it is there.

    Raises SchemaTooNewError if a newer Touchmark wrote it.
    """
    found = find_revision(database)
    if found == HEAD:
        return
    _check_known(found)
    # Alembic is imported only here: a server whose schema is current starts without it (measured 0.3 s).
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    with database.engine.connect() as connection, connection.begin():
        hold_migration_lock(connection)
        found = _read_revision(connection)
        _check_known(found)
        if found != HEAD:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")


def _check_known(found: str | None) -> None:
    if found is not None and found > HEAD:
        raise SchemaTooNewError(found=found, known=HEAD)

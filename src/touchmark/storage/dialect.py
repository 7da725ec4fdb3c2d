"""The only file that asks which database this is. Nothing else may branch on SQLite or PostgreSQL."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from string import ascii_lowercase, ascii_uppercase
from typing import Any

from sqlalchemy import (
    ARRAY,
    URL,
    BigInteger,
    Boolean,
    ColumnElement,
    Double,
    Engine,
    Integer,
    LargeBinary,
    Select,
    String,
    Text,
    any_,
    bindparam,
    cast,
    create_engine,
    event,
    func,
    make_url,
    select,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from touchmark.domain.errors import (
    BusyError,
    InvalidFieldError,
    MissingExtraError,
    OutcomeUnknownError,
    StorageFullError,
    TouchmarkError,
)

BUSY_TIMEOUT_SECONDS = 30
"""How long a SQLite writer waits for writers of other processes before it answers BusyError."""

LOCK_SECONDS = 60
"""How long a writer on PostgreSQL waits for the writers before it, of whatever process, before it answers BusyError."""
IDLE_WRITE_SECONDS = 60
"""How long PostgreSQL waits for a writer's next statement before it takes the locks from it: its machine may be gone."""
# Both sides of a connection whose other machine is gone notice within a minute, not after the two hours of the system's
# own setting: on this side the thread that waits, on PostgreSQL's the locks that are held.
_CONNECT = {
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}
_SERVER_KEEPALIVE = "SET tcp_keepalives_idle = 30; SET tcp_keepalives_interval = 10; SET tcp_keepalives_count = 3"


def open_engine(url: str) -> Engine:
    """Return an engine without a pool of its own: connections are kept a thread (engine.py).

    SQLite runs in WAL with synchronous=FULL: an acknowledged commit survives a power cut (sqlite.org/pragma.html).
    Raises InvalidFieldError for an unknown URL, MissingExtraError if the driver is not installed.
    """
    parsed = _parse_url(url, "database")
    if parsed.get_backend_name() == "postgresql":
        parsed = parsed.set(drivername="postgresql+psycopg")
        try:
            given = {key: value for key, value in _CONNECT.items() if key not in parsed.query}
            engine = create_engine(parsed, poolclass=NullPool, connect_args=given)
        except ModuleNotFoundError:
            raise MissingExtraError(what="PostgreSQL", install="pip install 'touchmark[postgres]'") from None

        @event.listens_for(engine, "connect")
        def _keep_alive(connection: Any, _record: Any) -> None:
            before, connection.autocommit = connection.autocommit, True
            connection.execute(_SERVER_KEEPALIVE, prepare=False)
            connection.autocommit = before

        return engine
    if not (folder := Path(str(parsed.database)).absolute().parent).is_dir():
        raise InvalidFieldError(field="database", reason=f"there is no folder {folder}")
    # 2,000 statements are few; the driver's own cache of prepared statements is what keeps point reads short.
    engine = create_engine(
        parsed, poolclass=NullPool, connect_args={"timeout": BUSY_TIMEOUT_SECONDS, "cached_statements": 500}
    )

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: Any) -> None:
        connection.isolation_level = None
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "case_sensitive_like=ON"):
            connection.execute(f"PRAGMA {pragma}")

    return engine


def open_foreign_engine(url: str) -> Engine:
    """Return an engine on a database that is not ours, to be read only: nothing in it is changed, no file is made.

    Raises InvalidFieldError for an unknown URL or a file that is not there, MissingExtraError if the driver is not
    installed.
    """
    parsed = _parse_url(url, "from")
    if parsed.get_backend_name() == "postgresql":
        return open_engine(url)
    file = Path(str(parsed.database)).absolute()
    if not file.is_file():
        raise InvalidFieldError(field="from", reason=f"there is no file {file}")
    address = f"{file.as_uri()}?mode=ro"
    return create_engine(
        "sqlite://",
        poolclass=NullPool,
        creator=lambda: sqlite3.connect(address, uri=True, timeout=BUSY_TIMEOUT_SECONDS, check_same_thread=False),
    )


def _parse_url(url: str, field: str) -> URL:
    """Return a database's address, PostgreSQL's or that of a SQLite file. Raises InvalidFieldError about `field`."""
    # Whatever the parser dislikes, the text is no URL. It may hold a password, so it is not shown.
    with suppress(Exception):
        parsed = make_url(url)
        kind = parsed.get_backend_name()
        if kind == "postgresql" or (kind == "sqlite" and parsed.database):
            return parsed
    raise InvalidFieldError(field=field, reason="write sqlite:///FILE or postgresql://HOST/NAME")


_IN_ERROR = 3  # PQTRANS_INERROR, libpq's state of a transaction after an error
_PLAIN = {BigInteger, Double, Integer, LargeBinary, String, Text}
"""Types whose values both drivers take and give as they are."""


def compile_text(
    engine: Engine, statement: Any, columns: Sequence[str] = ()
) -> tuple[str, dict[str, Any], Sequence[str]]:
    """Return a statement's text for the driver, the values that never change, and the columns of its rows.

    Parameters are named. An INSERT or UPDATE that names no values writes `columns`. Raises TypeError for what only
    SQLAlchemy's own execution can do: lists of values, and types that are converted (a Boolean that is read is one).
    """
    driver = engine.dialect if engine.dialect.name != "sqlite" else sqlite.dialect(paramstyle="named")
    compiled = statement.compile(dialect=driver, column_keys=columns or None)
    selected = [] if statement.is_dml else statement.selected_columns.items()
    given = [bind.type for bind in compiled.binds.values()]
    given = [
        kind for kind in given if not isinstance(kind, Boolean)
    ]  # both drivers take one; SQLite gives back a number
    for kind in (*given, *(column.type for _name, column in selected)):
        if type(kind) not in _PLAIN:
            raise TypeError(f"a value of type {kind!r} is converted on its way: send this statement unprepared")
    if any(bind.expanding for bind in compiled.binds.values()):
        raise TypeError("a list of values is written out each time: send this statement unprepared")
    constants = {name: bind.value for name, bind in compiled.binds.items() if not bind.required}
    return compiled.string, constants, [name for name, _column in selected]


def is_sqlite(engine: Engine) -> bool:
    """Answer whether writers of this process must queue, because the database takes one at a time."""
    return engine.dialect.name == "sqlite"


def begin_statement(engine: Engine, *, write: bool) -> str:
    """Return what begins a transaction: SQLite's writers take the lock at once, so that none fails half-way."""
    if engine.dialect.name == "sqlite":
        return "BEGIN IMMEDIATE" if write else "BEGIN DEFERRED"
    if not write:
        return "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
    limits = f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'; "
    return f"BEGIN; {limits}SET LOCAL idle_in_transaction_session_timeout = '{IDLE_WRITE_SECONDS}s'"


def begin(engine: Engine, driver: Any, statement: str) -> None:
    """Send what `begin_statement` returned. Raises what the driver raises."""
    if engine.dialect.name == "sqlite":
        driver.execute(statement)
    else:
        driver.execute(statement, prepare=False)  # three statements in one message: such a one cannot be prepared


def send_together(engine: Engine, driver: Any) -> AbstractContextManager[object] | None:
    """Return a context in which statements go to the database without waiting for the answers of those before them.

    PostgreSQL's pipeline mode, where its client library has it (14 and later). None without it, and for SQLite, which is
    no way away.
    """
    if engine.dialect.name == "sqlite" or not engine.dialect.loaded_dbapi.Pipeline.is_supported():
        return None
    pipeline: AbstractContextManager[object] = driver.pipeline()
    return pipeline


def roll_back(engine: Engine, driver: Any) -> None:
    """Roll back. Raises what the driver raises.

    psycopg counts a statement as prepared when it sends it together with others. If one of those failed before it, the
    server has never heard of it: after an error the driver's own roll-back forgets all of them, on both sides.
    """
    if engine.dialect.name != "sqlite" and driver.info.transaction_status == _IN_ERROR:
        driver.rollback()
    else:
        driver.execute("ROLLBACK")


def commit(engine: Engine, driver: Any) -> None:
    """Commit. Raises what the driver raises, BusyError if the database rolled back instead, as it does after an error."""
    done = driver.execute("COMMIT")
    if engine.dialect.name != "sqlite" and done.statusmessage != "COMMIT":
        raise BusyError("The database did not keep the change; nothing was changed.")


def is_lost(engine: Engine, driver: Any) -> bool:
    """Answer whether a connection is known to lead nowhere any more."""
    return engine.dialect.name != "sqlite" and bool(driver.closed)


def lock_rows(statement: Select[Any], engine: Engine) -> Select[Any]:
    """Return the statement with FOR UPDATE where rows are locked one by one; SQLite's writer holds the only lock."""
    return statement if engine.dialect.name == "sqlite" else statement.with_for_update()


def like(column: ColumnElement[str], pattern: str, engine_name: str, *, ignore_case: bool) -> ColumnElement[bool]:
    """Return a LIKE that means the same on both databases: backslash escapes; case counts unless told otherwise.

    Ignoring case is about A to Z only: SQLite's lower() knows no other letters, PostgreSQL's does so under collation C.
    """
    if ignore_case:
        folded = func.lower(column if engine_name == "sqlite" else column.collate("C"))
        return folded.like(pattern.translate(_ASCII_LOWER), escape="\\")
    # SQLite's LIKE minds case through a pragma (open_engine), PostgreSQL's does so by nature
    return column.like(pattern, escape="\\")


_ASCII_LOWER = str.maketrans(ascii_uppercase, ascii_lowercase)


def translate_error(error: DBAPIError, *, committing: bool = False) -> TouchmarkError | None:
    """Return what a driver's error means for the caller, or None if it is our own mistake.

    `committing` says that it came in answer to COMMIT, or instead of one: only then can a change have been made.
    """
    original = error.orig
    if isinstance(original, sqlite3.OperationalError):
        said = str(original)
        if "full" in said:
            return StorageFullError()
        if "locked" in said or "busy" in said:
            return BusyError()
        if "disk I/O" in said or "unable to open" in said:
            if committing:
                sentence = "The disk of the database failed; whether the change was made is not known. Check the disk."
                return OutcomeUnknownError(sentence)
            return BusyError("The disk of the database failed; nothing was changed. Check the disk.")
        return StorageFullError("The database cannot be written: " + said) if "readonly" in said else None
    if isinstance(original, sqlite3.Error):
        return None
    state = getattr(original, "sqlstate", None)
    if state in {"53100", "53200", "53400"}:
        return StorageFullError()
    # Without a state it is the driver that speaks, not the server: of the connection, or of a value it cannot send.
    is_lost = state is None and any(kind.__name__ == "OperationalError" for kind in type(original).__mro__)  # PEP 249
    if (
        error.connection_invalidated
        or is_lost
        or (state is not None and (state[:2] in {"08", "57"} or state == "25P03"))
    ):
        return (
            OutcomeUnknownError() if committing else BusyError("The database was lost; nothing was changed. Try again.")
        )
    if state is not None and (state[:2] == "53" or state in {"40001", "40P01", "55P03"}):
        return BusyError("Too much is going on in the database; nothing was changed. Try again.")
    return None


def driver_errors(engine: Engine) -> type[BaseException]:
    """Return the class of the driver's own errors, for statements sent past SQLAlchemy (BEGIN, COMMIT)."""
    error: type[BaseException] = engine.dialect.loaded_dbapi.Error
    return error


def is_one_of(engine: Engine, column: ColumnElement[str], name: str) -> ColumnElement[bool]:
    """Return that a text column is one of a list, handed over whole as the one parameter `name` (see `pack_texts`).

    An IN written out for a thousand values takes SQLAlchemy longer to write than the database to answer.
    """
    if engine.dialect.name == "sqlite":
        return column.in_(select(func.json_each(bindparam(name, type_=Text)).table_valued("value").c.value))
    return column == any_(cast(bindparam(name, type_=Text), ARRAY(Text)))


def pack_texts(engine: Engine, texts: Sequence[str]) -> Any:
    """Return a list of texts as the value of a parameter of `is_one_of`."""
    return json.dumps(list(texts)) if engine.dialect.name == "sqlite" else list(texts)


def upsert(engine: Engine, table: Any, key: list[str]) -> Any:
    """Return an INSERT that replaces the row with the same key (ON CONFLICT DO UPDATE on both databases)."""
    statement = _insert(engine, table)
    columns = {column.name: statement.excluded[column.name] for column in table.c if column.name not in key}
    return statement.on_conflict_do_update(index_elements=key, set_=columns)


def insert_if_absent(engine: Engine, table: Any) -> Any:
    """Return an INSERT that leaves an existing row alone; with RETURNING, no row means it was there."""
    return _insert(engine, table).on_conflict_do_nothing()


def _insert(engine: Engine, table: Any) -> Any:
    return sqlite.insert(table) if engine.dialect.name == "sqlite" else postgresql.insert(table)


def pass_over_ids(connection: Any, table: Any, column: str) -> None:
    """After ids were written by hand, let the database give out greater ones only. SQLite does so by itself."""
    if connection.engine.dialect.name == "sqlite":
        return
    greatest = select(func.max(table.c[column])).scalar_subquery()
    sequence = func.pg_get_serial_sequence(table.name, column)
    # GREATEST leaves NULL out; a sequence begins at 1.
    connection.execute(select(func.setval(sequence, func.greatest(greatest, func.nextval(sequence), 1))))


def hold_migration_lock(connection: Any) -> None:
    """Let one process migrate at a time, until its transaction ends. SQLite's steps run inside BEGIN EXCLUSIVE."""
    if connection.engine.dialect.name == "sqlite":
        connection.exec_driver_sql("BEGIN EXCLUSIVE")
    else:
        connection.exec_driver_sql("SELECT pg_advisory_xact_lock(7021946503)")

"""Connections and transactions: one connection kept a thread, one writer queue a process, statements sent.

`Database.read()` sees one snapshot and takes no lock. `Database.write()` writes; who writes the catalogue takes the log's
head row before anything else (`Registry.write`), so catalogue writes are serial on both databases.
"""

from __future__ import annotations

import threading
import weakref
from collections import deque, namedtuple
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from types import TracebackType
from typing import Any

from sqlalchemy import Connection, CursorResult, Engine, Executable
from sqlalchemy.exc import DBAPIError

from touchmark.domain.errors import BusyError
from touchmark.domain.ledger import TreeHead
from touchmark.storage import dialect

QUEUE_TIMEOUT_SECONDS = 60
"""How long a writer waits for the writers before it in this process."""


class Prepared:
    """A statement whose text is made once for each database and sent on the driver's own connection.

    For what users wait for: SQLAlchemy takes 45 µs to send a statement and wrap its rows, this 3 µs beside the database's
    own work. Rows are named tuples, with the columns as attributes; an INSERT writes the columns that are handed over.
    Only for values that travel as they are: a statement with a list (`expanding`) or a type that is converted (a Boolean read)
    raises TypeError when it is first sent.
    """

    __slots__ = ("_plans", "_statement")

    def __init__(self, statement: Executable | Callable[[Engine], Executable]) -> None:
        """Keep a statement, or what makes one where databases differ; its parameters are `bindparam`s."""
        self._statement = statement
        self._plans: dict[tuple[str, ...], tuple[str, Mapping[str, Any], Callable[[Any], Any]]] = {}

    def send(self, tx: Tx, values: dict[str, Any]) -> tuple[Any, Callable[[Any], Any]]:
        """Return the driver's cursor, and what makes a row of a tuple. Raises what the driver raises."""
        name = tx.engine.dialect.name
        sql, constants, make = self._plans.get((name,)) or self._plan(tx.engine, (name,))
        if constants:
            values = {**constants, **values}
        self._tell(tx, sql, values, many=False)
        return tx.driver.execute(sql, values), make

    def change(self, tx: Tx, rows: Sequence[dict[str, Any]]) -> int:
        """Send a change once for each row, all with the same keys, and return how many rows of the database it touched.

        Of one that is sent together with others nobody knows yet; the number means nothing then.
        """
        key = (tx.engine.dialect.name, *rows[0])
        sql, constants, _make = self._plans.get(key) or self._plan(tx.engine, key)
        if constants:
            rows = [{**constants, **row} for row in rows]
        self._tell(tx, sql, rows, many=len(rows) > 1)
        if len(rows) == 1:
            touched: int = tx.driver.execute(sql, rows[0]).rowcount
            return touched
        cursor = tx.driver.cursor()  # not closed: among statements sent together its answer, or error, is still to come
        cursor.executemany(sql, rows)
        return int(cursor.rowcount)

    def _tell(self, tx: Tx, sql: str, values: object, *, many: bool) -> None:
        for watch in tx.engine.dispatch.before_cursor_execute:  # whoever counts statements counts these too
            watch(tx.connection, None, sql, values, None, many)

    def _plan(self, engine: Engine, key: tuple[str, ...]) -> tuple[str, Mapping[str, Any], Callable[[Any], Any]]:
        statement = self._statement(engine) if callable(self._statement) else self._statement
        sql, constants, columns = dialect.compile_text(engine, statement, key[1:])
        row: Any = namedtuple("Row", columns, rename=True)  # type: ignore[misc]  # noqa: PYI024 - known at run time
        plan = self._plans[key] = sql, constants, row._make
        return plan


class Asked:
    """A prepared read that was sent. Among statements sent together, looking at its answer is what waits for it."""

    __slots__ = ("_cursor", "_make", "_rows")

    def __init__(self, cursor: Any, make: Callable[[Any], Any], *, later: bool) -> None:
        """Take what `Prepared.send` returns; without `later` the answer is fetched now."""
        self._cursor, self._make = cursor, make
        self._rows: list[Any] | None = None if later else cursor.fetchall()

    def all(self) -> list[Any]:
        """Return every row."""
        if self._rows is None:
            self._rows = self._cursor.fetchall()
        return [self._make(row) for row in self._rows]

    def first(self) -> Any:
        """Return the first row or None."""
        rows = self.all()
        return rows[0] if rows else None

    def scalar(self) -> Any:
        """Return the first column of the first row, or None."""
        row = self.first()
        return None if row is None else row[0]


class Tx:
    """An open transaction. Services pass it on; only storage sends statements through it.

    `now` is microseconds UTC. In a catalogue write `now` is also the `at` of the event and `index` its place in the log.
    """

    __slots__ = (
        "_together",
        "connection",
        "driver",
        "engine",
        "entry",
        "head",
        "index",
        "now",
        "recorded",
        "registry_id",
    )

    def __init__(self, connection: Connection, engine: Engine, now: int, driver: Any = None) -> None:
        """Wrap a connection on which a transaction has begun; `driver` is the driver's own, if it is at hand."""
        self.connection = connection
        self.driver: Any = connection.connection.dbapi_connection if driver is None else driver
        self.engine = engine
        self.now = now
        self.head: TreeHead | None = None
        self.entry: tuple[int, bytes] | None = None  # index and hash of the entry this transaction wrote into the log
        self.index = -1
        self.registry_id = ""
        self.recorded = False
        self._together: ExitStack | None = None

    @contextmanager
    def send_together(self) -> Iterator[None]:
        """Send the statements of this block without waiting for each one's answer, where that is a way over a network.

        An error of any of them is raised by a later one, by a read or at the end of the block. Only for prepared changes and
        reads: the first statement that SQLAlchemy sends waits for those before it and ends the sending together, because
        SQLAlchemy asks a cursor at once what came. How many rows a change touched is not known in here. A block within
        such a block is a part of it, or begins anew where the sending together was ended.
        """
        way = None if self._together is not None else dialect.send_together(self.engine, self.driver)
        if way is None:
            yield
            return
        with ExitStack() as together:
            together.enter_context(way)
            self._together = together
            try:
                yield
            finally:
                if self._together is together:
                    self._together = None

    def _execute(self, statement: Executable, values: Any = None) -> CursorResult[Any]:
        if self._together is not None:
            together, self._together = self._together, None
            together.close()
        return self.connection.execute(statement, values)

    def ask(self, statement: Prepared, **values: Any) -> Asked:
        """Send a read whose answer is looked at later: among statements sent together nobody waits for it until then."""
        return Asked(*statement.send(self, values), later=self._together is not None)

    def all(self, statement: Executable | Prepared, **values: Any) -> Sequence[Any]:
        """Return every row."""
        if isinstance(statement, Prepared):
            cursor, make = statement.send(self, values)
            return [make(row) for row in cursor.fetchall()]
        return self._execute(statement, values).all()

    def first(self, statement: Executable | Prepared, **values: Any) -> Any:
        """Return the first row or None."""
        if isinstance(statement, Prepared):
            cursor, make = statement.send(self, values)
            row = cursor.fetchone()
            return None if row is None else make(row)
        return self._execute(statement, values).first()

    def scalar(self, statement: Executable | Prepared, **values: Any) -> Any:
        """Return the first column of the first row, or None."""
        if isinstance(statement, Prepared):
            row = statement.send(self, values)[0].fetchone()
            return None if row is None else row[0]
        return self._execute(statement, values).scalar()

    def run(
        self, statement: Executable | Prepared, rows: Sequence[dict[str, Any]] | dict[str, Any] | None = None
    ) -> int:
        """Execute a change, once or for many rows, and return how many rows it says it touched (no use in `send_together`)."""
        if isinstance(statement, Prepared):
            given = [rows] if isinstance(rows, dict) else rows
            return statement.change(self, given) if given else 0
        if rows is None:
            return self._execute(statement).rowcount
        if not rows:
            return 0
        return self._execute(statement, rows).rowcount


class FairLock:
    """A lock that is handed on in the order in which it was asked for, so that no writer starves."""

    def __init__(self) -> None:
        """Make an open lock."""
        self._guard = threading.Lock()
        self._held = False
        self._waiting: deque[threading.Event] = deque()

    def acquire(self, timeout_seconds: float) -> bool:
        """Wait for the turn; answer False if it did not come in time."""
        with self._guard:
            if not self._held:
                self._held = True
                return True
            turn = threading.Event()
            self._waiting.append(turn)
        if turn.wait(timeout_seconds):
            return True
        with self._guard:
            if turn.is_set():  # the turn came between the time-out and here: it is ours
                return True
            self._waiting.remove(turn)
            return False

    def release(self) -> None:
        """Hand the lock to the one who waited longest."""
        with self._guard:
            if self._waiting:
                self._waiting.popleft().set()
            else:
                self._held = False


class Database:
    """The engine, its connections, and the only three ways to open a transaction."""

    def __init__(self, url: str) -> None:
        """Open the engine; connects on first use."""
        self.engine = dialect.open_engine(url)
        self.begin_read = dialect.begin_statement(self.engine, write=False)
        self._begin_write = dialect.begin_statement(self.engine, write=True)
        self._local = threading.local()
        self._connections: weakref.WeakSet[Connection] = weakref.WeakSet()
        self._queue = FairLock() if dialect.is_sqlite(self.engine) else None

    @property
    def is_local(self) -> bool:
        """Whether a point read takes no network, and may run where it was asked for."""
        return self._queue is not None

    def read(self, now: int) -> AbstractContextManager[Tx]:
        """Open a snapshot. Raises BusyError if the database does not answer."""
        return _Transaction(self, now, self.begin_read)

    def read_once(self, now: int) -> AbstractContextManager[Tx]:
        """Open what exactly one statement may be sent through: it is its own snapshot, and saves BEGIN and COMMIT.

        With a second statement there is no snapshot any more, so this is for what will never need one. Over a network it
        takes a third of the time of `read`.
        """
        return _Transaction(self, now, None)

    @contextmanager
    def write(self, now: int) -> Iterator[Tx]:
        """Open a transaction that writes; the caller takes the head (storage.ledger.take_head) for catalogue writes."""
        if self._queue is None:
            with _Transaction(self, now, self._begin_write) as tx:
                yield tx
            return
        if not self._queue.acquire(QUEUE_TIMEOUT_SECONDS):
            raise BusyError
        try:
            with _Transaction(self, now, self._begin_write) as tx:
                yield tx
        finally:
            self._queue.release()

    def close(self) -> None:
        """Close every connection of every thread."""
        for connection in list(self._connections):
            connection.invalidate()
        self._local = threading.local()
        self.engine.dispose()

    def connect(self) -> tuple[Connection, Any]:
        """Return this thread's connection and the driver's own below it, made on first use."""
        kept: tuple[Connection, Any] | None = getattr(self._local, "kept", None)
        if kept is None:
            # AUTOCOMMIT: BEGIN and COMMIT are sent by hand below, on the driver's connection. A pool check-out with its
            # roll-back for each request measured a third of the throughput of a kept connection (design, section 9).
            connection = self.engine.connect().execution_options(isolation_level="AUTOCOMMIT")
            self._connections.add(connection)
            kept = self._local.kept = connection, connection.connection.dbapi_connection
        return kept

    def reach(self) -> None:
        """Connect, for whoever starts with this database. Raises BusyError in the driver's words if it lets nobody in.

        A file is left alone: it would be made.
        """
        if self.is_local:
            return
        try:
            self.connect()
        except DBAPIError as error:
            said = str(error.orig).splitlines()
            raise BusyError(f"The database cannot be reached: {said[0] if said else 'it does not say why'}.") from None

    def drop(self) -> None:
        """Close this thread's connection; the next transaction makes another."""
        kept: tuple[Connection, Any] | None = getattr(self._local, "kept", None)
        self._local.kept = None
        if kept is not None:
            self._connections.discard(kept[0])
            kept[0].invalidate()
            kept[0].close()


class _Transaction:
    """One transaction on this thread's connection, as a context: a class, since a generator's takes 2 µs longer a read."""

    __slots__ = ("_begin", "_database", "_driver", "_now")

    def __init__(self, database: Database, now: int, begin: str | None) -> None:
        self._database, self._now, self._begin = database, now, begin
        self._driver: Any = None

    def __enter__(self) -> Tx:
        try:
            return self._open()
        except BaseException as error:
            if self._driver is None or not dialect.is_lost(self._database.engine, self._driver):
                self._fail(error)
                raise
        # What was kept since the last transaction had been lost meanwhile, and nothing had been sent through it.
        self._database.drop()
        self._driver = None
        try:
            return self._open()
        except BaseException as error:
            self._fail(error)
            raise

    def _open(self) -> Tx:
        database = self._database
        connection, self._driver = database.connect()
        if self._begin is not None:
            dialect.begin(database.engine, self._driver, self._begin)
        return Tx(connection, database.engine, self._now, self._driver)

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._fail(error)
            return
        if self._begin is None:
            return
        try:
            dialect.commit(self._database.engine, self._driver)
        except BaseException as failure:
            if self._begin is self._database.begin_read and dialect.is_lost(self._database.engine, self._driver):
                self._database.drop()  # everything asked for had come, and there is nothing to commit
                return
            self._fail(failure, committing=True)
            raise

    def _fail(self, error: BaseException, *, committing: bool = False) -> None:
        """Roll back, and raise what a driver's error means; return if it is no driver's error."""
        self._roll_back()
        known = self._translate(error, committing=committing)
        if known is not None:
            raise known from error

    def _roll_back(self) -> None:
        database, driver = self._database, self._driver
        if driver is None:
            database.drop()
            return
        try:
            dialect.roll_back(database.engine, driver)
        except Exception:  # noqa: BLE001 - whatever state the connection is in, a new one is made next time
            # SQLite has ended the transaction by itself after a full disk; anything else is a lost connection.
            if not (dialect.is_sqlite(database.engine) and not driver.in_transaction):
                database.drop()

    def _translate(self, error: BaseException, *, committing: bool) -> Exception | None:
        if isinstance(error, DBAPIError):
            return dialect.translate_error(error, committing=committing)
        if isinstance(error, dialect.driver_errors(self._database.engine)):
            return dialect.translate_error(DBAPIError(None, None, error), committing=committing)
        return None

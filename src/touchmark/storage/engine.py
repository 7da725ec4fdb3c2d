"""Connections and transactions: one connection kept a thread, one writer queue a process, the log's head taken first.

`Database.read()` sees one snapshot and takes no lock. `Database.write()` is a catalogue write: it takes the log's head row
before anything else, so catalogue writes are serial on both databases. `Database.track()` writes tracking rows and does
not touch the head.
"""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, Executable, Row
from sqlalchemy.exc import DBAPIError

from touchmark.domain.errors import BusyError
from touchmark.domain.ledger import TreeHead
from touchmark.storage import dialect

QUEUE_TIMEOUT_SECONDS = 60
"""How long a writer waits for the writers before it in this process."""


class Tx:
    """An open transaction. Services pass it on; only storage sends statements through it.

    `now` is microseconds UTC. In a catalogue write `now` is also the `at` of the event and `index` its place in the log.
    """

    __slots__ = ("connection", "engine", "head", "index", "now", "recorded", "registry_id")

    def __init__(self, connection: Connection, engine: Engine, now: int) -> None:
        """Wrap a connection on which a transaction has begun."""
        self.connection = connection
        self.engine = engine
        self.now = now
        self.head: TreeHead | None = None
        self.index = -1
        self.registry_id = ""
        self.recorded = False

    def all(self, statement: Executable, **values: Any) -> Sequence[Any]:
        """Return every row."""
        return self.connection.execute(statement, values).all()

    def first(self, statement: Executable, **values: Any) -> Row[Any] | None:
        """Return the first row or None."""
        return self.connection.execute(statement, values).first()

    def scalar(self, statement: Executable, **values: Any) -> Any:
        """Return the first column of the first row, or None."""
        return self.connection.execute(statement, values).scalar()

    def run(self, statement: Executable, rows: Sequence[dict[str, Any]] | dict[str, Any] | None = None) -> int:
        """Execute a change, once or for many rows, and return how many rows it says it touched."""
        if rows is None:
            return self.connection.execute(statement).rowcount
        if not rows:
            return 0
        return self.connection.execute(statement, rows).rowcount


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
        self._local = threading.local()
        self._connections: weakref.WeakSet[Connection] = weakref.WeakSet()
        self._queue = FairLock() if dialect.is_sqlite(self.engine) else None

    @property
    def is_local(self) -> bool:
        """Whether a point read takes no network, and may run where it was asked for."""
        return self._queue is not None

    @contextmanager
    def read(self, now: int) -> Iterator[Tx]:
        """Open a snapshot. Raises BusyError if the database does not answer."""
        with self._begun(write=False, now=now) as tx:
            yield tx

    @contextmanager
    def write(self, now: int) -> Iterator[Tx]:
        """Open a transaction that writes; the caller takes the head (storage.ledger.take_head) for catalogue writes."""
        if self._queue is None:
            with self._begun(write=True, now=now) as tx:
                yield tx
            return
        if not self._queue.acquire(QUEUE_TIMEOUT_SECONDS):
            raise BusyError
        try:
            with self._begun(write=True, now=now) as tx:
                yield tx
        finally:
            self._queue.release()

    def close(self) -> None:
        """Close every connection of every thread."""
        for connection in list(self._connections):
            connection.invalidate()
        self._local = threading.local()
        self.engine.dispose()

    def _connect(self) -> Connection:
        connection: Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            # AUTOCOMMIT: BEGIN and COMMIT are sent by hand below, on the driver's connection. A pool check-out with its
            # roll-back for each request measured a third of the throughput of a kept connection (design, section 9).
            connection = self.engine.connect().execution_options(isolation_level="AUTOCOMMIT")
            self._local.connection = connection
            self._connections.add(connection)
        return connection

    def _drop(self) -> None:
        connection: Connection | None = getattr(self._local, "connection", None)
        self._local.connection = None
        if connection is not None:
            connection.invalidate()
            connection.close()

    @contextmanager
    def _begun(self, *, write: bool, now: int) -> Iterator[Tx]:
        driver: Any = None
        try:
            connection = self._connect()
            driver = connection.connection.dbapi_connection
            driver.execute(dialect.begin_statement(self.engine, write=write))
            yield Tx(connection, self.engine, now)
            driver.execute("COMMIT")
        except BaseException as error:
            self._roll_back(driver)
            known = self._translate(error)
            if known is None:
                raise
            raise known from error

    def _roll_back(self, driver: Any) -> None:
        if driver is None:
            self._drop()
            return
        try:
            driver.execute("ROLLBACK")
        except Exception:  # noqa: BLE001 - whatever state the connection is in, a new one is made next time
            # SQLite has ended the transaction by itself after a full disk; anything else is a lost connection.
            if not (dialect.is_sqlite(self.engine) and not driver.in_transaction):
                self._drop()

    def _translate(self, error: BaseException) -> Exception | None:
        if isinstance(error, DBAPIError):
            return dialect.translate_error(error)
        if isinstance(error, dialect.driver_errors(self.engine)):
            return dialect.translate_error(DBAPIError(None, None, error))
        return None

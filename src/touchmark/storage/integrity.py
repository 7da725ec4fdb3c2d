"""Statements over whole tables: what fsck, backup and restore need and no request does.

Here: reading every row in the order of its key without holding a table in memory, the scratch database into which the
log is replayed, rows that point at nothing, and copies of all rows from one database into another. What is right and
what is damage is decided in `ops`. Fsck reads columns as they lie there, without SQLAlchemy's conversions: a damaged
cell must become a finding, not an exception.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from sqlalchemy import (
    Connection,
    Select,
    Table,
    and_,
    bindparam,
    cast,
    create_engine,
    delete,
    func,
    insert,
    literal,
    or_,
    select,
    text,
    type_coerce,
)
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.pool import NullPool
from sqlalchemy.types import NULLTYPE, BigInteger

from touchmark.domain.errors import CatalogueDamagedError
from touchmark.domain.events import SUBJECTS, Effect, Event, SubjectKind
from touchmark.storage import dialect, projection
from touchmark.storage import schema as s
from touchmark.storage.engine import Database, Tx
from touchmark.storage.migrations import migrate

BATCH_ROWS = 1_000


@dataclass(frozen=True, slots=True)
class TableShape:
    """A table's name, its columns in order, and those of them that make its key."""

    name: str
    columns: tuple[str, ...]
    key: tuple[str, ...]


def _shape(table: Table) -> TableShape:
    return TableShape(
        table.name, tuple(c.name for c in table.columns), tuple(c.name for c in table.primary_key.columns)
    )


_CATALOGUE = (
    s.models, s.model_names, s.model_tags, s.versions, s.version_tags, s.version_params, s.version_metrics, s.aliases,
    s.alias_moves, s.evaluations, s.edges, s.search_terms, s.webhooks,
)  # fmt: skip
CATALOGUE = tuple(_shape(table) for table in _CATALOGUE)
"""The tables that are a projection of the log."""


@contextmanager
def reading() -> Iterator[None]:
    """Turn what a driver says about a damaged database into CatalogueDamagedError, or what else is meant.

    Raises CatalogueDamagedError, BusyError, StorageFullError.
    """
    try:
        yield
    except (DBAPIError, sqlite3.Error) as error:
        wrapped = error if isinstance(error, DBAPIError) else DBAPIError(None, None, error)
        raise dialect.translate_error(wrapped) or CatalogueDamagedError(
            reason=f"the database cannot be read ({wrapped.orig})"
        ) from error


# ── reading whole tables ─────────────────────────────────────────────────────────────────────────────────────────


def _stream(tx: Tx, statement: Any, batch_rows: int = BATCH_ROWS) -> Iterator[Any]:
    # On PostgreSQL a server-side cursor, which lives in the transaction that Database began; SQLite steps as it goes.
    result = tx.connection.execute(statement, execution_options={"stream_results": True, "yield_per": batch_rows})
    try:
        yield from result
    finally:
        result.close()


def _as_they_lie(*columns: Any) -> Any:
    return select(*[type_coerce(column, NULLTYPE).label(column.name) for column in columns])


def stream_table(tx: Tx, table: TableShape, batch_rows: int = BATCH_ROWS) -> Iterator[Any]:
    """Yield every row of a table in the order of its key (text by its bytes on both databases)."""
    found = s.metadata.tables[table.name]
    yield from _stream(tx, _as_they_lie(*found.columns).order_by(*found.primary_key.columns), batch_rows)


class LogSizes(NamedTuple):
    """How long the log is by three witnesses: its head, its entries, and the lowest level of its tree."""

    heads: Sequence[Any]
    entries: int
    leaves: int


def find_log_sizes(tx: Tx) -> LogSizes:
    """Return the rows of log_head (there should be one) and the log's length by its entries and by its tree."""
    nodes = s.log_nodes.c
    heads = tx.all(_as_they_lie(*s.log_head.columns).order_by(s.log_head.c.id))
    entries = tx.scalar(select(func.max(s.events.c.log_index)))
    leaves = tx.scalar(select(func.max(nodes.position)).where(nodes.level == 0))
    return LogSizes(heads, -1 if entries is None else entries, -1 if leaves is None else leaves)


_ENTRIES = _as_they_lie(*s.events.columns).where(s.events.c.log_index > bindparam("p_after"))
_ENTRIES = _ENTRIES.order_by(s.events.c.log_index).limit(bindparam("p_limit"))
_TEXTS = (
    _as_they_lie(*s.event_texts.columns)
    .where(s.event_texts.c.log_index.between(bindparam("p_first"), bindparam("p_last")))
    .order_by(s.event_texts.c.log_index, s.event_texts.c.position)
)


def list_entries(tx: Tx, *, after: int, limit: int) -> tuple[Sequence[Any], dict[int, list[Any]]]:
    """Return rows of events with an index above `after`, oldest first, and the texts beside each by its index."""
    rows = tx.all(_ENTRIES, p_after=after, p_limit=limit)
    texts: dict[int, list[Any]] = {}
    if rows:
        for row in tx.all(_TEXTS, p_first=rows[0].log_index, p_last=rows[-1].log_index):
            texts.setdefault(row.log_index, []).append(row)
    return rows, texts


def stream_level(tx: Tx, level: int, *, first: int = 0, end: int) -> Iterator[tuple[int, Any]]:
    """Yield (position, hash) of the tree's nodes at a level, from position `first` up to, not including, `end`."""
    nodes = s.log_nodes.c
    statement = select(nodes.position, type_coerce(nodes.hash, NULLTYPE)).where(
        nodes.level == level, nodes.position >= first, nodes.position < end
    )
    yield from _stream(tx, statement.order_by(nodes.position))


def stream_nodes_beyond(tx: Tx, size: int) -> Iterator[tuple[int, int]]:
    """Yield (level, position) of nodes that a tree of `size` leaves does not have."""
    nodes = s.log_nodes.c
    levels = size.bit_length()
    beyond = [and_(nodes.level == level, nodes.position >= size >> level) for level in range(levels)]
    statement = select(nodes.level, nodes.position).where(
        or_(nodes.level < 0, nodes.level >= levels, nodes.position < 0, *beyond)
    )
    yield from _stream(tx, statement.order_by(nodes.level, nodes.position))


# ── rows that contradict each other ──────────────────────────────────────────────────────────────────────────────


def find_damage(tx: Tx) -> list[str]:
    """Return what SQLite's own check says about the file (pages, indexes, NOT NULL); nothing for other databases."""
    if not dialect.is_sqlite(tx.engine):
        return []
    said = [row[0] for row in tx.all(text("PRAGMA integrity_check(100)"))]
    return [] if said == ["ok"] else said


class Dangling(NamedTuple):
    """A row whose column points at a row that is not there."""

    table: str
    key: dict[str, Any]
    column: str
    value: Any
    target: str


def stream_dangling(tx: Tx) -> Iterator[Dangling]:
    """Yield rows that point at nothing, for every foreign key outside the catalogue (which fsck compares row by row).

    By joins, not by `PRAGMA foreign_key_check`: the same on both databases, and it names the row's key.
    """
    for table in s.metadata.sorted_tables:
        if table in _CATALOGUE:
            continue
        keys = list(table.primary_key.columns)
        for column in table.columns:
            for foreign in column.foreign_keys:
                target = foreign.column.table.alias("target")
                statement = (
                    select(*[type_coerce(key, NULLTYPE) for key in keys], type_coerce(column, NULLTYPE))
                    .select_from(table.outerjoin(target, target.c[foreign.column.name] == column))
                    .where(column.is_not(None), target.c[foreign.column.name].is_(None))
                    .order_by(*keys)
                )
                for row in _stream(tx, statement):
                    key = {one.name: value for one, value in zip(keys, row[:-1], strict=True)}
                    yield Dangling(table.name, key, column.name, row[-1], str(foreign.column.table.name))


def stream_broken_artifacts(tx: Tx) -> Iterator[tuple[dict[str, Any], str, Any, str]]:
    """Yield (key, column, value, what is wrong) of artifacts without their run or logged model, or of another size."""
    a = s.artifacts.c
    key = [a.owner_kind, a.owner_id, a.path]
    no_run = and_(a.owner_kind == "run", ~select(s.runs.c.run_id).where(s.runs.c.run_id == a.owner_id).exists())
    L = s.logged_models.c  # noqa: N806 - columns are capital letters throughout storage
    no_model = and_(a.owner_kind == "logged_model", ~select(L.model_id).where(L.model_id == a.owner_id).exists())
    stray = or_(no_run, no_model, a.owner_kind.not_in(["run", "logged_model"]))
    for row in _stream(tx, select(*key).where(stray).order_by(*key)):
        yield row._asdict(), "owner_id", row.owner_id, f"there is no {row.owner_kind} of that id"
    statement = select(*key, type_coerce(a.size_bytes, NULLTYPE).label("found"), s.blobs.c.size_bytes.label("right"))
    statement = statement.join(s.blobs, s.blobs.c.digest == a.digest).where(a.size_bytes != s.blobs.c.size_bytes)
    for row in _stream(tx, statement.order_by(*key)):
        named = {"owner_kind": row.owner_kind, "owner_id": row.owner_id, "path": row.path}
        yield named, "size_bytes", row.found, f"its blob has {row.right} bytes"


def stream_repositories(tx: Tx) -> Iterator[tuple[str, str]]:
    """Yield (table, repository) for every repository through which a blob or manifest came, once each."""
    for table in (s.repository_blobs, s.repository_manifests):
        for (path,) in _stream(tx, select(table.c.repository).distinct().order_by(table.c.repository)):
            yield table.name, path


def has_owner(tx: Tx, *, model_id: int | None = None, run_id: str | None = None, logged: str | None = None) -> bool:
    """Answer whether a repository's model, run or logged model has a row, deleted or not."""
    if model_id is not None:
        statement = select(s.models.c.model_id).where(s.models.c.model_id == model_id)
    elif run_id is not None:
        statement = select(s.runs.c.run_id).where(s.runs.c.run_id == run_id)
    else:
        statement = select(s.logged_models.c.model_id).where(s.logged_models.c.model_id == logged)
    return tx.first(statement) is not None


def stream_sealed_versions_unlike_manifest(tx: Tx) -> Iterator[Any]:
    """Yield READY versions with a digest whose manifest is not there or says otherwise.

    Rows: version_id, digest, manifest (its digest or None), and content_digest, size_bytes, file_count of the version
    and, with the prefix `right_`, of the manifest.
    """
    v, m = s.versions.c, s.manifests.c
    names = ("content_digest", "size_bytes", "file_count")
    statement = (
        select(
            v.version_id,
            v.digest,
            m.digest.label("manifest"),
            *[type_coerce(v[name], NULLTYPE).label(name) for name in names],
            *[type_coerce(m[name], NULLTYPE).label(f"right_{name}") for name in names],
        )
        .select_from(s.versions.outerjoin(s.manifests, m.digest == v.digest))
        .where(v.state == "READY", v.digest.is_not(None))
        .where(or_(m.digest.is_(None), *[v[name].is_distinct_from(m[name]) for name in names]))
        .order_by(v.version_id)
    )
    yield from _stream(tx, statement)


def stream_aliases_astray(tx: Tx) -> Iterator[Any]:
    """Yield (model_id, alias, number) of aliases that do not point at a READY, undeleted version of their model."""
    a, v = s.aliases.c, s.versions.c
    there = select(v.version_id).where(
        v.model_id == a.model_id, v.number == a.number, v.state == "READY", v.deleted_at.is_(None)
    )
    statement = select(a.model_id, a.alias, a.number).where(~there.exists()).order_by(a.model_id, a.alias)
    yield from _stream(tx, statement)


# ── manifests and blobs ──────────────────────────────────────────────────────────────────────────────────────────

MANIFESTS = _shape(s.manifests)
BLOBS = _shape(s.blobs)
_HELD = (
    select(s.manifest_blobs.c.blob_digest, type_coerce(s.blobs.c.size_bytes, NULLTYPE).label("size_bytes"))
    .select_from(s.manifest_blobs.outerjoin(s.blobs, s.blobs.c.digest == s.manifest_blobs.c.blob_digest))
    .where(s.manifest_blobs.c.manifest_digest == bindparam("p_digest"))
)
_FACTS = select(s.manifest_facts.c.kind, s.manifest_facts.c.key, s.manifest_facts.c.value).where(
    s.manifest_facts.c.manifest_digest == bindparam("p_digest")
)


def list_held_blobs(tx: Tx, manifest: str) -> dict[str, int | None]:
    """Return the digests in manifest_blobs of a manifest, each with the size in its blob's row (None: no such row)."""
    return {row.blob_digest: row.size_bytes for row in tx.all(_HELD, p_digest=manifest)}


def list_manifest_facts(tx: Tx, manifest: str) -> dict[tuple[str, str], str]:
    """Return the rows of manifest_facts of a manifest: (kind, key) to value."""
    return {(row.kind, row.key): row.value for row in tx.all(_FACTS, p_digest=manifest)}


def list_known_blobs(tx: Tx, digests: Sequence[str]) -> set[str]:
    """Return those digests that have a row. One statement for every 10,000."""
    known: set[str] = set()
    for start in range(0, len(digests), 10_000):
        wanted = select(s.blobs.c.digest).where(s.blobs.c.digest.in_(digests[start : start + 10_000]))
        known |= {row.digest for row in tx.all(wanted)}
    return known


def stream_holders(tx: Tx, digests: Sequence[str]) -> Iterator[Any]:
    """Yield the versions, deleted ones too, whose files or record have one of these digests.

    Rows: digest, name (of the model), number, manifest (its digest), is_deleted, in order of digest, name and
    number. Some hundred digests at most: it is one statement.
    """
    held, v, m = s.manifest_blobs.c, s.versions.c, s.models.c
    statement = (
        select(
            held.blob_digest.label("digest"),
            m.name,
            v.number,
            v.digest.label("manifest"),
            v.deleted_at.is_not(None).label("is_deleted"),  # as all versions of a deleted model are
        )
        .select_from(
            s.manifest_blobs.join(s.versions, v.digest == held.manifest_digest).join(s.models, m.model_id == v.model_id)
        )
        .where(held.blob_digest.in_(digests))
        .order_by(held.blob_digest, m.name, v.number)
    )
    yield from _stream(tx, statement)


# ── the scratch database ─────────────────────────────────────────────────────────────────────────────────────────

_STATE_TABLES: Mapping[SubjectKind, Table] = {
    SubjectKind.MODEL: s.models,
    SubjectKind.NAME: s.model_names,
    SubjectKind.MODEL_TAG: s.model_tags,
    SubjectKind.VERSION: s.versions,
    SubjectKind.VERSION_TAG: s.version_tags,
    SubjectKind.ALIAS: s.aliases,
    SubjectKind.EVALUATION: s.evaluations,
    SubjectKind.EDGE: s.edges,
    SubjectKind.WEBHOOK: s.webhooks,
}
_COLUMNS = {"deleted": "deleted_at", "deprecated": "deprecated_at", "index": "log_index"}
"""Fields of effects that stand in a column of another name; the first two say only whether there is a time."""


def _state_statement(kind: SubjectKind, table: Table) -> Select[Any]:
    shape = SUBJECTS[kind]
    columns = [table.c[_COLUMNS.get(field, field)].label(field) for field in shape.fields]
    return select(*columns).where(*[table.c[_COLUMNS.get(k, k)] == bindparam(f"p_{k}") for k in shape.key])


_STATES = {kind: _state_statement(kind, table) for kind, table in _STATE_TABLES.items()}
_VERSION_COUNT = select(s.models.c.version_count).where(s.models.c.model_id == bindparam("p_model_id"))


class Scratch:
    """The catalogue as the log alone makes it: a private SQLite database without foreign keys, gone once closed.

    Its file has no name (sqlite.org/inmemorydb.html, temporary databases): small ones stay in memory, large ones do not.
    """

    def __init__(self) -> None:
        """Make the empty catalogue."""
        # isolation_level None: transactions are begun and ended here, not by the driver.
        self._engine = create_engine(
            "sqlite://", creator=lambda: sqlite3.connect("", isolation_level=None), poolclass=NullPool
        )
        self._connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        for pragma in ("temp_store=FILE", "journal_mode=MEMORY", "synchronous=OFF", "foreign_keys=OFF"):
            self._send(f"PRAGMA {pragma}")
        self._send("PRAGMA cache_size=-65536")
        s.metadata.create_all(self._connection, tables=list(_CATALOGUE), checkfirst=False)
        self.tx = Tx(self._connection, self._engine, 0)
        self._send("BEGIN")

    def apply(self, event: Event) -> None:
        """Write what an event does, wholly or not at all. Raises CatalogueDamagedError if it does not fit the rows there."""
        self._send("SAVEPOINT event")
        try:
            projection.apply(self.tx, event)
        except Exception as error:  # a leaf that was tampered with may hold anything
            self._send("ROLLBACK TO event")
            said = str(error.orig) if isinstance(error, DBAPIError) else type(error).__name__
            raise CatalogueDamagedError(reason=f"log entry {event.index} cannot be applied ({said})") from error
        finally:
            self._send("RELEASE event")

    def find_state(self, effect: Effect) -> dict[str, Any] | None:
        """Return the fields of an effect's subject as they stand, or None if it is not there.

        Raises CatalogueDamagedError if the effect's key is none.
        """
        try:
            values = {f"p_{name}": effect.key[name] for name in SUBJECTS[effect.subject].key}
            row = self.tx.first(_STATES[effect.subject], **values)
        except (KeyError, SQLAlchemyError) as error:
            raise CatalogueDamagedError(reason=f"an effect on {effect.subject} has no usable key") from error
        if row is None:
            return None
        state: dict[str, Any] = row._asdict()
        for name in ("deleted", "deprecated"):
            if name in state:
                state[name] = state[name] is not None
        return state

    def count_versions(self, model_id: Any) -> int:
        """Return how many versions a model has had, 0 if it is not there."""
        return self.tx.scalar(_VERSION_COUNT, p_model_id=model_id) or 0

    def end_batch(self) -> None:
        """Commit, so that the journal in memory stays small."""
        self._send("COMMIT")
        self._send("BEGIN")

    def __enter__(self) -> Self:
        """Return the scratch database itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        """Drop it."""
        self._connection.close()
        self._engine.dispose()

    def _send(self, statement: str) -> None:
        driver: Any = self._connection.connection.dbapi_connection
        driver.execute(statement)


# ── copies of all rows ───────────────────────────────────────────────────────────────────────────────────────────


def open_file(path: Path) -> Database:
    """Open a SQLite file as a database of its own."""
    return Database(f"sqlite:///{path}")


def write_snapshot(database: Database, target: Path) -> None:
    """Write every row, as of one instant, into a new SQLite file without a journal beside it; fsynced.

    Writers go on meanwhile. SQLite's pages are copied in one step of its backup interface, under one read transaction;
    from another database the rows are copied table by table in one snapshot.

    Raises BusyError, StorageFullError, CatalogueDamagedError.
    """
    # Of a try that was cut off: SQLite would take them for this file's own.
    for suffix in ("", "-wal", "-shm", "-journal"):
        target.with_name(target.name + suffix).unlink(missing_ok=True)
    target.touch(mode=0o600)
    with reading():
        if dialect.is_sqlite(database.engine):
            with database.engine.connect() as connection, closing(sqlite3.connect(target)) as copy:
                driver: Any = connection.connection.dbapi_connection
                driver.backup(copy)
        else:
            into = open_file(target)
            try:
                migrate(into)
                with database.read(0) as source, into.write(0) as sink:
                    _copy_rows(source.connection, sink.connection)
            finally:
                into.close()
        seal_file(target)


def seal_file(path: Path) -> None:
    """Fold a SQLite file's journal into it, so that the file is all there is, and fsync it."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_in_use(path: Path) -> bool:
    """Answer whether anybody else has a SQLite file open. Leaves the file without a journal (WAL begins anew when opened).

    Leaving WAL needs the file alone (sqlite.org/wal.html, section 4), so it fails while a server holds it, idle or not.
    """
    try:
        with closing(sqlite3.connect(path, timeout=0.2)) as connection:
            return bool(connection.execute("PRAGMA journal_mode=DELETE").fetchone()[0] != "delete")
    except sqlite3.OperationalError:
        return True


def replace_rows(source: Database, target: Database, *, clear: bool) -> None:
    """Copy every row into a database of the same schema, in one transaction; `clear` empties its tables first.

    Raises BusyError, StorageFullError.
    """
    with reading(), source.read(0) as rows, target.write(0) as tx:
        if clear:
            for table in reversed(s.metadata.sorted_tables):
                tx.run(delete(table))
        _copy_rows(rows.connection, tx.connection)
        if not dialect.is_sqlite(target.engine):
            _set_sequences(tx)


def _copy_rows(source: Connection, target: Connection) -> None:
    for table in s.metadata.sorted_tables:
        result = source.execute(select(table), execution_options={"stream_results": True, "yield_per": BATCH_ROWS})
        for part in result.partitions():
            target.execute(insert(table), [row._asdict() for row in part])


def _set_sequences(tx: Tx) -> None:
    for table in s.metadata.sorted_tables:
        column = table.autoincrement_column
        if column is not None and column.autoincrement is True:
            last = select(cast(func.coalesce(func.max(column), 0) + 1, BigInteger)).scalar_subquery()
            sequence = func.pg_get_serial_sequence(table.name, column.name)
            tx.scalar(select(func.setval(sequence, last, literal(False))))  # noqa: FBT003 - SQL's own argument


class FileHead(NamedTuple):
    """What a SQLite file of a registry says about itself."""

    registry_id: str
    log_size: int
    log_root: bytes
    schema_revision: str


class RegistryFile:
    """A SQLite file with a registry's rows of any schema, read without changing a byte of it or beside it."""

    def __init__(self, path: Path, *, immutable: bool = True) -> None:
        """Open the file. `immutable` False if a server may have it open, which makes SQLite write beside it."""
        flags = "mode=ro&immutable=1" if immutable else "mode=rw"
        quoted = str(path).replace("%", "%25").replace("?", "%3f").replace("#", "%23")
        with reading():
            self._connection = sqlite3.connect(f"file:{quoted}?{flags}", uri=True)

    def get_head(self) -> FileHead:
        """Return the registry's id, the log's size and root, and the schema. Raises CatalogueDamagedError."""
        with reading():
            row = self._connection.execute("SELECT registry_id, size, root FROM log_head WHERE id = 1").fetchone()
            revision = self._connection.execute("SELECT version_num FROM alembic_version").fetchone()
        if row is None or revision is None:
            raise CatalogueDamagedError(reason="the database holds no registry")
        return FileHead(row[0], row[1], row[2], revision[0])

    def count_rows(self) -> dict[str, int]:
        """Return how many rows each table has. Raises CatalogueDamagedError."""
        with reading():
            names = [
                name
                for (name,) in self._connection.execute(
                    "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name"
                )
                if name != "alembic_version"
            ]
            return {name: self._connection.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0] for name in names}  # noqa: S608 - the file's own table names

    def stream_blobs(self) -> Iterator[tuple[str, int]]:
        """Yield (digest, size in bytes) of every stored blob, in order of digest. Raises CatalogueDamagedError."""
        with reading():
            yield from self._connection.execute(
                "SELECT digest, size_bytes FROM blobs WHERE state = 'stored' ORDER BY digest"
            )

    def sum_blobs(self) -> tuple[int, int]:
        """Return how many blobs there are and their bytes together. Raises CatalogueDamagedError."""
        with reading():
            row = self._connection.execute(
                "SELECT count(*), coalesce(sum(size_bytes), 0) FROM blobs WHERE state = 'stored'"
            ).fetchone()
        return row[0], row[1]

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


def open_registry_file(path: Path, *, immutable: bool = True) -> AbstractContextManager[RegistryFile]:
    """Open a SQLite file of a registry for reading; a context manager. Raises CatalogueDamagedError."""
    return closing(RegistryFile(path, immutable=immutable))

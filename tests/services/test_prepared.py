"""Statements whose text is made once: what they give, what they refuse, how they are counted, how they fail."""

from __future__ import annotations

import math
import sqlite3
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager

import psycopg
import pytest
from sqlalchemy import Executable, bindparam, select, text
from sqlalchemy.exc import DBAPIError

from touchmark.domain.access import Principal
from touchmark.domain.digest import digest_of
from touchmark.domain.errors import BusyError, ModelNotFoundError, StorageFullError, TouchmarkError
from touchmark.domain.repositories import parse_repository
from touchmark.domain.tracking import ArtifactOwner, LoggedModelStatus, Metric
from touchmark.domain.versions import ModelVersion
from touchmark.registry import Registry
from touchmark.services import artifacts, blobs, logged_models, models, registration, runs
from touchmark.storage import dialect
from touchmark.storage import schema as s
from touchmark.storage.engine import Prepared, Tx

M, N = s.models.c, s.log_nodes.c
BY_NAME = select(s.models).where(M.name == bindparam("p_name"), M.version_count == 0)


def test_a_prepared_read_gives_what_the_statement_gives(registry: Registry, who: Principal) -> None:
    models.create_model(registry, who, "net", description="100 % of it: :p_name ?")
    prepared = Prepared(BY_NAME)
    with registry.read() as tx:
        row, plain = tx.first(prepared, p_name="net"), tx.first(BY_NAME, p_name="net")

        assert row == tuple(plain)
        assert row._fields == tuple(plain._fields)
        assert (row.name, row.description, row.deleted_at) == ("net", "100 % of it: :p_name ?", None)
        assert tx.all(prepared, p_name="net") == [row]
        assert tx.first(prepared, p_name="' OR 1=1 --") is None
        assert tx.all(prepared, p_name="none") == []


def test_a_prepared_read_sees_what_its_own_transaction_wrote(registry: Registry, who: Principal) -> None:
    models.create_model(registry, who, "net")
    with registry.track() as tx:
        tx.run(s.models.update().where(M.name == "net"), {"owner": "ada"})

        assert tx.first(Prepared(BY_NAME), p_name="net").owner == "ada"


def test_the_statements_of_prepared_reads_are_counted(
    registry: Registry, who: Principal, statements: Callable[[], AbstractContextManager[list[str]]]
) -> None:
    models.create_model(registry, who, "net")
    with statements() as sent:
        models.get_model(registry, who, "net")

    assert len(sent) == 2
    assert all("SELECT" in statement for statement in sent)


@pytest.mark.parametrize(
    "statement",
    [
        select(s.version_metrics.c.is_nan),
        select(M.name).where(M.model_id.in_(bindparam("p_ids", expanding=True))),
    ],
    ids=["a truth value", "a list"],
)
def test_what_travels_converted_cannot_be_prepared(registry: Registry, statement: object) -> None:
    with registry.read() as tx, pytest.raises(TypeError, match="send this statement unprepared"):
        tx.first(Prepared(statement), p_ids=[1])  # type: ignore[arg-type]


def test_a_truth_value_is_written_and_asked_for_as_it_is(registry: Registry, who: Principal) -> None:
    models.create_model(registry, who, "net")
    made = registration.register_address(registry, who, "net", "s3://box/net", reference=None, reason="far away")
    row = {"version_id": made.version_id, "value": None, "log_index": 0}
    given = [{**row, "key": "gone", "is_nan": True}, {**row, "key": "there", "is_nan": False, "value": 0.5}]
    asked = Prepared(select(s.version_metrics.c.key).where(s.version_metrics.c.is_nan == bindparam("p_nan")))
    with registry.track() as tx:
        tx.run(Prepared(s.version_metrics.insert()), given)

        assert [tx.scalar(asked, p_nan=value) for value in (True, False)] == ["gone", "there"]


def test_a_prepared_change_writes_one_row_or_many_and_says_how_many_it_touched(registry: Registry) -> None:
    add = Prepared(s.log_nodes.insert())
    upsert = Prepared(lambda engine: dialect.upsert(engine, s.log_nodes, ["level", "position"]))
    keep = Prepared(lambda engine: dialect.insert_if_absent(engine, s.log_nodes))
    change = Prepared(s.log_nodes.update().where(N.level == bindparam("b_level")).values(hash=bindparam("b_hash")))
    found = Prepared(select(N.level, N.position, N.hash).order_by(N.level, N.position))
    with registry.track() as tx:
        assert tx.run(add, []) == 0
        assert tx.run(add, {"level": 1, "position": 0, "hash": b"\0a'"}) == 1
        assert tx.run(add, [{"level": 2, "position": n, "hash": b"b"} for n in range(2)]) == 2
        tx.run(upsert, [{"level": 2, "position": n, "hash": b"c"} for n in range(1, 3)])
        tx.run(keep, {"level": 1, "position": 0, "hash": b"lost"})
        assert tx.run(change, {"b_level": 2, "b_hash": b"d"}) == 3
        assert tx.run(change, {"b_level": 7, "b_hash": b"d"}) == 0

        assert tx.all(found) == [(1, 0, b"\0a'"), (2, 0, b"d"), (2, 1, b"d"), (2, 2, b"d")]
        assert tx.scalar(found) == 1


def test_a_prepared_insert_writes_the_columns_it_is_given(registry: Registry) -> None:
    add = Prepared(s.blobs.insert())
    row = {"size_bytes": 1, "state": "stored", "created_at": 5}
    with registry.track() as tx:
        tx.run(add, {"digest": "sha256:a", "layout": "whole", **row})
        tx.run(add, {**row, "layout": "parts", "digest": "sha256:b"})

        assert tx.all(select(s.blobs.c.layout).order_by(s.blobs.c.digest)) == [("whole",), ("parts",)]


def test_a_prepared_read_that_fails_ends_its_transaction_and_the_next_one_works(
    registry: Registry, who: Principal
) -> None:
    models.create_model(registry, who, "net")
    broken = Prepared(select(text("nothing"), M.name).select_from(s.models))
    with pytest.raises(Exception, match="nothing"), registry.read() as tx:
        tx.first(broken)

    assert models.get_model(registry, who, "net").name == "net"


def test_one_statement_needs_no_transaction_and_a_failed_one_leaves_none_behind(
    registry: Registry, who: Principal, statements: Callable[[], AbstractContextManager[list[str]]]
) -> None:
    with statements() as sent:
        assert registry.get_log_size() == 0
    assert len(sent) == 1

    with pytest.raises(Exception, match="nothing"), registry.database.read_once(0) as tx:
        tx.first(Prepared(select(text("nothing"), M.name).select_from(s.models)))
    models.create_model(registry, who, "net")
    assert registry.get_log_size() == 1


@pytest.mark.postgres
def test_a_prepared_read_on_a_lost_connection_is_busy_and_the_next_one_works(
    registry: Registry, who: Principal
) -> None:
    if registry.database.is_local:
        pytest.skip("a file has no connection to lose")
    models.create_model(registry, who, "net")

    def read(tx: Tx) -> None:
        tx.first(Prepared(BY_NAME), p_name="net")

    with pytest.raises(BusyError), registry.read() as tx:
        pid = tx.scalar(text("SELECT pg_backend_pid()"))
        killer = threading.Thread(target=_end_backend, args=(registry, pid))
        killer.start()
        killer.join()
        read(tx)

    with registry.read() as tx:
        read(tx)
    with pytest.raises(ModelNotFoundError):
        models.get_model(registry, who, "other")


ADD_NODE = Prepared(s.log_nodes.insert())
NODES = Prepared(select(N.level, N.position))


def node(level: int) -> dict[str, object]:
    return {"level": level, "position": 0, "hash": bytes(32)}


@pytest.mark.parametrize("rows", [[node(61)], [node(62), node(61)]], ids=["one row", "many rows"])
def test_an_error_among_changes_sent_together_is_raised_and_nothing_is_kept(
    registry: Registry, rows: list[dict[str, object]]
) -> None:
    with pytest.raises(Exception, match=r"(?i)unique") as raised, registry.track() as tx, tx.send_together():
        tx.run(ADD_NODE, node(60))
        tx.run(ADD_NODE, node(61))
        tx.run(ADD_NODE, rows)

    assert isinstance(raised.value, sqlite3.IntegrityError | psycopg.errors.UniqueViolation)
    with registry.track() as tx:
        assert tx.all(NODES) == []


def test_what_was_sent_together_is_seen_by_reads_among_it_and_by_statements_that_are_not_prepared(
    registry: Registry,
) -> None:
    with registry.track() as tx, tx.send_together():
        tx.run(ADD_NODE, node(1))
        tx.run(ADD_NODE, [node(2), node(3)])
        assert {row.level for row in tx.all(NODES)} == {1, 2, 3}
        tx.run(s.log_nodes.delete().where(N.level == 2))
        tx.run(ADD_NODE, node(4))
        assert {level for (level,) in tx.all(select(N.level))} == {1, 3, 4}

    with registry.read() as tx:
        assert {row.level for row in tx.all(NODES)} == {1, 3, 4}


def test_a_statement_that_is_not_prepared_raises_the_error_of_those_before_it(registry: Registry) -> None:
    with pytest.raises((sqlite3.IntegrityError, psycopg.errors.UniqueViolation)), registry.track() as tx:  # noqa: SIM117
        with tx.send_together():
            tx.run(ADD_NODE, node(1))
            tx.run(ADD_NODE, node(1))
            tx.run(s.log_nodes.delete().where(N.level == 1))


def test_statements_first_sent_after_one_that_failed_work_in_the_next_transaction(registry: Registry) -> None:
    """A driver prepares what it sends the sixth time, and believes that it did also where the server never looked."""
    add = Prepared(s.search_terms.insert())
    for _ in range(2):  # a roll-back the driver has seen before
        with pytest.raises(ModelNotFoundError), registry.track() as tx:
            tx.all(NODES)
            raise ModelNotFoundError(name="net")
    for number in range(5):
        with registry.track() as tx:
            tx.run(add, {"term": f"t{number}", "subject": "model", "subject_id": 1})

    with pytest.raises((sqlite3.IntegrityError, psycopg.errors.UniqueViolation)), registry.track() as tx:  # noqa: SIM117
        with tx.send_together():
            tx.run(ADD_NODE, [node(1), node(1)])
            tx.run(add, {"term": "t6", "subject": "model", "subject_id": 1})

    for number in range(7, 10):
        with registry.track() as tx:
            tx.run(add, {"term": f"t{number}", "subject": "model", "subject_id": 1})


def test_answers_asked_for_are_those_of_when_they_were_asked_and_a_block_within_a_block_is_part_of_it(
    registry: Registry,
) -> None:
    with registry.track() as tx, tx.send_together():
        before = tx.ask(NODES)
        tx.run(ADD_NODE, node(1))
        with tx.send_together():
            tx.run(ADD_NODE, node(2))
            after = tx.ask(NODES)
        tx.run(ADD_NODE, node(3))

        assert (before.all(), before.first(), before.scalar()) == ([], None, None)
        assert {row.level for row in after.all()} == {1, 2}
        assert after.all() == after.all()
        tx.run(s.log_nodes.delete().where(N.level == 3))
        with tx.send_together():  # the statement before this one was not prepared, and ended the sending together
            tx.run(ADD_NODE, node(4))
            assert {row.level for row in tx.ask(NODES).all()} == {1, 2, 4}


def test_a_registration_is_sent_together_from_the_head_to_its_end(
    registry: Registry, who: Principal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A statement that SQLAlchemy sends there would make all other writers wait for each answer, and nothing would fail."""
    run = runs.create_run(registry, who, "training", params={"depth": "6"})
    runs.log_batch(registry, who, run.run_id, metrics=[Metric("auc", 0.9, 1, 5), Metric("gap", math.nan, 1, 5)])
    model = logged_models.create_logged_model(registry, who, "net", run_id=run.run_id)
    owner = ArtifactOwner("logged_model", model.model_id)
    with blobs.open_upload(registry, who, parse_repository(owner.repository)) as writer:
        writer.write(b"weights")
        artifacts.set_artifacts(registry, who, owner, {"w": writer.commit(digest_of(b"weights")).digest})
    logged_models.finish_logged_model(registry, who, model.model_id, status=LoggedModelStatus.READY)
    models.create_model(registry, who, "net")
    source = f"models:/{model.model_id}"

    def register() -> ModelVersion:
        return registration.register_address(registry, who, "net", source, reference=source, noted_in="made")

    register()
    unprepared: list[object] = []
    execute = Tx._execute

    def watch(tx: Tx, statement: Executable, values: object = None) -> object:
        if tx.head is not None:
            unprepared.append(statement)
        return execute(tx, statement, values)

    monkeypatch.setattr(Tx, "_execute", watch)

    assert (register().version, register().metrics["auc"]) == (2, 0.9)
    assert unprepared == []


@pytest.mark.postgres
def test_a_commit_that_the_database_made_a_roll_back_is_no_success(registry: Registry) -> None:
    if registry.database.is_local:
        pytest.skip("SQLite commits what stands")
    with pytest.raises(BusyError, match="did not keep the change"), registry.track() as tx:
        tx.run(ADD_NODE, node(1))
        with pytest.raises(psycopg.errors.UniqueViolation):
            tx.run(ADD_NODE, node(1))

    with registry.read() as tx:
        assert tx.all(NODES) == []


def _end_backend(registry: Registry, pid: int) -> None:
    with registry.read() as tx:
        tx.scalar(text(f"SELECT pg_terminate_backend({pid})"))


@pytest.mark.parametrize(
    ("error", "meant"),
    [
        (psycopg.OperationalError("server closed the connection unexpectedly"), BusyError),
        (psycopg.errors.ConnectionTimeout("connection timeout expired"), BusyError),
        (psycopg.errors.DeadlockDetected(), BusyError),
        (psycopg.errors.DiskFull(), StorageFullError),
        (psycopg.DataError("PostgreSQL text fields cannot contain NUL (0x00) bytes"), None),
        (psycopg.ProgrammingError("the query has 1 placeholder but 0 parameters were passed"), None),
        (psycopg.errors.NumericValueOutOfRange(), None),
        (sqlite3.OperationalError("database is locked"), BusyError),
        (sqlite3.OperationalError("database or disk is full"), StorageFullError),
        (sqlite3.OperationalError("no such table: runs"), None),
        (sqlite3.IntegrityError("UNIQUE constraint failed"), None),
    ],
)
def test_only_what_may_pass_by_itself_is_said_to_be_busy(error: Exception, meant: type[TouchmarkError] | None) -> None:
    found = dialect.translate_error(DBAPIError(None, None, error))

    assert (None if found is None else type(found)) is meant

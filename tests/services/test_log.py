"""What every change leaves in the log, whoever makes it: one entry, later than the one before, that gives no text away."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
from sqlalchemy import select

from touchmark.domain.access import Principal
from touchmark.domain.errors import IdempotencyMismatchError, ModelExistsError
from touchmark.domain.events import EventKind
from touchmark.domain.idempotency import IdempotencyKey
from touchmark.registry import Registry
from touchmark.services import models
from touchmark.storage import ledger, schema
from touchmark.storage.engine import Database

WRITERS = 4
EACH = 25


def test_a_change_makes_exactly_one_entry(registry: Registry, who: Principal) -> None:
    with pytest.raises(RuntimeError, match="exactly one"), registry.write() as tx:
        for _ in range(2):
            ledger.append(tx, who, EventKind.MODEL_UPDATED, [])
    with pytest.raises(RuntimeError, match="takes the head"), registry.track() as tx:
        ledger.append(tx, who, EventKind.MODEL_UPDATED, [])

    assert registry.get_log_size() == 0


def test_writers_of_several_processes_wait_for_each_other(registry: Registry, who: Principal) -> None:
    """Each process queues its own writers, so what is tried here is the lock that the database holds between them."""
    url = registry.database.engine.url.render_as_string(hide_password=False)
    others = [Registry(Database(url), registry.blobs) for _ in range(WRITERS)]

    def write(number: int) -> None:
        with closing(others[number]) as mine:
            for each in range(EACH):
                models.create_model(mine, who, f"net-{number}-{each}")

    with ThreadPoolExecutor(WRITERS) as pool:
        list(pool.map(write, range(WRITERS)))

    assert registry.get_log_size() == WRITERS * EACH


def test_no_entry_is_earlier_than_the_one_before_though_the_clock_is_put_back(
    registry: Registry, who: Principal
) -> None:
    first = models.create_model(registry, who, "first")
    put_back = Registry(registry.database, registry.blobs, clock=lambda: first.created_at - 3_600_000_000)

    second = models.create_model(put_back, who, "second")

    assert second.created_at >= first.created_at


def test_the_same_words_twice_have_nothing_in_common_in_the_log(registry: Registry, who: Principal) -> None:
    for name in ("first", "second"):
        models.create_model(registry, who, name, description="said twice")

    with registry.read() as tx:
        salts = [bytes(row.salt) for row in tx.all(select(schema.event_texts.c.salt))]

    assert len(salts) > 1
    assert len(set(salts)) == len(salts)
    assert all(any(salt) for salt in salts)


def test_a_key_is_the_callers_own(registry: Registry, who: Principal) -> None:
    other = Principal(who.kind, "user-grace", verified=True)
    key = IdempotencyKey("1", "the hash of a request")

    models.create_model(registry, who, "first", key=key)
    models.create_model(registry, who, "first", key=key)

    with pytest.raises(ModelExistsError):  # somebody else's request, which was not answered before
        models.create_model(registry, other, "first", key=key)
    with pytest.raises(IdempotencyMismatchError):
        models.create_model(registry, who, "second", key=IdempotencyKey("1", "the hash of another"))

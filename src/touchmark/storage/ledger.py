"""The log: its head, its entries, the texts beside them, and the complete subtree hashes that proofs need."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence

from sqlalchemy import bindparam, insert, select, tuple_, update

from touchmark.domain.access import Principal
from touchmark.domain.errors import CatalogueDamagedError, EventNotFoundError
from touchmark.domain.events import SALT_BYTES, Effect, Event, EventKind, SaltedText, decode_leaf, encode_leaf
from touchmark.domain.ledger import EMPTY_TREE, TreeHead, hash_leaf, parse_frontier
from touchmark.domain.ledger import append as append_leaf
from touchmark.storage import dialect, projection
from touchmark.storage import schema as s
from touchmark.storage.engine import Prepared, Tx

_HEAD = select(
    s.log_head.c.size, s.log_head.c.frontier, s.log_head.c.last_at, s.log_head.c.registry_id, s.log_head.c.root
).where(s.log_head.c.id == 1)
_LOCKED_HEAD = Prepared(lambda engine: dialect.lock_rows(_HEAD, engine))
_SIZE = Prepared(select(s.log_head.c.size))
_SET_HEAD = Prepared(
    update(s.log_head)
    .where(s.log_head.c.id == 1)
    .values(
        size=bindparam("b_size"), root=bindparam("b_root"), frontier=bindparam("b_frontier"), last_at=bindparam("b_at")
    )
)
_ENTRY = Prepared(select(s.events.c.leaf_hash).where(s.events.c.log_index == bindparam("b_index")))
_INSERT_EVENT, _INSERT_TEXT = Prepared(insert(s.events)), Prepared(insert(s.event_texts))
_INSERT_NODE = Prepared(insert(s.log_nodes))


def create_head(tx: Tx, registry_id: str) -> None:
    """Write the head of an empty log."""
    row = {
        "id": 1, "size": 0, "root": EMPTY_TREE.root, "frontier": EMPTY_TREE.to_bytes(), "last_at": 0,
        "registry_id": registry_id,
    }  # fmt: skip
    tx.run(dialect.insert_if_absent(tx.engine, s.log_head), row)


def keep_place(tx: Tx, place: str) -> str:
    """Note where the registry's files are, if nobody has yet, and return what stands there."""
    head = s.log_head.c
    tx.run(update(s.log_head).where(head.id == 1, head.place.is_(None)).values(place=place))
    row = tx.first(select(head.place).where(head.id == 1))
    return place if row is None else str(row.place)


def set_place(tx: Tx, place: str | None) -> None:
    """Note where the registry's files are from now on; None: nobody has said so."""
    tx.run(update(s.log_head).where(s.log_head.c.id == 1).values(place=place))


def take_head(tx: Tx) -> None:
    """Lock the head, so that no other catalogue write runs beside this one, and set the event's index and time."""
    row = tx.first(_LOCKED_HEAD)
    if row is None:
        raise CatalogueDamagedError(reason="the log has no head")
    tx.head = parse_frontier(row.size, row.frontier)
    tx.index = row.size
    tx.now = max(tx.now, row.last_at)
    tx.registry_id = row.registry_id


def append(
    tx: Tx,
    who: Principal,
    kind: EventKind,
    effects: Sequence[Effect],
    *,
    model_id: int | None = None,
    name: str | None = None,
    version: int | None = None,
) -> Event:
    """Append the one event of this transaction and write its rows. `name` and `version` say what it is about."""
    if tx.head is None or tx.recorded:
        raise RuntimeError("a catalogue write takes the head once and makes exactly one event")
    tx.recorded = True
    event = Event(tx.index, tx.now, kind, who, model_id, name, version, tuple(effects))
    leaf, texts = encode_leaf(event, _salts())
    with tx.send_together():
        write_entry(tx, event, leaf, texts)
        projection.apply(tx, event)
    return event


def write_entry(tx: Tx, event: Event, leaf: bytes, texts: Sequence[SaltedText]) -> None:
    """Write an entry, its texts, its subtree hashes and the new head."""
    if tx.head is None:
        raise RuntimeError("the head was not taken")
    leaf_hash = hash_leaf(leaf)
    head, nodes = append_leaf(tx.head, leaf_hash)
    row = {
        "log_index": event.index, "at": event.at, "kind": event.kind.value, "actor": event.actor.id,
        "model_id": event.model_id, "version": event.version, "leaf": leaf, "leaf_hash": leaf_hash,
    }  # fmt: skip
    tx.run(_INSERT_EVENT, row)
    tx.run(
        _INSERT_TEXT,
        [
            {"log_index": event.index, "position": n, "salt": text.salt, "text": text.text}
            for n, text in enumerate(texts)
        ],
    )
    tx.run(_INSERT_NODE, [{"level": node.level, "position": node.position, "hash": node.hash} for node in nodes])
    tx.run(_SET_HEAD, {"b_size": head.size, "b_root": head.root, "b_frontier": head.to_bytes(), "b_at": event.at})
    tx.head = head
    tx.entry = event.index, leaf_hash


def _salts() -> Iterator[bytes]:
    while True:
        yield secrets.token_bytes(SALT_BYTES)


def get_size(tx: Tx) -> int:
    """Return how many entries the log has. Raises CatalogueDamagedError if it has no head."""
    row = tx.first(_SIZE)
    if row is None:
        raise CatalogueDamagedError(reason="the log has no head")
    size: int = row.size
    return size


def is_kept(tx: Tx, index: int, leaf_hash: bytes) -> bool:
    """Answer whether exactly this entry is in the log: two that say the same differ by their time and the salts of their texts."""
    row = tx.first(_ENTRY, b_index=index)
    return row is not None and bytes(row.leaf_hash) == leaf_hash


def get_head(tx: Tx) -> tuple[TreeHead, bytes, str]:
    """Return the head, the root kept with it, and the registry's id."""
    row = tx.first(_HEAD)
    if row is None:
        raise CatalogueDamagedError(reason="the log has no head")
    return parse_frontier(row.size, row.frontier), row.root, row.registry_id


def list_events(tx: Tx, *, after: int, limit: int, model_id: int | None = None) -> list[tuple[Event, bytes]]:
    """Return entries with an index above `after`, oldest first, each with its leaf's exact bytes."""
    statement = select(s.events.c.log_index, s.events.c.leaf).where(s.events.c.log_index > after)
    if model_id is not None:
        statement = statement.where(s.events.c.model_id == model_id)
    rows = tx.all(statement.order_by(s.events.c.log_index).limit(limit))
    if not rows:
        return []
    texts: dict[int, list[SaltedText]] = {}
    wanted = select(s.event_texts).where(
        s.event_texts.c.log_index >= rows[0].log_index, s.event_texts.c.log_index <= rows[-1].log_index
    )
    if model_id is not None:
        wanted = wanted.where(s.event_texts.c.log_index.in_([row.log_index for row in rows]))
    for text in tx.all(wanted.order_by(s.event_texts.c.log_index, s.event_texts.c.position)):
        texts.setdefault(text.log_index, []).append(SaltedText(text.salt, text.text))
    return [(decode_leaf(row.leaf, texts.get(row.log_index, [])), row.leaf) for row in rows]


def get_event(tx: Tx, index: int) -> tuple[Event, bytes]:
    """Return one entry and its leaf's exact bytes. Raises EventNotFoundError."""
    found = list_events(tx, after=index - 1, limit=1)
    if not found or found[0][0].index != index:
        raise EventNotFoundError(index=index)
    return found[0]


def get_nodes(tx: Tx, wanted: Sequence[tuple[int, int]]) -> Mapping[tuple[int, int], bytes]:
    """Return the hashes of complete subtrees, by (level, position), in one statement."""
    if not wanted:
        return {}
    nodes = s.log_nodes.c
    rows = tx.all(
        select(nodes.level, nodes.position, nodes.hash).where(tuple_(nodes.level, nodes.position).in_(list(wanted)))
    )
    return {(row.level, row.position): row.hash for row in rows}

"""The log: read its entries and its head, prove that an entry stands in it and that it only grew."""

from __future__ import annotations

from dataclasses import dataclass

from touchmark import permissions
from touchmark.domain import ledger as tree
from touchmark.domain.access import REGISTRY, Action, Principal
from touchmark.domain.errors import EventNotFoundError, InvalidFieldError
from touchmark.domain.events import Event
from touchmark.domain.names import parse_model_name
from touchmark.domain.paging import check_limit
from touchmark.domain.tracking import check_int64
from touchmark.registry import Registry
from touchmark.storage import ledger, models


@dataclass(frozen=True, slots=True)
class LogEntry:
    """An event, the exact bytes of its leaf, and their hash."""

    event: Event
    leaf: bytes
    leaf_hash: bytes


@dataclass(frozen=True, slots=True)
class LogHead:
    """The log's size and root, and the id of the registry it belongs to."""

    size: int
    root: bytes
    registry_id: str


def list_events(
    registry: Registry, who: Principal, *, after: int = -1, limit: int | None = None, model: str | None = None
) -> list[LogEntry]:
    """Return entries with an index above `after`, oldest first, of one model if named.

    `limit` is 1 to 1,000, 100 if None. Raises InvalidNameError, InvalidFieldError, LimitExceededError, ModelNotFoundError.
    """
    count, after = check_limit(limit), check_int64("after", after)
    with registry.read() as tx:
        permissions.require(tx, who, Action.READ_LOG, REGISTRY)
        model_id = models.get_row(tx, parse_model_name(model), follow=True).model_id if model is not None else None
        found = ledger.list_events(tx, after=after, limit=count, model_id=model_id)
    return [LogEntry(event, leaf, tree.hash_leaf(leaf)) for event, leaf in found]


def get_event(registry: Registry, who: Principal, index: int) -> LogEntry:
    """Return one entry. Raises InvalidFieldError for an index beyond 64 bits, EventNotFoundError."""
    index = check_int64("index", index)
    if index < 0:
        raise EventNotFoundError(index=index)
    with registry.read() as tx:
        permissions.require(tx, who, Action.READ_LOG, REGISTRY)
        event, leaf = ledger.get_event(tx, index)
    return LogEntry(event, leaf, tree.hash_leaf(leaf))


def get_head(registry: Registry, who: Principal) -> LogHead:
    """Return the log's head."""
    with registry.read() as tx:
        permissions.require(tx, who, Action.READ_LOG, REGISTRY)
        head, root, registry_id = ledger.get_head(tx)
    return LogHead(head.size, root, registry_id)


def prove_inclusion(
    registry: Registry, who: Principal, index: int, size: int | None = None
) -> tuple[LogHead, list[bytes]]:
    """Return the head of the log at `size` entries (now if None) and the audit path of entry `index` (RFC 9162, 2.1.3).

    Raises EventNotFoundError, InvalidFieldError.
    """
    with registry.read() as tx:
        permissions.require(tx, who, Action.READ_LOG, REGISTRY)
        head, root, registry_id = ledger.get_head(tx)
        count = _check_size(size, head.size)
        if not 0 <= index < count:
            raise EventNotFoundError(index=index)
        if count != head.size:
            root = tree.root_at(count, lambda wanted: ledger.get_nodes(tx, wanted))
        proof = tree.inclusion_proof(index, count, lambda wanted: ledger.get_nodes(tx, wanted))
    return LogHead(count, root, registry_id), proof


def prove_consistency(
    registry: Registry, who: Principal, first: int, second: int | None = None
) -> tuple[LogHead, list[bytes]]:
    """Return the head at `second` entries (now if None) and the proof that it extends the one at `first` (RFC 9162, 2.1.4).

    Raises InvalidFieldError.
    """
    with registry.read() as tx:
        permissions.require(tx, who, Action.READ_LOG, REGISTRY)
        head, root, registry_id = ledger.get_head(tx)
        count = _check_size(second, head.size)
        if not 0 < first <= count:
            raise InvalidFieldError(field="first", reason=f"write a size from 1 to {count}")
        if count != head.size:
            root = tree.root_at(count, lambda wanted: ledger.get_nodes(tx, wanted))
        proof = tree.consistency_proof(first, count, lambda wanted: ledger.get_nodes(tx, wanted))
    return LogHead(count, root, registry_id), proof


def _check_size(size: int | None, present: int) -> int:
    if size is None:
        return present
    if not 0 < size <= present:
        raise InvalidFieldError(field="size", reason=f"write a size from 1 to {present}")
    return size

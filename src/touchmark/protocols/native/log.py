"""The log over HTTP: its events, its head, its exact entries, and proofs about them. Hashes are hexadecimal."""

from __future__ import annotations

from touchmark.domain.errors import EventNotFoundError, InvalidNameError, ModelNotFoundError
from touchmark.protocols.native import schemas
from touchmark.protocols.native.operations import Operation, read_whole
from touchmark.services import log
from touchmark.wire import AnyRequest, Lane, call


def to_event(entry: log.LogEntry) -> schemas.EventAnswer:
    """Return an event as it goes over the wire."""
    event = entry.event
    actor = event.actor
    return schemas.EventAnswer(
        index=event.index,
        at=event.at,
        kind=event.kind.value,
        actor=schemas.Actor(kind=str(actor.kind), id=actor.id, token_id=actor.token_id, verified=actor.verified),
        request=actor.request_id,
        model=event.model_name,
        model_id=event.model_id,
        version=event.version,
        effects=[
            schemas.EffectAnswer(
                subject={"kind": effect.subject.value, **effect.key},
                before=None if effect.before is None else dict(effect.before),
                after=None if effect.after is None else dict(effect.after),
            )
            for effect in event.effects
        ],
        leaf_hash=entry.leaf_hash.hex(),
    )


async def list_events(request: AnyRequest, query: schemas.EventsQuery) -> schemas.Events:
    """Return entries of the log above an index, oldest first."""
    found = await call(request, Lane.READ, log.list_events, after=query.after, limit=query.limit, model=query.model)
    items = [to_event(entry) for entry in found]
    return schemas.Events(items=items, next_after=items[-1].index if items else query.after)


async def get_log(request: AnyRequest) -> schemas.Head:
    """Return the log's size and Merkle root."""
    head = await call(request, Lane.READ, log.get_head)
    return schemas.Head(size=head.size, root=head.root.hex(), registry_id=head.registry_id)


async def get_log_entry(request: AnyRequest, index: str) -> schemas.Entry:
    """Return one entry: the exact text that is hashed, and what it says."""
    entry = await call(request, Lane.READ, log.get_event, read_whole("index", index))
    return schemas.Entry(
        index=entry.event.index, leaf=entry.leaf.decode(), leaf_hash=entry.leaf_hash.hex(), event=to_event(entry)
    )


async def prove_inclusion(request: AnyRequest, query: schemas.ProofQuery) -> schemas.InclusionProof:
    """Prove that an entry stands in the log."""
    head, hashes = await call(request, Lane.READ, log.prove_inclusion, query.index, query.size)
    return schemas.InclusionProof(
        index=query.index,
        size=head.size,
        root=head.root.hex(),
        registry_id=head.registry_id,
        hashes=[part.hex() for part in hashes],
    )


async def prove_consistency(request: AnyRequest, query: schemas.ConsistencyQuery) -> schemas.ConsistencyProof:
    """Prove that the log only grew from one size to another."""
    head, hashes = await call(request, Lane.READ, log.prove_consistency, query.first, query.second)
    return schemas.ConsistencyProof(
        first=query.first,
        second=head.size,
        root=head.root.hex(),
        registry_id=head.registry_id,
        hashes=[part.hex() for part in hashes],
    )


OPERATIONS = (
    Operation(method="GET", path="/events", handler=list_events, errors=(InvalidNameError, ModelNotFoundError)),
    Operation(method="GET", path="/log", handler=get_log),
    Operation(method="GET", path="/log/entries/{index}", handler=get_log_entry, errors=(EventNotFoundError,)),
    Operation(method="GET", path="/log/proof", handler=prove_inclusion, errors=(EventNotFoundError,)),
    Operation(method="GET", path="/log/consistency", handler=prove_consistency),
)

"""Aliases over HTTP: read one (also as of an instant), move it on a condition, take it away, read its moves."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from touchmark.domain import aliases as domain
from touchmark.domain.aliases import parse_alias
from touchmark.domain.errors import (
    AliasMovedError,
    AliasNotFoundError,
    InvalidAliasError,
    InvalidFieldError,
    InvalidNameError,
    InvalidReferenceError,
    ModelNotFoundError,
    PreconditionError,
    VersionNotFoundError,
    VersionNotReadyError,
)
from touchmark.domain.paging import check_limit
from touchmark.domain.references import parse_version_number
from touchmark.protocols.native import schemas
from touchmark.protocols.native.operations import Operation, read_whole
from touchmark.services import aliases
from touchmark.wire import AnyRequest, Lane, alias_condition, call, call_inline

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DIGITS = re.compile(r"-?[0-9]+")


def to_alias(alias: domain.Alias) -> schemas.Alias:
    """Return an alias as it goes over the wire."""
    return schemas.Alias(
        name=alias.name,
        alias=alias.alias,
        version=alias.version,
        log_index=alias.log_index,
        moved_at=alias.moved_at,
        moved_by=alias.moved_by,
    )


def parse_instant(field: str, text: str) -> int:
    """Return microseconds UTC from themselves in digits, or from an ISO 8601 date or instant with a zone.

    A date is its midnight UTC. Raises InvalidFieldError.
    """
    if _DIGITS.fullmatch(text):
        return read_whole(field, text)
    try:
        moment = datetime.fromisoformat(text if len(text) > len("2026-01-31") else f"{text}T00:00:00Z")
        if moment.tzinfo is not None:
            return (moment - _EPOCH) // timedelta(microseconds=1)
    except (ValueError, OverflowError):
        pass
    reason = "write microseconds since 1970, or a date 2026-01-31 or an instant with its zone 2026-01-31T12:00:00Z"
    raise InvalidFieldError(field=field, reason=reason)


async def list_aliases(request: AnyRequest, name: str) -> schemas.Aliases:
    """Return a model's aliases, by name."""
    return schemas.Aliases(
        items=[to_alias(alias) for alias in await call(request, Lane.READ, aliases.list_aliases, name)]
    )


async def get_alias(request: AnyRequest, name: str, alias: str, query: schemas.AliasQuery) -> schemas.Alias:
    """Return where an alias points, or pointed at an instant."""
    as_of = None if query.as_of is None else parse_instant("as_of", query.as_of)
    return to_alias(await call_inline(request, aliases.get_alias, name, parse_alias(alias), as_of=as_of))


async def set_alias(request: AnyRequest, name: str, alias: str, body: schemas.AliasTarget) -> schemas.Alias:
    """Point an alias at a version; with If-Match only if it has not moved, with If-None-Match: * only if it is new."""
    version = parse_version_number(str(body.version))
    expected = alias_condition(request)
    return to_alias(await call(request, Lane.WRITE, aliases.set_alias, name, alias, version, expected=expected))


async def delete_alias(request: AnyRequest, name: str, alias: str) -> None:
    """Take an alias away; with If-Match only if it has not moved. Its history stays."""
    expected = alias_condition(request)
    await call(request, Lane.WRITE, aliases.delete_alias, name, parse_alias(alias), expected=expected)


async def list_history(request: AnyRequest, name: str, query: schemas.HistoryQuery) -> schemas.MovePage:
    """Return the moves of a model's aliases, or of one, newest first."""
    limit = check_limit(query.limit)
    alias = None if query.alias is None else parse_alias(query.alias)
    found = await call(request, Lane.READ, aliases.list_history, name, alias, before=query.before, limit=limit + 1)
    items = [
        schemas.Move(
            name=move.name,
            alias=move.alias,
            before=move.before,
            after=move.after,
            log_index=move.log_index,
            at=move.at,
            by=move.by,
        )
        for move in found[:limit]
    ]
    return schemas.MovePage(items=items, next_cursor=str(items[-1].log_index) if len(found) > limit else None)


_ABSENT = (InvalidNameError, ModelNotFoundError)
_PATH = "/models/{name}/aliases/{alias}"

OPERATIONS = (
    Operation(method="GET", path="/models/{name}/aliases", handler=list_aliases, errors=_ABSENT),
    Operation(
        method="GET", path=_PATH, handler=get_alias, etag=True, errors=(*_ABSENT, InvalidAliasError, AliasNotFoundError)
    ),
    Operation(
        method="PUT",
        path=_PATH,
        handler=set_alias,
        etag=True,
        conditional=True,
        errors=(
            *_ABSENT,
            InvalidAliasError,
            InvalidReferenceError,
            VersionNotFoundError,
            VersionNotReadyError,
            AliasMovedError,
            PreconditionError,
        ),
    ),
    Operation(
        method="DELETE",
        path=_PATH,
        handler=delete_alias,
        conditional=True,
        errors=(*_ABSENT, InvalidAliasError, AliasNotFoundError, AliasMovedError, PreconditionError),
    ),
    Operation(
        method="GET",
        path="/models/{name}/history",
        handler=list_history,
        errors=(*_ABSENT, InvalidAliasError, AliasNotFoundError),
    ),
)

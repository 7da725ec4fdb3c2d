"""Aliases: point one at a version, take it away, read where it was."""

from __future__ import annotations

from collections.abc import Sequence

from touchmark import permissions
from touchmark.domain.access import Action, Principal, Resource
from touchmark.domain.aliases import Alias, AliasMove, check_expected_move, parse_alias
from touchmark.domain.errors import AliasNotFoundError, VersionNotReadyError
from touchmark.domain.events import Effect, EventKind, SubjectKind
from touchmark.domain.names import ModelName, parse_model_name
from touchmark.domain.tracking import check_int64
from touchmark.domain.versions import VersionState
from touchmark.registry import Registry
from touchmark.storage import aliases as rows
from touchmark.storage import ledger, models, versions


def set_alias(
    registry: Registry, who: Principal, name: str, alias: str, version: int, *, expected: int | None = None
) -> Alias:
    """Point an alias at a version; nothing happens if it points there already.

    Args:
        registry: where.
        who: who asks.
        name: the model.
        alias: the alias.
        version: a READY, undeleted number of the model.
        expected: the log index of the alias's last move as the caller saw it (-1: there was none), to move it only if
            nobody else has since.

    Raises InvalidNameError, InvalidAliasError, ModelNotFoundError, VersionNotFoundError, VersionNotReadyError,
    AliasMovedError.

    """
    name, alias = parse_model_name(name), parse_alias(alias)
    with registry.write() as tx:
        permissions.require(tx, who, Action.SET_ALIAS, Resource("model", name))
        target = versions.get_row(tx, name, version)
        if target.state != VersionState.READY:
            raise VersionNotReadyError(name=name, version=version, state=target.state)
        model_id, present = target.model_id, ModelName(target.name)
        before = rows.find_alias(tx, model_id, present, alias)
        check_expected_move(name, alias, expected=expected, found=before.log_index if before else None)
        if before is not None and before.version == version:
            return before
        effect = Effect(
            SubjectKind.ALIAS,
            {"model_id": model_id, "alias": alias},
            {"number": before.version} if before else None,
            {"number": version},
        )
        event = ledger.append(tx, who, EventKind.ALIAS_SET, [effect], model_id=model_id, name=present, version=version)
        return Alias(present, alias, version, event.index, event.at, who.id)


def delete_alias(
    registry: Registry, who: Principal, name: str, alias: str, *, expected: int | None = None, missing_ok: bool = False
) -> None:
    """Take an alias away; its history stays. `expected` is as for `set_alias`.

    Raises InvalidNameError, InvalidAliasError, ModelNotFoundError, AliasNotFoundError unless `missing_ok`, AliasMovedError.
    """
    name, alias = parse_model_name(name), parse_alias(alias)
    with registry.write() as tx:
        permissions.require(tx, who, Action.DELETE_ALIAS, Resource("model", name))
        model = models.get_row(tx, name)
        found = rows.find_alias(tx, model.model_id, name, alias)
        check_expected_move(name, alias, expected=expected, found=found.log_index if found else None)
        if found is None:
            if missing_ok:
                return
            raise AliasNotFoundError(name=name, alias=alias)
        effect = Effect(
            SubjectKind.ALIAS, {"model_id": model.model_id, "alias": alias}, {"number": found.version}, None
        )
        ledger.append(
            tx, who, EventKind.ALIAS_DELETED, [effect], model_id=model.model_id, name=name, version=found.version
        )


def get_alias(registry: Registry, who: Principal, name: str, alias: str, *, as_of: int | None = None) -> Alias:
    """Return an alias as it stands, or where it pointed at an instant (microseconds UTC).

    Raises InvalidNameError, InvalidAliasError, InvalidFieldError, ModelNotFoundError, AliasNotFoundError.
    """
    name, alias = parse_model_name(name), parse_alias(alias)
    as_of = None if as_of is None else check_int64("as_of", as_of)
    with registry.read() as tx:
        permissions.require(tx, who, Action.READ_MODEL, Resource("model", name))
        model = models.get_row(tx, name, follow=True)
        present = ModelName(model.name)
        if as_of is None:
            return rows.get_alias(tx, model.model_id, present, alias)
        move = next(
            iter(rows.list_moves(tx, model.model_id, present, alias, before_index=None, limit=1, until=as_of)), None
        )
        if move is None or move.after is None:
            raise AliasNotFoundError(name=present, alias=alias)
        return Alias(present, alias, move.after, move.log_index, move.at, move.by)


def list_aliases(registry: Registry, who: Principal, name: str) -> list[Alias]:
    """Return a model's aliases by name. Raises InvalidNameError, ModelNotFoundError."""
    name = parse_model_name(name)
    with registry.read() as tx:
        permissions.require(tx, who, Action.READ_MODEL, Resource("model", name))
        model = models.get_row(tx, name, follow=True)
        return rows.list_aliases(tx, model.model_id, ModelName(model.name))


def list_history(
    registry: Registry,
    who: Principal,
    name: str,
    alias: str | None = None,
    *,
    before: int | None = None,
    limit: int = 100,
) -> Sequence[AliasMove]:
    """Return an alias's moves (or all of a model's), newest first, those with a log index below `before`.

    Raises InvalidNameError, InvalidAliasError, InvalidFieldError, ModelNotFoundError, AliasNotFoundError of an alias that
    never was.
    """
    name = parse_model_name(name)
    alias = parse_alias(alias) if alias is not None else None
    before = None if before is None else check_int64("before", before)
    with registry.read() as tx:
        permissions.require(tx, who, Action.READ_MODEL, Resource("model", name))
        model = models.get_row(tx, name, follow=True)
        present = ModelName(model.name)
        moves = rows.list_moves(tx, model.model_id, present, alias, before_index=before, limit=limit)
        if alias is not None and not moves and before is None:
            raise AliasNotFoundError(name=present, alias=alias)
        return moves

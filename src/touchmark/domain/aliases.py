"""Aliases: movable names such as `champion` that point at one version of a model, and every move they made."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NewType

from touchmark.domain.errors import AliasMovedError, InvalidAliasError
from touchmark.domain.names import ModelName

AliasName = NewType("AliasName", str)
"""A checked alias; made by `parse_alias`."""

ALIAS_LIMIT = 128
"""Characters in an alias."""

_ALIAS = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,127}")
_NUMBER_LIKE = re.compile(r"[vV]?[0-9]+")


@dataclass(frozen=True, slots=True)
class Alias:
    """An alias as it stands. `log_index` is the entry of its last move, and its ETag; `moved_at` is microseconds UTC."""

    name: ModelName
    alias: AliasName
    version: int
    log_index: int
    moved_at: int
    moved_by: str


@dataclass(frozen=True, slots=True)
class AliasMove:
    """One move of an alias. `before` or `after` is None where it was created or deleted. `at` is microseconds UTC."""

    name: ModelName
    alias: AliasName
    before: int | None
    after: int | None
    log_index: int
    at: int
    by: str


def parse_alias(text: object) -> AliasName:
    """Return `text` as an alias. Raises InvalidAliasError."""
    if not isinstance(text, str) or _ALIAS.fullmatch(text) is None:
        reason = f"write 1 to {ALIAS_LIMIT} letters, digits, _ or - (the first one no -)"
        raise InvalidAliasError(alias=str(text)[:200], reason=reason)
    if text.lower() == "latest":
        raise InvalidAliasError(alias=text, reason="'latest' always means the newest version")
    if _NUMBER_LIKE.fullmatch(text):
        raise InvalidAliasError(alias=text, reason="it could be mistaken for a version number")
    return AliasName(text)


def check_expected_move(name: str, alias: str, *, expected: int | None, found: int | None) -> None:
    """Compare the log index the caller saw with the one in place. Raises AliasMovedError.

    Args:
        name: the model, for the message.
        alias: the alias, for the message.
        expected: log index of the alias's last move as the caller saw it; -1 means "there is no such alias".
        found: log index in place, or None if there is no such alias.

    """
    if expected is not None and expected != (-1 if found is None else found):
        shown = "nowhere" if expected == -1 else f"entry {expected}"
        now = "nowhere" if found is None else f"entry {found}"
        raise AliasMovedError(name=name, alias=alias, expected=shown, found=now)

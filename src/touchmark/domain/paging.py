"""Pages and the cursors between them.

A cursor says where the next page begins: after the last row's key, never at an offset, so rows added meanwhile shift
nothing. It is base64url without padding of one version byte, eight bytes of the SHA-256 of the query (filter, order,
and whatever else selects rows) and the key as JSON. It is no secret and no permission: who edits one gets an error or
another position in the same list, with key values of the same types. Comparing keys in SQL is storage's work.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from types import UnionType
from typing import Generic, TypeVar

from touchmark.domain.errors import InvalidCursorError, InvalidFieldError, LimitExceededError

MAX_CURSOR_CHARACTERS = 2_000
_VERSION = b"\x01"
_HASH_BYTES = 8
_INT64 = range(-(2**63), 2**63)

T = TypeVar("T")

KeyValue = str | int | float | None
"""One value of a row's key. A float may be NaN; see `rank_of` for where NaN and None stand."""


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some rows in order, and the cursor of the page after them: None if there is none."""

    items: tuple[T, ...]
    next_cursor: str | None


def check_limit(limit: int | None, default: int = 100, maximum: int = 1000) -> int:
    """Return how many rows a page may hold: `default` if nothing was asked for.

    Raises InvalidFieldError below 1 or if it is no integer, LimitExceededError above `maximum`.
    """
    if limit is None:
        return default
    if type(limit) is not int or limit < 1:  # a bool is an int to isinstance
        raise InvalidFieldError(field="limit", reason="must be a whole number from 1")
    if limit > maximum:
        raise LimitExceededError(what="A page's limit", limit=maximum, unit="rows")
    return limit


def rank_of(value: KeyValue) -> int:
    """Return 0 for an ordinary value, 1 for NaN, 2 for None: sorted by first, and so in either direction.

    Databases disagree on all of this (PostgreSQL has NaN above every number and NULL last; SQLite stores NaN as NULL
    and has NULL first), so storage sorts by this rank before the value.
    """
    if value is None:
        return 2
    return 1 if isinstance(value, float) and math.isnan(value) else 0


def query_text(*parts: str | int | None) -> str:
    """Return one text for what selects rows, to be hashed into cursors: different parts never give the same text."""
    return json.dumps(parts)


def make_cursor(query: str, key: Sequence[KeyValue]) -> str:
    """Return the cursor of the page after the row with this key.

    Raises LimitExceededError if it would be longer than MAX_CURSOR_CHARACTERS: sort by a prefix of long texts. Raises
    InvalidCursorError for a value no row can hold (a bool, an integer beyond 64 bits, a NUL or a lone surrogate).
    """
    try:
        payload = json.dumps([_encode(value) for value in key], ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        raise InvalidCursorError from None
    text = base64.urlsafe_b64encode(_VERSION + _hash(query) + payload).decode().rstrip("=")
    if len(text) > MAX_CURSOR_CHARACTERS:
        raise LimitExceededError(what="A cursor", limit=MAX_CURSOR_CHARACTERS, unit="characters")
    return text


def parse_cursor(text: str | None, query: str, types: Sequence[type | UnionType]) -> tuple[KeyValue, ...] | None:
    """Return the key in the cursor, one value for each of `types`; None for the first page (no cursor or an empty one).

    `types` are `str`, `int`, `float`, or one of them `| None` where the column may be null. Raises InvalidCursorError
    for a cursor that was edited, belongs to another query, or does not fit the types.
    """
    if text is None or text == "":
        return None
    if not isinstance(text, str) or len(text) > MAX_CURSOR_CHARACTERS:
        raise InvalidCursorError
    try:
        raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        values = json.loads(raw[len(_VERSION) + _HASH_BYTES :].decode())
        if not isinstance(values, list) or len(values) != len(types):
            raise InvalidCursorError
        key = tuple(_decode(value) for value in values)
        # Making it again compares version and hash too, and leaves one spelling for each cursor: no stray characters
        # (the decoder skips them), no spare bits, blanks, escapes or other spellings of a number.
        same = make_cursor(query, key) == text
    except (ValueError, RecursionError, LimitExceededError):  # RecursionError: a thousand brackets inside
        raise InvalidCursorError from None
    if not same or not all(isinstance(value, kind) for value, kind in zip(key, types, strict=True)):
        raise InvalidCursorError
    return key


def _encode(value: KeyValue) -> str | int | None:
    # A letter before each text keeps '0.5' and 0.5 apart; JSON's own numbers would lose NaN and the infinities.
    if value is None:
        return None
    if isinstance(value, str):
        if "\0" in value:  # PostgreSQL would refuse the statement
            raise InvalidCursorError
        return "s" + value
    if isinstance(value, float):
        return "f" + repr(float(value))
    if type(value) is int and value in _INT64:
        return value
    raise InvalidCursorError


def _decode(value: object) -> KeyValue:
    if value is None or type(value) is int:
        return value
    if isinstance(value, str) and value[:1] == "s":
        return value[1:]
    if isinstance(value, str) and value[:1] == "f":
        return float(value[1:])
    raise InvalidCursorError


def _hash(query: str) -> bytes:
    # surrogatepass: the query may come from a request as it is, and must not be what fails here
    return hashlib.sha256(query.encode("utf-8", "surrogatepass")).digest()[:_HASH_BYTES]

"""Searching model versions and registered models: filters, plain words, any order, pages that do not shift."""

from __future__ import annotations

from collections.abc import Sequence

from touchmark import permissions
from touchmark.domain.access import REGISTRY, Action, Principal
from touchmark.domain.errors import InvalidFieldError, LimitExceededError
from touchmark.domain.models import RegisteredModel
from touchmark.domain.names import NAME_LIMIT, parse_model_name
from touchmark.domain.paging import Page, check_limit, make_cursor, parse_cursor, query_text
from touchmark.domain.search import (
    And,
    Condition,
    FieldKind,
    OrderTerm,
    Searchable,
    describe,
    describe_order,
    parse_filter,
    parse_order,
    words_of,
)
from touchmark.domain.text import check_text
from touchmark.domain.versions import ModelVersion
from touchmark.registry import Registry
from touchmark.storage import models, versions
from touchmark.storage import search as rows

WORDS_LIMIT = 20
"""Words in one plain-words search."""
WORDS_TEXT_LIMIT = 1_000
"""Characters in one plain-words search."""


def search_versions(
    registry: Registry,
    who: Principal,
    *,
    filter: str | None = None,  # noqa: A002 - the word users know, in every door
    condition: Condition | None = None,
    order_by: str | Sequence[str] | None = None,
    order: Sequence[OrderTerm] | None = None,
    words: str | None = None,
    model: str | None = None,
    limit: int | None = 100,
    cursor: str | None = None,
    include_deleted: bool = False,
) -> Page[ModelVersion]:
    """Return a page of model versions; those of deleted models count as deleted.

    Args:
        registry: where.
        who: who asks.
        filter: text in the native language (domain/search.py).
        condition: the same already parsed; both must hold where both are given.
        order_by: text in the native language; newest first if nothing is given.
        order: the same already parsed, for protocols with a language of their own.
        words: plain words, each in the version's description or in its model's name, owner or description; the last
            one may be cut short. A text without a word finds nothing, a blank one asks nothing.
        model: only versions of the model that is or was called so.
        limit: rows in a page, 1 to 1000.
        cursor: where to go on, from the page before.
        include_deleted: show deleted versions too; a filter about `deleted` does so by itself.

    Raises InvalidFilterError, InvalidCursorError, InvalidFieldError, LimitExceededError, InvalidNameError,
    ModelNotFoundError.

    """
    tree = _join(parse_filter(filter, Searchable.VERSIONS), condition)
    terms = tuple(order) if order else parse_order(order_by, Searchable.VERSIONS)
    found_words = _parse_words(words)
    name = parse_model_name(model) if model is not None else None
    limit = check_limit(limit)
    deleted = include_deleted or rows.mentions(tree, FieldKind.DELETED)
    query = query_text("versions", describe(tree), describe_order(terms), _join_words(found_words), name, int(deleted))
    question = rows.Question(Searchable.VERSIONS, tree, terms, found_words, deleted=deleted)
    after = parse_cursor(cursor, query, rows.list_key_types(question))
    with registry.read() as tx:
        permissions.require(tx, who, Action.LIST_MODELS, REGISTRY)
        if name is not None:
            model_id = models.get_row(tx, name, follow=True).model_id
            question = rows.Question(Searchable.VERSIONS, tree, terms, found_words, model_id, deleted=deleted)
        found = rows.search_rows(tx, question, after=after, limit=limit)
        items = versions.to_versions(tx, found.rows)
    return Page(tuple(items), make_cursor(query, found.last_key) if found.last_key is not None else None)


def search_models(
    registry: Registry,
    who: Principal,
    *,
    filter: str | None = None,  # noqa: A002 - the word users know, in every door
    condition: Condition | None = None,
    order_by: str | Sequence[str] | None = None,
    order: Sequence[OrderTerm] | None = None,
    words: str | None = None,
    prefix: str | None = None,
    limit: int | None = 100,
    cursor: str | None = None,
) -> Page[RegisteredModel]:
    """Return a page of registered models that are not deleted, by name if no order is given.

    `words` are looked for in names, owners and descriptions; `prefix` is the literal beginning of a name, such as `risk.`;
    the rest as for `search_versions`. Raises InvalidFilterError, InvalidCursorError, InvalidFieldError,
    LimitExceededError.
    """
    tree = _join(parse_filter(filter, Searchable.MODELS), condition)
    terms = tuple(order) if order else parse_order(order_by, Searchable.MODELS)
    found_words = _parse_words(words)
    prefix = check_text("prefix", prefix, NAME_LIMIT) if prefix is not None else None
    limit = check_limit(limit)
    query = query_text("models", describe(tree), describe_order(terms), _join_words(found_words), prefix)
    question = rows.Question(Searchable.MODELS, tree, terms, found_words, prefix=prefix)
    after = parse_cursor(cursor, query, rows.list_key_types(question))
    with registry.read() as tx:
        permissions.require(tx, who, Action.LIST_MODELS, REGISTRY)
        found = rows.search_rows(tx, question, after=after, limit=limit)
        items = models.to_models(tx, found.rows)
    return Page(tuple(items), make_cursor(query, found.last_key) if found.last_key is not None else None)


def _join(parsed: Condition | None, condition: Condition | None) -> Condition | None:
    if parsed is None or condition is None:
        return condition if parsed is None else parsed
    return And((parsed, condition))


def _parse_words(text: str | None) -> tuple[str, ...] | None:
    if text is None:
        return None
    if not isinstance(text, str):
        raise InvalidFieldError(field="words", reason="write text")
    if len(text) > WORDS_TEXT_LIMIT:
        raise LimitExceededError(what="The words searched for", limit=WORDS_TEXT_LIMIT, unit="characters")
    if not text or text.isspace():
        return None
    found = tuple(words_of(text, WORDS_LIMIT + 1))
    if len(found) > WORDS_LIMIT:
        raise LimitExceededError(what="A search", limit=WORDS_LIMIT, unit="words")
    return found


def _join_words(words: tuple[str, ...] | None) -> str | None:
    return None if words is None else " ".join(words)

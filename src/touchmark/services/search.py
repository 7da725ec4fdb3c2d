"""Searching versions, models, experiments, runs and logged models: filters, any order, pages that do not shift."""

from __future__ import annotations

from collections.abc import Sequence

from touchmark import permissions
from touchmark.domain.access import REGISTRY, TRACKING, Action, Principal
from touchmark.domain.errors import InvalidFieldError, LimitExceededError
from touchmark.domain.models import RegisteredModel
from touchmark.domain.names import NAME_LIMIT, parse_model_name
from touchmark.domain.paging import KeyValue, Page, check_limit, make_cursor, parse_cursor, query_text
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
from touchmark.domain.text import check_optional_text, check_text
from touchmark.domain.tracking import Experiment, LoggedModel, Run, check_experiment_id
from touchmark.domain.versions import ModelVersion
from touchmark.registry import Registry
from touchmark.storage import experiments as experiment_rows
from touchmark.storage import logged_models as logged_model_rows
from touchmark.storage import models, versions
from touchmark.storage import runs as run_rows
from touchmark.storage import search as rows
from touchmark.storage import search_tracking as tracking

TRACKING_PAGE_LIMIT = 50_000
"""Experiments, runs or logged models in one page; what MLflow's clients may ask for."""
EXPERIMENTS_LIMIT = 10_000
"""Experiments one search may name."""
MEASURED_DATASETS_LIMIT = 100
"""Data sets one search of logged models may name."""
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
    largest: int = 1_000,
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
        limit: rows in a page, 1 to `largest`.
        cursor: where to go on, from the page before.
        include_deleted: show deleted versions too; a filter about `deleted` does so by itself.
        largest: the most a door lets a page hold.

    Raises InvalidFilterError, InvalidCursorError, InvalidFieldError, LimitExceededError, InvalidNameError,
    ModelNotFoundError.

    """
    tree = _join(parse_filter(filter, Searchable.VERSIONS), condition)
    terms = tuple(order) if order else parse_order(order_by, Searchable.VERSIONS)
    found_words = _parse_words(words)
    name = parse_model_name(model) if model is not None else None
    limit = check_limit(limit, maximum=largest)
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


# ── tracking ─────────────────────────────────────────────────────────────────────────────────────────────────────


def search_experiments(
    registry: Registry,
    who: Principal,
    *,
    filter: str | None = None,  # noqa: A002 - the word users know, in every door
    condition: Condition | None = None,
    order_by: str | Sequence[str] | None = None,
    order: Sequence[OrderTerm] | None = None,
    deleted: bool | None = False,
    limit: int | None = None,
    cursor: str | None = None,
) -> Page[Experiment]:
    """Return a page of experiments, the newest first unless an order is given.

    Args:
        registry: where.
        who: who asks.
        filter: text in the native language (domain/search.py).
        condition: the same already parsed; both must hold where both are given.
        order_by: text in the native language.
        order: the same already parsed.
        deleted: None means both sorts; so does False if the filter is about `deleted`.
        limit: rows in a page, 1 to TRACKING_PAGE_LIMIT, 1,000 if nothing is asked for.
        cursor: where to go on, from the page before.

    Raises InvalidFilterError, InvalidCursorError, InvalidFieldError, LimitExceededError.

    """
    question = _ask(Searchable.EXPERIMENTS, filter, condition, order_by, order, deleted=deleted)
    after, query, limit = _find_page(question, cursor, limit)
    with registry.read() as tx:
        permissions.require(tx, who, Action.READ_TRACKING, TRACKING)
        found = tracking.search_rows(tx, question, after=after, limit=limit)
        items = experiment_rows.to_experiments(tx, found.rows)
    return Page(tuple(items), make_cursor(query, found.last_key) if found.last_key is not None else None)


def search_runs(
    registry: Registry,
    who: Principal,
    *,
    experiments: Sequence[int] | None = None,
    filter: str | None = None,  # noqa: A002 - as above
    condition: Condition | None = None,
    order_by: str | Sequence[str] | None = None,
    order: Sequence[OrderTerm] | None = None,
    deleted: bool | None = False,
    limit: int | None = None,
    cursor: str | None = None,
) -> Page[Run]:
    """Return a page of runs, the last started first unless an order is given, with all that stands beside them.

    `experiments` None means all, and an empty list none. Schemas and profiles of data sets are left out. The rest, and
    what it raises, as for `search_experiments`.
    """
    question = _ask(Searchable.RUNS, filter, condition, order_by, order, deleted=deleted, experiments=experiments)
    after, query, limit = _find_page(question, cursor, limit)
    with registry.read() as tx:
        permissions.require(tx, who, Action.READ_TRACKING, TRACKING)
        found = tracking.search_rows(tx, question, after=after, limit=limit)
        items = run_rows.to_runs(tx, found.rows)
    return Page(tuple(items), make_cursor(query, found.last_key) if found.last_key is not None else None)


def search_logged_models(
    registry: Registry,
    who: Principal,
    *,
    experiments: Sequence[int] | None = None,
    datasets: Sequence[tuple[str, str | None]] = (),
    filter: str | None = None,  # noqa: A002 - as above
    condition: Condition | None = None,
    order_by: str | Sequence[str] | None = None,
    order: Sequence[OrderTerm] | None = None,
    deleted: bool | None = False,
    limit: int | None = None,
    cursor: str | None = None,
) -> Page[LoggedModel]:
    """Return a page of logged models, the newest first unless an order is given.

    `datasets` (name, and digest or None) keeps to models measured on one of them, and conditions on metrics to those
    measurements; a term of the order names a data set of its own (MLflow 3.17, SearchLoggedModels). The rest, and what it
    raises, as for `search_runs`.
    """
    about = Searchable.LOGGED_MODELS
    question = _ask(
        about, filter, condition, order_by, order, deleted=deleted, experiments=experiments, datasets=datasets
    )
    after, query, limit = _find_page(question, cursor, limit)
    with registry.read() as tx:
        permissions.require(tx, who, Action.READ_TRACKING, TRACKING)
        found = tracking.search_rows(tx, question, after=after, limit=limit)
        items = logged_model_rows.to_models(tx, found.rows)
    return Page(tuple(items), make_cursor(query, found.last_key) if found.last_key is not None else None)


def _ask(
    searchable: Searchable,
    text: str | None,
    condition: Condition | None,
    order_by: str | Sequence[str] | None,
    order: Sequence[OrderTerm] | None,
    *,
    deleted: bool | None,
    experiments: Sequence[int] | None = None,
    datasets: Sequence[tuple[str, str | None]] = (),
) -> tracking.Question:
    tree = _join(parse_filter(text, searchable), condition)
    terms = tuple(order) if order else parse_order(order_by, searchable)
    if deleted is False and rows.mentions(tree, FieldKind.DELETED):
        deleted = None
    wanted = None if experiments is None else tuple(sorted({check_experiment_id(number) for number in experiments}))
    if wanted is not None and len(wanted) > EXPERIMENTS_LIMIT:
        raise LimitExceededError(what="One search", limit=EXPERIMENTS_LIMIT, unit="experiments")
    if len(datasets) > MEASURED_DATASETS_LIMIT:
        raise LimitExceededError(what="One search", limit=MEASURED_DATASETS_LIMIT, unit="data sets")
    named = [term.dataset for term in terms if term.dataset is not None]
    for name, digest in (*datasets, *named):
        check_text("dataset name", name)
        check_optional_text("dataset digest", digest)
    return tracking.Question(searchable, tree, terms, deleted, wanted, tuple(datasets))


def _find_page(
    question: tracking.Question, cursor: str | None, limit: int | None
) -> tuple[tuple[KeyValue, ...] | None, str, int]:
    limit = check_limit(limit, default=1_000, maximum=TRACKING_PAGE_LIMIT)
    query = query_text(
        question.searchable.value,
        describe(question.condition),
        describe_order(question.order),
        str(question.deleted),
        str(question.experiments),
        str(question.datasets),
    )
    return parse_cursor(cursor, query, tracking.list_key_types(question)), query, limit

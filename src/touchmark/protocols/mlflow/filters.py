"""MLflow's filter and order texts as trees of domain/search.py, for each of the five things that can be searched.

    name LIKE 'risk.%' AND tags.`cost centre` != "x"                 order_by: ["last_updated_timestamp DESC", "name"]
    metrics.auc >= 0.9 AND params.depth IS NULL AND run_id IN ('a', 'b')

    filter     = { AND | comparison }
    comparison = key OPERATOR value | key [NOT] IN ( 'text' {, 'text'} [,] ) | key IS [NOT] NULL
    key        = attribute | ENTITY.NAME; a part with other characters than letters, digits and _ stands in quotes
    value      = 'text' | "text" | number

All comparisons must hold; there is no OR, no NOT before one and no bracket round one. Keywords may be in any case, names
may not. Copied from MLflow 3.17 (mlflow/utils/search_utils.py, search_logged_model_utils.py and the two SQL stores), of
which only the parts that surprise are told here:

- AND is a separator and no more: it may stand first, last, twice or not at all.
- Text has no escapes. A doubled quote or a quote after a backslash does not end it, and all these characters belong to
  it. LIKE has no escape character either.
- What is absent is empty text for run_id, user_id, source_run_id and model_type, because its clients send empty text
  for what they do not have: `run_id != 'x'` holds for a version without a run.
- A time is compared in whole milliseconds; rows have microseconds, so `=` becomes a range.
- Prompts are registered models and versions that carry a tag, and are left out unless the first condition on that tag
  asks for them; if it does not, no condition on that tag counts.

An order ends in the fields by which MLflow breaks ties. Nothing here reads rows or knows a limit of pages.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import NamedTuple, NoReturn

import msgspec

from touchmark.domain.errors import InvalidFieldError, InvalidFilterError, LimitExceededError
from touchmark.domain.search import (
    MAX_COMPARISONS,
    MAX_FILTER_CHARACTERS,
    MAX_LIST_VALUES,
    MAX_ORDER_TERMS,
    And,
    Comparison,
    Condition,
    Field,
    FieldKind,
    Not,
    Op,
    Or,
    OrderTerm,
)
from touchmark.domain.text import find_unstorable

IS_PROMPT = "mlflow.prompt.is_prompt"
"""The tag that makes a registered model, or a version, a prompt: its value is `true`."""

_INT64 = range(-(2**63), 2**63)
_INT64_CHARACTERS = 20
_QUOTED_CHARACTERS = 200


class LoggedModelOrder(msgspec.Struct, kw_only=True):
    """One term of the order of logged models, as MLflow's message SearchLoggedModels.OrderBy has it."""

    field_name: str = ""
    ascending: bool | None = True
    dataset_name: str | None = None
    dataset_digest: str | None = None


def parse_model_filter(text: str | None) -> Condition:
    """Return the condition on registered models; it leaves prompts out unless the text asks for them.

    This and the parsers below raise InvalidFilterError and InvalidFieldError, with MLflow's sentence, and
    LimitExceededError. They take linear time.
    """
    conditions = _parse_filter(text, _MODELS)
    prompts = [condition for condition in conditions if _is_about_prompts(condition)]
    if _asks_for_prompts(prompts):
        return _join(conditions)
    others = [condition for condition in conditions if condition not in prompts]
    return _join([*others, _is_no_prompt(FieldKind.TAG)])


def parse_version_filter(text: str | None) -> Condition:
    """Return the condition on model versions; it leaves prompts out unless the text asks for them.

    A version is a prompt if it or its model carries the tag, whatever other versions of the model carry.
    """
    conditions = _parse_filter(text, _VERSIONS)
    prompts = [condition for condition in conditions if _is_about_prompts(condition)]
    if _asks_for_prompts(prompts):
        return _join([_on_model_too(condition) if condition in prompts else condition for condition in conditions])
    others = [condition for condition in conditions if condition not in prompts]
    return _join([*others, _is_no_prompt(FieldKind.TAG), _is_no_prompt(FieldKind.MODEL_TAG)])


def parse_experiment_filter(text: str | None) -> Condition | None:
    """Return the condition on experiments; None, which holds always, if the text has no comparison."""
    conditions = _parse_filter(text, _EXPERIMENTS)
    return _join(conditions) if conditions else None


def parse_run_filter(text: str | None) -> Condition | None:
    """Return the condition on runs; None, which holds always, if the text has no comparison."""
    conditions = _parse_filter(text, _RUNS)
    return _join(conditions) if conditions else None


def parse_logged_model_filter(text: str | None) -> Condition | None:
    """Return the condition on logged models; None, which holds always, if the text has no comparison."""
    conditions = _parse_filter(text, _LOGGED_MODELS)
    return _join(conditions) if conditions else None


def parse_model_order(texts: Sequence[str] | None) -> tuple[OrderTerm, ...]:
    """Return the order of registered models: what is asked for, then the name."""
    terms = _parse_order(texts, _find_model_order)
    return _complete(terms, OrderTerm(Field(FieldKind.NAME), descending=False))


def parse_version_order(texts: Sequence[str] | None) -> tuple[OrderTerm, ...]:
    """Return the order of model versions: what is asked for or the last change first, then name, then version downwards."""
    terms = _parse_order(texts, lambda key: _find_attribute_order(key, _VERSION_ORDER))
    return _complete(
        terms or [OrderTerm(Field(FieldKind.UPDATED_AT), descending=True)],
        OrderTerm(Field(FieldKind.NAME), descending=False),
        OrderTerm(Field(FieldKind.VERSION), descending=True),
    )


def parse_experiment_order(texts: Sequence[str] | None) -> tuple[OrderTerm, ...]:
    """Return the order of experiments: what is asked for, then id downwards; or the newest first, then id upwards."""
    terms = _parse_order(texts, lambda key: _find_attribute_order(key, _EXPERIMENT_ORDER), repeatable=True)
    return _complete(
        terms or [OrderTerm(Field(FieldKind.CREATED_AT), descending=True)],
        OrderTerm(Field(FieldKind.EXPERIMENT_ID), descending=bool(terms)),
    )


def parse_run_order(texts: Sequence[str] | None) -> tuple[OrderTerm, ...]:
    """Return the order of runs: what is asked for, then the last started first, then the id."""
    return _complete(
        _parse_order(texts, _find_run_order),
        OrderTerm(Field(FieldKind.STARTED_AT), descending=True),
        OrderTerm(Field(FieldKind.RUN_ID), descending=False),
    )


def parse_logged_model_order(items: Sequence[LoggedModelOrder] | None) -> tuple[OrderTerm, ...]:
    """Return the order of logged models: what is asked for, then the newest first, then the id."""
    terms: list[OrderTerm] = []
    for item in items or ():
        if len(terms) == MAX_ORDER_TERMS:
            raise LimitExceededError(what="An order", limit=MAX_ORDER_TERMS, unit="terms")
        field = _find_logged_model_order(item)
        if all(term.field != field for term in terms):
            terms.append(OrderTerm(field, descending=item.ascending is False))
    return _complete(
        terms,
        OrderTerm(Field(FieldKind.CREATED_AT), descending=True),
        OrderTerm(Field(FieldKind.MODEL_ID), descending=False),
    )


# ── what may be asked of each kind of thing ──────────────────────────────────────────────────────────────────────


class _Values(Enum):
    TEXT = "text"
    NUMBER = "number"
    INTEGER = "integer"  # written as a number or as text
    ID = "id"  # an integer, written as text
    MILLISECONDS = "milliseconds"
    WHOLE_MILLISECONDS = "whole milliseconds"


_EQUALITY = frozenset({Op.EQ, Op.NE})
_ORDERING = _EQUALITY | {Op.LT, Op.LE, Op.GT, Op.GE}
_LISTS = frozenset({Op.IN, Op.NOT_IN})
_LIKES = _EQUALITY | {Op.LIKE, Op.ILIKE}
_NULLS = frozenset({Op.IS_NULL, Op.IS_NOT_NULL})


@dataclass(frozen=True)
class _Rule:
    """One attribute, or all keys of one entity. With `is_text_if_absent` an absent value counts as empty text."""

    kind: FieldKind
    operators: frozenset[Op] = _LIKES
    values: _Values = _Values.TEXT
    is_text_if_absent: bool = False


def _time(kind: FieldKind, *, whole: bool = False) -> _Rule:
    return _Rule(kind, _ORDERING, _Values.WHOLE_MILLISECONDS if whole else _Values.MILLISECONDS)


@dataclass(frozen=True)
class _Language:
    """The filters of one kind of thing. `entities` are the words before the point, each with what it means here.

    The two sentences are MLflow's, filled in with the names in braces.
    """

    entities: Mapping[str, str]
    attributes: Mapping[str, _Rule]
    keyed: Mapping[str, _Rule]
    datasets: Mapping[str, _Rule]
    entity_sentence: str
    clause_sentence: str = "Invalid clause(s) in filter string: {clauses}"
    operator_sentence: str = "Invalid comparator '{op}' not one of '{allowed}'"
    unavailable: Mapping[str, str] = msgspec.UNSET  # type: ignore[assignment]
    is_lax: bool = False



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
from functools import partial
from typing import NamedTuple, NoReturn

import msgspec

from touchmark.domain.errors import InvalidFieldError, InvalidFilterError, LimitExceededError
from touchmark.domain.models import PROMPT_TAG
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

_INT64 = range(-(2**63), 2**63)
_INTEGER_CHARACTERS = 40
_QUOTED_CHARACTERS = 200


class LoggedModelOrder(msgspec.Struct, kw_only=True):
    """One term of the order of logged models, as MLflow's message SearchLoggedModels.OrderBy has it."""

    field_name: str | None = None
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
    terms = _parse_order(texts, partial(_find_order, language=_VERSION_ORDER))
    return _complete(
        terms or [OrderTerm(Field(FieldKind.UPDATED_AT), descending=True)],
        OrderTerm(Field(FieldKind.NAME), descending=False),
        OrderTerm(Field(FieldKind.VERSION), descending=True),
    )


def parse_experiment_order(texts: Sequence[str] | None) -> tuple[OrderTerm, ...]:
    """Return the order of experiments: what is asked for, then id downwards; or the newest first, then id upwards."""
    terms = _parse_order(texts, partial(_find_order, language=_EXPERIMENT_ORDER), repeatable=True)
    return _complete(
        terms or [OrderTerm(Field(FieldKind.CREATED_AT), descending=True)],
        OrderTerm(Field(FieldKind.EXPERIMENT_ID), descending=bool(terms)),
    )


def parse_run_order(texts: Sequence[str] | None) -> tuple[OrderTerm, ...]:
    """Return the order of runs: what is asked for, then the last started first, then the id."""
    return _complete(
        _parse_order(texts, partial(_find_order, language=_RUN_ORDER)),
        OrderTerm(Field(FieldKind.STARTED_AT), descending=True),
        OrderTerm(Field(FieldKind.RUN_ID), descending=False),
    )


def parse_logged_model_order(items: Sequence[LoggedModelOrder] | None) -> tuple[OrderTerm, ...]:
    """Return the order of logged models: what is asked for, then the newest first, then the id."""
    terms: list[OrderTerm] = []
    for item in items or ():
        if len(terms) == MAX_ORDER_TERMS:
            raise LimitExceededError(what="An order", limit=MAX_ORDER_TERMS, unit="terms")
        field, dataset = _find_logged_model_order(item), None
        if field.kind is FieldKind.METRIC and item.dataset_name:
            dataset = item.dataset_name, item.dataset_digest or None
        if all((term.field, term.dataset) != (field, dataset) for term in terms):
            terms.append(OrderTerm(field, descending=item.ascending is False, dataset=dataset))
    return _complete(
        terms,
        OrderTerm(Field(FieldKind.CREATED_AT), descending=True),
        OrderTerm(Field(FieldKind.MODEL_ID), descending=False),
    )


# ── what may be asked of each kind of thing ──────────────────────────────────────────────────────────────────────


class _Values(Enum):
    TEXT = "text"
    NUMBER = "number"
    INTEGER = "integer"  # written as a number or in quotes
    ID = "id"  # an integer in quotes
    MILLISECONDS = "milliseconds"
    WHOLE_MILLISECONDS = "whole milliseconds"


_EQUALITY = frozenset({Op.EQ, Op.NE})
_LIKES = _EQUALITY | {Op.LIKE, Op.ILIKE}
_LISTS = frozenset({Op.IN, Op.NOT_IN})
_ORDERING = _EQUALITY | {Op.LT, Op.LE, Op.GT, Op.GE}
_NULLS = frozenset({Op.IS_NULL, Op.IS_NOT_NULL})


@dataclass(frozen=True)
class _Rule:
    """What may be asked of one attribute, or of each key of an entity. `absent_is_empty`: the absent is empty text."""

    kind: FieldKind
    operators: frozenset[Op] = _LIKES
    values: _Values = _Values.TEXT
    absent_is_empty: bool = False


@dataclass(frozen=True)
class _Language:
    """What may be named, and MLflow's sentences about what may not.

    `entities` are the words before the point, each with the entity it means; `named` are the entities with a fixed set
    of names, `keyed` those with any key. Without a point, the attribute is meant. A language that `takes_bare_text`
    needs no quotes round text, and no backticks round keys like `val-loss`.
    """

    entities: Mapping[str, str]
    named: Mapping[str, Mapping[str, _Rule]]
    keyed: Mapping[str, _Rule]
    stray_sentence: str = "Invalid clause(s) in filter string: {strays}"
    entity_sentence: str = "Invalid entity type '{entity}'. Valid entity types are {entities}"
    operator_sentence: str = "Invalid comparator '{op}' not one of '{allowed}'"
    null_sentence: str = "Invalid comparator '{op}' for '{key}'"
    takes_bare_text: bool = False


def _time(kind: FieldKind, values: _Values = _Values.MILLISECONDS) -> _Rule:
    return _Rule(kind, _ORDERING, values)


_FEW_ENTITIES = {"attribute": "attribute", "tag": "tag", "tags": "tag"}
_CATALOGUE_OPERATOR_SENTENCE = "Invalid comparator for {entity}: {op}"
_TAG, _PARAM = _Rule(FieldKind.TAG), _Rule(FieldKind.PARAM)
_NULLABLE_TAG = _Rule(FieldKind.TAG, _LIKES | _NULLS)
_METRIC = _Rule(FieldKind.METRIC, _ORDERING, _Values.NUMBER)

_MODELS = _Language(
    entities=_FEW_ENTITIES,
    named={"attribute": {"name": _Rule(FieldKind.NAME, _LIKES | _LISTS)}},
    keyed={"tag": _TAG},
    operator_sentence=_CATALOGUE_OPERATOR_SENTENCE,
)
_MODEL_ORDER: Mapping[str, FieldKind] = {
    "name": FieldKind.NAME,
    "timestamp": FieldKind.UPDATED_AT,
    "last_updated_timestamp": FieldKind.UPDATED_AT,
}

_VERSIONS = _Language(
    entities=_FEW_ENTITIES,
    named={
        "attribute": {
            "name": _Rule(FieldKind.NAME, _LIKES | _LISTS),
            "run_id": _Rule(FieldKind.RUN_ID, _LIKES | _LISTS, absent_is_empty=True),
            "source_path": _Rule(FieldKind.SOURCE),
            "version_number": _Rule(FieldKind.VERSION, _ORDERING, _Values.INTEGER),
        }
    },
    keyed={"tag": _TAG},
    operator_sentence=_CATALOGUE_OPERATOR_SENTENCE,
)
_VERSION_ORDER = _Language(
    entities=_FEW_ENTITIES,
    named={
        "attribute": {
            "name": _Rule(FieldKind.NAME),
            "version_number": _Rule(FieldKind.VERSION),
            "creation_timestamp": _Rule(FieldKind.CREATED_AT),
            "last_updated_timestamp": _Rule(FieldKind.UPDATED_AT),
        }
    },
    keyed={},
)

_EXPERIMENTS = _Language(
    entities=_FEW_ENTITIES,
    named={
        "attribute": {
            "name": _Rule(FieldKind.NAME),
            "experiment_id": _Rule(FieldKind.EXPERIMENT_ID, _EQUALITY | _LISTS, _Values.ID),
            "creation_time": _time(FieldKind.CREATED_AT, _Values.WHOLE_MILLISECONDS),
            "last_update_time": _time(FieldKind.UPDATED_AT, _Values.WHOLE_MILLISECONDS),
        }
    },
    keyed={"tag": _NULLABLE_TAG},
    null_sentence="IS NULL / IS NOT NULL is only supported for tags, not for {entity} '{key}'",
)
_EXPERIMENT_ORDER = replace(_EXPERIMENTS, keyed={})

_RUN_ENTITIES = {
    **dict.fromkeys(("attribute", "attributes", "attr", "run"), "attribute"),
    **dict.fromkeys(("parameter", "parameters", "param", "params"), "parameter"),
    **dict.fromkeys(("metric", "metrics"), "metric"),
    **dict.fromkeys(("tag", "tags"), "tag"),
    **dict.fromkeys(("dataset", "datasets"), "dataset"),
}
_RUN_NAME, _RUN_STARTED_AT = _Rule(FieldKind.NAME), _time(FieldKind.STARTED_AT)
_RUN_ATTRIBUTES = {
    "run_id": _Rule(FieldKind.RUN_ID, _LIKES | _LISTS),
    "run_name": _RUN_NAME,
    "status": _Rule(FieldKind.STATUS),
    "user_id": _Rule(FieldKind.USER, absent_is_empty=True),
    "start_time": _RUN_STARTED_AT,
    "created": _RUN_STARTED_AT,
    "Created": _RUN_STARTED_AT,
    "end_time": _time(FieldKind.ENDED_AT),
}
_RUNS = _Language(
    entities=_RUN_ENTITIES,
    named={
        "attribute": {**_RUN_ATTRIBUTES, "run name": _RUN_NAME, "Run name": _RUN_NAME, "Run Name": _RUN_NAME},
        "dataset": {
            "name": _Rule(FieldKind.DATASET_NAME, _LIKES | _LISTS),
            "digest": _Rule(FieldKind.DATASET_DIGEST, _LIKES | _LISTS),
            "context": _Rule(FieldKind.DATASET_CONTEXT, _LIKES | _LISTS),
        },
    },
    keyed={"tag": _NULLABLE_TAG, "parameter": _Rule(FieldKind.PARAM, _LIKES | _NULLS), "metric": _METRIC},
    stray_sentence="Invalid clause(s) in filter string: {quoted_strays}",
    entity_sentence="Invalid entity type '{entity}'. Valid values are {entities}",
    null_sentence="IS NULL / IS NOT NULL is only supported for tags and params, not for '{entity}' '{key}'",
)
_RUN_ORDER = replace(
    _RUNS, named={"attribute": _RUN_ATTRIBUTES}, keyed={"tag": _TAG, "parameter": _PARAM, "metric": _METRIC}
)

_LOGGED_MODEL_CREATED_AT = _time(FieldKind.CREATED_AT)
_LOGGED_MODEL_UPDATED_AT = _time(FieldKind.UPDATED_AT)
_LOGGED_MODELS = _Language(
    entities={"attributes": "attribute", "metrics": "metric", "params": "parameter", "tags": "tag"},
    named={
        "attribute": {
            "name": _Rule(FieldKind.NAME, _LIKES | _LISTS),
            "model_id": _Rule(FieldKind.MODEL_ID, _LIKES | _LISTS),
            "model_type": _Rule(FieldKind.MODEL_TYPE, _LIKES | _LISTS, absent_is_empty=True),
            "status": _Rule(FieldKind.STATUS, _LIKES | _LISTS),
            "source_run_id": _Rule(FieldKind.RUN_ID, _LIKES | _LISTS, absent_is_empty=True),
            **dict.fromkeys(("creation_timestamp", "creation_time", "creation_timestamp_ms"), _LOGGED_MODEL_CREATED_AT),
            **dict.fromkeys(
                ("last_updated_timestamp", "last_updated_time", "last_updated_timestamp_ms"), _LOGGED_MODEL_UPDATED_AT
            ),
        }
    },
    keyed={
        "tag": _Rule(FieldKind.TAG, _LIKES | _LISTS),
        "parameter": _Rule(FieldKind.PARAM, _LIKES | _LISTS),
        "metric": _METRIC,
    },
    stray_sentence=(
        "Invalid filter string: '{text}'. Expected a list of comparisons separated by 'AND' "
        "(e.g. 'metrics.loss > 0.1 AND params.lr = 0.01')."
    ),
    entity_sentence="Invalid entity type: '{entity}'. Expected one of {entities}.",
    operator_sentence="Invalid comparison operator for {entity} {key}: '{op}'. Expected one of {allowed}.",
    takes_bare_text=True,
)


# ── prompts ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _is_about_prompts(condition: Condition) -> bool:
    return isinstance(condition, Comparison) and condition.field == Field(FieldKind.TAG, PROMPT_TAG)


def _asks_for_prompts(conditions: Sequence[Condition]) -> bool:
    if not conditions or not isinstance(first := conditions[0], Comparison):
        return False
    value = str(first.value).lower()
    return (first.op is Op.EQ and value == "true") or (first.op is Op.NE and value == "false")


def _is_no_prompt(kind: FieldKind) -> Condition:
    return Not(Comparison(Field(kind, PROMPT_TAG), Op.EQ, "true"))  # plain negation: no tag, no prompt


def _on_model_too(condition: Condition) -> Condition:
    if not isinstance(condition, Comparison):
        return condition
    return Or((condition, replace(condition, field=Field(FieldKind.MODEL_TAG, PROMPT_TAG))))


# ── orders ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _parse_order(
    texts: Sequence[str] | None, find_field: Callable[[_Text, _Token], Field], *, repeatable: bool = False
) -> list[OrderTerm]:
    terms: list[OrderTerm] = []
    for number, clause in enumerate(texts or ()):
        if number == MAX_ORDER_TERMS:
            raise LimitExceededError(what="An order", limit=MAX_ORDER_TERMS, unit="terms")
        text = _Text(clause, "order_by")
        key, descending = _split_order(text)
        field = find_field(text, key)
        if all(term.field != field for term in terms):
            terms.append(OrderTerm(field, descending))
        elif not repeatable:
            text.fail(f"`order_by` contains duplicate fields: {_shorten(str(list(texts or ())))}")
    return terms


def _split_order(text: _Text) -> tuple[_Token, bool]:
    """Return the key, and whether it is sorted by downwards."""
    tokens = text.tokens
    if not tokens or len(tokens) > 2 or tokens[0].kind != "name":
        text.fail(f"Invalid order_by clause '{_shorten(text.text)}'. Could not be parsed.")
    direction = tokens[1].text.upper() if len(tokens) == 2 else "ASC"
    if direction not in ("ASC", "DESC"):
        text.fail(f"Invalid ordering key in order_by clause '{_shorten(text.text)}'.", tokens[1].position)
    return tokens[0], direction == "DESC"


def _find_model_order(text: _Text, key: _Token) -> Field:
    kind = _MODEL_ORDER.get(_unquote(key.text))
    if kind is None:
        valid = _braces(_MODEL_ORDER)
        text.fail(f"Invalid order by key '{_shorten(key.text)}' specified. Valid keys are '{valid}'", key.position)
    return Field(kind)


def _find_order(text: _Text, key: _Token, language: _Language) -> Field:
    entity, name = _split_key(text, key, language)
    if entity not in language.named and entity not in language.keyed:
        text.fail(f"Invalid order_by entity: {entity}", key.position)
    return _find_rule(text, entity, name, language, key.position)[1]


def _find_logged_model_order(item: LoggedModelOrder) -> Field:
    name = item.field_name or ""
    text = _Text(name, "order_by")
    if item.dataset_digest and not item.dataset_name:
        text.fail("`dataset_digest` can only be specified if `dataset_name` is also specified.")
    entity, point, key = name.partition(".")
    if point and entity != "metrics":
        text.fail(f"Invalid order by field name: {_shorten(name)}. Only metrics are supported.")
    if point:
        return Field(FieldKind.METRIC, key)
    rule = _LOGGED_MODELS.named["attribute"].get(name.strip())
    if rule is None:
        text.fail(f"Invalid order by field name: {_shorten(name)}")
    return Field(rule.kind)


def _complete(terms: Sequence[OrderTerm], *last: OrderTerm) -> tuple[OrderTerm, ...]:
    there = {term.field for term in terms}
    return (*terms, *(term for term in last if term.field not in there))


# ── filters ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _parse_filter(text: str | None, language: _Language) -> list[Condition]:
    """Return what must hold, one condition for each comparison."""
    if text is None or text == "":
        return []
    source = _Text(text, "filter")
    if not source.tokens:
        source.fail(f"Invalid filter '{_shorten(text)}'. Could not be parsed.")
    clauses = _read_clauses(source, language)
    if len(clauses) > MAX_COMPARISONS:
        raise LimitExceededError(what="A filter", limit=MAX_COMPARISONS, unit="comparisons")
    return [_translate(source, clause, language) for clause in clauses]


def _join(conditions: Sequence[Condition]) -> Condition:
    return conditions[0] if len(conditions) == 1 else And(tuple(conditions))


def _translate(text: _Text, clause: _Clause, language: _Language) -> Condition:
    left, op, value = clause
    if left.kind != "name" and not (left.kind == "sum" and language.takes_bare_text):
        text.fail(f"Invalid comparison clause. Expected 'Identifier' found '{_shorten(left.text)}'", left.position)
    entity, name = _split_key(text, left, language)
    rule, field = _find_rule(text, entity, name, language, left.position)
    found = None if value is None else _read_value(text, value, entity, name, rule, language)
    if op not in rule.operators:
        sentence = language.null_sentence if value is None else language.operator_sentence
        allowed = _braces(rule.operators)
        text.fail(sentence.format(op=op, entity=entity, key=_shorten(name), allowed=allowed), left.position)
    return _compare(field, Op(op), found, rule)


def _split_key(text: _Text, key: _Token, language: _Language) -> tuple[str, str]:
    """Return the entity that a key belongs to, as `attribute` or the like, and its name without quotes."""
    word, point, name = key.text.partition(".")
    if not point:
        return "attribute", _unquote(word)
    entity = language.entities.get(_unquote(word))
    if entity is None:
        entities = list(language.entities)
        text.fail(language.entity_sentence.format(entity=_shorten(word), entities=entities), key.position)
    return entity, _unquote(name)


def _find_rule(text: _Text, entity: str, name: str, language: _Language, position: int) -> tuple[_Rule, Field]:
    if entity in language.keyed:
        rule = language.keyed[entity]
        return rule, Field(rule.kind, name)
    names = language.named[entity]
    if name not in names:
        text.fail(f"Invalid {entity} key '{_shorten(name)}' specified. Valid keys are '{_braces(names)}'", position)
    return names[name], Field(names[name].kind)


def _unquote(name: str) -> str:
    """Return a name without its quotes, then without its backticks."""
    for quotes in ("'\"", "`"):
        if len(name) >= 2 and name[0] == name[-1] and name[0] in quotes:
            name = name[1:-1]
    return name


# ── values ───────────────────────────────────────────────────────────────────────────────────────────────────────

_Found = str | int | float | tuple[str, ...] | tuple[int, ...]


def _read_value(text: _Text, value: _Token, entity: str, name: str, rule: _Rule, language: _Language) -> _Found:
    """Return the value of a comparison, a tuple for a list; a time is left in milliseconds."""
    if rule.values is _Values.NUMBER:
        number = _to_number(value)
        if number is None:
            text.fail(f"Expected numeric value type for {entity}. Found {_shorten(value.text)}", value.position)
        return float(number)
    if rule.values in (_Values.MILLISECONDS, _Values.WHOLE_MILLISECONDS):
        number = _to_number(value)
        if number is None:
            sentence = f"Expected numeric value type for numeric attribute: {name}. Found {_shorten(value.text)}"
            text.fail(sentence, value.position)
        if rule.values is _Values.WHOLE_MILLISECONDS and isinstance(number, float):
            text.fail(f"Invalid value for numeric attribute '{name}': '{_shorten(value.text)}'", value.position)
        return number
    if rule.values is _Values.INTEGER:
        written = value.text if value.kind == "number" else _read_text(text, value, entity, rule, language)
        integer = _to_int64(str(written))
        if integer is None:
            text.fail(f"Invalid value for numeric attribute '{name}': {_shorten(value.text)}", value.position)
        return integer
    found = _read_text(text, value, entity, rule, language)
    if rule.values is _Values.ID:
        return tuple(_to_id(text, item) for item in found) if isinstance(found, tuple) else _to_id(text, found)
    return found


def _read_text(text: _Text, value: _Token, entity: str, rule: _Rule, language: _Language) -> str | tuple[str, ...]:
    if value.kind == "list" and Op.IN in rule.operators:
        return _read_list(text, value)
    if value.kind == "list" and entity == "attribute":
        names = sorted(key for key, other in language.named[entity].items() if Op.IN in other.operators)
        text.fail(f"Only {names} attributes support comparison with a list of quoted string values.", value.position)
    if value.kind == "text":
        return value.text.strip("'") if language.takes_bare_text else value.text[1:-1]
    if _is_quoted(value):
        return value.text[1:-1]
    if value.kind == "list" or (value.kind == "number" and not language.takes_bare_text):
        what = f"{entity} (e.g. 'my-value')" if entity in language.keyed else f"{entity}s"
        text.fail(f"Expected a quoted string value for {what}. Got value {_shorten(value.text)}", value.position)
    if not language.takes_bare_text:
        sentence = (
            "Parameter value is either not quoted or unidentified quote types used for string value "
            f"{_shorten(value.text)}. Use either single or double quotes."
        )
        text.fail(sentence, value.position)
    return value.text


def _read_list(text: _Text, value: _Token) -> tuple[str, ...]:
    """Return the texts of a list, without repetitions; a comma may follow the last."""
    start = "While parsing a list in the query, expected"
    items, commas = value.items[::2], value.items[1::2]
    if not items:
        text.fail(f"{start} a non-empty list of string values, but got empty list", value.position)
    if any(item.kind == "number" for item in items):
        sentence = f"{start} string value, punctuation, or whitespace, but got different type in list: "
        text.fail(sentence + _shorten(value.text), value.position)
    is_list = all(item.kind == "text" or _is_quoted(item) for item in items) and all(c.text == "," for c in commas)
    if not is_list:
        text.fail(f"{start} a non-empty list of string values, but got ill-formed list.", value.position)
    if len(items) > MAX_LIST_VALUES:
        raise LimitExceededError(what="A list after IN", limit=MAX_LIST_VALUES, unit="values")
    return tuple(dict.fromkeys(item.text[1:-1] for item in items))


def _is_quoted(value: _Token) -> bool:
    return value.kind == "name" and len(value.text) >= 2 and value.text[0] == value.text[-1] == '"'


def _to_number(value: _Token) -> int | float | None:
    """Return a finite number, an int if it is written as one."""
    if value.kind != "number":
        return None
    if len(value.text) <= _INTEGER_CHARACTERS and value.text.lstrip("+-").isdigit():
        return int(value.text)
    number = float(value.text)
    return number if math.isfinite(number) else None


def _to_int64(written: str) -> int | None:
    # The length comes first: int() raises on thousands of digits, and takes long for fewer. And only an int may be looked
    # for in a range: for anything else, None too, Python walks through all of its 2**64 numbers.
    if len(written) > _INTEGER_CHARACTERS:
        return None
    try:
        number = int(written)
    except ValueError:
        return None
    return number if number in _INT64 else None


def _to_id(text: _Text, written: str) -> int:
    number = _to_int64(written)
    if number is None:
        text.fail(f"Invalid experiment ID '{_shorten(written)}'. Experiment ID must be a valid integer.")
    return number


# ── conditions ───────────────────────────────────────────────────────────────────────────────────────────────────


def _compare(field: Field, op: Op, value: _Found | None, rule: _Rule) -> Condition:
    if rule.values in (_Values.MILLISECONDS, _Values.WHOLE_MILLISECONDS) and isinstance(value, int | float):
        return _compare_time(field, op, value)
    if op in (Op.LIKE, Op.ILIKE) and isinstance(value, str):
        # MLflow's language cannot escape a wildcard; in ours a backslash does
        value = value.replace("\\", "\\\\")
    comparison = Comparison(field, op, value)
    if rule.absent_is_empty and _holds_for_empty(op, value):
        return Or((comparison, Comparison(field, Op.IS_NULL, None)))
    return comparison


def _holds_for_empty(op: Op, value: _Found | None) -> bool:
    if op in (Op.LIKE, Op.ILIKE):
        return not str(value).strip("%")
    if isinstance(value, tuple):
        return ("" in value) is (op is Op.IN)
    return (value == "") is (op is Op.EQ)


def _compare_time(field: Field, op: Op, value: float) -> Condition:
    """Return the condition on microseconds that says the same of the whole milliseconds in them.

    A value between two milliseconds equals none, so `=` becomes a range without a moment.
    """
    first, after = math.ceil(value), math.floor(value) + 1
    if op is Op.EQ:
        return And((_at(field, Op.GE, first), _at(field, Op.LT, after)))
    if op is Op.NE:
        return Or((_at(field, Op.LT, first), _at(field, Op.GE, after)))
    if op in (Op.LT, Op.GE):
        return _at(field, op, first)
    return _at(field, Op.LT if op is Op.LE else Op.GE, after)


def _at(field: Field, op: Op, milliseconds: int) -> Comparison:
    return Comparison(field, op, min(max(milliseconds * 1000, _INT64[0]), _INT64[-1]))


# ── words of the language ────────────────────────────────────────────────────────────────────────────────────────

# Every repetition is possessive: nothing is tried twice, so the time is linear whatever the text. A quoted text that does
# not end is dealt with in _Text.
_TOKEN = re.compile(
    r"""(?P<blank>\s++)
    |(?P<number>[+-]?+(?:[0-9]++(?:\.[0-9]*+)?+|\.[0-9]++)(?:[eE][+-]?+[0-9]++)?+(?![\w.]))
    |(?P<name>
        (?:\w++|`(?:[^`]|``)*+`|"(?:""|\\"|[^"])*+")
        (?:\.(?:\w++|`(?:[^`]|``)*+`|"(?:""|\\"|[^"])*+"|'(?:''|\\'|[^'])*+'))*+
        (?P<rest>(?:[-/]\w++)*+)
    )
    |(?P<text>'(?:''|\\'|[^'])*+')
    |(?P<sign>[<>=!~]++)
    |(?P<mark>[(),])""",
    re.VERBOSE,
)
_KEYWORDS = frozenset({"AND", "OR", "NOT", "IN", "IS", "NULL", "LIKE", "ILIKE", "RLIKE", "TRUE", "FALSE"})
_OPERANDS = frozenset({"name", "sum", "text", "number"})


class _Token(NamedTuple):
    """A word of a text, as written.

    kind: name (with points and quotes, also a text in double quotes), sum (a name with - or / in it), keyword, text,
    number, sign, mark, list, other (no word of the language), or end.
    """

    kind: str
    text: str
    position: int  # from 0
    items: tuple[_Token, ...] = ()  # of a list, with the commas

    @property
    def word(self) -> str:
        """The keyword in capitals; for all others their kind."""
        return self.text.upper() if self.kind == "keyword" else self.kind


class _Clause(NamedTuple):
    """One comparison: the operator with its words in capitals and one blank between; no value for IS [NOT] NULL."""

    left: _Token
    op: str
    value: _Token | None


class _Text:
    """A text and the tokens in it."""

    def __init__(self, text: str, what: str) -> None:
        if not isinstance(text, str):
            raise InvalidFieldError(field=what, reason="must be text")
        if len(text) > MAX_FILTER_CHARACTERS:
            named = "A filter" if what == "filter" else "An order"
            raise LimitExceededError(what=named, limit=MAX_FILTER_CHARACTERS, unit="characters")
        unstorable = find_unstorable(text)
        if unstorable is not None:
            raise InvalidFieldError(field=what, reason=unstorable)
        self.text = text
        self.tokens = self._read_tokens()

    def fail(self, sentence: str, position: int = 0) -> NoReturn:
        """Raise InvalidFilterError with MLflow's sentence and a position from 0."""
        raise InvalidFilterError(sentence, text=self.text, position=position + 1, reason=sentence)

    def _read_tokens(self) -> list[_Token]:
        text, tokens, at = self.text, list[_Token](), 0
        while at < len(text):
            match = _TOKEN.match(text, at)
            if match is None:
                token = self._read_unended(at)
            else:
                kind = str(match.lastgroup)
                if kind == "name":
                    kind = "sum" if match["rest"] else "keyword" if match[0].upper() in _KEYWORDS else "name"
                token = _Token(kind, match[0], at)
            if token.kind != "blank":
                tokens.append(token)
            at += len(token.text)
        return tokens

    def _read_unended(self, at: int) -> _Token:
        """Return a quoted text whose end the pattern did not find, or one character that begins nothing."""
        quote = self.text[at]
        if quote not in "'\"`":
            return _Token("other", quote, at)
        end = self.text.rfind(quote)
        if end > at and self.text[end - 1] == "\\" and quote != "`":
            return _Token("text" if quote == "'" else "name", self.text[at : end + 1], at)  # 'C:\models\'
        return _Token("other", self.text[at:], at)


def _read_clauses(text: _Text, language: _Language) -> list[_Clause]:
    """Return the comparisons of a filter; raise InvalidFilterError if there is anything between them but AND."""
    tokens = [*text.tokens, *[_Token("end", "", len(text.text))] * 4]
    clauses: list[_Clause] = []
    strays: list[_Token] = []
    at = 0
    while tokens[at].kind != "end":
        found = _read_clause(text.text, tokens, at)
        if found is not None:
            clauses.append(found[0])
            at = found[1]
        else:
            if tokens[at].word != "AND":
                strays.append(tokens[at])
            at += 1
    if strays:
        sentence = language.stray_sentence.format(
            strays=_shorten(", ".join(stray.text for stray in strays)),
            quoted_strays=_shorten(", ".join(f"'{stray.text}'" for stray in strays)),
            text=_shorten(text.text),
        )
        text.fail(sentence, strays[0].position)
    return clauses


def _read_clause(text: str, tokens: Sequence[_Token], at: int) -> tuple[_Clause, int] | None:
    """Return the comparison that begins at a token and where it ends; None if none begins there."""
    left = tokens[at]
    if left.kind not in _OPERANDS:
        return None
    words = [token.word for token in tokens[at + 1 : at + 4]]
    match words:
        case ["IS", "NULL", _]:
            return _Clause(left, "IS NULL", None), at + 3
        case ["IS", "NOT", "NULL"]:
            return _Clause(left, "IS NOT NULL", None), at + 4
        case ["NOT", "IN" | "LIKE" | "ILIKE" | "RLIKE", _]:
            op, at = f"NOT {words[1]}", at + 3
        case ["IN" | "LIKE" | "ILIKE" | "RLIKE", _, _]:
            op, at = words[0], at + 2
        case ["sign", _, _]:
            op, at = tokens[at + 1].text, at + 2
        case _:
            return None
    if op.endswith("IN"):
        found = _gather_list(text, tokens, at)
        return None if found is None else (_Clause(left, op, found[0]), found[1])
    return (_Clause(left, op, tokens[at]), at + 1) if tokens[at].kind in _OPERANDS else None


def _gather_list(text: str, tokens: Sequence[_Token], at: int) -> tuple[_Token, int] | None:
    """Return all from a bracket to the one that closes it as one token; None if there is no such bracket.

    A list ends before the next opening bracket, so no token is looked at twice.
    """
    if tokens[at].text != "(":
        return None
    end = at + 1
    while tokens[end].kind != "end" and tokens[end].text not in ("(", ")"):
        end += 1
    if tokens[end].text != ")":
        return None
    start = tokens[at].position
    written = text[start : tokens[end].position + 1]
    return _Token("list", written, start, tuple(tokens[at + 1 : end])), end + 1


def _braces(words: Iterable[str]) -> str:
    return "{" + ", ".join(f"'{word}'" for word in sorted(words)) + "}"


def _shorten(text: str) -> str:
    return text if len(text) <= _QUOTED_CHARACTERS else text[:_QUOTED_CHARACTERS] + "…"

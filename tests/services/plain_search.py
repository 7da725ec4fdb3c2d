"""What a search means, in plain Python, and random questions to put to both."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cmp_to_key
from typing import Any

from hypothesis import strategies as st

from touchmark.domain.paging import Page, rank_of
from touchmark.domain.search import (
    FIELDS,
    KEYED,
    And,
    Comparison,
    Condition,
    Field,
    FieldKind,
    Not,
    Op,
    Or,
    OrderTerm,
    Searchable,
    ValueType,
)


@dataclass
class Thing:
    """A row as the question sees it: for each field the values that are there, the one to sort by first."""

    id: Any
    name: str
    is_deleted: bool
    values: Callable[[Field], list[Any]]
    terms: set[str] = field(default_factory=set)


def holds(condition: Condition | None, thing: Thing) -> bool:
    if condition is None:
        return True
    if isinstance(condition, Not):
        return not holds(condition.item, thing)
    if isinstance(condition, And):
        return all(holds(item, thing) for item in condition.items)
    if isinstance(condition, Or):
        return any(holds(item, thing) for item in condition.items)
    values = thing.values(condition.field)
    if condition.op is Op.IS_NULL:
        return not values
    return any(matches(value, condition.op, condition.value) for value in values)


def matches(value: Any, op: Op, wanted: Any) -> bool:
    if op is Op.IS_NOT_NULL:
        return True
    if op in (Op.LIKE, Op.NOT_LIKE, Op.ILIKE, Op.NOT_ILIKE):
        if op in (Op.ILIKE, Op.NOT_ILIKE):
            value, wanted = fold(value), fold(wanted)
        return (pattern_of(wanted).fullmatch(value) is not None) is (op in (Op.LIKE, Op.ILIKE))
    if op in (Op.IN, Op.NOT_IN):
        return (value in wanted) is (op is Op.IN)
    return {
        Op.EQ: value == wanted, Op.NE: value != wanted, Op.LT: op is Op.LT and value < wanted, Op.LE: op is Op.LE and value <= wanted,
        Op.GT: op is Op.GT and value > wanted, Op.GE: op is Op.GE and value >= wanted,
    }[op]  # fmt: skip


def fold(text: str) -> str:
    return "".join(char.lower() if "A" <= char <= "Z" else char for char in text)


def pattern_of(like: str) -> re.Pattern[str]:
    parts = re.findall(r"\\.|.", like, re.DOTALL)
    return re.compile("".join({"%": ".*", "_": "."}.get(p, re.escape(p[-1])) for p in parts), re.DOTALL)


def sort_things(
    things: Sequence[Thing], order: Sequence[OrderTerm], long_kinds: Collection[FieldKind], *, is_tie_descending: bool
) -> list[Any]:
    """Return the ids in order. Of fields of `long_kinds` the beginning counts; the id breaks ties."""

    def key_of(thing: Thing) -> list[Any]:
        key: list[Any] = []
        for number, term in enumerate(order):
            value = next(iter(thing.values(term.field)), None)
            if term.field.kind in long_kinds and value is not None:
                value = value[: 60 if number else 200]
            key.append(value)
        return [*key, thing.id]

    descending = [*(term.descending for term in order), is_tie_descending]

    def compare(one: Thing, other: Thing) -> int:
        for a, b, is_down in zip(key_of(one), key_of(other), descending, strict=True):
            if rank_of(a) != rank_of(b):
                return rank_of(a) - rank_of(b)
            if rank_of(a) == 0 and a != b:
                return 1 if (a < b) is is_down else -1
        return 0

    return [thing.id for thing in sorted(things, key=cmp_to_key(compare))]


@dataclass(frozen=True)
class Vocabulary:
    """What random questions are about: texts and keys by field, and those of all other fields."""

    texts: Mapping[FieldKind, Sequence[str]]
    other_texts: Sequence[str]
    keys: Mapping[FieldKind, Sequence[str]]
    other_keys: Sequence[str]
    times: st.SearchStrategy[int]
    numbers: Sequence[float] = (0.5, 0.9, 0.0, -0.0, 1.0, 1e300, -1e300, 0.1)


def draw_field(draw: st.DrawFn, kind: FieldKind, words: Vocabulary) -> Field:
    keys = words.keys.get(kind, words.other_keys)
    return Field(kind, draw(st.sampled_from(keys)) if kind in KEYED else None)


@st.composite
def patterns(draw: st.DrawFn, texts: Sequence[str]) -> str:
    """Draw a LIKE pattern that has to do with one of the texts."""
    text = draw(st.sampled_from(texts))
    start = draw(st.integers(0, 3))
    piece = (
        text[start : start + draw(st.integers(0, 250))] if draw(st.booleans()) else text[: draw(st.integers(0, 210))]
    )
    if draw(st.booleans()):
        piece = piece.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    else:
        piece = piece.replace("\\", "_")
    if draw(st.booleans()):
        piece = piece.swapcase()
    return draw(st.sampled_from(["", "%", "_"])) + piece + draw(st.sampled_from(["", "%", "%", "_"]))


@st.composite
def comparisons(draw: st.DrawFn, searchable: Searchable, words: Vocabulary) -> Comparison:
    kind = draw(st.sampled_from(list(FIELDS[searchable])))
    rule = FIELDS[searchable][kind]
    op = draw(st.sampled_from(sorted(rule.operators)))
    values: st.SearchStrategy[Any]
    if rule.type is ValueType.TEXT:
        texts = words.texts.get(kind, words.other_texts)
        values = patterns(texts) if op in (Op.LIKE, Op.NOT_LIKE, Op.ILIKE, Op.NOT_ILIKE) else st.sampled_from(texts)
    elif rule.type is ValueType.INTEGER:
        values = st.one_of(st.integers(0, 25), st.sampled_from([-1, 2**31, 2**40, -(2**63), 2**63 - 1]))
    elif rule.type is ValueType.TIME:
        values = words.times
    elif rule.type is ValueType.NUMBER:
        values = st.sampled_from(words.numbers)
    else:
        values = st.booleans()
    if op in (Op.IS_NULL, Op.IS_NOT_NULL):
        return Comparison(draw_field(draw, kind, words), op, None)
    if op in (Op.IN, Op.NOT_IN):
        chosen = tuple(dict.fromkeys(draw(st.lists(values, min_size=1, max_size=4))))
        return Comparison(draw_field(draw, kind, words), op, chosen)
    return Comparison(draw_field(draw, kind, words), op, draw(values))


def conditions(searchable: Searchable, words: Vocabulary) -> st.SearchStrategy[Condition | None]:
    def extend(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        several = st.lists(inner, min_size=2, max_size=3).map(tuple)
        return st.one_of(several.map(And), several.map(Or), inner.map(Not))

    return st.none() | st.recursive(comparisons(searchable, words), extend, max_leaves=4)


@st.composite
def orders(draw: st.DrawFn, searchable: Searchable, words: Vocabulary) -> tuple[OrderTerm, ...]:
    kinds = [kind for kind, rule in FIELDS[searchable].items() if rule.sortable]
    chosen = draw(st.lists(st.sampled_from(kinds), min_size=1, max_size=3))
    fields = dict.fromkeys(draw_field(draw, kind, words) for kind in chosen)
    return tuple(OrderTerm(one, draw(st.booleans())) for one in fields)


def walk(search: Callable[[str | None], Page[Any]], limit: int) -> list[Any]:
    """Return what all pages hold."""
    found: list[Any] = []
    cursor: str | None = None
    while True:
        page = search(cursor)
        found += page.items
        cursor = page.next_cursor
        if cursor is None:
            return found
        assert len(page.items) == limit

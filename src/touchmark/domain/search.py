"""What may be searched for, as a tree of conditions, and the native language such a tree is written in.

    tags.team = 'risk' AND metrics.auc >= 0.9
    name LIKE 'risk.%' AND (alias = 'champion' OR NOT deprecated = true)
    created_at >= '2026-01-01' AND inputs.age = 'double' AND model_tags.`cost centre` IN ('a', 'b')

    filter     = all {OR all};  all = term {AND term};  term = NOT term | ( filter ) | comparison
    comparison = FIELD OPERATOR VALUE | FIELD [NOT] IN ( VALUE, ... ) | FIELD IS [NOT] NULL
    field      = a name of FIELDS, or `tags.KEY` and the like; a KEY with other characters than letters, digits, _ . - /
                 stands in backticks or double quotes, doubled inside
    value      = 'text' ('' for a quote), a number, true or false; for a time an ISO 8601 date (its midnight UTC) or
                 instant with a zone, in single quotes, or whole microseconds since 1970 UTC

Keywords may be in any case, field names may not. Another protocol with a filter text of its own builds the same tree.

What a condition means, for whoever turns one into SQL:

- A comparison on something that is not there (a tag, param, metric or column without that key; an empty run_id) is
  false, `!=`, NOT IN and NOT LIKE included. IS NULL asks for its absence. NOT is plain negation: `NOT tags.a = 'x'`
  holds where there is no tag `a`, so SQL's third truth value must not reach a NOT.
- A field with many values holds if one of them does. An alias or a flavor has no negative operators: `NOT alias = 'x'`.
  The data sets of a run have them: `dataset_name != 'x'` holds if it read another one.
- A metric that is NaN matches `!=` and IS NOT NULL, and nothing else. A run's metric is its latest value; a logged model's
  metric has as many values as it has measurements.
- LIKE is case-sensitive, `%` any characters, `_` one, a backslash takes the next one literally. ILIKE ignores the case
  of A to Z and of nothing else, so that both databases agree.

Nothing here reads rows or knows SQL.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import NamedTuple, NoReturn

from touchmark.domain.errors import InvalidFieldError, InvalidFilterError, LimitExceededError
from touchmark.domain.text import find_unstorable

MAX_FILTER_CHARACTERS = 10_000
MAX_COMPARISONS = 100
MAX_NESTING = 20
MAX_LIST_VALUES = 500
MAX_ORDER_TERMS = 10
MAX_WORD_CHARACTERS = 64

_INT64 = range(-(2**63), 2**63)
_INT64_CHARACTERS = 20
_QUOTED_CHARACTERS = 50


class Searchable(StrEnum):
    """What a filter is about."""

    VERSIONS = "versions"
    MODELS = "models"
    EXPERIMENTS = "experiments"
    RUNS = "runs"
    LOGGED_MODELS = "logged_models"


class ValueType(StrEnum):
    """The type of a field's values: str, int, int (microseconds UTC), float (always finite in a filter), bool."""

    TEXT = "text"
    INTEGER = "integer"
    TIME = "time"
    NUMBER = "number"
    BOOLEAN = "boolean"


class Op(StrEnum):
    """A comparison's operator, spelled as in the native language."""

    EQ = "="
    NE = "!="
    LT = "<"
    LE = "<="
    GT = ">"
    GE = ">="
    LIKE = "LIKE"
    NOT_LIKE = "NOT LIKE"
    ILIKE = "ILIKE"
    NOT_ILIKE = "NOT ILIKE"
    IN = "IN"
    NOT_IN = "NOT IN"
    IS_NULL = "IS NULL"
    IS_NOT_NULL = "IS NOT NULL"


class FieldKind(StrEnum):
    """A field, spelled as in the native language; those of TAG and below take a key."""

    NAME = "name"
    VERSION = "version"
    ALIAS = "alias"
    AUTHOR = "author"
    OWNER = "owner"
    CREATED_AT = "created_at"
    UPDATED_AT = "updated_at"
    DIGEST = "digest"
    CONTENT_DIGEST = "content_digest"
    RUN_ID = "run_id"
    SOURCE = "source"
    STATE = "state"
    STAGE = "stage"
    SEALED = "sealed"
    DEPRECATED = "deprecated"
    DELETED = "deleted"
    DESCRIPTION = "description"
    FRAMEWORK = "framework"
    FLAVOR = "flavor"
    EXPERIMENT_ID = "experiment_id"
    STATUS = "status"
    USER = "user"
    STARTED_AT = "started_at"
    ENDED_AT = "ended_at"
    MODEL_ID = "model_id"
    MODEL_TYPE = "model_type"
    DATASET_NAME = "dataset_name"
    DATASET_DIGEST = "dataset_digest"
    DATASET_CONTEXT = "dataset_context"
    TAG = "tags"
    MODEL_TAG = "model_tags"
    PARAM = "params"
    METRIC = "metrics"
    INPUT = "inputs"
    OUTPUT = "outputs"


KEYED = frozenset(
    {FieldKind.TAG, FieldKind.MODEL_TAG, FieldKind.PARAM, FieldKind.METRIC, FieldKind.INPUT, FieldKind.OUTPUT}
)
"""The fields that take a key, written `tags.KEY`."""

_MANY = frozenset({FieldKind.ALIAS, FieldKind.FLAVOR})
_DATASET = frozenset({FieldKind.DATASET_NAME, FieldKind.DATASET_DIGEST, FieldKind.DATASET_CONTEXT})
_NEGATIVE = frozenset({Op.NE, Op.NOT_LIKE, Op.NOT_ILIKE, Op.NOT_IN})
_NULL_OPS = frozenset({Op.IS_NULL, Op.IS_NOT_NULL})
_ORDERING = frozenset({Op.LT, Op.LE, Op.GT, Op.GE})
_PATTERN = frozenset({Op.LIKE, Op.NOT_LIKE, Op.ILIKE, Op.NOT_ILIKE})
_EQUALITY = frozenset({Op.EQ, Op.NE})
_LIST = frozenset({Op.IN, Op.NOT_IN})
# No < on texts: params are texts, and '10' < '9' would answer without a word what nobody asked.
_TYPE_OPS: Mapping[ValueType, frozenset[Op]] = {
    ValueType.TEXT: _EQUALITY | _PATTERN | _LIST,
    ValueType.INTEGER: _EQUALITY | _ORDERING | _LIST,
    ValueType.TIME: _EQUALITY | _ORDERING,
    ValueType.NUMBER: _EQUALITY | _ORDERING,
    ValueType.BOOLEAN: _EQUALITY,
}


@dataclass(frozen=True, slots=True)
class FieldRule:
    """What may be asked of one field."""

    type: ValueType
    operators: frozenset[Op]
    sortable: bool


def _rule(kind: FieldKind, value_type: ValueType, *, nullable: bool = False) -> FieldRule:
    operators = _TYPE_OPS[value_type]
    if kind in _MANY:
        operators -= _NEGATIVE
    if nullable:
        operators |= _NULL_OPS
    unsortable = _MANY | _DATASET | {FieldKind.DESCRIPTION, FieldKind.INPUT, FieldKind.OUTPUT}
    return FieldRule(value_type, operators, sortable=kind not in unsortable)


def _rules(
    always: Mapping[FieldKind, ValueType], nullable: Mapping[FieldKind, ValueType]
) -> Mapping[FieldKind, FieldRule]:
    rules = {kind: _rule(kind, value_type) for kind, value_type in always.items()}
    rules |= {kind: _rule(kind, value_type, nullable=True) for kind, value_type in nullable.items()}
    return {kind: rules[kind] for kind in FieldKind if kind in rules}


FIELDS: Mapping[Searchable, Mapping[FieldKind, FieldRule]] = {
    Searchable.VERSIONS: _rules(
        {
            FieldKind.NAME: ValueType.TEXT,
            FieldKind.VERSION: ValueType.INTEGER,
            FieldKind.CREATED_AT: ValueType.TIME,
            FieldKind.UPDATED_AT: ValueType.TIME,
            FieldKind.STATE: ValueType.TEXT,
            FieldKind.SEALED: ValueType.BOOLEAN,
            FieldKind.DEPRECATED: ValueType.BOOLEAN,
            FieldKind.DELETED: ValueType.BOOLEAN,
        },
        {
            FieldKind.ALIAS: ValueType.TEXT,
            FieldKind.AUTHOR: ValueType.TEXT,
            FieldKind.DIGEST: ValueType.TEXT,  # an unsealed version has neither digest
            FieldKind.CONTENT_DIGEST: ValueType.TEXT,
            FieldKind.RUN_ID: ValueType.TEXT,
            FieldKind.SOURCE: ValueType.TEXT,
            FieldKind.STAGE: ValueType.TEXT,
            FieldKind.DESCRIPTION: ValueType.TEXT,
            FieldKind.FRAMEWORK: ValueType.TEXT,
            FieldKind.FLAVOR: ValueType.TEXT,
            FieldKind.TAG: ValueType.TEXT,
            FieldKind.MODEL_TAG: ValueType.TEXT,
            FieldKind.PARAM: ValueType.TEXT,
            FieldKind.METRIC: ValueType.NUMBER,
            FieldKind.INPUT: ValueType.TEXT,
            FieldKind.OUTPUT: ValueType.TEXT,
        },
    ),
    Searchable.MODELS: _rules(
        {
            FieldKind.NAME: ValueType.TEXT,
            FieldKind.CREATED_AT: ValueType.TIME,
            FieldKind.UPDATED_AT: ValueType.TIME,
        },
        {
            FieldKind.ALIAS: ValueType.TEXT,
            FieldKind.OWNER: ValueType.TEXT,
            FieldKind.DESCRIPTION: ValueType.TEXT,
            FieldKind.TAG: ValueType.TEXT,
        },
    ),
    Searchable.EXPERIMENTS: _rules(
        {
            FieldKind.NAME: ValueType.TEXT,
            FieldKind.EXPERIMENT_ID: ValueType.INTEGER,
            FieldKind.CREATED_AT: ValueType.TIME,
            FieldKind.UPDATED_AT: ValueType.TIME,
            FieldKind.DELETED: ValueType.BOOLEAN,
        },
        {FieldKind.TAG: ValueType.TEXT},
    ),
    Searchable.RUNS: _rules(
        {
            FieldKind.NAME: ValueType.TEXT,
            FieldKind.RUN_ID: ValueType.TEXT,
            FieldKind.EXPERIMENT_ID: ValueType.INTEGER,
            FieldKind.STATUS: ValueType.TEXT,
            FieldKind.STARTED_AT: ValueType.TIME,
            FieldKind.CREATED_AT: ValueType.TIME,
            FieldKind.DELETED: ValueType.BOOLEAN,
        },
        {
            FieldKind.USER: ValueType.TEXT,  # may be empty
            FieldKind.ENDED_AT: ValueType.TIME,
            FieldKind.DATASET_NAME: ValueType.TEXT,
            FieldKind.DATASET_DIGEST: ValueType.TEXT,
            FieldKind.DATASET_CONTEXT: ValueType.TEXT,
            FieldKind.TAG: ValueType.TEXT,
            FieldKind.PARAM: ValueType.TEXT,
            FieldKind.METRIC: ValueType.NUMBER,
        },
    ),
    Searchable.LOGGED_MODELS: _rules(
        {
            FieldKind.NAME: ValueType.TEXT,
            FieldKind.MODEL_ID: ValueType.TEXT,
            FieldKind.EXPERIMENT_ID: ValueType.INTEGER,
            FieldKind.STATUS: ValueType.TEXT,
            FieldKind.CREATED_AT: ValueType.TIME,
            FieldKind.UPDATED_AT: ValueType.TIME,
            FieldKind.DELETED: ValueType.BOOLEAN,
        },
        {
            FieldKind.RUN_ID: ValueType.TEXT,
            FieldKind.MODEL_TYPE: ValueType.TEXT,
            FieldKind.TAG: ValueType.TEXT,
            FieldKind.PARAM: ValueType.TEXT,
            FieldKind.METRIC: ValueType.NUMBER,
        },
    ),
}
"""Every field of each kind of thing, with its type and operators: what the parser, its errors and the docs go by."""

Scalar = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Field:
    """A field; `key` is None exactly when the kind takes none."""

    kind: FieldKind
    key: str | None = None

    def __str__(self) -> str:
        """Return the field as the native language writes it."""
        if self.key is None:
            return str(self.kind)
        if _BARE_KEY.fullmatch(self.key):
            return f"{self.kind}.{self.key}"
        return f"{self.kind}.`{self.key.replace('`', '``')}`"


@dataclass(frozen=True, slots=True)
class Comparison:
    """One comparison. `value` is of the field's type; a tuple of such for IN and NOT IN; None for IS [NOT] NULL."""

    field: Field
    op: Op
    value: Scalar | tuple[Scalar, ...] | None


@dataclass(frozen=True, slots=True)
class And:
    """All of two or more conditions."""

    items: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """At least one of two or more conditions."""

    items: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """The plain negation of a condition."""

    item: Condition


Condition = Comparison | And | Or | Not


@dataclass(frozen=True, slots=True)
class OrderTerm:
    """One field to sort by.

    `dataset` (name, and digest or None) is for a metric of logged models: the latest measurement on that data set counts.
    The native language cannot say it.
    """

    field: Field
    descending: bool
    dataset: tuple[str, str | None] | None = None


DEFAULT_ORDER: Mapping[Searchable, tuple[OrderTerm, ...]] = {
    Searchable.VERSIONS: (OrderTerm(Field(FieldKind.CREATED_AT), descending=True),),
    Searchable.MODELS: (OrderTerm(Field(FieldKind.NAME), descending=False),),
    Searchable.EXPERIMENTS: (
        OrderTerm(Field(FieldKind.CREATED_AT), descending=True),
        OrderTerm(Field(FieldKind.EXPERIMENT_ID), descending=False),
    ),
    Searchable.RUNS: (
        OrderTerm(Field(FieldKind.STARTED_AT), descending=True),
        OrderTerm(Field(FieldKind.RUN_ID), descending=False),
    ),
    Searchable.LOGGED_MODELS: (
        OrderTerm(Field(FieldKind.CREATED_AT), descending=True),
        OrderTerm(Field(FieldKind.MODEL_ID), descending=False),
    ),
}


def parse_filter(text: str | None, searchable: Searchable) -> Condition | None:
    """Return the condition written in `text`; None, which holds always, if there is none or it is blank.

    The tree is at most three times MAX_NESTING deep, so it may be walked recursively. Raises InvalidFilterError with
    the position of the fault in characters from 1, and LimitExceededError for one of this module's limits.
    """
    if text is None:
        return None
    parser = _Parser(text, searchable, "filter")
    return None if parser.is_at_end() else parser.parse_condition()


def parse_order(text: str | Sequence[str] | None, searchable: Searchable) -> tuple[OrderTerm, ...]:
    """Return the terms of "created_at DESC, name", or of a sequence of such texts; DEFAULT_ORDER if there are none.

    The last tie-breaker, some unique key, is added by storage. Raises InvalidFilterError (an unknown or repeated field,
    with the position from 1 in the text that holds it) and LimitExceededError.
    """
    if text is None:
        return DEFAULT_ORDER[searchable]
    if not isinstance(text, Sequence):
        raise InvalidFieldError(field="order", reason="must be text or a list of texts")
    texts = [text] if isinstance(text, str) else text
    terms: list[OrderTerm] = []
    for part in texts[: MAX_ORDER_TERMS + 1]:  # each part holds a term or is blank; the check below does the rest
        parser = _Parser(part, searchable, "order")
        if not parser.is_at_end():
            parser.parse_terms(terms)
    if len(texts) > MAX_ORDER_TERMS:
        raise LimitExceededError(what="An order", limit=MAX_ORDER_TERMS, unit="terms")
    return tuple(terms) or DEFAULT_ORDER[searchable]


def describe(condition: Condition | None) -> str:
    """Return the canonical text of a condition; "" for None.

    `parse_filter` gives the same tree back for each tree it made, unless one near MAX_FILTER_CHARACTERS grew past it.
    """
    if condition is None:
        return ""
    if isinstance(condition, Comparison):
        return _describe_comparison(condition)
    if isinstance(condition, Not):
        inner = describe(condition.item)
        return f"NOT ({inner})" if isinstance(condition.item, And | Or) else f"NOT {inner}"
    # AND binds tighter, so an And inside an Or goes bare: no more brackets than the text that was parsed had.
    bracketed, word = (And | Or, " AND ") if isinstance(condition, And) else (Or, " OR ")
    return word.join(
        f"({describe(item)})" if isinstance(item, bracketed) else describe(item) for item in condition.items
    )


def describe_order(order: Sequence[OrderTerm]) -> str:
    """Return the canonical text of an order: what `parse_order` takes, unless a term is about one data set."""
    return ", ".join(f"{_describe_term(term)} {'DESC' if term.descending else 'ASC'}" for term in order)


def words_of(text: str, limit: int = 200) -> list[str]:
    """Return the words of `text` for plain-words search: distinct, in order, at most `limit`.

    A word is a run of letters and digits after NFKC and case folding, cut at MAX_WORD_CHARACTERS. The same function
    makes the index and the question. Never raises for a str; time is linear.
    """
    words: dict[str, None] = {}
    # In slices, because normalizing one long run of combining marks takes quadratic time: 1.3 s for 40,000 of them.
    for piece in _PIECE.finditer(text):
        # Folding can undo the normal form, hence twice (Unicode Standard section 3.13, toNFKC_Casefold).
        folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", piece[0]).casefold())
        for word in _WORD.finditer(folded):
            if len(words) >= limit:
                return list(words)
            words[word[0][:MAX_WORD_CHARACTERS]] = None
    return list(words)


# ── canonical text ───────────────────────────────────────────────────────────────────────────────────────────────


def _describe_comparison(comparison: Comparison) -> str:
    value = comparison.value
    if value is None:
        return f"{comparison.field} {comparison.op}"
    if isinstance(value, tuple):
        return f"{comparison.field} {comparison.op} ({', '.join(map(_describe_scalar, value))})"
    return f"{comparison.field} {comparison.op} {_describe_scalar(value)}"


def _describe_term(term: OrderTerm) -> str:
    if term.dataset is None:
        return str(term.field)
    name, digest = term.dataset
    return f"{term.field} ON {_describe_scalar(name)}" + ("" if digest is None else f" {_describe_scalar(digest)}")


def _describe_scalar(value: Scalar) -> str:
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value)


# ── words of the language ────────────────────────────────────────────────────────────────────────────────────────

_BARE_KEY = re.compile(r"[\w./-]+")
_PIECE = re.compile(r"\S{1,500}")
_WORD = re.compile(r"[^\W_]+")
# Every repetition is possessive: nothing is tried twice, so the time is linear whatever the text.
_TOKEN = re.compile(
    r"""(?P<blank>[ \t\r\n\f\v]++)
    |(?P<word>(?P<head>[A-Za-z_][A-Za-z0-9_]*+)(?:\.(?P<key>`(?:[^`]|``)*+`|"(?:[^"]|"")*+"|[\w./-]++))?+)
    |(?P<text>'(?:[^']|'')*+')
    |(?P<number>[+-]?+(?:[0-9]++\.?+[0-9]*+|\.[0-9]++)(?:[eE][+-]?+[0-9]++)?+)
    |(?P<sign><=|>=|!=|<>|==|[=<>(),])""",
    re.VERBOSE,
)
_KEYWORDS = frozenset({"AND", "OR", "NOT", "IN", "LIKE", "ILIKE", "IS", "NULL", "TRUE", "FALSE", "ASC", "DESC"})
_INSTANT = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?(Z|[+-][0-9]{2}:[0-9]{2}))?"
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class _Token(NamedTuple):
    kind: str  # word, keyword, text, number, sign or end
    text: str  # as written; a keyword in capitals
    position: int  # from 0
    head: str = ""
    key: str | None = None


class _Parser:
    """One text being parsed: its tokens, and how far it got. Recursion is bounded by MAX_NESTING."""

    def __init__(self, text: str, searchable: Searchable, what: str) -> None:
        if not isinstance(text, str):
            raise InvalidFieldError(field=what, reason="must be text")
        if len(text) > MAX_FILTER_CHARACTERS:
            raise LimitExceededError(
                what="A filter" if what == "filter" else "An order", limit=MAX_FILTER_CHARACTERS, unit="characters"
            )
        self._text = text
        self._searchable = searchable
        self._fields = FIELDS[searchable]
        self._comparisons = 0
        self._at = 0
        self._tokens = self._read_tokens()

    def is_at_end(self) -> bool:
        return self._tokens[self._at].kind == "end"

    def parse_condition(self) -> Condition:
        condition = self._parse_or(0)
        if not self.is_at_end():
            self._fail("expected AND, OR or the end")
        return condition

    def parse_terms(self, terms: list[OrderTerm]) -> None:
        """Append the terms of an order to those already found."""
        while True:
            position = self._tokens[self._at].position
            field, rule = self._parse_field()
            if not rule.sortable:
                self._fail(f"{field.kind} cannot be sorted by", position)
            if any(term.field == field for term in terms):
                self._fail(f"{_shorten(str(field))} stands twice in the order", position)
            descending = self._take("keyword", "DESC")
            if not descending:
                self._take("keyword", "ASC")
            if len(terms) == MAX_ORDER_TERMS:
                raise LimitExceededError(what="An order", limit=MAX_ORDER_TERMS, unit="terms")
            terms.append(OrderTerm(field, descending))
            if self.is_at_end():
                return
            if not self._take("sign", ","):
                self._fail("expected ASC, DESC, a comma or the end")

    # tokens

    def _read_tokens(self) -> list[_Token]:
        text, tokens, at = self._text, list[_Token](), 0
        unstorable = find_unstorable(text)
        if unstorable is not None:
            self._fail(unstorable, next(i for i, c in enumerate(text) if c == "\0" or "\ud800" <= c <= "\udfff"))
        while at < len(text):
            match = _TOKEN.match(text, at)
            if match is None:
                self._fail_character(at)
            kind, written = str(match.lastgroup), match[0]
            if kind == "word":
                tokens.append(self._read_word(match))
            elif kind != "blank":
                tokens.append(_Token(kind, written, at))
            at = match.end()
            if kind in ("word", "number") and _BARE_KEY.match(text, at):
                if kind == "word":
                    self._fail_character(at)
                self._fail(f"unexpected character {text[at]!r} after a number", at)
        tokens.append(_Token("end", "the end", len(text)))
        return tokens

    def _read_word(self, match: re.Match[str]) -> _Token:
        written, key = match[0], match["key"]
        if key is None:
            upper = written.upper()
            if upper in _KEYWORDS:
                return _Token("keyword", upper, match.start())
        elif key[0] in '`"':
            key = key[1:-1].replace(key[0] * 2, key[0])
            if not key:
                self._fail("the key is empty", match.start("key"))
        return _Token("word", written, match.start(), match["head"], key)

    def _fail_character(self, at: int) -> NoReturn:
        character = self._text[at]
        if character == "'":
            self._fail("this text has no closing quote", at)
        if character in '`"':
            self._fail("write text in single quotes; backticks and double quotes are for keys, as in tags.`my key`", at)
        if character == "." and at and (self._text[at - 1].isalnum() or self._text[at - 1] == "_"):
            self._fail("expected a key after the point: letters, digits, _ . - / or any text in closed backticks", at)
        self._fail(f"unexpected character {character!r}", at)

    def _take(self, kind: str, text: str) -> bool:
        token = self._tokens[self._at]
        if token.kind == kind and token.text == text:
            self._at += 1
            return True
        return False

    def _fail(self, reason: str, position: int | None = None) -> NoReturn:
        if position is None:
            token = self._tokens[self._at]
            position = token.position
            reason += ", found the end" if token.kind == "end" else f", found {_shorten(token.text)}"
        # What is sent back must be text that can be sent.
        text = self._text.encode("utf-8", "replace").decode()
        raise InvalidFilterError(text=text, position=position + 1, reason=reason)

    # conditions

    def _parse_or(self, depth: int) -> Condition:
        items = [self._parse_and(depth)]
        while self._take("keyword", "OR"):
            items.append(self._parse_and(depth))
        return items[0] if len(items) == 1 else Or(tuple(items))

    def _parse_and(self, depth: int) -> Condition:
        items = [self._parse_term(depth)]
        while self._take("keyword", "AND"):
            items.append(self._parse_term(depth))
        return items[0] if len(items) == 1 else And(tuple(items))

    def _parse_term(self, depth: int) -> Condition:
        if depth > MAX_NESTING:
            raise LimitExceededError(what="A filter", limit=MAX_NESTING, unit="levels of brackets and NOT deep")
        if self._take("keyword", "NOT"):
            return Not(self._parse_term(depth + 1))
        if self._take("sign", "("):
            condition = self._parse_or(depth + 1)
            if not self._take("sign", ")"):
                self._fail("expected AND, OR or a closing bracket")
            return condition
        return self._parse_comparison()

    def _parse_comparison(self) -> Comparison:
        self._comparisons += 1
        if self._comparisons > MAX_COMPARISONS:
            raise LimitExceededError(what="A filter", limit=MAX_COMPARISONS, unit="comparisons")
        field, rule = self._parse_field()
        op = self._parse_operator(field, rule)
        if op in _NULL_OPS:
            return Comparison(field, op, None)
        if op in _LIST:
            return Comparison(field, op, self._parse_list(field, rule))
        position = self._tokens[self._at].position
        value = self._parse_scalar(field, rule)
        if op in _PATTERN and isinstance(value, str) and _ends_in_escape(value):
            # PostgreSQL fails on such a pattern when it meets a row, SQLite matches nothing
            self._fail("the pattern ends in a lone backslash; write \\\\ for a backslash", position)
        return Comparison(field, op, value)

    def _parse_field(self) -> tuple[Field, FieldRule]:
        token = self._tokens[self._at]
        if token.kind != "word":
            self._fail("expected a field")
        rule = self._fields.get(FieldKind(token.head)) if token.head in _KINDS else None
        if rule is None:
            allowed = ", ".join(f"{kind}.KEY" if kind in KEYED else kind for kind in self._fields)
            reason = f"{self._searchable} have no field {_shorten(token.head)}; they have {allowed}"
            self._fail(reason, token.position)
        kind = FieldKind(token.head)
        if kind in KEYED and token.key is None:
            self._fail(f"{kind} needs a key: {kind}.KEY", token.position)
        if kind not in KEYED and token.key is not None:
            self._fail(f"{kind} takes no key", token.position)
        self._at += 1
        return Field(kind, token.key), rule

    def _parse_operator(self, field: Field, rule: FieldRule) -> Op:
        start = self._tokens[self._at]
        allowed = ", ".join(op for op in Op if op in rule.operators)
        op: Op | None = None
        if start.kind == "sign" and start.text in _SIGNS:
            self._at += 1
            op = Op(start.text)
        elif self._take("keyword", "IS"):
            op = Op.IS_NOT_NULL if self._take("keyword", "NOT") else Op.IS_NULL
            if not self._take("keyword", "NULL"):
                self._fail("expected NULL" if op is Op.IS_NOT_NULL else "expected NULL or NOT NULL")
        else:
            negated = self._take("keyword", "NOT")
            token = self._tokens[self._at]
            if token.kind == "keyword" and token.text in ("LIKE", "ILIKE", "IN"):
                self._at += 1
                op = Op(f"NOT {token.text}" if negated else token.text)
        if op is None:
            self._fail(f"expected an operator; {field.kind} takes {allowed}")
        if op not in rule.operators:
            hint = "; put NOT before the whole comparison" if field.kind in _MANY and op in _NEGATIVE else ""
            self._fail(f"{field.kind} does not take {op}, it takes {allowed}{hint}", start.position)
        return op

    def _parse_list(self, field: Field, rule: FieldRule) -> tuple[Scalar, ...]:
        if not self._take("sign", "("):
            self._fail("expected a list in brackets")
        values: list[Scalar] = []
        while True:
            if len(values) == MAX_LIST_VALUES:
                raise LimitExceededError(what="A list after IN", limit=MAX_LIST_VALUES, unit="values")
            values.append(self._parse_scalar(field, rule))
            if self._take("sign", ")"):
                return tuple(dict.fromkeys(values))
            if not self._take("sign", ","):
                self._fail("expected a comma or a closing bracket")

    # values

    def _parse_scalar(self, field: Field, rule: FieldRule) -> Scalar:
        token = self._tokens[self._at]
        value: Scalar | None = None
        if rule.type is ValueType.TEXT:
            wanted = "text in single quotes"
            value = _read_text(token)
        elif rule.type is ValueType.INTEGER:
            wanted = "a whole number of at most 64 bits"
            value = _read_integer(token)
        elif rule.type is ValueType.NUMBER:
            wanted = "a finite number without quotes"
            value = _read_number(token)
        elif rule.type is ValueType.BOOLEAN:
            wanted = "true or false, without quotes"
            value = token.text == "TRUE" if token.kind == "keyword" and token.text in ("TRUE", "FALSE") else None
        else:
            wanted = (
                "a date '2026-01-31', an instant with a zone '2026-01-31T12:00:00Z' (at most six decimals), "
                "or whole microseconds since 1970"
            )
            value = _read_time(token)
        if value is None:
            self._fail(f"{field.kind} takes {wanted}")
        self._at += 1
        return value


_KINDS = frozenset(str(kind) for kind in FieldKind)
_SIGNS = frozenset(str(op) for op in _EQUALITY | _ORDERING)


def _read_text(token: _Token) -> str | None:
    return token.text[1:-1].replace("''", "'") if token.kind == "text" else None


def _read_integer(token: _Token) -> int | None:
    # The length comes first: int() raises on thousands of digits
    if token.kind != "number" or len(token.text) > _INT64_CHARACTERS or not token.text.lstrip("+-").isdigit():
        return None
    number = int(token.text)
    return number if number in _INT64 else None


def _read_number(token: _Token) -> float | None:
    if token.kind != "number":
        return None
    number = float(token.text)
    return number if abs(number) != float("inf") else None


def _read_time(token: _Token) -> int | None:
    text = _read_text(token)
    if text is None:
        return _read_integer(token)
    match = _INSTANT.fullmatch(text)
    if match is None:
        return None
    try:
        moment = datetime.fromisoformat(text if match[1] else text + "T00:00:00Z")
    except ValueError:
        return None
    past = moment - _EPOCH
    return (past.days * 86_400 + past.seconds) * 1_000_000 + past.microseconds


def _ends_in_escape(pattern: str) -> bool:
    return (len(pattern) - len(pattern.rstrip("\\"))) % 2 == 1


def _shorten(text: str) -> str:
    return text if len(text) <= _QUOTED_CHARACTERS else text[:_QUOTED_CHARACTERS] + "…"

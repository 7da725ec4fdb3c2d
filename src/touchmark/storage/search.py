"""Searches over versions and models as SQL: a condition tree, an order and a position become one page of rows.

Here: the statements, and what they share with search_tracking.py. Not here: the language and what it means
(domain/search.py), cursors (domain/paging.py), pages (services/search.py).

How a page stays quick among 100,000 rows, without statistics and whatever the planner would have chosen:

- Parts of a condition that an index answers are counted first, all in one statement and none further than CANDIDATES.
  If one is rare, its rows are fetched and sorted ("driven"). If all are common, rows are read in the order asked for
  until the page is full, each tested by correlated subqueries that no planner turns round ("scanned").
- Where the first field of the order may be missing, each rank (value, NaN, missing) is a statement of its own, sent only
  while the page is not full, so that an index gives the order within it.

A page costs one statement for counting, if there is anything to count, and one to three for rows.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import UnionType
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    FromClause,
    Integer,
    Row,
    Select,
    and_,
    case,
    func,
    literal,
    literal_column,
    not_,
    or_,
    select,
    true,
    type_coerce,
    union_all,
)

from touchmark.domain.paging import KeyValue, rank_of
from touchmark.domain.search import (
    FIELDS,
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
from touchmark.storage import dialect
from touchmark.storage import schema as s
from touchmark.storage.engine import Tx
from touchmark.storage.models import latest_number
from touchmark.storage.versions import version_columns

CANDIDATES = 2_000
"""How many rows are fetched and sorted rather than scanned for. Measured on SQLite: a row fetched costs 4 us (0.5 us in
the order of ids), a row scanned 1 us, and a page of 100 of 100,000 rows scans 10**7 / matches of them. So the two cross
near 1,600; but matches that all lie at the far end make a scan read everything, and fetching never surprises."""

LATER_HEAD_CHARACTERS = 60
"""How much of a long text counts after the first field of an order (the first: schema.HEAD_CHARACTERS); cursors are short."""

_V, _M = s.versions.c, s.models.c
_ONE: ColumnElement[int] = literal_column("1")
_NEGATIONS = {Op.NE: Op.EQ, Op.NOT_LIKE: Op.LIKE, Op.NOT_ILIKE: Op.ILIKE, Op.NOT_IN: Op.IN, Op.IS_NULL: Op.IS_NOT_NULL}

_OPERATORS: dict[Op, Callable[[Any, Any], ColumnElement[bool]]] = {
    Op.EQ: operator.eq,
    Op.LT: operator.lt,
    Op.LE: operator.le,
    Op.GT: operator.gt,
    Op.GE: operator.ge,
}

_VERSION_COLUMNS: dict[FieldKind, ColumnElement[Any]] = {
    FieldKind.VERSION: type_coerce(_V.number, BigInteger),  # or PostgreSQL would refuse to compare it with 2**40
    FieldKind.AUTHOR: _V.created_by,
    FieldKind.CREATED_AT: _V.created_at,
    FieldKind.UPDATED_AT: _V.updated_at,
    FieldKind.DIGEST: _V.digest,
    FieldKind.CONTENT_DIGEST: _V.content_digest,
    FieldKind.RUN_ID: _V.run_id,
    FieldKind.SOURCE: _V.source,
    FieldKind.STATE: _V.state,
    FieldKind.STAGE: _V.stage,
    FieldKind.DESCRIPTION: _V.description,
}
_VERSION_FLAGS: dict[FieldKind, ColumnElement[bool]] = {
    FieldKind.SEALED: and_(_V.digest.is_not(None), _V.state == "READY"),
    FieldKind.DEPRECATED: _V.deprecated_at.is_not(None),
    FieldKind.DELETED: or_(_V.deleted_at.is_not(None), _M.deleted_at.is_not(None)),
}
_MODEL_COLUMNS: dict[FieldKind, ColumnElement[Any]] = {
    FieldKind.NAME: _M.name,
    FieldKind.OWNER: _M.owner,
    FieldKind.CREATED_AT: _M.created_at,
    FieldKind.UPDATED_AT: _M.updated_at,
    FieldKind.DESCRIPTION: _M.description,
}
_INDEXED = {
    FieldKind.AUTHOR,
    FieldKind.DIGEST,
    FieldKind.CONTENT_DIGEST,
    FieldKind.RUN_ID,
    FieldKind.CREATED_AT,
    FieldKind.UPDATED_AT,
}
# What nearly all versions have is not in the index of the column (schema.py). Written out, as in the index.
_USUAL = {FieldKind.STATE: "READY", FieldKind.STAGE: "None"}
_LONG = {FieldKind.SOURCE, FieldKind.OWNER}
_FACTS = {
    FieldKind.INPUT: "input",
    FieldKind.OUTPUT: "output",
    FieldKind.FLAVOR: "flavor",
    FieldKind.FRAMEWORK: "framework",
}
_PYTHON_TYPES: dict[ValueType, type] = {
    ValueType.TEXT: str,
    ValueType.INTEGER: int,
    ValueType.TIME: int,
    ValueType.NUMBER: float,
    ValueType.BOOLEAN: int,
}


@dataclass(frozen=True, slots=True)
class Question:
    """What is searched for. All parts must hold.

    `words` are those of domain.search.words_of, the last one a prefix; None asks for none, an empty tuple matches
    nothing. `model_id` keeps to one model's versions. `prefix` is the literal beginning of a model's name. `deleted` adds
    deleted versions, and versions of deleted models.
    """

    searchable: Searchable
    condition: Condition | None
    order: tuple[OrderTerm, ...]
    words: tuple[str, ...] | None = None
    model_id: int | None = None
    prefix: str | None = None
    deleted: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """One page: rows as `to_versions` or `to_models` take them, and the key of the last row if there are more."""

    rows: Sequence[Row[Any]]
    last_key: tuple[KeyValue, ...] | None


def list_key_types(question: Question) -> list[type | UnionType]:
    """Return the types of a row's key in the order asked for, for domain.paging.parse_cursor."""
    return [*(type_of(question.searchable, term.field.kind) for term in question.order), int]


def mentions(condition: Condition | None, kind: FieldKind) -> bool:
    """Answer whether a condition is about a field of this kind anywhere."""
    if condition is None:
        return False
    if isinstance(condition, Not):
        return mentions(condition.item, kind)
    if isinstance(condition, And | Or):
        return any(mentions(item, kind) for item in condition.items)
    return condition.field.kind is kind


def search_rows(tx: Tx, question: Question, *, after: Sequence[KeyValue] | None, limit: int) -> Found:
    """Return at most `limit` rows after the row with the key `after`, in the order asked for.

    Missing values come last in both directions, NaN before them. The unique id breaks ties, in the direction of the last
    field. Long texts (tags, params, sources, people) sort by their first schema.HEAD_CHARACTERS characters, or
    LATER_HEAD_CHARACTERS where they are not the first field.
    """
    search = _Search(tx, question)
    driver = search.find_driver()
    rows: list[Row[Any]] = []
    if driver is not None:
        rows += tx.all(search.build(None, driver, after, limit + 1))
    else:
        for rank in search.terms[0].ranks:
            if after is not None and rank < rank_of(after[0]):
                continue
            start = after if after is not None and rank == rank_of(after[0]) else None
            rows += tx.all(search.build(rank, None, start, limit + 1 - len(rows)))
            if len(rows) > limit:
                break
    if len(rows) <= limit:
        return Found(rows, None)
    return Found(rows[:limit], search.read_key(rows[limit - 1]))


# ── what a condition is made of ──────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class _Word:
    """A word of plain-words search."""

    text: str
    is_prefix: bool


@dataclass(frozen=True, slots=True)
class _OfModel:
    """Versions of one model."""

    model_id: int


@dataclass(frozen=True, slots=True)
class _Candidates:
    """A statement that selects ids, and one with about as many rows that is quicker to count."""

    ids: Select[Any]
    counted: Select[Any]


@dataclass(frozen=True, slots=True)
class _AnyOf:
    """Candidates: the rows of all of these together (numbers of counted statements, or again such groups)."""

    items: tuple[_Plan, ...]


@dataclass(frozen=True, slots=True)
class _AllOf:
    """Candidates: the rows of whichever of these has fewest."""

    items: tuple[_Plan, ...]


_Plan = int | _AnyOf | _AllOf
_Leaf = Comparison | _Word | _OfModel


@dataclass(frozen=True, slots=True)
class _Side:
    """Rows beside a version or a model that hold a field's values.

    `link` ties them to the outer row, `scope` picks the key, `ids` selects the outer ids without reference to an outer
    row. `head` is what an index holds of the value, `head_characters` how much that is (None: all).
    """

    table: FromClause
    link: ColumnElement[bool]
    scope: tuple[ColumnElement[bool], ...]
    value: ColumnElement[Any]
    head: ColumnElement[Any]
    head_characters: int | None
    ids: Select[Any]
    own_id: ColumnElement[int] | None = None
    is_nan: ColumnElement[bool] | None = None


@dataclass(frozen=True, slots=True)
class _Term:
    """One field of the order. `rank` is None for what is always there; `side` is joined for it."""

    kind: FieldKind | None
    value: ColumnElement[Any]
    descending: bool
    ranks: tuple[int, ...] = (0,)
    rank: ColumnElement[int] | None = None
    side: _Side | None = None


class _Search:
    """One question on its way to SQL."""

    def __init__(self, tx: Tx, question: Question) -> None:
        self._tx = tx
        self._engine_name = tx.engine.dialect.name
        self._question = question
        self._is_versions = question.searchable is Searchable.VERSIONS
        self._by_number = self._is_versions and question.model_id is not None and _is_by_number(question.order)
        self._by_id = self._is_versions and not self._by_number and _is_by_id(question)
        self.terms = [self._make_term(term, is_first=n == 0) for n, term in enumerate(question.order)]
        tie = _V.version_id if self._is_versions else _M.model_id
        self.terms.append(_Term(None, tie, question.order[-1].descending))
        self._node = self._join_parts()

    def _join_parts(self) -> Condition | _Leaf | None:
        question = self._question
        parts: list[Any] = [] if question.condition is None else [question.condition]
        if question.model_id is not None:
            parts.append(_OfModel(question.model_id))
        if question.prefix:
            pattern = question.prefix.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "%"
            parts.append(Comparison(Field(FieldKind.NAME), Op.LIKE, pattern))
        words = question.words or ()
        parts += [_Word(word, is_prefix=n == len(words)) for n, word in enumerate(words, 1)]
        return And(tuple(parts)) if len(parts) > 1 else parts[0] if parts else None

    # statements

    def build(
        self, rank: int | None, driver: Select[Any] | None, after: Sequence[KeyValue] | None, limit: int
    ) -> Select[Any]:
        """Return the statement for the rows of one rank of the first field; of all ranks if it is None."""
        first = self.terms[0]
        statement = self._select_from(first, rank)
        for number, term in enumerate(self.terms):
            if term.side is not None and (number or rank is None):
                statement = statement.outerjoin(term.side.table, and_(term.side.link, *term.side.scope))
        if not self._question.deleted:
            statement = statement.where(*self._undeleted())
        if self._node is not None:
            statement = statement.where(self._to_sql(self._node, negated=False))
        if self._question.words == ():
            statement = statement.where(not_(true()))
        if driver is not None:
            statement = statement.where(self._own_id.in_(driver))
        if rank is not None and first.rank is not None:
            statement = statement.where(_is_of_rank(first, first.rank, rank))
        if after is not None:
            statement = statement.where(self._is_after(0, after, rank))
        labels: list[ColumnElement[Any]] = []
        keys: list[tuple[str, ColumnElement[Any], bool]] = []
        for number, term in enumerate(self.terms):
            value = self._tie_of(rank) if term.kind is None else term.value
            is_fixed = number == 0 and rank is not None
            if term.rank is not None and term.side is None and not is_fixed:
                value = func.nullif(value, "")  # empty and NULL are the same, not there, and must not be sorted apart
            labels.append(value.label(f"k{number}"))
            if term.rank is not None:
                labels.append((literal(rank) if is_fixed else term.rank).label(f"r{number}"))
                if not is_fixed:
                    keys.append((f"r{number}", term.rank, False))
            if not is_fixed or rank == 0:  # the values of what is missing or NaN are all the same
                keys.append((f"k{number}", value, term.descending))
        ordered = statement.add_columns(*labels).order_by(*(direct(one, down) for _, one, down in keys)).limit(limit)
        return self._widen(ordered, [(name, down) for name, _, down in keys])

    def _widen(self, ordered: Select[Any], keys: Sequence[tuple[str, bool]]) -> Select[Any]:
        # The whole rows, for the page alone: sorting candidates with all their columns took twice as long.
        page = ordered.subquery("page")
        added = [column for column in page.c if column.name != "own_id"]
        if self._is_versions:
            whole = select(*version_columns, *added).select_from(page)
            whole = whole.outerjoin(s.versions, _V.version_id == page.c.own_id)
            whole = whole.outerjoin(s.models, _M.model_id == _V.model_id)
        else:
            whole = select(s.models, latest_number.label("latest_version"), *added).select_from(page)
            whole = whole.outerjoin(s.models, _M.model_id == page.c.own_id)
        return whole.order_by(*(direct(page.c[name], down) for name, down in keys))

    def read_key(self, row: Row[Any]) -> tuple[KeyValue, ...]:
        """Return a row's key: one value for each field of the order, and the id."""
        values = row._mapping  # noqa: SLF001 - SQLAlchemy's documented way to columns by their label
        key: list[KeyValue] = []
        for number, term in enumerate(self.terms):
            rank = 0 if term.rank is None else values[f"r{number}"]
            key.append(None if rank == 2 else float("nan") if rank == 1 else values[f"k{number}"])
        return tuple(key)

    def find_driver(self) -> Select[Any] | None:
        """Return a statement that selects few ids, all matching rows' among them; None if a scan is better."""
        if self._node is None or self._question.words == ():
            return None
        statements: list[_Candidates] = []
        plan = self._plan(self._node, statements)
        if plan is None:
            return None
        counts = self._tx.all(
            select(
                *(
                    select(func.count()).select_from(one.counted.limit(CANDIDATES + 1).subquery()).scalar_subquery()
                    for one in statements
                )
            )
        )[0]
        count, chosen = _choose(plan, counts)
        if count > CANDIDATES:
            return None
        if len(chosen) == 1:
            return statements[chosen[0]].ids
        return select(union_all(*(statements[number].ids for number in chosen)).subquery())

    @property
    def _own_id(self) -> ColumnElement[int]:
        return _V.version_id if self._is_versions else _M.model_id

    def _tie_of(self, rank: int | None) -> ColumnElement[int]:
        # The same value, but only this column continues the index that gives the order.
        side = self.terms[0].side
        if side is None or side.own_id is None or rank is None or rank == 2:
            return self._own_id
        return side.own_id

    def _select_from(self, first: _Term, rank: int | None) -> Select[Any]:
        # The outer joins to models find a row each and are inner in effect: a database may not begin with their right
        # side, so it begins with the table that has the order.
        to_model = _M.model_id == _V.model_id
        side = first.side if rank is not None else None
        statement: Select[Any] = select(self._own_id.label("own_id"))
        if not self._is_versions:
            if side is None:
                return statement.select_from(s.models)
            if rank != 2:
                return statement.select_from(side.table).join(s.models, side.link).where(*side.scope)
            return statement.select_from(s.models).outerjoin(side.table, and_(side.link, *side.scope))
        if first.kind is FieldKind.NAME and rank is not None:
            return statement.select_from(s.models).join(s.versions, to_model)
        if side is not None and rank != 2:
            statement = statement.select_from(side.table).join(s.versions, side.link).where(*side.scope)
            return statement.outerjoin(s.models, to_model)
        statement = statement.select_from(s.versions).outerjoin(s.models, to_model)
        if side is None:
            return statement
        return statement.outerjoin(side.table, and_(side.link, *side.scope))

    def _undeleted(self) -> list[ColumnElement[bool]]:
        if self._is_versions:
            return [_V.deleted_at.is_(None), _M.deleted_at.is_(None)]
        return [_M.deleted_at.is_(None)]

    # order

    def _make_term(self, term: OrderTerm, *, is_first: bool) -> _Term:
        kind = term.field.kind
        if self._by_number and kind is FieldKind.CREATED_AT:
            # Within a model numbers rise with time, and the index of (model, number) gives the order.
            return _Term(kind, _V.number, term.descending)
        if self._by_id:
            # The id is the log index of the registration, and the log's time never falls: one order, and SQLite needs
            # neither an index nor sorting for it. With a bound on created_at its index is better.
            return _Term(kind, _V.version_id, term.descending)
        side = self._find_side(term.field)
        if side is not None:
            value = side.value
            if FIELDS[self._question.searchable][kind].type is ValueType.TEXT:
                value = head(side.value, s.HEAD_CHARACTERS if is_first else LATER_HEAD_CHARACTERS)
            if side.is_nan is not None:
                with_nan = case((side.value.is_not(None), 0), (side.is_nan, 1), else_=2)
                return _Term(kind, value, term.descending, (0, 1, 2), with_nan, side)
            return _Term(kind, value, term.descending, (0, 2), case((side.value.is_not(None), 0), else_=2), side)
        if kind in _VERSION_FLAGS:
            return _Term(kind, case((_VERSION_FLAGS[kind], 1), else_=0), term.descending)
        column = self._column(kind)
        rank: ColumnElement[int] | None = None
        if is_optional(self._question.searchable, kind):
            rank = case((column > "", 0), else_=2)
        if kind in _LONG:
            column = head(column, s.HEAD_CHARACTERS if is_first else LATER_HEAD_CHARACTERS)
        return _Term(kind, column, term.descending, (0,) if rank is None else (0, 2), rank)

    def _column(self, kind: FieldKind) -> ColumnElement[Any]:
        if not self._is_versions:
            return _MODEL_COLUMNS[kind]
        return _M.name if kind is FieldKind.NAME else _VERSION_COLUMNS[kind]

    def _is_after(self, number: int, key: Sequence[KeyValue], first_rank: int | None) -> ColumnElement[bool]:
        """Return what holds for rows after the key, by the fields from `number` on."""
        term, value = self.terms[number], key[number]
        rank, rest = rank_of(value), None
        if number + 1 < len(self.terms):
            rest = self._is_after(number + 1, key, first_rank)
        inside: ColumnElement[bool]
        if rank == 0:
            column = self._tie_of(first_rank) if term.kind is None else term.value
            bound = literal(value, column.type)
            beyond = column < bound if term.descending else column > bound
            if rest is None:
                return beyond
            reached = column <= bound if term.descending else column >= bound  # for the index; `beyond OR …` uses none
            inside = and_(reached, or_(beyond, rest))
        else:
            assert rest is not None  # noqa: S101 - the id, which comes last, is never missing
            inside = rest
        if term.rank is None or (number == 0 and first_rank is not None):  # it stands in the statement already
            return inside
        return or_(term.rank > rank, and_(term.rank == rank, inside))

    # conditions

    def _to_sql(self, node: Condition | _Leaf, *, negated: bool) -> ColumnElement[bool]:
        # NOT is pushed down to the leaves, and each leaf is true or false, never NULL.
        if isinstance(node, Not):
            return self._to_sql(node.item, negated=not negated)
        if isinstance(node, And | Or):
            items = [self._to_sql(item, negated=negated) for item in node.items]
            return and_(*items) if isinstance(node, And) is not negated else or_(*items)
        if isinstance(node, Comparison):
            sql = self._compare_field(node)
        elif isinstance(node, _Word):
            sql = self._has_word(node)
        else:  # the index of (model, number) may give the order
            sql = (_V.model_id if self._by_number else hide(_V.model_id)) == node.model_id
        return not_(sql) if negated else sql

    def _compare_field(self, comparison: Comparison) -> ColumnElement[bool]:
        kind, op, value = comparison.field.kind, comparison.op, comparison.value
        if kind in _VERSION_FLAGS:
            flag = _VERSION_FLAGS[kind]
            return flag if (op is Op.EQ) is bool(value) else not_(flag)
        side = self._find_side(comparison.field)
        if side is not None:
            row = select(_ONE).select_from(side.table).where(side.link, *side.scope)
            if op is Op.IS_NULL:
                return not_(exists(row))
            if op is not Op.IS_NOT_NULL:
                row = row.where(compare(side.value, op, value, self._engine_name, is_nan=side.is_nan))
            return exists(row)
        if self._is_versions and kind is FieldKind.NAME and self.terms[0].kind is not FieldKind.NAME:
            # Not the model that is joined: no planner shall begin with the models and sort all their versions.
            own = s.models.alias()
            row = select(_ONE).select_from(own).where(own.c.model_id == _V.model_id)
            return exists(row.where(compare(own.c.name, op, value, self._engine_name)))
        column = self._column(kind)
        if is_optional(self._question.searchable, kind):
            column = func.nullif(column, "")
            if op in (Op.IS_NULL, Op.IS_NOT_NULL):
                return column.is_(None) if op is Op.IS_NULL else column.is_not(None)
            return and_(column.is_not(None), compare(column, op, value, self._engine_name))
        if kind is not self.terms[0].kind:
            column = hide(column)
        return compare(column, op, value, self._engine_name)

    def _has_word(self, word: _Word) -> ColumnElement[bool]:
        def is_term_of(subject: str, own_id: ColumnElement[int]) -> ColumnElement[bool]:
            terms = s.search_terms.alias()
            row = select(_ONE).select_from(terms)
            row = row.where(terms.c.subject == subject, terms.c.subject_id == own_id, *_match_term(terms.c.term, word))
            return exists(row)

        if not self._is_versions:
            return is_term_of("model", _M.model_id)
        return or_(is_term_of("version", _V.version_id), is_term_of("model", _V.model_id))

    # candidates

    def _plan(self, node: Condition | _Leaf, statements: list[_Candidates]) -> _Plan | None:
        """Collect statements that select the ids of all rows a condition can hold for; None if no index helps."""
        if isinstance(node, Not):
            return None
        if isinstance(node, And):
            plans = [plan for plan in (self._plan(item, statements) for item in node.items) if plan is not None]
            return _AllOf(tuple(plans)) if plans else None
        if isinstance(node, Or):
            before = len(statements)
            each = [self._plan(item, statements) for item in node.items]
            usable = tuple(plan for plan in each if plan is not None)
            if len(usable) == len(each):
                return _AnyOf(usable)
            del statements[before:]
            return None
        if isinstance(node, Comparison):
            found = self._find_flagged(node) if node.field.kind in _VERSION_FLAGS else [self._find_ids(node)]
        elif isinstance(node, _Word):
            found = [self._find_word_ids(node)]
        else:
            of_model = s.versions.alias()
            ids_of_model = select(of_model.c.version_id).where(of_model.c.model_id == node.model_id)
            found = [None if self._by_number else ids_of_model]
        ids = [one for one in found if one is not None]
        if not ids:
            return None
        statements += [one if isinstance(one, _Candidates) else _Candidates(one, one) for one in ids]
        numbers = tuple(range(len(statements) - len(ids), len(statements)))
        return numbers[0] if len(numbers) == 1 else _AnyOf(numbers)

    def _find_ids(self, comparison: Comparison) -> Select[Any] | _Candidates | None:
        """Return the ids of all rows a comparison can hold for, by an index; None if there is none."""
        kind, op, value = comparison.field.kind, comparison.op, comparison.value
        side = self._find_side(comparison.field)
        if side is not None:
            if op is Op.IS_NULL:
                return None
            if FIELDS[self._question.searchable][kind].type is ValueType.NUMBER:
                is_ranged = op in (Op.EQ, Op.LT, Op.LE, Op.GT, Op.GE)
                return side.ids.where(compare(side.value, op, value, self._engine_name)) if is_ranged else side.ids
            # Not the whole value as well: SQLite would put it into substr(value, 1, 200) and not see the index any more.
            bounds = tuple(_bound_text(side.head, op, value, side.head_characters))
            if kind not in _FACTS:
                return side.ids.where(*bounds)
            # Manifests, not their versions: to count a few of those PostgreSQL would hash all that match first.
            counted = select(_ONE).select_from(side.table).where(*side.scope, *bounds)
            return _Candidates(side.ids.where(*bounds), counted)
        if kind is FieldKind.NAME:
            if op in _NEGATIONS:
                return None
            named = s.models.alias()
            wanted = (*_bound_text(named.c.name, op, value), compare(named.c.name, op, value, self._engine_name))
            if not self._is_versions:
                # Without bounds it would be a scan; the names in order are a scan too, and end when the page is full.
                return select(named.c.model_id).where(*wanted) if len(wanted) > 1 else None
            return _ids_of_models(named, named.c.model_id).where(*wanted)
        if kind in _USUAL:
            return self._find_unusual(kind, op, value)
        if kind not in _INDEXED:
            return None
        own = (s.versions if self._is_versions else s.models).alias()
        column = own.c[str(self._column(kind).key)]
        if isinstance(value, int):
            bounds = () if op is Op.NE else (compare(column, op, value, self._engine_name),)
        else:
            bounds = tuple(_bound_text(column, op, value))
        return select(own.c.version_id if self._is_versions else own.c.model_id).where(*bounds) if bounds else None

    def _find_unusual(self, kind: FieldKind, op: Op, value: Any) -> Select[Any] | None:
        usual, own = _USUAL[kind], s.versions.alias()
        if op not in (Op.EQ, Op.IN) or usual in ([value] if op is Op.EQ else value):
            return None
        column = own.c[str(self._column(kind).key)]
        return select(own.c.version_id).where(_differs(column, usual), *_bound_text(column, op, value))

    def _find_flagged(self, comparison: Comparison) -> list[Select[Any] | _Candidates | None]:
        kind, own = comparison.field.kind, s.versions.alias()
        is_wanted = (comparison.op is Op.EQ) is bool(comparison.value)
        ids = select(own.c.version_id)
        if kind is FieldKind.DEPRECATED and is_wanted:
            return [ids.where(own.c.deprecated_at.is_not(None))]
        if kind is FieldKind.DELETED and is_wanted:
            gone = s.models.alias()
            of_gone = _ids_of_models(gone, gone.c.model_id).where(gone.c.deleted_at.is_not(None))
            return [ids.where(own.c.deleted_at.is_not(None)), of_gone]
        if kind is FieldKind.SEALED and not is_wanted:
            other = s.versions.alias()
            unready = select(other.c.version_id).where(_differs(other.c.state, _USUAL[FieldKind.STATE]))
            return [ids.where(own.c.digest.is_(None)), unready]
        return [None]

    def _find_word_ids(self, word: _Word) -> Select[Any]:
        # Whatever the term is of, or a term of all versions would have to be read to find that no model has it.
        terms = s.search_terms.alias()
        of_model = terms.c.subject == "model"
        if not self._is_versions:
            return select(case((of_model, terms.c.subject_id))).where(*_match_term(terms.c.term, word))
        own = s.versions.alias()
        ids = select(case((of_model, own.c.version_id), else_=terms.c.subject_id))
        # `of_model AND …` would have the versions of each model whose id some version has looked up, and dropped.
        ids = ids.select_from(terms.outerjoin(own, own.c.model_id == case((of_model, terms.c.subject_id))))
        return ids.where(*_match_term(terms.c.term, word))

    def _find_side(self, field: Field) -> _Side | None:
        kind, key = field.kind, field.key
        if kind is FieldKind.ALIAS:
            alias = s.aliases.alias()
            link, ids = alias.c.model_id == _M.model_id, select(alias.c.model_id)
            if self._is_versions:
                link = and_(alias.c.model_id == _V.model_id, alias.c.number == _V.number)
                own = s.versions.alias()
                joined = alias.outerjoin(own, and_(own.c.model_id == alias.c.model_id, own.c.number == alias.c.number))
                ids = select(own.c.version_id).select_from(joined)
            return _Side(alias, link, (), alias.c.alias, alias.c.alias, None, ids)
        if kind in _FACTS:
            return _find_facts(kind, key)
        if kind is FieldKind.MODEL_TAG or (kind is FieldKind.TAG and not self._is_versions):
            tag = s.model_tags.alias()
            own_model = _V.model_id if self._is_versions else _M.model_id
            ids = _ids_of_models(tag, tag.c.model_id) if self._is_versions else select(tag.c.model_id)
            return _key_value(tag, tag.c.model_id == own_model, key, ids, None if self._is_versions else tag.c.model_id)
        tables = {FieldKind.TAG: s.version_tags, FieldKind.PARAM: s.version_params, FieldKind.METRIC: s.version_metrics}
        if kind not in tables:
            return None
        table = tables[kind].alias()
        link = table.c.version_id == _V.version_id
        if kind is not FieldKind.METRIC:
            return _key_value(table, link, key, select(table.c.version_id), table.c.version_id)
        scope = (table.c.key == key,)
        ids = select(table.c.version_id).where(*scope)
        value = table.c.value
        return _Side(table, link, scope, value, value, None, ids, table.c.version_id, table.c.is_nan)


def _key_value(
    table: FromClause, link: ColumnElement[bool], key: str | None, ids: Select[Any], own_id: ColumnElement[int] | None
) -> _Side:
    scope = (table.c.key == key,)
    beginning = head(table.c.value, s.HEAD_CHARACTERS)
    return _Side(table, link, scope, table.c.value, beginning, s.HEAD_CHARACTERS, ids.where(*scope), own_id)


def _find_facts(kind: FieldKind, key: str | None) -> _Side:
    fact, own = s.manifest_facts.alias(), s.versions.alias()
    scope: tuple[ColumnElement[bool], ...] = (fact.c.kind == _FACTS[kind],)
    value, beginning, characters = fact.c.value, head(fact.c.value, s.HEAD_CHARACTERS), s.HEAD_CHARACTERS
    ids = select(own.c.version_id).select_from(fact.outerjoin(own, own.c.digest == fact.c.manifest_digest))
    link = fact.c.manifest_digest == _V.digest
    if kind is FieldKind.FLAVOR:  # its key and its value are the same, and the key is what the index has first
        return _Side(fact, link, scope, fact.c.key, fact.c.key, None, ids.where(*scope))
    scope += (fact.c.key == ("" if kind is FieldKind.FRAMEWORK else key),)
    return _Side(fact, link, scope, value, beginning, characters, ids.where(*scope))


def _ids_of_models(table: FromClause, model_id: ColumnElement[int]) -> Select[Any]:
    # An outer join, so that the database begins with `table` and stops as soon as it has counted enough. The NULL of a
    # model without versions does no harm in `id IN (...)` as long as that is not negated.
    own = s.versions.alias()
    return select(own.c.version_id).select_from(table.outerjoin(own, own.c.model_id == model_id))


def _is_by_number(order: tuple[OrderTerm, ...]) -> bool:
    # Two versions may be created in the same microsecond, so a field after created_at would matter.
    kinds = [term.field.kind for term in order]
    return kinds == [FieldKind.CREATED_AT] or kinds[0] is FieldKind.VERSION


def _is_by_id(question: Question) -> bool:
    kinds = [term.field.kind for term in question.order]
    return kinds == [FieldKind.CREATED_AT] and not mentions(question.condition, FieldKind.CREATED_AT)


def type_of(searchable: Searchable, kind: FieldKind) -> type | UnionType:
    """Return the type of a field's values in a key."""
    found = _PYTHON_TYPES[FIELDS[searchable][kind].type]
    return found | None if is_optional(searchable, kind) else found


def is_optional(searchable: Searchable, kind: FieldKind) -> bool:
    """Answer whether a field may be missing."""
    return Op.IS_NULL in FIELDS[searchable][kind].operators


def _is_of_rank(term: _Term, rank_sql: ColumnElement[int], rank: int) -> ColumnElement[bool]:
    if term.side is None:
        return rank_sql == 2 if rank == 2 else term.value > literal("", term.value.type)
    value = term.side.value
    if rank == 2:
        return next(iter(term.side.table.primary_key)).is_(None)
    if rank == 1:
        return value.is_(None)
    # A bound rather than IS NOT NULL: SQLite begins the range there and skips the NULLs (NaN) at its end.
    return value >= literal(float("-inf"), value.type) if term.side.is_nan is not None else true()


def compare(
    column: ColumnElement[Any], op: Op, value: Any, engine_name: str, *, is_nan: ColumnElement[bool] | None = None
) -> ColumnElement[bool]:
    """Return a comparison with a column that is there; for a column that may be NaN `is_nan` says when it is."""
    if op in _NEGATIONS:
        positive = compare(column, _NEGATIONS[op], value, engine_name)
        return not_(positive) if is_nan is None else or_(is_nan, not_(positive))
    if op is Op.LIKE or op is Op.ILIKE:
        return dialect.like(column, value, engine_name, ignore_case=op is Op.ILIKE)
    if op is Op.IN:
        return column.in_(value)
    return _OPERATORS[op](column, value)


def exists(row: Select[Any]) -> ColumnElement[bool]:
    """Return that a correlated statement finds a row, looked up for each outer row."""
    # OFFSET 0, or PostgreSQL makes a join of it, hashing all that match for a page that needs a hundred.
    return row.offset(literal_column("0")).exists()


def hide(column: ColumnElement[Any]) -> ColumnElement[Any]:
    """Return a column's value in a form that no index serves."""
    # From indexes: a planner that does not know how many rows pass would rather sort them all than read in order.
    return column + 0 if isinstance(column.type, Integer) else column.concat("")


def direct(column: ColumnElement[Any], is_descending: bool) -> ColumnElement[Any]:  # noqa: FBT001 - a term's own field
    """Return what ORDER BY takes for one field."""
    return column.desc() if is_descending else column.asc()


def _choose(plan: _Plan, counts: Sequence[int]) -> tuple[int, list[int]]:
    """Return how many candidates a plan has, and the numbers of the statements that select them."""
    if isinstance(plan, int):
        return counts[plan], [plan]
    each = [_choose(item, counts) for item in plan.items]
    if isinstance(plan, _AllOf):
        return min(each, key=lambda one: one[0])
    return sum(count for count, _ in each), [number for _, numbers in each for number in numbers]


# ── texts and their indexes ──────────────────────────────────────────────────────────────────────────────────────


def head(column: ColumnElement[str], characters: int) -> ColumnElement[str]:
    """Return the first `characters` of a text column."""
    # Written out: an index on substr(value, 1, 200) does not serve substr(value, ?, ?).
    beginning: ColumnElement[str] = func.substr(
        column, literal_column("1"), literal_column(str(characters)), type_=s.Key
    )
    return beginning


def _bound_text(
    column: ColumnElement[str], op: Op, value: Any, characters: int | None = None
) -> Iterator[ColumnElement[bool]]:
    """Give what an index on (the first `characters` of) a column can use of a comparison; nothing if nothing."""
    if op is Op.EQ:
        yield column == value[:characters]
    elif op is Op.IN:
        yield column.in_(sorted({one[:characters] for one in value}))
    elif op is Op.LIKE:
        prefix = _prefix_of(value)[:characters]
        if prefix:
            yield from _begins_with(column, prefix)


def _begins_with(column: ColumnElement[str], prefix: str) -> Iterator[ColumnElement[bool]]:
    yield column >= prefix
    end = _after_all(prefix)
    if end is not None:
        yield column < end


def _differs(column: ColumnElement[str], text: str) -> ColumnElement[bool]:
    return column != literal_column(f"'{text}'")


def _match_term(column: ColumnElement[str], word: _Word) -> Iterator[ColumnElement[bool]]:
    return _begins_with(column, word.text) if word.is_prefix else iter((column == word.text,))


def _prefix_of(pattern: str) -> str:
    """Return the literal beginning of a LIKE pattern."""
    prefix: list[str] = []
    characters = iter(pattern)
    for character in characters:
        if character in "%_":
            break
        prefix.append(next(characters, "") if character == "\\" else character)
    return "".join(prefix)


def _after_all(prefix: str) -> str | None:
    """Return the first text after all that begin with `prefix`, in the order of UTF-8 bytes; None if there is none."""
    while prefix:
        last = ord(prefix[-1])
        if last < 0x10FFFF:  # surrogates are no characters
            return prefix[:-1] + chr(0xE000 if last == 0xD7FF else last + 1)
        prefix = prefix[:-1]
    return None

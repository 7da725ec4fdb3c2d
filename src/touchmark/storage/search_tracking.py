"""Searches over experiments, runs and logged models as SQL: a condition tree, an order and a position become one page.

Here: the statements. Not here: the language and what it means (domain/search.py), cursors (domain/paging.py). Versions and
models have a planner of their own (search.py); these are read in the order asked for, each row tested by correlated
subqueries. One statement a page; what stands beside its rows is read by runs.py and logged_models.py.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import UnionType
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Select,
    Table,
    and_,
    case,
    false,
    func,
    literal,
    not_,
    or_,
    select,
    true,
    type_coerce,
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

_OPERATORS: dict[Op, Callable[[Any, Any], ColumnElement[bool]]] = {
    Op.EQ: operator.eq,
    Op.NE: operator.ne,
    Op.LT: operator.lt,
    Op.LE: operator.le,
    Op.GT: operator.gt,
    Op.GE: operator.ge,
}
_PYTHON_TYPES: dict[ValueType, type] = {
    ValueType.TEXT: str,
    ValueType.INTEGER: int,
    ValueType.TIME: int,
    ValueType.NUMBER: float,
    ValueType.BOOLEAN: int,
}


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the things of one kind lie, and what stands beside them."""

    table: Table
    id: str
    columns: Mapping[FieldKind, str]
    tags: Table
    params: Table | None = None
    metrics: Table | None = None
    datasets: Table | None = None


_PLACES = {
    Searchable.EXPERIMENTS: _Place(
        s.experiments,
        "experiment_id",
        {
            FieldKind.EXPERIMENT_ID: "experiment_id", FieldKind.NAME: "name", FieldKind.CREATED_AT: "created_at",
            FieldKind.UPDATED_AT: "updated_at",
        },
        s.experiment_tags,
    ),
    Searchable.RUNS: _Place(
        s.runs,
        "run_id",
        {
            FieldKind.RUN_ID: "run_id", FieldKind.EXPERIMENT_ID: "experiment_id", FieldKind.NAME: "name",
            FieldKind.USER: "user", FieldKind.STATUS: "status", FieldKind.STARTED_AT: "started_at",
            FieldKind.ENDED_AT: "ended_at", FieldKind.CREATED_AT: "created_at",
        },
        s.run_tags,
        s.run_params,
        s.run_latest_metrics,
        s.run_datasets,
    ),
    Searchable.LOGGED_MODELS: _Place(
        s.logged_models,
        "model_id",
        {
            FieldKind.MODEL_ID: "model_id", FieldKind.EXPERIMENT_ID: "experiment_id", FieldKind.NAME: "name",
            FieldKind.RUN_ID: "run_id", FieldKind.STATUS: "status", FieldKind.MODEL_TYPE: "model_type",
            FieldKind.CREATED_AT: "created_at", FieldKind.UPDATED_AT: "updated_at",
        },
        s.logged_model_tags,
        s.logged_model_params,
        s.logged_model_metrics,
    ),
}  # fmt: skip
_DATASET_COLUMNS = {
    FieldKind.DATASET_NAME: "name",
    FieldKind.DATASET_DIGEST: "digest",
    FieldKind.DATASET_CONTEXT: "context",
}


@dataclass(frozen=True, slots=True)
class Question:
    """What is searched for. All parts must hold.

    `experiments` keeps to these (None: all). `deleted` None means both sorts. `datasets` (name, digest or None) keep to
    logged models that were measured on one of them, and to those measurements where metrics are asked about.
    """

    searchable: Searchable
    condition: Condition | None
    order: tuple[OrderTerm, ...]
    deleted: bool | None = False
    experiments: tuple[int, ...] | None = None
    datasets: tuple[tuple[str, str | None], ...] = ()


@dataclass(frozen=True, slots=True)
class Found:
    """One page of rows of the kind's own table, and the key of the last row if there are more."""

    rows: Sequence[Any]
    last_key: tuple[KeyValue, ...] | None


@dataclass(frozen=True, slots=True)
class _Term:
    """One field of the order; `rank` tells value, NaN and missing apart, None for what is always there."""

    value: ColumnElement[Any]
    descending: bool
    rank: ColumnElement[int] | None = None


def list_key_types(question: Question) -> list[type | UnionType]:
    """Return the types of a row's key in the order asked for, for domain.paging.parse_cursor."""
    rules = FIELDS[question.searchable]
    types: list[type | UnionType] = []
    for term in question.order:
        kind = _PYTHON_TYPES[rules[term.field.kind].type]
        types.append(kind | None if Op.IS_NULL in rules[term.field.kind].operators else kind)
    return [*types, int if question.searchable is Searchable.EXPERIMENTS else str]


def search_rows(tx: Tx, question: Question, *, after: Sequence[KeyValue] | None, limit: int) -> Found:
    """Return at most `limit` rows after the row with the key `after`, in the order asked for, in one statement.

    Missing values come last in both directions, NaN before them; the id breaks ties, upwards. Long texts sort by their
    first schema.HEAD_CHARACTERS characters.
    """
    search = _Search(tx, question)
    rows = tx.all(search.build(after, limit + 1))
    if len(rows) <= limit:
        return Found(rows, None)
    return Found(rows[:limit], search.read_key(rows[limit - 1]))


class _Search:
    """One question on its way to SQL."""

    def __init__(self, tx: Tx, question: Question) -> None:
        self._engine_name = tx.engine.dialect.name
        self._question = question
        self._place = _PLACES[question.searchable]
        self._own_id = self._place.table.c[self._place.id]
        self._joins: list[tuple[Any, ColumnElement[bool]]] = []
        self._terms = [self._make_term(term) for term in question.order]
        self._terms.append(_Term(self._own_id, descending=False))

    def build(self, after: Sequence[KeyValue] | None, limit: int) -> Select[Any]:
        """Return the statement of a page."""
        question, table = self._question, self._place.table
        source: Any = table
        for side, link in self._joins:
            source = source.outerjoin(side, link)
        statement = select(table).select_from(source)
        if question.deleted is not None:
            gone = table.c["deleted_at"]
            statement = statement.where(gone.is_not(None) if question.deleted else gone.is_(None))
        if question.experiments is not None:
            inside = table.c["experiment_id"].in_(question.experiments) if question.experiments else false()
            statement = statement.where(inside)
        if question.datasets:
            measured = s.logged_model_measurements.alias()
            row = select(literal(1)).where(measured.c.model_id == self._own_id, self._is_on(measured))
            statement = statement.where(row.exists())
        if question.condition is not None:
            statement = statement.where(self._to_sql(question.condition))
        if after is not None:
            statement = statement.where(self._is_after(0, after))
        keys: list[ColumnElement[Any]] = []
        for number, term in enumerate(self._terms):
            statement = statement.add_columns(term.value.label(f"k{number}"))
            if term.rank is not None:
                statement = statement.add_columns(term.rank.label(f"r{number}"))
                keys.append(term.rank.asc())
            keys.append(term.value.desc() if term.descending else term.value.asc())
        return statement.order_by(*keys).limit(limit)

    def read_key(self, row: Any) -> tuple[KeyValue, ...]:
        """Return a row's key: one value for each field of the order, and the id."""
        key: list[KeyValue] = []
        for number, term in enumerate(self._terms):
            rank = 0 if term.rank is None else getattr(row, f"r{number}")
            key.append(None if rank == 2 else float("nan") if rank == 1 else getattr(row, f"k{number}"))
        return tuple(key)

    # order

    def _make_term(self, term: OrderTerm) -> _Term:
        kind, table = term.field.kind, self._place.table
        if kind is FieldKind.DELETED:
            return _Term(case((table.c["deleted_at"].is_not(None), 1), else_=0), term.descending)
        if kind in self._place.columns:
            column = table.c[self._place.columns[kind]]
            if Op.IS_NULL not in FIELDS[self._question.searchable][kind].operators:
                return _Term(column, term.descending)
            if column is self._own_id:
                return _Term(column, term.descending)
            return _Term(column, term.descending, case((_is_there(column), 0), else_=2))
        if kind is FieldKind.METRIC and self._question.datasets:
            value = self._latest_on_datasets(term.field.key)
            return _Term(value, term.descending, case((value.is_not(None), 0), else_=2))
        side = self._side_table(kind).alias()
        self._joins.append((side, and_(side.c[self._place.id] == self._own_id, side.c["key"] == term.field.key)))
        value = side.c["value"]
        if kind is FieldKind.METRIC:
            rank = case((value.is_not(None), 0), (side.c["text"].is_not(None), 1), else_=2)
            return _Term(value, term.descending, rank)
        return _Term(s.head_of(value), term.descending, case((value.is_not(None), 0), else_=2))

    def _latest_on_datasets(self, key: str | None) -> ColumnElement[Any]:
        measured = s.logged_model_measurements.alias()
        one = select(measured.c.value).where(
            measured.c.model_id == self._own_id, measured.c.key == key, self._is_on(measured)
        )
        latest: ColumnElement[Any] = (
            one.order_by(measured.c.step.desc(), measured.c.at.desc()).limit(1).scalar_subquery()
        )
        return latest

    def _is_after(self, number: int, key: Sequence[KeyValue]) -> ColumnElement[bool]:
        term, value = self._terms[number], key[number]
        rank = rank_of(value)
        is_last = number + 1 == len(self._terms)
        later: ColumnElement[bool] = false() if is_last else self._is_after(number + 1, key)
        if rank == 0:
            beyond = term.value < value if term.descending else term.value > value
            later = beyond if is_last else or_(beyond, and_(term.value == value, later))
        if term.rank is None:
            return later
        return or_(term.rank > rank, and_(term.rank == rank, later))

    # conditions

    def _to_sql(self, node: Condition) -> ColumnElement[bool]:
        if isinstance(node, Not):
            return not_(self._to_sql(node.item))
        if isinstance(node, And):
            return and_(*(self._to_sql(item) for item in node.items))
        if isinstance(node, Or):
            return or_(*(self._to_sql(item) for item in node.items))
        return self._to_leaf(node)

    def _to_leaf(self, comparison: Comparison) -> ColumnElement[bool]:
        """Return what a comparison means; never SQL's third truth value, so that a Not above it means no more than not."""
        kind, op, value = comparison.field.kind, comparison.op, comparison.value
        if kind is FieldKind.DELETED:
            is_gone = self._place.table.c["deleted_at"].is_not(None)
            return is_gone if (op is Op.EQ) is bool(value) else not_(is_gone)
        if kind in self._place.columns:
            column = self._place.table.c[self._place.columns[kind]]
            if op is Op.IS_NULL:
                return not_(_is_there(column))
            if op is Op.IS_NOT_NULL:
                return _is_there(column)
            compared = self._compare(column, op, value)
            return and_(_is_there(column), compared) if column.nullable else compared
        return self._exists(comparison.field, op, value)

    def _exists(self, field: Field, op: Op, value: Any) -> ColumnElement[bool]:
        if field.kind in _DATASET_COLUMNS:
            if self._place.datasets is None:
                return false()
            side = self._place.datasets.alias()
            column = side.c[_DATASET_COLUMNS[field.kind]]
            scope: list[ColumnElement[bool]] = [column.is_not(None)]
        elif field.kind is FieldKind.METRIC and self._question.datasets:
            side = s.logged_model_measurements.alias()
            column, scope = side.c["value"], [side.c["key"] == field.key, self._is_on(side)]
        else:
            side = self._side_table(field.kind).alias()
            column, scope = side.c["value"], [side.c["key"] == field.key]
        row = select(literal(1)).where(side.c[self._place.id] == self._own_id, *scope)
        if op is Op.IS_NULL:
            return not_(row.exists())
        if op is not Op.IS_NOT_NULL:
            compared = self._compare(column, op, value)
            if field.kind is FieldKind.METRIC:  # NULL stands for NaN, which differs from every number
                compared = or_(column.is_(None), compared) if op is Op.NE else and_(column.is_not(None), compared)
            row = row.where(compared)
        return row.exists()

    def _compare(self, column: ColumnElement[Any], op: Op, value: Any) -> ColumnElement[bool]:
        if op in (Op.LIKE, Op.ILIKE):
            return dialect.like(column, value, self._engine_name, ignore_case=op is Op.ILIKE)
        if op in (Op.NOT_LIKE, Op.NOT_ILIKE):
            return not_(dialect.like(column, value, self._engine_name, ignore_case=op is Op.NOT_ILIKE))
        if op is Op.IN:
            return column.in_(list(value))
        if op is Op.NOT_IN:
            return column.not_in(list(value))
        if isinstance(value, int) and not isinstance(value, bool):
            column = type_coerce(column, BigInteger)
        return _OPERATORS[op](column, value)

    def _side_table(self, kind: FieldKind) -> Table:
        found = {
            FieldKind.TAG: self._place.tags,
            FieldKind.PARAM: self._place.params,
            FieldKind.METRIC: self._place.metrics,
        }
        table = found[kind]
        if table is None:
            raise KeyError(kind)
        return table

    def _is_on(self, measured: Any) -> ColumnElement[bool]:
        return or_(
            *(
                and_(measured.c.dataset_name == name, true() if digest is None else measured.c.dataset_digest == digest)
                for name, digest in self._question.datasets
            )
        )


def _is_there(column: ColumnElement[Any]) -> ColumnElement[bool]:
    """Answer whether a column says anything: empty text is as good as none."""
    if column.type.python_type is str:
        return func.coalesce(column, "") != ""
    return column.is_not(None)

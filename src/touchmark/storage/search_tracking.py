"""Searches over experiments, runs and logged models as SQL: a condition tree, an order and a position become one page.

Here: the statements. Not here: the language and what it means (domain/search.py), cursors (domain/paging.py), versions
and models and what all searches share (search.py).

Logging must stay cheap, so no index holds values of tags, params or metrics of runs, and there is nothing to plan with:
rows are read in the order asked for, each tested by correlated look-ups, or, where no index gives the order, sorted by
their keys alone and made whole for the page. A page costs one statement; another one counts first where several experiments
are named. What stands beside the rows is read by runs.py and logged_models.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import UnionType
from typing import Any

from sqlalchemy import (
    ColumnElement,
    FromClause,
    Select,
    Table,
    and_,
    case,
    false,
    func,
    literal,
    literal_column,
    not_,
    or_,
    select,
    true,
)

from touchmark.domain.paging import KeyValue, rank_of
from touchmark.domain.search import (
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
)
from touchmark.storage import schema as s
from touchmark.storage.engine import Tx
from touchmark.storage.search import (
    CANDIDATES,
    LATER_HEAD_CHARACTERS,
    Found,
    compare,
    direct,
    head,
    hide,
    is_optional,
    type_of,
)

_ONE: ColumnElement[int] = literal_column("1")


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the things of one kind lie, and what stands beside them.

    `columns` are named as in the table. `time` is the field by which an index orders them, within an experiment too. A
    metric's value that is NULL is NaN.
    """

    table: Table
    id: FieldKind
    columns: frozenset[FieldKind]
    time: FieldKind
    beside: Mapping[FieldKind, Table]

    @property
    def own_id(self) -> ColumnElement[Any]:
        return self.table.c[self.id.value]


_PLACES: Mapping[Searchable, _Place] = {
    Searchable.EXPERIMENTS: _Place(
        s.experiments,
        FieldKind.EXPERIMENT_ID,
        frozenset({FieldKind.EXPERIMENT_ID, FieldKind.NAME, FieldKind.CREATED_AT, FieldKind.UPDATED_AT}),
        FieldKind.CREATED_AT,
        {FieldKind.TAG: s.experiment_tags},
    ),
    Searchable.RUNS: _Place(
        s.runs,
        FieldKind.RUN_ID,
        frozenset(
            {
                FieldKind.RUN_ID, FieldKind.EXPERIMENT_ID, FieldKind.NAME, FieldKind.USER, FieldKind.STATUS,
                FieldKind.STARTED_AT, FieldKind.ENDED_AT, FieldKind.CREATED_AT,
            }
        ),
        FieldKind.STARTED_AT,
        {FieldKind.TAG: s.run_tags, FieldKind.PARAM: s.run_params, FieldKind.METRIC: s.run_latest_metrics},
    ),
    Searchable.LOGGED_MODELS: _Place(
        s.logged_models,
        FieldKind.MODEL_ID,
        frozenset(
            {
                FieldKind.MODEL_ID, FieldKind.EXPERIMENT_ID, FieldKind.NAME, FieldKind.RUN_ID, FieldKind.STATUS,
                FieldKind.MODEL_TYPE, FieldKind.CREATED_AT, FieldKind.UPDATED_AT,
            }
        ),
        FieldKind.CREATED_AT,
        {
            FieldKind.TAG: s.logged_model_tags, FieldKind.PARAM: s.logged_model_params,
            FieldKind.METRIC: s.logged_model_measurements,
        },
    ),
}  # fmt: skip
_DATASET_COLUMNS = {
    FieldKind.DATASET_NAME: "name",
    FieldKind.DATASET_DIGEST: "digest",
    FieldKind.DATASET_CONTEXT: "context",
}
_SHORT = {FieldKind.RUN_ID, FieldKind.MODEL_ID, FieldKind.STATUS}

Dataset = tuple[str, str | None]
"""A data set's name, and its digest or None for any."""


@dataclass(frozen=True, slots=True)
class Question:
    """What is searched for. All parts must hold.

    `deleted` None means both sorts. `experiments` keeps to these (None: all). `datasets` keeps to logged models that were
    measured on one of them, and conditions on metrics to those measurements.
    """

    searchable: Searchable
    condition: Condition | None
    order: tuple[OrderTerm, ...]
    deleted: bool | None = False
    experiments: tuple[int, ...] | None = None
    datasets: tuple[Dataset, ...] = ()


@dataclass(frozen=True, slots=True)
class _Term:
    """One field of the order. `rank` tells value, NaN and missing apart; it is None for what is always there."""

    value: ColumnElement[Any]
    descending: bool
    rank: ColumnElement[int] | None = None


def list_key_types(question: Question) -> list[type | UnionType]:
    """Return the types of a row's key in the order asked for, for domain.paging.parse_cursor."""
    return [type_of(question.searchable, term.field.kind) for term in _complete(question)]


def search_rows(tx: Tx, question: Question, *, after: Sequence[KeyValue] | None, limit: int) -> Found:
    """Return at most `limit` rows of the thing's own table after the row with the key `after`, in the order asked for.

    Missing values come last in both directions, NaN before them; the id breaks ties, upwards. Texts sort by their first
    schema.HEAD_CHARACTERS characters, or LATER_HEAD_CHARACTERS where they are not the first field.
    """
    search = _Search(tx, question)
    rows = tx.all(search.build(after, limit + 1))
    if len(rows) <= limit:
        return Found(rows, None)
    return Found(rows[:limit], search.read_key(rows[limit - 1]))


def _complete(question: Question) -> tuple[OrderTerm, ...]:
    """Return the order with the id at its end; what follows an id cannot matter."""
    kind = _PLACES[question.searchable].id
    for number, term in enumerate(question.order, 1):
        if term.field.kind is kind:
            return question.order[:number]
    return (*question.order, OrderTerm(Field(kind), descending=False))


class _Search:
    """One question on its way to SQL."""

    def __init__(self, tx: Tx, question: Question) -> None:
        self._tx = tx
        self._engine_name = tx.engine.dialect.name
        self._question = question
        self._place = _PLACES[question.searchable]
        self._order = _complete(question)
        self._source: FromClause = self._place.table
        self._terms = [self._make_term(term, is_first=n == 0) for n, term in enumerate(self._order)]

    def build(self, after: Sequence[KeyValue] | None, limit: int) -> Select[Any]:
        """Return the statement of a page; sends one that counts if several experiments are named."""
        labels: list[ColumnElement[Any]] = [self._place.own_id.label("own_id")]
        keys: list[tuple[str, ColumnElement[Any], bool]] = []
        for number, term in enumerate(self._terms):
            labels.append(term.value.label(f"k{number}"))
            if term.rank is not None:
                labels.append(term.rank.label(f"r{number}"))
                keys.append((f"r{number}", term.rank, False))
            keys.append((f"k{number}", term.value, term.descending))
        ordered = select(*labels).select_from(self._source).where(*self._list_scope())
        if self._question.condition is not None:
            ordered = ordered.where(self._to_sql(self._question.condition))
        if after is not None:
            ordered = ordered.where(self._is_after(0, after))
        page = ordered.order_by(*(direct(one, down) for _, one, down in keys)).limit(limit).subquery("page")
        added = [column for column in page.c if column.name != "own_id"]
        whole = select(self._place.table, *added).select_from(
            page.outerjoin(self._place.table, self._place.own_id == page.c.own_id)
        )
        return whole.order_by(*(direct(page.c[name], down) for name, _, down in keys))

    def read_key(self, row: Any) -> tuple[KeyValue, ...]:
        """Return a row's key: one value for each field of the order, the id last."""
        values = row._mapping  # noqa: SLF001 - SQLAlchemy's documented way to columns by their label
        key: list[KeyValue] = []
        for number, term in enumerate(self._terms):
            rank = 0 if term.rank is None else values[f"r{number}"]
            key.append(None if rank == 2 else float("nan") if rank == 1 else values[f"k{number}"])
        return tuple(key)

    # what a search keeps to

    def _list_scope(self) -> list[ColumnElement[bool]]:
        question, table = self._question, self._place.table
        scope: list[ColumnElement[bool]] = []
        if question.deleted is not None:
            gone = table.c.deleted_at
            scope.append(gone.is_not(None) if question.deleted else gone.is_(None))
        if question.experiments is not None:
            scope.append(self._is_in(question.experiments))
        if question.datasets:
            measured = s.logged_model_measurements.alias()
            row = select(_ONE).select_from(measured).where(measured.c.model_id == self._place.own_id)
            scope.append(row.where(_is_on(measured, question.datasets)).exists())
        return scope

    def _is_in(self, experiments: tuple[int, ...]) -> ColumnElement[bool]:
        column = self._place.table.c.experiment_id
        if len(experiments) < 2:
            return column == experiments[0] if experiments else false()
        inside: ColumnElement[bool] = column.in_(experiments)
        if self._order[0].field.kind is not self._place.time:
            return inside
        # Each experiment's rows lie in order, those of several do not: few are fetched and sorted, many are met soon enough
        # on the way through all, which no planner finds by itself.
        some = select(_ONE).select_from(self._place.table).where(inside).limit(CANDIDATES + 1)
        count = self._tx.scalar(select(func.count()).select_from(some.subquery()))
        return inside if count <= CANDIDATES else hide(column).in_(experiments)

    # order

    def _make_term(self, term: OrderTerm, *, is_first: bool) -> _Term:
        kind, table, own_id = term.field.kind, self._place.table, self._place.own_id
        if kind is FieldKind.DELETED:
            return _Term(case((table.c.deleted_at.is_not(None), 1), else_=0), term.descending)
        characters = s.HEAD_CHARACTERS if is_first else LATER_HEAD_CHARACTERS
        if kind in self._place.columns:
            column: ColumnElement[Any] = table.c[kind.value]
            is_text = type_of(self._question.searchable, kind) in (str, str | None)
            rank = None
            if is_optional(self._question.searchable, kind):
                rank = case((_is_there(column), 0), else_=2)
                if is_text:  # empty and NULL are both missing, and must not be sorted apart
                    column = func.nullif(column, "", type_=column.type)
            return _Term(head(column, characters) if is_text and kind not in _SHORT else column, term.descending, rank)
        if kind is FieldKind.METRIC and self._question.searchable is Searchable.LOGGED_MODELS:
            value, text = (self._find_latest(term, column) for column in ("value", "text"))
            return _Term(value, term.descending, _rank_metric(value, text))
        side = self._place.beside[kind].alias()
        self._source = self._source.outerjoin(
            side, and_(side.c[self._place.id.value] == own_id, side.c.key == term.field.key)
        )
        if kind is FieldKind.METRIC:
            return _Term(side.c.value, term.descending, _rank_metric(side.c.value, side.c.text))
        rank = case((side.c.value.is_not(None), 0), else_=2)
        return _Term(head(side.c.value, characters), term.descending, rank)

    def _find_latest(self, term: OrderTerm, column: str) -> ColumnElement[Any]:
        """Return a column of a logged model's latest measurement, on the term's data set if it has one.

        By time and then step, as MLflow 3.17 orders (sqlalchemy_store.py).
        """
        measured = s.logged_model_measurements.alias()
        ours, m = self._place.own_id, measured.c
        row = select(m[column]).where(m.model_id == ours, m.key == term.field.key)
        if term.dataset is not None:
            row = row.where(_is_on(measured, [term.dataset]))
        ordered = row.order_by(m.at.desc(), m.step.desc(), m.run_id, m.dataset_name, m.dataset_digest)
        latest: ColumnElement[Any] = ordered.limit(1).scalar_subquery()
        return latest

    def _is_after(self, number: int, key: Sequence[KeyValue]) -> ColumnElement[bool]:
        """Return what holds for rows after the key, by the fields from `number` on."""
        term, value = self._terms[number], key[number]
        rank, rest = rank_of(value), None
        if number + 1 < len(self._terms):
            rest = self._is_after(number + 1, key)
        inside: ColumnElement[bool]
        if rank == 0:
            bound = literal(value, term.value.type)
            inside = term.value < bound if term.descending else term.value > bound
            if rest is not None:
                reached = term.value <= bound if term.descending else term.value >= bound  # `inside OR …` uses no index
                inside = and_(reached, or_(inside, rest))
        else:
            assert rest is not None  # noqa: S101 - the id, which comes last, is never missing
            inside = rest
        return inside if term.rank is None else or_(term.rank > rank, and_(term.rank == rank, inside))

    # conditions: each comparison is true or false, never NULL, so that NOT means no more than not

    def _to_sql(self, node: Condition) -> ColumnElement[bool]:
        if isinstance(node, Not):
            return not_(self._to_sql(node.item))
        if isinstance(node, And | Or):
            items = [self._to_sql(item) for item in node.items]
            return and_(*items) if isinstance(node, And) else or_(*items)
        return self._compare_field(node)

    def _compare_field(self, comparison: Comparison) -> ColumnElement[bool]:
        kind, op, value = comparison.field.kind, comparison.op, comparison.value
        if kind is FieldKind.DELETED:
            is_gone = self._place.table.c.deleted_at.is_not(None)
            return is_gone if (op is Op.EQ) is bool(value) else not_(is_gone)
        if kind not in self._place.columns:
            return self._compare_beside(comparison)
        column = self._place.table.c[kind.value]
        if op in (Op.IS_NULL, Op.IS_NOT_NULL):
            return _is_there(column) if op is Op.IS_NOT_NULL else not_(_is_there(column))
        compared = compare(column, op, value, self._engine_name)
        return and_(_is_there(column), compared) if is_optional(self._question.searchable, kind) else compared

    def _compare_beside(self, comparison: Comparison) -> ColumnElement[bool]:
        # PostgreSQL may make a join of it: with no index on the values, that takes a page without a match among 100,000
        # runs from 1.1 s to 50 ms.
        field, op = comparison.field, comparison.op
        side = s.run_datasets.alias() if field.kind in _DATASET_COLUMNS else self._place.beside[field.kind].alias()
        row = select(_ONE).select_from(side).where(side.c[self._place.id.value] == self._place.own_id)
        is_nan: ColumnElement[bool] | None = None
        if field.kind in _DATASET_COLUMNS:
            column = side.c[_DATASET_COLUMNS[field.kind]]
            row = row.where(_is_there(column))
        else:
            column, row = side.c.value, row.where(side.c.key == field.key)
            if field.kind is FieldKind.METRIC:
                is_nan = column.is_(None)
                row = row.where(_is_on(side, self._question.datasets)) if self._question.datasets else row
        if op is Op.IS_NULL:
            return not_(row.exists())
        if op is not Op.IS_NOT_NULL:
            row = row.where(compare(column, op, comparison.value, self._engine_name, is_nan=is_nan))
        return row.exists()


def _rank_metric(value: ColumnElement[Any], text: ColumnElement[Any]) -> ColumnElement[int]:
    return case((value.is_not(None), 0), (text.is_not(None), 1), else_=2)


def _is_there(column: ColumnElement[Any]) -> ColumnElement[bool]:
    """Answer whether a column says anything, never NULL: an empty text is as good as none."""
    return func.coalesce(column, "") != "" if column.type.python_type is str else column.is_not(None)


def _is_on(measured: FromClause, datasets: Sequence[Dataset]) -> ColumnElement[bool]:
    return or_(
        *(
            and_(measured.c.dataset_name == name, true() if digest is None else measured.c.dataset_digest == digest)
            for name, digest in datasets
        )
    )

"""Search over experiments, runs and logged models on both databases, compared with plain Python over what was written."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import event, insert

from tests.services.plain_search import Thing, Vocabulary, conditions, holds, orders, sort_things, walk
from touchmark.artifacts.local import LocalBlobStore
from touchmark.domain.access import Principal, PrincipalKind
from touchmark.domain.errors import InvalidCursorError, InvalidFieldError, InvalidFilterError, LimitExceededError
from touchmark.domain.paging import Page
from touchmark.domain.search import (
    DEFAULT_ORDER,
    Comparison,
    Condition,
    FieldKind,
    Op,
    OrderTerm,
    Searchable,
    describe,
    describe_order,
)
from touchmark.domain.search import Field as SearchField
from touchmark.domain.tracking import (
    DatasetInput,
    Experiment,
    LoggedModel,
    LoggedModelStatus,
    Measurement,
    Metric,
    ModelLink,
    ModelRole,
    Run,
    RunStatus,
    pick_latest,
)
from touchmark.registry import Registry
from touchmark.services.experiments import list_experiments
from touchmark.services.search import search_experiments, search_logged_models, search_runs
from touchmark.storage import experiments, ledger, logged_models, runs, schema, search_tracking
from touchmark.storage.engine import Database

ANNA = Principal(PrincipalKind.USER, "anna")
START = 1_767_225_600_000_000  # 2026-01-01
LONG = "x" * 200
FRUIT, FRUIT_2, EMPTY_DATASET = ("fruit", "d1"), ("fruit", "d2"), ("Öl", "d1")

ODD_TEXTS = [
    "risk", "Risk", "RISK", "a%b", "a_b", "aXb", "back\\slash", "it's", 'say "x"', "команда", "КОМАНДА", "é", "😀", "", "a",
    "a\U0010ffff", "\ud7ff", "\ue000", "line\nbreak", "İ", "\u212a", LONG, LONG + "1", LONG + "2", "10", "9", "x" * 60 + "b",
    "x" * 60 + "a",
]  # fmt: skip
NAMES = ["risk.churn", "risk.fraud", "Risk.churn", "100%_real", "модель", "emoji😀", "x" * 70 + "a", "x" * 70 + "b"]
KEYS = ["team", "a b`c", "ключ", "x.y"]
NUMBERS = [0.5, 0.9, float("nan"), float("inf"), float("-inf"), 0.0, -0.0, 0.1, 1e300]


# ── what is searched ─────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Tracked:
    """A registry and what was written into it."""

    registry: Registry
    experiments: list[Experiment] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    models: list[LoggedModel] = field(default_factory=list)
    measured: dict[str, list[Measurement]] = field(default_factory=dict)

    def add_experiment(self, name: str, tags: Mapping[str, str], *, deleted: bool = False) -> int:
        with self.registry.track() as tx:
            experiment_id = experiments.create_experiment(tx, name)
            assert experiment_id is not None
            experiments.set_tags(tx, experiment_id, tags)
        if deleted:
            with self.registry.track() as tx:
                experiments.set_deleted(tx, experiment_id, before=None, after=tx.now)
        self.experiments = list(list_experiments(self.registry, ANNA, deleted=None).items)
        return experiment_id

    def add_runs(self, added: Sequence[Run]) -> None:
        with self.registry.track() as tx:
            for run in added:
                runs.create_run(tx, run)
                runs.record_batch(tx, run.run_id, {}, list(run.metrics.values()), {})
                runs.set_datasets(tx, run.run_id, run.datasets)
                runs.set_models(tx, run.run_id, run.models)
                if run.deleted_at is not None:
                    runs.update_run(tx, run.run_id, {"deleted_at": run.deleted_at})
        self.runs += added

    def add_models(self, added: Sequence[LoggedModel], measured: Mapping[str, Sequence[Measurement]]) -> None:
        with self.registry.track() as tx:
            for model in added:
                logged_models.create_logged_model(tx, model)
                # One by one, as clients send them: the latest must not depend on what came last.
                for each in measured[model.model_id]:
                    logged_models.record_measurements(tx, model.model_id, [each])
                values = {"deleted_at": model.deleted_at, "updated_at": model.updated_at}
                tx.run(
                    schema.logged_models.update()
                    .where(schema.logged_models.c.model_id == model.model_id)
                    .values(values)
                )
        for model in added:
            self.measured[model.model_id] = list(measured[model.model_id])
            self.models.append(replace(model, metrics=pick_latest([each.metric for each in measured[model.model_id]])))


def make_run(number: int, experiment_id: int, **fields: Any) -> Run:
    run = Run(
        f"run-{number:03}", experiment_id, "r", "anna", RunStatus.RUNNING, START + number, None, START + number, None
    )
    return replace(run, **fields)


def make_model(number: int, experiment_id: int, **fields: Any) -> LoggedModel:
    model_id, at = f"m-{number:032x}", START + number
    ready = LoggedModelStatus.READY
    return replace(LoggedModel(model_id, experiment_id, "m", ready, None, None, None, at, at, None), **fields)


def seed(tracked: Tracked) -> None:
    """Put eight experiments, seventy runs and fifty logged models in; every field has values, odd ones, and gaps."""
    for n, name in enumerate(NAMES):
        tags = {KEYS[n % 4]: ODD_TEXTS[n], "team": ODD_TEXTS[(n * 7) % len(ODD_TEXTS)]} if n % 4 else {}
        tracked.add_experiment(name, tags, deleted=n % 5 == 3)
    ids = sorted(experiment.experiment_id for experiment in tracked.experiments)
    datasets = [
        [],
        [DatasetInput(*FRUIT, "train", "s3://x", "s3")],
        [DatasetInput(*FRUIT_2, "eval", tags={"a": "b"}), DatasetInput(*EMPTY_DATASET, None)],
        [DatasetInput("Fruit", "d3", "")],
    ]
    tracked.add_runs(
        [
            Run(
                f"run{'-_X'[n % 3]}{n * 37 % 101:03}",
                ids[n * 5 % 7],
                NAMES[n % 8] if n % 9 else LONG * 2 + str(n % 2),
                ["anna", "boris_b", "borisXb", ""][n % 4],
                list(RunStatus)[n % 5],
                START + n * 7 % 23,
                None if n % 3 == 0 else START + n * 11 % 29,
                START + n // 3,
                START + 500 if n % 6 == 5 else None,
                {} if n % 6 == 0 else dict(sorted({"depth": ODD_TEXTS[n * 11 % 28], KEYS[n % 4]: "1"}.items())),
                {}
                if n % 7 == 0
                else {
                    "auc": Metric("auc", NUMBERS[n % 9], START + n, n % 2),
                    "loss": Metric("loss", float(n % 3), START),
                },
                {}
                if n % 5 == 0
                else dict(sorted({"team": ODD_TEXTS[n % 28], KEYS[n % 4]: ODD_TEXTS[n * 3 % 28]}.items())),
                tuple(sorted(datasets[n % 4], key=lambda one: (one.name, one.digest))),
                (ModelLink(ModelRole.OUTPUT, "m-1", n),) if n % 2 else (),
            )
            for n in range(70)
        ]
    )
    run_ids = [run.run_id for run in tracked.runs]
    added, measured = list[LoggedModel](), dict[str, list[Measurement]]()
    for n in range(50):
        model_id = f"m-{n * 37 % 101:032x}"
        where = [(None, None), FRUIT, FRUIT_2, EMPTY_DATASET]
        measured[model_id] = [
            Measurement(
                Metric("auc", NUMBERS[(n + k) % 9], START + (n * k) % 5, (n + k) % 4), run_ids[k], *where[(n + k) % 4]
            )
            for k in range(n % 5)
        ] + ([Measurement(Metric("loss", float(n % 3), START), None, *where[n % 4])] if n % 3 else [])
        added.append(
            LoggedModel(
                model_id,
                ids[n * 5 % 7],
                NAMES[n % 6],
                list(LoggedModelStatus)[n % 3],
                None if n % 4 == 0 else run_ids[n % 5],
                [None, "", "sklearn", "SKLearn_2"][n % 4],
                None,
                START + n * 7 % 23,
                START + 30 + n * 3 % 17,
                START + 500 if n % 6 == 5 else None,
                {} if n % 6 == 0 else {"depth": ODD_TEXTS[n * 11 % 28]},
                {},
                {} if n % 5 == 0 else dict(sorted({"team": ODD_TEXTS[n % 28], KEYS[n % 4]: "1"}.items())),
            )
        )
    tracked.add_models(added, measured)


def open_tracked(request: pytest.FixtureRequest, factory: pytest.TempPathFactory) -> tuple[Tracked, Callable[[], None]]:
    folder = factory.mktemp("tracked")
    url, server = f"sqlite:///{folder / 'rows.db'}", None
    if request.param == "postgresql":
        server = request.getfixturevalue("postgres_server").open_database()
        url = server.__enter__()
    ticks = count()
    registry = Registry(Database(url), LocalBlobStore(folder / "blobs"), clock=lambda: START + next(ticks) // 5)
    schema.metadata.create_all(registry.database.engine)
    with registry.track() as tx:
        ledger.create_head(tx, "registry")

    def close() -> None:
        registry.close()
        if server is not None:
            server.__exit__(None, None, None)

    return Tracked(registry), close


BOTH = ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)]


@pytest.fixture(scope="module", params=BOTH)
def tracked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tracked]:
    """Give one seeded registry for tests that only read; the others make their own."""
    made, close = open_tracked(request, tmp_path_factory)
    seed(made)
    yield made
    close()


@pytest.fixture(params=BOTH)
def empty(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tracked]:
    """Give a registry with one experiment."""
    made, close = open_tracked(request, tmp_path_factory)
    made.add_experiment("one", {})
    yield made
    close()


# ── the same question answered in plain Python ───────────────────────────────────────────────────────────────────

Datasets = Sequence[tuple[str, str | None]]


def make_thing(thing: Any, own_id: Any, plain: Mapping[FieldKind, Any], keyed: Mapping[FieldKind, Any]) -> Thing:
    plain = {**plain, FieldKind.NAME: thing.name, FieldKind.CREATED_AT: thing.created_at}
    plain |= {FieldKind.DELETED: thing.deleted_at is not None}
    keyed = {FieldKind.TAG: thing.tags, **keyed}

    def values(field: SearchField) -> list[Any]:
        value = keyed[field.kind].get(field.key) if field.kind in keyed else plain[field.kind]
        return value if isinstance(value, list) else [] if value is None else [value]

    return Thing(own_id, thing.name, thing.deleted_at is not None, values)


def list_experiment_things(tracked: Tracked) -> list[Thing]:
    return [
        make_thing(one, one.experiment_id, {
            FieldKind.EXPERIMENT_ID: one.experiment_id, FieldKind.UPDATED_AT: one.updated_at,
        }, {})
        for one in tracked.experiments
    ]  # fmt: skip


def list_run_things(tracked: Tracked, within: Sequence[int] | None) -> list[Thing]:
    return [
        make_thing(one, one.run_id, {
            FieldKind.RUN_ID: one.run_id, FieldKind.EXPERIMENT_ID: one.experiment_id, FieldKind.USER: one.user or None,
            FieldKind.STATUS: one.status.value, FieldKind.STARTED_AT: one.started_at, FieldKind.ENDED_AT: one.ended_at,
            FieldKind.DATASET_NAME: [data.name for data in one.datasets],
            FieldKind.DATASET_DIGEST: [data.digest for data in one.datasets],
            FieldKind.DATASET_CONTEXT: [data.context for data in one.datasets if data.context],
        }, {FieldKind.PARAM: one.params, FieldKind.METRIC: {m.key: m.value for m in one.metrics.values()}})
        for one in tracked.runs if within is None or one.experiment_id in within
    ]  # fmt: skip


def is_on(each: Measurement, datasets: Datasets) -> bool:
    return any(each.dataset_name == name and digest in (None, each.dataset_digest) for name, digest in datasets)


def list_model_things(tracked: Tracked, within: Sequence[int] | None, datasets: Datasets = ()) -> list[Thing]:
    """Return the logged models measured on one of the data sets, if any; metrics have the latest value first."""
    things: list[Thing] = []
    for one in tracked.models:
        measured = [each for each in tracked.measured[one.model_id] if not datasets or is_on(each, datasets)]
        if (within is not None and one.experiment_id not in within) or (datasets and not measured):
            continue
        measured.sort(key=lambda each: (-each.metric.at, -each.metric.step, each.run_id or "", each.dataset_name or ""))
        metrics: dict[str, list[float]] = {}
        for each in measured:
            metrics.setdefault(each.metric.key, []).append(each.metric.value)
        things.append(
            make_thing(one, one.model_id, {
                FieldKind.MODEL_ID: one.model_id, FieldKind.EXPERIMENT_ID: one.experiment_id,
                FieldKind.RUN_ID: one.run_id, FieldKind.STATUS: one.status.value, FieldKind.UPDATED_AT: one.updated_at,
                FieldKind.MODEL_TYPE: one.model_type or None,
            }, {FieldKind.PARAM: one.params, FieldKind.METRIC: metrics})
        )  # fmt: skip
    return things


LONG_KINDS = {FieldKind.NAME, FieldKind.TAG, FieldKind.PARAM, FieldKind.USER, FieldKind.MODEL_TYPE}


def find_ids(
    things: Sequence[Thing], condition: Condition | None, order: Sequence[OrderTerm], deleted: bool | None
) -> list[Any]:
    if deleted is False and "deleted" in re.sub(r"'[^']*'", "", describe(condition)):
        deleted = None
    found = [thing for thing in things if holds(condition, thing) and deleted in (None, thing.is_deleted)]
    return sort_things(found, order, LONG_KINDS, is_tie_descending=False)


# ── random questions ─────────────────────────────────────────────────────────────────────────────────────────────

VOCABULARY = Vocabulary(
    texts={
        FieldKind.NAME: [*NAMES, LONG * 2 + "1", "nothing"],
        FieldKind.USER: ["anna", "boris_b", "BORISXB", ""],
        FieldKind.STATUS: ["RUNNING", "FINISHED", "READY", "ready"],
        FieldKind.RUN_ID: ["run-000", "run_037", "RUN", "run-010", ""],
        FieldKind.MODEL_ID: [f"m-{0:032x}", f"m-{37:032x}", "m-"],
        FieldKind.MODEL_TYPE: ["sklearn", "SKLearn_2", ""],
        FieldKind.DATASET_NAME: ["fruit", "Fruit", "Öl", "none"],
        FieldKind.DATASET_DIGEST: ["d1", "d2", "none"],
        FieldKind.DATASET_CONTEXT: ["train", "eval", ""],
    },
    other_texts=ODD_TEXTS,
    keys={FieldKind.PARAM: ["depth", "x.y", "none"], FieldKind.METRIC: ["auc", "loss", "none"]},
    other_keys=[*KEYS, "none"],
    times=st.integers(START - 2, START + 60),
)
LIMITS = st.sampled_from([3, 8, 25, 100])
DELETED = st.sampled_from([False, False, True, None])
# Eight experiments begin at 1. Scanned, or fetched and sorted; an id that is not there is no error.
WITHIN = st.none() | st.lists(st.integers(1, 10), max_size=4)
DATASETS = st.lists(st.sampled_from([FRUIT, FRUIT_2, ("fruit", None), ("none", None)]), max_size=2)


@settings(max_examples=40)
@given(data=st.data())
def test_experiments_found_are_those_that_plain_python_finds_in_the_same_order(
    tracked: Tracked, data: st.DataObject
) -> None:
    condition = data.draw(conditions(Searchable.EXPERIMENTS, VOCABULARY))
    order = data.draw(orders(Searchable.EXPERIMENTS, VOCABULARY))
    deleted, limit = data.draw(DELETED), data.draw(LIMITS)
    found = walk(
        lambda cursor: search_experiments(
            tracked.registry, ANNA, filter=describe(condition), order_by=describe_order(order), deleted=deleted, limit=limit,
            cursor=cursor,
        ),
        limit,
    )  # fmt: skip
    assert [one.experiment_id for one in found] == find_ids(list_experiment_things(tracked), condition, order, deleted)


@settings(max_examples=80)
@given(data=st.data())
def test_runs_found_are_those_that_plain_python_finds_in_the_same_order(tracked: Tracked, data: st.DataObject) -> None:
    condition = data.draw(conditions(Searchable.RUNS, VOCABULARY))
    order = data.draw(orders(Searchable.RUNS, VOCABULARY) | st.just(DEFAULT_ORDER[Searchable.RUNS]))
    within, deleted, limit = data.draw(WITHIN), data.draw(DELETED), data.draw(LIMITS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search_tracking, "CANDIDATES", data.draw(st.sampled_from([0, 2_000])))
        found = walk(
            lambda cursor: search_runs(
                tracked.registry, ANNA, experiments=within, filter=describe(condition), order_by=describe_order(order),
                deleted=deleted, limit=limit, cursor=cursor,
            ),
            limit,
        )  # fmt: skip
    assert [one.run_id for one in found] == find_ids(list_run_things(tracked, within), condition, order, deleted)


@settings(max_examples=60)
@given(data=st.data())
def test_logged_models_found_are_those_that_plain_python_finds_in_the_same_order(
    tracked: Tracked, data: st.DataObject
) -> None:
    condition = data.draw(conditions(Searchable.LOGGED_MODELS, VOCABULARY))
    order = data.draw(orders(Searchable.LOGGED_MODELS, VOCABULARY))
    within, deleted, limit, datasets = data.draw(WITHIN), data.draw(DELETED), data.draw(LIMITS), data.draw(DATASETS)
    found = walk(
        lambda cursor: search_logged_models(
            tracked.registry, ANNA, experiments=within, datasets=datasets, filter=describe(condition),
            order_by=describe_order(order), deleted=deleted, limit=limit, cursor=cursor,
        ),
        limit,
    )  # fmt: skip
    narrowed = list_model_things(tracked, within, datasets)
    wanted = set(find_ids(narrowed, condition, order, deleted))
    whole = [thing for thing in list_model_things(tracked, within) if thing.id in wanted]
    assert [one.model_id for one in found] == find_ids(whole, None, order, None)


# ── single promises ──────────────────────────────────────────────────────────────────────────────────────────────


def watch(tracked: Tracked, ask: Callable[[], Any]) -> int:
    """Return how many statements a question sends."""
    sent: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        sent.append(statement)

    engine = tracked.registry.database.engine
    event.listen(engine, "before_cursor_execute", note)
    try:
        ask()
    finally:
        event.remove(engine, "before_cursor_execute", note)
    return len(sent)


def test_what_is_found_is_whole(tracked: Tracked) -> None:
    registry = tracked.registry
    found_runs = search_runs(registry, ANNA, deleted=None).items
    found_models = search_logged_models(registry, ANNA, deleted=None).items
    found_experiments = search_experiments(registry, ANNA, deleted=None).items

    assert sorted(map(repr, found_runs)) == sorted(map(repr, tracked.runs))
    assert sorted(map(repr, found_models)) == sorted(map(repr, tracked.models))
    assert sorted(map(repr, found_experiments)) == sorted(map(repr, tracked.experiments))


def test_the_default_orders_are_those_of_mlflow(tracked: Tracked) -> None:
    registry = tracked.registry
    found = search_runs(registry, ANNA, deleted=None).items
    models = search_logged_models(registry, ANNA, deleted=None).items
    listed = search_experiments(registry, ANNA, deleted=None).items

    assert list(found) == sorted(found, key=lambda run: (-run.started_at, run.run_id))
    assert list(models) == sorted(models, key=lambda model: (-model.created_at, model.model_id))
    assert list(listed) == sorted(listed, key=lambda one: (-one.created_at, one.experiment_id))


@pytest.mark.parametrize("limit", [1, 30])
def test_a_page_costs_the_same_few_statements_however_many_rows_it_holds(tracked: Tracked, limit: int) -> None:
    def cost(search: Callable[..., Any], **question: Any) -> int:
        return watch(tracked, lambda: search(tracked.registry, ANNA, limit=limit, **question))

    assert cost(search_experiments) == cost(search_runs) == 2
    assert cost(search_runs, experiments=[1], order_by="metrics.auc") == 2
    assert cost(search_runs, experiments=[1, 2]) == 3
    assert cost(search_runs, filter="tags.team LIKE '%' AND NOT metrics.loss = 7 AND dataset_name != 'x'") == 2
    assert cost(search_logged_models, filter="metrics.auc > 0", order_by="metrics.auc") == 2


def test_pages_longer_than_one_statement_about_what_stands_beside_them_are_whole(
    tracked: Tracked, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = tracked.registry
    expected = search_runs(registry, ANNA).items, search_logged_models(registry, ANNA).items
    monkeypatch.setattr(runs, "SIDE_ROWS", 7)
    monkeypatch.setattr(experiments, "TAGGED_ROWS", 2)

    assert repr((search_runs(registry, ANNA).items, search_logged_models(registry, ANNA).items)) == repr(expected)
    assert watch(tracked, lambda: search_runs(registry, ANNA, limit=15)) == 4
    found = search_experiments(registry, ANNA, deleted=None).items
    assert sorted(map(repr, found)) == sorted(map(repr, tracked.experiments))


def test_a_page_may_hold_more_rows_than_a_statement_has_parameters(empty: Tracked) -> None:
    rows = [{"name": f"e{n}", "created_at": n, "updated_at": n} for n in range(33_000)]
    with empty.registry.track() as tx:
        tx.run(insert(schema.experiments), rows)

    assert len(search_experiments(empty.registry, ANNA, limit=50_000).items) == 33_001


@pytest.mark.parametrize(
    ("order_by", "expected"), [("metrics.auc", [5, 1, 3, 2, 4, 6]), ("metrics.auc DESC", [3, 1, 5, 2, 4, 6])]
)
def test_nan_comes_after_numbers_and_missing_last_in_both_directions(
    empty: Tracked, order_by: str, expected: list[int]
) -> None:
    values = [0.5, float("nan"), float("inf"), float("nan"), -1.0, None]
    metrics = [{} if value is None else {"auc": Metric("auc", value, START)} for value in values]
    empty.add_runs([make_run(n, 1, metrics=one) for n, one in enumerate(metrics, 1)])
    empty.add_models(
        [make_model(n, 1) for n in range(1, 7)],
        {f"m-{n:032x}": [Measurement(metric) for metric in one.values()] for n, one in enumerate(metrics, 1)},
    )

    whole = search_runs(empty.registry, ANNA, order_by=order_by).items
    single = walk(lambda cursor: search_runs(empty.registry, ANNA, order_by=order_by, limit=1, cursor=cursor), 1)
    models = walk(
        lambda cursor: search_logged_models(empty.registry, ANNA, order_by=order_by, limit=1, cursor=cursor), 1
    )
    assert [run.run_id for run in whole] == [run.run_id for run in single] == [f"run-{n:03}" for n in expected]
    assert [model.model_id for model in models] == [f"m-{n:032x}" for n in expected]


@pytest.mark.parametrize(
    ("filter_text", "expected"),
    [
        ("metrics.auc != 0.5", {"nan"}),
        ("metrics.auc = 0.5", {"half"}),
        ("NOT metrics.auc = 0.5", {"nan", "none"}),
        ("NOT metrics.auc != 0.5", {"half", "none"}),
        ("metrics.auc < 1 OR metrics.auc >= 1", {"half"}),
        ("metrics.auc IS NOT NULL", {"half", "nan"}),
        ("metrics.auc IS NULL", {"none"}),
    ],
)
def test_a_metric_that_is_nan_differs_from_every_number_and_is_there(
    empty: Tracked, filter_text: str, expected: set[str]
) -> None:
    metrics = {"half": [Metric("auc", 0.5, START)], "nan": [Metric("auc", float("nan"), START)], "none": []}
    empty.add_runs([make_run(n, 1, name=name, metrics=pick_latest(metrics[name])) for n, name in enumerate(metrics)])
    models = {name: make_model(n, 1, name=name) for n, name in enumerate(metrics)}
    measured = {model.model_id: [Measurement(metric) for metric in metrics[name]] for name, model in models.items()}
    empty.add_models(list(models.values()), measured)

    assert {run.name for run in search_runs(empty.registry, ANNA, filter=filter_text).items} == expected
    assert {model.name for model in search_logged_models(empty.registry, ANNA, filter=filter_text).items} == expected


@pytest.mark.parametrize("order_by", [None, "started_at", "metrics.auc DESC", "tags.t, name DESC", "ended_at"])
def test_what_is_started_or_deleted_between_pages_shifts_nothing(empty: Tracked, order_by: str | None) -> None:
    def make(number: int) -> Run:
        metrics = {"auc": Metric("auc", float(number % 4), START)}
        ended_at = START + number % 5 if number % 2 else None
        return make_run(
            number, 1, started_at=START + number % 6, metrics=metrics, tags={"t": str(number % 3)}, ended_at=ended_at
        )

    empty.add_runs([make(n) for n in range(100, 112)])
    first = {run.run_id for run in empty.runs}
    expected = [run.run_id for run in search_runs(empty.registry, ANNA, order_by=order_by).items]
    assert set(expected) == first

    seen: list[str] = []
    cursor: str | None = None
    for round_number in count():
        page = search_runs(empty.registry, ANNA, order_by=order_by, limit=3, cursor=cursor)
        seen += [run.run_id for run in page.items]
        cursor = page.next_cursor
        if cursor is None:
            break
        with empty.registry.track() as tx:  # what was read is deleted: an offset would now skip three rows
            for run in page.items:
                runs.update_run(tx, run.run_id, {"deleted_at": tx.now})
        if round_number < 4:  # and as many come in, before and after
            empty.add_runs([make(200 + round_number * 3 + n) for n in range(3)])
    assert [run_id for run_id in seen if run_id in first] == expected
    assert len(seen) == len(set(seen))


def test_a_filter_about_deletion_finds_what_is_deleted(tracked: Tracked) -> None:
    gone = {run.run_id for run in tracked.runs if run.deleted_at is not None}

    def find(**question: Any) -> set[str]:
        return {run.run_id for run in search_runs(tracked.registry, ANNA, **question).items}

    assert find(filter="deleted = true") == find(deleted=True) == gone
    assert find(filter="deleted = true", deleted=True) == gone
    assert find(filter="deleted = false", deleted=True) == set()
    assert find().isdisjoint(gone)


def test_runs_are_searched_in_all_experiments_in_some_or_in_none(tracked: Tracked) -> None:
    registry = tracked.registry
    assert search_runs(registry, ANNA, experiments=[]).items == ()
    assert search_logged_models(registry, ANNA, experiments=[]).items == ()
    some = search_runs(registry, ANNA, experiments=[2, 1, 2, 999]).items
    assert {run.experiment_id for run in some} == {1, 2}
    assert len(search_runs(registry, ANNA, experiments=None, deleted=None).items) == 70
    assert len(search_runs(registry, ANNA, experiments=range(10_000), deleted=None).items) == 70


@pytest.mark.parametrize("candidates", [0, 2_000])
def test_several_experiments_are_read_in_order_or_fetched_and_sorted(
    tracked: Tracked, monkeypatch: pytest.MonkeyPatch, candidates: int
) -> None:
    monkeypatch.setattr(search_tracking, "CANDIDATES", candidates)
    found = walk(lambda cursor: search_runs(tracked.registry, ANNA, experiments=[1, 2, 5], limit=4, cursor=cursor), 4)
    things = list_run_things(tracked, [1, 2, 5])
    assert [run.run_id for run in found] == find_ids(things, None, DEFAULT_ORDER[Searchable.RUNS], deleted=False)


def test_a_metric_of_a_logged_model_may_be_asked_on_one_data_set(empty: Tracked) -> None:
    def measure(value: float, dataset: tuple[str | None, str | None], at: int = 0, step: int = 0) -> Measurement:
        return Measurement(Metric("auc", value, START + at, step), None, *dataset)

    empty.add_models(
        [make_model(n, 1) for n in range(3)],
        {
            f"m-{0:032x}": [measure(0.9, FRUIT), measure(0.1, FRUIT_2, at=1)],
            f"m-{1:032x}": [measure(0.5, FRUIT, at=1), measure(0.8, FRUIT, step=7), measure(0.2, (None, None), at=2)],
            f"m-{2:032x}": [],
        },
    )

    def find(**question: Any) -> list[int]:
        found = walk(lambda cursor: search_logged_models(empty.registry, ANNA, limit=1, cursor=cursor, **question), 1)
        return [int(model.model_id[-1]) for model in found]

    def order(dataset: tuple[str, str | None] | None) -> list[OrderTerm]:
        return [OrderTerm(SearchField(FieldKind.METRIC, "auc"), descending=True, dataset=dataset)]

    assert find(filter="metrics.auc > 0.85") == [0]
    assert find(filter="metrics.auc > 0.85", datasets=[FRUIT_2]) == []
    assert find(filter="metrics.auc < 0.15", datasets=[("fruit", None)]) == [0]
    assert find(datasets=[FRUIT]) == [1, 0]
    assert find(datasets=[FRUIT_2, ("none", None)]) == [0]
    assert find(filter="metrics.auc = 0.8", datasets=[FRUIT]) == [1]  # every measurement counts, not the latest alone
    assert find(order=order(None)) == [1, 0, 2]  # 0.2, 0.1: the latest ones
    assert find(order=order(FRUIT)) == [0, 1, 2]  # 0.9, 0.5: the latest by time, whatever its step
    assert find(order=order(FRUIT_2)) == [0, 1, 2]
    assert find(order=order(("fruit", None))) == [1, 0, 2]  # 0.5, 0.1


def test_bad_questions_say_what_is_wrong(tracked: Tracked) -> None:
    registry = tracked.registry
    metric = SearchField(FieldKind.METRIC, "a")
    with pytest.raises(InvalidFilterError):
        search_runs(registry, ANNA, filter="tags.a =")
    with pytest.raises(InvalidFilterError):
        search_runs(registry, ANNA, filter="run_id IS NULL")
    with pytest.raises(InvalidFilterError):
        search_experiments(registry, ANNA, order_by="metrics.a")
    with pytest.raises(InvalidFilterError):
        search_runs(registry, ANNA, order_by="dataset_name")
    with pytest.raises(InvalidFieldError):
        search_experiments(registry, ANNA, limit=0)
    with pytest.raises(LimitExceededError):
        search_logged_models(registry, ANNA, limit=50_001)
    with pytest.raises(InvalidFieldError):
        search_runs(registry, ANNA, experiments=[-1])
    with pytest.raises(LimitExceededError):
        search_runs(registry, ANNA, experiments=range(10_001))
    with pytest.raises(LimitExceededError):
        search_logged_models(registry, ANNA, datasets=[FRUIT] * 101)
    with pytest.raises(InvalidFieldError):
        search_logged_models(registry, ANNA, datasets=[("a\0", None)])
    with pytest.raises(InvalidFieldError):
        search_logged_models(registry, ANNA, order=[OrderTerm(metric, descending=False, dataset=("a", "\ud800"))])


def test_a_cursor_belongs_to_its_question(tracked: Tracked) -> None:
    registry = tracked.registry
    cursor = search_runs(registry, ANNA, limit=2).next_cursor
    assert cursor is not None
    assert search_runs(registry, ANNA, limit=5, cursor=cursor).items
    others: list[dict[str, Any]] = [
        {"filter": "status = 'RUNNING'"}, {"order_by": "started_at"}, {"experiments": [1]}, {"deleted": None},
    ]  # fmt: skip
    for other in others:
        with pytest.raises(InvalidCursorError):
            search_runs(registry, ANNA, cursor=cursor, **other)
    with pytest.raises(InvalidCursorError):
        search_logged_models(registry, ANNA, cursor=cursor)
    narrow = search_logged_models(registry, ANNA, datasets=[FRUIT], limit=1).next_cursor
    with pytest.raises(InvalidCursorError):
        search_logged_models(registry, ANNA, datasets=[FRUIT_2], cursor=narrow)


def test_the_largest_questions_are_answered(tracked: Tracked) -> None:
    registry = tracked.registry
    wide = " OR ".join(f"metrics.k{n} > 1" for n in range(98)) + f" OR run_id = '{tracked.runs[0].run_id}'"
    assert [run.run_id for run in search_runs(registry, ANNA, filter=wide).items] == [tracked.runs[0].run_id]
    every = " AND ".join(f"NOT metrics.k{n} > 1" for n in range(100))
    datasets = [("fruit", f"d{n}") for n in range(100)]
    found = search_logged_models(registry, ANNA, filter=every, datasets=datasets, experiments=range(9_000)).items
    assert {model.model_id for model in found} == {
        thing.id for thing in list_model_things(tracked, None, datasets) if not thing.is_deleted
    }


def test_ten_fields_may_order_a_page_and_long_texts_fit_into_a_cursor(tracked: Tracked) -> None:
    order = "name DESC, tags.team, params.depth DESC, metrics.auc, user, ended_at, status, metrics.loss DESC, params.`x.y`, deleted"
    found = walk(lambda cursor: search_runs(tracked.registry, ANNA, order_by=order, limit=9, cursor=cursor), 9)
    assert len({run.run_id for run in found}) == len(found) == sum(run.deleted_at is None for run in tracked.runs)


def test_a_tree_from_another_protocol_and_a_text_must_both_hold(tracked: Tracked) -> None:
    tree = Comparison(SearchField(FieldKind.STATUS), Op.EQ, "RUNNING")
    page: Page[Run] = search_runs(tracked.registry, ANNA, filter="user = 'anna'", condition=tree)
    assert page.items
    assert {(run.user, run.status) for run in page.items} == {("anna", RunStatus.RUNNING)}

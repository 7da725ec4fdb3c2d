from __future__ import annotations

import math
import random
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any, cast

import pytest
from sqlalchemy import select

from touchmark.domain.access import Principal
from touchmark.domain.errors import (
    ExperimentNotFoundError,
    InvalidCursorError,
    InvalidError,
    LimitExceededError,
    ParamChangedError,
    RunDeletedError,
    RunNotFoundError,
    TagNotFoundError,
)
from touchmark.domain.tracking import DatasetInput, Metric, Run, RunStatus
from touchmark.registry import Registry
from touchmark.services import experiments, runs
from touchmark.storage import runs as rows
from touchmark.storage.schema import run_latest_metrics

Statements = Callable[[], AbstractContextManager[list[str]]]


NAN, INF = float("nan"), float("inf")


def same(found: Metric, expected: Metric) -> bool:
    """Compare exactly: NaN is itself, and -0.0 is not 0.0."""
    return repr(found) == repr(expected)


@pytest.fixture
def run_id(registry: Registry, who: Principal) -> str:
    return runs.create_run(registry, who, 0, name="first").run_id


def test_a_run_is_read_back_as_it_was_created(registry: Registry, who: Principal) -> None:
    made = runs.create_run(
        registry,
        who,
        "new experiment",
        name="naïve run\nwith two lines",
        user="ada@example.org",
        started_at=-5,
        params={"lr": "0.1", "empty": "", "long": "\U00010348" * 6000},
        tags={"team": "a"},
    )
    assert re.fullmatch("[0-9a-f]{32}", made.run_id)
    assert made.status is RunStatus.RUNNING
    assert (made.user, made.started_at, made.ended_at) == ("ada@example.org", -5, None)
    assert runs.get_run(registry, who, made.run_id) == made
    assert experiments.get_experiment(registry, who, made.experiment_id).name == "new experiment"


def test_what_is_left_out_gets_a_readable_name_the_asker_and_now(registry: Registry, who: Principal) -> None:
    made = runs.create_run(registry, who, 0)
    assert re.fullmatch(r"[a-z]+-[a-z]+-[0-9]{1,3}", made.name)
    assert made.user == who.id
    assert made.started_at == made.created_at
    names = {runs.make_name() for _ in range(50)}
    assert len(names) > 40


def test_a_run_of_no_experiment_is_refused(registry: Registry, who: Principal) -> None:
    with pytest.raises(ExperimentNotFoundError):
        runs.create_run(registry, who, 4711)
    wrong: tuple[Any, ...] = (-1, True, None, "", "a\0", 2**70, 1.0)
    for experiment in wrong:
        with pytest.raises(InvalidError):
            runs.create_run(registry, who, experiment)
    assert runs.list_runs(registry, who, 0).items == ()


def test_many_runs_of_one_new_experiment_are_created_at_once(registry: Registry, who: Principal) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: runs.create_run(registry, who, "shared"), range(24)))
    assert len({run.experiment_id for run in made}) == 1
    page = runs.list_runs(registry, who, "shared")
    assert {run.run_id for run in page.items} == {run.run_id for run in made}


def test_a_run_is_loaded_in_two_statements_whatever_it_holds(
    registry: Registry, who: Principal, run_id: str, statements: Statements
) -> None:
    runs.log_batch(
        registry,
        who,
        run_id,
        params={f"p{n}": str(n) for n in range(300)},
        metrics=[Metric(f"m{n}", n / 7, n) for n in range(300)],
        tags={f"t{n}": str(n) for n in range(300)},
    )
    runs.log_datasets(registry, who, run_id, [DatasetInput(f"d{n}", "x") for n in range(50)])
    with statements() as sent, registry.read() as tx:
        run = rows.get_run(tx, run_id)
    assert len(sent) == 2
    assert run.params == {f"p{n}": str(n) for n in range(300)}
    assert run.metrics == {f"m{n}": Metric(f"m{n}", n / 7, n) for n in range(300)}
    assert run.tags == {f"t{n}": str(n) for n in range(300)}
    assert [dataset.name for dataset in run.datasets] == sorted(f"d{n}" for n in range(50))
    assert run == runs.get_run(registry, who, run_id)


def test_a_batch_takes_the_same_few_statements_whatever_its_size(
    registry: Registry, who: Principal, run_id: str, statements: Statements
) -> None:
    counts = []
    for size in (1, 333):
        with statements() as sent:
            runs.log_batch(
                registry,
                who,
                run_id,
                params={f"p{size}-{n}": "x" for n in range(size)},
                metrics=[Metric(f"m{n}", float(size), 1, step=size) for n in range(size)],
                tags={f"t{n}": "x" for n in range(size)},
            )
        counts.append(len(sent))
    assert counts == [7, 7]
    with statements() as sent:
        runs.log_batch(registry, who, run_id)
    assert len(sent) == 1


def test_a_param_is_written_once(registry: Registry, who: Principal, run_id: str) -> None:
    runs.log_params(registry, who, run_id, {"lr": "0.1"})
    runs.log_params(registry, who, run_id, {"lr": "0.1", "depth": "3"})
    with pytest.raises(ParamChangedError) as caught:
        runs.log_batch(
            registry,
            who,
            run_id,
            params={"new": "1", "lr": "0.2"},
            metrics=[Metric("loss", 1.0, 1)],
            tags={"t": "1"},
        )
    assert caught.value.fields == {"key": "lr", "old": "0.1", "new": "0.2"}
    run = runs.get_run(registry, who, run_id)
    assert (run.params, run.metrics, run.tags) == ({"depth": "3", "lr": "0.1"}, {}, {})


def test_of_many_writers_of_one_param_one_wins_and_the_others_are_told(
    registry: Registry, who: Principal, run_id: str
) -> None:
    def write(value: str) -> bool:
        try:
            runs.log_batch(registry, who, run_id, params={"winner": value}, tags={f"by-{value}": "x"})
        except ParamChangedError:
            return False
        return True

    values = [str(n) for n in range(16)]
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(write, values))
    assert won.count(True) == 1
    run = runs.get_run(registry, who, run_id)
    winner = values[won.index(True)]
    assert run.params == {"winner": winner}
    assert run.tags == {f"by-{winner}": "x"}  # a refused batch leaves nothing


def test_batches_of_many_writers_with_the_same_keys_all_arrive(registry: Registry, who: Principal, run_id: str) -> None:
    keys = [f"m{n}" for n in range(20)]

    def write(step: int) -> None:
        shuffled = random.Random(step).sample(keys, len(keys))
        metrics = [Metric(key, float(step), step, step) for key in shuffled]
        runs.log_batch(registry, who, run_id, metrics=metrics, tags=dict.fromkeys(shuffled, str(step)))

    steps = random.Random(7).sample(range(40), 40)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, steps))
    run = runs.get_run(registry, who, run_id)
    assert {metric.step for metric in run.metrics.values()} == {39}
    assert len(set(run.tags.values())) == 1  # the last batch as a whole
    assert [m.step for m in runs.get_metric_history(registry, who, run_id, "m3").items] == list(range(40))


def test_the_latest_metric_does_not_depend_on_the_order_of_arrival(registry: Registry, who: Principal) -> None:
    measured = [
        Metric("m", value, at, step)
        for step in (-1, 2)
        for at in (0, 5)
        for value in (NAN, -INF, -0.0, 0.0, 0.1 + 0.2, INF)
    ]
    for seed in range(4):
        run_id = runs.create_run(registry, who, 0).run_id
        rng = random.Random(seed)
        rng.shuffle(measured)
        rest = list(measured)
        while rest:
            size = rng.randint(1, 6)
            runs.log_metrics(registry, who, run_id, rest[:size])
            rest = rest[size:]
        assert runs.get_run(registry, who, run_id).metrics == {"m": Metric("m", INF, 5, 2)}


def test_nan_infinities_and_the_sign_of_zero_are_kept(registry: Registry, who: Principal, run_id: str) -> None:
    values = [NAN, INF, -INF, -0.0, 5e-324, 1.7976931348623157e308, 0.1]
    runs.log_metrics(registry, who, run_id, [Metric(f"m{n}", value, 1) for n, value in enumerate(values)])
    found = runs.get_run(registry, who, run_id).metrics
    for n, value in enumerate(values):
        assert same(found[f"m{n}"], Metric(f"m{n}", value, 1))
    with registry.read() as tx:
        stored = tx.all(select(run_latest_metrics).order_by(run_latest_metrics.c.key))
    assert stored[0].value is None
    assert [row.value for row in stored[1:]] == values[1:]
    runs.log_metrics(registry, who, run_id, [Metric("m0", -1.0, 1)])
    assert runs.get_run(registry, who, run_id).metrics["m0"].value == -1.0
    runs.log_metrics(registry, who, run_id, [Metric("m0", NAN, 2)])
    assert math.isnan(runs.get_run(registry, who, run_id).metrics["m0"].value)


def test_history_keeps_each_measurement_once_and_pages_through_them(
    registry: Registry, who: Principal, run_id: str
) -> None:
    measured = [Metric("m", value, at, step) for step in (3, 1) for at in (2, 1) for value in (NAN, 1.0, INF)]
    runs.log_metrics(registry, who, run_id, measured)
    runs.log_metrics(registry, who, run_id, measured[:5])  # sent again after a lost answer
    runs.log_metrics(registry, who, run_id, [Metric("other", 1.0, 1)])
    seen: list[Metric] = []
    cursor = None
    while True:
        page = runs.get_metric_history(registry, who, run_id, "m", cursor=cursor, limit=5)
        seen += page.items
        cursor = page.next_cursor
        if cursor is None:
            break
    assert len(seen) == len(measured)
    assert {repr(metric) for metric in seen} == {repr(metric) for metric in measured}
    assert [(m.step, m.at) for m in seen] == sorted((m.step, m.at) for m in measured)
    assert runs.get_metric_history(registry, who, run_id, "never").items == ()
    page = runs.get_metric_history(registry, who, run_id, "m", limit=5)
    with pytest.raises(InvalidCursorError):
        runs.get_metric_history(registry, who, run_id, "other", cursor=page.next_cursor)
    with pytest.raises(RunNotFoundError):
        runs.get_metric_history(registry, who, "nobody", "m")
    with pytest.raises(LimitExceededError):
        runs.get_metric_history(registry, who, run_id, "m", limit=25_001)


def test_whole_numbers_are_taken_as_metrics(registry: Registry, who: Principal, run_id: str) -> None:
    runs.log_metrics(registry, who, run_id, [Metric("m", 3, 1)])
    found = runs.get_run(registry, who, run_id).metrics["m"].value
    assert (found, type(found)) == (3.0, float)


def test_bad_input_is_refused_before_anything_is_written(registry: Registry, who: Principal, run_id: str) -> None:
    good, metric = Metric("good", 1.0, 1), cast("Any", Metric)
    batches: tuple[dict[str, Any], ...] = (
        {"params": {"": "x"}},
        {"params": {"a\0": "x"}},
        {"params": {"a": "\0"}},
        {"params": {"a": "\ud800"}},
        {"params": {"a": 1}},
        {"params": {"a": "x" * 6001}},
        {"params": {"x" * 251: "x"}},
        {"tags": {"a": "\0"}},
        {"tags": {"\u200b": "x"}},
        {"metrics": [good, metric("a\0", 1.0, 1)]},
        {"metrics": [good, metric("m", 1.0, 2**63)]},
        {"metrics": [good, metric("m", 1.0, 1, -(2**63) - 1)]},
        {"metrics": [good, metric("m", 1.0, 1.5)]},
        {"metrics": [good, metric("m", "1.0", 1)]},
        {"metrics": [good, metric("m", None, 1)]},
        {"metrics": [good, metric("m", True, 1)]},
        {"metrics": [good, metric("m", 10**400, 1)]},
        {"metrics": [good, metric("m", 1.0, 1, None)]},
        {"metrics": [Metric(f"m{n}", 1.0, 1) for n in range(1001)]},
        {"params": {f"p{n}": "x" for n in range(501)}, "tags": {f"t{n}": "x" for n in range(500)}},
    )
    for batch in batches:
        with pytest.raises(InvalidError):
            runs.log_batch(registry, who, run_id, **batch)
    ids: tuple[Any, ...] = ("../x", "", "a" * 65, "a\0", "é", None, 3)
    for name in ids:
        with pytest.raises(InvalidError):
            runs.get_run(registry, who, name)
        with pytest.raises(InvalidError):
            runs.log_batch(registry, who, name)
    changes: tuple[dict[str, Any], ...] = (
        {"status": "DONE"},
        {"status": 3},
        {"ended_at": 2**63},
        {"ended_at": "now"},
        {"name": " "},
        {"name": "\0"},
    )
    for fields in changes:
        with pytest.raises(InvalidError):
            runs.update_run(registry, who, run_id, **fields)
    for dataset in (
        DatasetInput("", "x"),
        DatasetInput("x", ""),
        DatasetInput("x" * 501, "x"),
        DatasetInput("x", "x", schema="\0"),
    ):
        with pytest.raises(InvalidError):
            runs.log_datasets(registry, who, run_id, [dataset])
    beginnings: tuple[dict[str, Any], ...] = (
        {"name": ""},
        {"user": "\0"},
        {"started_at": 1.0},
        {"params": {"a": "\0"}},
        {"tags": {"a": None}},
    )
    for fields in beginnings:
        with pytest.raises(InvalidError):
            runs.create_run(registry, who, 0, **fields)
    run = runs.get_run(registry, who, run_id)
    assert (run.params, run.metrics, run.tags, run.datasets) == ({}, {}, {}, ())
    assert len(runs.list_runs(registry, who, 0).items) == 1


def test_the_longest_batch_is_taken(registry: Registry, who: Principal, run_id: str) -> None:
    key = "\U00010348" * 246
    runs.log_metrics(registry, who, run_id, [Metric(f"{key}{n:04}", 1.0, 2**63 - 1, -(2**63)) for n in range(1000)])
    assert len(runs.get_run(registry, who, run_id).metrics) == 1000


def test_status_end_and_name_change_alone(registry: Registry, who: Principal, run_id: str) -> None:
    run = runs.update_run(registry, who, run_id, name="second")
    assert (run.name, run.status, run.ended_at) == ("second", RunStatus.RUNNING, None)
    run = runs.update_run(registry, who, run_id, status="FINISHED", ended_at=9)
    assert (run.name, run.status, run.ended_at) == ("second", RunStatus.FINISHED, 9)
    run = runs.update_run(registry, who, run_id, status=RunStatus.FAILED)
    assert (run.status, run.ended_at) == (RunStatus.FAILED, 9)
    assert runs.update_run(registry, who, run_id) == runs.get_run(registry, who, run_id) == run


def test_a_run_that_ends_without_a_time_ends_now(registry: Registry, who: Principal, run_id: str) -> None:
    run = runs.update_run(registry, who, run_id, status="KILLED")
    assert run.ended_at is not None
    assert run.ended_at > run.created_at


def test_tags_are_set_replaced_and_deleted(registry: Registry, who: Principal, run_id: str) -> None:
    runs.set_tags(registry, who, run_id, {"a": "1", "b": "1"})
    runs.set_tags(registry, who, run_id, {"a": "2"})
    runs.delete_tag(registry, who, run_id, "b")
    assert runs.get_run(registry, who, run_id).tags == {"a": "2"}
    with pytest.raises(TagNotFoundError):
        runs.delete_tag(registry, who, run_id, "b")


def test_data_sets_are_kept_whole_and_replaced_by_name_and_digest(
    registry: Registry, who: Principal, run_id: str
) -> None:
    whole = DatasetInput("\U00010348" * 500, "\U00010348" * 100, "train", "s3://b/k", "s3", "{}", "x" * 100_000)
    runs.log_datasets(registry, who, run_id, [whole, DatasetInput("b", "1")])
    runs.log_datasets(registry, who, run_id, [DatasetInput("b", "1", context="eval"), DatasetInput("b", "2")])
    expected = (DatasetInput("b", "1", context="eval"), DatasetInput("b", "2"), whole)
    assert runs.get_run(registry, who, run_id).datasets == expected
    listed = runs.list_runs(registry, who, 0).items[0].datasets[2]
    assert (listed.name, listed.source, listed.schema, listed.profile) == (whole.name, whole.source, None, None)
    with pytest.raises(LimitExceededError):
        runs.log_datasets(registry, who, run_id, [DatasetInput(f"d{n}", "x") for n in range(1001)])


def test_a_deleted_run_takes_no_writes_until_it_is_restored(registry: Registry, who: Principal, run_id: str) -> None:
    runs.log_params(registry, who, run_id, {"a": "1"})
    runs.delete_run(registry, who, run_id)
    at = runs.get_run(registry, who, run_id).deleted_at
    runs.delete_run(registry, who, run_id)
    assert runs.get_run(registry, who, run_id).deleted_at == at
    for write in (
        lambda: runs.log_batch(registry, who, run_id),
        lambda: runs.log_params(registry, who, run_id, {"a": "1"}),
        lambda: runs.log_metrics(registry, who, run_id, [Metric("m", 1.0, 1)]),
        lambda: runs.set_tags(registry, who, run_id, {"a": "1"}),
        lambda: runs.delete_tag(registry, who, run_id, "a"),
        lambda: runs.update_run(registry, who, run_id, name="x"),
        lambda: runs.log_datasets(registry, who, run_id, [DatasetInput("a", "b")]),
    ):
        with pytest.raises(RunDeletedError):
            write()
    assert runs.list_runs(registry, who, 0).items == ()
    assert len(runs.list_runs(registry, who, 0, deleted=True).items) == 1
    runs.restore_run(registry, who, run_id)
    runs.restore_run(registry, who, run_id)
    runs.set_tags(registry, who, run_id, {"a": "1"})
    assert [run.run_id for run in runs.list_runs(registry, who, 0).items] == [run_id]


def test_an_unknown_run_is_said_to_be_unknown(registry: Registry, who: Principal) -> None:
    assert runs.find_run(registry, who, "nobody") is None
    for call in (runs.get_run, runs.delete_run, runs.restore_run, runs.log_batch, runs.update_run):
        with pytest.raises(RunNotFoundError):
            call(registry, who, "nobody")


def test_pages_hold_every_run_once_newest_first(registry: Registry, who: Principal, statements: Statements) -> None:
    starts = [3, 1, 2, 2, 2]
    made = [runs.create_run(registry, who, "e", started_at=at, params={"at": str(at)}) for at in starts]
    runs.create_run(registry, who, 0)
    seen: list[Run] = []
    cursor = None
    while True:
        with statements() as sent:
            page = runs.list_runs(registry, who, "e", cursor=cursor, limit=2)
        assert len(sent) == 3
        seen += page.items
        cursor = page.next_cursor
        if cursor is None:
            break
    assert seen == sorted(made, key=lambda run: (run.started_at, run.run_id), reverse=True)
    with pytest.raises(ExperimentNotFoundError):
        runs.list_runs(registry, who, "nothing")

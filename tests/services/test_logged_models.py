from __future__ import annotations

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any

import pytest

from touchmark.domain.access import Principal
from touchmark.domain.errors import (
    ConflictError,
    ExperimentNotFoundError,
    InvalidError,
    InvalidFieldError,
    LoggedModelNotFoundError,
    ParamChangedError,
    RunDeletedError,
    RunNotFoundError,
    TagNotFoundError,
)
from touchmark.domain.tracking import LoggedModel, LoggedModelStatus, Metric, Run
from touchmark.registry import Registry
from touchmark.services import experiments, logged_models, runs
from touchmark.storage import logged_models as rows

Statements = Callable[[], AbstractContextManager[list[str]]]


NOBODY = "m-" + "0" * 32


@pytest.fixture
def run(registry: Registry, who: Principal) -> Run:
    return runs.create_run(registry, who, "e")


def test_a_logged_model_is_read_back_as_it_was_created(registry: Registry, who: Principal, run: Run) -> None:
    made = logged_models.create_logged_model(
        registry, who, "modèle", run_id=run.run_id, model_type="agent", params={"b": "1", "a": ""}, tags={"t": "x"}
    )
    assert re.fullmatch("m-[0-9a-f]{32}", made.model_id)
    assert (made.status, made.experiment_id, made.run_id) == (LoggedModelStatus.PENDING, run.experiment_id, run.run_id)
    assert logged_models.get_logged_model(registry, who, made.model_id) == made


def test_a_model_without_a_run_belongs_to_the_experiment_named_or_to_default(
    registry: Registry, who: Principal
) -> None:
    alone = logged_models.create_logged_model(registry, who)
    assert (alone.experiment_id, alone.run_id) == (0, None)
    assert alone.name
    named = logged_models.create_logged_model(registry, who, "m", experiment="fresh")
    assert experiments.get_experiment(registry, who, named.experiment_id).name == "fresh"
    with pytest.raises(ExperimentNotFoundError):
        logged_models.create_logged_model(registry, who, "m", experiment=999)


def test_a_run_and_an_experiment_must_agree(registry: Registry, who: Principal, run: Run) -> None:
    made = logged_models.create_logged_model(registry, who, "m", run_id=run.run_id, experiment="e")
    assert made.experiment_id == run.experiment_id
    with pytest.raises(InvalidFieldError):
        logged_models.create_logged_model(registry, who, "m", run_id=run.run_id, experiment="other")
    assert experiments.find_experiment_by_name(registry, who, "other") is None
    with pytest.raises(RunNotFoundError):
        logged_models.create_logged_model(registry, who, "m", run_id="nobody")
    runs.delete_run(registry, who, run.run_id)
    with pytest.raises(RunDeletedError):
        logged_models.create_logged_model(registry, who, "m", run_id=run.run_id)


def test_logging_ends_ready_or_failed_and_ready_is_final(registry: Registry, who: Principal) -> None:
    model_id = logged_models.create_logged_model(registry, who, "m").model_id
    failed = logged_models.finish_logged_model(registry, who, model_id, "UPLOAD_FAILED", status_message="disk full")
    assert (failed.status, failed.status_message) == (LoggedModelStatus.UPLOAD_FAILED, "disk full")
    ready = logged_models.finish_logged_model(registry, who, model_id)
    assert (ready.status, ready.status_message) == (LoggedModelStatus.READY, None)
    assert ready.updated_at > failed.updated_at
    assert logged_models.finish_logged_model(registry, who, model_id).status is LoggedModelStatus.READY
    with pytest.raises(ConflictError):
        logged_models.finish_logged_model(registry, who, model_id, LoggedModelStatus.UPLOAD_FAILED)
    statuses: tuple[Any, ...] = ("PENDING", "", None, 3)
    for status in statuses:
        with pytest.raises(InvalidFieldError):
            logged_models.finish_logged_model(registry, who, model_id, status)
    assert logged_models.get_logged_model(registry, who, model_id).status is LoggedModelStatus.READY


def test_a_name_in_a_run_means_its_newest_ready_model(registry: Registry, who: Principal, run: Run) -> None:
    def find() -> str | None:
        found = logged_models.find_logged_model_in_run(registry, who, run.run_id, "m")
        return None if found is None else found.model_id

    assert find() is None
    first, second, third = (
        logged_models.create_logged_model(registry, who, "m", run_id=run.run_id).model_id for _ in range(3)
    )
    elsewhere = logged_models.create_logged_model(registry, who, "m")
    logged_models.finish_logged_model(registry, who, elsewhere.model_id)
    assert find() is None
    logged_models.finish_logged_model(registry, who, first)
    assert find() == first
    logged_models.finish_logged_model(registry, who, second)
    logged_models.finish_logged_model(registry, who, third, "UPLOAD_FAILED")
    assert find() == second
    logged_models.delete_logged_model(registry, who, second)
    assert find() == first


def test_a_model_is_loaded_in_two_statements_whatever_it_holds(
    registry: Registry, who: Principal, run: Run, statements: Statements
) -> None:
    params, tags = {f"p{n}": str(n) for n in range(200)}, {f"t{n}": str(n) for n in range(200)}
    model_id = logged_models.create_logged_model(
        registry, who, "m", run_id=run.run_id, params=params, tags=tags
    ).model_id
    logged_models.log_logged_model_metrics(registry, who, model_id, [Metric(f"m{n}", n / 3, n) for n in range(200)])
    logged_models.finish_logged_model(registry, who, model_id)
    with registry.read() as tx:
        with statements() as sent:
            found = rows.get_logged_model(tx, model_id)
        assert len(sent) == 2
        with statements() as sent:
            assert rows.find_in_run(tx, run.run_id, "m") == found
        assert len(sent) == 2
    assert (found.params, found.tags) == (params, tags)
    assert found.metrics == {f"m{n}": Metric(f"m{n}", n / 3, n) for n in range(200)}


def test_params_are_written_once_and_metrics_keep_the_latest(registry: Registry, who: Principal) -> None:
    model_id = logged_models.create_logged_model(registry, who, "m", params={"a": "1"}).model_id
    logged_models.log_logged_model_params(registry, who, model_id, {"a": "1", "b": "2"})
    with pytest.raises(ParamChangedError):
        logged_models.log_logged_model_params(registry, who, model_id, {"c": "3", "b": "3"})
    logged_models.log_logged_model_metrics(registry, who, model_id, [Metric("m", 2.0, 5, 1), Metric("m", 1.0, 9, 0)])
    logged_models.log_logged_model_metrics(registry, who, model_id, [Metric("m", float("nan"), 5, 1)])
    found = logged_models.get_logged_model(registry, who, model_id)
    assert found.params == {"a": "1", "b": "2"}
    assert found.metrics == {"m": Metric("m", 2.0, 5, 1)}


def test_writers_of_one_model_do_not_lose_each_others_values(registry: Registry, who: Principal) -> None:
    model_id = logged_models.create_logged_model(registry, who, "m").model_id

    def write(n: int) -> None:
        logged_models.log_logged_model_metrics(
            registry, who, model_id, [Metric("m", float(n), n), Metric(f"m{n}", 0.0, 1)]
        )
        logged_models.set_logged_model_tags(registry, who, model_id, {f"t{n}": "x"})

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(write, range(12)))
    found = logged_models.get_logged_model(registry, who, model_id)
    assert found.metrics["m"].value == 11.0
    assert (len(found.metrics), len(found.tags)) == (13, 12)


def test_tags_are_set_replaced_and_deleted(registry: Registry, who: Principal) -> None:
    model_id = logged_models.create_logged_model(registry, who, "m", tags={"a": "1", "b": "1"}).model_id
    logged_models.set_logged_model_tags(registry, who, model_id, {"a": "2"})
    logged_models.delete_logged_model_tag(registry, who, model_id, "b")
    assert logged_models.get_logged_model(registry, who, model_id).tags == {"a": "2"}
    with pytest.raises(TagNotFoundError):
        logged_models.delete_logged_model_tag(registry, who, model_id, "b")


def test_a_deleted_model_is_gone_for_all_but_who_asks_for_deleted_ones(registry: Registry, who: Principal) -> None:
    model_id = logged_models.create_logged_model(registry, who, "m").model_id
    logged_models.delete_logged_model(registry, who, model_id)
    for call in (
        lambda: logged_models.get_logged_model(registry, who, model_id),
        lambda: logged_models.finish_logged_model(registry, who, model_id),
        lambda: logged_models.log_logged_model_params(registry, who, model_id, {"a": "b"}),
        lambda: logged_models.log_logged_model_metrics(registry, who, model_id, [Metric("m", 1.0, 1)]),
        lambda: logged_models.set_logged_model_tags(registry, who, model_id, {"a": "b"}),
        lambda: logged_models.delete_logged_model_tag(registry, who, model_id, "a"),
        lambda: logged_models.delete_logged_model(registry, who, model_id),
        lambda: logged_models.get_logged_model(registry, who, NOBODY, deleted=True),
    ):
        with pytest.raises(LoggedModelNotFoundError):
            call()
    assert logged_models.get_logged_model(registry, who, model_id, deleted=True).deleted_at is not None
    assert logged_models.list_logged_models(registry, who).items == ()
    assert [m.model_id for m in logged_models.list_logged_models(registry, who, deleted=True).items] == [model_id]


def test_pages_hold_every_model_once_newest_first(registry: Registry, who: Principal, run: Run) -> None:
    made = [
        logged_models.create_logged_model(registry, who, f"m{n % 2}", run_id=run.run_id, tags={"n": str(n)})
        for n in range(5)
    ]
    logged_models.create_logged_model(registry, who, "m0")
    for selection in ({"run_id": run.run_id}, {"experiment": "e"}, {"experiment": run.experiment_id}):
        seen: list[LoggedModel] = []
        cursor = None
        while True:
            page = logged_models.list_logged_models(registry, who, **selection, cursor=cursor, limit=2)
            seen += page.items
            cursor = page.next_cursor
            if cursor is None:
                break
        assert seen == made[::-1]
    found = logged_models.list_logged_models(registry, who, run_id=run.run_id, name="m0").items
    assert list(found) == [made[4], made[2], made[0]]
    assert len(logged_models.list_logged_models(registry, who).items) == 6


def test_bad_input_is_refused(registry: Registry, who: Principal) -> None:
    model_id = logged_models.create_logged_model(registry, who, "m").model_id
    names: tuple[Any, ...] = ("", "a/b", "a:b", "a.b", "a%b", 'a"b', "a'b", "a\0", "\ud800", "x" * 251, 3)
    for name in names:
        with pytest.raises(InvalidError):
            logged_models.create_logged_model(registry, who, name)
    others: tuple[dict[str, Any], ...] = (
        {"model_type": "\0"},
        {"params": {"a": "\0"}},
        {"tags": {"a": "\0"}},
        {"run_id": "../x"},
        {"experiment": True},
    )
    for other in others:
        with pytest.raises(InvalidError):
            logged_models.create_logged_model(registry, who, "m", **other)
    ids: tuple[Any, ...] = ("m-1", NOBODY.upper(), NOBODY + "0", NOBODY + "\n", "", None, 3)
    for bad_id in ids:
        with pytest.raises(InvalidFieldError):
            logged_models.get_logged_model(registry, who, bad_id)
    with pytest.raises(InvalidError):
        logged_models.log_logged_model_metrics(registry, who, model_id, [Metric("m", 1.0, 2**63)])
    with pytest.raises(InvalidError):
        logged_models.log_logged_model_params(registry, who, model_id, {f"p{n}": "" for n in range(1001)})
    assert len(logged_models.list_logged_models(registry, who).items) == 1

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from typing import Any

import pytest

from touchmark.domain.access import Principal
from touchmark.domain.errors import (
    ConflictError,
    ExperimentExistsError,
    ExperimentNotFoundError,
    InvalidCursorError,
    InvalidError,
    InvalidFieldError,
    InvalidTagError,
    LimitExceededError,
    RunDeletedError,
    TagNotFoundError,
)
from touchmark.domain.tracking import Experiment
from touchmark.registry import Registry
from touchmark.services import experiments, runs
from touchmark.storage import experiments as rows

Statements = Callable[[], AbstractContextManager[list[str]]]


def test_experiment_0_called_default_is_there_from_the_start(registry: Registry, who: Principal) -> None:
    default = experiments.get_experiment(registry, who, 0)
    assert (default.experiment_id, default.name, default.deleted_at) == (0, "Default", None)
    with registry.track() as tx:
        rows.create_default(tx)  # setting up twice changes nothing
    assert experiments.get_experiment(registry, who, 0) == default


def test_the_first_new_experiments_get_ids_of_their_own(registry: Registry, who: Principal) -> None:
    ids = [experiments.create_experiment(registry, who, name).experiment_id for name in "abc"]
    assert len({0, *ids}) == 4
    assert all(number > 0 for number in ids)


def test_a_created_experiment_is_read_back_by_id_and_by_name(registry: Registry, who: Principal) -> None:
    made = experiments.create_experiment(registry, who, "wörk / 100% 試験", tags={"b": "2", "a": "1" * 100_000})
    assert experiments.get_experiment(registry, who, made.experiment_id) == made
    assert experiments.find_experiment_by_name(registry, who, "wörk / 100% 試験") == made
    assert experiments.find_experiment_by_name(registry, who, "WÖRK / 100% 試験") is None
    assert list(made.tags) == ["a", "b"]


def test_a_name_is_taken_also_by_a_deleted_experiment(registry: Registry, who: Principal) -> None:
    made = experiments.create_experiment(registry, who, "a")
    with pytest.raises(ExperimentExistsError):
        experiments.create_experiment(registry, who, "a")
    experiments.delete_experiment(registry, who, made.experiment_id)
    with pytest.raises(ExperimentExistsError):
        experiments.create_experiment(registry, who, "a")
    with pytest.raises(ConflictError, match="Restore it first"):
        experiments.ensure_experiment(registry, who, "a")


def test_many_writers_ensure_one_experiment(registry: Registry, who: Principal) -> None:
    with ThreadPoolExecutor(8) as pool:
        names = [f"e{n % 3}" for n in range(48)]
        found = list(pool.map(lambda name: experiments.ensure_experiment(registry, who, name), names))
    assert len({(item.experiment_id, item.name) for item in found}) == 3
    assert len(experiments.list_experiments(registry, who).items) == 4  # and Default


def test_ensuring_an_experiment_that_is_there_takes_no_write(
    registry: Registry, who: Principal, statements: Statements
) -> None:
    made = experiments.create_experiment(registry, who, "a", tags={"k": "v"})
    with statements() as sent:
        assert experiments.ensure_experiment(registry, who, "a") == made
    assert len(sent) == 2
    assert all(statement.startswith("SELECT") for statement in sent)


def test_pages_hold_every_experiment_once_newest_first(
    registry: Registry, who: Principal, statements: Statements
) -> None:
    ids = [experiments.create_experiment(registry, who, f"e{n}", tags={"n": str(n)}).experiment_id for n in range(5)]
    experiments.delete_experiment(registry, who, ids[2])
    seen: list[Experiment] = []
    cursor = None
    while True:
        with statements() as sent:
            page = experiments.list_experiments(registry, who, cursor=cursor, limit=2)
        assert len(sent) == 2
        seen += page.items
        cursor = page.next_cursor
        if cursor is None:
            break
    assert [item.experiment_id for item in seen] == [ids[4], ids[3], ids[1], ids[0], 0]
    assert [item.tags for item in seen][:1] == [{"n": "4"}]
    assert [e.experiment_id for e in experiments.list_experiments(registry, who, deleted=True).items] == [ids[2]]
    assert len(experiments.list_experiments(registry, who, deleted=None).items) == 6


def test_a_cursor_of_another_list_is_refused(registry: Registry, who: Principal) -> None:
    for n in range(2):
        experiments.create_experiment(registry, who, f"e{n}")
    cursor = experiments.list_experiments(registry, who, limit=1).next_cursor
    with pytest.raises(InvalidCursorError):
        experiments.list_experiments(registry, who, limit=1, cursor=cursor, deleted=None)
    with pytest.raises(InvalidCursorError):
        runs.list_runs(registry, who, 0, cursor=cursor)
    limits: tuple[Any, ...] = (0, True, "5", 10**30)
    for limit in limits:
        with pytest.raises(InvalidError):
            experiments.list_experiments(registry, who, limit=limit)


def test_tags_are_set_replaced_and_deleted(registry: Registry, who: Principal) -> None:
    made = experiments.create_experiment(registry, who, "a", tags={"x": "1", "y": "1"})
    experiments.set_experiment_tags(registry, who, made.experiment_id, {"x": "2", "z": "3"})
    experiments.delete_experiment_tag(registry, who, made.experiment_id, "y")
    found = experiments.get_experiment(registry, who, made.experiment_id)
    assert found.tags == {"x": "2", "z": "3"}
    assert found.updated_at > made.updated_at
    with pytest.raises(TagNotFoundError):
        experiments.delete_experiment_tag(registry, who, made.experiment_id, "y")
    experiments.delete_experiment(registry, who, made.experiment_id)
    with pytest.raises(ConflictError):
        experiments.set_experiment_tags(registry, who, made.experiment_id, {"x": "3"})


def test_a_rename_frees_the_old_name_and_refuses_a_taken_one(registry: Registry, who: Principal) -> None:
    made = experiments.create_experiment(registry, who, "a")
    other = experiments.create_experiment(registry, who, "b")
    assert experiments.rename_experiment(registry, who, made.experiment_id, "c").name == "c"
    assert experiments.find_experiment_by_name(registry, who, "a") is None
    assert experiments.rename_experiment(registry, who, made.experiment_id, "c").experiment_id == made.experiment_id
    with pytest.raises(ExperimentExistsError):
        experiments.rename_experiment(registry, who, made.experiment_id, "b")
    experiments.delete_experiment(registry, who, other.experiment_id)
    with pytest.raises(ExperimentExistsError):
        experiments.rename_experiment(registry, who, made.experiment_id, "b")
    with pytest.raises(ConflictError):
        experiments.rename_experiment(registry, who, other.experiment_id, "d")
    assert len(experiments.list_experiments(registry, who, deleted=None).items) == 3


def test_of_many_who_want_one_name_at_once_one_gets_it(registry: Registry, who: Principal) -> None:
    ids = [experiments.create_experiment(registry, who, f"e{n}").experiment_id for n in range(4)]

    def want(number: int) -> bool:
        try:
            if number < 4:
                experiments.rename_experiment(registry, who, ids[number], "wanted")
            else:
                experiments.create_experiment(registry, who, "wanted")
        except ExperimentExistsError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(want, range(8))) == 1
    assert experiments.find_experiment_by_name(registry, who, "wanted") is not None


def test_an_experiment_is_deleted_and_restored_with_its_runs(registry: Registry, who: Principal) -> None:
    made = experiments.create_experiment(registry, who, "a")
    kept, dropped = (runs.create_run(registry, who, "a").run_id for _ in range(2))
    elsewhere = runs.create_run(registry, who, 0).run_id
    runs.delete_run(registry, who, dropped)
    experiments.delete_experiment(registry, who, made.experiment_id)
    experiments.delete_experiment(registry, who, made.experiment_id)  # once more is no change
    assert experiments.get_experiment(registry, who, made.experiment_id).deleted_at is not None
    with pytest.raises(RunDeletedError):
        runs.log_params(registry, who, kept, {"a": "1"})
    with pytest.raises(ConflictError):
        runs.create_run(registry, who, "a")
    with pytest.raises(ConflictError):
        runs.create_run(registry, who, made.experiment_id)
    with pytest.raises(ConflictError):
        runs.restore_run(registry, who, dropped)
    runs.log_params(registry, who, elsewhere, {"a": "1"})
    experiments.restore_experiment(registry, who, made.experiment_id)
    experiments.restore_experiment(registry, who, made.experiment_id)
    runs.log_params(registry, who, kept, {"a": "1"})
    assert runs.get_run(registry, who, dropped).deleted_at is not None
    assert experiments.get_experiment(registry, who, made.experiment_id).deleted_at is None


def test_no_run_begins_in_an_experiment_while_it_is_deleted(registry: Registry, who: Principal) -> None:
    ids = [experiments.create_experiment(registry, who, f"e{n}").experiment_id for n in range(10)]

    def begin(number: int) -> None:
        for _ in range(10):
            with suppress(ConflictError):
                runs.create_run(registry, who, ids[number])

    with ThreadPoolExecutor(4) as pool:
        for number in range(10):
            writers = [pool.submit(begin, number) for _ in range(3)]
            experiments.delete_experiment(registry, who, ids[number])
            for writer in writers:
                writer.result()
    for number in ids:
        assert runs.list_runs(registry, who, number).items == ()


def test_a_bad_name_is_refused_by_every_door(registry: Registry, who: Principal) -> None:
    names: tuple[Any, ...] = ("", "  ", "a\0b", "a\nb", "\ud800", "x" * 501, "a\u202eb", None, 3, b"a")
    for name in names:
        for call in (
            experiments.create_experiment,
            experiments.ensure_experiment,
            experiments.find_experiment_by_name,
            lambda registry, who, name: experiments.rename_experiment(registry, who, 0, name),
        ):
            with pytest.raises((InvalidFieldError, LimitExceededError)):
                call(registry, who, name)


def test_the_longest_names_and_keys_fit(registry: Registry, who: Principal) -> None:
    name = "\U00010348" * 500  # four bytes each
    made = experiments.create_experiment(registry, who, name, tags={"\U00010348" * 250: "x"})
    assert experiments.find_experiment_by_name(registry, who, name) == made


def test_a_bad_id_is_refused(registry: Registry, who: Principal) -> None:
    numbers: tuple[Any, ...] = (-1, 2**63, True, "0", 1.0, None, float("nan"))
    for number in numbers:
        with pytest.raises(InvalidFieldError):
            experiments.get_experiment(registry, who, number)
        with pytest.raises(InvalidFieldError):
            experiments.delete_experiment(registry, who, number)


def test_bad_tags_change_nothing(registry: Registry, who: Principal) -> None:
    wrong: tuple[Any, ...] = ({"": "x"}, {"a\0": "x"}, {"a": "\0"}, {"a": "\udfff"}, {"a": 1}, {"x" * 251: "x"})
    for tags in wrong:
        with pytest.raises(InvalidTagError):
            experiments.create_experiment(registry, who, "a", tags=tags)
        with pytest.raises(InvalidTagError):
            experiments.set_experiment_tags(registry, who, 0, tags)
    assert experiments.find_experiment_by_name(registry, who, "a") is None


def test_what_is_not_there_is_said_so(registry: Registry, who: Principal) -> None:
    for call in (experiments.get_experiment, experiments.delete_experiment, experiments.restore_experiment):
        with pytest.raises(ExperimentNotFoundError):
            call(registry, who, 2**63 - 1)
    with pytest.raises(ExperimentNotFoundError):
        experiments.set_experiment_tags(registry, who, 77, {"a": "b"})
    with pytest.raises(ExperimentNotFoundError):
        experiments.rename_experiment(registry, who, 77, "x")

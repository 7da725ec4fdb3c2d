"""What may come from another registry: bad parts are left out by themselves and said, and nothing makes it stumble."""

from __future__ import annotations

import pytest

from touchmark.domain.imports import (
    SourceExperiment,
    SourceRun,
    clean_experiment,
    clean_run,
    find_copied,
)
from touchmark.domain.tracking import ModelLink, ModelRole

LINKED = "m-" + "0" * 32


@pytest.mark.parametrize(
    ("source", "copied"),
    [
        ("models:/risk/3", ("risk", 3)),
        ("models:/risk/x", None),
        ("models:/risk/\u00b2", None),
        ("models:/risk/" + "9" * 5_000, None),
        ("models:/a/b/3", None),
        ("runs:/risk/3", None),
    ],
)
def test_only_a_number_makes_a_source_a_copy(source: str, copied: tuple[str, int] | None) -> None:
    assert find_copied(source) == copied


@pytest.mark.parametrize(("there", "here"), [("7", 7), ("-7", -1), (str(2**63), -1), ("9" * 5_000, -1), ("\u00b2", -1)])
def test_an_experiment_keeps_its_id_if_that_is_a_number_that_fits(there: str, here: int) -> None:
    made, problems = clean_experiment(SourceExperiment(there, "flowers", 1, 2, is_deleted=False), 5)

    assert (made.experiment_id, problems) == (here, [])


def test_times_that_do_not_fit_are_left_out_and_said() -> None:
    made, problems = clean_experiment(SourceExperiment("7", "flowers", 2**63, 2**63, is_deleted=True), 5)
    run = SourceRun("r", "7", "n", "u", "FINISHED", 1, 2, is_deleted=True, deleted_at=2**63, artifact_uri="")
    clean = clean_run(run, 7, (), 5)

    assert (made.created_at, made.updated_at, made.deleted_at) == (5, 5, 5)
    assert [problem.what for problem in problems] == ["experiment"] * 2
    assert clean.run.deleted_at == 5
    assert "time of deletion left out" in clean.problems[0].reason


def test_a_link_to_a_logged_model_with_an_impossible_step_is_left_out_and_said() -> None:
    links = [
        ModelLink(ModelRole.INPUT, LINKED, 2**63),
        ModelLink(ModelRole.OUTPUT, LINKED, 3),
        ModelLink(ModelRole.INPUT, "x"),
    ]
    run = SourceRun(
        "r", "7", "n", "u", "FINISHED", 1, 2, is_deleted=False, deleted_at=None, artifact_uri="", models=links
    )
    clean = clean_run(run, 7, (), 5)

    assert clean.run.models == (links[1],)
    assert [LINKED in problem.reason for problem in clean.problems] == [True]

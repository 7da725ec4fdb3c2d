"""The same stories told to MLflow's own server and to Touchmark: what differs is listed here with its reason, or fails.

A difference that is listed and no longer shows fails too, so that the list stays true. It stays short: at most 25.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from tests import postgres
from tests.conformance.mlflow.played import Finding, Heard, Story, compare, play
from tests.conformance.mlflow.registry_stories import REGISTRY_STORIES
from tests.conformance.mlflow_reference import run_reference
from tests.served import serve

pytestmark = [pytest.mark.mlflow, pytest.mark.processes, pytest.mark.timeout(300)]

STORIES: Sequence[Story] = (*REGISTRY_STORIES,)
AT_MOST = 25


@dataclass(frozen=True)
class Difference:
    """A deliberate difference: findings whose call, field and values match, and why they are wanted."""

    why: str
    field: str
    peer: str = ".*"
    ours: str = ".*"
    call: str = ".*"

    def covers(self, finding: Finding) -> bool:
        """Return whether a finding is this difference."""
        values = (
            (self.call, finding.call),
            (self.field, finding.field),
            (self.peer, finding.peer),
            (self.ours, finding.ours),
        )
        return all(re.fullmatch(pattern, _text(value), re.DOTALL) for pattern, value in values)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


DIFFERENCES: Sequence[Difference] = ()


@pytest.fixture(scope="module")
def heard_of_peer(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, list[Heard]]:
    """Tell every story to MLflow's own server."""
    with run_reference(tmp_path_factory.mktemp("reference")) as address:
        return {story.__name__: play(story, address) for story in STORIES}


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def findings(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, heard_of_peer: Mapping[str, list[Heard]]
) -> Iterator[Mapping[str, list[Finding]]]:
    """Tell every story to Touchmark, and give what differs in each."""
    with ExitStack() as stack:
        flags = ["--no-log-requests"]
        if request.param == "postgres":
            server: postgres.PostgresServer = request.getfixturevalue("postgres_server")
            flags += ["--database", stack.enter_context(server.open_database())]
        served = stack.enter_context(serve(tmp_path_factory.mktemp("home"), *flags))
        address = f"http://127.0.0.1:{served.port}"
        yield {story.__name__: compare(heard_of_peer[story.__name__], play(story, address)) for story in STORIES}


@pytest.mark.parametrize("story", [story.__name__ for story in STORIES])
def test_a_story_ends_as_on_mlflows_own_server(findings: Mapping[str, list[Finding]], story: str) -> None:
    unlisted = [finding for finding in findings[story] if not any(known.covers(finding) for known in DIFFERENCES)]
    assert not unlisted, "\n" + "\n".join(str(finding) for finding in unlisted)


@pytest.mark.parametrize("known", DIFFERENCES, ids=lambda known: known.why[:60])
def test_a_listed_difference_still_shows(findings: Mapping[str, list[Finding]], known: Difference) -> None:
    assert any(known.covers(finding) for found in findings.values() for finding in found), known.why


def test_the_list_of_differences_stays_short() -> None:
    assert len(DIFFERENCES) <= AT_MOST

"""The same stories told to MLflow's own server and to Touchmark: what differs is listed here with its reason, or fails.

A difference that is listed and no longer shows fails too, so that the list stays true. It stays short: at most 25.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from tests import postgres
from tests.conformance.mlflow.played import Finding, Heard, Story, compare, play
from tests.conformance.mlflow.registry_stories import REGISTRY_STORIES
from tests.conformance.mlflow.tracking_stories import TRACKING_STORIES
from tests.conformance.mlflow_reference import run_reference
from tests.served import serve

pytestmark = [pytest.mark.mlflow, pytest.mark.processes, pytest.mark.timeout(300)]

STORIES: Sequence[Story] = (*REGISTRY_STORIES, *TRACKING_STORIES)
AT_MOST = 25


@dataclass(frozen=True)
class Shows:
    """Findings whose story, call, field and values match these patterns wholly."""

    field: str
    peer: str = ".*"
    ours: str = ".*"
    story: str = ".*"
    call: str = ".*"

    def covers(self, finding: Finding) -> bool:
        """Return whether a finding is one of these."""
        return all(
            re.fullmatch(pattern, value if isinstance(value, str) else json.dumps(value), re.DOTALL)
            for pattern, value in (
                (self.story, finding.story),
                (self.field, finding.field),
                (self.peer, finding.peer),
                (self.ours, finding.ours),
                (self.call, finding.call),
            )
        )


@dataclass(frozen=True)
class Difference:
    """A deliberate difference: why it is wanted, and everything by which it shows. Each of these must still be seen."""

    why: str
    shows: tuple[Shows, ...]

    def covers(self, finding: Finding) -> bool:
        """Return whether a finding is this difference."""
        return any(shown.covers(finding) for shown in self.shows)


_BAD = "400 INVALID_PARAMETER_VALUE"
_GONE = "404 RESOURCE_DOES_NOT_EXIST"

DIFFERENCES: Sequence[Difference] = (
    Difference(
        "Who registered a model or a version, and who ran and when, is filled in where the request does not say it.",
        (
            Shows(r".*\buser_id", "(null|)", "anonymous"),
            Shows(r"run\.info\.start_time", "0", "<at call .*", "a_run_without_user_or_start"),
        ),
    ),
    Difference(
        "Aliases are filled in wherever a version is shown: a wish of MLflow's users, open for years.",
        (
            Shows(r"model_versions\[\]\.aliases", "null", r"\[.*"),
            Shows(r"registered_model\.latest_versions\[\]\.aliases", "null", r"\[.*"),
        ),
    ),
    Difference(
        "The logged model behind a version is named: MLflow takes model_id and never shows it again.",
        (Shows(r".*\bmodel_id", "null", "<id .*", "a_logged_model_is_registered"),),
    ),
    Difference(
        "A version whose files are not held here says so, and why.",
        (Shows(r".*\bstatus_message", "null", ".+"),),
    ),
    Difference(
        "A sealed version's files are fetched from the address of its digest, which nothing can change.",
        (Shows("artifact_uri", "(runs|mlflow-artifacts):.*", "<server>/api/2.0/mlflow-artifacts/artifacts/sealed/.*"),),
    ),
    Difference(
        "A name once used stays its model's: no other model takes it, and its numbers go on after a deletion.",
        (
            Shows("answer", "200", "400 RESOURCE_ALREADY_EXISTS", "an_old_name_is_read"),
            Shows(r".*\bversion", "1", "3", "a_name_is_used_again"),
        ),
    ),
    Difference(
        "Names and aliases that cannot be told apart, typed or stored everywhere are refused on every database.",
        (
            Shows("answer", "200", _BAD, "names_are_strict"),
            Shows("answer", "200", _BAD, "names_are_strict_in_tracking"),
            Shows("answer", "200", _BAD, "aliases_are_strict"),
        ),
    ),
    Difference(
        "What a caller did wrong is never answered 5xx, after which clients send it again for four minutes.",
        (Shows("answer", r"50[01] .*", r"4\d\d (?!None).*"),),
    ),
    Difference(
        "A version whose run or logged model is unknown or another's is kept, unsealed; runs:/R need not repeat R in run_id.",
        (
            Shows("answer", _BAD, "200", "a_run_is_registered", r".*\"runs:/[^\"]*\"\}"),
            Shows("answer", _BAD, "200", "versions_whose_run_is_unknown", r".*runs:/.*"),
            Shows("answer", "500 INTERNAL_ERROR", "200", "versions_whose_run_is_unknown", r".*models:/.*"),
        ),
    ),
    Difference(
        "A metric's history is told in the order of its steps.",
        (Shows(r"metrics\[\].*", story="a_run_lives", call="GET metrics/get-history .*"),),
    ),
    Difference(
        "Renaming a model is no change of its versions.",
        (Shows(r".*\blast_updated_timestamp", story="(a_model_is_renamed|an_old_name_is_read)"),),
    ),
    Difference(
        "A request that changes nothing leaves no trace: no event, no time of change.",
        (
            Shows(r"registered_model\.last_updated_timestamp", story="a_model_lives"),
            Shows(r"model_version\.last_updated_timestamp", story="stages_are_passed"),
            Shows(r"webhook\.last_updated_timestamp", story="webhooks_are_kept"),
        ),
    ),
    Difference(
        "A version without description has an empty one, whether it never had one or it was taken away.",
        (Shows(r".*\bdescription", "null", "", "a_version_lives"),),
    ),
    Difference(
        "JSON that is broken or ambiguous is refused, and it is said that it is: not that a field is missing.",
        (
            Shows("message", "Missing value for required parameter.*", "Invalid value for 'body'.*", "json_is_strict"),
            Shows("answer", "200", _BAD, "json_is_strict"),
        ),
    ),
    Difference(
        "Errors are JSON everywhere, and what does not exist answers as an endpoint that does not, whatever the method.",
        (
            Shows("answer", r"40[45] None", "404 ENDPOINT_NOT_FOUND"),
            Shows("answer", r"400 None", "400 INVALID_PARAMETER_VALUE"),
        ),
    ),
    Difference(
        "/health and /version are this server's own, and there is no AI gateway.",
        (
            Shows("content-type", "text/plain", "application/json", call="GET /health"),
            Shows("", "OK", r"\{.*", call="GET /health"),
            Shows("content-type", "text/html", "text/plain", call="GET /version"),
            Shows(r"features_enabled\.gateway", "true", "false"),
        ),
    ),
    Difference(
        "Where MLflow lets its database complain (BAD_REQUEST, with the SQL), the request is understood or named wrong.",
        (
            Shows("answer", "400 BAD_REQUEST", "200", "(webhooks_in_odd_ways|runs_without_experiment)"),
            Shows("answer", "400 BAD_REQUEST", "400 RESOURCE_ALREADY_EXISTS", "experiments_are_refused"),
            Shows("answer", "400 BAD_REQUEST", _BAD, "a_logged_model_lives", r".*/params .*"),
        ),
    ),
    Difference(
        "A value of the wrong type or a word that means nothing is refused, where MLflow passes over it in silence.",
        (
            Shows("answer", "200", _BAD, "tags_are_typed"),
            Shows("answer", "200", _BAD, "values_are_typed"),
            Shows("answer", "200", _BAD, "words_mean_something"),
            Shows("answer", "200", _BAD, "webhooks_in_odd_ways"),
        ),
    ),
    Difference(
        "Keys may hold any visible character, some limits are wider, and long params are cut on logged models too.",
        (
            Shows("answer", _BAD, "200", "keys_of_tags_are_free"),
            Shows("answer", _BAD, "200", "limits_are_wider"),
            Shows(r".*\.(tags|params)\[\]\.value", story="long_values_are_cut_or_kept"),
        ),
    ),
    Difference(
        "A page has a row at least, at most what is documented, and only a token of ours leads to another.",
        (
            Shows("answer", "200", _BAD, "pages_have_rows"),
            Shows("answer", "200", _BAD, "pages_have_rows_in_tracking"),
        ),
    ),
    Difference(
        "What does not exist or is deleted is said so wherever it is named.",
        (
            Shows("answer", "200", _GONE, "runs_that_do_not_exist"),
            Shows("answer", "200", _GONE, "deleted_things_are_written_to", ".*logged-models.*"),
            Shows("answer", _BAD, "409 RESOURCE_CONFLICT", "deleted_things_are_written_to"),
        ),
    ),
    Difference(
        "Deleting an experiment that is deleted, or restoring one that is not, is done already.",
        (Shows("answer", _GONE, "200", "done_things_are_done_again"),),
    ),
    Difference(
        "A tag is a change of its experiment or logged model.",
        (Shows(r"experiment\.last_update_time"), Shows(r"model\.info\.last_updated_timestamp_ms")),
    ),
    Difference(
        "Artifacts come through this server, so that they can be sealed; paths are plain and nothing runs in a browser.",
        (
            Shows(r"experiment\.artifact_location", "s3://.*", "mlflow-artifacts:/.*", "artifacts_stay_here"),
            Shows("answer", "200", _BAD, "artifacts_stay_here"),
            Shows("answer", "200", _BAD, "artifact_paths_are_strict"),
            Shows("answer", "(500 INTERNAL_ERROR|404 .*)", "200", "artifact_paths_are_strict", r".*/%2fetc.*"),
            Shows("content-type", "text/plain", "application/octet-stream", "artifacts_come_and_go"),
        ),
    ),
    Difference(
        "A prompt's tag on one version hides that version alone, not all others of the model.",
        (Shows("model_versions", "null", r"\[.*", "one_prompt_tag_among_versions"),),
    ),
)


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
        yield {story.__name__: compare(story, heard_of_peer[story.__name__], play(story, address)) for story in STORIES}


@pytest.mark.parametrize("story", [story.__name__ for story in STORIES])
def test_a_story_ends_as_on_mlflows_own_server(findings: Mapping[str, list[Finding]], story: str) -> None:
    unlisted = [finding for finding in findings[story] if not any(known.covers(finding) for known in DIFFERENCES)]
    assert not unlisted, "\n" + "\n".join(str(finding) for finding in unlisted)


@pytest.mark.parametrize("known", DIFFERENCES, ids=lambda known: known.why[:60])
def test_a_listed_difference_still_shows(findings: Mapping[str, list[Finding]], known: Difference) -> None:
    seen = [finding for found in findings.values() for finding in found]
    gone = [shown for shown in known.shows if not any(shown.covers(finding) for finding in seen)]
    assert not gone, known.why


def test_the_list_of_differences_stays_short() -> None:
    assert len(DIFFERENCES) <= AT_MOST

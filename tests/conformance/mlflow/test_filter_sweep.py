"""Generated searches over the same small data set on MLflow's own server and on Touchmark: the same pages of the same rows.

TOUCHMARK_SWEEP_CASES says how many (300 if unset), TOUCHMARK_SWEEP_SEED which ones.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from tests import postgres
from tests.conformance.mlflow_filter_cases import DATA, INVALID_CASES, KINDS, Case, InvalidCase, generate_cases
from tests.conformance.mlflow_reference import run_reference
from tests.served import serve

pytestmark = [pytest.mark.mlflow, pytest.mark.processes, pytest.mark.timeout(3600)]

CASES = int(os.environ.get("TOUCHMARK_SWEEP_CASES") or 300)
SEED = int(os.environ.get("TOUCHMARK_SWEEP_SEED") or 1)
MOST_PAGES = 50
"""No search over this data has more: a server whose tokens lead round in circles fails, and does not hang."""
SHOWN = 15

Pages = list[list[str]]


@dataclass
class Filled:
    """A server that holds the data: `found` is what it chose by itself, `rows` the words for its ids."""

    client: httpx.Client
    found: dict[str, str] = field(default_factory=dict)
    rows: dict[str, str] = field(default_factory=dict)

    def ask(self, method: str, path: str, body: Any) -> Any:
        """Send a request that must succeed and return its JSON. Waits first, so that no two rows share a time."""
        time.sleep(0.003)
        answer = self.send(method, path, body)
        assert answer.status_code == 200, (path, body, answer.text)
        return answer.json()

    def send(self, method: str, path: str, body: Any) -> httpx.Response:
        """Send fields as MLflow wants them for this method."""
        address = f"/api/2.0/mlflow/{path}"
        return self.client.get(address, params=body) if method == "GET" else self.client.post(address, json=body)

    def fill(self) -> None:
        """Create what the data says, in its order."""
        for number, experiment in enumerate(DATA.experiments):
            experiment_id = self.ask("POST", "experiments/create", experiment)["experiment_id"]
            self._note("experiment", number, experiment_id)
            made = self.ask("GET", "experiments/get", {"experiment_id": experiment_id})
            self.found[f"experiment_{number}_created"] = str(made["experiment"]["creation_time"])
        for number, run in enumerate(DATA.runs):
            self._fill_run(number, run)
        for number, model in enumerate(DATA.logged_models):
            self._fill_logged_model(number, model)
        for registered in DATA.models:
            self.ask("POST", "registered-models/create", registered)
        for version in DATA.versions:
            body = {key: value for key, value in version.items() if key != "run"}
            if "run" in version:
                run_id = self.found[f"run_{version['run']}"]
                body |= {"run_id": run_id, "source": f"runs:/{run_id}/model"}
            self.ask("POST", "model-versions/create", body)

    def _note(self, noun: str, number: int, chosen: str) -> None:
        self.found[f"{noun}_{number}"] = chosen
        self.rows[f"{noun} {chosen}"] = f"{noun} {number}"

    def _fill_run(self, number: int, run: Mapping[str, Any]) -> None:
        plain = {key: run[key] for key in ("run_name", "user_id", "start_time", "tags") if key in run}
        experiment = self.found[f"experiment_{run['experiment']}"]
        made = self.ask("POST", "runs/create", {**plain, "experiment_id": experiment})
        run_id = made["run"]["info"]["run_id"]
        self._note("run", number, run_id)
        for metric in run.get("metrics", ()):
            self.ask("POST", "runs/log-metric", {**metric, "run_id": run_id})
        for param in run.get("params", ()):
            self.ask("POST", "runs/log-parameter", {**param, "run_id": run_id})
        if "datasets" in run:
            self.ask("POST", "runs/log-inputs", {"run_id": run_id, "datasets": run["datasets"]})
        if "end" in run:
            self.ask("POST", "runs/update", {"run_id": run_id, **run["end"]})

    def _fill_logged_model(self, number: int, model: Mapping[str, Any]) -> None:
        body = {key: value for key, value in model.items() if key not in {"experiment", "run", "metrics"}}
        body["experiment_id"] = self.found[f"experiment_{model['experiment']}"]
        if "run" in model:
            body["source_run_id"] = self.found[f"run_{model['run']}"]
        info = self.ask("POST", "logged-models", body)["model"]["info"]
        self._note("logged_model", number, info["model_id"])
        self.found[f"logged_model_{number}_created"] = str(info["creation_timestamp_ms"])
        for metric in model.get("metrics", ()):
            run_id = self.found[f"run_{metric['run']}"]
            plain = {key: value for key, value in metric.items() if key != "run"}
            self.ask("POST", "runs/log-metric", {**plain, "run_id": run_id, "model_id": info["model_id"]})

    def search(self, case: Case | InvalidCase, *, max_results: int = 100, token: str | None = None) -> httpx.Response:
        """Send one search."""
        body: dict[str, Any] = {"max_results": max_results, "order_by": list(case.order_by)}
        if case.filter:
            body["filter"] = case.filter
        if token is not None:
            body["page_token"] = token
        experiments = [self.found[f"experiment_{number}"] for number in range(len(DATA.experiments))]
        match case.kind:
            case "models":
                return self.send("GET", "registered-models/search", body)
            case "versions":
                return self.send("GET", "model-versions/search", body)
            case "experiments":
                return self.send("POST", "experiments/search", body)
            case "runs":
                return self.send("POST", "runs/search", {**body, "experiment_ids": experiments})
            case _:
                return self.send("POST", "logged-models/search", {**body, "experiment_ids": experiments})

    def find(self, case: Case) -> Pages | str:
        """Return the rows of every page, in words that mean the same on every server; or what went wrong."""
        filled, pages, token = case.fill(self.found), [], None
        while len(pages) < MOST_PAGES:
            answer = self.search(filled, max_results=case.max_results, token=token)
            if answer.status_code != 200:
                return f"{answer.status_code}: {answer.text[:200]}"
            found = answer.json()
            pages.append(
                [self._row(case.kind, item) for key in found if key != "next_page_token" for item in found[key]]
            )
            token = found.get("next_page_token")
            if not token:
                return pages
        return f"more than {MOST_PAGES} pages"

    def _row(self, kind: str, item: Any) -> str:
        match kind:
            case "models":
                return str(item["name"])
            case "versions":
                return f"{item['name']} {item['version']}"
            case "experiments":
                return str(item["name"])
            case "runs":
                return self.rows[f"run {item['info']['run_id']}"]
            case _:
                return self.rows[f"logged_model {item['info']['model_id']}"]


@dataclass(frozen=True)
class Asked:
    """What MLflow's own server answered: the rows of each case, and status and message of each invalid one."""

    rows: Sequence[tuple[Case, Pages | str]]
    refusals: Sequence[tuple[int, str]]


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Asked:
    """Ask everything of MLflow's own server."""
    folder = tmp_path_factory.mktemp("reference")
    with run_reference(folder) as address, httpx.Client(base_url=address, timeout=60) as client:
        filled = Filled(client)
        filled.fill()
        rows = [(case, filled.find(case)) for case in generate_cases(SEED, CASES)]
        answers = [filled.search(case) for case in INVALID_CASES]
        return Asked(rows, [(answer.status_code, answer.text) for answer in answers])


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def ours(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Filled]:
    """Fill Touchmark on each database."""
    with ExitStack() as stack:
        flags = ["--no-log-requests"]
        if request.param == "postgres":
            server: postgres.PostgresServer = request.getfixturevalue("postgres_server")
            flags += ["--database", stack.enter_context(server.open_database())]
        served = stack.enter_context(serve(tmp_path_factory.mktemp("home"), *flags))
        client = stack.enter_context(httpx.Client(base_url=f"http://127.0.0.1:{served.port}", timeout=60))
        filled = Filled(client)
        filled.fill()
        yield filled


@pytest.mark.parametrize("kind", KINDS)
def test_a_search_finds_the_rows_that_mlflow_finds(ours: Filled, peer: Asked, kind: str) -> None:
    wrong, asked = [], 0
    for case, rows in peer.rows:
        if case.kind == kind:
            asked += 1
            found = ours.find(case)
            if found != rows:
                wrong.append(f"{case}\n    peer {rows}\n    ours {found}")
    assert asked >= CASES // len(KINDS)
    assert not wrong, f"{len(wrong)} of {asked} differ\n" + "\n".join(wrong[:SHOWN])


@pytest.mark.parametrize("kind", KINDS)
def test_the_searches_find_something_and_nothing(peer: Asked, kind: str) -> None:
    # A sweep whose searches all failed, or all found nothing or everything, would compare nothing.
    rows = [found for case, found in peer.rows if case.kind == kind]
    assert not [found for found in rows if isinstance(found, str)]
    sizes = {sum(map(len, found)) for found in rows}
    assert 0 in sizes
    assert len(sizes) > 3
    assert any(len(found) > 1 for found in rows)


@pytest.mark.parametrize("kind", KINDS)
def test_an_invalid_search_is_refused_as_mlflow_refuses_it(ours: Filled, peer: Asked, kind: str) -> None:
    wrong = []
    for case, (status, text) in zip(INVALID_CASES, peer.refusals, strict=True):
        if case.kind != kind:
            continue
        answer = ours.search(case)
        if (status, answer.status_code) != (case.peer, case.status):
            wrong.append(f"{case}\n    peer {status} {text[:200]}\n    ours {answer.status_code} {answer.text[:200]}")
        elif answer.json()["error_code"] != case.error_code or case.says not in answer.json()["message"]:
            wrong.append(f"{case}\n    peer {text[:200]}\n    ours {answer.text[:200]}")
    assert not wrong, "\n" + "\n".join(wrong[:SHOWN])

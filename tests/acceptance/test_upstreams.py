"""The registry beside an existing MLflow server: what is registered from its runs is imported, sealed, and then its own."""

from __future__ import annotations

import json
import socket
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.mlflow_reference import run_reference
from tests.served import Served, serve, wait_for

pytestmark = [pytest.mark.mlflow, pytest.mark.processes, pytest.mark.timeout(240)]
API = "/api/2.0/mlflow"
FILES = "/api/2.0/mlflow-artifacts/artifacts"
WEIGHTS = b"weights of a model\n" * 1000


@dataclass(frozen=True)
class Peer:
    """MLflow's own server, spoken to over plain HTTP."""

    url: str

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"} if data else {}
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            found = answer.read()
        return json.loads(found) if (found and method != "GET") or found[:1] == b"{" else found

    def new_run(self) -> str:
        run = self.ask("POST", f"{API}/runs/create", {"experiment_id": "0", "user_id": "ada", "start_time": 1})
        run_id: str = run["run"]["info"]["run_id"]
        batch = {
            "run_id": run_id,
            "params": [{"key": "depth", "value": "3"}],
            "metrics": [{"key": "auc", "value": 0.9, "timestamp": 5, "step": 0}],
        }
        self.ask("POST", f"{API}/runs/log-batch", batch)
        return run_id

    def new_logged_model(self, run_id: str) -> str:
        body = {"experiment_id": "0", "name": "clf", "source_run_id": run_id}
        info = self.ask("POST", f"{API}/logged-models", body)["model"]["info"]
        model_id: str = info["model_id"]
        for path in ("MLmodel", "data/weights.bin"):
            self.ask("PUT", f"{FILES}/0/models/{model_id}/artifacts/{path}", WEIGHTS + path.encode())
        self.ask("PATCH", f"{API}/logged-models/{model_id}", {"model_id": model_id, "status": "LOGGED_MODEL_READY"})
        output = {"run_id": run_id, "models": [{"model_id": model_id, "step": 0}]}
        self.ask("POST", f"{API}/runs/outputs", output)
        return model_id


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peer]:
    with run_reference(tmp_path_factory.mktemp("peer")) as url:
        yield Peer(url)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, peer: Peer) -> Iterator[Served]:
    with serve(tmp_path_factory.mktemp("home") / "home", "--upstream", peer.url) as served:
        served.ask("POST", f"{API}/registered-models/create", {"name": "churn"}, JSON)
        yield served


JSON = {"Content-Type": "application/json"}


def register(served: Served, **body: Any) -> dict[str, Any]:
    answer = served.ask("POST", f"{API}/model-versions/create", {"name": "churn", **body}, JSON)
    assert answer.status == 200, answer.body
    found: dict[str, Any] = answer.json()["model_version"]
    return found


def wait_until_settled(served: Served, number: str) -> dict[str, Any]:
    end = time.monotonic() + 60
    while True:
        found: dict[str, Any] = served.ask("GET", f"/api/v1/models/churn/versions/{number}").json()
        if found["state"] != "PENDING_REGISTRATION":
            return found
        assert time.monotonic() < end, found
        time.sleep(0.05)


def list_files(served: Served, number: int) -> dict[str, str]:
    files = served.ask("GET", f"/api/v1/models/churn/versions/{number}/files").json()["items"]
    return {file["path"]: file["digest"] for file in files}


def test_a_logged_model_of_an_upstream_is_imported_with_its_origin(served: Served, peer: Peer) -> None:
    run_id = peer.new_run()
    model_id = peer.new_logged_model(run_id)

    made = register(served, source=f"models:/{model_id}", model_id=model_id)
    found = wait_until_settled(served, made["version"])

    assert made["status"] in {"PENDING_REGISTRATION", "READY"}
    assert (found["state"], found["sealed"], found["run_id"]) == ("READY", True, run_id)
    assert sorted(list_files(served, found["version"])) == ["MLmodel", "data/weights.bin"]
    assert found["origin"]["params"] == {"depth": "3"}
    assert found["metrics"] == {"auc": 0.9}
    assert found["origin"]["imported"] == {"from": peer.url, "source": f"models:/{model_id}"}
    assert found["origin"]["run"]["user"] == "ada"


def test_what_the_upstream_does_afterwards_does_not_reach_the_version(served: Served, peer: Peer) -> None:
    model_id = peer.new_logged_model(peer.new_run())
    number = wait_until_settled(served, register(served, source=f"models:/{model_id}", model_id=model_id)["version"])
    before = list_files(served, number["version"])

    peer.ask("PUT", f"{FILES}/0/models/{model_id}/artifacts/MLmodel", b"tampered")
    peer.ask("DELETE", f"{API}/logged-models/{model_id}")

    assert list_files(served, number["version"]) == before


def test_files_of_a_run_are_imported_by_either_address(served: Served, peer: Peer) -> None:
    run_id = peer.new_run()
    peer.ask("PUT", f"{FILES}/0/{run_id}/artifacts/model/w.bin", WEIGHTS)

    for source in (f"mlflow-artifacts:/0/{run_id}/artifacts/model", f"runs:/{run_id}/model"):
        found = wait_until_settled(served, register(served, source=source, run_id=run_id)["version"])

        assert (found["sealed"], found["status_message"]) == (True, None)
        assert list(list_files(served, found["version"])) == ["w.bin"]


def test_a_run_reference_to_a_logged_model_is_followed(served: Served, peer: Peer) -> None:
    run_id = peer.new_run()
    peer.new_logged_model(run_id)

    found = wait_until_settled(served, register(served, source=f"runs:/{run_id}/clf", run_id=run_id)["version"])

    assert found["sealed"] is True


def test_what_no_upstream_has_stays_unsealed_and_says_so(served: Served) -> None:
    found = wait_until_settled(served, register(served, source=f"runs:/{'a' * 32}/model", run_id="a" * 32)["version"])

    assert (found["state"], found["sealed"], found["digest"]) == ("READY", False, None)
    assert "No upstream server has its files" in found["status_message"]


def test_files_outside_the_run_are_not_fetched(served: Served, peer: Peer) -> None:
    run_id, other = peer.new_run(), peer.new_run()
    peer.ask("PUT", f"{FILES}/0/{other}/artifacts/model/w.bin", WEIGHTS)

    refused = served.ask(
        "POST",
        f"{API}/model-versions/create",
        {"name": "churn", "source": f"mlflow-artifacts:/0/{other}/artifacts/model", "run_id": run_id},
        JSON,
    )

    assert (refused.status, refused.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE")


def test_an_unreachable_upstream_leaves_the_version_waiting_over_a_restart(tmp_path: Path, peer: Peer) -> None:
    model_id = peer.new_logged_model(peer.new_run())
    with serve(tmp_path / "home", "--upstream", "http://127.0.0.1:9") as away:
        away.ask("POST", f"{API}/registered-models/create", {"name": "churn"}, JSON)
        made = register(away, source=f"models:/{model_id}", model_id=model_id)
        assert made["status"] == "PENDING_REGISTRATION"

    with serve(tmp_path / "home", "--upstream", peer.url) as back:
        deadline = time.monotonic() + 150  # the lease of the server that was killed runs out first
        while back.ask("GET", "/api/v1/models/churn/versions/1").json()["state"] != "READY":
            assert time.monotonic() < deadline
            time.sleep(0.5)

        assert back.ask("GET", "/api/v1/models/churn/versions/1").json()["sealed"] is True


def test_whoever_looks_is_told_which_upstream_is_silent_and_the_log_says_it_once(tmp_path: Path) -> None:
    with serve(tmp_path / "home", "--upstream", "http://127.0.0.1:9") as alone:
        alone.ask("POST", f"{API}/registered-models/create", {"name": "churn"}, JSON)
        for n in range(2):
            register(alone, source=f"models:/m-{n:032x}", model_id=f"m-{n:032x}")
        end = time.monotonic() + 10
        while "has not answered since" not in (
            said := alone.ask("GET", "/api/v1/models/churn/versions/1").json()["status_message"]
        ):
            assert time.monotonic() < end, said
            time.sleep(0.1)
        time.sleep(3)  # several tries more
        warnings = [line for line in alone.log if '"warning"' in line]

    assert "http://127.0.0.1:9" in said
    assert "Connection refused" in said
    assert len(warnings) == 1
    assert "The upstream server http://127.0.0.1:9 does not answer" in warnings[0]


def test_a_registration_that_is_imported_at_once_is_answered_as_ready(served: Served, peer: Peer) -> None:
    model_id = peer.new_logged_model(peer.new_run())
    start = time.monotonic()

    made = register(served, source=f"models:/{model_id}", model_id=model_id)

    assert made["status"] == "READY"
    assert time.monotonic() - start < 3


def test_where_unsealed_versions_are_refused_a_failed_import_fails_the_version(tmp_path: Path, peer: Peer) -> None:
    with serve(tmp_path / "home", "--upstream", peer.url, "--unsealed", "refuse") as strict:
        strict.ask("POST", f"{API}/registered-models/create", {"name": "churn"}, JSON)
        found = wait_until_settled(strict, register(strict, source=f"runs:/{'b' * 32}/m", run_id="b" * 32)["version"])

        assert found["state"] == "FAILED_REGISTRATION"
        body = {"name": "churn", "source": "s3://bucket/model"}
        refused = strict.ask("POST", f"{API}/model-versions/create", body, JSON)
        assert refused.status == 400


def test_the_log_says_once_when_an_upstream_answers_again_and_never_a_password(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    lines = (f'url = "http://127.0.0.1:{port}"', 'username = "ada"', 'password = "pass-word-of-ada"')
    (tmp_path / "config.toml").write_text("\n".join(["[[upstreams]]", *lines]))
    with serve(tmp_path / "home", "--config", str(tmp_path / "config.toml")) as alone:
        alone.ask("POST", f"{API}/registered-models/create", {"name": "churn"}, JSON)
        register(alone, source=f"models:/m-{1:032x}", model_id=f"m-{1:032x}")
        wait_for(lambda: any("does not answer" in line for line in alone.log))
        waiting = alone.ask("GET", "/api/v1/models/churn/versions/1").body
        with ThreadingHTTPServer(("127.0.0.1", port), BaseHTTPRequestHandler) as back:  # answers 501 to everything
            threading.Thread(target=back.serve_forever).start()
            try:
                wait_for(lambda: any("answers again" in line for line in alone.log), 30)
                wait_until_settled(alone, "1")
            finally:
                back.shutdown()
        warnings = [json.loads(line)["warning"] for line in alone.log if '"warning"' in line]

    assert len(warnings) == 2
    assert f"The upstream server http://127.0.0.1:{port} answers again" in warnings[1]
    assert "pass-word-of-ada" not in "".join(alone.log) + waiting.decode()

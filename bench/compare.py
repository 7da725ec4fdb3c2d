"""Side by side with MLflow's own server: the same requests, the same machine, SQLite, one worker process each, in one run.

    python bench/compare.py [--rounds N] [--seconds S] [--versions N] [--postgres URL URL]

Rounds alternate between the two servers, because these machines run at half speed for seconds at a time; what counts is
the ratio of the medians. Bars are those of the design (docs/explanation/design.md, section 9).
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

API = "/api/2.0/mlflow/"
HERE = Path(__file__).parent
Request = tuple[Any, ...]


def find_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def run_server(command: list[str], port: int, folder: Path) -> Iterator[int]:
    """Run a server until the block ends; it is ready when /health answers 200."""
    with (folder / "log.txt").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, start_new_session=True)
        try:
            for _ in range(3000):
                try:
                    link = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
                    link.request("GET", "/health")
                    if link.getresponse().status == 200:
                        break
                except OSError:
                    time.sleep(0.02)
            else:
                raise SystemExit((folder / "log.txt").read_text()[-2000:])
            yield port
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def touchmark_command(folder: Path, port: int, database: str | None) -> list[str]:
    more = ["--database", database] if database else []
    words = ["serve", "--home", str(folder / "home"), "--port", str(port), "--no-log-requests", *more]
    return [sys.executable, "-m", "touchmark", *words]


def mlflow_command(folder: Path, port: int, database: str | None) -> list[str]:
    store = database or f"sqlite:///{folder / 'mlflow.db'}"
    places = ["--backend-store-uri", store, "--artifacts-destination", str(folder / "artifacts")]
    return [str(Path(sys.executable).parent / "mlflow"), "server", "--workers", "1", "--port", str(port), *places]


def ask(port: int, method: str, path: str, body: Any = None) -> Any:
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    link.request(method, path, data, {"Content-Type": "application/json"} if data else {})
    answer = link.getresponse()
    found = answer.read()
    if answer.status != 200:
        raise SystemExit(f"{method} {path}: {answer.status} {found[:500]!r}")
    link.close()
    return json.loads(found) if found else {}


def fill(port: int, versions: int) -> str:
    """Load the same data: a model with many versions, a hundred more models; return the id of a logged model."""
    ask(port, "POST", API + "registered-models/create", {"name": "bench", "tags": [{"key": "team", "value": "risk"}]})
    model = {"experiment_id": "0", "name": "logged"}
    info = ask(port, "POST", API + "logged-models", model)["model"]["info"]
    place = info["artifact_uri"].removeprefix("mlflow-artifacts:/")
    ask(port, "PUT", f"/api/2.0/mlflow-artifacts/artifacts/{quote(place)}/weights.bin", b"weights")
    model_id = info["model_id"]
    ready = {"model_id": model_id, "status": "LOGGED_MODEL_READY"}
    ask(port, "PATCH", f"{API}logged-models/{model_id}", ready)
    for number in range(versions):
        tags = [{"key": "team", "value": "risk" if number % 5 == 0 else "other"}, {"key": "n", "value": str(number)}]
        body = {"name": "bench", "source": f"models:/{model_id}", "model_id": model_id, "tags": tags}
        ask(port, "POST", API + "model-versions/create", body)
    for number in range(100):
        ask(port, "POST", API + "registered-models/create", {"name": f"model-{number:03}"})
        body = {"name": f"model-{number:03}", "source": f"models:/{model_id}", "model_id": model_id}
        ask(port, "POST", API + "model-versions/create", body)
    alias = {"name": "bench", "alias": "champion", "version": "7"}
    ask(port, "POST", API + "registered-models/alias", alias)
    return model_id


def get(path: str, **query: Any) -> Request:
    return ("GET", f"{API}{path}?{urlencode(query)}")


def plan(model_id: str, versions: int) -> dict[str, tuple[list[Request], float]]:
    """Return each workload with its bar."""
    alias = get("registered-models/alias", name="bench", alias="champion")
    version = get("model-versions/get", name="bench", version=str(versions // 2))
    model = get("registered-models/get", name="bench")
    small = get("registered-models/get", name="model-050")
    register = {"name": "bench", "source": f"models:/{model_id}", "model_id": model_id}
    create = ("POST", API + "model-versions/create", register)
    tags = [
        ("POST", API + "model-versions/set-tag", {"name": "bench", "version": "3", "key": "k", "value": str(n)})
        for n in range(64)
    ]
    moves = [
        ("POST", API + "registered-models/alias", {"name": "bench", "alias": f"a{n % 8}", "version": str(1 + n % 9)})
        for n in range(72)
    ]
    reads = [alias, version, small]
    return {
        "resolve an alias": ([alias], 60),
        "get a version": ([version], 60),
        "get a model (1 version)": ([small], 60),
        f"get a model ({versions} versions)": ([model], 60),
        "page of 100 versions": ([get("model-versions/search", filter="name = 'bench'", max_results=100)], 20),
        "models by name pattern": (
            [get("registered-models/search", filter="name LIKE 'model-0%'", max_results=100)],
            20,
        ),
        "versions by tag": ([get("model-versions/search", filter="tags.team = 'risk'", max_results=100)], 20),
        "register a version": ([create], 8),
        "set a tag": (tags, 8),
        "move an alias": (moves, 8),
        "95 % reads, 5 % writes": ((reads * 7)[:19] + tags[:1] + (reads * 7)[1:20] + moves[:1], 25),
    }


def measure(name: str, port: int, requests: list[Request], seconds: float) -> dict[str, Any]:
    given = {"port": port, "requests": requests, "connections": 32, "seconds": seconds}
    done = subprocess.run(
        [sys.executable, str(HERE / "load.py")], input=json.dumps(given), capture_output=True, text=True, check=True
    )
    found: dict[str, Any] = json.loads(done.stdout)
    wrong = {status: count for status, count in found["statuses"].items() if status != "200"}
    if wrong:
        print(f"    {name}: answers other than 200: {wrong}", file=sys.stderr)
    return found


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--seconds", type=float, default=3.0)
    options.add_argument("--versions", type=int, default=500)
    options.add_argument("--only", default="")
    options.add_argument("--postgres", nargs=2, metavar=("OURS", "THEIRS"), default=(None, None))
    given = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="touchmark-compare-") as folder:
        ours, theirs = Path(folder, "ours"), Path(folder, "theirs")
        ours.mkdir()
        theirs.mkdir()
        one, two = find_port(), find_port()
        with (
            run_server(touchmark_command(ours, one, given.postgres[0]), one, ours),
            run_server(mlflow_command(theirs, two, given.postgres[1]), two, theirs),
        ):
            compare(one, two, given)


def compare(ours: int, theirs: int, given: argparse.Namespace) -> None:
    plans = [plan(fill(port, given.versions), given.versions) for port in (ours, theirs)]
    head = f"{'':<32} {'Touchmark':>10} {'MLflow':>9} {'ratio':>7} {'bar':>5} {'p99 ms':>8} {'p99 ms':>8} {'ratio':>7}"
    print(head)
    for title, (requests, bar) in plans[0].items():
        if given.only not in title:
            continue
        found: list[list[dict[str, Any]]] = [[], []]
        for _ in range(given.rounds):
            found[0].append(measure("Touchmark", ours, requests, given.seconds))
            found[1].append(measure("MLflow", theirs, plans[1][title][0], given.seconds))
        rates = [statistics.median(each["rate"] for each in side) for side in found]
        tails = [statistics.median(each["p99_ms"] for each in side) for side in found]
        print(
            f"{title:<32} {rates[0]:10.0f} {rates[1]:9.0f} {rates[0] / rates[1]:6.1f}x {bar:4.0f}x "
            f"{tails[0]:8.1f} {tails[1]:8.1f} {tails[1] / tails[0]:6.1f}x",
            flush=True,
        )


if __name__ == "__main__":
    main()

"""Requests a second and their p99, of both servers, in turns: point reads, searches, writes, many versions, many writers."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from fixtures import add_peer_versions, add_versions
from results import AT_LEAST, AT_MOST, Report, Result
from servers import HERE, ask, bare_command, find_port, run_both, run_server, touchmark_command

from touchmark.ops.setup import open_registry

API = "/api/2.0/mlflow/"
CONNECTIONS = 32
Request = tuple[Any, ...]
SLOW = 8
"""The bar of durable writes."""
POINT = 60
"""The bar of point reads; 25 on PostgreSQL."""
NAMED = 10
"""Versions made through the door, whose numbers the requests name; the rest are copies of the first."""


def fill(port: int, versions: int = NAMED) -> str:
    """Load the same data: a model with versions, a hundred more models; return the id of a logged model."""
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
        "resolve an alias": ([alias], POINT),
        "get a version": ([version], POINT),
        "get a model (1 version)": ([small], POINT),
        f"get a model ({versions} versions)": ([model], POINT),
        "page of 100 versions": ([get("model-versions/search", filter="name = 'bench'", max_results=100)], 20),
        "models by name pattern": (
            [get("registered-models/search", filter="name LIKE 'model-0%'", max_results=100)],
            20,
        ),
        "versions by tag": ([get("model-versions/search", filter="tags.team = 'risk'", max_results=100)], 20),
        "register a version": ([create], SLOW),
        "set a tag": (tags, SLOW),
        "move an alias": (moves, SLOW),
        "95 % reads, 5 % writes": ((reads * 7)[:19] + tags[:1] + (reads * 7)[1:20] + moves[:1], 25),
    }


def measure(name: str, port: int, requests: list[Request], seconds: float) -> dict[str, Any]:
    """Send requests from a process of its own; say on stderr what was answered with another status than 200."""
    given = {"port": port, "requests": requests, "connections": CONNECTIONS, "seconds": seconds}
    done = subprocess.run(
        [sys.executable, str(HERE / "load.py")], input=json.dumps(given), capture_output=True, text=True, check=True
    )
    found: dict[str, Any] = json.loads(done.stdout)
    wrong = {status: count for status, count in found["statuses"].items() if status != "200"}
    if wrong:
        print(f"    {name}: answers other than 200: {wrong}", file=sys.stderr)
    return found


def compare(
    report: Report, rounds: int, seconds: float, versions: int, only: str, urls: tuple[str, str] | None
) -> None:
    """Measure the peer and us over each plan, on SQLite or on two databases of one PostgreSQL."""
    part = f"Requests on {'PostgreSQL' if urls else 'SQLite'}"
    with run_both(*(urls or ())) as (ours, theirs, folder):
        model_ids = [fill(port) for port in (ours, theirs)]
        registry = open_registry(folder / "ours" / "home", urls and urls[0])
        add_versions(registry, "bench", versions - NAMED)
        registry.close()
        add_peer_versions(
            urls[1] if urls else f"sqlite:///{folder / 'theirs' / 'mlflow.db'}", "bench", versions - NAMED
        )
        plans = [plan(each, versions) for each in model_ids]
        for title, (requests, bar) in plans[0].items():
            if only not in title:
                continue
            pairs = [
                (
                    measure("Touchmark", ours, requests, seconds),
                    measure("MLflow", theirs, plans[1][title][0], seconds),
                )
                for _ in range(rounds)
            ]
            rates = [one["rate"] / two["rate"] for one, two in pairs]
            tails = [one["p99_ms"] / two["p99_ms"] for one, two in pairs]
            middle = [
                {key: statistics.median(pair[n][key] for pair in pairs) for key in ("rate", "p99_ms")} for n in (0, 1)
            ]
            is_point = bar == POINT
            wanted = 25 if urls and is_point else bar
            report.add(Result(part, title, rates, AT_LEAST, wanted, middle[0]["rate"], middle[1]["rate"], "requests/s"))
            if is_point and not urls:
                report.add(
                    Result(
                        part, f"{title}, p99", tails, AT_MOST, 1 / 20, middle[0]["p99_ms"], middle[1]["p99_ms"], "ms"
                    )
                )


def compare_bare(report: Report, rounds: int, seconds: float) -> None:
    """Measure point reads beside a bare server that makes one select: how much of the machine a request may cost."""
    with tempfile.TemporaryDirectory(prefix="touchmark-bench-") as name:
        folder = Path(name)
        one, two = find_port(), find_port()
        with (
            run_server(touchmark_command(folder, one, None), one, folder),
            run_server(bare_command(folder, two, None), two, folder),
        ):
            fill(one)
            point = plan("", NAMED)["resolve an alias"][0]
            pairs = [
                (measure("Touchmark", one, point, seconds)["rate"], measure("bare", two, point, seconds)["rate"])
                for _ in range(rounds)
            ]
    ratios = [mine / bare for mine, bare in pairs]
    report.add(
        Result(
            "Requests on SQLite", "resolve an alias, beside a bare server with one select", ratios, AT_LEAST, 1 / 6,
            statistics.median(mine for mine, _ in pairs), statistics.median(bare for _, bare in pairs), "requests/s", "bare granian",
            "its rate is also the most that the load generator can ask here",
        )
    )  # fmt: skip


def compare_sizes(report: Report, rounds: int, seconds: float, many: int) -> None:
    """Measure one server with 500 versions and one with many, over the same requests."""
    part = f"{many:,} versions instead of 500"
    with tempfile.TemporaryDirectory(prefix="touchmark-bench-") as name:
        small, large = Path(name, "small"), Path(name, "large")
        ports = []
        for folder, count in ((small, 500), (large, many)):
            folder.mkdir()
            ports.append(find_port())
            with run_server(touchmark_command(folder, ports[-1], None), ports[-1], folder):
                fill(ports[-1])
            registry = open_registry(folder / "home")
            add_versions(registry, "bench", count - NAMED)
            registry.close()
        with (
            run_server(touchmark_command(small, ports[0], None), ports[0], small),
            run_server(touchmark_command(large, ports[1], None), ports[1], large),
        ):
            touch = {"name": "model-099", "key": "k", "value": "v"}
            for title, (requests, bar) in plan("", 500).items():
                if bar == SLOW or title.startswith("95"):
                    continue
                # One write in sixteen: without it the answers kept in memory would be measured, whatever the size.
                mixed = [*requests * 15, ("POST", API + "registered-models/set-tag", touch)]
                pairs = [
                    (
                        measure("500", ports[0], mixed, seconds)["rate"],
                        measure("many", ports[1], mixed, seconds)["rate"],
                    )
                    for _ in range(rounds)
                ]
                is_page = title.startswith(("page", "models by", "versions by")) or "(500" in title
                report.add(
                    Result(
                        part, title, [few / lots for few, lots in pairs], AT_MOST, 2 if is_page else 1.3,
                        statistics.median(lots for _, lots in pairs), statistics.median(few for few, _ in pairs), "requests/s", "500 versions",
                    )
                )  # fmt: skip


def race(report: Report, writers: int = 64, each: int = 3) -> None:
    """Let many writers register versions of one name at once; no error, no gap, no duplicate."""
    with tempfile.TemporaryDirectory(prefix="touchmark-bench-") as name:
        folder, port = Path(name), find_port()
        with run_server(touchmark_command(folder, port, None), port, folder):
            model_id = fill(port)
            create = plan(model_id, NAMED)["register a version"][0]
            given = {"port": port, "requests": create, "connections": writers, "seconds": 60, "limit": writers * each}
            done = subprocess.run(
                [sys.executable, str(HERE / "load.py")],
                input=json.dumps(given),
                capture_output=True,
                text=True,
                check=True,
            )
            found = json.loads(done.stdout)
            query = urlencode({"filter": "name = 'bench'", "max_results": 10_000})
            listed = ask(port, "GET", f"{API}model-versions/search?{query}")
    numbers = sorted(int(version["version"]) for version in listed["model_versions"])
    wrong = found["count"] - found["statuses"].get("200", 0)
    wrong += len(set(numbers) ^ set(range(1, NAMED + found["count"] + 1))) + len(numbers) - len(set(numbers))
    report.add(
        Result(
            "Requests on SQLite", f"errors, gaps and duplicates of {writers} writers on one name", [float(wrong)], AT_MOST, 0,
            float(wrong), 0.0, "of " + str(found["count"]), "expected",
        )
    )  # fmt: skip

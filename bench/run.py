"""Figures of one server on this machine: what a user waits for, measured through the SDK and over plain sockets.

Not a comparison: that, against MLflow's own server in interleaved rounds, is still to come. Machines here run at half speed
for seconds at a time, so read the medians, and compare nothing across two runs.
"""

from __future__ import annotations

import http.client
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import touchmark
from tests.served import serve

ROUNDS = 30
CONNECTIONS = 8
SECONDS = 5.0
MIB = 1 << 20


def time_calls(call: Callable[[], object]) -> float:
    """Return the median milliseconds of a call."""
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1000


def count_requests(port: int, path: str) -> float:
    """Return GETs a second over a few kept connections. The clients share the machine and the interpreter: a lower bound."""
    counts = [0] * CONNECTIONS
    end = time.perf_counter() + SECONDS

    def ask(number: int) -> None:
        link = http.client.HTTPConnection("127.0.0.1", port)
        while time.perf_counter() < end:
            link.request("GET", path)
            link.getresponse().read()
            counts[number] += 1
        link.close()

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / SECONDS


def main() -> None:
    """Start a server in a temporary home, and print a line a figure."""
    with tempfile.TemporaryDirectory(prefix="touchmark-bench-") as folder:
        start = time.perf_counter()
        with serve(Path(folder, "home"), "--no-log-requests") as served:
            print(f"first start, new home          {time.perf_counter() - start:8.2f} s")
            with touchmark.connect(f"http://127.0.0.1:{served.port}") as registry:
                measure(registry, served.port, Path(folder))


def measure(registry: touchmark.Registry, port: int, folder: Path) -> None:
    """Measure one server through one registry."""
    small, big = folder / "small.bin", folder / "big.bin"
    small.write_bytes(b"weights")
    big.write_bytes(bytes(256 * MIB))
    source = registry.log_model(small, "small").uri
    registry.register_model(source, "bench", tags={"team": "risk"})
    numbers = iter(range(10_000))
    registry.register_model(source, "bench")
    figures = {
        "register a stored model": lambda: registry.register_model(source, "bench"),
        "set a tag": lambda: registry.set_tags("bench", {"n": str(next(numbers))}, version=1),
        "move an alias": lambda: registry.set_alias("bench", "champion", 1 + next(numbers) % 2),
        "resolve an alias": lambda: registry.resolve("models:/bench@champion"),
        "get a version": lambda: registry.get_version("bench", 1),
        "search by tag": lambda: list(registry.search_versions("tags.team = 'risk'", limit=100)),
    }
    for title, call in figures.items():
        print(f"{title:<30} {time_calls(call):8.2f} ms")
    print(
        f"resolve, {CONNECTIONS} connections        {count_requests(port, '/api/v1/resolve?ref=bench@champion'):8.0f} requests/s"
    )
    start = time.perf_counter()
    registry.register_model(big, "big")
    print(f"register 256 MiB from here     {256 / (time.perf_counter() - start):8.0f} MiB/s")
    start = time.perf_counter()
    registry.pull("big/1", folder / "pulled")
    print(f"pull 256 MiB                   {256 / (time.perf_counter() - start):8.0f} MiB/s")


if __name__ == "__main__":
    main()

"""Beside MLflow's own server, what takes whole processes or whole files: start, idle memory, log_model, a large file.

    python bench/processes.py [--rounds N] [--mib N]

Both servers run with one worker on SQLite, in turns; what counts is the ratio of the medians. The files travel in one
request each over a plain socket, so that neither server is measured through a client's own work. Bars are those of the
design (docs/explanation/design.md, section 9).
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from compare import ask, find_port, mlflow_command, run_server, touchmark_command

MIB = 1 << 20
CHUNK = b"\x5a" * MIB

_LOG_MODELS = """
import statistics, sys, time
import mlflow
mlflow.set_tracking_uri(sys.argv[1])
class Same(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input: list[str]) -> list[str]:
        return model_input
times = []
with mlflow.start_run():
    for _ in range(int(sys.argv[2])):
        begin = time.perf_counter()
        mlflow.pyfunc.log_model(name="same", python_model=Same(), pip_requirements=["mlflow"], registered_model_name="net")
        times.append(time.perf_counter() - begin)
print(statistics.median(times[1:]))
"""


def sum_memory(group: int) -> int:
    """Return the proportional share of memory, in bytes, of every process of a group (Linux: smaps_rollup)."""
    total = 0
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and os.getpgid(int(folder.name)) == group:
                lines = (folder / "smaps_rollup").read_text().splitlines()
                total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
        except (OSError, ProcessLookupError):
            continue
    return total


def start(command: Callable[[Path, int, str | None], list[str]], *, settle_seconds: float) -> tuple[float, int]:
    """Start a server on nothing; return the seconds until it answers, and its memory in bytes when it rests."""
    with tempfile.TemporaryDirectory(prefix="touchmark-start-") as name:
        folder, port = Path(name), find_port()
        begin = time.perf_counter()
        before = {int(each.name) for each in Path("/proc").iterdir() if each.name.isdigit()}
        with run_server(command(folder, port, None), port, folder):
            seconds = time.perf_counter() - begin
            time.sleep(settle_seconds)
            leaders = [pid for pid in _list_new(before) if os.getpgid(pid) == pid]
            return seconds, sum(sum_memory(pid) for pid in leaders)


def _list_new(before: set[int]) -> list[int]:
    found = []
    for each in Path("/proc").iterdir():
        if each.name.isdigit() and int(each.name) not in before:
            try:
                os.getpgid(int(each.name))
            except ProcessLookupError:
                continue
            found.append(int(each.name))
    return found


def log_models(port: int, folder: Path, count: int) -> float:
    """Return the median seconds of `log_model(..., registered_model_name=)` with MLflow's client, in a process of its own."""
    words = [sys.executable, "-W", "ignore", "-c", _LOG_MODELS, f"http://127.0.0.1:{port}", str(count)]
    done = subprocess.run(words, capture_output=True, text=True, check=True, cwd=folder)
    return float(done.stdout.split()[-1])


def send(port: int, place: str, mib: int) -> float:
    """PUT a file of so many MiB in one request; return the seconds until the answer."""
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    begin = time.perf_counter()
    link.putrequest("PUT", f"/api/2.0/mlflow-artifacts/artifacts/{place}")
    link.putheader("Content-Length", str(mib * MIB))
    link.endheaders()
    for _ in range(mib):
        link.send(CHUNK)
    answer = link.getresponse()
    answer.read()
    if answer.status != 200:
        raise SystemExit(f"PUT: {answer.status}")
    link.close()
    return time.perf_counter() - begin


def fetch(port: int, place: str, mib: int) -> float:
    """GET the file again; return the seconds until its last byte."""
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    begin, got = time.perf_counter(), 0
    link.request("GET", f"/api/2.0/mlflow-artifacts/artifacts/{place}")
    answer = link.getresponse()
    buffer = bytearray(MIB)
    while count := answer.readinto(buffer):
        got += count
    if got != mib * MIB:
        raise SystemExit(f"GET: {answer.status}, {got} bytes")
    link.close()
    return time.perf_counter() - begin


def write_and_hash(folder: Path, mib: int) -> tuple[float, float]:
    """Return the seconds that a plain write with fsync of so many MiB takes here, and their SHA-256."""
    begin = time.perf_counter()
    with (folder / "plain").open("wb", buffering=0) as stream:
        for _ in range(mib):
            stream.write(CHUNK)
        os.fsync(stream.fileno())
    written = time.perf_counter() - begin
    (folder / "plain").unlink()
    hasher = hashlib.sha256()
    begin = time.perf_counter()
    for _ in range(mib):
        hasher.update(CHUNK)
    return written, time.perf_counter() - begin


@contextmanager
def both(folder: Path) -> Iterator[tuple[int, int]]:
    """Run both servers, and give their ports."""
    ours, theirs = folder / "ours", folder / "theirs"
    ours.mkdir()
    theirs.mkdir()
    one, two = find_port(), find_port()
    with (
        run_server(touchmark_command(ours, one, None), one, ours),
        run_server(mlflow_command(theirs, two, None), two, theirs),
    ):
        yield one, two


def make_place(port: int) -> str:
    """Create a run, and return where its artifacts lie behind the proxy."""
    run = ask(port, "POST", "/api/2.0/mlflow/runs/create", {"experiment_id": "0"})["run"]["info"]
    place: str = run["artifact_uri"].removeprefix("mlflow-artifacts:/")
    return place


def show(title: str, ours: float, theirs: float, unit: str, bar: str) -> None:
    """Print one line of the table; a ratio above 1 is in Touchmark's favour."""
    print(f"{title:<44} {ours:10.3f} {theirs:10.3f} {unit:<5} {theirs / ours:7.1f}x   {bar}", flush=True)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--mib", type=int, default=1024)
    given = options.parse_args()
    median = statistics.median
    print(f"{'':<44} {'Touchmark':>10} {'MLflow':>10} {'':<5} {'ratio':>8}   bar")
    started = [
        (start(touchmark_command, settle_seconds=1), start(mlflow_command, settle_seconds=1))
        for _ in range(given.rounds)
    ]
    show("start to first answer", *(median(each[n][0] for each in started) for n in (0, 1)), "s", "8x")
    show("idle memory", *(median(each[n][1] for each in started) / MIB for n in (0, 1)), "MiB", "4x of the leanest")
    with tempfile.TemporaryDirectory(prefix="touchmark-processes-") as name, both(Path(name)) as ports:
        folder = Path(name)
        logged = [[log_models(port, folder, 12) for port in ports] for _ in range(given.rounds)]
        show(
            "log_model, registered", *(median(each[n] for each in logged) for n in (0, 1)), "s", "1.25x (wall <= 0.8x)"
        )
        places = [make_place(port) for port in ports]
        up: list[list[float]] = [[], []]
        down: list[list[float]] = [[], []]
        plain: list[float] = []
        for number in range(given.rounds):
            plain.append(max(write_and_hash(folder, given.mib)))
            for n, port in enumerate(ports):
                up[n].append(send(port, f"{places[n]}/{number}.bin", given.mib))
                down[n].append(fetch(port, f"{places[n]}/{number}.bin", given.mib))
        show(f"{given.mib} MiB up", median(up[0]), median(up[1]), "s", "2x")
        show(f"{given.mib} MiB down", median(down[0]), median(down[1]), "s", "2x")
        share = median(plain) / median(up[0])
        print(f"up, as a share of the slower of SHA-256 and a write with fsync: {share:.2f} (bar 0.6)")


if __name__ == "__main__":
    main()

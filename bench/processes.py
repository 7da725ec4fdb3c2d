"""What takes whole processes or whole files, beside MLflow's own server: start, idle memory, log_model, a large file.

Both servers run with one worker on SQLite, in turns. The files travel in one request each over a plain socket, so that
neither server is measured through a client's own work.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from results import AT_LEAST, AT_MOST, Report, Result
from servers import ask, find_port, mlflow_command, run_both, run_server, touchmark_command

PART = "Processes and files"

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
    """PUT a file of so many MiB, which no other is equal to, in one request; return the seconds until the answer."""
    first = os.urandom(16) + CHUNK[16:]
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    begin = time.perf_counter()
    link.putrequest("PUT", f"/api/2.0/mlflow-artifacts/artifacts/{place}")
    link.putheader("Content-Length", str(mib * MIB))
    link.endheaders()
    for number in range(mib):
        link.send(CHUNK if number else first)
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


def make_place(port: int) -> str:
    """Create a run, and return where its artifacts lie behind the proxy."""
    run = ask(port, "POST", "/api/2.0/mlflow/runs/create", {"experiment_id": "0"})["run"]["info"]
    place: str = run["artifact_uri"].removeprefix("mlflow-artifacts:/")
    return place


def compare_starts(report: Report, rounds: int) -> None:
    """Measure how soon each answers on nothing, and what it holds when it rests."""
    pairs = [
        (start(touchmark_command, settle_seconds=1), start(mlflow_command, settle_seconds=1)) for _ in range(rounds)
    ]
    for n, title, bar, unit, scale in (
        (0, "start to first answer, on nothing", 1 / 8, "s", 1.0),
        (1, "idle memory, all processes", 1 / 4, "MiB", float(MIB)),
    ):
        ratios = [ours[n] / theirs[n] for ours, theirs in pairs]
        middle = [statistics.median(pair[side][n] for pair in pairs) / scale for side in (0, 1)]
        note = "MLflow with one worker, its leanest; as shipped it has four" if n else ""
        report.add(Result(PART, title, ratios, AT_MOST, bar, middle[0], middle[1], unit, note=note))


def compare_logging(report: Report, rounds: int) -> None:
    """Measure `log_model(..., registered_model_name=)` through MLflow's own client."""
    with run_both() as (one, two, folder):
        pairs = [(log_models(one, folder, 12), log_models(two, folder, 12)) for _ in range(rounds)]
    middle = [statistics.median(pair[n] * 1000 for pair in pairs) for n in (0, 1)]
    ratios = [ours / theirs for ours, theirs in pairs]
    report.add(Result(PART, "log_model, registered, MLflow's client", ratios, AT_MOST, 0.8, middle[0], middle[1], "ms"))


def compare_files(report: Report, rounds: int, mib: int) -> None:
    """Send and fetch a large file in one request, and beside it write and hash the same bytes."""
    with run_both() as (one, two, folder):
        places = [(port, make_place(port)) for port in (one, two)]
        rows = []
        for number in range(rounds):
            plain = max(write_and_hash(folder, mib))
            up = [send(port, f"{place}/{number}.bin", mib) for port, place in places]
            down = [fetch(port, f"{place}/{number}.bin", mib) for port, place in places]
            rows.append((plain, up, down))
    for title, column in (("up", 1), ("down", 2)):
        times = [row[column] for row in rows]
        middle = [mib / statistics.median(each[n] for each in times) for n in (0, 1)]
        ratios = [theirs / ours for ours, theirs in times]
        report.add(Result(PART, f"{mib} MiB {title}, one request", ratios, AT_LEAST, 2, middle[0], middle[1], "MiB/s"))
    shares = [plain / up[0] for plain, up, _down in rows]
    middle = [mib / statistics.median(each) for each in ([up[0] for _, up, _ in rows], [plain for plain, _, _ in rows])]
    title = f"{mib} MiB up, beside the slower of SHA-256 and a write with fsync"
    report.add(Result(PART, title, shares, AT_LEAST, 0.6, middle[0], middle[1], "MiB/s", "the plain work"))

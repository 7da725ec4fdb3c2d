"""What a client costs: an import and a call beside MLflow's, the size of an installation, the cache, what is stored twice."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from results import AT_MOST, Report, Result
from servers import HERE, find_port, run_both, run_server, touchmark_command
from serving import fill

import touchmark

PART = "Clients and storage"
MIB = 1 << 20
_OURS = "import sys, touchmark; touchmark.connect(sys.argv[1]).resolve('models:/bench@champion')"
_THEIRS = """
import sys, mlflow
mlflow.set_registry_uri(sys.argv[1])
mlflow.MlflowClient(registry_uri=sys.argv[1]).get_model_version_by_alias('bench', 'champion')
"""


def run(words: Sequence[str]) -> tuple[float, float]:
    """Run a program; return its seconds and its peak of memory in bytes (VmHWM: ru_maxrss has the parent's, too)."""
    text = words[0] + "\nprint('\\n' + next(line for line in open('/proc/self/status') if line.startswith('VmHWM')))"
    begun = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", text, *words[1:]], capture_output=True, text=True, check=True
    )
    return time.perf_counter() - begun, int(done.stdout.split()[-2]) * 1024


def compare_imports(report: Report, rounds: int) -> None:
    """Measure import and one call, above what an empty program costs."""
    found: list[tuple[float, float, float, float]] = []
    with run_both() as (one, two, _folder):
        for port in (one, two):
            fill(port)
        for _ in range(max(rounds, 5)):
            empty = run(["pass"])
            ours, theirs = run([_OURS, f"http://127.0.0.1:{one}"]), run([_THEIRS, f"http://127.0.0.1:{two}"])
            found.append((ours[0] - empty[0], theirs[0] - empty[0], ours[1] - empty[1], theirs[1] - empty[1]))
    for at, what, bar, unit, scale in ((0, "time", 1 / 12, "ms", 1e-3), (2, "memory", 1 / 12, "MiB", float(MIB))):
        ratios = [row[at] / row[at + 1] for row in found]
        middle = [statistics.median(row[at + n] for row in found) / scale for n in (0, 1)]
        title = f"import, connect, resolve: {what} above an empty program"
        report.add(Result(PART, title, ratios, AT_MOST, bar, middle[0], middle[1], unit))


def compare_sizes_installed(report: Report) -> None:
    """Sum the files of each package and of all that it needs without extras, as they are installed here."""
    ours, theirs = (sum(measure_installed(name).values()) for name in ("touchmark", "mlflow-skinny"))
    title = "size of the base installation, beside mlflow-skinny"
    report.add(Result(PART, title, [ours / theirs], AT_MOST, 1 / 2, ours / MIB, theirs / MIB, "MiB", "mlflow-skinny"))


def measure_installed(name: str, seen: dict[str, int] | None = None) -> dict[str, int]:
    """Return the bytes of a distribution and of what it requires, by canonical name."""
    seen = {} if seen is None else seen
    name = canonicalize_name(name)
    if name in seen:
        return seen
    try:
        found = distribution(name)
    except PackageNotFoundError:  # not for this platform
        return seen
    files = [Path(str(found.locate_file(file))) for file in found.files or ()]
    if name == "touchmark":  # installed for development: its files are the source tree's
        files = [*HERE.parent.glob("src/touchmark/**/*.py"), *HERE.parent.glob("src/touchmark/**/*.json")]
    seen[name] = sum(file.stat().st_size for file in files if file.is_file())
    for text in found.requires or ():
        needed = Requirement(text)
        if needed.marker is None or needed.marker.evaluate({"extra": ""}):
            measure_installed(needed.name, seen)
    return seen


def compare_cache(report: Report, rounds: int, mib: int) -> None:
    """Measure a second pull of a pinned reference from the cache beside reading the file; register five times."""
    with tempfile.TemporaryDirectory(prefix="touchmark-bench-") as name:
        folder, port = Path(name), find_port()
        os.environ["TOUCHMARK_CACHE"] = str(folder / "cache")
        (folder / "model.safetensors").write_bytes(os.urandom(64) * (mib * MIB // 64))
        with run_server(touchmark_command(folder, port, None), port, folder):
            registry = touchmark.connect(f"http://127.0.0.1:{port}")
            logged = registry.log_model(folder / "model.safetensors", "big")
            versions = [registry.register_model(logged.uri, "big") for _ in range(5)]
            stored = sum(file.stat().st_size for file in (folder / "home" / "blobs").rglob("*") if file.is_file())
            pinned = f"models:/big@{versions[0].digest}"
            registry.load(pinned, loader="files")
        # The server is gone: a load that needs a request would fail.
        pairs = []
        for _ in range(max(rounds, 5)):
            begun = time.perf_counter()
            path = registry.load(pinned, loader="files")
            read(path)
            middle = time.perf_counter()
            read(path)
            pairs.append((middle - begun, time.perf_counter() - middle))
        registry.close()
    ratios = [ours / plain for ours, plain in pairs]
    report.add(
        Result(
            PART, f"load a pinned reference of {mib} MiB from the cache, and read it", ratios, AT_MOST, 1.1,
            statistics.median(one * 1e3 for one, _ in pairs), statistics.median(two * 1e3 for _, two in pairs), "ms",
            "reading the file", "no request is made",
        )
    )  # fmt: skip
    size = mib * MIB
    report.add(
        Result(PART, "bytes of five registrations of one model", [stored / size], AT_MOST, 1.01, stored / MIB, mib, "MiB",
               "one model", "above 1: the manifest"),
    )  # fmt: skip


def read(path: object) -> None:
    """Read a file, or all files of a folder, once."""
    place = Path(str(path))
    buffer = bytearray(4 * MIB)
    for file in [place] if place.is_file() else sorted(each for each in place.rglob("*") if each.is_file()):
        with file.open("rb", buffering=0) as stream:
            while stream.readinto(buffer):
                pass

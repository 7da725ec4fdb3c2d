"""Measure Touchmark against MLflow's own server, and hold each figure against its bar.

    python bench/run.py [--only PART …] [--rounds N] [--seconds S] [--mib N] [--versions N] [--json FILE] [--page]

Without options all parts run, about twenty minutes on two cores. `--page` writes docs/reference/benchmarks.md from what the
JSON file holds then; parts that were not run keep what it held of them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import clients
import processes
import results
import serving

from tests.postgres import find_binaries, open_server

Part = Callable[[results.Report, argparse.Namespace], None]


def measure_sqlite(report: results.Report, given: argparse.Namespace) -> None:
    """Requests on SQLite."""
    serving.compare(report, given.rounds, given.seconds, 500, "", None)
    serving.compare_bare(report, given.rounds, given.seconds)
    serving.race(report)


def measure_postgres(report: results.Report, given: argparse.Namespace) -> None:
    """Requests on PostgreSQL: one server of it, a database each."""
    binaries = find_binaries()
    if binaries is None:
        print("Requests on PostgreSQL: not run, its binaries are not installed", file=sys.stderr)
        return
    with ExitStack() as stack:
        server = stack.enter_context(open_server(binaries, durable=True))
        ours, theirs = (stack.enter_context(server.open_database()) for _ in range(2))
        serving.compare(report, given.rounds, given.seconds, 500, "", (ours, theirs))


def measure_sizes(report: results.Report, given: argparse.Namespace) -> None:
    """Many versions instead of 500."""
    serving.compare_sizes(report, given.rounds, given.seconds, given.versions)


def measure_processes(report: results.Report, given: argparse.Namespace) -> None:
    """Processes and files."""
    processes.compare_starts(report, given.rounds)
    processes.compare_logging(report, given.rounds)
    processes.compare_files(report, given.rounds, given.mib)


def measure_clients(report: results.Report, given: argparse.Namespace) -> None:
    """Clients and storage."""
    clients.compare_imports(report, given.rounds)
    clients.compare_sizes_installed(report)
    clients.compare_cache(report, given.rounds, min(given.mib, 256))


PARTS: dict[str, Part] = {
    "sqlite": measure_sqlite,
    "postgres": measure_postgres,
    "sizes": measure_sizes,
    "processes": measure_processes,
    "clients": measure_clients,
}


def main() -> int:
    """Run the parts; the exit code says only whether they ran."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--seconds", type=float, default=3.0)
    options.add_argument("--mib", type=int, default=1024)
    options.add_argument("--versions", type=int, default=100_000)
    options.add_argument("--json", type=Path, default=Path("bench-results.json"))
    options.add_argument("--page", action="store_true")
    given = options.parse_args()
    report = results.new_report()
    for name in given.only:
        print(f"── {name}", flush=True)
        PARTS[name](report, given)
        results.save(report, given.json)
    if given.page:
        results.write_page(results.load(given.json))
    missed = [each for each in results.load(given.json).results if not each.is_met]
    print(f"{len(missed)} bars missed" + "".join(f"\n  {each.verdict}" for each in missed))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

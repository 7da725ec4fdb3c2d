"""What was measured, held against its bar: as JSON for programs, as a page with charts for people.

    python bench/results.py results.json      # writes docs/reference/benchmarks.md and its charts anew

A `Result` is a ratio with its spread over the rounds. Ratios count because machines run at half speed for seconds at a time;
plain figures stand beside them only so that a reader knows what was divided.
"""

from __future__ import annotations

import json
import math
import os
import platform
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "reference" / "benchmarks.md"
AT_LEAST, AT_MOST = ">=", "<="


@dataclass
class Result:
    """One line of the table: `ratios` are those of the rounds, `ours` and `theirs` the medians behind them, in `unit`.

    `measured` is when, and on what machine; the report fills it in.
    """

    part: str
    work: str
    ratios: list[float]
    sense: str
    bar: float
    ours: float
    theirs: float
    unit: str
    beside: str = "MLflow"
    note: str = ""
    measured: str = ""

    @property
    def ratio(self) -> float:
        return statistics.median(self.ratios)

    @property
    def is_met(self) -> bool:
        return self.ratio >= self.bar if self.sense == AT_LEAST else self.ratio <= self.bar

    @property
    def score(self) -> float:
        """Return how often the bar is passed: 2 is twice as good as it asks; of a bar of nothing, 1 if it is met."""
        if self.bar == 0:
            return 1.0 if self.is_met else 0.1
        found = self.ratio / self.bar if self.sense == AT_LEAST else self.bar / max(self.ratio, 1e-9)
        return min(max(found, 0.01), 100.0)

    @property
    def verdict(self) -> str:
        """Return the one line that says it."""
        met = "met" if self.is_met else "MISSED"
        spread = f" ({show(min(self.ratios))} to {show(max(self.ratios))})" if len(self.ratios) > 1 else ""
        return f"{met}: {self.work}: {show(self.ratio)}x{spread}, bar {self.sense} {show(self.bar)}x"


@dataclass
class Report:
    """A whole run."""

    about: dict[str, str]
    results: list[Result] = field(default_factory=list)

    def add(self, result: Result) -> None:
        """Take a result, and say it."""
        result.measured = ", ".join(self.about[key] for key in ("date", "processor", "system"))
        self.results.append(result)
        print(f"{result.verdict}   [{show(result.ours)} / {show(result.theirs)} {result.unit}]", flush=True)


def new_report() -> Report:
    """Begin a report that says on what it was measured; never where."""
    names = ["touchmark", "mlflow", "granian", "litestar", "SQLAlchemy", "psycopg"]
    found = {name: _version(name) for name in names}
    model = next(
        (line.partition(":")[2].strip() for line in _read("/proc/cpuinfo") if line.startswith("model name")), "unknown"
    )
    return Report({
        "date": datetime.now(UTC).date().isoformat(),
        "processor": f"{model}, {len(os.sched_getaffinity(0))} cores to use",
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "versions": ", ".join(f"{name} {number}" for name, number in found.items() if number),
    })  # fmt: skip


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _read(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def show(number: float) -> str:
    """Return a number with three digits that count."""
    if number == 0 or not math.isfinite(number):
        return f"{number:g}"
    return f"{number:,.0f}" if abs(number) >= 100 else f"{number:.3g}"


def save(report: Report, path: Path) -> None:
    """Write the report as JSON; what a run of some parts measured replaces those parts, where they stood, in a file that is there."""
    by_part: dict[str, list[dict[str, Any]]] = {}
    if path.exists():
        for each in json.loads(path.read_text())["results"]:
            by_part.setdefault(each["part"], []).append(each)
    by_part |= {result.part: [] for result in report.results}
    for each in _as_json(report):
        by_part[each["part"]].append(each)
    results = [each for part in by_part.values() for each in part]
    path.write_text(json.dumps({"about": report.about, "results": results}, indent=1) + "\n")


def _as_json(report: Report) -> list[dict[str, Any]]:
    return [{**asdict(result), "ratio": result.ratio, "is_met": result.is_met} for result in report.results]


def load(path: Path) -> Report:
    """Read a report."""
    document = json.loads(path.read_text())
    for each in document["results"]:
        del each["ratio"], each["is_met"]
    return Report(document["about"], [Result(**each) for each in document["results"]])


# ── the page ─────────────────────────────────────────────────────────────────────────────────────────────────────

_HEAD = """# Benchmarks

<!-- Written by `python bench/results.py`; measured by `make bench`. -->

{count} of {total} bars are met. Each figure is a ratio of two servers, or two commands, measured in turns on one machine, each table in one run;
in brackets the smallest and the largest ratio of the rounds. `make bench` measures all of it again, and `bench/` says how.

"""
_TRAPS = """
## How it is measured, and what misleads

- Both servers run side by side on one machine with the same data and one worker process each; MLflow's is the one of its package mlflow-skinny
  with what its server needs.
  Rounds alternate, because processors run at half speed for seconds at a time: only figures of one run compare.
- MLflow's server answers kept connections 40 ms late, whatever it does, unless the client acknowledges at once (it sets no
  TCP_NODELAY). The load generator sets TCP_QUICKACK for both; without it every ratio would rest on a socket option.
- The load generator is one process without threads that sends prepared bytes. Its ceiling is the line "a bare server": where our own
  server comes near that, the ratio is too small rather than too large. It shares the processors with the server it measures.
- Repeated reads of an unchanged catalogue are answered from memory that is dropped as the log grows (ADR 0017). The mix
  of reads and writes is the line that says what is left of it while somebody writes.
- A write is durable when it is answered: SQLite with `synchronous=FULL`, PostgreSQL with `fsync` and `synchronous_commit` on, for
  both servers. MLflow neither hashes nor syncs the files that it is sent.
- Writes on PostgreSQL have no bar of their own, and are held against SQLite's: a registration needs a dozen ways to the database's process
  and back, one after the other, before the commit that both servers wait for (ADR 0028).
- Large files are measured in one request each. MLflow writes what it is sent; Touchmark hashes it, too, and waits for the disk.
- p99 is that of 32 connections that send as soon as they have an answer: mostly the queue before one worker.
"""


def write_page(report: Report) -> None:
    """Write the page and a chart for each part."""
    parts = list(dict.fromkeys(result.part for result in report.results))
    met = sum(result.is_met for result in report.results)
    text = _HEAD.format(count=met, total=len(report.results))
    text += f"Versions: {report.about['versions']}.\n"
    for number, part in enumerate(parts):
        results = [result for result in report.results if result.part == part]
        chart = PAGE.with_name(f"benchmarks-{number + 1}.svg")
        chart.write_text(draw(part, results))
        machines = "; ".join(dict.fromkeys(result.measured for result in results))
        text += f"\n## {part}\n\nMeasured {machines}.\n\n![{part}: each ratio beside its bar]({chart.name})\n\n"
        text += "| work | ratio | bar | Touchmark | beside it | verdict |\n| --- | --- | --- | --- | --- | --- |\n"
        for each in results:
            spread = f" ({show(min(each.ratios))} – {show(max(each.ratios))})" if len(each.ratios) > 1 else ""
            text += (
                f"| {each.work} | {show(each.ratio)}x{spread} | {each.sense} {show(each.bar)}x | {show(each.ours)} {each.unit} "
                f"| {each.beside}: {show(each.theirs)} {each.unit} | {'met' if each.is_met else '**missed**'} |\n"
            )
        notes = [f"- {each.work}: {each.note}\n" for each in results if each.note]
        text += ("\n" + "".join(notes)) if notes else ""
    PAGE.write_text(text + _TRAPS)
    PAGE.with_suffix(".json").write_text(
        json.dumps({"about": report.about, "results": _as_json(report)}, indent=1) + "\n"
    )


def draw(title: str, results: Sequence[Result]) -> str:
    """Return an SVG: a bar of each ratio as a multiple of its bar, on a logarithmic scale; right of the line is better."""
    width, row, left, top = 760, 26, 330, 34
    scores = [each.score for each in results]
    low = min(0.5, *scores)
    high = max(2.0, *scores)

    def x(score: float) -> float:
        return left + (width - left - 70) * (math.log(score) - math.log(low)) / (math.log(high) - math.log(low))

    style = 'font-family="system-ui, sans-serif" font-size="12" role="img"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {top + row * len(results) + 12}" {style}>',
        f"<title>{_escape(title)}: each ratio as a multiple of its bar</title>",
        '<rect width="100%" height="100%" fill="#fff"/>',
        f'<text x="{x(1.0):.0f}" y="16" text-anchor="middle" fill="#444">its bar</text>',
    ]
    for number, (each, score) in enumerate(zip(results, scores, strict=True)):
        y = top + row * number
        begin, end = sorted((x(1.0), x(score)))
        colour = "#2a7f62" if each.is_met else "#b3402e"
        lines += [
            f'<text x="{left - 10}" y="{y + 14}" text-anchor="end" fill="#222">{_escape(each.work)}</text>',
            f'<rect x="{begin:.0f}" y="{y + 3}" width="{max(end - begin, 1):.0f}" height="15" fill="{colour}"/>',
            f'<text x="{max(end, x(1.0)) + 6:.0f}" y="{y + 14}" fill="#222">{show(each.ratio)}x</text>',
        ]
    lines.append(
        f'<line x1="{x(1.0):.0f}" x2="{x(1.0):.0f}" y1="22" y2="{top + row * len(results)}" stroke="#444"/></svg>'
    )
    return "\n".join(lines) + "\n"


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


if __name__ == "__main__":
    write_page(load(Path(sys.argv[1])))

"""The benchmark runs, its data is a registry like any other, and its verdicts say what they should."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from touchmark.domain.access import SYSTEM
from touchmark.domain.digest import digest_of
from touchmark.domain.repositories import parse_repository
from touchmark.domain.tracking import ArtifactOwner, Metric
from touchmark.ops.fsck import check_registry
from touchmark.ops.setup import open_registry
from touchmark.services import artifacts, blobs, registration, runs, search, versions

BENCH = Path(__file__).parents[2] / "bench"


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return what imports a module of the benchmark, whose programs find each other by their folder."""
    monkeypatch.syspath_prepend(str(BENCH))

    def load_module(name: str) -> ModuleType:
        sys.modules.pop(name, None)
        return importlib.import_module(name)

    return load_module


def test_many_versions_at_once_are_versions_like_any_other(home: Path, load: Any) -> None:
    registry = open_registry(home)
    run = runs.create_run(registry, SYSTEM, experiment="bench")
    runs.log_batch(registry, SYSTEM, run.run_id, metrics=[Metric("auc", 0.5, at=1)])
    owner = ArtifactOwner("run", run.run_id)
    with blobs.open_upload(registry, SYSTEM, parse_repository(owner.repository)) as upload:
        upload.write(b"weights")
        upload.commit(digest_of(b"weights"))
    artifacts.set_artifacts(registry, SYSTEM, owner, {"m/w.bin": digest_of(b"weights")})
    registration.register_version(registry, SYSTEM, "bench", f"runs:/{run.run_id}/m", tags={"team": "risk"})

    load("fixtures").add_versions(registry, "bench", 2_500)

    report = check_registry(registry, deep=True)
    assert report.findings == []
    assert report.checked["versions"] == 2_501
    assert versions.resolve(registry, SYSTEM, "models:/bench/latest").version == 2_501
    assert registration.register_version(registry, SYSTEM, "bench", f"runs:/{run.run_id}/m").version == 2_502
    page = search.search_versions(registry, SYSTEM, filter="tags.team = 'risk' AND metrics.auc = 0.5", limit=10)
    assert [version.version for version in page.items][:3] == [2_500, 2_495, 2_490]
    registry.close()


@pytest.mark.processes
def test_the_benchmark_runs_and_says_which_bars_are_met(tmp_path: Path) -> None:
    words = [
        "--only",
        "sizes",
        "--versions",
        "700",
        "--rounds",
        "1",
        "--seconds",
        "0.2",
        "--json",
        str(tmp_path / "r.json"),
    ]
    done = subprocess.run(
        [sys.executable, str(BENCH / "run.py"), *words], capture_output=True, text=True, timeout=110, check=False
    )

    assert done.returncode == 0, done.stderr
    assert "answers other than 200" not in done.stderr
    results = json.loads((tmp_path / "r.json").read_text())["results"]
    assert {result["part"] for result in results} == {"700 versions instead of 500"}
    assert len(results) == 7
    for result in results:
        assert result["is_met"] == (result["ratio"] <= result["bar"])
        assert f"{'met' if result['is_met'] else 'MISSED'}: {result['work']}" in done.stdout


def test_a_verdict_is_the_median_of_the_rounds_against_the_bar(load: Any) -> None:
    results = load("results")
    fast = results.Result("p", "reads", [50.0, 70.0, 61.0], results.AT_LEAST, 60, 610.0, 10.0, "requests/s")
    slow = results.Result("p", "starts", [0.1, 0.3, 0.2], results.AT_MOST, 0.125, 2.0, 10.0, "s")

    assert fast.verdict == "met: reads: 61x (50 to 70), bar >= 60x"
    assert slow.verdict == "MISSED: starts: 0.2x (0.1 to 0.3), bar <= 0.125x"
    none = results.Result("p", "errors", [0.0], results.AT_MOST, 0, 0.0, 0.0, "errors")
    assert none.verdict == "met: errors: 0x, bar <= 0x"
    drawn = results.draw("reads & <writes>", [fast, slow, none])
    assert drawn.count("<rect") == 4
    assert "reads &amp; &lt;writes&gt;" in drawn

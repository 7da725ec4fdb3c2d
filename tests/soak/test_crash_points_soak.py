"""Every call that changes the disk, in every action: killed there, out of space there, failing there."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.acceptance.sweeping import ACTIONS, CALLS, Sweep, require_strace, sweep


@pytest.mark.processes
@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("fault", ["signal=SIGKILL", "error=EIO", "error=ENOSPC"])
def test_a_fault_at_every_call_that_changes_the_disk_leaves_a_whole_registry(
    tmp_path: Path, action: str, fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    require_strace()
    found = Sweep()
    sweep(tmp_path, action, tuple(CALLS), (fault,), found=found)
    with capsys.disabled():
        print(f"\n{action}: {found.describe()}")

    assert found.points[f"pwrite {fault.partition('=')[2]}"] > 1

"""Large files: what moves through a server leaves its memory flat, and cuts cost next to nothing of what is sent."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.acceptance.test_flat_memory import GROWN_BYTES
from tests.acceptance.test_resume import cut_and_resume
from tests.acceptance.transfers import MIB, compare_shapes, measure_four_at_once

pytestmark = pytest.mark.processes


def test_four_transfers_of_a_gibibyte_at_once_leave_the_memory_flat(home: Path) -> None:
    took = measure_four_at_once(home, 1024 * MIB)

    assert took.most_bytes - took.idle_bytes < GROWN_BYTES


def test_cuts_of_a_larger_file_cost_at_most_a_twentieth_of_what_was_sent(home: Path) -> None:
    assert cut_and_resume(home, 512 * MIB) <= 1.05


def test_a_thousand_files_pull_in_about_the_time_of_one_of_their_size(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ratios = compare_shapes(home, tmp_path, size_bytes=4096 * MIB, count=1024, rounds=3)
    with capsys.disabled():
        print("\n1,024 files of 4 GiB in all, beside one of 4 GiB: " + ", ".join(f"{each:.2f}" for each in ratios))

    assert min(ratios) <= 1.2

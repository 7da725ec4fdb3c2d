"""The power cut at every instant of a registry's life, in every way, and in random ways more than once."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.acceptance.powercuts import CHOICES, record
from tests.acceptance.surviving import cut_power
from tests.acceptance.sweeping import require_strace


@pytest.mark.processes
def test_a_power_cut_at_every_instant_loses_nothing_that_was_promised(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    require_strace()
    (tmp_path / "disk").mkdir()
    words = [sys.executable, "-B", "-m", "tests.acceptance.living", str(tmp_path)]
    record(words, tmp_path / "trace", folder=Path(__file__).parent.parent.parent)
    ways = (*CHOICES, "patchy", "torn", "random", "random", "random")
    found = cut_power(
        tmp_path / "trace", tmp_path / "disk", tmp_path / "states", is_cut=lambda _changes, _was_told: ways
    )
    with capsys.disabled():
        print(f"\npower cuts: {found.describe()}")

    assert found.lost == []
    assert found.instants > 1000

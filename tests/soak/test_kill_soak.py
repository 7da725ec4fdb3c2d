"""Two hundred kills: no loss in n means at most 3/n at 95 % confidence (rule of three), here 1.5 %."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.acceptance.killing import play

ROUNDS = 200


@pytest.mark.processes
def test_nothing_acknowledged_is_lost_in_two_hundred_kills(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def show(line: str) -> None:
        with capsys.disabled():
            print(f"\n{line}")

    play(tmp_path / "home", ROUNDS, seed=time.time_ns(), show=show)

"""What was acknowledged survives `kill -9` of the server at random instants (promise 6)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.acceptance.killing import play

ROUNDS = 20


@pytest.mark.processes
@pytest.mark.timeout(400)
def test_nothing_acknowledged_is_lost_in_twenty_kills(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def show(line: str) -> None:
        with capsys.disabled():
            print(f"\n{line}")

    play(tmp_path / "home", ROUNDS, seed=20_261_123, show=show)

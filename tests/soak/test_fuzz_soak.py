"""The readers of foreign bytes, fuzzed for two minutes each (TOUCHMARK_FUZZ_SECONDS), from another seed each day."""

from __future__ import annotations

import os
import time

import pytest

from tests.fuzz.growing import grow
from tests.fuzz.targets import list_targets

SECONDS = float(os.environ.get("TOUCHMARK_FUZZ_SECONDS") or 120)


@pytest.mark.parametrize("name", list_targets())
def test_no_bytes_break_a_reader_however_long_it_is_tried(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    seed = int(time.time()) // 86_400
    found = grow(list_targets()[name], seconds=SECONDS, seed=seed)
    with capsys.disabled():
        print(f"\n{name}, seed {seed}: {found.describe()}")

    assert found.faults == []

"""Every reader of foreign bytes, fuzzed for a second each: what is wrong is refused as documented, and within bounds."""

from __future__ import annotations

import pytest

from tests.fuzz import planted
from tests.fuzz.growing import Target, grow
from tests.fuzz.targets import list_targets

SECONDS = 0.5


@pytest.mark.parametrize("name", list_targets())
def test_no_bytes_break_a_reader(name: str) -> None:
    found = grow(list_targets()[name], seconds=SECONDS)

    assert found.faults == [], found.describe()
    assert found.kept > 1, "nothing new was ever reached: the fuzzer does not see this code"


def test_the_fuzzer_finds_a_fault_behind_three_comparisons_by_itself() -> None:
    found = grow(
        Target("planted", planted.read, [b"harmless"], [planted], source=str(planted.__file__)),
        seconds=60,
        most_faults=1,
    )

    assert [fault.partition(" ")[0] for fault, _data in found.faults] == ["ZeroDivisionError"]

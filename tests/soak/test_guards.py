"""Every guard is taken out, one at a time, in a copy of the source, and each test named beside it must turn red there."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.soak.breaking import copy_tree, find_origin, removed, run_tests
from tests.soak.guards import GUARDS, Guard


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a copy of the source, in which all the tests are green."""
    tree = tmp_path_factory.mktemp("guards") / "tree"
    copy_tree(tree)
    assert find_origin(tree).is_relative_to(tree)
    found = run_tests(tree, sorted({test for guard in GUARDS for test in guard.tests}))
    assert found.is_green, found.said[-5_000:]
    return tree


@pytest.mark.processes
@pytest.mark.parametrize("guard", [each for each in GUARDS if each.tests], ids=lambda guard: guard.name)
def test_a_guard_that_is_taken_out_is_missed(tree: Path, guard: Guard, capsys: pytest.CaptureFixture[str]) -> None:
    begun = time.monotonic()
    with removed(tree, guard):
        found = run_tests(tree, guard.tests)
    with capsys.disabled():
        print(f"\n{guard.name}: {len(found.failed)} red in {time.monotonic() - begun:.0f} s")

    fault = found.find_fault(guard)
    assert fault is None, f"{fault}\n{found.said[-5_000:]}"

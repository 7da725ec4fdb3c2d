"""The list of guards fits the source: each text stands there once, each test exists, and the page shows the list.

A few guards are taken out here, too, and so are two that are none, to see that the taking out tells them apart;
tests/soak/test_guards.py takes out all.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.house.source import ROOT
from tests.soak.breaking import copy_tree, find_origin, removed, run_tests
from tests.soak.guards import GUARDS, Guard, render_reference

QUICK = ("leaves and nodes are hashed apart", "`latest` is no alias", "depth of JSON")
"""Guards whose tests take a tenth of a second."""


@pytest.mark.parametrize("guard", GUARDS, ids=lambda guard: guard.name)
def test_a_guard_stands_where_the_list_says(guard: Guard) -> None:
    text = (ROOT / guard.file).read_text(encoding="utf-8")

    assert text.count(guard.text) == 1, f"tests/soak/guards.py no longer fits {guard.file}: change it with the code"
    compile(text.replace(guard.text, guard.without), guard.file, "exec")
    assert bool(guard.tests) != bool(guard.second), "name the tests, or what else keeps the promise"


@pytest.mark.parametrize("test", sorted({test for guard in GUARDS for test in guard.tests}))
def test_a_test_that_the_list_names_exists(test: str) -> None:
    file, *above, name = test.split("::")
    text = (ROOT / file).read_text(encoding="utf-8")

    assert re.search(rf"^ *(async )?def {re.escape(name.partition('[')[0])}\(", text, re.MULTILINE)
    for each in above:
        assert f"class {each}" in text


def test_no_two_guards_share_a_name_and_there_are_many() -> None:
    names = [guard.name for guard in GUARDS]

    assert sorted(set(names)) == sorted(names)
    assert len(names) >= 30


def test_the_page_of_guards_is_the_one_the_list_makes() -> None:
    page = (ROOT / "docs" / "reference" / "guards.md").read_text(encoding="utf-8")

    assert page == render_reference(), "run: python -m tests.soak.guards > docs/reference/guards.md"


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tree = tmp_path_factory.mktemp("guards") / "tree"
    copy_tree(tree)
    assert find_origin(tree).is_relative_to(tree)
    found = run_tests(tree, [test for name in QUICK for test in find(name).tests])
    assert found.is_green, found.said
    return tree


def find(name: str) -> Guard:
    return next(guard for guard in GUARDS if guard.name == name)


@pytest.mark.parametrize("name", QUICK)
def test_a_guard_that_is_taken_out_is_missed(tree: Path, name: str) -> None:
    guard = find(name)

    with removed(tree, guard):
        found = run_tests(tree, guard.tests)

    assert found.find_fault(guard) is None, found.said
    assert (tree / guard.file).read_bytes() == (ROOT / guard.file).read_bytes()


def test_what_guards_nothing_is_not_taken_for_a_guard(tree: Path) -> None:
    good = find(QUICK[0])
    comment = Guard("a word", good.promise, good.file, "Here are pure functions", "These are functions", good.tests)
    with removed(tree, comment):
        found = run_tests(tree, good.tests)

    assert found.is_green
    assert "stay green" in (found.find_fault(comment) or "")


@pytest.mark.parametrize(
    ("text", "without"),
    [
        ('hashlib.sha256(b"\\x00" + data)', "hashlib.sha256(undefined + data)"),
        ("import hashlib\n", "import hashlib\nimport no_such_module\n"),
    ],
)
def test_a_removal_that_only_breaks_the_code_proves_nothing(tree: Path, text: str, without: str) -> None:
    good = find(QUICK[0])
    clumsy = Guard("clumsy", good.promise, good.file, text, without, good.tests)
    with removed(tree, clumsy):
        found = run_tests(tree, good.tests)

    assert not found.is_green
    assert "breaks the code" in (found.find_fault(clumsy) or "")


def test_a_text_that_stands_twice_or_nowhere_is_not_taken_out(tree: Path) -> None:
    good = find(QUICK[0])
    for text in ("hashlib.sha256", "no such text"):
        with pytest.raises(ValueError, match="times in"), removed(tree, Guard("?", "", good.file, text, "", ())):
            pass

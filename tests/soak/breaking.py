"""Taking a guard out of a copy of the source, and seeing which tests turn red there.

Nothing here touches the tree it runs from. The copy is compiled once, with the sources' hashes kept in the compiled files:
a removed guard may leave a file of the same size within the same second, which a time stamp would not tell apart.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.soak.guards import Guard

ROOT = Path(__file__).parents[2]
COPIED = ("src", "tests", "docs", "changelog", "requirements", "pyproject.toml", "README.md", "CONTRIBUTING.md")
SECONDS = 3600
"""How long some tests may take: all that the list names, on a slow machine."""

# What a clumsy cut leaves behind: a test that is red for this says nothing about the guard.
_CLUMSY = re.compile(r"\b(SyntaxError|IndentationError|ImportError|ModuleNotFoundError|NameError|UnboundLocalError)\b")
_OUTCOME = re.compile(r"^(FAILED|ERROR) (\S+)", re.MULTILINE)


@dataclass(frozen=True)
class Outcome:
    """What became of some tests: pytest's exit code, those that failed and those that could not even begin, and all it said."""

    code: int
    failed: tuple[str, ...]
    broken: tuple[str, ...]
    said: str

    @property
    def is_green(self) -> bool:
        """Whether tests ran, and none failed. A case that is skipped is no fault: without its guard it would not turn red."""
        return self.code == 0

    def find_fault(self, guard: Guard) -> str | None:
        """Say why this does not prove that the guard's removal is noticed, or None if each of its tests is red for it."""
        if self.broken or _CLUMSY.search(self.said):
            return f"the removal of {guard.name!r} breaks the code instead of the promise"
        green = [test for test in guard.tests if not any(_is_of(test, failed) for failed in self.failed)]
        if green:
            return f"without {guard.name!r} these tests stay green: {', '.join(green)}"
        return None


def _is_of(test: str, failed: str) -> bool:
    """Answer whether what failed is a test, or one of its cases."""
    return failed == test or failed.startswith(f"{test}[")


def copy_tree(target: Path) -> None:
    """Copy what tests need into an empty folder, and compile it."""
    target.mkdir()
    ignored = shutil.ignore_patterns("__pycache__", "*.pyc", ".*")
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=ignored)
        elif source.exists():
            shutil.copy(source, target / name)
    done = subprocess.run(
        [sys.executable, "-m", "compileall", "-q", "--invalidation-mode", "checked-hash", "src", "tests"],
        cwd=target,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"the copy does not compile: {done.stdout}")


@contextmanager
def removed(tree: Path, guard: Guard) -> Iterator[None]:
    """Take a guard out of a copy; it is put back at the end. Raises ValueError unless its text stands there once."""
    file = tree / guard.file
    text = file.read_text(encoding="utf-8")
    if text.count(guard.text) != 1:
        raise ValueError(f"{guard.name!r}: its text stands {text.count(guard.text)} times in {guard.file}")
    without = text.replace(guard.text, guard.without)
    compile(without, str(file), "exec")
    file.write_text(without, encoding="utf-8")
    try:
        yield
    finally:
        file.write_text(text, encoding="utf-8")


def run_tests(tree: Path, tests: Sequence[str]) -> Outcome:
    """Run tests in a copy, against the source of that copy."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("TOUCHMARK_", "PYTEST_"))}
    # What plugins of other tests' tools import takes five times as long as the tests of most guards.
    environment |= {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    environment |= {"PYTHONPATH": str(tree / "src"), "PYTHONDONTWRITEBYTECODE": "1", "CI": "1", "COLUMNS": "200"}
    plugins = ["-p", "no:cacheprovider", "-p", "pytest_timeout", "--timeout=120"]
    words = [sys.executable, "-m", "pytest", "-q", *plugins, "-rfEs", "--tb=short"]
    # One database and the quick stores notice it; the others take seconds to start, or are not there. Some guards stand
    # where only they come by.
    marks = "not ceph" if any("[postgres]" in test for test in tests) else "not ceph and not postgres"
    for choice in (["-m", marks], []):
        done = subprocess.run(
            [*words, *choice, *tests],
            cwd=tree,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=SECONDS,
        )
        if done.returncode != pytest.ExitCode.NO_TESTS_COLLECTED:
            break
    outcomes = _OUTCOME.findall(done.stdout)
    failed = tuple(test for what, test in outcomes if what == "FAILED")
    broken = tuple(test for what, test in outcomes if what == "ERROR")
    said = done.stdout + done.stderr
    return Outcome(done.returncode, failed, broken if done.returncode == 1 else (*broken, *_unless_run(done)), said)


def _unless_run(done: subprocess.CompletedProcess[str]) -> tuple[str, ...]:
    return () if done.returncode == 0 else (f"pytest ended with {done.returncode}",)


def find_origin(tree: Path) -> Path:
    """Return where Python finds the package when it runs in a copy."""
    environment = {**os.environ, "PYTHONPATH": str(tree / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    words = [sys.executable, "-c", "import touchmark; print(touchmark.__file__)"]
    done = subprocess.run(words, cwd=tree, env=environment, capture_output=True, text=True, check=True)
    return Path(done.stdout.strip())

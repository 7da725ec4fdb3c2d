"""What may not stand in the repository: addresses of package indexes, paths of one machine, lock files, big files."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

from tests.house.source import ROOT, shown
from touchmark.domain.about import VERSION

# Put together from halves, so that this file does not hold what it forbids.
FORBIDDEN = {
    "the address of a package index": [
        "py" + r"pi\.org",
        "python" + r"hosted\.org",
        "npm" + r"js\.(org|com)",
        "deb\\." + r"debian\.org",
        "archive\\." + r"ubuntu\.com",
        "ana" + r"conda\.(org|com)",
    ],
    "a path of one machine": [
        "/wo" + r"rk/(main|shared|steering|\.)",
        "/fa" + "rm/",
        "/ro" + r"ot/\.",
        r"/home/(?!touchmark|you|alice|\$)" + r"\w+/",
        "/Us" + r"ers/\w+/",
    ],
}
PATTERNS = {why: re.compile("|".join(parts)) for why, parts in FORBIDDEN.items()}
LOCK_FILES = {"uv.lock", "poetry.lock", "Pipfile.lock", "pdm.lock", "package" + "-lock.json", "yarn.lock"}
LARGEST_BYTES = 1024 * 1024


def list_files() -> Iterator[Path]:
    """Yield what would be committed: everything that .gitignore does not name (read here, so that git is not needed)."""
    lines = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    ignored = [line.strip("/ ") for line in lines if line.strip() and not line.startswith("#")]

    def walk(folder: Path) -> Iterator[Path]:
        for path in sorted(folder.iterdir()):
            if path.name == ".git" or any(fnmatch(path.name, pattern) for pattern in ignored) or path.is_symlink():
                continue
            if path.is_dir():
                yield from walk(path)
            elif path.is_file():
                yield path

    yield from walk(ROOT)


def list_forbidden(text: str) -> list[str]:
    """Return why `text` may not be in the repository, with the words that say so."""
    return [f"{why}: {found.group(0)}" for why, pattern in PATTERNS.items() for found in pattern.finditer(text)]


def test_no_file_holds_what_belongs_to_one_machine() -> None:
    problems = [
        f"{shown(path)}: {problem}"
        for path in list_files()
        for problem in list_forbidden(path.read_bytes().decode("utf-8", "replace"))
    ]

    assert problems == []


def test_no_lock_file_and_no_big_file() -> None:
    files = list(list_files())

    assert ROOT / "pyproject.toml" in files
    assert [shown(path) for path in files if path.name in LOCK_FILES] == []
    assert [shown(path) for path in files if path.stat().st_size > LARGEST_BYTES] == []


def test_each_forbidden_pattern_finds_its_sample() -> None:
    samples = [
        "https://py" + "pi.org/simple",
        "files.python" + "hosted.org",
        "registry.npm" + "js.org",
        "deb." + "debian.org",
        "/wo" + "rk/main/src",
        "/ro" + "ot/.cache",
        "/home/" + "somebody/src",
        "/Us" + "ers/somebody/src",
    ]

    assert [sample for sample in samples if not list_forbidden(sample)] == []
    assert list_forbidden("pip install touchmark; /var/lib/touchmark; /home/you/models") == []


def test_requirement_files_pin_every_package_by_hash_and_name_no_place_to_get_it() -> None:
    files = sorted((ROOT / "requirements").glob("*.txt"))

    assert sorted(path.stem for path in files) == [
        "base", "conformance", "conformance-torch", "dev", "mlflow2", "server",
    ]  # fmt: skip
    for path in files:
        entries = [line for line in path.read_text().splitlines() if line and line[0] not in "# "]
        assert entries
        assert [line for line in entries if not re.match(r"[a-z0-9][a-z0-9._-]*==\S+ ", line)] == [], path.name
        assert path.read_text().count("--hash=sha256:") >= len(entries)
        assert "://" not in path.read_text()


def test_the_version_is_said_once_and_the_same() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    assert project["version"] == VERSION

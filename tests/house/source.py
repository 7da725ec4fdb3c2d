"""Reading our own source, for the tests of this folder."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "touchmark"


def list_modules(under: str = "") -> list[Path]:
    """Return the Python files of the package, or of one folder of it; a folder that does not exist yet has none."""
    return sorted((PACKAGE / under).rglob("*.py"))


def parse_module(path: Path) -> ast.Module:
    """Return the syntax tree of a file."""
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def shown(path: Path) -> str:
    """Return a path as a reader would write it."""
    return path.relative_to(ROOT).as_posix()

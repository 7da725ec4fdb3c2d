"""`domain` holds rules: the standard library only, no input or output, no clock, no randomness."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator

import pytest

from tests.house.source import list_modules, parse_module, shown

# Whole modules whose use is reading the world, the time or chance.
IMPURE = {
    "asyncio",
    "ftplib",
    "getpass",
    "glob",
    "http",
    "io",
    "locale",
    "logging",
    "multiprocessing",
    "os",
    "platform",
}
IMPURE |= {"random", "secrets", "select", "shutil", "signal", "smtplib", "socket", "sqlite3", "ssl", "subprocess"}
IMPURE |= {"tempfile", "threading", "time", "uuid", "warnings", "zoneinfo"}
IMPURE_CALLS = {"open", "print", "input", "breakpoint", "exec", "eval"}
IMPURE_METHODS = {"now", "utcnow", "today"}
PURE_NAMES = {"pathlib": {"PurePath", "PurePosixPath", "PureWindowsPath"}, "urllib": {"parse"}}


def list_impure(tree: ast.Module, name: str) -> Iterator[str]:
    """Yield the imports and calls by which a module would reach beyond its arguments."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if not _is_pure_module(alias.name) or alias.name.partition(".")[0] == "pathlib":
                    yield f"{name}:{node.lineno} import {alias.name}"
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            names = {alias.name for alias in node.names}
            if node.level or not _is_pure_module(module) or names - PURE_NAMES.get(module, names):
                yield f"{name}:{node.lineno} from {module} import {', '.join(sorted(names))}"
        elif isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name) and node.func.id in IMPURE_CALLS:
                yield f"{name}:{node.lineno} {node.func.id}()"
            elif isinstance(node.func, ast.Attribute) and node.func.attr in IMPURE_METHODS:
                yield f"{name}:{node.lineno} .{node.func.attr}()"


def _is_pure_module(module: str) -> bool:
    top = module.partition(".")[0]
    if top == "touchmark":
        return module == "touchmark.domain" or module.startswith("touchmark.domain.")
    if top == "urllib":
        return module in {"urllib", "urllib.parse"}
    return top in sys.stdlib_module_names and top not in IMPURE


def test_domain_reaches_nothing_but_its_arguments() -> None:
    modules = list_modules("domain")

    impure = [reach for path in modules for reach in list_impure(parse_module(path), shown(path))]

    assert modules
    assert impure == []


@pytest.mark.parametrize(
    "line",
    [
        "import time",
        "import os.path",
        "from random import choice",
        "import pathlib",
        "from pathlib import Path",
        "import urllib.request",
        "from urllib import request",
        "import msgspec",
        "from touchmark.storage import schema",
        "from . import names",
        "datetime.now(UTC)",
        "open('x')",
        "print('x')",
    ],
)
def test_an_impure_line_is_found(line: str) -> None:
    assert len(list(list_impure(ast.parse(line), "m"))) == 1


@pytest.mark.parametrize(
    "line",
    [
        "import hashlib, json, re, unicodedata",
        "from pathlib import PurePosixPath",
        "from urllib.parse import urlsplit",
        "from touchmark.domain.errors import InvalidError",
        "datetime.fromtimestamp(0, UTC)",
    ],
)
def test_a_pure_line_is_accepted(line: str) -> None:
    assert list(list_impure(ast.parse(line), "m")) == []

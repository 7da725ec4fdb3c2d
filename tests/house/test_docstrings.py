"""Every module, and every public name, says what it is."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from tests.house.source import list_modules, parse_module, shown


def list_undocumented(tree: ast.Module, name: str) -> Iterator[str]:
    """Yield where a docstring is missing: the module, a public function, class or method. An empty module needs none."""
    if tree.body and not ast.get_docstring(tree):
        yield name
    yield from _list_undocumented_in(tree.body, name)


def _list_undocumented_in(body: list[ast.stmt], name: str) -> Iterator[str]:
    for node in body:
        if isinstance(node, ast.If):  # `if sys.platform == ...`
            yield from _list_undocumented_in([*node.body, *node.orelse], name)
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) or node.name.startswith("_"):
            continue
        is_second_half = any("overload" in ast.unparse(mark) or ".setter" in ast.unparse(mark) for mark in _marks(node))
        if not ast.get_docstring(node) and not is_second_half:
            yield f"{name}:{node.lineno} {node.name}"
        if isinstance(node, ast.ClassDef):
            yield from _list_undocumented_in(node.body, name)


def _marks(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> list[ast.expr]:
    return node.decorator_list


def test_every_module_and_public_name_has_a_docstring() -> None:
    missing = [
        gap
        for path in list_modules()
        if "migrations/versions" not in path.as_posix()  # Alembic's upgrade() and downgrade() say it by their names
        for gap in list_undocumented(parse_module(path), shown(path))
    ]

    assert missing == []


def test_a_missing_docstring_is_found() -> None:
    tree = ast.parse(
        'import x\nclass A:\n    """Says."""\n    def b(self): ...\n    def _c(self): ...\ndef d(): ...\nasync def e(): ...'
    )

    assert list(list_undocumented(tree, "m")) == ["m", "m:4 b", "m:6 d", "m:7 e"]

"""Every public function of a service calls `permissions.require(...)` on every path, before it returns anything.

Read from the syntax tree, so that a service nobody has tested yet is covered too. What is asked for is the plain form:
a call in the function itself. A call in one branch only, in a nested function, or after a `return`, does not count.
A door can only call what takes a Registry, for it has no transaction to hand in: functions that take one are parts
that services share, and a second test holds that no door opens a transaction or reaches for rows itself.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.house.source import list_modules, parse_module, shown

Function = ast.FunctionDef | ast.AsyncFunctionDef


def list_unguarded(tree: ast.Module, name: str) -> Iterator[str]:
    """Yield the public functions of a module that do not ask, themselves or through one of the module that does."""
    functions = [node for node in tree.body if isinstance(node, Function)]
    asking: frozenset[str] = frozenset()
    while (more := asking | {node.name for node in functions if _asks(node.body, asking)}) != asking:
        asking = more
    for node in functions:
        if not node.name.startswith("_") and _is_for_doors(node) and node.name not in asking:
            yield f"{name}:{node.lineno} {node.name}"


def _is_for_doors(node: Function) -> bool:
    return any("Registry" in ast.unparse(argument.annotation) for argument in node.args.args if argument.annotation)


def _asks(body: list[ast.stmt], asking: frozenset[str]) -> bool:
    """Return whether running these statements asks for permission before it can return."""
    for statement in body:
        if _asks_in(statement, asking):
            return True
        if any(isinstance(node, ast.Return | ast.Yield | ast.YieldFrom) for node in _walk(statement)):
            return False
    return False


def _asks_in(statement: ast.stmt, asking: frozenset[str]) -> bool:
    if isinstance(statement, ast.Expr | ast.Assign | ast.AnnAssign | ast.Return):
        return any(_is_require(node, asking) for node in _walk(statement))
    if isinstance(statement, ast.With | ast.AsyncWith | ast.For | ast.Try):
        return _asks(statement.body, asking)
    if isinstance(statement, ast.If):
        return _asks(statement.body, asking) and _asks(statement.orelse, asking)
    return False


def _is_require(node: ast.AST, asking: frozenset[str]) -> bool:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in asking:
        return "who" in {argument.id for argument in node.args if isinstance(argument, ast.Name)}
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "require"
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "permissions"
    )


def _walk(node: ast.AST) -> Iterator[ast.AST]:
    """Walk a node without entering functions defined inside it, whose calls may never happen."""
    yield node
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, Function | ast.Lambda | ast.ClassDef):
            yield from _walk(child)


def test_every_service_asks_permission() -> None:
    unguarded = [gap for path in list_modules("services") for gap in list_unguarded(parse_module(path), shown(path))]

    assert unguarded == []


@pytest.mark.parametrize(
    "body",
    [
        "permissions.require(tx, who, Action.READ, name)",
        "with registry.read() as tx:\n        permissions.require(tx, who, Action.READ, name)\n        return 1",
        "if name:\n        permissions.require(tx, who, 1)\n    else:\n        permissions.require(tx, who, 2)",
        "scope = permissions.require(tx, who, Action.READ)\n    return scope",
        "for name in names:\n        permissions.require(tx, who, Action.READ, name)",
    ],
)
def test_a_service_that_asks_is_accepted(body: str) -> None:
    assert list(list_unguarded(ast.parse(f"def get_model(registry: Registry, who, name):\n    {body}\n"), "m")) == []


@pytest.mark.parametrize(
    "body",
    [
        "return 1",
        "with registry.read() as tx:\n        return storage.models.get_model(tx, name)",
        "if name:\n        permissions.require(tx, who, Action.READ, name)",
        "if name == 'x':\n        return 1\n    permissions.require(tx, who, Action.READ, name)",
        "def later():\n        permissions.require(tx, who, Action.READ, name)\n    return 1",
        "later = lambda: permissions.require(tx, who, Action.READ, name)",
        "require(tx, who, Action.READ, name)",
        "other.require(tx, who, Action.READ, name)",
        "yield 1\n    permissions.require(tx, who, Action.READ, name)",
    ],
)
def test_a_service_that_forgets_to_ask_is_found(body: str) -> None:
    tree = ast.parse(f"def get_model(registry: Registry, who, name):\n    {body}\n\ndef _inner():\n    return 1\n")

    assert list(list_unguarded(tree, "m")) == ["m:1 get_model"]


@pytest.mark.parametrize("door", ["protocols", "web", "wire", "server", "cli"])
def test_no_door_opens_a_transaction_or_reads_rows(door: str) -> None:
    for path in list_modules(door):
        text = path.read_text()
        for forbidden in (".read() as", ".write() as", ".track() as", "touchmark.storage"):
            assert forbidden not in text, f"{shown(path)} has {forbidden!r}: call a service"

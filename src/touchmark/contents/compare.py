"""What differs between the contents of two versions: the schema, flavors, requirements and tensors.

Here: a pure comparison of two stored descriptions. Not here: reading files, deciding whether a difference matters.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from touchmark.contents.requirements import requirement_name

Difference = dict[str, list[dict[str, object]]]
"""{added: [{name, after}], removed: [{name, before}], changed: [{name, before, after}]}, each by name."""


def compare_contents(left: dict[str, Any], right: dict[str, Any]) -> dict[str, Any]:
    """Compare two `Contents.to_json()`, the older `left`. Fields a description lacks count as empty.

    Returns {schema: {inputs, outputs, params}, flavors, requirements, tensors, facts, pickles}, each a Difference;
    `facts` are the framework, the Python version, the size and the number of files.
    """
    left_schema, right_schema = left.get("schema") or {}, right.get("schema") or {}
    return {
        "schema": {
            side: _compare(_by_name(left_schema.get(side)), _by_name(right_schema.get(side)))
            for side in ("inputs", "outputs", "params")
        },
        "flavors": _compare(left.get("flavors") or {}, right.get("flavors") or {}),
        "requirements": _compare(_requirements(left), _requirements(right)),
        "tensors": _compare(_flatten(left.get("tensors")), _flatten(right.get("tensors"))),
        "facts": _compare(_facts(left), _facts(right)),
        "pickles": _compare(dict.fromkeys(left.get("pickles") or ()), dict.fromkeys(right.get("pickles") or ())),
    }


def _compare(left: Mapping[str, object], right: Mapping[str, object]) -> Difference:
    both = sorted(left.keys() & right.keys())
    return {
        "added": [{"name": name, "after": right[name]} for name in sorted(right.keys() - left.keys())],
        "removed": [{"name": name, "before": left[name]} for name in sorted(left.keys() - right.keys())],
        "changed": [
            {"name": name, "before": left[name], "after": right[name]} for name in both if left[name] != right[name]
        ],
    }


def _by_name(columns: list[dict[str, Any]] | None) -> dict[str, object]:
    """Key columns by name; a nameless one by its place (`#0`), a repeated name by its count (`x #2`)."""
    found: dict[str, object] = {}
    for place, column in enumerate(columns or ()):
        name = str(column.get("name") or f"#{place}")
        key, count = name, 1
        while key in found:
            count += 1
            key = f"{name} #{count}"
        found[key] = column
    return found


def _requirements(contents: dict[str, Any]) -> dict[str, object]:
    found: dict[str, object] = {}
    for line in contents.get("requirements") or ():
        name = requirement_name(line)
        found[name] = f"{found[name]}; {line}" if name in found else line
    return found


def _flatten(tensors: dict[str, Any] | None) -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in (tensors or {}).items():
        if isinstance(value, dict):
            found |= {f"{name}.{inner}": number for inner, number in value.items()}
        else:
            found[name] = value
    return found


def _facts(contents: dict[str, Any]) -> dict[str, object]:
    names = ("framework", "python_version", "size_bytes", "file_count")
    return {name: contents[name] for name in names if contents.get(name) is not None}

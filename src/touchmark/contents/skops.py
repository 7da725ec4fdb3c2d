"""The schema of a skops file: which classes it would build, read as JSON and never built.

Source: skops.io (a zip with `schema.json`, nodes with `__class__`, `__module__`, `__loader__`). Here: names of types
and functions, version. Not here: deciding which types may be trusted.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass

from touchmark.contents.archives import Archive
from touchmark.contents.documents import clean_text, parse_json
from touchmark.domain.errors import InvalidError

SCHEMA_BYTES = 4 * 1024 * 1024
"""The most of `schema.json` that is inflated; a forest of 100 trees has 1.5 MiB."""

_TYPES = 1000
# A name in text that is cut off in the middle. The quote before it must not be escaped: that is text inside a value.
_PAIR = re.compile(r'(?<!\\)"__class__":\s*"([^"\\]+)",\s*"__module__":\s*"([^"\\]+)"')


@dataclass(frozen=True)
class SkopsFile:
    """What a skops file would build: the outermost class, every type named in it, and who wrote it."""

    root: str
    types: list[str]
    skops_version: str
    protocol: str


def read_skops(archive: Archive, warn: Callable[[str], None]) -> SkopsFile:
    """Read `schema.json`. Raises InvalidError if it is not there, or is no schema of skops."""
    data = archive.read_member(_find_schema(archive), SCHEMA_BYTES + 1)
    if len(data) > SCHEMA_BYTES:
        warn(f"only the first {SCHEMA_BYTES} bytes of its schema were read, so types may be missing")
        pairs = _PAIR.findall(data[:SCHEMA_BYTES].decode("utf-8", "replace"))
        found = [_name(module, name) for name, module in pairs]
        version = protocol = ""
    else:
        schema = parse_json(data)
        if not isinstance(schema, dict):
            raise InvalidError("its schema is not a JSON object")
        found = _list_types(schema)
        version, protocol = (clean_text(schema.get(key, ""), 50) for key in ("_skops_version", "protocol"))
    if not found:
        raise InvalidError("its schema names no class")
    types = sorted(set(found))
    if len(types) > _TYPES:
        warn(f"only {_TYPES} of its {len(types)} types are shown")
    return SkopsFile(root=found[0], types=types[:_TYPES], skops_version=version, protocol=protocol)


def is_skops(archive: Archive) -> bool:
    """Answer whether a zip holds a schema that begins like skops'. Raises InvalidError if it cannot be read."""
    if all(info.filename != "schema.json" for info in archive.members):
        return False
    return b'"__loader__"' in archive.read_member(_find_schema(archive), 4096)


def _find_schema(archive: Archive) -> zipfile.ZipInfo:
    found = [info for info in archive.members if info.filename == "schema.json"]
    if not found:
        raise InvalidError("it has no schema.json, so it is no skops file")
    return found[-1]  # of two with one name, the one that skops would read


def _name(module: str, name: str) -> str:
    return clean_text(name if module == "builtins" else f"{module}.{name}")


def _list_types(schema: dict[str, object]) -> list[str]:
    """Return the names in a schema, the outermost first. No recursion: the nesting is the file's to choose."""
    found: list[str] = []
    waiting: list[object] = [schema]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            for name, module in (("__class__", "__module__"), ("function", "module_path")):
                if isinstance(node.get(name), str) and isinstance(node.get(module), str):
                    found.append(_name(str(node[module]), str(node[name])))
            waiting.extend(value for value in node.values() if isinstance(value, (dict, list)))
        elif isinstance(node, list):
            waiting.extend(value for value in node if isinstance(value, (dict, list)))
    return found

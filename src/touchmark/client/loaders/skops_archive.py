"""Rewriting a skops archive so that equal models have equal bytes, and so equal digests.

skops names every object and array by its memory address (some by a random UUID), stamps each entry of its zip with the
time, and walks sets in hash order: the same fitted model saved twice never has the same bytes. The archive written
here is an ordinary skops file; only names, times and the order of sets differ. It knows nothing of models or loaders.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_SCHEMA = "schema.json"
_TIME = (1980, 1, 1, 0, 0, 0)  # the first instant a zip entry can carry


def write_canonical_archive(source: BinaryIO, target: Path) -> None:
    """Write the skops archive read from `source` to `target` in its canonical form.

    Entries are streamed: the memory needed is that of `schema.json`, however large the arrays.
    """
    with zipfile.ZipFile(source) as archive, zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as canonical:
        schema = json.loads(archive.read(_SCHEMA))
        _sort_sets(schema, archive)
        files = _rename(schema)
        text = json.dumps(schema, separators=(",", ":"))
        with canonical.open(_new_entry(_SCHEMA, len(text)), "w") as entry:
            entry.write(text.encode("ascii"))
        for old, new in files.items():
            info = _new_entry(new, archive.getinfo(old).file_size)
            with archive.open(old) as content, canonical.open(info, "w") as entry:
                shutil.copyfileobj(content, entry, 1 << 20)


def _new_entry(name: str, size_bytes: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, _TIME)
    info.create_system = 3  # otherwise it says which system wrote it
    info.external_attr = 0o600 << 16
    info.file_size = size_bytes  # decides whether the entry needs the large (zip64) form
    return info


def _list_children(node: object) -> Iterator[object]:
    if isinstance(node, dict):
        yield from node.values()
    elif isinstance(node, list):
        yield from node


def _is_node(value: object) -> bool:
    # A dict saved with the model may have a key "__loader__" of its own, but its value is then a node, never text.
    return isinstance(value, dict) and isinstance(value.get("__loader__"), str)


def _sort_sets(value: object, archive: zipfile.ZipFile) -> None:
    for child in _list_children(value):
        _sort_sets(child, archive)
    if isinstance(value, dict) and value.get("__loader__") == "SetNode":
        value["content"].sort(key=lambda item: json.dumps(_strip(item, archive), sort_keys=True))


def _strip(value: object, archive: zipfile.ZipFile) -> object:
    """Return the tree below `value` with what a node is instead of where it was in memory."""
    if isinstance(value, list):
        return [_strip(item, archive) for item in value]
    if not isinstance(value, dict):
        return value
    stripped = {key: _strip(item, archive) for key, item in value.items()}
    if _is_node(value):
        stripped.pop("__id__", None)
        if isinstance(value.get("file"), str):
            stripped["file"] = hashlib.sha256(archive.read(value["file"])).hexdigest()
    return stripped


def _rename(schema: dict[str, object]) -> dict[str, str]:
    """Renumber objects and files by the order the schema meets them; return the files, old name to new."""
    ids: dict[object, int] = {}
    files: dict[str, str] = {}

    def visit(value: object) -> None:
        if isinstance(value, dict) and _is_node(value):
            if "__id__" in value:
                # A shared address means a shared object, which matters for arrays and estimators and must survive.
                # For text and numbers it tells only what the interpreter happened to share: equal ones share here.
                known = ("json", value["content"]) if value["__loader__"] == "JsonNode" else value["__id__"]
                value["__id__"] = ids.setdefault(known, len(ids) + 1)
            if isinstance(value.get("file"), str):
                old = value["file"]
                value["file"] = files.setdefault(old, f"{len(files)}.{old.rpartition('.')[2]}")
        for child in _list_children(value):
            visit(child)

    visit(schema)
    return files

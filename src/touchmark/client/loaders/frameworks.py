"""Frameworks, met without importing them: what a class descends from, importing on first use, versions installed.

The only place of the loaders that imports a framework, so that none is imported before a model is saved or loaded.
What is done with a framework belongs in the loader of its format.
"""

from __future__ import annotations

import importlib
import json
import sys
from importlib import metadata
from typing import TYPE_CHECKING, Any

from touchmark.domain.errors import InvalidFieldError, MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from types import ModuleType

DESCRIPTION_FILE = "touchmark.json"
"""Beside a model that Touchmark serialised: the format, the class and the versions it was made with."""

MAX_DOCUMENT_BYTES = 64 * 1024 * 1024
"""The largest JSON document of a model that is read to decide how it is loaded: an index of 100,000 tensors has 10 MiB."""


def descends_from(model: object, package: str, class_name: str) -> bool:
    """Answer whether the class of `model` has an ancestor called `class_name` defined in `package` or below it.

    Reads names only: a framework that defined the object is loaded already, one that did not is not needed.
    """
    return any(
        cls.__name__ == class_name and cls.__module__.partition(".")[0] == package for cls in type(model).__mro__
    )


def get_class_name(model: object) -> str:
    """Return the full name of the class of `model`, such as `sklearn.pipeline.Pipeline`."""
    return f"{type(model).__module__}.{type(model).__qualname__}"


def find_file(files: Mapping[str, int], name: str, suffix: str) -> str | None:
    """Return `name` if it is among the files, else the one file that ends with `suffix`, else None."""
    if name in files:
        return name
    named = [path for path in files if path.endswith(suffix)]
    return named[0] if len(named) == 1 else None


def import_framework(module: str, *, what: str, install: str) -> ModuleType:
    """Import `module` at the moment it is needed.

    Raises MissingExtraError with `what` needs it and the `install` line if it, or a package it stands on, is absent.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MissingExtraError(what=what, install=install) from error


def write_description(
    folder: Path, *, format_name: str, model: object, distributions: Sequence[str], **more: object
) -> None:
    """Write `touchmark.json`: the same bytes for the same model in the same environment (no time, no host, no path).

    `distributions` are names as on a package index; those not installed are left out.
    """
    libraries = {}
    for name in distributions:
        try:
            libraries[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    description = {
        "class": get_class_name(model),
        "format": format_name,
        "libraries": libraries,
        "python": f"{sys.version_info.major}.{sys.version_info.minor}",
        "schema": 1,
        **more,
    }
    text = json.dumps(description, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    (folder / DESCRIPTION_FILE).write_bytes(text.encode())


def read_description(folder: Path, files: Mapping[str, int]) -> dict[str, Any]:
    """Return what `touchmark.json` says, or {} if there is none that can be read: it is a hint, and anybody may write one."""
    try:
        return read_object(folder, DESCRIPTION_FILE) if DESCRIPTION_FILE in files else {}
    except InvalidFieldError:
        return {}


def read_object(folder: Path, path: str) -> dict[str, Any]:
    """Return the JSON object in a file. Raises InvalidFieldError for any other content, and above MAX_DOCUMENT_BYTES."""
    with (folder / path).open("rb") as file:
        return parse_object(file.read(MAX_DOCUMENT_BYTES + 1), path)


def parse_object(text: bytes, path: str) -> dict[str, Any]:
    """Return the JSON object of a text that was read from `path`. Raises InvalidFieldError."""
    if len(text) > MAX_DOCUMENT_BYTES:
        raise InvalidFieldError(field=path, reason=f"it is larger than {MAX_DOCUMENT_BYTES} bytes")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise InvalidFieldError(field=path, reason="it is not JSON that can be read") from None
    if not isinstance(found, dict):
        raise InvalidFieldError(field=path, reason="it is not a JSON object")
    return found


def shorten(error: BaseException) -> str:
    """Return what a framework said, as one line of at most 200 characters: some put a stack trace into it."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__

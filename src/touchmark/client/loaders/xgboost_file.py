"""How deep a file of XGBoost is nested, before XGBoost reads it: its parsers recurse, and end the process on a deep one.

Source: the formats that XGBoost's `save_model` writes, UBJSON (draft 12, as far as XGBoost uses it) and JSON. Nothing is
built here: a file is walked in its place, arrays of numbers are stepped over.
"""

from __future__ import annotations

import mmap
import re
from typing import TYPE_CHECKING

from touchmark.domain.errors import InvalidFieldError

if TYPE_CHECKING:
    from pathlib import Path

MAX_DEPTH = 64
"""Levels of nesting: XGBoost's own models have about ten; its parsers give out at some ten thousand."""

_OBJECT, _OBJECT_END, _ARRAY, _ARRAY_END, _TYPED, _COUNTED, _TEXT, _UNSIGNED = b"{}[]$#SU"
_WHOLE = b"LlIiU"
_SIZES = dict(zip(b"ZTFiUCIldLD", (0, 0, 0, 1, 1, 1, 2, 4, 4, 8, 8), strict=True))
"""Bytes of the value behind each marker; whole numbers are big-endian, and signed but for U."""

_JSON_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*+"|[\[{\]}]', re.DOTALL)


def check_nesting(file: Path, path: str) -> None:
    """Raise InvalidFieldError for a file that is nested deeper than MAX_DEPTH, or is not what its suffix says."""
    with file.open("rb") as stream:
        if not stream.seek(0, 2):
            raise InvalidFieldError(field=path, reason="XGBoost cannot read it (it is empty)")
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            try:
                (_walk_json if path.lower().endswith(".json") else _walk_ubjson)(data)
            except (IndexError, KeyError):
                raise InvalidFieldError(field=path, reason="XGBoost cannot read it (it is damaged)") from None
            except ValueError as error:
                raise InvalidFieldError(field=path, reason=f"XGBoost cannot read it ({error})") from None


def _walk_json(data: mmap.mmap) -> None:
    depth = 0
    for found in _JSON_TOKEN.finditer(data):
        token = data[found.start()]
        if token in b"[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise ValueError(f"it is nested deeper than {MAX_DEPTH} levels")
        elif token in b"]}":
            depth -= 1


def _walk_ubjson(data: mmap.mmap) -> None:
    # One loop with everything in it: a forest of a thousand trees has 50,000 values, and is walked in some 40 ms.
    size = len(data)
    at = 0
    # Of what is open: OBJECT_END or ARRAY_END if a mark ends it, else -n - 1 for n values still to come.
    waiting = [-2]
    while waiting:
        last = waiting[-1]
        if last < 0:
            if last == -1:
                waiting.pop()
                continue
            waiting[-1] = last + 1
        elif data[at] == last:
            at += 1
            waiting.pop()
            continue
        elif last == _OBJECT_END:
            at = _skip_text(data, at)
        marker = data[at]
        at += 1
        if marker == _TEXT:
            at = _skip_text(data, at)
        elif marker == _OBJECT:
            waiting.append(_OBJECT_END)
        elif marker == _ARRAY:
            kind = data[at]
            if kind == _TYPED:
                if data[at + 2] != _COUNTED:
                    raise ValueError(f"byte {at} is not UBJSON as XGBoost writes it")
                item_bytes = _SIZES[data[at + 1]]
                count, at = _read_count(data, at + 3)
                at += count * item_bytes
            elif kind == _COUNTED:
                count, at = _read_count(data, at + 1)
                waiting.append(-count - 1)
            else:
                waiting.append(_ARRAY_END)
        else:
            at += _SIZES[marker]
        if at > size:
            raise ValueError("it ends too early")
        if len(waiting) > MAX_DEPTH:
            raise ValueError(f"it is nested deeper than {MAX_DEPTH} levels")


def _skip_text(data: mmap.mmap, at: int) -> int:
    count, at = _read_count(data, at)
    return at + count


def _read_count(data: mmap.mmap, at: int) -> tuple[int, int]:
    """Return a length, and where what follows it begins. Raises ValueError for one that the file has no room for."""
    marker = data[at]
    end = at + 1 + _SIZES[marker]
    count = int.from_bytes(data[at + 1 : end], "big", signed=marker != _UNSIGNED)
    if marker not in _WHOLE or not 0 <= count <= len(data) - end:  # a value without bytes of its own has a marker
        raise ValueError(f"byte {at} is no length that the file has room for")
    return count, end

"""The value `read_contents` gives: what is in a model, in plain JSON that stays comparable between versions.

Here: the record and its canonical bytes. Not here: how it is found out.
"""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import dataclass, fields

READER_VERSION = 2
"""Rises whenever the same files would be described otherwise, so that a stored description can be told to be old."""


@dataclass(frozen=True)
class Contents:
    """What is in a model. All text is short and storable; numbers are whole; lists are sorted unless order matters.

    flavors         flavor name -> its small text facts, from MLmodel; else format -> class and versions, from touchmark.json
    schema          {inputs, outputs, params}: columns {name, type, shape, required}, params with `default` as JSON
                    text; from MLmodel, else from a single ONNX file. A shape is a list of whole numbers (-1: any) and
                    names of symbolic dimensions, or None. `name` is "" for what has none
    requirements    lines as pip takes them, without options and passwords
    framework       the native flavor, else `transformers` for its folders, else the format that most of the bytes have
    tensors         {count, parameters, bytes, dtypes: {F32: parameters}} over all safetensors files, or None
    files           {path, format, size_bytes, …}: each file recognised, with what its header says
    pickles         paths of files that are pickles, hold one, or could not be looked at and are named like one:
                    loading them runs code
    warnings        what could not be read, and why: one sentence each
    """

    reader_version: int
    file_count: int
    size_bytes: int
    framework: str | None
    python_version: str | None
    flavors: dict[str, dict[str, str]]
    schema: dict[str, list[dict[str, object]]] | None
    requirements: list[str]
    tensors: dict[str, object] | None
    files: list[dict[str, object]]
    pickles: list[str]
    warnings: list[str]

    def to_json(self) -> dict[str, object]:
        """Return plain dicts, lists, texts, whole numbers, booleans and None; a copy of its own."""
        return {one.name: deepcopy(getattr(self, one.name)) for one in fields(self)}

    def to_bytes(self) -> bytes:
        """Return the canonical bytes: UTF-8 JSON, keys sorted, no blanks. Equal contents give equal bytes."""
        text = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        return text.encode("utf-8")

"""MLflow's MLmodel file: flavors, signature, and where the model came from.

Source: mlflow.models.Model, mlflow.types.schema (their JSON forms). Here: reading the file's text. Not here: acting on
it: `loader_module` and the like are shown, never imported.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field

from touchmark.contents.documents import clean_text, parse_json, parse_yaml
from touchmark.domain.errors import InvalidError

_FLAVORS = 32
_FACTS = 32
_FACT_CHARS = 200
_COLUMNS = 4096
_TYPE_CHARS = 4096
_TYPE_DEPTH = 32
_DIMENSIONS = 64
_FACT_KEYS = (
    "run_id", "model_id", "model_uuid", "mlflow_version", "artifact_path", "utc_time_created", "model_size_bytes",
)  # fmt: skip

Column = dict[str, object]
Warn = Callable[[str], None]


@dataclass
class MLmodel:
    """What an MLmodel file says. `facts` are its own small texts (run_id, model_uuid, mlflow_version, …)."""

    flavors: dict[str, dict[str, str]] = field(default_factory=dict)
    schema: dict[str, list[Column]] | None = None
    facts: dict[str, str] = field(default_factory=dict)


def read_mlmodel(data: bytes, warn: Warn) -> MLmodel:
    """Read an MLmodel file's bytes. Raises InvalidError if they are no YAML mapping; lesser faults go to `warn`."""
    document = parse_yaml(data)
    if not isinstance(document, dict):
        raise InvalidError("it is not a YAML mapping")
    facts = {key: clean_text(document[key]) for key in _FACT_KEYS if isinstance(document.get(key), str)}
    return MLmodel(
        flavors=_read_flavors(document.get("flavors"), warn),
        schema=_read_signature(document.get("signature"), warn),
        facts=facts,
    )


def name_framework(flavors: dict[str, dict[str, str]]) -> str | None:
    """Return the flavor a model is known by: its native one, not the generic python_function around it."""
    native = sorted(name for name in flavors if name != "python_function")
    if not native:
        return "python_function" if flavors else None
    loader = flavors.get("python_function", {}).get("loader_module", "").rpartition(".")[2]
    return loader if loader in native else native[0]


def _read_flavors(flavors: object, warn: Warn) -> dict[str, dict[str, str]]:
    if not isinstance(flavors, dict):
        warn("it names no flavors")
        return {}
    if len(flavors) > _FLAVORS:
        warn(f"only {_FLAVORS} of its {len(flavors)} flavors are shown")
    found: dict[str, dict[str, str]] = {}
    for name in sorted(flavors)[:_FLAVORS]:
        facts = flavors[name] if isinstance(flavors[name], dict) else {}
        small = {k: v for k, v in sorted(facts.items()) if isinstance(v, str) and len(v) <= _FACT_CHARS}
        found[clean_text(name)] = {clean_text(key): clean_text(small[key]) for key in list(small)[:_FACTS]}
    return found


def _read_signature(signature: object, warn: Warn) -> dict[str, list[Column]] | None:
    if signature is None:
        return None
    if not isinstance(signature, dict):
        warn("its signature is not a mapping")
        return None
    schema: dict[str, list[Column]] = {}
    for side in ("inputs", "outputs", "params"):
        text = signature.get(side)
        try:
            schema[side] = [] if text is None else _read_columns(text, side, warn)
        except InvalidError as problem:
            schema[side] = []
            warn(f"the {side} of its signature cannot be read: {problem.message}")
    return schema


def _read_columns(text: object, side: str, warn: Warn) -> list[Column]:
    columns = parse_json(text) if isinstance(text, str) else None
    if not isinstance(columns, list):
        raise InvalidError("they are not a JSON list")
    if len(columns) > _COLUMNS:
        warn(f"only the first {_COLUMNS} of {len(columns)} {side} of its signature are shown")
    return [_read_column(column, side) for column in columns[:_COLUMNS]]


def _read_column(column: object, side: str) -> Column:
    if not isinstance(column, dict):
        raise InvalidError("an entry is not a JSON object")
    tensor = column.get("tensor-spec")
    if isinstance(tensor, dict):
        kind, shape = clean_text(tensor.get("dtype", "any")), _read_shape(tensor.get("shape"))
    else:
        kind = clean_text(_write_type(column, 0), _TYPE_CHARS)
        shape = _read_shape(column.get("shape"))
    name = column.get("name")
    found: Column = {"name": "" if name is None else clean_text(name), "type": kind, "shape": shape}
    if side == "params":
        found["required"] = False  # a param of a signature always has a default
        try:
            found["default"] = clean_text(json.dumps(column.get("default"), sort_keys=True), 1000)  # text: no floats
        except RecursionError:
            raise InvalidError("a default is nested too deeply") from None
    else:
        found["required"] = _is_required(column)
    return found


def _is_required(column: dict[str, object]) -> bool:
    if "required" in column:
        return column["required"] is not False
    return column.get("optional") is not True  # MLflow before 2.6


def _read_shape(shape: object) -> list[int | str] | None:
    if not isinstance(shape, list):
        return None
    return [size if type(size) is int and abs(size) < 2**63 else clean_text(size, 50) for size in shape[:_DIMENSIONS]]


def _write_type(spec: object, depth: int) -> str:
    """Write a column type as one line: `array(long)`, `object{name: string, note?: string}`, `map(double)`."""
    if depth > _TYPE_DEPTH:
        raise InvalidError(f"a type is nested deeper than {_TYPE_DEPTH} levels")
    if not isinstance(spec, dict):
        return clean_text(spec) if isinstance(spec, str) else "any"
    kind = spec.get("type")
    if kind == "array":
        return f"array({_write_type(spec.get('items'), depth + 1)})"
    if kind == "map":
        return f"map({_write_type(spec.get('values'), depth + 1)})"
    if kind == "object" and isinstance(spec.get("properties"), dict):
        parts = [
            f"{clean_text(name)}{'' if not isinstance(inner, dict) or _is_required(inner) else '?'}: "
            f"{_write_type(inner, depth + 1)}"
            for name, inner in sorted(spec["properties"].items())
        ]
        return "object{" + ", ".join(parts) + "}"
    return clean_text(kind) if isinstance(kind, str) else "any"

"""The OpenAPI 3.1 document of /api/v1, built from the same operations and Structs that the routes are built from.

`python -m touchmark.protocols.native.openapi > src/touchmark/protocols/native/openapi.json` writes it again; a test
compares. Errors are listed by status, with the codes each operation can answer (RFC 9457 problem documents).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from http import HTTPStatus
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

import msgspec

from touchmark.domain.errors import (
    BusyError,
    CatalogueDamagedError,
    CorruptError,
    DeniedError,
    DigestMismatchError,
    InvalidFieldError,
    LimitExceededError,
    OutcomeUnknownError,
    RouteNotFoundError,
    StorageFullError,
    TouchmarkError,
    UnauthenticatedError,
)
from touchmark.domain.idempotency import KEY_LIMIT
from touchmark.protocols.native import (
    aliases,
    artifacts,
    direct_uploads,
    experiments,
    health,
    lineage,
    log,
    logged_models,
    models,
    runs,
    search,
    versions,
)
from touchmark.protocols.native.errors import MEDIA_TYPE, Problem, status_of
from touchmark.protocols.native.operations import PREFIX, Operation

NOUNS: Mapping[str, tuple[Operation, ...]] = {
    "models": models.OPERATIONS,
    "versions": versions.OPERATIONS,
    "aliases": aliases.OPERATIONS,
    "search": search.OPERATIONS,
    "lineage": lineage.OPERATIONS,
    "log": log.OPERATIONS,
    "experiments": experiments.OPERATIONS,
    "runs": runs.OPERATIONS,
    "logged models": logged_models.OPERATIONS,
    "artifacts": artifacts.OPERATIONS,
    "direct uploads": direct_uploads.OPERATIONS,
    "health": health.OPERATIONS,
}
OPERATIONS = tuple(operation for operations in NOUNS.values() for operation in operations)
"""Every operation of /api/v1."""

PATH = Path(__file__).with_name("openapi.json")

_TEMPLATE = "#/components/schemas/{name}"
_EVERYWHERE: tuple[type[TouchmarkError], ...] = (
    InvalidFieldError, LimitExceededError, UnauthenticatedError, DeniedError, BusyError, OutcomeUnknownError,
    TouchmarkError, CorruptError, DigestMismatchError, CatalogueDamagedError,
)  # fmt: skip
_PARTS: Mapping[str, dict[str, Any]] = {
    "name": {"type": "string", "minLength": 1, "maxLength": 250, "pattern": "^[^/:@]+$", "examples": ["risk.churn"]},
    "version": {"type": "integer", "minimum": 1, "maximum": 2**31 - 1, "examples": [1]},
    "alias": {"type": "string", "pattern": "^[A-Za-z0-9_][A-Za-z0-9_-]{0,127}$", "examples": ["champion"]},
    "index": {"type": "integer", "minimum": 0, "maximum": 2**63 - 1},
    "experiment_id": {"type": "integer", "minimum": 0, "maximum": 2**63 - 1},
    "run_id": {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$"},
    "model_id": {"type": "string", "pattern": "^m-[0-9a-f]{32}$"},
    "upload_id": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
}
_HEADERS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "Idempotency-Key": (
        "The same key with the same request has one effect and one answer for a day.",
        {"type": "string", "minLength": 1, "maxLength": KEY_LIMIT, "pattern": "^[!-~]([ -~]*[!-~])?$"},
    ),
    "If-Match": (
        "Only if the alias is still at this log index: the ETag it was read with.",
        {"type": "string", "pattern": '^"[0-9]{1,18}"$'},
    ),
    "If-None-Match": ("Only if there is no such alias. Not together with If-Match.", {"type": "string", "enum": ["*"]}),
}


def build_document() -> dict[str, Any]:
    """Return the document."""
    shapes: set[type[msgspec.Struct]] = {Problem}
    paths: dict[str, dict[str, Any]] = {}
    for noun, operations in NOUNS.items():
        for operation in operations:
            shapes |= {shape for shape in (operation.body, operation.answer) if shape is not None}
            paths.setdefault(operation.path, {})[operation.method.lower()] = _describe(operation, noun)
    _, schemas = msgspec.json.schema_components(sorted(shapes, key=lambda one: one.__name__), ref_template=_TEMPLATE)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Touchmark",
            "version": version_of("touchmark"),
            "summary": "The native protocol of the Touchmark model registry.",
            "description": "Times are integers, microseconds UTC since 1970. Names in paths are percent-encoded once.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": PREFIX}],
        "tags": [{"name": noun} for noun in NOUNS],
        "paths": paths,
        "components": {
            "schemas": dict(sorted(schemas.items())),
            "responses": {_response_name(status): _describe_error(status, codes) for status, codes in _COMMON.items()},
        },
    }


def encode_document() -> bytes:
    """Return the document as the bytes that are checked in and served."""
    return (json.dumps(build_document(), ensure_ascii=False, indent=1) + "\n").encode()


@cache
def read_document() -> bytes:
    """Return the document as it was checked in."""
    return PATH.read_bytes()


def list_errors(operation: Operation) -> dict[int, list[str]]:
    """Return the codes of every error an operation can answer, by status."""
    errors = [*_EVERYWHERE, *operation.errors]
    if operation.parts:
        errors.append(RouteNotFoundError)
    if operation.method != "GET":
        errors.append(StorageFullError)
    found = _list_codes(errors)
    if operation.body is not None:
        found[413] = _COMMON[413]
    return dict(sorted(found.items()))


def _list_codes(errors: Iterable[type[TouchmarkError]]) -> dict[int, list[str]]:
    found: dict[int, set[str]] = {}
    for error in errors:
        found.setdefault(status_of(error), set()).add(error.code)
    return {status: sorted(codes) for status, codes in found.items()}


_COMMON = {**_list_codes([*_EVERYWHERE, StorageFullError]), 413: [LimitExceededError.code]}


def _describe(operation: Operation, noun: str) -> dict[str, Any]:
    described: dict[str, Any] = {"operationId": operation.name, "summary": operation.summary, "tags": [noun]}
    parameters = [*_list_parts(operation.parts), *_list_query(operation.query), *_list_headers(operation)]
    if parameters:
        described["parameters"] = parameters
    if operation.body is not None:
        # an empty body is an empty object
        required = any(field.required for field in msgspec.structs.fields(operation.body))
        described["requestBody"] = {"required": required, "content": _content("application/json", operation.body)}
    described["responses"] = {
        str(operation.success): _describe_success(operation),
        **{str(status): _refer_to_error(status, codes) for status, codes in list_errors(operation).items()},
    }
    if operation.query is not None:
        described["responses"]["414"] = {"description": "URI Too Long: more than 64 KiB; the answer has no body."}
    return described


def _content(media_type: str, shape: type[msgspec.Struct]) -> dict[str, Any]:
    return {media_type: {"schema": {"$ref": _TEMPLATE.format(name=shape.__name__)}}}


def _list_parts(names: Iterable[str]) -> list[dict[str, Any]]:
    return [{"name": name, "in": "path", "required": True, "schema": _PARTS[name]} for name in names]


def _list_query(shape: type[msgspec.Struct] | None) -> list[dict[str, Any]]:
    if shape is None:
        return []
    _, components = msgspec.json.schema_components([shape], ref_template=_TEMPLATE)
    described = components[shape.__name__]
    required = described.get("required", [])
    return [
        {"name": name, "in": "query", "required": name in required, "schema": _without_null(schema)}
        for name, schema in described["properties"].items()
    ]


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a parameter: where a field may be null, the parameter is left out."""
    kept = {key: value for key, value in schema.items() if key != "anyOf" and value is not None}
    for option in schema.get("anyOf", []):
        if option != {"type": "null"}:
            kept |= option
    return kept


def _list_headers(operation: Operation) -> list[dict[str, Any]]:
    names: list[str] = ["Idempotency-Key"] if operation.keyed else []
    if operation.conditional:
        names += ["If-Match"] if operation.method == "DELETE" else ["If-Match", "If-None-Match"]
    return [
        {"name": name, "in": "header", "required": False, "description": _HEADERS[name][0], "schema": _HEADERS[name][1]}
        for name in names
    ]


def _describe_success(operation: Operation) -> dict[str, Any]:
    described: dict[str, Any] = {"description": HTTPStatus(operation.success).phrase}
    if operation.answer is not None:
        described["content"] = _content("application/json", operation.answer)
    if operation.etag:
        schema = {"type": "string", "pattern": '^"[0-9]+"$'}
        described["headers"] = {
            "ETag": {"description": "The log index, in quotes.", "required": True, "schema": schema}
        }
    return described


def _refer_to_error(status: int, codes: list[str]) -> dict[str, Any]:
    if _COMMON.get(status) == codes:
        return {"$ref": f"#/components/responses/{_response_name(status)}"}
    return _describe_error(status, codes)


def _response_name(status: int) -> str:
    return HTTPStatus(status).phrase.replace(" ", "")


def _describe_error(status: int, codes: list[str]) -> dict[str, Any]:
    described: dict[str, Any] = {
        "description": f"{HTTPStatus(status).phrase}: {', '.join(codes)}",
        "content": {
            MEDIA_TYPE: {
                "schema": {
                    "allOf": [
                        {"$ref": _TEMPLATE.format(name=Problem.__name__)},
                        {"properties": {"status": {"const": status}, "code": {"enum": codes}}},
                    ]
                }
            }
        },
    }
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        described["headers"] = {"Retry-After": {"required": True, "schema": {"type": "string", "pattern": "^[0-9]+$"}}}
    return described


if __name__ == "__main__":
    sys.stdout.buffer.write(encode_document())

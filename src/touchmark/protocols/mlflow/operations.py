"""One method of one path of MLflow's API: how a request is read, by MLflow's rules, and how an answer is written.

Fields travel in the query of a GET and in a JSON body otherwise, DELETE included. A required field that is missing, null
or empty text is refused; unknown fields are ignored, so that newer clients may send more; a 64-bit integer may come as a
number or as text (the JSON form of protocol buffers); a field may be spelled `run_id` or `runId`, not both.

Nothing here knows a noun or a rule.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_plus

import msgspec
from litestar.connection import Request
from litestar.response.base import ASGIResponse

from touchmark import wire
from touchmark.domain.errors import InvalidFieldError, TouchmarkError
from touchmark.protocols.mlflow.unsupported import no_route
from touchmark.wire import AnyRequest

Handler = Callable[[AnyRequest, Any], Awaitable[Any]]
Endpoint = Callable[[AnyRequest, Mapping[str, str]], Awaitable[ASGIResponse]]
Asgi = Callable[[Any, Any, Any], Awaitable[None]]

PREFIXES = ("/api/", "/ajax-api/")
"""What stands before nearly every path; MLflow's own pages use the second."""
PATHS = frozenset({"/version", "/get-artifact", "/model-versions/get-artifact"})
"""The paths that stand alone; an operation writes them with their slash."""
_SEE_DOCS = " See the API docs for more information about request parameters."

_KEY_CHARACTERS = 60
"""No field's name is longer in either spelling; to look at every letter of a key of 4 MB takes a second."""

_PART = re.compile(r"\{(\w+)(\*?)\}")
_CAPITAL = re.compile(r"(?<!^)([A-Z])")
_encode = msgspec.json.Encoder(enc_hook=str).encode


class Fields(msgspec.Struct, kw_only=True):
    """What a request may carry; each operation has its own.

    Every field has a default: which ones must be there is said by `Operation.required`, whose sentence is MLflow's.
    """


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One method of one path.

    `path` follows `/api/`; `{name}` stands for one segment and `{name*}` for all that are left; both become fields.
    `handler` returns a Struct or a dictionary, None for `{}`, or an answer of its own making. Without `is_json` the body
    is not read: the handler streams it. `is_catalogue` is for a GET whose answer depends on its query and the catalogue
    and on nothing else: it is kept until the log grows (wire.Answers).
    """

    method: str
    path: str
    handler: Handler
    fields: type[Fields] = Fields
    required: tuple[str, ...] = ()
    limit_bytes: int = wire.BODY_LIMIT_BYTES
    is_json: bool = True
    is_catalogue: bool = False


class Encoded(ASGIResponse):
    """A whole answer, sent as it is: Litestar's own takes 4 µs to put two headers together."""

    __slots__ = ("_headers",)

    def __init__(self, body: bytes, status: int = 200) -> None:
        """Keep a body of JSON."""
        self.status_code, self.body = status, body
        self._headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]

    async def __call__(self, _scope: Any, _receive: Any, send: Any) -> None:
        """Send it."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self._headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": False})


# MLflow's own server sends this with a 500, upon which its clients try again for minutes.
_NO_WORKSPACES = Encoded(
    b'{"error_code":"FEATURE_DISABLED",'
    b'"message":"Workspace APIs are not available: workspaces are not enabled on this server"}',
    400,
)


def build_door(
    operations: Sequence[Operation],
    answer_error: Callable[[AnyRequest, TouchmarkError], ASGIResponse],
    answer_bug: Callable[[AnyRequest, Exception], ASGIResponse],
) -> Asgi:
    """Return the ASGI application that answers every path below PREFIXES: a table, looked up by path and method."""
    exact: dict[str, dict[str, Endpoint]] = {}
    patterns: dict[str, tuple[re.Pattern[str], dict[str, Endpoint]]] = {}
    for operation in operations:
        endpoints = exact.setdefault(operation.path, {})
        if "{" in operation.path:
            pattern = _PART.sub(lambda part: f"(?P<{part[1]}>{'.*' if part[2] else '[^/]+'})", _escape(operation.path))
            endpoints = patterns.setdefault(operation.path, (re.compile(pattern, re.DOTALL), {}))[1]
        endpoints[operation.method] = _build_endpoint(operation)

    def find(path: str) -> tuple[dict[str, Endpoint], Mapping[str, str]]:
        for prefix in PREFIXES:
            if path.startswith(prefix):
                path = path[len(prefix) :]
                break
        found = exact.get(path)
        if found:
            return found, {}
        for pattern, endpoints in patterns.values():
            match = pattern.fullmatch(path)
            if match is not None:
                return endpoints, match.groupdict()
        return {}, {}

    async def door(scope: Any, receive: Any, send: Any) -> None:
        request: AnyRequest = Request(scope, receive, send)
        try:
            if _names_workspace(scope):
                await _NO_WORKSPACES(scope, receive, send)
                return
            endpoints, parts = find(scope["path"])
            method = scope["method"]
            endpoint = endpoints.get("GET" if method == "HEAD" else method)
            if endpoint is None:
                raise no_route(method, scope["path"])
            answer = await endpoint(request, parts)
        except TouchmarkError as error:
            answer = answer_error(request, error)
        except Exception as error:  # noqa: BLE001 - our own mistake: the log has the trace, the caller does not
            answer = answer_bug(request, error)
        await answer(scope, receive, send)

    return door


def _names_workspace(scope: Any) -> bool:
    """Answer whether a request is for a workspace; what the server is may be asked all the same (MLflow 3.17)."""
    named = any(name == b"x-mlflow-workspace" and value.strip() for name, value in scope["headers"])
    return named and not scope["path"].endswith("/mlflow/server-info")


def _escape(path: str) -> str:
    return path.replace(".", r"\.")


def _build_endpoint(operation: Operation) -> Endpoint:
    handler, shape, required = operation.handler, operation.fields, operation.required
    known = {field.name for field in msgspec.structs.fields(shape)}
    lists = {field.name for field in msgspec.structs.fields(shape) if _is_list(field.type)}
    reads_query, limit = operation.method == "GET" or not operation.is_json, operation.limit_bytes

    async def answer_anew(request: AnyRequest, parts: Mapping[str, str]) -> ASGIResponse:
        if reads_query:
            given = _read_query(request.scope["query_string"], known, lists)
        else:
            given = _spell(await _read_body(request, limit, may_be_absent=bool(parts)), known)
        fields = _convert({**given, **parts} if parts else given, shape, required)
        answer = await handler(request, fields)
        if isinstance(answer, ASGIResponse):
            return answer
        return Encoded(b"{}" if answer is None else _encode(answer))

    async def answer_again(request: AnyRequest, parts: Mapping[str, str]) -> ASGIResponse:
        scope = request.scope
        key = (scope["path"], scope["query_string"].decode("latin-1"))
        answers: wire.Answers = request.app.state.answers
        log_size = await wire.get_log_size(request)  # before the answer is made: it may then be newer, never older
        body = answers.find(key, log_size)
        if body is not None:
            return Encoded(body)
        answer = await answer_anew(request, parts)
        answers.keep(key, log_size, answer.body)
        return answer

    return answer_again if operation.is_catalogue else answer_anew


def _is_list(annotation: Any) -> bool:
    return "list" in str(annotation) or "Sequence" in str(annotation) or "tuple" in str(annotation)


def _read_query(raw: bytes, known: set[str], lists: set[str]) -> dict[str, Any]:
    given: dict[str, Any] = {}
    if not raw:
        return given
    try:
        for part in raw.decode().split("&"):
            key, _, text = part.partition("=")
            if "%" in part or "+" in part:
                key, text = unquote_plus(key, errors="strict"), unquote_plus(text, errors="strict")
            if key in lists:
                given.setdefault(key, []).append(text)
            elif key in known:
                given.setdefault(key, text)
    except UnicodeDecodeError:
        raise InvalidFieldError("The query's percent-encoded bytes are no UTF-8.", field="query") from None
    return given


async def _read_body(request: AnyRequest, limit_bytes: int, *, may_be_absent: bool) -> dict[str, Any]:
    """Return the fields of a body. Where the path says what is meant there need be none, nor a word on its type."""
    if may_be_absent and "content-type" not in request.headers and request.headers.get("content-length", "0") == "0":
        return {}
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        message = "Bad Request. Content-Type must be one of ['application/json']."
        raise InvalidFieldError(message, field="Content-Type")
    body = await wire.read_body(request, limit_bytes)
    if body[:1] == b'"':  # older clients send a JSON text that holds JSON
        try:
            body = json.loads(body).encode()
        except ValueError:
            raise InvalidFieldError("The body is no JSON.", field="body") from None
    return wire.parse_json(body)


def _spell(given: dict[str, Any], known: set[str]) -> dict[str, Any]:
    """Return the fields that are known, each under its snake_case name; null is the same as absent."""
    spelled: dict[str, Any] = {}
    for key, value in given.items():
        if len(key) > _KEY_CHARACTERS:
            continue
        name = key if key in known else _CAPITAL.sub(lambda found: "_" + found[1].lower(), key)
        if name not in known:
            continue
        if name in spelled or (name != key and name in given):
            message = f"Request specifies both {name!r} and {key!r}; provide only one of them."
            raise InvalidFieldError(message, field=name)
        if value is not None:
            spelled[name] = value
    return spelled


def _convert(given: Mapping[str, Any], shape: type[Fields], required: tuple[str, ...]) -> Fields:
    for name in required:
        if given.get(name) in (None, ""):
            raise missing(name)
    try:
        return msgspec.convert(given, shape, strict=False)
    except msgspec.ValidationError as error:
        place = str(error).partition(" - at `$")[2].strip("`.")
        name = re.split(r"[.\[]", place)[0]
        raise invalid_value(name or "body", given.get(name, given)) from None
    except (OverflowError, RecursionError):
        raise InvalidFieldError("A number in the request is too large.", field="body") from None


def missing(name: str) -> InvalidFieldError:
    """Return the error of a required field that is not there."""
    return InvalidFieldError(f"Missing value for required parameter '{name}'.{_SEE_DOCS}", field=name)


def invalid_value(name: str, value: Any, hint: str | None = None) -> InvalidFieldError:
    """Return the error of a field with a wrong value; by default its type is what is wrong with it."""
    hint = f" Hint: Value was of type '{type(value).__name__}'." if hint is None else hint
    shown = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)[:200]
    return InvalidFieldError(f"Invalid value {shown} for parameter '{name}' supplied: {hint}{_SEE_DOCS}", field=name)

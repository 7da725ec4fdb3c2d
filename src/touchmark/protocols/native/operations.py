"""One method of one path: what it takes, what it answers, which errors it can end in.

An Operation is made from a typed handler, `async def create_model(request, body: NewModel) -> Model`. From its
annotations come both the route that decodes and encodes, and the lines of the OpenAPI document, so that the two cannot
disagree. A parameter named in the path template is that part of the path, percent-decoded once; `query` is the query
string as a Struct; `body` the JSON body as a Struct; what is returned is encoded as it is, None as an empty answer.
"""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar
from urllib.parse import unquote_plus, unquote_to_bytes

import msgspec
from litestar.handlers import HTTPRouteHandler, route
from litestar.response.base import ASGIResponse
from litestar.types import Method, Receive, Scope, Send

from touchmark import wire
from touchmark.domain.errors import InvalidFieldError, RouteNotFoundError, TouchmarkError
from touchmark.domain.idempotency import IdempotencyKey, parse_idempotency_key
from touchmark.wire import AnyRequest

Handler = Callable[..., Awaitable[Any]]
T = TypeVar("T")

PREFIX = "/api/v1"
_INT64 = range(-(2**63), 2**63)
_WHOLE = re.compile(r"-?[0-9]{1,19}")
_NOT_KEPT = "not_kept"  # in the request's state
_PART = re.compile(r"\{(\w+)\}")
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One method of one path.

    `status` is that of an answer with a body. `errors` are the cases beyond those every operation has (OpenAPI lists them by code).
    `etag` says that the answer's `log_index` goes into the ETag header; `conditional` that If-Match is heeded;
    `keyed` that Idempotency-Key is. `is_catalogue` is for a GET whose answer depends on its path, its query and the
    catalogue and on nothing else: it is kept until the log grows (wire.Answers).
    """

    method: Method
    path: str
    handler: Handler
    errors: tuple[type[TouchmarkError], ...] = ()
    status: int = 200
    etag: bool = False
    conditional: bool = False
    keyed: bool = False
    is_catalogue: bool = False

    @cached_property
    def hints(self) -> Mapping[str, Any]:
        """The handler's annotations."""
        return typing.get_type_hints(self.handler, include_extras=True)

    @property
    def success(self) -> int:
        """The status of success."""
        return 204 if self.answer is None else self.status

    @property
    def name(self) -> str:
        """The handler's name, unique among the operations."""
        return self.handler.__name__

    @property
    def summary(self) -> str:
        """The first line of the handler's docstring."""
        return (self.handler.__doc__ or "").strip().partition("\n")[0]

    @property
    def parts(self) -> list[str]:
        """The names in the path template, in order."""
        return _PART.findall(self.path)

    @property
    def query(self) -> type[msgspec.Struct] | None:
        """The Struct of the query string."""
        return self.hints.get("query")

    @property
    def body(self) -> type[msgspec.Struct] | None:
        """The Struct of the body."""
        return self.hints.get("body")

    @property
    def answer(self) -> type[msgspec.Struct] | None:
        """The Struct of the answer; None if it has no body."""
        found = self.hints["return"]
        return None if found is types.NoneType else found


class _Encoded(ASGIResponse):
    """A whole answer, sent as it is: Litestar's own takes 4 µs to put two headers together, of 16 µs for all of a read."""

    __slots__ = ("_headers",)

    def __init__(self, status: int, body: bytes, headers: list[tuple[bytes, bytes]]) -> None:
        self.status_code, self.body, self._headers = status, body, headers

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self._headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": False})


Endpoint = Callable[[AnyRequest], Awaitable[_Encoded]]


def build_handler(path: str, operations: Sequence[Operation]) -> HTTPRouteHandler:
    """Return the route of a path with all its operations.

    One handler a path: of several Litestar takes only the first one's methods into the Allow header of OPTIONS.
    """
    endpoints = build_endpoints(operations)

    async def answer(request: AnyRequest) -> ASGIResponse:
        return await endpoints[request.scope["method"]](request)

    # status_code only keeps Litestar from its default for DELETE, which forbids a body; each answer carries its own.
    return route(
        _PART.sub(r"{\1:str}", path),
        http_method=list(endpoints),
        status_code=200,
        name=f"native.{path}",
        include_in_schema=False,
    )(answer)


def build_endpoints(operations: Sequence[Operation]) -> dict[Method, Endpoint]:
    """Return what answers each method of a path; HEAD is GET without the body (RFC 9110, 9.3.2)."""
    endpoints: dict[Method, Endpoint] = {operation.method: build_endpoint(operation) for operation in operations}
    if "GET" in endpoints:
        endpoints["HEAD"] = without_body(endpoints["GET"])
    return endpoints


class Table:
    """Every path of the operations, as a tree of its parts; finds an endpoint in a microsecond."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        """Take over the operations."""
        self._root: dict[str, Any] = {}
        paths: dict[str, list[Operation]] = {}
        for operation in operations:
            paths.setdefault(operation.path, []).append(operation)
        for path, same in paths.items():
            node = self._root
            for part in path.split("/")[1:]:
                node = node.setdefault("{}" if _PART.fullmatch(part) else part, {})
            node["/"] = same[0].parts, build_endpoints(same)

    def find(self, method: str, path: str) -> tuple[Endpoint, dict[str, str]] | None:
        """Return the endpoint of a path below PREFIX and what stands in its variable parts, or None."""
        node, values = self._root, []
        for part in path.split("/")[3:]:
            below = node.get(part)
            if below is None or part == "{}":
                below = node.get("{}")
                if below is None or not part:
                    return None
                values.append(part)
            node = below
        names, endpoints = node.get("/", ((), {}))
        endpoint = endpoints.get(method)
        return None if endpoint is None else (endpoint, dict(zip(names, values, strict=True)))


def build_endpoint(operation: Operation) -> Endpoint:
    """Return the function that decodes a request of an operation, has it handled and encodes the answer."""
    handler, parts, status, etag = operation.handler, operation.parts, operation.status, operation.etag
    read_query, body_type = build_query_reader(operation.query), operation.body
    takes_query, empty = operation.query is not None, operation.answer is None

    async def endpoint(request: AnyRequest) -> _Encoded:
        given: dict[str, Any] = {}
        if parts:
            check_path(request)
            found = request.scope["path_params"]
            for part in parts:
                given[part] = found[part]
        query = read_query(request.scope["query_string"])
        if takes_query:
            given["query"] = query
        if body_type is not None:
            given["body"] = convert(await wire.read_json_body(request), body_type)
        answer = await handler(request, **given)
        if empty:
            return _Encoded(204, b"", [])
        body = _encode(answer)
        headers = _head(body)
        if etag:
            headers.append((b"etag", b'"%d"' % answer.log_index))
        return _Encoded(status, body, headers)

    return keeping(endpoint) if operation.is_catalogue else endpoint


def _head(body: bytes) -> list[tuple[bytes, bytes]]:
    return [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]


def keeping(endpoint: Endpoint) -> Endpoint:
    """Return an endpoint that gives an answer again as long as the log has not grown since it was made."""

    async def answer_again(request: AnyRequest) -> _Encoded:
        check_path(request)
        scope = request.scope
        key = (scope["path"], scope["query_string"].decode("latin-1"))
        answers: wire.Answers = scope["app"].state.answers
        log_size = await wire.get_log_size(request)  # before the answer is made: it may then be newer, never older
        body = answers.find(key, log_size)
        if body is not None:
            return _Encoded(200, body, _head(body))
        answer = await endpoint(request)
        if not scope.get("state", {}).get(_NOT_KEPT):
            answers.keep(key, log_size, answer.body)
        return answer

    return answer_again


def do_not_keep(request: AnyRequest) -> None:
    """Say that the answer to a request depends on more than the catalogue, this once (how far an import is)."""
    request.scope.setdefault("state", {})[_NOT_KEPT] = True


def without_body(endpoint: Endpoint) -> Endpoint:
    """Return an endpoint whose answers keep their headers and lose their body."""

    async def head(request: AnyRequest) -> _Encoded:
        answer = await endpoint(request)
        answer.body = b""
        return answer

    return head


def check_path(request: AnyRequest) -> None:
    """Refuse a path with a hidden slash, or with bytes that are no UTF-8: one name, one spelling.

    The server decoded the path once before the route was chosen. Raises RouteNotFoundError, InvalidFieldError.
    """
    raw = request.scope.get("raw_path") or b""
    if b"%" not in raw:
        return
    raw = raw.partition(b"?")[0]
    if b"%2f" in raw.lower():
        raise RouteNotFoundError(method=request.method, path=request.scope["path"][:300])
    try:
        unquote_to_bytes(raw).decode()
    except UnicodeDecodeError:
        raise InvalidFieldError(field="path", reason="its percent-encoded bytes are no UTF-8") from None


def convert(value: object, shape: type[T]) -> T:
    """Return JSON as the Struct `shape`, strictly: no field nobody knows, no other type. Raises InvalidFieldError."""
    try:
        return msgspec.convert(value, shape, strict=True)
    except msgspec.ValidationError as error:
        reason, _, place = str(error).partition(" - at `$")
        where = place.rstrip("`").lstrip(".")
        unknown = _UNKNOWN.search(reason)
        if unknown is not None:
            where = f"{where}.{unknown[1]}" if where else unknown[1]
            reason = "there is no such field" if "unknown" in reason else "it is missing"
        raise InvalidFieldError(field=where or "body", reason=reason[:1].lower() + reason[1:]) from None
    except (OverflowError, RecursionError):
        raise InvalidFieldError(field="body", reason="a number in it is too large") from None


_UNKNOWN = re.compile(r"(?:unknown|missing required) field `(.*)`")


def build_query_reader(shape: type[msgspec.Struct] | None) -> Callable[[bytes], Any]:
    """Return the function that reads a query string as `shape`; None takes no parameter.

    Parameters are text, whole numbers of 64 bits, or `true` and `false`. It raises InvalidFieldError for one that is
    unknown, repeated, missing or of the wrong form.
    """
    readers: dict[str, Callable[[str, str], object]] = {}
    required: list[str] = []
    for field in msgspec.structs.fields(shape) if shape is not None else ():
        readers[field.name] = _reader_of(field.type)
        if field.required:
            required.append(field.name)
    make = shape if shape is not None else lambda: None
    known = f"one of {', '.join(readers)}" if readers else "none here"

    def read(raw: bytes) -> Any:
        if not raw and not required:
            return make()
        values: dict[str, object] = {}
        try:
            # the form's rules, `+` for a blank included; parse_qsl reads the same but takes four times as long
            for part in raw.decode().split("&"):
                key, _, text = part.partition("=")
                if "%" in part or "+" in part:
                    key, text = unquote_plus(key, errors="strict"), unquote_plus(text, errors="strict")
                reader = readers.get(key)
                if reader is None:
                    raise InvalidFieldError(field=key[:100], reason=f"there is no such parameter; there is {known}")
                if key in values:
                    raise InvalidFieldError(field=key, reason="it is given twice")
                values[key] = reader(key, text)
        except UnicodeDecodeError:
            raise InvalidFieldError(field="query", reason="its percent-encoded bytes are no UTF-8") from None
        for key in required:
            if key not in values:
                raise InvalidFieldError(field=key, reason="it is missing")
        return make(**values)

    return read


def _reader_of(annotation: Any) -> Callable[[str, str], object]:
    kinds = set(_list_types(annotation)) - {types.NoneType}
    return {frozenset({bool}): read_boolean, frozenset({int}): read_whole}.get(frozenset(kinds), _read_text)


def _list_types(annotation: Any) -> list[Any]:
    if typing.get_origin(annotation) is typing.Annotated:
        return _list_types(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (types.UnionType, typing.Union):
        return [kind for part in typing.get_args(annotation) for kind in _list_types(part)]
    return [annotation]


def _read_text(_field: str, text: str) -> str:
    return text


def read_whole(field: str, text: str) -> int:
    """Return a whole number of 64 bits written in plain digits. Raises InvalidFieldError."""
    if _WHOLE.fullmatch(text) is None or int(text) not in _INT64:
        raise InvalidFieldError(field=field, reason="write a whole number that fits 64 bits, in plain digits")
    return int(text)


def read_boolean(field: str, text: str) -> bool:
    """Return true or false. Raises InvalidFieldError."""
    if text not in ("true", "false"):
        raise InvalidFieldError(field=field, reason="write true or false")
    return text == "true"


def read_key(request: AnyRequest, body: msgspec.Struct) -> IdempotencyKey | None:
    """Return the request's Idempotency-Key with the hash of method, path and body. Raises InvalidFieldError."""
    key = request.headers.get("idempotency-key")
    if key is None:
        return None
    canonical = msgspec.json.encode(body, order="sorted")
    return parse_idempotency_key(key, f"{request.method} {request.scope['path']}\n".encode() + canonical)

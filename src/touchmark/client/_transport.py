"""One way to send a request: kept connections, time-outs, bounded retries, and answers turned into our own errors.

The standard library's http.client is used: urllib3 alone costs more memory than the whole SDK may (13.9 MB against a
bar of 13.8), and the little it would save is here.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import socket
import threading
import time
from collections.abc import Iterable, Mapping
from typing import Any, Self
from urllib.parse import urlsplit

from touchmark.domain import errors
from touchmark.domain.about import VERSION

CONNECT_SECONDS = 10.0
READ_SECONDS = 120.0
ATTEMPTS = 5
TOTAL_SECONDS = 120.0
"""Retrying stops after this long, whatever is left of the attempts."""

_AGAIN = frozenset({429, 502, 503, 504})
_SAFE = frozenset({"GET", "HEAD", "PUT", "DELETE"})
_BY_STATUS: Mapping[int, type[errors.TouchmarkError]] = {
    400: errors.InvalidError,
    401: errors.UnauthenticatedError,
    403: errors.DeniedError,
    404: errors.NotFoundError,
    409: errors.ConflictError,
    412: errors.PreconditionError,
    413: errors.LimitExceededError,
    501: errors.UnsupportedError,
    503: errors.BusyError,
    507: errors.StorageFullError,
}


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Answer:
    """A whole answer: status, headers (lower-case names) and body."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """Keep the parts."""
        self.status, self.headers, self.body = status, headers, body

    def json(self) -> Any:
        """Return the body's JSON."""
        return json.loads(self.body) if self.body else None


class Transport:
    """Connections to one server, one a thread; a forked child makes its own."""

    def __init__(self, url: str, *, token: str | None = None) -> None:
        """Read the address: http://…, https://… or unix:///path. Raises InvalidFieldError."""
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https", "unix"} or not (parts.netloc or parts.path):
            raise errors.InvalidFieldError(field="url", reason="write http://HOST:PORT, https://HOST or unix:///PATH")
        if parts.username is not None:
            raise errors.InvalidFieldError(field="url", reason="leave out the name and password: they would be logged")
        self.url = url.rstrip("/")
        self._scheme, self._parts = parts.scheme, parts
        self._prefix = "" if parts.scheme == "unix" else parts.path.rstrip("/")
        self._headers = {"User-Agent": f"touchmark-python/{VERSION}", "Accept": "application/json"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"
        self._local = threading.local()

    def close(self) -> None:
        """Close this thread's connection."""
        connection = getattr(self._local, "connection", None)
        if connection is not None:
            connection.close()
            self._local.connection = None

    def request(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        again: bool | None = None,
        missing_ok: bool = False,
    ) -> Answer:
        """Send a request and return its answer; retry where that is safe.

        Args:
            method: the method.
            path: from `/`, already encoded.
            body: JSON to send, or bytes, or None.
            headers: more headers.
            again: whether the request may be sent twice; GET, HEAD, PUT, DELETE and keyed requests may.
            missing_ok: give back a 404 instead of raising.

        Raises what the server answered, as the same class; ServerUnreachableError if nothing answered.

        """
        sent = dict(headers or {})
        payload: bytes | None = None
        if isinstance(body, bytes):
            payload = body
        elif body is not None:
            payload = json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
            sent["Content-Type"] = "application/json"
        if again is None:
            again = method in _SAFE or "Idempotency-Key" in sent
        end = time.monotonic() + TOTAL_SECONDS
        for attempt in range(1, ATTEMPTS + 1):
            last = attempt == ATTEMPTS or time.monotonic() > end
            try:
                with self.open(method, path, payload, sent) as response:
                    answer = Answer(response.status, response.headers, response.read())
            except _LostError as lost:
                if last or not (again or not lost.sent):
                    raise errors.ServerUnreachableError(address=self.url, reason=lost.reason) from None
                _sleep(attempt, None)
                continue
            except (OSError, http.client.HTTPException) as error:
                self.close()
                if last or not again:
                    reason = f"the answer broke off ({error or type(error).__name__})"
                    raise errors.ServerUnreachableError(address=self.url, reason=reason) from None
                _sleep(attempt, None)
                continue
            if answer.status in _AGAIN and again and not last:
                _sleep(attempt, answer.headers.get("retry-after"))
                continue
            if answer.status >= 300 and not (missing_ok and answer.status == 404):
                raise to_error(answer)
            return answer
        raise errors.ServerUnreachableError(address=self.url, reason="no answer")

    def open(
        self,
        method: str,
        path: str,
        body: bytes | Iterable[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """Send one request and return its answer unread, to be closed. Raises _LostError if there is none."""
        connection, kept = self._connect()
        given = {**self._headers, **(headers or {})}
        for fresh in (False, True):
            try:
                connection.request(method, self._prefix + path, body=body, headers=given)
                return Response(self, connection.getresponse())
            except (ConnectionError, http.client.BadStatusLine, TimeoutError, OSError) as error:
                self.close()
                # A kept connection may have been closed by the server while it was idle: that is no failure. Whatever
                # was sent on a fresh one may have arrived.
                stale = kept and not fresh and isinstance(error, ConnectionError | http.client.BadStatusLine)
                if not stale or not (body is None or isinstance(body, bytes)) or method not in _SAFE:
                    raise _LostError(str(error) or type(error).__name__, sent=not stale) from None
                connection, kept = self._connect()
        raise _LostError("no answer", sent=True)

    def _connect(self) -> tuple[http.client.HTTPConnection, bool]:
        connection = getattr(self._local, "connection", None)
        if connection is not None and self._local.pid == os.getpid():
            return connection, connection.sock is not None
        if self._scheme == "unix":
            connection = _UnixConnection(self._parts.path, READ_SECONDS)
        elif self._scheme == "https":
            connection = http.client.HTTPSConnection(self._parts.netloc, timeout=READ_SECONDS)
        else:
            connection = http.client.HTTPConnection(self._parts.netloc, timeout=READ_SECONDS)
        connection.timeout = CONNECT_SECONDS
        try:
            connection.connect()
            connection.sock.settimeout(READ_SECONDS)
            if self._scheme != "unix":
                connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            raise _LostError(error.strerror or str(error), sent=False) from None
        connection.timeout = READ_SECONDS
        self._local.connection, self._local.pid = connection, os.getpid()
        return connection, False


class Response:
    """An answer being read. Closing it half-read closes the connection."""

    def __init__(self, transport: Transport, response: http.client.HTTPResponse) -> None:
        """Take over an answer."""
        self._transport, self._response = transport, response
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}

    def read(self, size: int | None = None) -> bytes:
        """Return up to `size` bytes, or all. Raises OSError or http.client.HTTPException if the answer breaks off."""
        return self._response.read() if size is None else self._response.read(size)

    def __enter__(self) -> Self:
        """Enter."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close; a connection with something left on it cannot be used again."""
        unread = not self._response.isclosed()
        self._response.close()
        if unread:
            self._transport.close()


class _LostError(Exception):
    def __init__(self, reason: str, *, sent: bool) -> None:
        super().__init__(reason)
        self.reason, self.sent = reason, sent


def _sleep(attempt: int, wish: str | None) -> None:
    pause = min(0.1 * 2**attempt, 5.0) * random.uniform(0.5, 1.0)  # noqa: S311 - spreads retries, guards nothing
    if wish is not None and wish.isdigit():
        pause = max(pause, min(float(wish), 30.0)) if attempt > 1 else max(pause, min(float(wish), 1.0))
    time.sleep(pause)


def to_error(answer: Answer) -> errors.TouchmarkError:
    """Return the error an answer stands for: the class with its code, with the server's sentence and fields."""
    code: str | None = None
    message: str | None = None
    fields: dict[str, Any] = {}
    try:
        found = answer.json()
        if "errors" in found:  # /v2
            first = found["errors"][0]
            message, detail = first.get("message"), first.get("detail") or {}
            code, fields = detail.get("code"), detail.get("fields") or {}
        else:
            code, message, fields = found.get("code"), found.get("detail"), found.get("fields") or {}
    except (ValueError, TypeError, KeyError, IndexError, AttributeError):
        pass
    kind = next((cls for cls in errors.list_error_classes() if cls.code == code), None)
    if kind is None:
        kind = _BY_STATUS.get(answer.status, errors.TouchmarkError)
        message = message or f"The server answered {answer.status}."
    return kind(message, **{str(key): value for key, value in fields.items()})

"""One way to send a request: kept connections, time-outs, bounded retries, and answers turned into our own errors.

No path of the API is known here, and no file is opened. The standard library's http.client is used: urllib3 alone costs
more memory than the whole SDK may (13.9 MB against a bar of 13.8), and the little it would save is here. Redirects are
never followed: a token must not travel to another host.
"""

from __future__ import annotations

import http.client
import json
import os
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cache
from typing import Any, Self
from urllib.parse import quote, urlencode, urlsplit

from touchmark.domain import errors
from touchmark.domain.about import VERSION

CONNECT_SECONDS = 10.0
READ_SECONDS = 120.0
"""How long the other side may be silent; a server that seals a large upload is."""
ATTEMPTS = 5
TOTAL_SECONDS = 120.0
"""No attempt at a request begins after this long."""
PAUSE_SECONDS = 0.1
"""The pause before the second attempt is up to this long; it doubles with each further one."""
LONGEST_PAUSE_SECONDS = 30.0
"""A server that asks for a longer one (Retry-After) is not waited for any longer than this."""
IDLE_CONNECTIONS = 8
"""Connections kept for the next request."""

AGAIN = frozenset({429, 502, 503, 504})
"""Answers that say "try again"."""

_SAFE = frozenset({"GET", "HEAD", "PUT", "DELETE"})  # the same request twice is as one (RFC 9110, 9.2.2)
_BY_STATUS: Mapping[int, type[errors.TouchmarkError]] = {
    400: errors.InvalidError,
    401: errors.UnauthenticatedError,
    403: errors.DeniedError,
    404: errors.NotFoundError,
    409: errors.ConflictError,
    412: errors.PreconditionError,
    413: errors.LimitExceededError,
    501: errors.UnsupportedError,
    507: errors.StorageFullError,
    **dict.fromkeys(AGAIN, errors.BusyError),
}


class LostError(Exception):
    """There is no answer, or no whole one. `sent` says that the request may have arrived all the same."""

    def __init__(self, reason: str, *, sent: bool) -> None:
        """Keep why."""
        super().__init__(reason)
        self.reason, self.sent = reason, sent


class _AnsweredError(Exception):
    """The server has answered before all was sent: the rest would be sent for nothing."""


class Answer:
    """A whole answer: status, headers (lower-case names) and body."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """Keep the parts."""
        self.status, self.headers, self.body = status, headers, body

    def json(self) -> Any:
        """Return the body's JSON; None if it is empty. Raises ValueError if it is none."""
        return json.loads(self.body) if self.body else None


class Attempts:
    """What is left of the attempts at one piece of work, and the pauses between them."""

    def __init__(self, total_seconds: float | None = TOTAL_SECONDS, *, attempts: int = ATTEMPTS) -> None:
        """Begin counting; with None only the number of attempts is bounded, for what may take long and go well."""
        self._count, self._most = 1, attempts
        self._end = None if total_seconds is None else time.monotonic() + total_seconds

    def pause(self, error: Exception, retry_after: str | None = None) -> None:
        """Wait before the next attempt. Raises `error` if there is none."""
        import random  # rarely needed, and dear to import

        # Jitter, so that clients turned away together do not come back together.
        seconds = PAUSE_SECONDS * 2 ** (self._count - 1) * random.uniform(0.5, 1.0)  # noqa: S311 - guards nothing
        if retry_after is not None and retry_after.isdigit():
            seconds = max(seconds, min(float(retry_after[:9]), LONGEST_PAUSE_SECONDS))
        if self._count >= self._most or (self._end is not None and time.monotonic() + seconds > self._end):
            raise error from None
        self._count += 1
        time.sleep(seconds)


class Transport:
    """Requests to one server, from any thread; a forked child makes connections of its own."""

    def __init__(
        self, url: str, *, token: str | None = None, known_as: str | None = None, is_offline: bool = False
    ) -> None:
        """Read the address: http://…, https://… or unix:///path. Raises InvalidFieldError.

        `known_as` is what this machine's notes call the server, where its address is another each time. `is_offline`
        makes every request an OfflineError.
        """
        self._scheme, self._place, self._prefix = _parse_address(url)
        self.url = url.rstrip("/")
        self.known_as = known_as or self.url
        self.is_offline = is_offline
        self.is_over = False
        self._token = token
        self._headers = {"User-Agent": f"touchmark-python/{VERSION}", "Accept": "application/json"}
        if token:
            if not token.isascii() or not token.isprintable():  # http.client would show it in its error
                raise errors.InvalidFieldError(field="token", reason="it holds a character no token has")
            self._headers["Authorization"] = f"Bearer {token}"
        self._idle: deque[http.client.HTTPConnection] = deque()  # appending and popping are atomic
        self._busy: set[http.client.HTTPConnection] = set()
        self._process = os.getpid()

    @property
    def is_private(self) -> bool:
        """Return whether nobody on the way can read along: what is sent on from here must not go where they can."""
        return self._scheme == "https"

    @property
    def prefix(self) -> str:
        """Return the path of the server's root, where something in front of it has moved it; else nothing."""
        return self._prefix

    def split(self) -> Transport:
        """Return a transport to the same server with connections of its own."""
        return Transport(self.url, token=self._token, known_as=self.known_as, is_offline=self.is_offline)

    def interrupt(self) -> None:
        """Cut every request under way, in whichever thread; each raises LostError there."""
        for connection in list(self._busy):
            with suppress(OSError, AttributeError):  # closed meanwhile
                connection.sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the kept connections. The transport can still be used: it connects again."""
        self._forget_parent()
        while self._idle:
            self._idle.pop().close()

    def __del__(self) -> None:
        """Close what a user who never closed a registry left open, without a ResourceWarning."""
        for connection in getattr(self, "_idle", ()):
            connection.close()

    def request(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        again: bool | None = None,
        missing_ok: bool = False,
        attempts: Attempts | None = None,
    ) -> Answer:
        """Send a request and return its answer; retry where that is safe.

        Args:
            method: the method.
            path: from `/`, already encoded.
            body: JSON to send, or bytes, or None.
            headers: more headers.
            again: whether it may be sent once more when it may have arrived; by default GET, HEAD, PUT, DELETE and
                requests with an Idempotency-Key may. What has not arrived, and what our server answers it was too busy
                for, has changed nothing and is always sent again.
            missing_ok: give back a 404 instead of raising.
            attempts: how often and how long, if not as usual.

        Raises what the server answered, as the same class; ServerUnreachableError if nothing answered.

        """
        sent = dict(headers or {})
        payload: bytes | None = None
        if isinstance(body, bytes):
            payload = body
        elif body is not None:
            payload = _encode(body)
            sent["Content-Type"] = "application/json"
        if again is None:
            again = method in _SAFE or "Idempotency-Key" in sent
        attempts = attempts or Attempts()
        lost_before = False
        while True:
            try:
                with self.open(method, path, payload, sent) as response:
                    answer = Answer(response.status, response.headers, response.read())
            except LostError as lost:
                error: errors.TouchmarkError = self.unreachable(lost)
                if lost.sent and not again:
                    raise error from None
                lost_before |= lost.sent
                attempts.pause(error)
                continue
            if answer.status < 300 or (missing_ok and answer.status == 404):
                return answer
            if answer.status == 404 and method == "DELETE" and lost_before:
                return answer  # the attempt whose answer was lost had deleted it
            error = to_error(answer)
            if answer.status in AGAIN and (again or (_is_ours(answer) and _changed_nothing(error))):
                attempts.pause(error, answer.headers.get("retry-after"))
                continue
            raise error

    def open(
        self,
        method: str,
        path: str,
        body: bytes | Iterable[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """Send one request, once, and return its answer unread, to be closed.

        Raises LostError if there is none, OfflineError; what the iterator of a body raises comes through.
        """
        if self.is_over:
            raise errors.ServerUnreachableError(
                "This registry was closed, and its private server with it: touchmark.open() opens it again."
            )
        if self.is_offline:
            raise errors.OfflineError(what=f"what {self.url} would answer")
        connection = self._take() or self._connect()
        self._busy.add(connection)
        whole = True
        if body is not None and not isinstance(body, bytes) and self._scheme != "https":
            body = _watch(body, connection)
        try:
            try:
                connection.request(method, self._prefix + path, body=body, headers={**self._headers, **(headers or {})})
            except (ConnectionError, _AnsweredError):
                if body is None or isinstance(body, bytes):
                    raise
                # A server that refuses a large body answers before it has read it, and hangs up: that answer says why.
                whole = False
            return Response(self, connection, connection.getresponse(), reusable=whole)
        except (OSError, http.client.HTTPException) as error:
            self.drop(connection)
            raise LostError(_describe(error), sent=True) from None
        except BaseException:
            self.drop(connection)
            raise

    def unreachable(self, lost: LostError) -> errors.ServerUnreachableError:
        """Return the error for an answer that did not come."""
        return errors.ServerUnreachableError(address=self.url, reason=lost.reason)

    def give_back(self, connection: http.client.HTTPConnection) -> None:
        """Keep a connection whose answer was read to its end."""
        self._busy.discard(connection)
        if self._process == os.getpid() and len(self._idle) < IDLE_CONNECTIONS:
            self._idle.append(connection)
        else:
            connection.close()

    def drop(self, connection: http.client.HTTPConnection) -> None:
        """Close a connection on which nothing can follow."""
        self._busy.discard(connection)
        connection.close()

    def _take(self) -> http.client.HTTPConnection | None:
        """Return a kept connection that the server has not closed meanwhile, or None."""
        self._forget_parent()
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                return None
            if connection.sock is not None and _is_quiet(connection.sock):
                return connection
            connection.close()

    def _forget_parent(self) -> None:
        # After a fork both processes hold the same sockets: whoever reads first gets the answer. Closing this side's
        # copies takes nothing from the parent.
        if self._process != os.getpid():
            kept, self._idle, self._process = self._idle, deque(), os.getpid()
            for connection in kept:
                connection.close()

    def _connect(self) -> http.client.HTTPConnection:
        connection: http.client.HTTPConnection
        if self._scheme == "unix":
            connection = _UnixConnection(self._place)
        elif self._scheme == "https":
            connection = http.client.HTTPSConnection(self._place, timeout=CONNECT_SECONDS)
        else:
            connection = http.client.HTTPConnection(self._place, timeout=CONNECT_SECONDS)
        connection.auto_open = 0  # connecting happens here, where it is known that nothing was sent
        try:
            connection.connect()  # sets TCP_NODELAY
        except OSError as error:
            connection.close()
            raise LostError(_describe(error), sent=False) from None
        connection.sock.settimeout(READ_SECONDS)
        return connection


class Elsewhere:
    """Ways to addresses in a store that the server signed: each says itself who may use it, so our token is not sent there."""

    def __init__(self, transport: Transport) -> None:
        """Follow what this server says."""
        self._transport = transport
        self._found: dict[str, Transport] = {}
        self._guard = threading.Lock()

    def find(self, location: str) -> tuple[Transport, str]:
        """Return a transport to where an address leads, and the path on it. Raises ServerUnreachableError for where we do not go."""
        try:
            parts = urlsplit(location)
            origin = f"{parts.scheme}://{parts.netloc}"
            if parts.scheme not in {"http", "https"} or (self._transport.is_private and parts.scheme == "http"):
                raise self.refuse(f"the server sends on to {origin[:200]!r}, which is no https:// address")
            with self._guard:
                if origin not in self._found:
                    self._found[origin] = Transport(origin)
        except (ValueError, errors.InvalidFieldError):
            raise self.refuse("the server sends on to what is no address") from None
        return self._found[origin], (parts.path or "/") + (f"?{parts.query}" if parts.query else "")

    def refuse(self, reason: str) -> errors.ServerUnreachableError:
        """Return the error for a server that sends us where we do not go."""
        return errors.ServerUnreachableError(address=self._transport.url, reason=reason)

    def interrupt(self) -> None:
        """Cut every request under way."""
        for transport in list(self._found.values()):
            transport.interrupt()

    def close(self) -> None:
        """Close the kept connections."""
        for transport in list(self._found.values()):
            transport.close()


class Response:
    """An answer being read. Closing it half-read closes the connection."""

    def __init__(
        self,
        transport: Transport,
        connection: http.client.HTTPConnection,
        response: http.client.HTTPResponse,
        *,
        reusable: bool,
    ) -> None:
        """Take over an answer and its connection, and whether another request may follow on it."""
        self._transport, self._connection, self._response = transport, connection, response
        self._reusable = reusable and not response.will_close
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}

    def read(self, size: int | None = None) -> bytes:
        """Return up to `size` bytes, or all; none at the end. Raises LostError if the answer breaks off before it."""
        try:
            data = self._response.read() if size is None else self._response.read(size)
        except (OSError, http.client.HTTPException) as error:
            raise LostError(f"the answer broke off ({_describe(error)})", sent=True) from None
        # With a size http.client takes the end of the connection for the end of the answer, whatever Content-Length said.
        if not data and self._response.length:
            raise LostError(f"the answer broke off {self._response.length} bytes before its end", sent=True)
        return data

    def __enter__(self) -> Self:
        """Enter."""
        return self

    def __exit__(self, *error: object) -> None:
        """Keep the connection if all was sent and read, else close it."""
        whole = self._response.isclosed()
        self._response.close()
        if whole and self._reusable:
            self._transport.give_back(self._connection)
        else:
            self._transport.drop(self._connection)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=CONNECT_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _parse_address(url: str) -> tuple[str, str, str]:
    """Return the scheme, the host and port (or the socket's path), and the path before the API's."""
    wrong = errors.InvalidFieldError(field="url", reason="write http://HOST:PORT, https://HOST or unix:///PATH")
    try:
        parts = urlsplit(url)
        port_fits = parts.port is None or parts.port > 0
    except (ValueError, AttributeError, TypeError):
        raise wrong from None
    if parts.username is not None or parts.password is not None:
        raise errors.InvalidFieldError(field="url", reason="leave out the name and password: they would be logged")
    if parts.scheme == "unix" and not parts.netloc and parts.path.startswith("/"):
        if not hasattr(socket, "AF_UNIX"):
            raise errors.UnsupportedError("This system has no Unix sockets in Python: use http://HOST:PORT.")
        return "unix", url[len("unix://") :], ""  # a path as it stands: nothing in it is encoded
    if parts.scheme in {"http", "https"} and parts.hostname and port_fits and not parts.query and not parts.fragment:
        return parts.scheme, parts.netloc, parts.path.rstrip("/")
    raise wrong


def quote_part(text: str) -> str:
    """Return a text as one segment of a path. Raises InvalidFieldError for one that is no Unicode, as a byte that is no UTF-8."""
    try:
        return quote(text, safe="")
    except UnicodeEncodeError as error:
        raise _no_unicode(text) from error


def write_query(values: Mapping[str, Any]) -> str:
    """Return values as a query, without its question mark. Raises InvalidFieldError as `quote_part` does."""
    try:
        return urlencode(values)
    except UnicodeEncodeError as error:
        raise _no_unicode(str(error.object)) from error


def _no_unicode(text: str) -> errors.InvalidFieldError:
    shown = text[:200].encode("utf-8", "backslashreplace").decode()
    return errors.InvalidFieldError(field=shown, reason="it is no text: it was not encoded in UTF-8")


def _encode(body: Any) -> bytes:
    try:
        return json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    except (TypeError, ValueError) as error:  # UnicodeEncodeError, for half a surrogate pair, is a ValueError
        raise errors.InvalidFieldError(field="body", reason=f"it cannot be written as JSON: {error}") from None


def _watch(body: Iterable[bytes], connection: http.client.HTTPConnection) -> Iterator[bytes]:
    """Yield a body's chunks until the server answers. Not with TLS: there what arrives may be no answer but a ticket."""
    for chunk in body:
        if connection.sock is not None and not _is_quiet(connection.sock):
            raise _AnsweredError
        yield chunk


def _is_quiet(connection: socket.socket) -> bool:
    """Answer whether nothing has arrived on an idle connection: what arrives unasked is the sign that it was closed."""
    if hasattr(select, "poll"):  # select() itself refuses file descriptors above 1023
        poll = select.poll()
        poll.register(connection, select.POLLIN)
        return not poll.poll(0)
    return not select.select([connection], [], [], 0)[0]


def _describe(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "it takes too long"
    if isinstance(error, http.client.RemoteDisconnected):
        return "it hung up without an answer"
    strerror = getattr(error, "strerror", None)
    return str(strerror or error or type(error).__name__)


def _changed_nothing(error: errors.TouchmarkError) -> bool:
    """Answer whether a request that ended so may be sent again whatever it asks for."""
    return isinstance(error, errors.BusyError) and not isinstance(error, errors.OutcomeUnknownError)


def _is_ours(answer: Answer) -> bool:
    """Answer whether Touchmark itself answered, not something that stands between."""
    return answer.headers.get("content-type", "").startswith("application/problem+json")


@cache
def _list_by_code() -> dict[str, type[errors.TouchmarkError]]:
    return {cls.code: cls for cls in errors.list_error_classes()}


def to_error(answer: Answer) -> errors.TouchmarkError:
    """Return the error an answer stands for: the class with its code, with the server's sentence and fields.

    Understands problem documents and the errors of /v2; without a known code the class follows from the status.
    """
    code: Any = None
    message: Any = None
    fields: Any = None
    try:
        found = answer.json()
        if "errors" in found:  # OCI distribution-spec, "Error codes"; `detail` is ours
            found = found["errors"][0]
            code, message, detail = found.get("code"), found.get("message"), found.get("detail") or {}
            code, fields = detail.get("code", code), detail.get("fields")
        else:
            code, message, fields = found.get("code"), found.get("detail"), found.get("fields")
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        pass  # an answer of something that stands between, a proxy's page for one
    kind = _list_by_code().get(code) if isinstance(code, str) else None
    if not isinstance(code, str) or not isinstance(message, str) or not message:  # each of ours has both
        said = f", {message[:200]!r}" if isinstance(message, str) and message else ""
        message = (
            f"It was not Touchmark that answered ({answer.status}{said}): is the address that of a Touchmark server, and "
            "does nothing stand between?"
        )
        if 300 <= answer.status < 400:
            message = f"The server answered {answer.status}, a redirect: give the address it really has."
    kind = kind or _BY_STATUS.get(answer.status, errors.TouchmarkError)
    return kind(message, **({str(key): value for key, value in fields.items()} if isinstance(fields, dict) else {}))

"""Requests to an MLflow server, as its own clients send them: JSON over http.client, and streams of bytes.

What lives here: connections, credentials, retries, and what an answer's status means. What must not: which routes there
are (mlflow_reader.py, mlflow_files.py, export_mlflow.py). Credentials go to the one server they were given for:
redirects are not followed.
"""

from __future__ import annotations

import base64
import http.client
import json
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import SplitResult, quote, unquote, urlencode, urlsplit

from touchmark.domain.about import VERSION
from touchmark.domain.errors import (
    BusyError,
    ConflictError,
    DeniedError,
    InvalidError,
    InvalidFieldError,
    NotFoundError,
    TouchmarkError,
    UnauthenticatedError,
)

API = "/api/2.0/mlflow"
ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts"
TIMEOUT_SECONDS = 120
ATTEMPTS = 5
PAUSE_SECONDS = 0.5
_AGAIN = frozenset({408, 429, 500, 502, 503, 504})
_CHUNK_BYTES = 1 << 20
_IDLE_SECONDS = 2
_IDLE_CONNECTIONS = 16
_JSON_BYTES = 256 << 20  # an answer above this is no page of anything

Params = Mapping[str, str | None] | Mapping[str, str] | Iterable[tuple[str, str]]


@dataclass(frozen=True, slots=True, repr=False)
class Credentials:
    """What MLflow's clients send to say who they are: a bearer token, or a name and password (never printed)."""

    token: str | None = None
    username: str | None = None
    password: str | None = None

    @property
    def header(self) -> str | None:
        """The Authorization header, None if there is nothing to say."""
        if self.token:
            return f"Bearer {self.token}"
        if self.username:
            pair = f"{self.username}:{self.password or ''}".encode()
            return f"Basic {base64.b64encode(pair).decode()}"
        return None


class _LostError(Exception):
    """There was no whole answer. `sent` says that the request may have arrived."""

    def __init__(self, reason: str, *, sent: bool) -> None:
        super().__init__(reason)
        self.sent = sent


class MlflowHttp:
    """One MLflow server; from any thread.

    `url` is its address without credentials, the form in which it may be shown and recorded.
    """

    def __init__(self, url: str, credentials: Credentials | None = None, *, field: str = "url") -> None:
        """Read an address such as `http://mlflow:5000` or `https://name:password@host/prefix`.

        Raises InvalidFieldError about `field`.
        """
        parts = _parse_address(url, field)
        self._is_tls, self._prefix = parts.scheme == "https", parts.path.rstrip("/")
        self.host = parts.netloc.rpartition("@")[2]
        self.url = f"{parts.scheme}://{self.host}{self._prefix}"
        if parts.username:
            credentials = Credentials(username=unquote(parts.username), password=unquote(parts.password or ""))
        self._headers = {"User-Agent": f"touchmark/{VERSION}", "Accept": "*/*"}
        header = (credentials or Credentials()).header
        if header is not None:
            if not header.isascii() or not header.isprintable():
                raise InvalidFieldError(field="token", reason="it holds a character no token has")
            self._headers["Authorization"] = header
        self.watch: Callable[[str | None], None] | None = None
        """Told of each answer that did not come, why; and with None of the first that came after."""
        self._is_silent = False
        self._idle: deque[tuple[http.client.HTTPConnection, float]] = deque()  # appending and popping are atomic

    def close(self) -> None:
        """Close the kept connections. It can still be used: it connects again."""
        while self._idle:
            self._idle.pop()[0].close()

    def __enter__(self) -> Self:
        """Enter."""
        return self

    def __exit__(self, *_error: object) -> None:
        """Close."""
        self.close()

    # ── JSON ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def get(self, path: str, params: Params | None = None) -> Any:
        """Return the JSON at a path. Raises as `ask` does."""
        return self.ask("GET", path, params=params)

    def post(self, path: str, body: Mapping[str, Any], *, again: bool = False) -> Any:
        """Send JSON and return the JSON answered; `again` for a search, which may be sent twice. Raises as `ask` does."""
        return self.ask("POST", path, body=body, again=again)

    def ask(
        self,
        method: str,
        path: str,
        *,
        params: Params | None = None,
        body: Mapping[str, Any] | None = None,
        again: bool | None = None,
    ) -> Any:
        """Send a request and return the answered JSON; retried where that is safe.

        Raises NotFoundError, InvalidError, ConflictError, UnauthenticatedError, DeniedError with what the server says, and
        BusyError if it does not answer, or not as an MLflow server would.
        """
        payload = None if body is None else json.dumps(body, allow_nan=False).encode()
        headers = {} if payload is None else {"Content-Type": "application/json"}
        again = method == "GET" if again is None else again
        for attempt in range(1, ATTEMPTS + 1):
            error: TouchmarkError
            try:
                with self._open(method, _join(path, params), payload, headers) as response:
                    data = _read_all(response)
                self._tell(None)
                if response.status == 200:
                    return self._decode(data)
                error = self._to_error(response, data)
                if response.status not in _AGAIN or not again or (response.status == 500 and attempt > 1):
                    raise error
            except _LostError as lost:
                error = self._unreachable(lost)
                self._tell(str(lost))
                if lost.sent and not again:
                    raise error from None
            if attempt == ATTEMPTS:
                raise error
            time.sleep(PAUSE_SECONDS * 2 ** (attempt - 1))
        raise AssertionError

    def _tell(self, reason: str | None) -> None:
        if self.watch is not None and (reason is not None or self._is_silent):
            self._is_silent = reason is not None
            self.watch(reason)

    def _decode(self, data: bytes) -> Any:
        if not data:
            return {}
        try:
            found = json.loads(data, parse_constant=_parse_constant)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise BusyError(f"{self.url} does not answer as an MLflow server does.", address=self.url)
        return found

    # ── bytes ────────────────────────────────────────────────────────────────────────────────────────────────────

    @contextmanager
    def stream(self, path: str, params: Params | None = None) -> Iterator[Iterator[bytes]]:
        """Open the bytes at a path; the iterator raises BusyError if they break off. Raises as `ask` does, without retry."""
        try:
            with self._open("GET", _join(path, params), None, {}) as response:
                if response.status != 200:
                    raise self._to_error(response, _read_all(response))
                yield self._iterate(response)
        except _LostError as lost:
            raise self._unreachable(lost) from None

    def _iterate(self, response: http.client.HTTPResponse) -> Iterator[bytes]:
        while True:
            try:
                chunk = response.read(_CHUNK_BYTES)
            except (OSError, http.client.HTTPException) as error:
                raise BusyError(f"The answer of {self.url} broke off: {_describe(error)}.", address=self.url) from None
            if not chunk:
                # With a size http.client takes the end of the connection for the end of the answer.
                if response.length:
                    raise BusyError(f"The answer of {self.url} broke off before its end.", address=self.url)
                return
            yield chunk

    def put(self, path: str, chunks: Iterable[bytes], size_bytes: int) -> None:
        """Send a file's bytes. Raises as `ask` does; may be called again after BusyError."""
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size_bytes)}
        try:
            with self._open("PUT", path, chunks, headers) as response:
                data = _read_all(response)
        except _LostError as lost:
            raise self._unreachable(lost) from None
        if response.status not in {200, 201, 204}:
            raise self._to_error(response, data)

    # ── one request ──────────────────────────────────────────────────────────────────────────────────────────────

    @contextmanager
    def _open(
        self, method: str, path: str, body: bytes | Iterable[bytes] | None, headers: Mapping[str, str]
    ) -> Iterator[http.client.HTTPResponse]:
        connection = self._connect()
        try:
            try:
                connection.request(method, self._prefix + path, body=body, headers={**self._headers, **headers})
                response = connection.getresponse()
            except (OSError, http.client.HTTPException) as error:
                raise _LostError(_describe(error), sent=True) from None
            yield response
        except BaseException:
            connection.close()
            raise
        # Half read: what follows on this connection would be its rest.
        if response.isclosed() and not response.will_close and len(self._idle) < _IDLE_CONNECTIONS:
            self._idle.append((connection, time.monotonic()))
        else:
            connection.close()

    def _connect(self) -> http.client.HTTPConnection:
        now = time.monotonic()
        while True:
            try:
                connection, used_at = self._idle.pop()
            except IndexError:
                break
            # A server closes what is idle (uvicorn after 5 s): a request sent into that would be lost.
            if now - used_at < _IDLE_SECONDS:
                return connection
            connection.close()
        kind = http.client.HTTPSConnection if self._is_tls else http.client.HTTPConnection
        connection = kind(self.host, timeout=TIMEOUT_SECONDS)
        try:
            connection.connect()
        except OSError as error:
            connection.close()
            raise _LostError(_describe(error), sent=False) from None
        return connection

    def _unreachable(self, lost: _LostError) -> BusyError:
        return BusyError(f"No answer from {self.url}: {lost}.", address=self.url)

    def _to_error(self, response: http.client.HTTPResponse, data: bytes) -> TouchmarkError:
        """Return what an answer other than 200 means; MLflow's own sentence where it has one."""
        status = response.status
        try:
            said = str(json.loads(data)["message"])[:1000]
        except (ValueError, KeyError, TypeError, RecursionError):
            said = f"HTTP {status}"
        if 300 <= status < 400:
            target = str(response.headers.get("Location"))[:300]
            return InvalidFieldError(field="url", reason=f"{self.url} sends on to {target!r}: give that address")
        sentence = f"{self.url} answers: {said}"
        if status == 401:
            return UnauthenticatedError(f"{sentence}. Set MLFLOW_TRACKING_TOKEN, or _USERNAME and _PASSWORD.")
        if status in _AGAIN or status >= 500:
            return BusyError(sentence, address=self.url, status=status)
        kinds: dict[int, type[TouchmarkError]] = {403: DeniedError, 404: NotFoundError, 409: ConflictError}
        return kinds.get(status, InvalidError)(sentence)


def quote_path(path: str) -> str:
    """Return a path for a request line; `/` stays."""
    return quote(path, safe="/")


def _join(path: str, params: Params | None) -> str:
    if params is None:
        return path
    pairs = params.items() if isinstance(params, Mapping) else params
    given = [(key, str(value)) for key, value in pairs if value is not None]
    return f"{path}?{urlencode(given)}" if given else path


def _read_all(response: http.client.HTTPResponse) -> bytes:
    try:
        data = response.read(_JSON_BYTES)
    except (OSError, http.client.HTTPException) as error:
        raise _LostError(_describe(error), sent=True) from None
    if not response.isclosed():
        raise _LostError("its answer breaks off, or has no end", sent=True)
    return data


def _parse_constant(text: str) -> float:
    return {"NaN": math.nan, "Infinity": math.inf}.get(text, -math.inf)


def _describe(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "it takes too long"
    if isinstance(error, http.client.RemoteDisconnected):
        return "it hung up without an answer"
    return str(getattr(error, "strerror", None) or error or type(error).__name__)


def _parse_address(url: str, field: str) -> SplitResult:
    wrong = InvalidFieldError(field=field, reason="write http://HOST:PORT or https://HOST")
    try:
        parts = urlsplit(url)
        fits = parts.scheme in {"http", "https"} and parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError:
        raise wrong from None
    if not fits or parts.query or parts.fragment or not url.isascii():
        raise wrong
    return parts

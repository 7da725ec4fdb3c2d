"""GET requests to addresses somebody named, as far as the settings allow: from where, how often sent on, how slow, how much.

Every hop is held against the allow-list, its host is looked up once, and the connection goes to the IP addresses that were
checked. Credentials go to the server of the entry they belong to and to no other. No proxy of the environment is used,
no compression is asked for or taken. What must not live here: what the files of an address are (addresses.py).
"""

from __future__ import annotations

import base64
import http.client
import json
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin

from touchmark.domain.about import VERSION
from touchmark.domain.addresses import Address, ImportPrefix, ImportRules, may_connect, parse_url
from touchmark.domain.errors import (
    BusyError,
    DeniedError,
    InvalidError,
    InvalidSourceError,
    NotFoundError,
    TouchmarkError,
    UnsupportedError,
)
from touchmark.services import hosts

REDIRECTS = 5
"""How often a request is sent on."""
HEAD_SECONDS = 60.0
"""For one hop, until the head of its answer is there: connecting, TLS, waiting."""
DOCUMENT_BYTES = 64 << 20
"""The largest JSON document read."""
_CHUNK_BYTES = 256 << 10
_BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


@dataclass(frozen=True, slots=True)
class Answer:
    """The head of an answer, and its bytes as they come."""

    status: int
    headers: Mapping[str, str]
    chunks: Iterator[bytes]

    @property
    def size_bytes(self) -> int | None:
        """How long its body is said to be; None if it is chunked."""
        text = self.headers.get("content-length", "")
        return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None


class GuardedHttp:
    """Requests below one entry of the allow-list. From any thread; every request has a connection of its own."""

    def __init__(self, entry: ImportPrefix, base: Address, rules: ImportRules) -> None:
        """Take the entry, the URL below which its own server answers, and the whole list, for where it sends us on."""
        self._entry, self._base, self._rules = entry, base, rules
        self._tls = ssl.create_default_context()

    @contextmanager
    def open(self, url: str, headers: Mapping[str, str] | None = None) -> Iterator[Answer]:
        """GET a URL and yield the answer, 200 or 206; reading it raises BusyError where it breaks off or is too slow.

        Raises DeniedError where the rules forbid a hop or the server says so, NotFoundError, BusyError (trying again may
        help), UnsupportedError for other answers, InvalidError for one that cannot be taken.
        """
        for _ in range(REDIRECTS + 1):
            with self._ask(url, headers or {}) as answer:
                location = answer.headers.get("location")
                if answer.status not in _REDIRECTS or not location:
                    _check_status(url, answer)
                    yield answer
                    return
            url = urljoin(url, location)
        raise DeniedError(f"It was sent on more than {REDIRECTS} times.")

    def get_json(self, url: str) -> tuple[Any, Mapping[str, str]]:
        """Return a JSON document and the answer's headers. Raises as `open` does, BusyError for what is no JSON."""
        with self.open(url, {"Accept": "application/json"}) as answer:
            data = bytearray()
            for chunk in answer.chunks:
                data += chunk
                if len(data) > DOCUMENT_BYTES:
                    raise InvalidError(f"The answer of {_shown(url)} is larger than {DOCUMENT_BYTES} bytes.")
        try:
            return json.loads(data), answer.headers
        except (ValueError, RecursionError):
            raise BusyError(f"What {_shown(url)} answers is no JSON.") from None

    # ── one hop ──────────────────────────────────────────────────────────────────────────────────────────────────

    @contextmanager
    def _ask(self, url: str, headers: Mapping[str, str]) -> Iterator[Answer]:
        target, named, private = self._check(url)
        end = time.monotonic() + HEAD_SECONDS
        given = {"User-Agent": f"touchmark/{VERSION}", "Accept": "*/*", "Accept-Encoding": "identity"}
        with ExitStack() as stack:
            try:
                addresses = find_addresses(target.host, target.port, named=named, private=private)
                link = stack.enter_context(hosts.connect(addresses, target.port, end))
                handle = stack.enter_context(link.dup())  # TLS takes `link` over, and has no second handle
                with hosts.cut_off_at(handle, end):
                    if target.scheme == "https":
                        link = stack.enter_context(self._tls.wrap_socket(link, server_hostname=target.host))
                    link.settimeout(hosts.PACE_SECONDS)
                    connection = stack.enter_context(closing(http.client.HTTPConnection(target.host, target.port)))
                    connection.default_port = {"http": 80, "https": 443}[target.scheme]  # not in Host (RFC 9110, 7.2)
                    connection.sock = link
                    whole = {**given, **headers, **self._credentials(target)}
                    connection.request("GET", f"/{target.path}", headers=whole)
                    response = stack.enter_context(connection.getresponse())
            except (OSError, http.client.HTTPException, ValueError) as error:
                raise BusyError(f"No answer from {_shown(url)}: {describe(error)}.") from None
            found = {key.lower(): value for key, value in response.getheaders()}
            yield Answer(response.status, found, _iterate(url, handle, response))

    def _check(self, url: str) -> tuple[Address, str, bool]:
        """Return the target of a hop, the host the settings name for it, and whether that may be private."""
        try:
            target = parse_url(url)
        except InvalidSourceError as error:
            raise DeniedError(f"It leads to {_shown(url)!r}: {error.fields['reason']}.") from None
        if self._is_own(target):
            return target, self._base.host, self._entry.private
        named = self._entry.find_redirect(target)
        if named is not None:
            return target, named, self._entry.private
        other = self._rules.find(target)
        if other is not None:
            return target, other.address.host, other.private
        raise DeniedError(f"It leads to {_shown(url)!r}, which is on no list of this server (import_from, redirects).")

    def _credentials(self, target: Address) -> dict[str, str]:
        entry, is_own = self._entry, self._is_own(target)
        if is_own and entry.token:
            return {"Authorization": f"Bearer {entry.token}"}
        if is_own and entry.username:
            pair = base64.b64encode(f"{entry.username}:{entry.password or ''}".encode()).decode()
            return {"Authorization": f"Basic {pair}"}
        return {}

    def _is_own(self, target: Address) -> bool:
        """Answer whether a URL is one of the entry itself: below its prefix, or anywhere on its hub."""
        if (target.scheme, target.place) != (self._base.scheme, self._base.place):
            return False
        return self._entry.address.scheme == "hf" or self._entry.covers(target)


def find_addresses(host: str, port: int, *, named: str, private: bool) -> list[str]:
    """Return the IP addresses of a host, each of which may be connected to. Raises DeniedError, OSError, ValueError."""
    found = hosts.look_up(host, port)
    for each in found:
        if not may_connect(each, host=named if named == host else "", private=private):
            raise DeniedError(
                f"{host!r} leads to {each}, which is not public: name that address in import_from, or write private = true."
            )
    return found


def describe(error: Exception) -> str:
    """Return what went wrong with a connection, in a few words."""
    if isinstance(error, TimeoutError):
        return "it takes too long"
    if isinstance(error, http.client.RemoteDisconnected):
        return "it hung up without an answer"
    return str(getattr(error, "strerror", None) or error or type(error).__name__)[:300]


def _shown(url: str) -> str:
    """Return a URL without its query, which may hold a signature."""
    return url.partition("?")[0][:300]


def _check_status(url: str, answer: Answer) -> None:
    status, shown = answer.status, _shown(url)
    kind: type[TouchmarkError]
    if status in {200, 206}:
        encoding = answer.headers.get("content-encoding", "identity").lower()
        if encoding not in {"", "identity"}:
            raise InvalidError(f"{shown} is sent encoded as {encoding[:50]!r}, which nobody asked for.")
        return
    if status in {401, 403}:
        kind, said = DeniedError, "does not let us read"
    elif status in {404, 410}:
        kind, said = NotFoundError, "has nothing there"
    elif status in _BUSY or status >= 500:
        kind, said = BusyError, "cannot answer now"
    else:
        kind, said = UnsupportedError, "does not answer as expected"
    raise kind(f"{shown} {said} (HTTP {status}).", status=status)


def _iterate(url: str, handle: socket.socket, response: http.client.HTTPResponse) -> Iterator[bytes]:
    if response.length is None and not response.chunked:
        raise InvalidError(f"{_shown(url)} does not say how long it is: nobody could tell the whole of it from a part.")
    try:
        with hosts.keep_pace(handle) as count:
            # read() would wait for all it was asked for, however slowly that comes.
            while chunk := response.read1(_CHUNK_BYTES):
                count(len(chunk))
                yield chunk
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise BusyError(f"The answer of {_shown(url)} broke off: {describe(error)}.") from None
    if response.length:
        raise BusyError(f"The answer of {_shown(url)} broke off before its end.")

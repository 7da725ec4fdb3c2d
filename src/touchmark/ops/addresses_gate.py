"""A gate on loopback through which an object store's client goes out: a proxy that checks every connection.

obstore looks hosts up by itself and follows redirects wherever they lead. Told to use this proxy (and it can reach nothing
without), each connection it wants is held against the allow-list, its host looked up once, and the bytes passed on to
the IP address that was checked. HTTPS goes through as it is (CONNECT, RFC 9110, 9.3.6); of plain HTTP each request
is a connection of its own. Nobody else can use it: it wants a password made for it.
"""

from __future__ import annotations

import base64
import hmac
import re
import secrets
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Self

from touchmark.domain.addresses import Address, parse_url
from touchmark.domain.errors import DeniedError, InvalidSourceError
from touchmark.ops.addresses_http import find_addresses
from touchmark.services import hosts

_HEAD_BYTES = 64 << 10
_HEAD_SECONDS = 30.0
_CONNECTIONS = 64
_PIECE_BYTES = 256 << 10
_REQUEST = re.compile(rb"([A-Z]+) ([!-~]+) HTTP/1\.1\r\n")

Check = Callable[[Address], tuple[str, bool]]
"""Says of a target which host the settings name for it and whether that may be private. Raises DeniedError."""


class Gate:
    """The proxy. `refusals` are the reasons why connections were refused, for whoever is told only that one failed."""

    def __init__(self, check: Check) -> None:
        """Listen, on a port of loopback that the system chooses."""
        self._check = check
        self._password = secrets.token_hex(16)
        pair = base64.b64encode(f"touchmark:{self._password}".encode())
        self._secret = b"basic " + pair
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=_CONNECTIONS)
        self._slots = threading.BoundedSemaphore(_CONNECTIONS)
        self._open: set[socket.socket] = set()
        self._guard = threading.Lock()
        self.refusals: list[str] = []
        self._thread = threading.Thread(target=self._accept, name="gate", daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """The address of the proxy, with its password."""
        return f"http://touchmark:{self._password}@127.0.0.1:{self._listener.getsockname()[1]}"

    def close(self) -> None:
        """Stop listening, and end what is open."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._guard:
            for link in self._open:
                with suppress(OSError):
                    link.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)

    def __enter__(self) -> Self:
        """Enter."""
        return self

    def __exit__(self, *_error: object) -> None:
        """Close."""
        self.close()

    def _accept(self) -> None:
        while True:
            try:
                link, _from = self._listener.accept()
            except OSError:
                return
            if not self._slots.acquire(timeout=_HEAD_SECONDS):
                link.close()
                continue
            threading.Thread(target=self._serve, args=(link,), name="gate", daemon=True).start()

    def _serve(self, link: socket.socket) -> None:
        try:
            with link:
                self._hold(link)
                try:
                    self._pass(link)
                except OSError:
                    pass  # either side is gone: the other sees its connection end
                finally:
                    self._let_go(link)
        finally:
            self._slots.release()

    def _hold(self, link: socket.socket) -> None:
        with self._guard:
            self._open.add(link)

    def _let_go(self, link: socket.socket) -> None:
        with self._guard:
            self._open.discard(link)

    def _pass(self, link: socket.socket) -> None:
        end = time.monotonic() + _HEAD_SECONDS
        with hosts.cut_off_at(link, end):
            head, rest = _read_head(link)
        found = _REQUEST.match(head)
        fields = [line.partition(b":") for line in head.split(b"\r\n")[1:] if line]
        given = [value.strip() for name, _, value in fields if name.lower() == b"proxy-authorization"]
        if found is None or len(given) != 1 or not _is_same(given[0], self._secret):
            if found is not None and not given:  # obstore takes the password off where it follows a redirect
                self.refusals.append(
                    f"It is sent on to {found[2][:300].decode().partition('?')[0]}, which is not followed."
                )
            link.sendall(
                b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            )
            return
        method, target = found[1], found[2].decode("ascii")
        url = f"https://{target}" if method == b"CONNECT" else target
        try:
            address = parse_url(url)
            if method not in {b"CONNECT", b"GET", b"HEAD", b"POST", b"PUT"} or (
                method != b"CONNECT" and address.scheme != "http"
            ):
                raise DeniedError(f"{method.decode()} {url[:100]} is nothing a gate passes on.")
            named, private = self._check(address)
            addresses = find_addresses(address.host, address.port, named=named, private=private)
        except (DeniedError, InvalidSourceError) as error:
            self.refusals.append(error.message)
            link.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            return
        except (OSError, ValueError):
            link.sendall(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            return
        try:
            out = hosts.connect(addresses, address.port, time.monotonic() + _HEAD_SECONDS)
        except OSError:
            link.sendall(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            return
        with out:
            self._hold(out)
            try:
                if method == b"CONNECT":
                    link.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                else:
                    kept = [
                        name + b":" + value
                        for name, _, value in fields
                        if name.lower() not in {b"proxy-authorization", b"proxy-connection", b"connection"}
                    ]
                    lines = [method + f" /{target.split('/', 3)[3] if target.count('/') > 2 else ''} HTTP/1.1".encode()]
                    rest = b"\r\n".join([*lines, *kept, b"Connection: close", b"", b""]) + rest
                if rest:
                    out.sendall(rest)
                _splice(link, out)
            finally:
                self._let_go(out)


def _read_head(link: socket.socket) -> tuple[bytes, bytes]:
    data = b""
    while b"\r\n\r\n" not in data:
        piece = link.recv(_HEAD_BYTES)
        if not piece or len(data) + len(piece) > _HEAD_BYTES * 2:
            raise ConnectionResetError
        data += piece
    head, _, rest = data.partition(b"\r\n\r\n")
    return head + b"\r\n", rest


def _is_same(given: bytes, secret: bytes) -> bool:
    kind, _, value = given.partition(b" ")
    return hmac.compare_digest(kind.lower() + b" " + value.strip(), secret)


def _splice(link: socket.socket, out: socket.socket) -> None:
    """Pass bytes both ways until the server has no more; one that is too slow, or idle, is cut off."""

    def upstream() -> None:
        with suppress(OSError):
            while piece := link.recv(_PIECE_BYTES):
                out.sendall(piece)
        with suppress(OSError):
            out.shutdown(socket.SHUT_WR)

    sender = threading.Thread(target=upstream, name="gate", daemon=True)
    sender.start()
    try:
        with hosts.keep_pace(out) as count:
            while piece := out.recv(_PIECE_BYTES):
                count(len(piece))
                link.sendall(piece)
    finally:
        with suppress(OSError):
            link.shutdown(socket.SHUT_RDWR)
        sender.join(5)

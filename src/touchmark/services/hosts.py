"""Hosts: looked up once, and connected to by the IP addresses that were checked.

Every request that the server makes because somebody named an address goes through here: deliveries to webhooks, imports.
What must not live here: which addresses are allowed (domain/addresses.py), what is sent.
"""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

LOOKUP_SECONDS = 10
"""How long a name server may take."""
_lookups = threading.BoundedSemaphore(8)
_CONNECTIONS_TRIED = 4  # of a host with many addresses


def look_up(host: str, port: int) -> list[str]:
    """Return the IP addresses of a host, as the system's resolver says; in a thread, for that has no time-out.

    Whoever connects must connect to these and not look the host up again: a name server may answer otherwise the second
    time (DNS rebinding). Raises OSError, TimeoutError among them, UnicodeError, ValueError.
    """
    answers: list[list[str] | Exception] = []

    def ask() -> None:
        try:
            entries = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            answers.append(list(dict.fromkeys(str(entry[4][0]) for entry in entries)))
        except (OSError, UnicodeError, ValueError) as error:
            answers.append(error)
        finally:
            _lookups.release()

    answer: list[str] | Exception = TimeoutError("no answer in time")
    if _lookups.acquire(timeout=LOOKUP_SECONDS):
        thread = threading.Thread(target=ask, daemon=True)
        thread.start()
        thread.join(LOOKUP_SECONDS)
        answer = answers[0] if answers else answer
    if isinstance(answer, Exception):
        raise answer
    return answer


def connect(addresses: Sequence[str], port: int, end: float) -> socket.socket:
    """Return a connection to the first of some IP addresses that takes one, before `end` (time.monotonic()). Raises OSError."""
    error: OSError = OSError("the host has no address")
    for each in addresses[:_CONNECTIONS_TRIED]:
        left = end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        try:
            return socket.create_connection((each, port), timeout=left)
        except OSError as failed:
            error = failed
    raise error


@contextmanager
def cut_off_at(link: socket.socket, end: float) -> Iterator[None]:
    """End a connection at an instant, and raise TimeoutError then: a socket's own time-out starts anew with each byte."""
    handle = link.dup()  # `link` is handed over to TLS, this keeps hold of the connection
    is_over = threading.Event()

    def cut_off() -> None:
        is_over.set()
        with suppress(OSError):  # the other side has gone already
            handle.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(max(end - time.monotonic(), 0), cut_off)
    timer.daemon = True
    timer.start()
    try:
        yield
    except (OSError, http.client.HTTPException, ValueError):
        if not is_over.is_set():
            raise
    finally:
        timer.cancel()
        timer.join()
        handle.close()
    if is_over.is_set():  # without an error, too: a body that broke off reads as one that ended
        raise TimeoutError


PACE_SECONDS = 60.0
"""In any so many seconds of an answer's body, PACE_BYTES must come."""
PACE_BYTES = 64 << 10
"""See PACE_SECONDS: a kilobyte a second."""


@contextmanager
def keep_pace(link: socket.socket) -> Iterator[Callable[[int], None]]:
    """Shut a connection down once it is too slow to go on with; the block calls what is given with each count of bytes.

    A thread looks once in PACE_SECONDS: whoever reads may be waiting in the middle of a line that comes a byte a minute.
    """
    handle, is_done, total = link.dup(), threading.Event(), [0]

    def watch() -> None:
        before = 0
        while not is_done.wait(PACE_SECONDS):
            if total[0] - before < PACE_BYTES:
                with suppress(OSError):
                    handle.shutdown(socket.SHUT_RDWR)
                return
            before = total[0]

    def count(count_bytes: int) -> None:
        total[0] += count_bytes

    watcher = threading.Thread(target=watch, name="pace", daemon=True)
    watcher.start()
    try:
        yield count
    finally:
        is_done.set()
        watcher.join()
        handle.close()

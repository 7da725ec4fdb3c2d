"""Serving: one process, one event loop, an orderly end.

granian's in-process server is used rather than its master and workers: one Python instead of two halves the memory and
the time to the first answer, and the child of an embedded registry is then one process to end.
"""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
import sys
import threading

from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.server.embed import Server

from touchmark.domain.errors import InvalidFieldError
from touchmark.server.app import build_app
from touchmark.server.settings import Settings

STOP_SECONDS = 10
"""How long requests in flight may take to finish after a stop was asked for."""
MAX_HEADER_BYTES = 64 << 10


def serve(settings: Settings) -> None:
    """Serve until SIGINT or SIGTERM (or the parent's end, if asked). Raises InvalidFieldError if the address is taken."""
    _check_free(settings)
    asyncio.run(_serve(settings))


async def _serve(settings: Settings) -> None:
    server = Server(
        build_app(settings),
        address=settings.host,
        port=settings.port,
        uds=settings.uds,
        interface=Interfaces.ASGI,
        http=HTTPModes.http1,
        http1_settings=HTTP1Settings(max_buffer_size=MAX_HEADER_BYTES * 8, header_read_timeout=30_000),
        websockets=False,
        backlog=1024,
        log_enabled=False,
    )
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(name, stopping.set)
    if settings.exit_with_parent:
        threading.Thread(target=_watch_parent, args=(loop, stopping), daemon=True).start()
    if settings.uds is not None:
        os.umask(0o177)  # the socket is 0600: whoever can connect is the owner
    serving = asyncio.ensure_future(server.serve())
    announcing = asyncio.ensure_future(_announce(settings))
    await asyncio.wait({serving, asyncio.ensure_future(stopping.wait())}, return_when=asyncio.FIRST_COMPLETED)
    announcing.cancel()
    if serving.done():
        await serving  # raises what went wrong while starting
        return
    server.stop()  # type: ignore[no-untyped-call]
    threading.Timer(STOP_SECONDS, os._exit, (0,)).start()
    await asyncio.wait({serving})
    if settings.uds is not None:
        settings.uds.unlink(missing_ok=True)
    os._exit(0)  # every acknowledged write is durable; waiting for idle threads would only take time


async def _announce(settings: Settings) -> None:
    """Say on standard output that the server answers, as soon as it does."""
    while True:
        try:
            if settings.uds is not None:
                _reader, writer = await asyncio.open_unix_connection(str(settings.uds))
            else:
                _reader, writer = await asyncio.open_connection(settings.host, settings.port)
            writer.close()
            break
        except OSError:
            await asyncio.sleep(0.01)
    sys.stdout.write(f"Touchmark is ready at {settings.address} (home {settings.home})\n")
    sys.stdout.flush()


def _watch_parent(loop: asyncio.AbstractEventLoop, stopping: asyncio.Event) -> None:
    """Wait for the end of standard input, which the parent holds open as long as it lives."""
    while os.read(0, 4096):
        pass
    threading.Timer(STOP_SECONDS, os._exit, (0,)).start()
    loop.call_soon_threadsafe(stopping.set)


def _check_free(settings: Settings) -> None:
    if settings.uds is not None:
        settings.uds.unlink(missing_ok=True)
        return
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                reason = f"something listens on {settings.host}:{settings.port} already; choose another with --port"
                raise InvalidFieldError(field="port", reason=reason) from None
            raise InvalidFieldError(field="host", reason=f"cannot listen there ({error.strerror})") from None

"""Serving: one process, one event loop, an orderly end.

granian's in-process server is used rather than its master and workers: one Python instead of two takes a fifth
less memory (measured, docs/adr/0009), and the child of an embedded registry is then one process to end.
"""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
import stat
import sys
import threading
from pathlib import Path

from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.server.embed import Server

from touchmark.domain.errors import InvalidFieldError, TouchmarkError
from touchmark.ops.buckets import check_bucket, check_reachable
from touchmark.ops.setup import open_registry
from touchmark.registry import Registry
from touchmark.server.app import build_app
from touchmark.server.settings import Settings

STOP_SECONDS = 10
"""How long requests in flight may take to finish after a stop was asked for."""
MAX_HEADER_BYTES = 64 << 10
_UDS_LIMIT_BYTES = 107  # sockaddr_un.sun_path on Linux, less its NUL
SWITCH_SECONDS = 0.0005
"""How long a thread that computes keeps the interpreter from those that wait for it. With Python's 5 ms the event loop, and the writer whose
turn it is, wait for one that only builds its answer: a tenth fewer registrations and reads a second with 32 connections."""


def serve(settings: Settings) -> None:
    """Serve until SIGINT or SIGTERM (or the parent's end, if asked), then end the process with exit code 0.

    Raises InvalidFieldError if the address is taken or cannot be had, and what `open_registry` raises.
    """
    sys.setswitchinterval(SWITCH_SECONDS)
    os.umask(0o077)  # whatever is made from here on, a socket too, is the owner's alone
    _check_address(settings)
    # Opened here and not once the server runs: granian keeps what fails at the application's start to itself.
    if settings.artifacts is not None:
        check_reachable(settings.artifacts)
    registry = open_registry(settings.home, settings.database, artifacts=settings.artifacts)
    try:
        told = check_bucket(registry, settings.home)
        if told is not None:
            sys.stderr.write(f"{told}\n")
        asyncio.run(_serve(settings, registry))
    finally:
        registry.close()


async def _serve(settings: Settings, registry: Registry) -> None:
    ending = asyncio.Event()
    server = Server(
        build_app(settings, registry, ending),
        address="127.0.0.1" if settings.host == "localhost" else settings.host,  # granian takes addresses, no names
        port=settings.port,
        uds=settings.uds,
        interface=Interfaces.ASGI,
        http=HTTPModes.http1,
        http1_settings=HTTP1Settings(max_buffer_size=MAX_HEADER_BYTES * 8, header_read_timeout=30_000),
        websockets=False,
        backlog=1024,
        log_enabled=False,
    )
    uds = settings.uds
    if uds is not None:
        server.on_startup(lambda: uds.chmod(0o600))
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(name, _ask_to_stop, stopping)
    if settings.exit_with_parent:
        threading.Thread(target=_watch_parent, args=(loop, stopping), daemon=True).start()
    serving = asyncio.ensure_future(server.serve())
    announcing = asyncio.ensure_future(_announce(settings))
    asked = asyncio.ensure_future(stopping.wait())
    await asyncio.wait({serving, asked}, return_when=asyncio.FIRST_COMPLETED)
    announcing.cancel()
    if serving.done():
        asked.cancel()
        await serving  # raises what went wrong while starting, where granian tells
        raise TouchmarkError(f"The server at {settings.address} ended by itself.")
    ending.set()
    if settings.drain_seconds:
        await asyncio.wait({serving}, timeout=settings.drain_seconds)
    _end_after(STOP_SECONDS)
    server.stop()  # type: ignore[no-untyped-call]
    await asyncio.wait({serving})
    if uds is not None:
        uds.unlink(missing_ok=True)
    _end()


def _ask_to_stop(stopping: asyncio.Event) -> None:
    if stopping.is_set():
        os._exit(1)  # asked twice: whoever asks does not want to wait for the requests in flight
    stopping.set()


def _end() -> None:
    # Every acknowledged write is durable, and the registry was closed with the application; waiting for idle threads
    # and the runtime below granian would only take time.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _end_after(seconds: float) -> None:
    timer = threading.Timer(seconds, os._exit, (0,))
    timer.daemon = True
    timer.start()


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
    sys.stdout.write(f"Touchmark is ready at {settings.address} (home {settings.home.absolute()})\n")
    sys.stdout.flush()


def _watch_parent(loop: asyncio.AbstractEventLoop, stopping: asyncio.Event) -> None:
    """Wait for the end of standard input, which the parent holds open as long as it lives."""
    try:
        while os.read(0, 4096):
            pass
    except OSError:
        pass  # it was never open: there is no parent to wait for
    _end_after(STOP_SECONDS)
    loop.call_soon_threadsafe(stopping.set)


def _check_address(settings: Settings) -> None:
    if settings.uds is not None:
        _check_socket(settings.uds)
        return
    # granian shares its port with whoever else asks (SO_REUSEPORT); this socket does not, so it finds a second server.
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


def _check_socket(path: Path) -> None:
    """Make way for a socket: remove one that a killed server left, and nothing else."""
    if len(os.fsencode(path.absolute())) > _UDS_LIMIT_BYTES:
        raise InvalidFieldError(
            field="uds", reason=f"{path} is longer than the {_UDS_LIMIT_BYTES} bytes a socket's may be"
        )
    try:
        found = path.lstat()
    except FileNotFoundError:
        if not path.parent.is_dir():
            raise InvalidFieldError(field="uds", reason=f"there is no folder {path.parent}") from None
        return
    except OSError as error:
        raise InvalidFieldError(field="uds", reason=f"{path} cannot be looked at ({error.strerror})") from None
    if not stat.S_ISSOCK(found.st_mode):
        raise InvalidFieldError(field="uds", reason=f"{path} is there and is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            path.unlink(missing_ok=True)
            return
    raise InvalidFieldError(field="uds", reason=f"something listens on {path} already")

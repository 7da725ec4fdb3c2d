"""A TCP proxy that counts bytes and cuts connections: what a network does to a transfer."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class Proxy:
    """Passes bytes between its own port and another. `up_bytes` go to the server, `down_bytes` come from it."""

    def __init__(self, port: int) -> None:
        """Listen on a free port for connections to `port` of this machine."""
        self.target_port = port
        self.up_bytes = self.down_bytes = 0
        self.cuts = 0
        self._up_cuts: list[int] = []
        self._down_cuts: list[int] = []
        self._hold: int | None = None
        self._guard = threading.Lock()
        self._links: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._accept, daemon=True).start()

    def reset(self, *, up_cuts: list[int] | None = None, down_cuts: list[int] | None = None) -> None:
        """Count from zero, and cut the connection that carries these bytes, each once."""
        with self._guard:
            self.up_bytes = self.down_bytes = self.cuts = 0
            self._up_cuts, self._down_cuts = sorted(up_cuts or []), sorted(down_cuts or [])

    def hold_after(self, down_bytes: int) -> None:
        """Pass nothing on any more once so many bytes came from the server; the connections stay open."""
        self._hold = down_bytes

    def cut_all(self) -> None:
        """Cut every connection there is."""
        for link in list(self._links):
            cut(link)

    def close(self) -> None:
        """Stop listening, and cut every connection."""
        self._listener.close()
        self.cut_all()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                try:
                    far = socket.create_connection(("127.0.0.1", self.target_port), timeout=30)
                except OSError:
                    cut(near)
                    continue
                far.settimeout(None)
                for link in (near, far):  # as on a real network: what is on its way is little
                    link.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 17)
                self._links |= {near, far}
                for source, target, is_up in ((near, far, True), (far, near, False)):
                    threading.Thread(target=self._pass, args=(source, target, is_up), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, is_up: bool) -> None:
        try:
            while data := source.recv(1 << 16):
                if self._count(len(data), is_up=is_up):
                    break
                if not is_up and self._hold is not None and self.down_bytes >= self._hold:
                    continue
                target.sendall(data)
            else:
                target.shutdown(socket.SHUT_WR)
                return
        except OSError:
            pass
        cut(source)
        cut(target)
        self._links -= {source, target}

    def _count(self, size: int, *, is_up: bool) -> bool:
        """Count bytes, and answer whether to cut here."""
        with self._guard:
            if is_up:
                self.up_bytes += size
                cuts, done = self._up_cuts, self.up_bytes
            else:
                self.down_bytes += size
                cuts, done = self._down_cuts, self.down_bytes
            if cuts and done >= cuts[0]:
                cuts.pop(0)
                self.cuts += 1
                return True
            return False


def cut(link: socket.socket) -> None:
    """End a connection with a reset."""
    with suppress(OSError):
        link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        link.shutdown(socket.SHUT_RDWR)
    link.close()


@contextmanager
def open_proxy(port: int) -> Iterator[Proxy]:
    """Run a proxy to a port for as long as the block runs."""
    proxy = Proxy(port)
    try:
        yield proxy
    finally:
        proxy.close()

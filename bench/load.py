"""Load: one process, one selector, many kept connections, each sending its next request as soon as it has its answer.

Run as a program it reads a plan (JSON) on standard input and prints what it measured (JSON): it is a process of its own so
that making load takes no time from whoever started it. Requests are prepared bytes; of an answer only status, length and
the instant it was whole are looked at.
"""

from __future__ import annotations

import json
import selectors
import socket
import sys
import time
from itertools import cycle
from typing import Any

SILENCE_SECONDS = 120
"""Asked 32 searches at once, MLflow's server takes several seconds for an answer."""


class Link:
    """One connection: what it sends next, and what of the present answer has come."""

    def __init__(self, port: int, requests: list[bytes], offset: int) -> None:
        self.requests = cycle(requests[offset:] + requests[:offset])
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.received = b""
        self.wanted = -1
        self.sent_at = 0.0

    def send(self) -> None:
        # Quick acknowledgements, or a server without TCP_NODELAY (MLflow's) would be measured by a timer of 40 ms.
        if hasattr(socket, "TCP_QUICKACK"):
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        self.received, self.wanted = b"", -1
        self.sent_at = time.perf_counter()
        self.socket.sendall(next(self.requests))

    def read(self) -> int | None:
        """Take what came; the status of the answer if it is whole now."""
        chunk = self.socket.recv(1 << 20)
        if not chunk:
            raise ConnectionError("the server closed the connection")
        self.received += chunk
        if self.wanted < 0:
            end = self.received.find(b"\r\n\r\n")
            if end < 0:
                return None
            head = self.received[:end].lower()
            at = head.find(b"content-length:")
            if at < 0:
                raise ConnectionError(f"an answer without a length: {head[:200]!r}")
            self.wanted = end + 4 + int(head[at + 15 :].partition(b"\r\n")[0])
        return int(self.received[9:12]) if len(self.received) >= self.wanted else None


def prepare(method: str, path: str, body: Any = None) -> bytes:
    """Return a request as it goes over the wire."""
    data = b"" if body is None else json.dumps(body).encode()
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: */*\r\n"
    if body is not None:
        head += f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n"
    return (head + "\r\n").encode() + data


def run(port: int, requests: list[bytes], connections: int, seconds: float, limit: int) -> dict[str, Any]:
    """Send requests for a while (or until `limit` were answered), and return counts and latencies.

    An answer with another status than 200 is counted as such and makes no part of the rate.
    """
    selector = selectors.DefaultSelector()
    links = [Link(port, requests, (i * len(requests)) // connections) for i in range(connections)]
    for link in links:
        selector.register(link.socket, selectors.EVENT_READ, link)
    latencies: list[float] = []
    statuses: dict[int, int] = {}
    start = time.perf_counter()
    end = start + seconds
    for link in links:
        link.send()
    busy = len(links)
    while busy:
        ready = selector.select(SILENCE_SECONDS)
        if not ready:
            raise SystemExit(f"nothing came for {SILENCE_SECONDS} s while {busy} requests wait for their answer")
        for key, _ in ready:
            link = key.data
            status = link.read()
            if status is None:
                continue
            now = time.perf_counter()
            latencies.append(now - link.sent_at)
            statuses[status] = statuses.get(status, 0) + 1
            if now < end and len(latencies) < limit:
                link.send()
            else:
                busy -= 1
    took = time.perf_counter() - start
    for link in links:
        link.socket.close()
    latencies.sort()
    return {
        "rate": statuses.get(200, 0) / took,
        "p50_ms": latencies[len(latencies) // 2] * 1000,
        "p99_ms": latencies[int(len(latencies) * 0.99)] * 1000,
        "count": len(latencies),
        "statuses": statuses,
    }


if __name__ == "__main__":
    plan = json.load(sys.stdin)
    found = run(
        plan["port"],
        [prepare(*request) for request in plan["requests"]],
        plan["connections"],
        plan["seconds"],
        plan.get("limit", 10**9),
    )
    json.dump(found, sys.stdout)

"""The least a Python server does: granian, a bare ASGI function, one SQLite select by key. What the load generator can ask.

python bench/bare.py PORT DATABASE
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from granian.constants import Interfaces
from granian.server.embed import Server

_connection: list[sqlite3.Connection] = []


async def app(
    scope: dict[str, Any], _receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
) -> None:
    """Answer everything with the row of key 7."""
    if scope["type"] != "http":
        return
    row = _connection[0].execute("SELECT key, value FROM pairs WHERE key = ?", (7,)).fetchone()
    body = json.dumps({"key": row[0], "value": row[1]}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def main() -> None:
    """Serve until killed."""
    connection = sqlite3.connect(sys.argv[2], check_same_thread=False)
    connection.execute("CREATE TABLE IF NOT EXISTS pairs (key INTEGER PRIMARY KEY, value TEXT)")
    connection.executemany(
        "INSERT OR REPLACE INTO pairs VALUES (?, ?)", [(n, f"the value of {n} " * 10) for n in range(1000)]
    )
    connection.commit()
    _connection.append(connection)
    server = Server(app, address="127.0.0.1", port=int(sys.argv[1]), interface=Interfaces.ASGI)
    asyncio.run(server.serve())


if __name__ == "__main__":
    main()

"""A real server's application in this process, and a client of /api/v1 that holds every answer against openapi.json.

Litestar's own test client decodes a path twice (its transport unquotes what httpx has unquoted already), so a name
with `%` in it would not arrive as it does on a socket; httpx's transport decodes once, as the real server does.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import jsonschema_rs

from touchmark.protocols.native.openapi import build_document
from touchmark.server.app import build_app
from touchmark.server.settings import Settings

FILES = {"MLmodel": b"flavors: {}\n", "model.bin": b"weights"}


@contextmanager
def open_door(home: Path, database: str | None = None) -> Iterator[Door]:
    """Start the application on a home and stop it again."""
    with asyncio.Runner() as runner:
        app = build_app(Settings(home=home, database=database, log_requests=False))
        door = Door(runner, app)
        runner.run(door.start())
        try:
            yield door
        finally:
            runner.run(door.stop())


class Door:
    """A client of one application. Each answer of /api/v1 is checked against the document before it is handed back."""

    def __init__(self, runner: asyncio.Runner, app: Any) -> None:
        self._runner, self._app = runner, app
        self._client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1")

    async def start(self) -> None:
        """Send the sign to start, and wait for it (ASGI lifespan protocol)."""
        self._signs: asyncio.Queue[Any] = asyncio.Queue()
        self._replies: asyncio.Queue[Any] = asyncio.Queue()
        scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
        self._life = asyncio.create_task(self._app(scope, self._signs.get, self._replies.put))
        await self._signs.put({"type": "lifespan.startup"})
        assert (await self._replies.get())["type"] == "lifespan.startup.complete"

    async def stop(self) -> None:
        """Send the sign to stop."""
        await self._client.aclose()
        await self._signs.put({"type": "lifespan.shutdown"})
        await self._life

    def send(self, method: str, path: str, **more: Any) -> httpx.Response:
        """Send any request."""
        return self._runner.run(self._client.request(method, path, **more))

    def send_all(self, requests: list[tuple[str, str, dict[str, Any]]]) -> list[httpx.Response]:
        """Send requests at the same time."""

        async def send() -> list[httpx.Response]:
            return await asyncio.gather(
                *(self._client.request(method, f"/api/v1{path}", **more) for method, path, more in requests)
            )

        return self._runner.run(send())

    def ask(self, method: str, path: str, body: Any = None, **more: Any) -> httpx.Response:
        """Send a request to /api/v1, and hold the answer against the document."""
        if body is not None:
            more["json"] = body
        response = self.send(method, f"/api/v1{path}", **more)
        check_documented(response)
        return response

    def do(self, method: str, path: str, body: Any = None, **more: Any) -> Any:
        """Return the answer's JSON (None if it is empty); fail unless it is a success."""
        response = self.ask(method, path, body, **more)
        assert response.is_success, response.text
        return response.json() if response.content else None

    def refuse(self, method: str, path: str, body: Any = None, **more: Any) -> tuple[int, str]:
        """Return status and code of a refusal."""
        response = self.ask(method, path, body, **more)
        assert not response.is_success, response.text
        return response.status_code, response.json()["code"]

    # what tests begin with

    def log_model(self, files: Mapping[str, bytes] = FILES, **fields: Any) -> str:
        """Upload files as a logged model over /v2, and return its id."""
        model_id: str = self.do("POST", "/logged-models", {"name": "net", **fields})["model_id"]
        listed = {path: self.upload(f"logged-models/{model_id}", data) for path, data in files.items()}
        self.do("PUT", f"/logged-models/{model_id}/artifacts", {"files": listed})
        self.do("POST", f"/logged-models/{model_id}/finish", {"status": "READY"})
        return model_id

    def upload(self, repository: str, data: bytes) -> str:
        """Upload bytes over /v2, and return their digest."""
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        response = self.send("POST", f"/v2/{repository}/blobs/uploads/?digest={digest}", content=data)
        assert response.status_code == 201, response.text
        return digest

    def register(self, name: str, files: Mapping[str, bytes] = FILES, **fields: Any) -> Any:
        """Register files as the next version of a model, and return the version."""
        source = f"models:/{self.log_model(files)}"
        return self.do("POST", f"/models/{quote(name, safe='')}/versions", {"source": source, **fields})

    def log_size(self) -> int:
        """Return how many events the log holds."""
        size: int = self.do("GET", "/log")["size"]
        return size


# ── the document ─────────────────────────────────────────────────────────────────────────────────────────────────


@cache
def get_document() -> dict[str, Any]:
    """Return the document built from the code as it is."""
    return build_document()


def find_operation(method: str, path: str) -> dict[str, Any] | None:
    """Return the document's operation for a raw path below /api/v1."""
    for template, operations in get_document()["paths"].items():
        if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", template), path):
            found: dict[str, Any] | None = operations.get(method.lower())
            return found
    return None


def check_documented(response: httpx.Response) -> None:
    """Fail if an answer's status, media type, body or headers are not what the document says of its operation."""
    request = response.request
    operation = find_operation(request.method, request.url.raw_path.partition(b"?")[0].decode().removeprefix("/api/v1"))
    if operation is None:
        assert response.status_code in {404, 405}
        return
    described = operation["responses"].get(str(response.status_code))
    assert described is not None, f"{request.method} {request.url} answered {response.status_code}: {response.text}"
    if "$ref" in described:
        described = get_document()["components"]["responses"][described["$ref"].rpartition("/")[2]]
    for name in described.get("headers", {}):
        assert name in response.headers
    if "content" not in described:
        assert response.content == b""
        return
    ((media_type, content),) = described["content"].items()
    assert response.headers["content-type"] == media_type
    _validator(json.dumps(content["schema"])).validate(response.json())


@cache
def _validator(schema: str) -> Any:
    return jsonschema_rs.validator_for({**json.loads(schema), "components": get_document()["components"]})

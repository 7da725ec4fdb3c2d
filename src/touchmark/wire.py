"""What every door shares: who asks, where work runs, bodies, conditional requests, ranges, streaming, request ids.

No rule of any protocol lives here, and no row is read: doors call services through `call` and `call_inline`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import re
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator, Mapping
from enum import StrEnum
from functools import partial
from itertools import islice
from typing import Any, Concatenate, ParamSpec, TypeVar

import anyio
import anyio.to_thread
from litestar.connection import Request
from litestar.response.base import ASGIResponse
from litestar.types import Receive, Send

from touchmark.domain.access import Principal, PrincipalKind
from touchmark.domain.errors import BusyError, InvalidFieldError, LimitExceededError, TouchmarkError
from touchmark.registry import Registry
from touchmark.services.blobs import ReadableBlob

AnyRequest = Request[Any, Any, Any]
P = ParamSpec("P")
T = TypeVar("T")

ANSWERS_LIMIT_BYTES = 32 << 20
"""Answers kept in memory (class Answers), with what holds them."""
_ENTRY_BYTES = 600
BODY_LIMIT_BYTES = 4 << 20
"""A JSON body."""
JSON_DEPTH = 64
"""Lists and objects inside each other in a JSON body."""
JSON_NODES = 50_000
"""Lists and objects of a JSON body; an honest one has one for each file or measurement it names."""
DRAINED_BYTES = 64 << 20
"""How much of a body beyond its limit is read and dropped: a client that still sends would not see why it was refused."""
IDLE_SECONDS: float = 60
"""How long a client may be silent in the middle of a body."""
PIECE_BYTES = 1 << 20
"""How much of an upload is handed to a thread at once."""
_CHUNKS_AT_ONCE = 4
"""How many chunks of a file are fetched by one hop to a thread."""

_BODY_OVER = "body_over"  # in the request's state: nothing more of the body will come
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_QUOTED_INDEX = re.compile(r'"([0-9]{1,18})"')
_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")
# It matches at every quote, closed or not, and possessively: what begins and does not end is not begun again at the next.
_QUOTED = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
_NO_BRACKET = bytes(sorted(set(range(256)) - set(b"[]{}")))


class Lane(StrEnum):
    """Where synchronous work runs: each lane has a few threads of its own, so that none can starve another."""

    READ = "read"
    WRITE = "write"
    BYTES = "bytes"


# Few threads: SQLite and the interpreter gain nothing from many (forty threads measured a third of the throughput of
# four). Byte work waits for disks and slow clients, so it has more.
_THREADS = {Lane.READ: 4, Lane.WRITE: 4, Lane.BYTES: 16}


class Lanes:
    """The thread limiters of one server, made inside its event loop on first use."""

    def __init__(self) -> None:
        """Make none yet."""
        self._limiters: dict[Lane, anyio.CapacityLimiter] = {}

    def __getitem__(self, lane: Lane) -> anyio.CapacityLimiter:
        """Return a lane's limiter."""
        if lane not in self._limiters:
            self._limiters[lane] = anyio.CapacityLimiter(_THREADS[lane])
        return self._limiters[lane]


def registry_of(request: AnyRequest) -> Registry:
    """Return the registry this server serves."""
    registry: Registry = request.scope["app"].state.registry
    return registry


def choose_request_id(given: bytes | None) -> str:
    """Return the id a request goes by: what its X-Request-Id says if that is plain, else a fresh one."""
    if given is not None:
        text = given.decode("latin-1")
        if _REQUEST_ID.fullmatch(text):
            return text
    return secrets.token_hex(8)


def request_id_of(request: AnyRequest) -> str:
    """Return the request's id, which the guard chose when the request came in."""
    found: str = request.scope["state"]["request_id"]
    return found


def principal_of(request: AnyRequest) -> Principal:
    """Return who asks. On an open server that is nobody in particular, and unverified."""
    return Principal(PrincipalKind.ANONYMOUS, "anonymous", None, verified=False, request_id=request_id_of(request))


async def call(
    request: AnyRequest,
    lane: Lane,
    service: Callable[Concatenate[Registry, Principal, P], T],
    *args: P.args,
    **kwargs: P.kwargs,
) -> T:
    """Run a service in a thread of a lane, for whoever sent the request."""
    registry, who = registry_of(request), principal_of(request)
    return await run(request, lane, lambda: service(registry, who, *args, **kwargs))


async def run(request: AnyRequest, lane: Lane, function: Callable[[], T]) -> T:
    """Run any synchronous function in a thread of a lane."""
    lanes: Lanes = request.app.state.lanes
    return await anyio.to_thread.run_sync(function, limiter=lanes[lane])


async def call_inline(
    request: AnyRequest,
    service: Callable[Concatenate[Registry, Principal, P], T],
    *args: P.args,
    **kwargs: P.kwargs,
) -> T:
    """Run a bounded point read: on the event loop where the database is a local file, else in the READ lane."""
    registry = registry_of(request)
    if registry.database.is_local:
        return service(registry, principal_of(request), *args, **kwargs)
    return await call(request, Lane.READ, service, *args, **kwargs)


# ── answers about the catalogue ──────────────────────────────────────────────────────────────────────────────────


class Answers:
    """Whole answers to reads of the catalogue, each good as long as the log has not grown since it was made.

    Every change of the catalogue is an entry of the log, and commits with it, in whatever process. So an answer that was
    made when the log had n entries is what would be made now, if it still has n: one look at its head instead of the
    question's own statements. Answers that depend on anything else (tracking, the clock, headers) must not go in.
    """

    def __init__(self, limit_bytes: int = ANSWERS_LIMIT_BYTES) -> None:
        """Hold nothing yet, and never more than `limit_bytes`; the answer not asked for longest goes first."""
        self._limit_bytes, self._bytes = limit_bytes, 0
        self._kept: dict[tuple[str, ...], tuple[int, bytes]] = {}

    def find(self, key: tuple[str, ...], log_size: int) -> bytes | None:
        """Return the answer kept under a key, if it was made when the log had `log_size` entries."""
        kept = self._kept.get(key)
        if kept is None or kept[0] != log_size:
            return None
        self._kept[key] = self._kept.pop(key)
        return kept[1]

    def keep(self, key: tuple[str, ...], log_size: int, body: bytes) -> None:
        """Keep an answer made after the log was seen to have `log_size` entries."""
        if len(body) > self._limit_bytes // 16:
            return
        before = self._kept.pop(key, None)
        if before is not None:
            self._bytes -= _size_of(key, before[1])
        self._kept[key] = (log_size, body)
        self._bytes += _size_of(key, body)
        while self._bytes > self._limit_bytes:
            oldest = next(iter(self._kept))
            self._bytes -= _size_of(oldest, self._kept.pop(oldest)[1])


def _size_of(key: tuple[str, ...], body: bytes) -> int:
    return _ENTRY_BYTES + sum(map(len, key)) + len(body)  # a query may be longer than its answer


class SharedLook:
    """One look at something far away for all who asked before it began: none of them sees less than was there when he asked.

    Whoever asks while a look is under way waits for the next one, for that one may have seen what was there before he asked.
    """

    def __init__(self, look: Callable[[], Awaitable[int]]) -> None:
        """Take how to look. Nothing is asked yet."""
        self._look = look
        self._next: asyncio.Future[int] | None = None
        self._looking: asyncio.Task[None] | None = None

    async def get(self) -> int:
        """Return what a look that begins now, or as soon as the one under way ends, sees. Raises what it raises."""
        if self._next is None:
            self._next = asyncio.get_running_loop().create_future()
            if self._looking is None:
                self._looking = asyncio.create_task(self._go_on())
        return await asyncio.shield(self._next)  # who goes away takes nobody's answer along

    async def _go_on(self) -> None:
        try:
            while self._next is not None:
                asked, self._next = self._next, None
                try:
                    asked.set_result(await self._look())
                except Exception as error:  # noqa: BLE001 - it is those who asked who raise it
                    asked.set_exception(error)
                    asked.exception()  # seen, also if all of them went away
                except BaseException:  # the server ends
                    asked.cancel()
                    raise
        finally:
            self._looking = None


def look_at_log(registry: Registry, lanes: Lanes) -> SharedLook:
    """Return the look at the log's size that a server's requests share."""
    return SharedLook(lambda: anyio.to_thread.run_sync(registry.get_log_size, limiter=lanes[Lane.READ]))


async def get_log_size(request: AnyRequest) -> int:
    """Return how many entries the log has."""
    registry = registry_of(request)
    if registry.database.is_local:
        return registry.get_log_size()
    look: SharedLook = request.app.state.log_look
    return await look.get()


# ── bodies ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def stream_body(request: AnyRequest) -> AsyncIterator[bytes]:
    """Yield the body as it comes.

    Raises InvalidFieldError if the client goes away before its end, BusyError if nothing comes for IDLE_SECONDS: whoever
    waits for a silent client waits for ever, and the answer lets one that only lost its network try again.

    Litestar's own wants a route of Litestar's, and MLflow's door has none.
    """
    state = request.scope.setdefault("state", {})
    while not state.get(_BODY_OVER):
        try:
            async with asyncio.timeout(IDLE_SECONDS):
                event = await request.receive()
        except TimeoutError:
            state[_BODY_OVER] = True
            raise BusyError(f"Nothing more of the body came for {IDLE_SECONDS:g} seconds: send it again.") from None
        if event["type"] == "http.disconnect":
            state[_BODY_OVER] = True
            raise InvalidFieldError(field="body", reason="it broke off or is framed wrongly")
        state[_BODY_OVER] = not event.get("more_body", False)
        chunk: bytes = event.get("body", b"")  # type: ignore[assignment]
        if chunk:
            yield chunk


async def stream_pieces(request: AnyRequest, limit_bytes: int) -> AsyncIterator[bytes]:
    """Yield an upload's body in pieces of PIECE_BYTES or a little more; only the last is shorter, and none is empty.

    A hop to a thread costs more than copying together what the network gives. Raises as `stream_body` does, and
    LimitExceededError, before anything is read if the client says how much it will send.
    """
    refusal = LimitExceededError(what="One upload", limit=limit_bytes, unit="bytes")
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit_bytes:
        raise refusal
    gathered: list[bytes] = []
    size = total = 0
    async for chunk in stream_body(request):
        gathered.append(chunk)
        size += len(chunk)
        total += len(chunk)
        if total > limit_bytes:
            raise refusal
        if size >= PIECE_BYTES:
            yield b"".join(gathered)
            gathered.clear()
            size = 0
    if gathered:
        yield b"".join(gathered)


async def write_pieces(request: AnyRequest, pieces: AsyncIterator[bytes], write: Callable[[bytes], None]) -> None:
    """Write pieces in the BYTES lane, one after the other, each while the next one is read from the network.

    Nothing is being written any more when this ends, however it ends. Raises what `pieces` and `write` raise.
    """
    writing: asyncio.Future[None] | None = None
    try:
        async for piece in pieces:
            if writing is not None:
                await _join(writing)
            writing = asyncio.ensure_future(run(request, Lane.BYTES, partial(write, piece)))
    finally:
        if writing is not None:
            with anyio.CancelScope(shield=True):
                await _join(writing)


async def _join(work: asyncio.Future[T]) -> T:
    """Wait for work in a thread, which goes on when whoever waits is cancelled."""
    await asyncio.wait({work})
    return work.result()


async def drain_body(request: AnyRequest) -> None:
    """Read and drop what is left of a refused body, up to DRAINED_BYTES.

    A client that still sends when the connection is cut may not see why, and sends everything again.
    """
    size = 0
    with contextlib.suppress(TouchmarkError):
        async for chunk in stream_body(request):
            size += len(chunk)
            if size > DRAINED_BYTES:
                return


async def read_body(request: AnyRequest, limit_bytes: int = BODY_LIMIT_BYTES) -> bytes:
    """Return the whole body, of which no more than the limit is kept in memory.

    Raises LimitExceededError, and as `stream_body` does.
    """
    declared = request.headers.get("content-length", "0")
    expected = int(declared) if declared.isdigit() else 0
    chunks: list[bytes] = []
    size = 0
    if expected <= DRAINED_BYTES:
        async for chunk in stream_body(request):
            size += len(chunk)
            if size > DRAINED_BYTES:
                break
            if size <= limit_bytes:
                chunks.append(chunk)
    if max(size, expected) > limit_bytes:
        raise LimitExceededError(what="The body", limit=limit_bytes, unit="bytes")
    return b"".join(chunks)


async def read_json_body(request: AnyRequest, limit_bytes: int = BODY_LIMIT_BYTES) -> dict[str, Any]:
    """Return the body as a JSON object: no duplicate keys, no NaN, no deep nesting, no half surrogates (RFC 8259, I-JSON).

    An empty body is an empty object. Raises InvalidFieldError, LimitExceededError.
    """
    return parse_json(await read_body(request, limit_bytes))


def parse_json(body: bytes) -> dict[str, Any]:
    """Return bytes as a JSON object, under the rules of `read_json_body`. Raises InvalidFieldError."""
    if not body.strip():
        return {}
    if body.count(b"[") + body.count(b"{") > JSON_DEPTH:
        _check_depth(body)
    try:
        # Decoded here: json would guess UTF-16 and let encoded surrogates through (RFC 8259, 8.1 wants UTF-8).
        value = json.loads(
            body.decode(), object_pairs_hook=_no_duplicates, parse_constant=_no_constant, parse_float=_finite
        )
    except UnicodeDecodeError:
        raise InvalidFieldError(field="body", reason="write UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise InvalidFieldError(field="body", reason=f"it is no JSON: {str(error)[:200]}") from None
    if not isinstance(value, dict):
        raise InvalidFieldError(field="body", reason="write a JSON object")
    if b"\\u" in body and _has_surrogate(value):
        raise InvalidFieldError(field="body", reason="it holds half of a surrogate pair")
    return value


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]} is beyond what a number can hold")
    return value


def _check_depth(body: bytes) -> None:
    # Strings and all but brackets are dropped in C first: a byte at a time, 4 MiB would hold the event loop for 0.4 s.
    brackets = _QUOTED.sub(b"", body).translate(None, _NO_BRACKET)
    if len(brackets) > 2 * JSON_NODES:  # 4 MiB of `[],` take more than a second to build
        raise InvalidFieldError(field="body", reason=f"it holds more than {JSON_NODES} lists and objects")
    depth = 0
    for bracket in brackets:
        depth += 1 if bracket in b"[{" else -1
        if depth > JSON_DEPTH:
            raise InvalidFieldError(field="body", reason=f"it is nested deeper than {JSON_DEPTH}")


def _has_surrogate(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    return False


# ── conditions and ranges ────────────────────────────────────────────────────────────────────────────────────────


def alias_condition(request: AnyRequest) -> int | None:
    """Return the log index an alias must be at: If-Match gives it, If-None-Match: * gives -1, neither gives None.

    RFC 9110, 13.1. Raises InvalidFieldError for weak tags, lists and anything that is no log index.
    """
    match, none_match = request.headers.get("if-match"), request.headers.get("if-none-match")
    if match is not None and none_match is not None:
        raise InvalidFieldError(field="If-Match", reason="send either If-Match or If-None-Match")
    if none_match is not None:
        if none_match.strip() != "*":
            raise InvalidFieldError(field="If-None-Match", reason="only * is understood: there must be no such alias")
        return -1
    if match is None:
        return None
    found = _QUOTED_INDEX.fullmatch(match.strip())
    if found is None:
        raise InvalidFieldError(field="If-Match", reason='write the ETag you were given, such as "17"')
    return int(found.group(1))


class RangeNotSatisfiableError(Exception):
    """A range that begins after the end (RFC 9110, 14.4). `size_bytes` goes into Content-Range."""

    def __init__(self, size_bytes: int) -> None:
        """Keep the size."""
        super().__init__(size_bytes)
        self.size_bytes = size_bytes


def parse_range(header: str | None, size_bytes: int) -> tuple[int, int] | None:
    """Return (offset, length) of a single byte range, or None to send everything (RFC 9110, 14.1.2).

    Anything else than one well-formed range is ignored, as the RFC allows. Raises RangeNotSatisfiableError.
    """
    found = _RANGE.fullmatch(header.strip()) if header else None
    if found is None:
        return None
    first, last = found.groups()
    if not first and not last:
        return None
    if not first:
        length = min(int(last), size_bytes)
        if length == 0:
            raise RangeNotSatisfiableError(size_bytes)
        return size_bytes - length, length
    start = int(first)
    if last and int(last) < start:
        return None
    if start >= size_bytes:
        raise RangeNotSatisfiableError(size_bytes)
    end = min(int(last), size_bytes - 1) if last else size_bytes - 1
    return start, end - start + 1


# ── streaming ────────────────────────────────────────────────────────────────────────────────────────────────────


async def stream_blob(
    request: AnyRequest, blob: ReadableBlob, headers: Mapping[str, str] | None = None
) -> ASGIResponse:
    """Return the answer to GET or HEAD of a blob: all of it, one range of it (RFC 9110, 14), or "you have it" (13.1.2).

    What is sent is always an attachment of no particular type: a stored page must never run in a browser. `headers` are
    added. A blob sent whole is hashed on the way; if it rotted, the connection is cut before its last chunk, so that the
    client sees less than Content-Length. With the setting `presign`, one in a bucket is fetched from there (307), and is
    the client's to check. Raises BlobNotFoundError if the store has lost it.
    """
    etag = f'"{blob.digest}"'
    shared = {
        "accept-ranges": "bytes",
        "cache-control": "private, max-age=31536000, immutable",
        "content-disposition": "attachment",
        "etag": etag,
        "x-content-type-options": "nosniff",
        **(headers or {}),
    }
    if is_held(request.headers.get("if-none-match"), etag):
        return ASGIResponse(status_code=304, headers=shared)
    kind = "application/octet-stream"
    if request.method == "HEAD":  # Range is for GET alone (14.2)
        shared |= {"content-length": str(blob.size_bytes), "content-type": kind}
        return ASGIResponse(headers=shared, is_head_response=True)
    part = None
    if request.headers.get("if-range", etag) == etag:
        try:
            part = parse_range(request.headers.get("range"), blob.size_bytes)
        except RangeNotSatisfiableError:
            return ASGIResponse(
                status_code=416, headers={"accept-ranges": "bytes", "content-range": f"bytes */{blob.size_bytes}"}
            )
    if part is None and request.app.state.presign:
        address = await run(request, Lane.BYTES, blob.sign)
        if address is not None:
            return ASGIResponse(status_code=307, headers={"location": address, "cache-control": "no-store"})
    if part is None:
        chunks = await run(request, Lane.BYTES, lambda: _begin(blob.stream()))
        return BlobResponse(request, chunks, headers=shared, content_length=blob.size_bytes, media_type=kind)
    offset, length = part
    shared["content-range"] = f"bytes {offset}-{offset + length - 1}/{blob.size_bytes}"
    chunks = await run(request, Lane.BYTES, lambda: _begin(blob.stream_range(offset, length)))
    return BlobResponse(request, chunks, status_code=206, headers=shared, content_length=length, media_type=kind)


def is_held(header: str | None, etag: str) -> bool:
    """Answer whether If-None-Match names `etag` (RFC 9110, 13.1.2: weak comparison, a list, or `*`)."""
    if header is None:
        return False
    return any(tag.strip().removeprefix("W/") in {etag, "*"} for tag in header.split(","))


def _begin(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Fetch the first chunks before an answer is begun, so that damage found in them can still be answered as an error."""
    first = _take(chunks)

    def resume() -> Iterator[bytes]:
        try:
            yield from first
            first.clear()
            yield from chunks
        finally:
            if isinstance(chunks, Generator):
                chunks.close()

    return resume()


def _take(chunks: Iterator[bytes]) -> list[bytes]:
    return list(islice(chunks, _CHUNKS_AT_ONCE))


class BlobResponse(ASGIResponse):
    """A blob on its way out: chunks are fetched in the BYTES lane while those before them are handed to the network.

    A client that takes nothing holds those under way, those behind them and what granian queues, and no thread.
    """

    __slots__ = ("_chunks", "_request")

    def __init__(self, request: AnyRequest, chunks: Iterator[bytes], **more: Any) -> None:
        """Take over an open stream."""
        super().__init__(**more)
        self._request, self._chunks = request, chunks

    async def send_body(self, send: Send, receive: Receive) -> None:
        """Send the chunks, and give the file back whatever happens."""
        chunks = self._chunks
        # granian drops what is sent after the client left, so without this a 100 GB blob is read to its end for nobody.
        gone = asyncio.ensure_future(_wait_for_disconnect(receive))
        fetching = self._fetch()
        try:
            while not gone.done():
                found = await _join(fetching)
                if not found:
                    await send({"type": "http.response.body", "body": b"", "more_body": False})
                    break
                fetching = self._fetch()
                for chunk in found:
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
        finally:
            gone.cancel()
            with anyio.CancelScope(shield=True):
                await asyncio.wait({fetching})
            if not fetching.cancelled():
                fetching.exception()  # told already, or of a chunk nobody waits for
            if isinstance(chunks, Generator):
                chunks.close()

    def _fetch(self) -> asyncio.Future[list[bytes]]:
        return asyncio.ensure_future(run(self._request, Lane.BYTES, partial(_take, self._chunks)))


async def _wait_for_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


# ── errors ───────────────────────────────────────────────────────────────────────────────────────────────────────


def look_up(table: Mapping[type[TouchmarkError], T], error: TouchmarkError) -> T:
    """Return the line of a protocol's table for an error: that of the nearest class along its MRO."""
    for cls in type(error).__mro__:
        if cls in table:
            return table[cls]
    raise KeyError(type(error).__name__)

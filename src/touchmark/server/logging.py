"""The server's log: one line a request on standard error, as text or JSON, safe against control characters."""

from __future__ import annotations

import asyncio
import json
import sys
import time
import traceback
from datetime import UTC, datetime
from json.encoder import encode_basestring_ascii


def log_request(format_name: str, **fields: str | float) -> None:
    """Write one line. JSON escapes control characters; in text each value is written as JSON writes it."""
    fields = {"at": datetime.now(UTC).isoformat(timespec="milliseconds"), **fields}
    # JSON's own encoder of texts alone: json.dumps for a line of six values takes as long as a query of the database
    shown = {key: encode_basestring_ascii(value) if isinstance(value, str) else value for key, value in fields.items()}
    if format_name == "json":
        line = "{" + ", ".join([f'"{key}": {value}' for key, value in shown.items()]) + "}\n"
    else:
        line = " ".join([f"{key}={value}" for key, value in shown.items()]) + "\n"
    if not _waiting:
        asyncio.get_running_loop().call_soon(_write)
    _waiting.append(line)


# Lines of requests that end in the same turn of the loop go out together: a write gives up the interpreter's lock, and with
# 32 connections getting it back took 25 µs, as much as reading a model.
_waiting: list[str] = []


def _write() -> None:
    lines = "".join(_waiting)
    _waiting.clear()
    sys.stderr.write(lines)


def seconds_since(start: float) -> float:
    """Return the seconds since a `time.perf_counter()` reading, to a tenth of a millisecond."""
    return round(time.perf_counter() - start, 4)


def log_failure(error: BaseException, request_id: str | None) -> None:
    """Write what went wrong where, on one line of JSON: a trace quotes values that came from outside."""
    trace = "".join(traceback.format_exception(error))
    at = datetime.now(UTC).isoformat(timespec="milliseconds")
    sys.stderr.write(
        json.dumps({"at": at, "failure": type(error).__name__, "request": request_id, "trace": trace}) + "\n"
    )


def log_warning(text: str) -> None:
    """Write what an operator should know and nobody's request failed for, on one line of JSON."""
    at = datetime.now(UTC).isoformat(timespec="milliseconds")
    sys.stderr.write(json.dumps({"at": at, "warning": text}) + "\n")

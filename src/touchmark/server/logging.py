"""The server's log: one line a request on standard error, as text or JSON, safe against control characters."""

from __future__ import annotations

import json
import sys
import time
import traceback
from datetime import UTC, datetime
from typing import Any


def log_request(format_name: str, **fields: Any) -> None:
    """Write one line. JSON escapes control characters; in text each value is written as JSON writes it."""
    fields = {"at": datetime.now(UTC).isoformat(timespec="milliseconds"), **fields}
    if format_name == "json":
        line = json.dumps(fields)
    else:
        line = " ".join(
            f"{key}={value if isinstance(value, int | float) else json.dumps(value)}" for key, value in fields.items()
        )
    sys.stderr.write(line + "\n")


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

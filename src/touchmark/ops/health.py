"""Is this registry able to serve? The database answers at the schema we know, and bytes can be written."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime

from touchmark.domain.access import SYSTEM
from touchmark.domain.errors import BusyError
from touchmark.registry import Registry
from touchmark.services.log import get_head
from touchmark.storage.migrations import HEAD


def check_health(registry: Registry) -> str:
    """Return the schema's revision.

    Raises BusyError, whatever is wrong, with a sentence that names nothing of this machine: anybody may ask. What is wrong
    goes to standard error, on one line of JSON.
    """
    try:
        get_head(registry, SYSTEM)
        registry.blobs.check_writable()
    except Exception as error:
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        sys.stderr.write(json.dumps({"at": at, "health": f"{type(error).__name__}: {error}"[:2000]}) + "\n")
        message = "Not healthy: the database or the store of files does not work; the server's log says what is wrong."
        raise BusyError(message) from error
    return HEAD

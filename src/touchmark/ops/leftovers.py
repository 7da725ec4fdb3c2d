"""What uploads that nobody goes on with have left, in rows and beside the blobs: dropped while a server runs.

What lives here: how old is too old. What must not: when it is asked (server/app.py).
"""

from __future__ import annotations

from touchmark.domain.access import SYSTEM
from touchmark.registry import Registry
from touchmark.services.uploads import STALE_SECONDS, drop_stale_uploads

STAGING_SECONDS = STALE_SECONDS + 24 * 3600
"""How long bytes are kept that were not written to; longer than rows, so that a row's bytes never go before it."""


def drop_leftovers(registry: Registry) -> tuple[int, int]:
    """Drop uploads nothing was sent for in STALE_SECONDS, then bytes no upload has; return how many of each.

    Raises BusyError.
    """
    uploads = drop_stale_uploads(registry, SYSTEM, registry.clock() - STALE_SECONDS * 1_000_000)
    return uploads, registry.blobs.sweep_staging(STAGING_SECONDS)

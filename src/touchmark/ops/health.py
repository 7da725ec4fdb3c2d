"""Is this registry able to serve? The database answers at the schema we know, and bytes can be written."""

from __future__ import annotations

from touchmark.domain.access import SYSTEM
from touchmark.registry import Registry
from touchmark.services.log import get_head
from touchmark.storage.migrations import HEAD


def check_health(registry: Registry) -> str:
    """Return the schema's revision. Raises BusyError, CorruptError, StorageFullError, or what the store raises."""
    get_head(registry, SYSTEM)
    registry.blobs.check_writable()
    return HEAD

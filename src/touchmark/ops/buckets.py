"""Whether a bucket is fit to hold a registry's files, asked of the bucket itself when a server starts.

What lives here: what is refused, and how it is told. How a bucket is tried stands in artifacts/bucket.py.
"""

from __future__ import annotations

from pathlib import Path

from touchmark.artifacts.open_store import check_address, open_store
from touchmark.domain.errors import UnsupportedHomeError
from touchmark.ops.setup import ARTIFACTS_FILE
from touchmark.registry import Registry
from touchmark.storage import ledger


def check_reachable(artifacts: str) -> None:
    """Ask a bucket for a key, before a home and a database remember its address for good.

    Raises InvalidFieldError for what is no address, BusyError if the bucket does not answer, is not there or is closed to us.
    """
    next(open_store(check_address(artifacts)).list_blobs(), None)


def check_bucket(registry: Registry, home: Path) -> str | None:
    """Try the bucket a registry's files are in, make it this registry's, and return a line that says what it does.

    None if files are not in a bucket. Raises UnsupportedHomeError if it cannot hold them or belongs to another registry,
    BusyError if it does not answer.
    """
    if not (home / ARTIFACTS_FILE).is_file():
        return None
    from touchmark.artifacts.bucket import BucketBlobStore

    assert isinstance(registry.blobs, BucketBlobStore)  # noqa: S101 - ops/setup.open_blobs makes nothing else of that file
    place = (home / ARTIFACTS_FILE).read_text().strip()
    traits = registry.blobs.probe()
    tried = {
        "multipart": traits.multipart, "copy": traits.copy, "conditional put": traits.conditional_put,
        "versioning": traits.versioning, "presign": traits.presign,
    }  # fmt: skip
    found = ", ".join(f"{what} {'yes' if works else 'NO'}" for what, works in tried.items())
    if not (traits.multipart and traits.copy):
        raise UnsupportedHomeError(home=str(home), reason=f"{place} cannot hold its files ({found})")
    with registry.read() as tx:
        _head, _root, registry_id = ledger.get_head(tx)
    owner = registry.blobs.claim(registry_id)
    if owner != registry_id:
        reason = f"{place} holds the files of another registry ({owner[:100]}): each needs a place of its own"
        raise UnsupportedHomeError(home=str(home), reason=reason)
    return f"Files are in {place} ({found})."

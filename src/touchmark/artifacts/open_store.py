"""From an address to a blob store: `s3://BUCKET[/PREFIX]`, `gs://…`, `az://…`, or a folder.

Credentials and endpoints come from the environment, by the names the clouds' own tools use (`AWS_ACCESS_KEY_ID`,
`AWS_ENDPOINT`, `GOOGLE_SERVICE_ACCOUNT`, `AZURE_STORAGE_ACCOUNT_NAME` …; obstore's documentation lists them), or from the
machine's own role. They are never in the address, which is written down and shown.
"""

from __future__ import annotations

import os
import re
from datetime import timedelta
from pathlib import Path

from touchmark.artifacts.blobs import BlobStore
from touchmark.artifacts.local import LocalBlobStore
from touchmark.domain.errors import BusyError, InvalidFieldError

SCHEMES = ("s3", "gs", "az")

_ADDRESS = re.compile(r"(?:s3|gs|az)://[A-Za-z0-9][A-Za-z0-9._-]*(?:/[A-Za-z0-9._/-]*)?")


def check_address(address: str) -> str:
    """Return a bucket's address as it is kept. Raises InvalidFieldError."""
    found = address.rstrip("/")
    if _ADDRESS.fullmatch(found) is None or ".." in found or "//" in found.partition("://")[2]:
        reason = "write s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX, credentials in the environment"
        raise InvalidFieldError(field="artifacts", reason=reason)
    return found


def open_store(address: str | Path) -> BlobStore:
    """Open the store at an address that was checked, or in a folder. Nothing is sent yet.

    A request is tried again for half a minute at most, and ends after two without an answer.
    Raises BusyError if what the environment says cannot be.
    """
    if isinstance(address, Path):
        return LocalBlobStore(address)
    # Imported here: a registry in a folder starts without it.
    from obstore.exceptions import BaseError  # noqa: PLC0415
    from obstore.store import from_url  # noqa: PLC0415

    from touchmark.artifacts.bucket import BucketBlobStore  # noqa: PLC0415

    try:
        bucket = from_url(
            address,
            client_options={
                "connect_timeout": timedelta(seconds=10),
                "timeout": timedelta(seconds=120),
                # Options given here hide those of the environment.
                "allow_http": os.environ.get("AWS_ALLOW_HTTP", "").lower() in {"1", "true"},
            },
            retry_config={"max_retries": 5, "retry_timeout": timedelta(seconds=30)},
        )
    except (BaseError, ValueError) as error:
        reason = str(error).splitlines()[0][:300] if str(error) else type(error).__name__
        raise BusyError(f"The store at {address} cannot be opened: {reason}") from None
    return BucketBlobStore(bucket)

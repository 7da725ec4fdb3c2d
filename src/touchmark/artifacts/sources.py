"""Reading somebody else's bucket, for an import: what lies below a key, and the bytes of one object from an offset on.

Only reading, and only through the proxy that the caller gives: it holds every connection against the allow-list, which
obstore itself would not (it looks hosts up by itself and follows redirects). What must not live here: what is allowed,
what becomes of the bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import obstore
from obstore import exceptions
from obstore.store import AzureStore, GCSStore, ObjectStore, S3Store

from touchmark.domain.errors import BusyError, DeniedError, InvalidError, LimitExceededError, NotFoundError

READ_SECONDS = 60
"""How long a bucket may be silent."""
_CHUNK_BYTES = 1 << 20
_STATUS = re.compile(r"non-2xx status code: ([0-9]{3})")


@dataclass(frozen=True, slots=True)
class ForeignObject:
    """An object: its key, its size in bytes, and its ETag, which says that the bytes are still the same."""

    key: str
    size_bytes: int
    etag: str | None


class ForeignBucket:
    """One bucket or container of S3, Google Cloud Storage (`gs`) or Azure (`az`). From any thread."""

    def __init__(
        self, scheme: str, place: str, *, endpoint: str | None, options: Mapping[str, str], proxy_url: str
    ) -> None:
        """Open it; nothing is sent yet. Raises InvalidError for options nobody knows."""
        client: Any = {
            "proxy_url": proxy_url, "allow_http": endpoint is not None and endpoint.startswith("http://"),
            "connect_timeout": "10s", "read_timeout": f"{READ_SECONDS}s", "timeout": "30d", "pool_idle_timeout": "20s",
        }  # fmt: skip
        retry: Any = {"max_retries": 3, "retry_timeout": timedelta(seconds=30)}
        config: dict[str, Any] = dict(options)
        container, _, account = place.partition("@")
        names = {"s3": "aws_endpoint", "gs": "google_base_url", "az": "azure_storage_endpoint"}
        if endpoint is not None and "endpoint" not in " ".join(config).lower() and "base_url" not in config:
            config[names[scheme]] = endpoint
        if account:
            config["azure_storage_account_name"] = account.partition(".")[0]
        make: Any = {"s3": S3Store, "gs": GCSStore, "az": AzureStore}[scheme]
        try:
            self._store: ObjectStore = make(container, config=config, client_options=client, retry_config=retry)
        except (exceptions.BaseError, ValueError, TypeError) as error:
            raise InvalidError(f"The options of {scheme}://{place} do not open it: {_shorten(error)}") from None

    def list_objects(self, key: str, limit: int) -> list[ForeignObject]:
        """Return every object below a key that is a folder, or the one object of that key; sorted, none if there is none.

        Raises LimitExceededError for more than `limit`, DeniedError, BusyError, InvalidError.
        """
        found: list[ForeignObject] = []
        with _errors():
            for page in obstore.list(self._store, prefix=key or None):
                # What some tools write for a folder is no file.
                found += [_to_object(item) for item in page if item["size"] or item["path"] != key]
                if len(found) > limit:
                    raise LimitExceededError(what="What is imported at once", limit=limit, unit="files")
            if not found and key:
                with suppress(FileNotFoundError):
                    found.append(_to_object(obstore.head(self._store, key)))
        return sorted(found, key=lambda item: item.key)

    @contextmanager
    def open_object(self, item: ForeignObject, offset: int) -> Iterator[Iterator[bytes]]:
        """Open an object that was listed, from an offset on; the iterator raises BusyError where it breaks off.

        Raises NotFoundError, DeniedError, BusyError, and InvalidError if it is another object by now.
        """
        options: Any = {} if item.etag is None else {"if_match": item.etag}
        if offset:
            options["range"] = {"offset": offset}
        with _errors():
            result = obstore.get(self._store, item.key, options=options)
            if result.meta["size"] != item.size_bytes or result.range[0] != offset:
                raise InvalidError(f"{item.key!r} changed while it was imported.")

            def iterate() -> Iterator[bytes]:
                with _errors():
                    for chunk in result.stream(min_chunk_size=_CHUNK_BYTES):
                        yield bytes(chunk)

            yield iterate()


def _to_object(meta: Any) -> ForeignObject:
    return ForeignObject(meta["path"], meta["size"], meta["e_tag"])


@contextmanager
def _errors() -> Iterator[None]:
    """Turn obstore's errors into ours."""
    try:
        yield
    except (exceptions.NotFoundError, FileNotFoundError) as error:
        raise NotFoundError(f"There is nothing: {_shorten(error)}") from None
    except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError) as error:
        raise DeniedError(f"The bucket does not let us read: {_shorten(error)}") from None
    except (exceptions.PreconditionError, exceptions.NotModifiedError):
        raise InvalidError("An object changed while it was imported.") from None
    except (exceptions.InvalidPathError, exceptions.NotSupportedError) as error:
        raise InvalidError(f"A key cannot be read: {_shorten(error)}") from None
    except (exceptions.BaseError, OSError) as error:
        found = _STATUS.search(_shorten(error))  # of a list, obstore tells what the server says in words only
        if found is not None and found[1] in {"401", "403"}:
            raise DeniedError(f"The bucket does not let us read (HTTP {found[1]}).") from None
        if found is not None and found[1] == "404":
            raise NotFoundError("There is no such bucket (HTTP 404).") from None
        raise BusyError(f"The bucket does not answer: {_shorten(error)}") from None


def _shorten(error: BaseException) -> str:
    """Return the first line of what obstore says: below it is how it looks inside."""
    return str(error).partition("\n")[0].strip()[:400]

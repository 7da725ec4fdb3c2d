"""Uploads that go straight to the bucket: clients put parts at signed addresses, and the whole counts once it was read here.

What lies at a signed address is nobody's word: whoever has the address may write there again until it expires, more than was
announced, or something else. So the parts are read once, in order, and what is hashed is written to a key that no address
was ever signed for; that copy becomes the blob if it has the digest and the size that were announced (the same writer as for
an upload through the server). Blobs' own keys are never signed for writing.

One request at a time reads the parts, of whichever server: the row says that one does and how far it is, written anew every
BEAT_SECONDS. One that was killed is not waited for longer than `storage.uploads.CLAIM_SECONDS`.

An upload is dropped by `uploads.drop_stale_uploads`, a week after it began; what is put at an address afterwards, with the staging.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
from dataclasses import dataclass
from typing import Self

from touchmark import permissions
from touchmark.artifacts.blobs import BlobWriter, StoredBlob
from touchmark.domain.access import Action, Principal, Resource
from touchmark.domain.digest import Digest
from touchmark.domain.errors import (
    BlobNotFoundError,
    BusyError,
    DigestMismatchError,
    InvalidFieldError,
    LimitExceededError,
    TouchmarkError,
    UnsupportedError,
    UploadNotFoundError,
)
from touchmark.domain.repositories import Repository, parse_repository
from touchmark.registry import Registry
from touchmark.services.blobs import SIGNED_SECONDS, canonical_path, find_model_id
from touchmark.services.uploads import PARTS_LIMIT, check_upload_id
from touchmark.storage import blobs, uploads

PART_BYTES = 16 << 20
"""The size of a part: what a cut costs at most, of each part under way. Larger where there would be more than PARTS_LIMIT.

It is not noted anywhere: another size ends what is under way, which then begins again.
"""
ADDRESSES_LIMIT = 64
"""Addresses in one answer: a gibibyte of parts, which most connections send before the addresses expire."""
BEAT_SECONDS = 2.0
"""How often whoever reads the parts says how far that is."""


@dataclass(frozen=True, slots=True)
class MissingPart:
    """A part that is not there: its number from 1, which bytes it has, and where to PUT them."""

    number: int
    offset: int
    size_bytes: int
    address: str


@dataclass(frozen=True, slots=True)
class DirectUpload:
    """How far an upload is: the bytes of whole parts, and the first of the parts that are missing.

    While the parts are read (`is_finishing`), `read_bytes` says how far that is; nothing is missing then.
    """

    upload_id: str
    digest: Digest
    size_bytes: int
    sent_bytes: int
    read_bytes: int
    is_finishing: bool
    missing: list[MissingPart]


def begin_direct_upload(
    registry: Registry,
    who: Principal,
    repository: Repository,
    digest: Digest,
    size_bytes: int,
    limit_bytes: int,
    *,
    presign: bool = True,
) -> DirectUpload:
    """Begin an upload of `size_bytes` that must have this digest, and return the first addresses.

    Raises ManifestNotFoundError, RunNotFoundError, RunDeletedError, LoggedModelNotFoundError if there is no such repository,
    InvalidFieldError, LimitExceededError if it is more than `limit_bytes`, UnsupportedError for a
    store that signs no addresses and without `presign`, BusyError.
    """
    if size_bytes < 1:
        raise InvalidFieldError(field="size_bytes", reason="write how many bytes there are, at least one")
    if size_bytes > limit_bytes:
        raise LimitExceededError(what="One upload", limit=limit_bytes, unit="bytes")
    if not presign:
        raise UnsupportedError("This server gives out no addresses of its bucket (setting presign): upload on /v2.")
    upload_id = secrets.token_hex(32)
    missing = _sign_missing(registry, upload_id, size_bytes, {})
    with registry.track() as tx:
        permissions.require(tx, who, Action.WRITE_BLOB, Resource("repository", repository.path))
        path = canonical_path(repository, find_model_id(tx, repository))
        uploads.create_direct(tx, upload_id, path, digest, size_bytes)
    return DirectUpload(upload_id, digest, size_bytes, 0, 0, is_finishing=False, missing=missing)


def get_direct_upload(registry: Registry, who: Principal, upload_id: str) -> DirectUpload:
    """Return how far an upload is, with fresh addresses for what is missing.

    Raises UploadNotFoundError, InvalidFieldError for a part larger than it may be, which ends the upload; UnsupportedError for
    a store that signs no addresses any more, BusyError.
    """
    check_upload_id(upload_id)
    with registry.read() as tx:
        permissions.require(tx, who, Action.WRITE_BLOB, Resource("upload", upload_id))
        row = uploads.get_direct(tx, upload_id)
    if row.read_bytes:
        return DirectUpload(
            upload_id, row.digest, row.size_bytes, row.size_bytes, row.read_bytes, is_finishing=True, missing=[]
        )
    sent = _list_whole(registry, upload_id, row.size_bytes)
    missing = _sign_missing(registry, upload_id, row.size_bytes, sent)
    if missing:  # or it was finished elsewhere, and its parts dropped, between the row and the list
        with registry.read() as tx:
            uploads.get_direct(tx, upload_id)
    sent_bytes = sum(sent.values())
    return DirectUpload(upload_id, row.digest, row.size_bytes, sent_bytes, 0, is_finishing=False, missing=missing)


def finish_direct_upload(registry: Registry, who: Principal, upload_id: str) -> StoredBlob | None:
    """Read the parts, and make them a blob of the repository; the upload ends. None while another request does, here or elsewhere.

    Raises UploadNotFoundError, what `begin_direct_upload` raises of repositories, BusyError, StorageFullError; InvalidFieldError of `parts` if one is
    missing (the upload stays) or larger than it may be, of `digest` if the whole is something else: the upload ends then, for
    it cannot be told which part is wrong.
    """
    check_upload_id(upload_id)
    with registry.read() as tx:
        permissions.require(tx, who, Action.WRITE_BLOB, Resource("upload", upload_id))
        row = uploads.get_direct(tx, upload_id)
        if row.read_bytes:
            return None
        find_model_id(tx, parse_repository(row.repository))  # before all is read: what it is for may be gone
    with registry.track() as tx:
        if not uploads.claim(tx, upload_id):
            return None
    with _Claim(registry, upload_id) as claim:
        sent = _list_whole(registry, upload_id, row.size_bytes)
        parts = _list_parts(row.size_bytes)
        if len(sent) < len(parts):
            number = next(number for number, _offset, _length in parts if number not in sent)
            raise InvalidFieldError(field="parts", reason=f"part {number} is not there")
        stored = _read_and_write(registry, upload_id, row, claim)
        if stored is None:
            return None
        with registry.track() as tx:
            uploads.get_upload(tx, upload_id, lock=True)  # one that was ended meanwhile proves nothing
            blobs.record_blob(tx, row.repository, stored.digest, stored.size_bytes)
            uploads.delete_upload(tx, upload_id)
    _drop_parts(registry, upload_id)
    return stored


def abort_direct_upload(registry: Registry, who: Principal, upload_id: str) -> None:
    """End an upload and drop its parts. Raises UploadNotFoundError, BusyError."""
    with registry.track() as tx:
        permissions.require(tx, who, Action.WRITE_BLOB, Resource("upload", upload_id))
        uploads.get_upload(tx, check_upload_id(upload_id), lock=True)
        uploads.get_direct(tx, upload_id)
        uploads.delete_upload(tx, upload_id)
    _drop_parts(registry, upload_id)


class _Claim:
    """The one who reads the parts, and says so in the row; a thread does, for the bucket may take minutes to copy the whole."""

    def __init__(self, registry: Registry, upload_id: str) -> None:
        """Go on from `storage.uploads.claim`."""
        self._registry, self._upload_id = registry, upload_id
        self.done_bytes = 0
        self.is_lost = False
        self._told_bytes = 1
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="direct-upload", daemon=True)

    def _beat(self) -> None:
        while not self.is_lost and not self._is_over.wait(BEAT_SECONDS):
            self._tell(max(self.done_bytes, 1))

    def _tell(self, read_bytes: int) -> None:
        # A database that is busy or away: it is said the next time, or another reads the parts as well.
        with contextlib.suppress(TouchmarkError):
            with self._registry.track() as tx:
                self.is_lost = not uploads.advance(tx, self._upload_id, self._told_bytes, read_bytes)
            self._told_bytes = read_bytes

    def __enter__(self) -> Self:
        """Begin to say how far it is."""
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_error: object) -> None:
        """Let another begin, if it came to nothing."""
        self._is_over.set()
        self._thread.join()
        if kind is not None and not self.is_lost:
            self._tell(0)


def _drop(registry: Registry, upload_id: str) -> None:
    with registry.track() as tx:
        uploads.delete_upload(tx, upload_id)
    _drop_parts(registry, upload_id)


def _drop_parts(registry: Registry, upload_id: str) -> None:
    # A bucket may refuse while somebody still writes there. What stays is swept like all that is too old there, and must
    # not make a failure of what was done.
    with contextlib.suppress(BusyError):
        registry.blobs.drop_parts(upload_id)


def _read_and_write(registry: Registry, upload_id: str, row: uploads.Direct, claim: _Claim) -> StoredBlob | None:
    """Return the blob; None if nothing was heard of this request for so long that another began."""
    try:
        with registry.blobs.open_writer(row.size_bytes) as writer:
            for number, _offset, length in _list_parts(row.size_bytes):
                _copy_part(registry, upload_id, number, length, writer, claim)
                if claim.is_lost:
                    return None
            return writer.commit(row.digest, row.size_bytes)
    except BlobNotFoundError:  # swept or aborted meanwhile, or finished by another process
        raise UploadNotFoundError(upload_id=upload_id) from None
    except DigestMismatchError as error:
        _drop(registry, upload_id)
        raise InvalidFieldError(field="digest", reason=f"{error.message} The upload has ended") from None


def _copy_part(registry: Registry, upload_id: str, number: int, length: int, writer: BlobWriter, claim: _Claim) -> None:
    left_bytes = length
    chunks = registry.blobs.stream_sent_part(upload_id, number)
    try:
        for chunk in chunks:
            left_bytes -= len(chunk)
            if left_bytes < 0:
                break  # put there again since it was looked at, and larger: what follows is not even read
            writer.write(chunk)
            claim.done_bytes += len(chunk)
    finally:
        chunks.close()


def _list_parts(size_bytes: int) -> list[tuple[int, int, int]]:
    """Return the number, the offset and the size of each part of an upload; all but the last have one size."""
    part_bytes = max(PART_BYTES, -(-size_bytes // PARTS_LIMIT))
    starts = range(0, size_bytes, part_bytes)
    return [(number, start, min(part_bytes, size_bytes - start)) for number, start in enumerate(starts, 1)]


def _list_whole(registry: Registry, upload_id: str, size_bytes: int) -> dict[int, int]:
    """Return the sizes of the parts that are there, by number; one cut short is not. Raises InvalidFieldError, BusyError.

    A signature cannot say how much may be put at its address (obstore signs no headers), so a part that is larger than it
    may be is dropped with all of its upload as soon as somebody asks.
    """
    found = registry.blobs.list_sent_parts(upload_id)
    whole: dict[int, int] = {}
    for number, _offset, length in _list_parts(size_bytes):
        if found.get(number, 0) > length:
            _drop(registry, upload_id)
            reason = f"part {number} has {found[number]} bytes and may have {length}: begin again"
            raise InvalidFieldError(field="parts", reason=reason)
        if found.get(number) == length:
            whole[number] = length
    return whole


def _sign_missing(registry: Registry, upload_id: str, size_bytes: int, sent: dict[int, int]) -> list[MissingPart]:
    missing: list[MissingPart] = []
    for number, offset, length in _list_parts(size_bytes):
        if number in sent:
            continue
        if len(missing) == ADDRESSES_LIMIT:
            break
        address = registry.blobs.sign_part(upload_id, number, SIGNED_SECONDS)
        if address is None:
            raise UnsupportedError("This server's files are in no bucket that signs addresses: upload on /v2.")
        missing.append(MissingPart(number, offset, length, address))
    return missing

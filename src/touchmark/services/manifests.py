"""Manifests on `/v2`: read one by digest, number or alias; store one that is not registered yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from touchmark import permissions
from touchmark.artifacts.blobs import BlobStore
from touchmark.artifacts.manifests import Document, Manifest, parse_document
from touchmark.contents import FileEntry, read_contents
from touchmark.domain.access import Action, Principal, Resource
from touchmark.domain.aliases import parse_alias
from touchmark.domain.digest import Digest, digest_of, parse_digest
from touchmark.domain.errors import (
    BlobNotFoundError,
    DigestMismatchError,
    InvalidDigestError,
    InvalidManifestError,
    ManifestNotFoundError,
    NotFoundError,
)
from touchmark.domain.names import ModelName
from touchmark.domain.references import (
    AliasReference,
    LatestReference,
    ModelReference,
    VersionReference,
    parse_version_number,
)
from touchmark.domain.repositories import Repository
from touchmark.registry import Registry
from touchmark.services.blobs import canonical_path, find_model_id
from touchmark.storage import blobs, models, versions
from touchmark.storage import manifests as rows
from touchmark.storage.engine import Tx

REFERRERS_LIMIT = 1_000
"""Manifests in one page of referrers."""
REFERRERS_BYTES = 8 << 20
"""What is read to make such a page: each manifest may have 4 MiB."""


@dataclass(frozen=True, slots=True)
class StoredManifest:
    """A manifest's exact bytes, their digest and media type."""

    content: bytes
    digest: Digest
    media_type: str
    subject: Digest | None = None


def get_manifest(registry: Registry, who: Principal, repository: Repository, reference: str) -> StoredManifest:
    """Return a manifest of a model's repository by digest, version number or alias.

    Raises ManifestNotFoundError, InvalidReferenceError for a number and InvalidAliasError for a tag that can be none.
    """
    with registry.read() as tx:
        permissions.require(tx, who, Action.READ_BLOB, Resource("repository", repository.path))
        model_id = find_model_id(tx, repository)
        if model_id is None:
            raise ManifestNotFoundError(reference=reference[:300])
        digest: str | None
        if reference.startswith("sha256:"):
            try:
                digest = parse_digest(reference)
            except InvalidDigestError:  # no manifest has it, and not every database would take such a text
                raise ManifestNotFoundError(reference=reference[:300]) from None
        else:
            name = ModelName(models.get_name(tx, model_id))
            pointer = _parse_tag(name, reference)
            try:
                target = versions.find_target(tx, pointer)
            except NotFoundError:
                raise ManifestNotFoundError(reference=reference[:300]) from None
            digest = target.digest if target.deleted_at is None else None
        row = rows.find_in_repository(tx, canonical_path(repository, model_id), model_id, digest) if digest else None
        if row is None:
            raise ManifestNotFoundError(reference=reference[:300])
        return StoredManifest(row.content, Digest(row.digest), row.media_type)


def _parse_tag(name: ModelName, tag: str) -> ModelReference:
    """Return what a tag means: a version's number, `latest`, or an alias."""
    if tag.isdigit():
        return VersionReference(name, parse_version_number(tag))
    return LatestReference(name) if tag == "latest" else AliasReference(name, parse_alias(tag))


def list_manifest_tags(registry: Registry, who: Principal, repository: Repository, after: str, limit: int) -> list[str]:
    """Return the tags of a model's repository above `after`: aliases and numbers of sealed versions, by their bytes.

    Raises ManifestNotFoundError.
    """
    with registry.read() as tx:
        permissions.require(tx, who, Action.READ_BLOB, Resource("repository", repository.path))
        model_id = find_model_id(tx, repository)
        if model_id is None:
            raise ManifestNotFoundError(reference=repository.path)
        return rows.list_tags(tx, model_id, after, limit)


def list_referring(
    registry: Registry, who: Principal, repository: Repository, digest: Digest, after: str = ""
) -> tuple[list[Document], bool]:
    """Return manifests of a repository whose `subject` is `digest`, by digest, those above `after`, and whether there are more.

    As many as have REFERRERS_BYTES together, and one at least; none is no error. Raises ManifestNotFoundError if the
    repository's owner does not exist.
    """
    with registry.read() as tx:
        permissions.require(tx, who, Action.READ_BLOB, Resource("repository", repository.path))
        model_id = find_model_id(tx, repository)
        path = canonical_path(repository, model_id)
        sizes = rows.list_referring_sizes(tx, path, model_id, digest, after, REFERRERS_LIMIT + 1)
        chosen: list[str] = []
        total_bytes = 0
        for referring, size_bytes in sizes[:REFERRERS_LIMIT]:
            total_bytes += size_bytes
            if chosen and total_bytes > REFERRERS_BYTES:
                break
            chosen.append(referring)
        found = [parse_document(row.content) for row in rows.list_contents(tx, chosen)]
        return found, len(chosen) < len(sizes)


def get_model_name(registry: Registry, who: Principal, repository: Repository) -> ModelName:
    """Return the present name of the model a repository belongs to. Raises ManifestNotFoundError for a run's."""
    with registry.read() as tx:
        permissions.require(tx, who, Action.READ_BLOB, Resource("repository", repository.path))
        model_id = find_model_id(tx, repository)
        if model_id is None:
            raise ManifestNotFoundError(reference=repository.path)
        return ModelName(models.get_name(tx, model_id))


def put_manifest(
    registry: Registry,
    who: Principal,
    repository: Repository,
    reference: str,
    content: bytes,
    *,
    for_version: bool = False,
) -> StoredManifest:
    """Store a manifest or an index under its own digest, not yet registered; every blob it names must be in the repository.

    With `for_version`, what no version can have (an index, for one) is refused and not stored.

    Raises InvalidDigestError, DigestMismatchError, InvalidManifestError, BlobNotFoundError, ManifestNotFoundError.
    """
    digest = parse_digest(reference)
    found = digest_of(content)
    if found != digest:
        raise DigestMismatchError(expected=digest, found=found)
    document = parse_document(content)
    if for_version and document.manifest is None:
        raise InvalidManifestError(reason=document.refusal)
    with registry.read() as tx:
        permissions.require(tx, who, Action.WRITE_BLOB, Resource("repository", repository.path))
        model_id = find_model_id(tx, repository)
        if model_id is None:
            raise ManifestNotFoundError(reference=repository.path)
        path = canonical_path(repository, model_id)
        sizes = blobs.find_sizes(tx, path, model_id, list(document.blobs))
    for blob, size_bytes in document.blobs.items():
        if blob not in sizes:
            raise BlobNotFoundError(digest=blob)
        if sizes[blob] != size_bytes:
            raise InvalidManifestError(reason=f"it says {blob} has {size_bytes} bytes, it has {sizes[blob]}")
    contents = read_headers(registry.blobs, document)
    with registry.track() as tx:
        permissions.require(tx, who, Action.WRITE_BLOB, Resource("repository", repository.path))
        record(tx, document, contents)
        rows.link_manifest(tx, path, document.digest)
    return StoredManifest(content, digest, document.media_type, document.subject)


def read_headers(store: BlobStore, manifest: Manifest | Document) -> dict[str, Any]:
    """Return what the headers of a manifest's files say, as it is stored (contents.Contents.to_json)."""
    digests = {file.path: file.digest for file in manifest.files}
    entries = [FileEntry(file.path, file.size_bytes) for file in manifest.files]
    contents = read_contents(entries, lambda path, offset, length: store.read(digests[path], offset, length))
    return contents.to_json()


def record(tx: Tx, manifest: Manifest | Document, contents: Mapping[str, Any]) -> None:
    """Write a manifest, its blobs and what its files' headers say; nothing if it is recorded already."""
    rows.record_manifest(
        tx,
        digest=manifest.digest,
        content=manifest.bytes,
        media_type=manifest.media_type,
        content_digest=manifest.content_digest,
        size_bytes=manifest.size_bytes,
        file_count=len(manifest.files),
        contents=contents,
        subject=manifest.subject,
        blobs=list(manifest.blobs),
    )

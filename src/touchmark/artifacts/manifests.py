"""The manifest of a version: from a list of files to the bytes whose SHA-256 is the version's digest, and back.

A manifest is an OCI image manifest (OCI image-spec v1.1, manifest.md) with the media types of the CNCF ModelPack
specification. Its canonical bytes are UTF-8 JSON without blanks, object keys sorted, no character escaped that JSON
does not require, layers sorted by the bytes of their paths:

    {"artifactType":"application/vnd.cncf.model.manifest.v1+json",
     "config":{"digest":CONFIG_DIGEST,"mediaType":"application/vnd.cncf.model.config.v1+json","size":70},
     "layers":[{"annotations":{"org.cncf.model.filepath":PATH},"digest":DIGEST,
                "mediaType":"application/vnd.cncf.model.weight.v1.raw","size":SIZE}, …],
     "mediaType":"application/vnd.oci.image.manifest.v1+json","schemaVersion":2}

(on one line). Nothing in it depends on a name, a number, a time, a file's kind or the order files came in, so the same
files always make the same digest. These bytes are frozen: golden vectors in the tests hold them, and a change would
give every model a new identity.

`parse_document` reads more than that: any OCI image manifest or image index, as `/v2` keeps them unregistered.

What must not live here: storing the bytes, or knowing which version they belong to.
"""

from __future__ import annotations

import builtins
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, NoReturn

from touchmark.artifacts.blobs import StoredBlob
from touchmark.domain.digest import Digest, digest_from_hash, digest_of, hex_of, parse_digest
from touchmark.domain.errors import InvalidError, InvalidManifestError, LimitExceededError
from touchmark.domain.paths import MAX_PATHS, check_paths
from touchmark.domain.versions import VersionFile

MANIFEST_MEDIA_TYPE = "application/vnd.oci.image.manifest.v1+json"
INDEX_MEDIA_TYPE = "application/vnd.oci.image.index.v1+json"
ARTIFACT_TYPE = "application/vnd.cncf.model.manifest.v1+json"
CONFIG_MEDIA_TYPE = "application/vnd.cncf.model.config.v1+json"
FILE_MEDIA_TYPE = "application/vnd.cncf.model.weight.v1.raw"
PATH_ANNOTATION = "org.cncf.model.filepath"
TITLE_ANNOTATION = "org.opencontainers.image.title"

CONFIG_BYTES = b'{"config":{},"descriptor":{},"modelfs":{"diffIds":[],"type":"layers"}}'
"""The one config blob of every manifest made here. A store that serves manifests must hold it."""

CONFIG_DIGEST = digest_of(CONFIG_BYTES)

MAX_MANIFEST_BYTES = 4 << 20

_MAX_SIZE_BYTES = 2**63 - 1  # what a row can hold
# A layer of these is an archive or compressed: its digest is not that of the file or folder its path names. One without a
# path is a file as it is, called by its digest.
_PACKED = re.compile(r"\.tar\b|\+(gzip|zstd)$")


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest that was built or parsed: its bytes, and what they say.

    `bytes` are verbatim, `digest` is their SHA-256. `content_digest` answers "the same files?" for two manifests that
    are spelled differently. `files` are sorted by path. `size_bytes` is the sum of the files. `config` is the config
    blob, which a client asks for too. `is_canonical`: `build_manifest(files)` gives these very bytes.
    """

    bytes: builtins.bytes
    digest: Digest
    content_digest: Digest
    files: tuple[VersionFile, ...]
    size_bytes: int
    config: StoredBlob
    is_canonical: bool
    subject: Digest | None = None

    @property
    def media_type(self) -> str:
        """A version's manifest is an image manifest and never an index."""
        return MANIFEST_MEDIA_TYPE

    @property
    def blobs(self) -> Mapping[Digest, int]:
        """The sizes in bytes of what it holds, its files and its config, by digest."""
        return {file.digest: file.size_bytes for file in self.files} | {self.config.digest: self.config.size_bytes}


@dataclass(frozen=True, slots=True)
class Document:
    """Any OCI image manifest or image index: what can be kept, whether a version can be made of it or not.

    `blobs` are the sizes in bytes of what it holds, by digest; an index holds none (the manifests it lists may be here or
    not: image-spec v1.1 allows a sparse one). `manifest` is what it is as a version's manifest, None if it cannot be one,
    and `refusal` says why. `artifact_type` is the config's media type if it says none itself, as a list of referrers has it
    (distribution-spec v1.1, "Listing Referrers"). `annotations` are its own, not those of its layers.
    """

    bytes: builtins.bytes
    digest: Digest
    media_type: str
    blobs: Mapping[Digest, int]
    subject: Digest | None
    artifact_type: str | None
    annotations: Mapping[str, str]
    manifest: Manifest | None
    refusal: str | None

    @property
    def content_digest(self) -> Digest:
        """One digest for the same files; what has none has its own."""
        return self.digest if self.manifest is None else self.manifest.content_digest

    @property
    def files(self) -> tuple[VersionFile, ...]:
        """The files that a version of it would have."""
        return () if self.manifest is None else self.manifest.files

    @property
    def size_bytes(self) -> int:
        """The sum of those files."""
        return 0 if self.manifest is None else self.manifest.size_bytes


def build_manifest(files: Iterable[VersionFile]) -> Manifest:
    """Return the canonical manifest of files given in any order.

    Raises InvalidPathError; InvalidManifestError (no file, or one digest with two sizes); LimitExceededError (more than
    10,000 files, or a manifest above 4 MiB).
    """
    listed = _check_files(files)
    data = _encode(listed)
    if len(data) > MAX_MANIFEST_BYTES:
        raise LimitExceededError(what="A version's list of files", limit=MAX_MANIFEST_BYTES, unit="bytes")
    return Manifest(
        bytes=data,
        digest=digest_of(data),
        content_digest=_hash_content(listed),
        files=listed,
        size_bytes=sum(file.size_bytes for file in listed),
        config=StoredBlob(CONFIG_DIGEST, len(CONFIG_BYTES)),
        is_canonical=True,
    )


def parse_manifest(data: bytes) -> Manifest:
    """Read a manifest: our canonical form, or any OCI image manifest whose every layer is one plain file with a path.

    A layer's path is its `org.cncf.model.filepath`, or else its `org.opencontainers.image.title` (what ORAS writes), or
    else the 64 digits of its digest.
    The bytes are kept as they came; fields not needed here (other annotations, `subject`) may be there.
    Raises InvalidManifestError, for anything else.
    """
    found = parse_document(data)
    if found.manifest is None:
        raise InvalidManifestError(reason=found.refusal)
    return found.manifest


def parse_document(data: bytes) -> Document:
    """Read any OCI image manifest or image index (image-spec v1.1, manifest.md and image-index.md).

    Raises InvalidManifestError if it is neither: of another type (Docker's too), or without what its type must have.
    """
    if len(data) > MAX_MANIFEST_BYTES:
        raise InvalidManifestError(reason=f"it is larger than {MAX_MANIFEST_BYTES} bytes")
    document = _expect(_decode(data), dict, "the manifest", "an object")
    if document.get("schemaVersion") != 2:
        raise InvalidManifestError(reason="schemaVersion must be 2")
    # Optional in OCI 1.0: what it lists tells the two apart then.
    media_type = document.get("mediaType", INDEX_MEDIA_TYPE if "manifests" in document else MANIFEST_MEDIA_TYPE)
    if media_type not in (MANIFEST_MEDIA_TYPE, INDEX_MEDIA_TYPE):
        raise InvalidManifestError(reason=f"mediaType must be {MANIFEST_MEDIA_TYPE} or {INDEX_MEDIA_TYPE}")
    is_index = media_type == INDEX_MEDIA_TYPE
    listed = document.get("manifests" if is_index else "layers")
    where = "manifests" if is_index else "layers"
    held = [
        _read_descriptor(each, f"{where}[{number}]")
        for number, each in enumerate(_expect(listed, list, where, "a list"))
    ]
    config = None if is_index else _read_descriptor(document.get("config"), "config")
    sizes: dict[Digest, int] = {}
    for blob in [*held, *([] if config is None else [config])]:
        if sizes.setdefault(blob.digest, blob.size_bytes) != blob.size_bytes:
            raise InvalidManifestError(reason=f"{blob.digest} is listed with two sizes")
    subject = document.get("subject")
    manifest, refusal = None, "it is an index, which lists manifests: push one of those"
    if config is not None:
        manifest, refusal = _read_files(data, document["layers"], config)
    return Document(
        bytes=data,
        digest=digest_of(data),
        media_type=media_type,
        blobs={} if is_index else sizes,
        subject=None if subject is None else _read_descriptor(subject, "subject").digest,
        artifact_type=_read_type(document) or (None if config is None else document["config"]["mediaType"]),
        annotations=_read_annotations(document, "annotations", "an object of texts"),
        manifest=manifest,
        refusal=refusal,
    )


def _read_files(data: bytes, layers: list[object], config: StoredBlob) -> tuple[Manifest | None, str]:
    """Return a manifest that a version can have, or None and the reason why none can."""
    try:
        listed = _check_files(_read_layer(layer, f"layers[{index}]") for index, layer in enumerate(layers))
    except InvalidManifestError as error:
        return None, str(error.fields["reason"])
    except InvalidError as error:  # a path or the number of them
        return None, error.message.rstrip(".")
    manifest = Manifest(
        bytes=data,
        digest=digest_of(data),
        content_digest=_hash_content(listed),
        files=listed,
        size_bytes=sum(file.size_bytes for file in listed),
        config=config,
        is_canonical=_encode(listed) == data,
    )
    return manifest, ""


def content_digest(files: Iterable[VersionFile]) -> Digest:
    """Return one digest for a set of files, whatever manifest lists them.

    It is the SHA-256 of one line a file, sorted bytewise, each line being

        PATH TAB SIZE TAB HEX LF

    with PATH in UTF-8, SIZE in decimal without leading zeros, HEX the file's SHA-256 in 64 lower-case digits, TAB 0x09
    and LF 0x0A. A path holds no control character, so a line reads in one way only; and because TAB sorts before all a
    path may hold, sorting lines (`LC_ALL=C sort`) and sorting paths give the same order.

    Raises as `build_manifest` does.
    """
    return _hash_content(_check_files(files))


def _hash_content(listed: Iterable[VersionFile]) -> Digest:
    lines = "".join([f"{file.path}\t{file.size_bytes}\t{hex_of(file.digest)}\n" for file in listed])
    return digest_from_hash(hashlib.sha256(lines.encode()).digest())


def _check_files(files: Iterable[VersionFile]) -> tuple[VersionFile, ...]:
    """Return the files sorted by path, checked one by one and against each other."""
    given = list(islice(files, MAX_PATHS + 1))  # stops an endless input at the limit
    check_paths([file.path for file in given])
    if not given:
        raise InvalidManifestError(reason="it lists no file")
    sizes: dict[Digest, int] = {}
    for file in given:
        if not 0 <= file.size_bytes <= _MAX_SIZE_BYTES:
            raise InvalidManifestError(reason=f"the size of {file.path!r} is out of range")
        if sizes.setdefault(file.digest, file.size_bytes) != file.size_bytes:
            raise InvalidManifestError(reason=f"{file.digest} is listed with two sizes")
    # Code points sort as their UTF-8 bytes do (RFC 3629, section 1), so no path is encoded for this.
    return tuple(sorted(given, key=lambda file: file.path))


def _encode(listed: Iterable[VersionFile]) -> bytes:
    """Return the canonical bytes. `listed` is checked and sorted."""
    # The frame is written by hand, which takes a quarter of the time of encoding a dictionary a layer; only a path can
    # hold what JSON escapes. The golden vectors hold these bytes, and a test compares them with a plain encoding.
    encode_path = json.JSONEncoder(ensure_ascii=False).encode
    layers = ",".join(
        [
            f'{{"annotations":{{"{PATH_ANNOTATION}":{encode_path(file.path)}}},"digest":"{file.digest}",'
            f'"mediaType":"{FILE_MEDIA_TYPE}","size":{file.size_bytes}}}'
            for file in listed
        ]
    )
    return (
        f'{{"artifactType":"{ARTIFACT_TYPE}","config":{{"digest":"{CONFIG_DIGEST}","mediaType":"{CONFIG_MEDIA_TYPE}",'
        f'"size":{len(CONFIG_BYTES)}}},"layers":[{layers}],"mediaType":"{MANIFEST_MEDIA_TYPE}","schemaVersion":2}}'
    ).encode()


def _decode(data: bytes) -> object:
    """Parse JSON strictly: UTF-8, no repeated key, no number but whole ones. Raises InvalidManifestError."""
    try:
        return json.loads(
            data.decode(), object_pairs_hook=_refuse_repeats, parse_float=_refuse_number, parse_constant=_refuse_number
        )
    except RecursionError:
        raise InvalidManifestError(reason="it is nested too deeply") from None
    except ValueError as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors, so is an int of 5,000 digits
        raise InvalidManifestError(reason=f"it is not JSON in UTF-8 ({error})") from None


def _refuse_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):  # readers disagree about which of the two counts (RFC 8259, section 4)
        raise InvalidManifestError(reason="an object has the same key twice")
    return made


def _refuse_number(text: str) -> NoReturn:
    raise InvalidManifestError(reason=f"{text[:40]} is not a whole number")


def _read_layer(layer: object, where: str) -> VersionFile:
    blob = _read_descriptor(layer, where)
    fields = _expect(layer, dict, where, "an object")
    annotations = _read_annotations(fields, f"{where}.annotations", "an object with the file's path")
    path = annotations.get(PATH_ANNOTATION, annotations.get(TITLE_ANNOTATION))
    if path is None:
        return VersionFile(hex_of(blob.digest), blob.size_bytes, blob.digest)
    if _PACKED.search(fields["mediaType"]):
        raise InvalidManifestError(reason=f"{where} is an archive or compressed; push plain files")
    return VersionFile(path, blob.size_bytes, blob.digest)


def _read_annotations(fields: dict[str, Any], where: str, what: str) -> dict[str, str]:
    found = {} if fields.get("annotations") is None else _expect(fields["annotations"], dict, where, what)
    for key, value in found.items():
        _expect(value, str, f"{where}: {key[:100]}", "text")
    return found


def _read_type(document: dict[str, Any]) -> str | None:
    found = document.get("artifactType")
    return None if found is None else _expect(found, str, "artifactType", "text") or None


def _read_descriptor(value: object, where: str) -> StoredBlob:
    """Read what every OCI descriptor has (OCI image-spec, descriptor.md)."""
    fields = _expect(value, dict, where, "an object")
    _expect(fields.get("mediaType"), str, f"{where}.mediaType", "text")
    size_bytes = _expect(fields.get("size"), int, f"{where}.size", "a whole number")
    if isinstance(size_bytes, bool) or not 0 <= size_bytes <= _MAX_SIZE_BYTES:
        raise InvalidManifestError(reason=f"{where}.size is out of range")
    try:
        return StoredBlob(parse_digest(_expect(fields.get("digest"), str, f"{where}.digest", "text")), size_bytes)
    except InvalidError as error:
        raise InvalidManifestError(reason=f"{where}.digest must be sha256: and 64 hexadecimal digits") from error


def _expect(value: Any, kind: type, where: str, what: str) -> Any:
    if not isinstance(value, kind):
        raise InvalidManifestError(reason=f"{where} must be {what}")
    return value

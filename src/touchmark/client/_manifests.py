"""Reading a manifest on this side: its bytes must hash to the digest that was asked for."""

from __future__ import annotations

import hashlib
import json

from touchmark.client._types import Files
from touchmark.domain.digest import digest_of, parse_digest
from touchmark.domain.errors import DigestMismatchError, InvalidManifestError
from touchmark.domain.paths import check_paths
from touchmark.domain.versions import VersionFile

_PATHS = ("org.cncf.model.filepath", "org.opencontainers.image.title")


def read_manifest(content: bytes, digest: str) -> Files:
    """Return the files a manifest lists. Raises DigestMismatchError, InvalidManifestError, InvalidPathError."""
    found = digest_of(content)
    if found != digest:
        raise DigestMismatchError(expected=digest, found=found, path="manifest")
    files = []
    try:
        for layer in json.loads(content)["layers"]:
            path = next(layer["annotations"][name] for name in _PATHS if name in layer["annotations"])
            size_bytes = layer["size"]
            if type(size_bytes) is not int or size_bytes < 0:  # a bool is an int to isinstance
                raise ValueError(size_bytes)
            files.append(VersionFile(path, size_bytes, parse_digest(layer["digest"])))
    except (KeyError, TypeError, ValueError, StopIteration, RecursionError):
        raise InvalidManifestError(reason="the server sent one that does not read") from None
    check_paths([file.path for file in files])
    hasher = hashlib.sha256()
    for file in sorted(files, key=lambda file: file.path.encode()):
        hasher.update(f"{file.path}\t{file.size_bytes}\t{file.digest[7:]}\n".encode())
    return Files(found, "sha256:" + hasher.hexdigest(), tuple(files))

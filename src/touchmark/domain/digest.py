"""A SHA-256 digest in OCI's spelling: `sha256:` and 64 lower-case hexadecimal digits (OCI image-spec, descriptor.md)."""

from __future__ import annotations

import hashlib
import re
from typing import NewType

from touchmark.domain.errors import InvalidDigestError

Digest = NewType("Digest", str)
"""A checked `sha256:<hex>`; made by `parse_digest` or `digest_of`."""

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def parse_digest(text: str) -> Digest:
    """Return `text` as a digest. Raises InvalidDigestError."""
    if not isinstance(text, str) or _DIGEST.fullmatch(text) is None:
        raise InvalidDigestError(digest=str(text)[:100])
    return Digest(text)


def digest_of(data: bytes) -> Digest:
    """Return the digest of bytes held in memory."""
    return Digest("sha256:" + hashlib.sha256(data).hexdigest())


def digest_from_hash(raw: bytes) -> Digest:
    """Return the digest for a finished 32-byte SHA-256 value."""
    return Digest("sha256:" + raw.hex())


def hex_of(digest: Digest) -> str:
    """Return the 64 hexadecimal digits without the algorithm."""
    return digest[7:]

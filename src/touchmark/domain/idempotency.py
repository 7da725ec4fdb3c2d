"""Idempotency-Key: the same request sent twice has one effect and one answer (draft-ietf-httpapi-idempotency-key-header)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from touchmark.domain.errors import InvalidFieldError

KEY_LIMIT = 200
"""Characters in a key."""
LIFETIME_SECONDS = 24 * 3600
"""How long an answer is kept."""


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """A caller's key, with the hash of the request it came with."""

    key: str
    request_hash: str


def parse_idempotency_key(key: str | None, request: bytes) -> IdempotencyKey | None:
    """Return the key with the hash of the request's method, path and body. Raises InvalidFieldError."""
    if key is None:
        return None
    if not 1 <= len(key) <= KEY_LIMIT or not key.isascii() or not key.isprintable():
        raise InvalidFieldError(field="Idempotency-Key", reason=f"write 1 to {KEY_LIMIT} printable ASCII characters")
    return IdempotencyKey(key, hashlib.sha256(request).hexdigest())

"""Tags: free `key = value` labels on models and versions, and on experiments, runs, logged models and data sets."""

from __future__ import annotations

from collections.abc import Mapping

from touchmark.domain.errors import InvalidTagError, LimitExceededError
from touchmark.domain.text import find_invisible, find_unstorable

TAG_KEY_LIMIT = 250
"""Characters in a tag key."""
TAG_VALUE_LIMIT = 100_000
"""Characters in a tag value."""
TAGS_LIMIT = 1_000
"""Tags in one request."""


def check_tag_key(key: object) -> str:
    """Return a tag key. Raises InvalidTagError."""
    if not isinstance(key, str) or not key.strip():
        raise InvalidTagError(key=str(key)[:100], reason="a key is text and not blank")
    if len(key) > TAG_KEY_LIMIT:
        raise InvalidTagError(key=key[:100], reason=f"a key has at most {TAG_KEY_LIMIT} characters")
    invisible = find_invisible(key)
    if invisible is not None:
        raise InvalidTagError(key=key, reason=f"it holds the control or invisible character {invisible}")
    return key


def check_tag_value(key: str, value: object) -> str:
    """Return a tag value. Raises InvalidTagError."""
    if not isinstance(value, str):
        raise InvalidTagError(key=key, reason="a value is text")
    if len(value) > TAG_VALUE_LIMIT:
        raise InvalidTagError(key=key, reason=f"a value has at most {TAG_VALUE_LIMIT} characters")
    reason = find_unstorable(value)
    if reason is not None:
        raise InvalidTagError(key=key, reason=reason)
    return value


def check_tags(tags: Mapping[str, str] | None) -> dict[str, str]:
    """Return checked tags, sorted by key. Raises InvalidTagError, LimitExceededError."""
    if not tags:
        return {}
    if len(tags) > TAGS_LIMIT:
        raise LimitExceededError(what="Tags in one request", limit=TAGS_LIMIT, unit="tags")
    return {check_tag_key(key): check_tag_value(key, tags[key]) for key in sorted(tags, key=str)}

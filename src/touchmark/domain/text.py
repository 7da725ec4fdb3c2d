"""Rules for any text a person or a program sends: what may be stored on every database and shown anywhere.

Names have narrower rules of their own (names.py, aliases.py, tags.py); those call these.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from touchmark.domain.errors import InvalidFieldError, LimitExceededError

DESCRIPTION_LIMIT = 100_000
"""Characters in a description, a deprecation reason or any other prose."""

SHORT_TEXT_LIMIT = 1_000
"""Characters in an owner, a contact, a title."""

SOURCE_LIMIT = 4_000
"""Characters in a source address or a run link."""

# Cc control, Cf format (bidi marks, zero-width), Cs surrogate, Co private use, Cn unassigned, Zl/Zp separators.
_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def find_unstorable(text: str) -> str | None:
    """Say why a text cannot be stored on every database (NUL, lone surrogate), or None if it can."""
    if "\x00" in text:
        return "it holds a NUL character"
    if not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text):
        return "it holds half of a surrogate pair"
    return None


def find_invisible(text: str) -> str | None:
    """Return the first control, invisible, private-use or unassigned character as U+XXXX, or None."""
    if text.isascii():
        return None if text.isprintable() else f"U+{next(ord(c) for c in text if not c.isprintable()):04X}"
    for char in text:
        if unicodedata.category(char) in _INVISIBLE:
            return f"U+{ord(char):04X}"
    return None


def check_text(field: str, text: object, limit: int = DESCRIPTION_LIMIT) -> str:
    """Return free text that every database can store. Raises InvalidFieldError, LimitExceededError."""
    if not isinstance(text, str):
        raise InvalidFieldError(field=field, reason="write text")
    if len(text) > limit:
        raise LimitExceededError(what=f"The {field}", limit=limit, unit="characters")
    reason = find_unstorable(text)
    if reason is not None:
        raise InvalidFieldError(field=field, reason=reason)
    return text


def check_optional_text(field: str, text: object, limit: int = DESCRIPTION_LIMIT) -> str | None:
    """Return free text or None. Raises InvalidFieldError, LimitExceededError."""
    return None if text is None else check_text(field, text, limit)


def end_sentence(text: str) -> str:
    """Return text that somebody wrote with a full stop at its end, unless it ends as a sentence does."""
    return text if text.endswith((".", "!", "?", "…")) else f"{text}."


def list_first(names: Sequence[str]) -> str:
    """Return the first names, quoted, and how many more there are, for a sentence that says what there is instead."""
    listed = ", ".join(repr(name) for name in names[:5])
    return f"{listed} and {len(names) - 5} more" if len(names) > 5 else listed

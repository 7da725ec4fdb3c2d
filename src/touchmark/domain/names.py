"""The name of a registered model: what is allowed, what it is shown beside, how levels are read.

A name is 1 to 250 characters in NFC, without control or invisible characters, without blanks at its ends, without
`/`, `:` and `@` (they separate the parts of a reference), and is not `m-` with 32 hexadecimal digits (a logged model).
`.` separates levels (`risk.churn`). Names are case-sensitive.
"""

from __future__ import annotations

import re
import unicodedata
from typing import NewType

from touchmark.domain.errors import InvalidNameError
from touchmark.domain.text import find_invisible

ModelName = NewType("ModelName", str)
"""A checked model name; made by `parse_model_name`."""

NAME_LIMIT = 250
"""Characters in a model name."""

_LOGGED_MODEL_ID = re.compile(r"m-[0-9a-f]{32}")

# What find_invisible lets through, being a letter, a mark or a symbol, and what still shows nothing: fillers, variation
# selectors, the empty Braille cell. `risk` and `risk` with one of them would be two models under one sight.
_SHOWS_NOTHING = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)

# Letters of other scripts that print like Latin ones: enough to flag the usual tricks, not a confusables table.
_LOOK_ALIKES = str.maketrans("аеорсхуіјѕԁһԛԝⅼοαρν", "aeopcxyijsdhqwloapv")


def parse_model_name(text: object) -> ModelName:
    """Return `text` as a model name. Raises InvalidNameError."""
    if not isinstance(text, str):
        raise InvalidNameError(name=str(text)[:100], reason="a name is text")
    reason = _find_fault(text)
    if reason is not None:
        raise InvalidNameError(name=text[:300], reason=reason)
    return ModelName(text)


def _find_fault(text: str) -> str | None:
    if not text:
        return "it is empty"
    if len(text) > NAME_LIMIT:
        return f"it has {len(text)} characters, at most {NAME_LIMIT} are allowed"
    if text != text.strip():
        return "it begins or ends with a blank"
    invisible = find_invisible(text)
    if invisible is not None:
        return f"it holds the control or invisible character {invisible}"
    nothing = None if text.isascii() else _SHOWS_NOTHING.search(text)
    if nothing is not None:
        return f"it holds the character U+{ord(nothing[0]):04X}, which shows nothing"
    if not unicodedata.is_normalized("NFC", text):
        return "it is not in Unicode normal form C"
    for char in "/:@":
        if char in text:
            return f"{char!r} is not allowed, references use it"
    if text in {".", ".."}:
        return "it is a folder's name"
    if _LOGGED_MODEL_ID.fullmatch(text):
        return "m- and 32 hexadecimal digits is the id of a logged model"
    return None


def look_alike_key(name: str) -> str:
    """Return the key two names share when they differ only by case or by look-alike characters (flagged, not refused)."""
    return unicodedata.normalize("NFKC", name).casefold().translate(_LOOK_ALIKES)


def is_logged_model_id(text: str) -> bool:
    """Answer whether `text` is the id of a logged model, `m-` and 32 hexadecimal digits."""
    return _LOGGED_MODEL_ID.fullmatch(text) is not None

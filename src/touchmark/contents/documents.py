"""Foreign text, JSON and YAML made harmless: bounded in size, depth and expansion, and storable.

Here: parsing documents into plain values. Not here: what the values mean. YAML is built from the parser's events
alone, so no tag, constructor or merge key of the document is ever acted upon, and `3.10` stays `3.10`.
"""

from __future__ import annotations

import json
import re
from typing import Any

import yaml

from touchmark.domain.errors import InvalidError, LimitExceededError

YAML_BYTES = 1024 * 1024
YAML_DEPTH = 32
YAML_DIRECTIVES = 100
"""Lines of `%TAG` and the like: libyaml compares each with all before it, and holds the interpreter while it does."""
YAML_NODES = 50_000
"""Nodes of one YAML document, aliases counted as often as they are written out."""

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_DIRECTIVE = re.compile("(?:^|[\n\r\x85\u2028\u2029])%")  # after any line break of YAML 1.1
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})


def clean_text(value: object, limit: int = 200) -> str:
    """Return foreign text that any database and page can hold: at most `limit` characters, the rest shown as `…`.

    Control characters and lone surrogates become U+FFFD: PostgreSQL refuses U+0000 in JSON, UTF-8 refuses surrogates.
    """
    text = value if isinstance(value, str) else str(value) if isinstance(value, (int, float)) else ""
    if len(text) > limit:
        text = text[: limit - 1] + "…"
    if text.isprintable():
        return text
    return "".join("\ufffd" if c < " " or "\x7f" <= c <= "\x9f" or "\ud800" <= c <= "\udfff" else c for c in text)


def parse_json(data: bytes | str) -> object:
    """Parse JSON text. Raises InvalidError for text that is no JSON, a repeated key or nesting too deep to follow."""
    try:
        return json.loads(data, object_pairs_hook=_unique_keys)
    except (ValueError, RecursionError) as problem:
        raise InvalidError(f"its JSON cannot be read ({_reason(problem)})") from None


def parse_yaml(data: bytes) -> object:
    """Parse one YAML document into dict, list, str and None; scalars keep their spelling (booleans and numbers too).

    Raises InvalidError for what is no YAML, LimitExceededError above YAML_BYTES, YAML_DEPTH, YAML_DIRECTIVES or YAML_NODES.
    """
    if len(data) > YAML_BYTES:
        raise LimitExceededError(what="A YAML file", limit=YAML_BYTES, unit="bytes")
    try:
        text = data.decode("utf-8-sig")
        if len(_DIRECTIVE.findall(text)) > YAML_DIRECTIVES:
            raise LimitExceededError(what="A YAML file", limit=YAML_DIRECTIVES, unit="directives")
        return _build(text)
    except (yaml.YAMLError, ValueError, RecursionError) as problem:
        raise InvalidError(f"its YAML cannot be read ({_reason(problem)})") from None


def _reason(problem: BaseException) -> str:
    return "nested too deeply" if isinstance(problem, RecursionError) else clean_text(" ".join(str(problem).split()))


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"the key {clean_text(key, 100)!r} appears twice")
            seen.add(key)
    return found


class _Open:
    """A list or mapping whose end has not come yet."""

    def __init__(self, value: list[object] | dict[str, object], anchor: str | None) -> None:
        self.value = value
        self.anchor = anchor
        self.nodes = 1
        self.key: str | None = None

    def add(self, value: object) -> None:
        if isinstance(self.value, list):
            self.value.append(value)
        elif self.key is None:
            if isinstance(value, (list, dict)):
                raise ValueError("a mapping key is not a scalar")
            self.key = "" if value is None else str(value)
        else:
            self.value[self.key] = value
            self.key = None


def _build(text: str) -> object:
    root = _Open([], None)
    stack = [root]
    anchors: dict[str, tuple[object, int]] = {}
    total = documents = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, (yaml.SequenceEndEvent, yaml.MappingEndEvent)):
            done = stack.pop()
            value, nodes = done.value, done.nodes
            if done.anchor is not None:
                anchors[done.anchor] = (value, nodes)
            stack[-1].nodes += nodes
            stack[-1].add(value)
            continue
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                raise ValueError("it holds more than one document")
        if not isinstance(event, yaml.NodeEvent):
            continue
        added = 1
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in anchors:  # unknown, or still open: a value inside itself
                raise ValueError(f"the alias {clean_text(event.anchor, 50)!r} names nothing finished")
            alias_value, added = anchors[event.anchor]
            stack[-1].nodes += added
            stack[-1].add(alias_value)
        elif isinstance(event, yaml.ScalarEvent):
            scalar = None if not event.style and event.value in _NULLS else event.value  # unquoted
            if event.anchor is not None:
                anchors[event.anchor] = (scalar, 1)
            stack[-1].nodes += 1
            stack[-1].add(scalar)
        else:
            stack.append(_Open([] if isinstance(event, yaml.SequenceStartEvent) else {}, event.anchor))
            if len(stack) - 1 > YAML_DEPTH:
                raise LimitExceededError(what="The nesting of a YAML file", limit=YAML_DEPTH, unit="levels")
        total += added
        if total > YAML_NODES:
            raise LimitExceededError(what="A YAML file, aliases written out,", limit=YAML_NODES, unit="nodes")
    found = root.value
    return found[0] if isinstance(found, list) and found else None

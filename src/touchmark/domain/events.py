"""Events: the entries of the log. Who did what, with an ordered list of effects (subject, before, after).

The rows of the catalogue are a projection of these effects: a service decides them, storage applies them, and `fsck`
applies them again in an empty database and compares. So an effect holds everything its row needs.

The leaf is UTF-8 JSON with the keys `v`, `index`, `at`, `kind`, `actor`, `request`, `effects`, in canonical form
(sorted keys, no blanks). Its exact bytes are stored and hashed and never written anew. What people type (SUBJECTS names
those fields) stands in it as `{"$text": "<hex of SHA-256 over salt and text>"}`, and the text is kept beside the log, so
that it can be erased for the law's sake without breaking a proof.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from touchmark.domain.access import Principal, PrincipalKind
from touchmark.domain.errors import CatalogueDamagedError

LEAF_VERSION = 1
ERASED = "[erased]"
"""What stands for a text that was erased from beside the log."""
SALT_BYTES = 16


class EventKind(StrEnum):
    """What was done. Stable: part of the log's format."""

    REGISTRY_CREATED = "registry.created"
    MODEL_CREATED = "model.created"
    MODEL_UPDATED = "model.updated"
    MODEL_RENAMED = "model.renamed"
    MODEL_DELETED = "model.deleted"
    MODEL_TAG_SET = "model.tag_set"
    MODEL_TAG_DELETED = "model.tag_deleted"
    VERSION_REGISTERED = "version.registered"
    VERSION_SEALED = "version.sealed"
    VERSION_UNSEALED = "version.unsealed"
    VERSION_UPDATED = "version.updated"
    VERSION_DELETED = "version.deleted"
    VERSION_RESTORED = "version.restored"
    VERSION_DEPRECATED = "version.deprecated"
    VERSION_STAGE_SET = "version.stage_set"
    VERSION_TAG_SET = "version.tag_set"
    VERSION_TAG_DELETED = "version.tag_deleted"
    EVALUATION_RECORDED = "version.evaluation_recorded"
    ALIAS_SET = "alias.set"
    ALIAS_DELETED = "alias.deleted"
    WEBHOOK_CREATED = "webhook.created"
    WEBHOOK_UPDATED = "webhook.updated"
    WEBHOOK_DELETED = "webhook.deleted"


class SubjectKind(StrEnum):
    """What an effect is about; each kind is one table of the catalogue."""

    REGISTRY = "registry"
    MODEL = "model"
    NAME = "name"
    MODEL_TAG = "model_tag"
    VERSION = "version"
    VERSION_TAG = "version_tag"
    ALIAS = "alias"
    EVALUATION = "evaluation"
    EDGE = "edge"
    WEBHOOK = "webhook"


@dataclass(frozen=True, slots=True)
class SubjectShape:
    """The fields that make a subject's key, the fields an effect may carry, and which of them people type."""

    key: tuple[str, ...]
    fields: tuple[str, ...]
    texts: frozenset[str]


SUBJECTS: Mapping[SubjectKind, SubjectShape] = {
    SubjectKind.REGISTRY: SubjectShape((), ("registry_id",), frozenset()),
    SubjectKind.MODEL: SubjectShape(
        ("model_id",), ("name", "description", "owner", "contact", "deleted"), frozenset({"description", "owner", "contact"})
    ),
    SubjectKind.NAME: SubjectShape(("name",), ("model_id",), frozenset()),
    SubjectKind.MODEL_TAG: SubjectShape(("model_id", "key"), ("value",), frozenset({"value"})),
    SubjectKind.VERSION: SubjectShape(
        ("version_id",),
        (
            "model_id", "number", "state", "digest", "content_digest", "size_bytes", "file_count", "source", "run_id",
            "logged_model_id", "parent", "same_bytes_as", "description", "stage", "status_message", "run_link", "origin",
            "deleted", "deprecated", "deprecation_reason", "replaced_by",
        ),
        frozenset({"source", "description", "status_message", "run_link", "origin", "deprecation_reason"}),
    ),
    SubjectKind.VERSION_TAG: SubjectShape(("version_id", "key"), ("value",), frozenset({"value"})),
    SubjectKind.ALIAS: SubjectShape(("model_id", "alias"), ("number",), frozenset()),
    SubjectKind.EVALUATION: SubjectShape(("version_id", "index"), ("dataset", "metrics"), frozenset({"dataset", "metrics"})),
    SubjectKind.EDGE: SubjectShape(
        ("version_id", "relation", "target_kind", "target"), ("detail",), frozenset({"detail"})
    ),
    # The address is a text as well: many services put what lets one in into it.
    SubjectKind.WEBHOOK: SubjectShape(
        ("webhook_id",),
        ("name", "url", "events", "description", "status", "secret"),
        frozenset({"url", "description", "secret"}),
    ),
}  # fmt: skip
"""Every kind of subject: the public shape of effects (docs/reference/log.md)."""


@dataclass(frozen=True, slots=True)
class Effect:
    """One row that came, changed or went. `before` None: it came. `after` None: it went. Both: the changed fields."""

    subject: SubjectKind
    key: Mapping[str, Any]
    before: Mapping[str, Any] | None
    after: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class Event:
    """One entry of the log. `at` is microseconds UTC; `subject` and `version` name what it is about, for people."""

    index: int
    at: int
    kind: EventKind
    actor: Principal
    model_id: int | None
    model_name: str | None
    version: int | None
    effects: tuple[Effect, ...]


@dataclass(frozen=True, slots=True)
class SaltedText:
    """A text kept beside the log. `text` is None once erased."""

    salt: bytes
    text: str | None


def hash_text(salt: bytes, text: str) -> str:
    """Return the hexadecimal SHA-256 over salt and UTF-8 text that stands for a text in a leaf."""
    return hashlib.sha256(salt + text.encode()).hexdigest()


def encode_leaf(event: Event, salts: Iterator[bytes]) -> tuple[bytes, list[SaltedText]]:
    """Return the leaf's exact bytes, and the texts to keep beside it in the order in which they stand in it.

    Args:
        event: the entry; text fields hold str or None.
        salts: endless fresh random salts of SALT_BYTES each (the domain draws no random numbers itself).

    """
    texts: list[SaltedText] = []

    def seal(shape: SubjectShape, values: Mapping[str, Any] | None) -> dict[str, Any] | None:
        if values is None:
            return None
        sealed: dict[str, Any] = {}
        for name in sorted(values):
            value = values[name]
            if name in shape.texts and value is not None:
                salt = next(salts)
                texts.append(SaltedText(salt, value))
                value = {"$text": hash_text(salt, value)}
            sealed[name] = value
        return sealed

    effects = []
    for effect in event.effects:
        shape = SUBJECTS[effect.subject]
        subject = {"kind": effect.subject.value, **effect.key}
        effects.append({"subject": subject, "before": seal(shape, effect.before), "after": seal(shape, effect.after)})
    actor = event.actor
    document = {
        "v": LEAF_VERSION,
        "index": event.index,
        "at": event.at,
        "kind": event.kind.value,
        "actor": {"kind": actor.kind.value, "id": actor.id, "token_id": actor.token_id, "verified": actor.verified},
        "request": actor.request_id,
        "about": {"model_id": event.model_id, "name": event.model_name, "version": event.version},
        "effects": effects,
    }
    return _canonical(document), texts


def decode_leaf(leaf: bytes, texts: Sequence[SaltedText]) -> Event:
    """Return the event a leaf holds, its texts filled in (ERASED where erased).

    Raises:
        CatalogueDamagedError: the leaf is no leaf of this version, or a text does not hash to what stands in it.

    """
    remaining = iter(texts)

    def open_texts(values: dict[str, Any] | None) -> dict[str, Any] | None:
        if values is None:
            return None
        opened = {}
        for name in sorted(values):
            value = values[name]
            if isinstance(value, dict) and "$text" in value:
                kept = next(remaining, None)
                if kept is None or (kept.text is not None and hash_text(kept.salt, kept.text) != value["$text"]):
                    raise CatalogueDamagedError(reason=f"a text beside log entry {document['index']} was changed")
                value = ERASED if kept.text is None else kept.text
            opened[name] = value
        return opened

    try:
        document = json.loads(leaf)
        if document["v"] != LEAF_VERSION:
            raise CatalogueDamagedError(reason=f"log entry of unknown version {document['v']}")
        effects = []
        for item in document["effects"]:
            key = dict(item["subject"])
            kind = SubjectKind(key.pop("kind"))
            before = open_texts(item["before"])
            effects.append(Effect(kind, key, before, open_texts(item["after"])))
        actor = document["actor"]
        kind_of_actor = PrincipalKind(actor["kind"])
        principal = Principal(kind_of_actor, actor["id"], actor["token_id"], actor["verified"], document["request"])
        about = document["about"]
        return Event(
            document["index"],
            document["at"],
            EventKind(document["kind"]),
            principal,
            about["model_id"],
            about["name"],
            about["version"],
            tuple(effects),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CatalogueDamagedError(reason=f"a log entry does not read ({type(error).__name__})") from None


def _canonical(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()

"""Webhooks: where to tell of what, in MLflow's words (names, events, sentences of MLflow 3.17's webhooks).

Here: what a webhook is, which names, addresses and events it may have, how a delivery is
signed and what an example of one says. What must not live here: looking a host up, encrypting, sending.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any
from urllib.parse import quote, unquote_to_bytes, urlsplit

from touchmark.domain.errors import InvalidFieldError, WebhookNotFoundError
from touchmark.domain.text import SOURCE_LIMIT, check_text, find_invisible

NAME_LIMIT = 63
"""Characters in a webhook's name."""

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_PORTS = {"http": 80, "https": 443}


class WebhookStatus(StrEnum):
    """Whether events are delivered."""

    ACTIVE = "ACTIVE"
    DISABLED = "DISABLED"


class WebhookEvent(StrEnum):
    """What a webhook can be told of: every pair of entity and action that MLflow 3.17 allows, and no other.

    Those of prompts and budgets may be asked for; nothing here makes them happen.
    """

    REGISTERED_MODEL_CREATED = "registered_model.created"
    MODEL_VERSION_CREATED = "model_version.created"
    MODEL_VERSION_TAG_SET = "model_version_tag.set"
    MODEL_VERSION_TAG_DELETED = "model_version_tag.deleted"
    MODEL_VERSION_ALIAS_CREATED = "model_version_alias.created"
    MODEL_VERSION_ALIAS_DELETED = "model_version_alias.deleted"
    PROMPT_CREATED = "prompt.created"
    PROMPT_VERSION_CREATED = "prompt_version.created"
    PROMPT_TAG_SET = "prompt_tag.set"
    PROMPT_TAG_DELETED = "prompt_tag.deleted"
    PROMPT_VERSION_TAG_SET = "prompt_version_tag.set"
    PROMPT_VERSION_TAG_DELETED = "prompt_version_tag.deleted"
    PROMPT_ALIAS_CREATED = "prompt_alias.created"
    PROMPT_ALIAS_DELETED = "prompt_alias.deleted"
    BUDGET_POLICY_EXCEEDED = "budget_policy.exceeded"

    @property
    def entity(self) -> str:
        """What it happens to, in lower case."""
        return self.value.partition(".")[0]

    @property
    def action(self) -> str:
        """What happens to it, in lower case."""
        return self.value.partition(".")[2]


@dataclass(frozen=True, slots=True)
class Webhook:
    """A webhook's definition; times are microseconds UTC. Its secret is never part of it."""

    webhook_id: str
    name: str
    url: str
    events: tuple[WebhookEvent, ...]
    description: str | None
    status: WebhookStatus
    has_secret: bool
    created_at: int
    created_by: str
    updated_at: int


@dataclass(frozen=True, slots=True)
class WebhookRules:
    """What the server's settings say about webhooks.

    `schemes` are the allowed ones of addresses; without `allow_private` an address must be public; `key` encrypts
    secrets (a Fernet key), None: the one in the home.
    """

    schemes: tuple[str, ...] = ("https",)
    allow_private: bool = False
    key: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class WebhookAddress:
    """A webhook's URL, taken apart once so that what is checked is what is connected to.

    `host` is ASCII (IDNA) without brackets, `target` what stands in the request line, `credentials` the user and password
    of the URL as Basic authentication has them (RFC 7617), None if it has none.
    """

    scheme: str
    host: str
    port: int
    target: str
    credentials: str | None = field(repr=False)


def parse_webhook_id(text: str) -> str:
    """Return an id as this registry gives them (a lower-case UUID). Raises WebhookNotFoundError for any other text."""
    if _ID.fullmatch(text) is None:
        raise WebhookNotFoundError(webhook_id=text[:200])
    return text


def check_webhook_name(name: str) -> str:
    """Return a name. It need not be unique. Raises InvalidFieldError."""
    if len(name) > NAME_LIMIT or _NAME.fullmatch(name) is None:
        message = (
            f"Webhook name {name[:200]!r} is invalid. It must start and end with a letter or digit, be less than 63 "
            "characters long, and contain only letters, digits, dots (.), underscores (_), and hyphens (-)."
        )
        raise InvalidFieldError(message, field="name")
    return name


def parse_webhook_event(entity: str, action: str) -> WebhookEvent:
    """Return the event of an entity and an action, both in lower case. Raises InvalidFieldError."""
    allowed = sorted(event.action for event in WebhookEvent if event.entity == entity)
    if not allowed:
        raise InvalidFieldError(f"Invalid entity {entity[:200]!r}.", field="events")
    if action not in allowed:
        message = f"Invalid action '{action[:200]}' for entity '{entity}'. Valid actions are: {allowed}"
        raise InvalidFieldError(message, field="events")
    return WebhookEvent(f"{entity}.{action}")


def check_webhook_events(events: Iterable[WebhookEvent]) -> tuple[WebhookEvent, ...]:
    """Return the events in their order, each once. Raises InvalidFieldError if there is none."""
    found = tuple(dict.fromkeys(events))
    if not found:
        message = "Webhook events must be a non-empty list of WebhookEvent objects: []."
        raise InvalidFieldError(message, field="events")
    return found


def encode_webhook_events(events: Sequence[WebhookEvent]) -> str:
    """Return events as they are stored and stand in the log: a JSON list of `entity.action`."""
    return json.dumps([event.value for event in events])


# ── addresses ────────────────────────────────────────────────────────────────────────────────────────────────────


def parse_webhook_url(url: str, rules: WebhookRules) -> WebhookAddress:
    """Return a URL's parts. Whether its host may be connected to is another question, for `addresses.is_public`.

    Raises InvalidFieldError, LimitExceededError.
    """
    check_text("url", url, SOURCE_LIMIT)
    if not url.strip():
        raise InvalidFieldError(f"Webhook URL cannot be empty or just whitespace: {url!r}", field="url")
    if find_invisible(url) is not None or any(
        char.isspace() for char in url
    ):  # urlsplit would drop some of them unsaid
        raise _invalid_url(url, "it holds blanks or invisible characters")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise _invalid_url(url, repr(error)) from None
    if parts.scheme not in rules.schemes:
        message = f"Invalid webhook URL scheme: {parts.scheme!r}. Allowed schemes are: {', '.join(rules.schemes)}."
        raise InvalidFieldError(message, field="url")
    if not host:
        raise InvalidFieldError(f"Webhook URL must include a hostname: {url!r}", field="url")
    if port == 0:
        raise _invalid_url(url, "there is no port 0")
    try:
        host = host if ":" in host else host.encode("idna").decode()
    except UnicodeError as error:
        raise _invalid_url(url, f"its host is none ({error})") from None
    if re.fullmatch(r"[a-z0-9._-]+|[0-9a-f:.]+", host) is None:  # no zone of IPv6: it names this machine's own links
        raise _invalid_url(url, "its host holds characters that none has")
    target = quote(parts.path or "/", safe="/%:=&~+!$,;'@()*") + (
        "?" + quote(parts.query, safe="/%:=&?~+!$,;'@()*[]") if parts.query else ""
    )
    return WebhookAddress(parts.scheme, host, port or _PORTS[parts.scheme], target, _read_credentials(parts.netloc))


def _invalid_url(url: str, reason: str) -> InvalidFieldError:
    return InvalidFieldError(f"Invalid webhook URL {url!r}: {reason}", field="url")


def _read_credentials(netloc: str) -> str | None:
    given, at, _ = netloc.rpartition("@")
    if not at:
        return None
    user, _, password = given.partition(":")
    return base64.b64encode(unquote_to_bytes(user) + b":" + unquote_to_bytes(password)).decode()


# ── deliveries ───────────────────────────────────────────────────────────────────────────────────────────────────


def sign_delivery(secret: str, delivery_id: str, timestamp: str, body: str) -> str:
    """Return the value of X-MLflow-Signature: `v1,` and the Base64 of HMAC-SHA256 over id, time and body, joined by dots."""
    signed = hmac.new(secret.encode(), f"{delivery_id}.{timestamp}.{body}".encode(), hashlib.sha256).digest()
    return "v1," + base64.b64encode(signed).decode()


_NAMED, _TAG, _ALIAS = ("name", "tags", "description"), ("name", "key", "value"), ("name", "alias", "version")
_VERSION_TAG = ("name", "version", "key", "value")
_EXAMPLE_FIELDS = {
    WebhookEvent.REGISTERED_MODEL_CREATED: _NAMED,
    WebhookEvent.MODEL_VERSION_CREATED: ("name", "version", "source", "run_id", "tags", "description"),
    WebhookEvent.MODEL_VERSION_TAG_SET: _VERSION_TAG,
    WebhookEvent.MODEL_VERSION_TAG_DELETED: _VERSION_TAG[:-1],
    WebhookEvent.MODEL_VERSION_ALIAS_CREATED: _ALIAS,
    WebhookEvent.MODEL_VERSION_ALIAS_DELETED: _ALIAS[:-1],
    WebhookEvent.PROMPT_CREATED: _NAMED,
    WebhookEvent.PROMPT_VERSION_CREATED: ("name", "version", "template", "tags", "description"),
    WebhookEvent.PROMPT_TAG_SET: _TAG,
    WebhookEvent.PROMPT_TAG_DELETED: _TAG[:-1],
    WebhookEvent.PROMPT_VERSION_TAG_SET: _VERSION_TAG,
    WebhookEvent.PROMPT_VERSION_TAG_DELETED: _VERSION_TAG[:-1],
    WebhookEvent.PROMPT_ALIAS_CREATED: _ALIAS,
    WebhookEvent.PROMPT_ALIAS_DELETED: _ALIAS[:-1],
    WebhookEvent.BUDGET_POLICY_EXCEEDED: (
        "budget_policy_id", "budget_unit", "budget_amount", "current_spend", "duration_unit", "duration_value",
        "target_scope", "workspace", "target_value", "window_start",
    ),
}  # fmt: skip
_EXAMPLE_VALUES: dict[str, Any] = {
    "name": "example", "version": "1", "source": "models:/m-0123456789abcdef0123456789abcdef",
    "run_id": "0123456789abcdef0123456789abcdef", "tags": {"example_key": "example_value"},
    "description": "An example", "template": "Hello {{name}}!", "key": "example_key", "value": "example_value",
    "alias": "example_alias", "budget_policy_id": "bp-example", "budget_unit": "USD", "budget_amount": 100.0,
    "current_spend": 101.5, "duration_unit": "MONTHS", "duration_value": 1, "target_scope": "GLOBAL",
    "workspace": "default", "target_value": None, "window_start": 1_700_000_000_000,
}  # fmt: skip


def build_example(event: WebhookEvent) -> dict[str, Any]:
    """Return the `data` of an example delivery: the fields MLflow 3.17 sends for the event, values made up."""
    return {name: _EXAMPLE_VALUES[name] for name in _EXAMPLE_FIELDS[event]}

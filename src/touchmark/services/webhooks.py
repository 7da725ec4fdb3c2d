"""Webhooks: define, read, change, take away. Sending is `events/webhooks.py`.

A definition is a setting, so each change is one event of the log. The secret is encrypted before it is written anywhere
(Fernet, github.com/fernet/spec: AES-128-CBC with HMAC-SHA256), with the key of the settings or, without one, with that in
the home's file `webhook.key`, made when the first secret is set. Without the key everything but signing works.

Looking a host up and encrypting happen before the write begins: other writers do not wait for a name server.
"""

from __future__ import annotations

import base64
import os
import secrets
import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from touchmark import permissions
from touchmark.domain.access import REGISTRY, Action, Principal
from touchmark.domain.addresses import is_public
from touchmark.domain.errors import InvalidFieldError, UnsupportedError
from touchmark.domain.events import ERASED, Effect, EventKind, SubjectKind
from touchmark.domain.models import UNCHANGED, Unchanged
from touchmark.domain.paging import Page, check_limit, make_cursor, parse_cursor, query_text
from touchmark.domain.text import SHORT_TEXT_LIMIT, check_optional_text, check_text
from touchmark.domain.webhooks import (
    Webhook,
    WebhookAddress,
    WebhookEvent,
    WebhookRules,
    WebhookStatus,
    check_webhook_events,
    check_webhook_name,
    encode_webhook_events,
    parse_webhook_id,
    parse_webhook_url,
)
from touchmark.registry import Registry
from touchmark.services import hosts
from touchmark.storage import ledger
from touchmark.storage import webhooks as rows

KEY_FILE = "webhook.key"
"""The name, in the home, of the file with the key that encrypts secrets."""

_QUERY = query_text("webhooks")


def create_webhook(
    registry: Registry,
    who: Principal,
    name: str,
    url: str,
    events: Sequence[WebhookEvent],
    *,
    description: str | None = None,
    secret: str | None = None,
    status: WebhookStatus = WebhookStatus.ACTIVE,
    rules: WebhookRules,
) -> Webhook:
    """Define a webhook. Its host is looked up and must be public unless the rules allow others.

    Raises InvalidFieldError, LimitExceededError, and UnsupportedError if there is no key for the secret.
    """
    with registry.read() as tx:
        permissions.require(tx, who, Action.MANAGE_WEBHOOKS, REGISTRY)
    fields = _check_fields(registry, rules, name=name, url=url, events=events, description=description, secret=secret)
    webhook_id = str(uuid.uuid4())
    with registry.write() as tx:
        permissions.require(tx, who, Action.MANAGE_WEBHOOKS, REGISTRY)
        after = {**fields, "status": status.value}
        effect = Effect(SubjectKind.WEBHOOK, {"webhook_id": webhook_id}, None, after)
        ledger.append(tx, who, EventKind.WEBHOOK_CREATED, [effect])
        return rows.to_webhook(rows.get_row(tx, webhook_id))


def get_webhook(registry: Registry, who: Principal, webhook_id: str) -> Webhook:
    """Return a webhook. Raises WebhookNotFoundError."""
    webhook_id = parse_webhook_id(webhook_id)
    with registry.read() as tx:
        permissions.require(tx, who, Action.MANAGE_WEBHOOKS, REGISTRY)
        return rows.to_webhook(rows.get_row(tx, webhook_id))


def list_webhooks(
    registry: Registry, who: Principal, *, limit: int | None = None, cursor: str | None = None
) -> Page[Webhook]:
    """Return webhooks, newest first; 100 if no limit is given, 1,000 at most.

    Raises InvalidFieldError, LimitExceededError, InvalidCursorError.
    """
    count = check_limit(limit)
    below: Any = parse_cursor(cursor, _QUERY, (int, str))
    with registry.read() as tx:
        permissions.require(tx, who, Action.MANAGE_WEBHOOKS, REGISTRY)
        found = rows.list_webhooks(tx, below=below, limit=count + 1)
    last = found[count - 1] if len(found) > count else None
    return Page(
        tuple(found[:count]), make_cursor(_QUERY, (last.created_at, last.webhook_id)) if last is not None else None
    )


def update_webhook(
    registry: Registry,
    who: Principal,
    webhook_id: str,
    *,
    name: str | None = None,
    url: str | None = None,
    events: Sequence[WebhookEvent] | None = None,
    description: str | Unchanged | None = UNCHANGED,
    secret: str | Unchanged | None = UNCHANGED,
    status: WebhookStatus | None = None,
    rules: WebhookRules,
) -> Webhook:
    """Change what is given; None empties the description and takes the secret away.

    Raises WebhookNotFoundError, InvalidFieldError, LimitExceededError, UnsupportedError.
    """
    webhook_id = parse_webhook_id(webhook_id)
    with registry.read() as tx:
        permissions.require(tx, who, Action.MANAGE_WEBHOOKS, REGISTRY)
        rows.get_row(tx, webhook_id)
    given = {"name": name, "url": url, "events": events}
    given = {field: value for field, value in given.items() if value is not None}
    given |= {
        field: value
        for field, value in {"description": description, "secret": secret}.items()
        if not isinstance(value, Unchanged)
    }
    fields = _check_fields(registry, rules, **given)
    if status is not None:
        fields["status"] = status.value
    with registry.write() as tx:
        permissions.require(tx, who, Action.MANAGE_WEBHOOKS, REGISTRY)
        row = rows.get_row(tx, webhook_id)
        after = {field: value for field, value in fields.items() if getattr(row, field) != value}
        if after:
            before = {field: getattr(row, field) for field in after}
            effect = Effect(SubjectKind.WEBHOOK, {"webhook_id": webhook_id}, before, after)
            ledger.append(tx, who, EventKind.WEBHOOK_UPDATED, [effect])
            row = rows.get_row(tx, webhook_id)
        return rows.to_webhook(row)


def delete_webhook(registry: Registry, who: Principal, webhook_id: str) -> None:
    """Take a webhook away; the log keeps what it was. Raises WebhookNotFoundError."""
    webhook_id = parse_webhook_id(webhook_id)
    with registry.write() as tx:
        permissions.require(tx, who, Action.MANAGE_WEBHOOKS, REGISTRY)
        row = rows.get_row(tx, webhook_id)
        before = {field: getattr(row, field) for field in _FIELDS}
        effect = Effect(SubjectKind.WEBHOOK, {"webhook_id": webhook_id}, before, None)
        ledger.append(tx, who, EventKind.WEBHOOK_DELETED, [effect])


def get_signing(
    registry: Registry, who: Principal, webhook_id: str, *, rules: WebhookRules
) -> tuple[Webhook, str | None]:
    """Return a webhook and its secret in plain text (None: it has none), for whoever sends; no door may show it.

    Raises WebhookNotFoundError, and UnsupportedError if the secret cannot be read.
    """
    webhook_id = parse_webhook_id(webhook_id)
    with registry.read() as tx:
        permissions.require(tx, who, Action.MANAGE_WEBHOOKS, REGISTRY)
        row = rows.get_row(tx, webhook_id)
    return rows.to_webhook(row), None if row.secret is None else _decrypt(registry, rules, row.secret)


_FIELDS = ("name", "url", "events", "description", "status", "secret")


def _check_fields(registry: Registry, rules: WebhookRules, **given: Any) -> dict[str, Any]:
    """Return fields as they are stored. Looks the URL's host up, and reads (or makes) the key if there is a secret."""
    fields: dict[str, Any] = {}
    if "name" in given:
        fields["name"] = check_webhook_name(given["name"])
    if "events" in given:
        fields["events"] = encode_webhook_events(check_webhook_events(given["events"]))
    if "description" in given:
        fields["description"] = check_optional_text("description", given["description"]) or None
    secret = check_text("secret", given["secret"], SHORT_TEXT_LIMIT) if given.get("secret") else None
    if "url" in given:
        address = parse_webhook_url(given["url"], rules)
        if not rules.allow_private:
            find_addresses(address, rules)
        fields["url"] = given["url"]
    if "secret" in given:  # last: nothing is made for a request that is refused
        fields["secret"] = None if secret is None else _encrypt(registry, rules, secret)
    return fields


# ── where a host leads ───────────────────────────────────────────────────────────────────────────────────────────


def find_addresses(address: WebhookAddress, rules: WebhookRules) -> list[str]:
    """Return the IP addresses of a URL's host, every one of them public unless the rules allow others.

    Whoever connects must connect to these and not look the host up again: a name server may answer otherwise the second
    time (DNS rebinding). Raises InvalidFieldError.
    """
    found = _look_up(address.host, address.port)
    if not rules.allow_private:
        for each in found:
            if not is_public(each):
                message = (
                    f"Webhook URL must not resolve to a non-public IP address. {address.host!r} resolves to {each}."
                )
                raise InvalidFieldError(message, field="url")
    return found


def _look_up(host: str, port: int) -> list[str]:
    try:
        return hosts.look_up(host, port)
    except (OSError, UnicodeError, ValueError) as error:
        raise InvalidFieldError(f"Cannot resolve Webhook URL hostname {host!r}: {error}", field="url") from None


# ── secrets ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _encrypt(registry: Registry, rules: WebhookRules, secret: str) -> str:
    token: bytes = _open_fernet(rules.key or _read_key(registry.home) or _make_key(registry.home)).encrypt(
        secret.encode()
    )
    return token.decode()


def _decrypt(registry: Registry, rules: WebhookRules, token: str) -> str:
    if token == ERASED:
        raise UnsupportedError("The webhook's secret was erased. Set it again.")
    key = rules.key or _read_key(registry.home)
    if key is None:
        message = (
            f"The webhook's secret cannot be read: the key is gone. Put back {KEY_FILE} in the home or set "
            "TOUCHMARK_WEBHOOK_KEY, or set the secret again."
        )
        raise UnsupportedError(message)
    from cryptography.fernet import InvalidToken  # noqa: PLC0415 - as below

    try:
        plain: bytes = _open_fernet(key).decrypt(token.encode())
    except InvalidToken:
        message = (
            "The webhook's secret cannot be read: it was encrypted with another key. Put that key back, or set the "
            "secret again."
        )
        raise UnsupportedError(message) from None
    return plain.decode()


def _open_fernet(key: str) -> Any:
    from cryptography.fernet import Fernet  # noqa: PLC0415 - 30 ms, which no start of a server should wait for

    try:
        return Fernet(key)
    except ValueError:
        message = f"The key of webhooks' secrets is none: TOUCHMARK_WEBHOOK_KEY, or {KEY_FILE} in the home."
        raise UnsupportedError(message) from None


def _read_key(home: Path | None) -> str | None:
    if home is None:
        return None
    try:
        return (home / KEY_FILE).read_text(encoding="ascii", errors="replace").strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UnsupportedError(f"{KEY_FILE} in the home cannot be read ({error.strerror}).") from None


def _make_key(home: Path | None) -> str:
    """Write a new key into the home and return it; of several processes that do so at once, all return the same."""
    if home is None:
        raise UnsupportedError("There is no key to encrypt the webhook's secret with: set TOUCHMARK_WEBHOOK_KEY.")
    fresh = home / f"{KEY_FILE}.{secrets.token_hex(8)}"
    try:
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(base64.urlsafe_b64encode(secrets.token_bytes(32)) + b"\n")
                file.flush()
                os.fsync(file.fileno())
            with suppress(FileExistsError):
                os.link(fresh, home / KEY_FILE)  # whole or not at all, and never over another's
        finally:
            fresh.unlink()
        folder = os.open(home, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise UnsupportedError(f"{KEY_FILE} cannot be written into the home ({error.strerror}).") from None
    key = _read_key(home)
    if key is None:
        raise UnsupportedError(f"{KEY_FILE} in the home was taken away.")
    return key

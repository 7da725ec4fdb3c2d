"""Rows of webhooks, read. Their only writer is projection.py. What must not live here: reading a secret."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import Row, bindparam, select, tuple_

from touchmark.domain.errors import CatalogueDamagedError, WebhookNotFoundError
from touchmark.domain.webhooks import Webhook, WebhookEvent, WebhookStatus
from touchmark.storage import schema as s
from touchmark.storage.engine import Tx

W = s.webhooks.c

_BY_ID = select(s.webhooks).where(W.webhook_id == bindparam("p_id"))
_NEWEST = select(s.webhooks).order_by(W.created_at.desc(), W.webhook_id.desc()).limit(bindparam("p_limit"))
_BELOW = _NEWEST.where(tuple_(W.created_at, W.webhook_id) < tuple_(bindparam("p_at"), bindparam("p_id")))


def get_row(tx: Tx, webhook_id: str) -> Row[Any]:
    """Return a webhook's row, its secret still encrypted. Raises WebhookNotFoundError."""
    row: Row[Any] | None = tx.first(_BY_ID, p_id=webhook_id)
    if row is None:
        raise WebhookNotFoundError(webhook_id=webhook_id)
    return row


def list_webhooks(tx: Tx, *, below: tuple[int, str] | None, limit: int) -> list[Webhook]:
    """Return webhooks, newest first; with `below`, only those after the one created then with that id."""
    if below is None:
        return [to_webhook(row) for row in tx.all(_NEWEST, p_limit=limit)]
    return [to_webhook(row) for row in tx.all(_BELOW, p_limit=limit, p_at=below[0], p_id=below[1])]


def to_webhook(row: Row[Any]) -> Webhook:
    """Return the domain's value of a row. Raises CatalogueDamagedError."""
    try:
        events = tuple(WebhookEvent(event) for event in json.loads(row.events))
        status = WebhookStatus(row.status)
    except (ValueError, TypeError, RecursionError):
        reason = f"the row of webhook {row.webhook_id} does not read"
        raise CatalogueDamagedError(reason=reason) from None
    return Webhook(
        row.webhook_id,
        row.name,
        row.url,
        events,
        row.description,
        status,
        row.secret is not None,
        row.created_at,
        row.created_by,
        row.updated_at,
    )

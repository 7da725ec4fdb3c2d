"""Webhooks: define, read, list, change, take away, and send an example to one."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from touchmark.domain.errors import InvalidFieldError
from touchmark.domain.models import UNCHANGED
from touchmark.domain.webhooks import Webhook, WebhookEvent, WebhookRules, WebhookStatus, parse_webhook_event
from touchmark.events.webhooks import send_example
from touchmark.protocols.mlflow.messages import Message, to_ms
from touchmark.protocols.mlflow.operations import Fields, Operation
from touchmark.services import webhooks
from touchmark.wire import AnyRequest, Lane, call, call_inline

_MOST = 1_000


class EventMessage(msgspec.Struct, kw_only=True):
    """WebhookEvent, asked for or answered: two names of protocol buffers' enums, in capitals."""

    entity: str = ""
    action: str = ""


class NewWebhook(Fields):
    """CreateWebhook."""

    name: str = ""
    url: str = ""
    events: Sequence[EventMessage] = ()
    description: str | None = None
    secret: str | None = None
    status: str | None = None


class WebhookChange(Fields):
    """UpdateWebhook. Empty text takes description and secret away, and leaves name and URL as they are."""

    webhook_id: str = ""
    name: str | None = None
    url: str | None = None
    events: Sequence[EventMessage] = ()
    description: str | None = None
    secret: str | None = None
    status: str | None = None


class WebhookId(Fields):
    """GetWebhook, DeleteWebhook."""

    webhook_id: str = ""


class WebhookTest(Fields):
    """TestWebhook."""

    webhook_id: str = ""
    event: EventMessage | None = None


class WebhookList(Fields):
    """ListWebhooks."""

    max_results: int | None = None
    page_token: str | None = None


class WebhookMessage(Message, kw_only=True):
    """Webhook. The secret is never answered."""

    webhook_id: str
    name: str
    url: str
    events: Sequence[EventMessage]
    creation_timestamp: int
    last_updated_timestamp: int
    description: str | None = None
    status: str


class OneWebhook(Message):
    """What answers with one webhook."""

    webhook: WebhookMessage


class WebhookPage(Message):
    """ListWebhooks.Response."""

    webhooks: Sequence[WebhookMessage] = ()
    next_page_token: str | None = None


class TestResult(Message, kw_only=True):
    """WebhookTestResult."""

    success: bool
    response_status: int | None = None
    response_body: str | None = None
    error_message: str | None = None


class TestAnswer(Message):
    """TestWebhook.Response."""

    result: TestResult


async def create_webhook(request: AnyRequest, fields: NewWebhook) -> OneWebhook:
    """Define a webhook."""
    webhook = await call(
        request,
        Lane.BYTES,  # the host is looked up, which may take long
        webhooks.create_webhook,
        fields.name,
        fields.url,
        [_read_event(event) for event in fields.events],
        description=fields.description,
        secret=fields.secret,
        status=_read_status(fields.status) or WebhookStatus.ACTIVE,
        rules=_rules_of(request),
    )
    return OneWebhook(webhook=_to_message(webhook))


async def list_webhooks(request: AnyRequest, fields: WebhookList) -> WebhookPage:
    """Return a page of webhooks, the newest first."""
    limit = fields.max_results or None
    if limit is not None and not 1 <= limit <= _MOST:
        raise InvalidFieldError(f"max_results must be between 1 and {_MOST}.", field="max_results")
    page = await call(request, Lane.READ, webhooks.list_webhooks, limit=limit, cursor=fields.page_token)
    return WebhookPage(webhooks=tuple(_to_message(webhook) for webhook in page.items), next_page_token=page.next_cursor)


async def get_webhook(request: AnyRequest, fields: WebhookId) -> OneWebhook:
    """Return a webhook."""
    return OneWebhook(webhook=_to_message(await call_inline(request, webhooks.get_webhook, fields.webhook_id)))


async def update_webhook(request: AnyRequest, fields: WebhookChange) -> OneWebhook:
    """Change what is given."""
    webhook = await call(
        request,
        Lane.BYTES,
        webhooks.update_webhook,
        fields.webhook_id,
        name=fields.name or None,
        url=fields.url or None,
        events=[_read_event(event) for event in fields.events] or None,
        description=UNCHANGED if fields.description is None else fields.description or None,
        secret=UNCHANGED if fields.secret is None else fields.secret or None,
        status=_read_status(fields.status),
        rules=_rules_of(request),
    )
    return OneWebhook(webhook=_to_message(webhook))


async def delete_webhook(request: AnyRequest, fields: WebhookId) -> None:
    """Take a webhook away."""
    await call(request, Lane.WRITE, webhooks.delete_webhook, fields.webhook_id)


async def test_webhook(request: AnyRequest, fields: WebhookTest) -> TestAnswer:
    """Send an example of an event, and answer how it went."""
    event = None if fields.event is None else _read_event(fields.event)
    sent = await call(request, Lane.BYTES, send_example, fields.webhook_id, event, rules=_rules_of(request))
    result = TestResult(
        success=sent.success, response_status=sent.status, response_body=sent.answer or None, error_message=sent.error
    )
    return TestAnswer(result=result)


def _rules_of(request: AnyRequest) -> WebhookRules:
    rules: WebhookRules = request.app.state.webhook_rules
    return rules


def _read_event(event: EventMessage) -> WebhookEvent:
    return parse_webhook_event(event.entity.lower(), event.action.lower())


def _read_status(status: str | None) -> WebhookStatus | None:
    if not status:
        return None
    try:
        return WebhookStatus(status)
    except ValueError:
        raise InvalidFieldError(f"Invalid webhook status {status[:100]!r}.", field="status") from None


def _to_message(webhook: Webhook) -> WebhookMessage:
    return WebhookMessage(
        webhook_id=webhook.webhook_id,
        name=webhook.name,
        url=webhook.url,
        events=[EventMessage(entity=e.entity.upper(), action=e.action.upper()) for e in webhook.events],
        creation_timestamp=to_ms(webhook.created_at),
        last_updated_timestamp=to_ms(webhook.updated_at),
        description=webhook.description,
        status=webhook.status.value,
    )


_ALL, _ONE = "2.0/mlflow/webhooks", "2.0/mlflow/webhooks/{webhook_id}"
OPERATIONS = (
    Operation(method="POST", path=_ALL, handler=create_webhook, fields=NewWebhook, required=("name", "url", "events")),
    Operation(method="GET", path=_ALL, handler=list_webhooks, fields=WebhookList),
    Operation(method="GET", path=_ONE, handler=get_webhook, fields=WebhookId),
    Operation(method="PATCH", path=_ONE, handler=update_webhook, fields=WebhookChange),
    Operation(method="DELETE", path=_ONE, handler=delete_webhook, fields=WebhookId, is_json=False),
    Operation(method="POST", path=f"{_ONE}/test", handler=test_webhook, fields=WebhookTest),
)

"""Sending to webhooks: one signed POST, to an address that was checked, within bounds of time and size.

The host is looked up once; the connection goes to the addresses that were checked then, and TLS is verified against the
host's name. No proxy of the environment is used: it would do the looking up, and what it reaches could not be checked.
What must not live here: who may do so, and what a webhook is.
"""

from __future__ import annotations

import http.client
import json
import ssl
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import urljoin

from touchmark.domain.about import VERSION
from touchmark.domain.access import Principal
from touchmark.domain.errors import InvalidError, UnsupportedError
from touchmark.domain.webhooks import (
    WebhookAddress,
    WebhookEvent,
    WebhookRules,
    build_example,
    parse_webhook_url,
    sign_delivery,
)
from touchmark.registry import Registry
from touchmark.services import hosts, webhooks

TIMEOUT_SECONDS = 10.0
"""For all of a delivery but looking the host up: connecting, TLS, redirects, and the answer to its last byte read."""
ANSWER_BYTES = 64 << 10
"""How much of an answer's body is read."""
SHOWN_CHARACTERS = 500
"""How much of it is shown."""
REDIRECTS = 5
"""How often a delivery is sent on."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """How a delivery went. `status` and `answer` (its beginning) if there was an answer; `error` if it was no success."""

    success: bool
    status: int | None = None
    answer: str | None = None
    error: str | None = None


def send_example(
    registry: Registry, who: Principal, webhook_id: str, event: WebhookEvent | None = None, *, rules: WebhookRules
) -> Delivery:
    """Send an example of an event (the webhook's first, if none is given), once, and say how it went.

    Raises WebhookNotFoundError; whatever else goes wrong is the answer.
    """
    try:
        webhook, secret = webhooks.get_signing(registry, who, webhook_id, rules=rules)
    except UnsupportedError as error:
        return Delivery(success=False, error=error.message)
    event = event or webhook.events[0]
    at = registry.clock() / 1_000_000
    document = {
        "entity": event.entity,
        "action": event.action,
        "timestamp": datetime.fromtimestamp(at, UTC).isoformat(),
        "data": build_example(event),
    }
    return send(webhook.url, json.dumps(document), secret, sent_at_seconds=int(at), rules=rules)


def send(url: str, body: str, secret: str | None, *, sent_at_seconds: int, rules: WebhookRules) -> Delivery:
    """POST a JSON body to a URL, signed if there is a secret, and say how it went; never raises for what is out there.

    The headers are MLflow's (webhooks/constants.py of 3.17), the signature that of `sign_delivery`. A redirect is followed
    if it keeps the method (307, 308) and leads to an address that a webhook may have; any other would arrive as a GET.
    """
    delivery_id, timestamp = str(uuid.uuid4()), str(sent_at_seconds)
    headers = {
        "Content-Type": "application/json",
        "User-Agent": f"touchmark/{VERSION}",
        "X-MLflow-Delivery-Id": delivery_id,
        "X-MLflow-Timestamp": timestamp,
    }
    if secret:
        headers["X-MLflow-Signature"] = sign_delivery(secret, delivery_id, timestamp, body)
    end = time.monotonic() + TIMEOUT_SECONDS
    try:
        for _ in range(REDIRECTS + 1):
            address = parse_webhook_url(url, rules)
            status, location, answer = _post(address, body.encode(), headers, rules, end)
            if status not in {307, 308} or not location:
                return _judge(status, location, answer)
            url = urljoin(url, location)
        return Delivery(success=False, status=status, error=f"It was redirected more than {REDIRECTS} times.")
    except InvalidError as error:  # of the address, or of one it led to
        return Delivery(success=False, error=error.message)
    except TimeoutError:
        return Delivery(success=False, error=f"There was no complete answer within {TIMEOUT_SECONDS:g} seconds.")
    except (OSError, http.client.HTTPException, ValueError) as error:
        return Delivery(success=False, error=f"{type(error).__name__}: {error}"[:SHOWN_CHARACTERS])


def _judge(status: int, location: str | None, answer: bytes) -> Delivery:
    text = answer.decode("utf-8", "replace")
    shown = text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "…"
    if 200 <= status < 300:
        return Delivery(success=True, status=status, answer=shown)
    error = f"The answer's status is {status}."
    if location and 300 <= status < 400:
        error += f" It leads to {location[:SHOWN_CHARACTERS]!r}: if that is right, make it the webhook's URL."
    return Delivery(success=False, status=status, answer=shown, error=error)


def _post(
    address: WebhookAddress, body: bytes, headers: Mapping[str, str], rules: WebhookRules, end: float
) -> tuple[int, str | None, bytes]:
    """Return status, Location and the body's beginning. Raises InvalidFieldError, OSError, HTTPException."""
    addresses = webhooks.find_addresses(address, rules)
    credentials = {"Authorization": f"Basic {address.credentials}"} if address.credentials is not None else {}
    link = hosts.connect(addresses, address.port, end)
    with hosts.cut_off_at(link, end), link:
        if address.scheme == "https":
            link = ssl.create_default_context().wrap_socket(link, server_hostname=address.host)
        connection = http.client.HTTPConnection(address.host, address.port)
        connection.default_port = {"http": 80, "https": 443}[address.scheme]  # left out of Host (RFC 9110, 7.2)
        connection.sock = link
        try:
            connection.request("POST", address.target, body, {**headers, **credentials, "Connection": "close"})
            with connection.getresponse() as response:
                return response.status, response.getheader("Location"), response.read(ANSWER_BYTES)
        finally:
            connection.close()

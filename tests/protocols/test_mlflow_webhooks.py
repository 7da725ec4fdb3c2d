"""Webhooks through MLflow's door: the real client against a real server on both databases, and what is on the wire."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from mlflow.client import MlflowClient
from mlflow.entities.webhook import WebhookAction, WebhookEntity, WebhookEvent, WebhookStatus
from mlflow.exceptions import MlflowException

from tests.protocols.native_door import Door
from tests.served import Served, serve
from touchmark.domain.errors import InvalidFieldError
from touchmark.domain.webhooks import WebhookRules
from touchmark.server.app import build_app
from touchmark.server.settings import Settings, load_settings

API = "/api/2.0/mlflow/webhooks"
URL = "https://8.8.8.8/hook"
CREATED = {"entity": "MODEL_VERSION", "action": "CREATED"}
MOVED = {"entity": "MODEL_VERSION_ALIAS", "action": "CREATED"}
BODY = {"name": "deploy", "url": URL, "events": [CREATED, MOVED], "description": "tells", "secret": "s3cr3t"}


class Receiver:
    """An HTTP server that keeps what it is sent and answers 200, or 503 below /busy."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        requests = self.requests

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                requests.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
                self.send_response(503 if self.path == "/busy" else 200)
                self.end_headers()
                self.wfile.write(b"thanks")

            def log_message(self, *_: Any) -> None:
                """Stay quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """Give a receiver on loopback."""
    made = Receiver()
    thread = threading.Thread(target=made.server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield made
    made.server.shutdown()
    made.server.server_close()
    thread.join()


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def served(home: Path, request: pytest.FixtureRequest) -> Iterator[Served]:
    """Give a server that lets webhooks have any address, on each database."""
    more = ("--database", request.getfixturevalue("postgres_url")) if request.param == "postgres" else ()
    with serve(home, "--webhook-http", "--webhook-private", *more) as running:
        yield running


@pytest.fixture
def client(served: Served) -> MlflowClient:
    """Give MLflow's own client of it."""
    address = f"http://127.0.0.1:{served.port}"
    return MlflowClient(address, address)


@pytest.fixture
def door(home: Path) -> Iterator[Door]:
    """Give the application as it is by default."""
    with asyncio.Runner() as runner:
        opened = Door(runner, build_app(Settings(home=home, log_requests=False)))
        runner.run(opened.start())
        try:
            yield opened
        finally:
            runner.run(opened.stop())


def ask(door: Door, method: str, path: str = "", body: Any = None) -> tuple[int, Any]:
    response = door.send(method, API + path, **({} if body is None else {"json": body}))
    return response.status_code, response.json()


def new_webhook(door: Door, **more: Any) -> Any:
    status, answer = ask(door, "POST", body={**BODY, **more})
    assert status == 200, answer
    return answer["webhook"]


# ── MLflow's client ──


def test_the_client_defines_reads_changes_and_deletes(client: MlflowClient, receiver: Receiver) -> None:
    events = [WebhookEvent(WebhookEntity.MODEL_VERSION, WebhookAction.CREATED), WebhookEvent("prompt_tag", "set")]

    made = client.create_webhook("deploy", receiver.url, events, description="tells", secret="s")
    read = client.get_webhook(made.webhook_id)
    changed = client.update_webhook(
        made.webhook_id, name="other", events=["registered_model.created"], status="DISABLED", description=""
    )
    others = [client.create_webhook(f"hook-{n}", receiver.url, events).webhook_id for n in range(3)]

    assert (read.name, read.url, read.events, read.description) == ("deploy", receiver.url, events, "tells")
    assert (read.status, read.secret) == (WebhookStatus.ACTIVE, None)
    assert vars(read) == vars(made)
    assert (changed.name, changed.status, changed.description) == ("other", WebhookStatus.DISABLED, None)
    assert changed.events == [WebhookEvent("registered_model", "created")]
    assert changed.creation_timestamp == made.creation_timestamp <= changed.last_updated_timestamp

    first = client.list_webhooks(max_results=3)
    second = client.list_webhooks(max_results=3, page_token=first.token)
    assert [webhook.webhook_id for webhook in first] == others[::-1]
    assert [webhook.webhook_id for webhook in second] == [made.webhook_id]
    assert not second.token

    client.delete_webhook(made.webhook_id)
    with pytest.raises(MlflowException, match=f"Webhook with ID {made.webhook_id} not found") as caught:
        client.get_webhook(made.webhook_id)
    assert caught.value.error_code == "RESOURCE_DOES_NOT_EXIST"


def test_the_client_tests_a_webhook_and_the_receiver_can_check_who_sent(
    client: MlflowClient, receiver: Receiver
) -> None:
    made = client.create_webhook("deploy", receiver.url + "/in", ["model_version.created"], secret="s3cr3t")

    fine = client.test_webhook(made.webhook_id)
    busy = client.update_webhook(made.webhook_id, url=receiver.url + "/busy", secret="")
    refused = client.test_webhook(busy.webhook_id, "prompt_tag.deleted")

    assert (fine.success, fine.response_status, fine.response_body, fine.error_message) == (True, 200, "thanks", None)
    assert (refused.success, refused.response_status, refused.response_body) == (False, 503, "thanks")
    assert refused.error_message == "The answer's status is 503."
    (path, headers, body), (busy_path, busy_headers, busy_body) = receiver.requests
    signed = f"{headers['x-mlflow-delivery-id']}.{headers['x-mlflow-timestamp']}.".encode() + body
    expected = base64.b64encode(hmac.digest(b"s3cr3t", signed, hashlib.sha256)).decode()
    assert (path, busy_path) == ("/in", "/busy")
    assert headers["x-mlflow-signature"] == f"v1,{expected}"
    assert "x-mlflow-signature" not in busy_headers
    assert [json.loads(one)["action"] for one in (body, busy_body)] == ["created", "deleted"]


def test_a_restarted_server_still_signs(home: Path, receiver: Receiver) -> None:
    with serve(home, "--webhook-http", "--webhook-private") as first:
        client = MlflowClient(f"http://127.0.0.1:{first.port}", f"http://127.0.0.1:{first.port}")
        made = client.create_webhook("deploy", receiver.url, ["model_version.created"], secret="s3cr3t")
    with serve(home, "--webhook-http", "--webhook-private") as second:
        client = MlflowClient(f"http://127.0.0.1:{second.port}", f"http://127.0.0.1:{second.port}")
        assert client.test_webhook(made.webhook_id).success

    assert "x-mlflow-signature" in receiver.requests[0][1]


# ── on the wire ──


def test_an_answer_has_mlflows_fields_and_no_secret(door: Door) -> None:
    webhook = new_webhook(door)

    assert webhook == {
        "webhook_id": webhook["webhook_id"], "name": "deploy", "url": URL, "events": [CREATED, MOVED],
        "description": "tells", "status": "ACTIVE", "creation_timestamp": webhook["creation_timestamp"],
        "last_updated_timestamp": webhook["creation_timestamp"],
    }  # fmt: skip
    assert ask(door, "GET", "/" + webhook["webhook_id"]) == (200, {"webhook": webhook})
    assert ask(door, "GET") == (200, {"webhooks": [webhook]})
    assert ask(door, "DELETE", "/" + webhook["webhook_id"]) == (200, {})
    assert ask(door, "GET") == (200, {})
    assert "description" not in new_webhook(door, description="")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"name": None}, "Missing value for required parameter 'name'."),
        ({"name": ""}, "Missing value for required parameter 'name'."),
        ({"name": 7}, "Invalid value 7 for parameter 'name' supplied"),
        ({"name": "   "}, "Webhook name '   ' is invalid. It must start and end with a letter or digit"),
        ({"name": "a" * 64}, "is invalid. It must start and end with a letter or digit"),
        ({"url": None}, "Missing value for required parameter 'url'."),
        ({"url": "  "}, "Webhook URL cannot be empty or just whitespace: '  '"),
        ({"url": "http://8.8.8.8/"}, "Invalid webhook URL scheme: 'http'. Allowed schemes are: https."),
        ({"url": "https://[::1"}, "Invalid webhook URL 'https://[::1': ValueError('Invalid IPv6 URL')"),
        ({"url": "https://169.254.169.254/"}, "'169.254.169.254' resolves to 169.254.169.254."),
        ({"url": "https://localhost/"}, "Webhook URL must not resolve to a non-public IP address. 'localhost'"),
        ({"url": "https://" + "a" * 5_000}, "may be at most 4000 characters"),
        ({"events": None}, "Missing value for required parameter 'events'."),
        ({"events": []}, "Webhook events must be a non-empty list of WebhookEvent objects: []."),
        ({"events": 7}, "Invalid value 7 for parameter 'events' supplied"),
        ({"events": ["a"]}, "for parameter 'events' supplied"),
        ({"events": [{}]}, "Invalid entity ''."),
        ({"events": [{"entity": "MODEL_VERSION", "action": "DELETED"}]},
         "Invalid action 'deleted' for entity 'model_version'. Valid actions are: ['created']"),
        ({"status": "X"}, "Invalid webhook status 'X'."),
        ({"secret": "\x00"}, "NUL"), ({"description": "\x00"}, "NUL"), ({"secret": "s" * 1_001}, "1000 characters"),
    ],
    ids=str,
)  # fmt: skip
def test_a_wrong_field_is_refused_in_mlflows_words(door: Door, wrong: dict[str, Any], said: str) -> None:
    status, answer = ask(door, "POST", body={**BODY, **wrong})

    assert (status, answer["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
    assert said in answer["message"]
    assert ask(door, "GET") == (200, {})


@pytest.mark.parametrize(
    ("query", "status"),
    [("max_results=0", 200), ("max_results=1000", 200), ("max_results=1001", 400), ("max_results=-1", 400),
     ("max_results=x", 400), ("page_token=abc", 400), ("max_results=99999999999999999999", 400)],
)  # fmt: skip
def test_pages_have_mlflows_bounds(door: Door, query: str, status: int) -> None:
    new_webhook(door)

    found, answer = ask(door, "GET", f"?{query}")

    assert found == status
    if query in {"max_results=1001", "max_results=-1"}:
        assert answer["message"] == "max_results must be between 1 and 1000."


def test_an_update_takes_empty_text_as_mlflow_does(door: Door) -> None:
    webhook = new_webhook(door)
    place = "/" + webhook["webhook_id"]

    assert ask(door, "PATCH", place, {}) == (200, {"webhook": webhook})
    assert ask(door, "PATCH", place, {"name": "", "url": "", "events": [], "status": ""}) == (200, {"webhook": webhook})
    _, emptied = ask(door, "PATCH", place, {"description": ""})
    assert emptied["webhook"].keys() == webhook.keys() - {"description"}
    status, refused = ask(door, "PATCH", place, {"name": "-"})
    assert (status, refused["error_code"]) == (400, "INVALID_PARAMETER_VALUE")


@pytest.mark.parametrize(
    ("method", "tail", "body"),
    [("GET", "", None), ("PATCH", "", {"name": "x"}), ("DELETE", "", None), ("POST", "/test", {})],
)
@pytest.mark.parametrize("webhook_id", ["nope", "00000000-0000-4000-8000-000000000000", "%00", "%FF"])
def test_an_unknown_webhook_is_not_found(door: Door, method: str, tail: str, body: Any, webhook_id: str) -> None:
    status, answer = ask(door, method, f"/{webhook_id}{tail}", body)

    assert (status, answer["error_code"]) == (404, "RESOURCE_DOES_NOT_EXIST")
    if "%" not in webhook_id:
        assert answer["message"] == f"Webhook with ID {webhook_id} not found."


def test_a_test_that_is_not_possible_is_an_answer_and_no_error(door: Door, home: Path) -> None:
    webhook = new_webhook(door)
    (home / "webhook.key").unlink()

    status, answer = ask(door, "POST", f"/{webhook['webhook_id']}/test", {})

    assert status == 200
    assert answer["result"].keys() == {"success", "error_message"}
    assert answer["result"]["success"] is False
    assert "the key is gone" in answer["result"]["error_message"]


def test_a_test_of_an_event_that_is_none_is_refused(door: Door) -> None:
    webhook = new_webhook(door)

    for event in ({"entity": "MODEL_VERSION", "action": "DELETED"}, {}, 7):
        status, answer = ask(door, "POST", f"/{webhook['webhook_id']}/test", {"event": event})
        assert (status, answer["error_code"]) == (400, "INVALID_PARAMETER_VALUE")


def test_neither_an_answer_nor_the_log_shows_the_secret(door: Door) -> None:
    webhook = new_webhook(door)
    said = [ask(door, "GET"), ask(door, "PATCH", "/" + webhook["webhook_id"], {"secret": "s3cr3t-too"})]
    said.append(ask(door, "DELETE", "/" + webhook["webhook_id"]))
    events = door.send("GET", "/api/v1/events").text

    assert "webhook.updated" in events
    assert "s3cr3t" not in json.dumps(said) + events


# ── settings ──


def test_settings_say_which_addresses_and_which_key(tmp_path: Path) -> None:
    key = base64.urlsafe_b64encode(bytes(range(32))).decode()
    file = tmp_path / "touchmark.toml"
    file.write_text("webhook_http = true\n")

    settings = load_settings({"config": str(file)}, {"TOUCHMARK_WEBHOOK_KEY": key, "TOUCHMARK_WEBHOOK_PRIVATE": "1"})

    assert load_settings({}, {}).webhook_rules == WebhookRules()
    assert settings.webhook_rules == WebhookRules(("https", "http"), allow_private=True, key=key)
    assert key not in repr(settings) + repr(settings.webhook_rules)


@pytest.mark.parametrize("key", ["", "x", "A" * 43, "A" * 42 + "B=", "A" * 43 + "=\n", "+" * 42 + "A="])
def test_a_key_that_is_none_stops_the_server_and_is_not_shown(key: str) -> None:
    with pytest.raises(InvalidFieldError) as caught:
        load_settings({}, {"TOUCHMARK_WEBHOOK_KEY": key})

    assert caught.value.fields["field"] == "webhook_key"
    assert len(key) < 40 or key not in caught.value.message
